#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Asks a driver what it answers in every situation that matters to a checkpoint: the emulated
driver or a real one. driver-580.159.04.json is what a real one said; test_oracle.py compares.

On a machine with a GPU that nobody else uses (its memory is filled up for a moment):

    oracle.py --real BUILD/tests/fakes [--record FILE]

runs the same cases on libcuda.so.1 of the system, with real-shell as the workload.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from fakegpu import Caller, FakeGpu, Lines, Shell, wait_for  # noqa: E402

CALLS = ("tid", "state", "lock", "checkpoint", "restore", "unlock")
# A GPU of this size is "full" with what the cases allocate; a real one is filled whatever its size.
FAKE_MEMORY = "256M"
UNKNOWN_UUID = "GPU-00112233-4455-6677-8899-aabbccddeeff"


class RealGpu:
    """As much of FakeGpu as Shell and Caller need, on a real driver."""

    libcuda = "libcuda.so.1"

    def __init__(self, directory):
        self.bin = pathlib.Path(directory)
        self.children = []

    def spawn(self, program, *args, **kwargs):
        if program == "gpu-shell":
            program = "real-shell"
        kwargs.setdefault("stdout", subprocess.PIPE)
        child = subprocess.Popen([str(self.bin / program), *args], bufsize=0, **kwargs)
        self.children.append(child)
        return child

    def uuid(self, _index=0):
        with Lines(self.spawn("real-shell", stdin=subprocess.PIPE)).child as child:
            lines = Lines(child)
            lines.ask("init")
            answer = lines.ask("uuid")
            lines.send("quit")
            return answer.split()[1]

    def stop(self):
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.wait()


class Oracle:
    """Runs the cases; answers is situation.call -> name of the code, or of the state."""

    def __init__(self, gpu, fill):
        self.gpu, self.fill = gpu, fill
        self.caller = Caller(gpu)
        self.answers = {}

    def ask(self, situation, call, pid, *args, caller=None, timeout=15.0):
        answer = (caller or self.caller).call(call, pid, *args, timeout=timeout)
        self.answers[f"{situation}.{call.rstrip('!')}"] = answer.name
        return answer

    def state(self, situation, pid, timeout=4.0):
        self.answers[f"{situation}.is"] = self.caller.state(pid, timeout)

    def args_of(self, call):
        return (500,) if call == "lock" else ()

    def run(self):
        for case in (self.who_is_cuda, self.states, self.arguments, self.pairs, self.long_kernel,
                     self.two_callers, self.api_blocks, self.stopped, self.caller_dies,
                     self.target_dies, self.managed, self.out_of_memory, self.other_user,
                     self.entries):
            case()
        return self.answers

    # -- cases --------------------------------------------------------------------------------

    def who_is_cuda(self):
        plain = subprocess.Popen(["sleep", "600"])
        dead = subprocess.Popen(["true"])
        dead.wait()
        only_init = Shell(self.gpu, "init")
        full = Shell(self.gpu, "init", "alloc 8")
        child = int(full.do("fork"))
        try:
            tid = next(int(t) for t in os.listdir(f"/proc/{full.pid}/task") if int(t) != full.pid)
            for name, pid in (("plain", plain.pid), ("dead", dead.pid), ("zero", 0),
                              ("negative", -1), ("self", self.caller.pid),
                              ("only_init", only_init.pid), ("forked", child),
                              ("by_thread", tid)):
                for call in CALLS:
                    self.ask(name, call, pid, *self.args_of(call))
            fresh = Caller(self.gpu, init=False)
            self.ask("caller_without_init.plain", "tid", plain.pid, caller=fresh)
            self.ask("caller_without_init", "tid", full.pid, caller=fresh)
            for call in ("tid", "state"):
                answer = self.caller.call(call, f"{full.pid}!")
                self.answers[f"null.{call}"] = answer.name
        finally:
            plain.kill()
            plain.wait()
            os.kill(child, signal.SIGKILL)

    def states(self):
        t = Shell(self.gpu, "init", "alloc 8")
        for call in ("checkpoint", "restore", "unlock"):
            self.ask("running", call, t.pid)
        self.state("running", t.pid)
        self.ask("running", "lock", t.pid, 2000)
        self.state("locked", t.pid)
        for call in ("tid", "lock", "restore"):
            self.ask("locked", call, t.pid, *self.args_of(call))
        self.ask("locked", "unlock", t.pid)
        self.ask("again", "lock", t.pid)
        self.ask("locked", "checkpoint", t.pid)
        self.state("checkpointed", t.pid)
        for call in ("tid", "lock", "checkpoint", "unlock"):
            self.ask("checkpointed", call, t.pid, *self.args_of(call))
        self.ask("checkpointed", "restore", t.pid)
        self.state("restored", t.pid)
        self.ask("restored", "unlock", t.pid)
        self.state("unlocked", t.pid)
        self.answers["unlocked.data"] = t.do("check")

    def arguments(self):
        t = Shell(self.gpu, "init", "alloc 8")
        for byte in (4, 8, 63):
            self.ask(f"reserved_{byte}", "lock", f"{t.pid}+{byte}", 2000)
        self.ask("arguments", "lock", t.pid)
        for byte in (0, 63):
            self.ask(f"reserved_{byte}", "checkpoint", f"{t.pid}+{byte}")
        self.ask("arguments", "checkpoint", t.pid)
        for byte in (12, 63):
            self.ask(f"reserved_{byte}", "restore", f"{t.pid}+{byte}")
        self.state("arguments", t.pid)
        self.ask("arguments", "restore", t.pid)
        self.ask("arguments", "unlock", t.pid)

    def pairs(self):
        t = Shell(self.gpu, "init", "alloc 8")
        uuid = self.gpu.uuid(0)
        self.caller.call("lock", t.pid)
        self.caller.call("checkpoint", t.pid)
        for name, pairs in (("unknown_old", [(UNKNOWN_UUID, uuid)]),
                            ("unknown_new", [(uuid, UNKNOWN_UUID)]),
                            ("one_too_many", [(uuid, uuid), (UNKNOWN_UUID, UNKNOWN_UUID)]),
                            ("twice", [(uuid, uuid), (uuid, uuid)])):
            self.ask(name, "restore", t.pid, *[f"{a}={b}" for a, b in pairs])
        self.state("after_bad_pairs", t.pid)
        self.ask("identity", "restore", t.pid, f"{uuid}={uuid}")
        self.ask("identity", "unlock", t.pid)
        self.answers["identity.data"] = t.do("check")

    def long_kernel(self):
        t = Shell(self.gpu, "init", "alloc 8", "kernel 2000")
        second = Caller(self.gpu)
        self.caller.begin("lock", t.pid, 1000)
        time.sleep(0.3)
        waits = second.call("state", t.pid)
        lock = self.caller.end()
        self.answers["long_kernel.state_waits_for_lock"] = str(waits.ms > 400)
        self.answers["long_kernel.lock"] = lock.name
        self.answers["long_kernel.lock_keeps_its_time"] = str(900 <= lock.ms <= 1900)
        self.state("long_kernel", t.pid)
        self.answers["long_kernel.sync"] = t.ask("sync")
        t.do("kernel 1000")
        lock = self.ask("kernel_ends", "lock", t.pid, 5000)
        self.answers["kernel_ends.lock_waited"] = str(lock.ms > 800)

    def two_callers(self):
        t = Shell(self.gpu, "init", "alloc 8", "kernel 1000")
        second = Caller(self.gpu)
        self.caller.begin("lock", t.pid, 5000)
        time.sleep(0.2)
        second.begin("lock", t.pid, 5000)
        self.answers["two_callers.first"] = self.caller.end().name
        self.answers["two_callers.second"] = second.end().name
        self.state("two_callers", t.pid)

    def api_blocks(self):
        t = Shell(self.gpu, "init", "alloc 8")
        self.ask("api", "lock", t.pid)
        t.send("api")
        self.answers["api.while_locked"] = str(t.recv(0.5))
        self.ask("api", "checkpoint", t.pid)
        self.ask("api", "restore", t.pid)
        self.answers["api.while_restored"] = str(t.recv(0.5))
        self.ask("api", "unlock", t.pid)
        self.answers["api.unlocked"] = str(t.recv(5)).strip()

    def stopped(self):
        t = Shell(self.gpu, "init", "alloc 8")
        os.kill(t.pid, signal.SIGSTOP)
        time.sleep(0.2)
        self.ask("stopped", "tid", t.pid, timeout=3)
        self.ask("stopped", "lock", t.pid, 500, timeout=3)
        self.ask("stopped", "state", t.pid, timeout=2)
        os.kill(t.pid, signal.SIGCONT)
        time.sleep(0.5)
        self.state("continued", t.pid)
        self.ask("continued", "lock", t.pid, 2000)
        os.kill(t.pid, signal.SIGSTOP)
        time.sleep(0.2)
        self.ask("stopped", "checkpoint", t.pid, timeout=2)
        os.kill(t.pid, signal.SIGCONT)
        time.sleep(0.5)
        self.state("stopped_checkpoint", t.pid)

    def caller_dies(self):
        t = Shell(self.gpu, "init", "alloc 8", "kernel 2000")
        second = Caller(self.gpu)
        second.begin("lock", t.pid)
        time.sleep(0.5)
        second.kill()
        time.sleep(2)  # the kernel is over; a "sync" might wait for an unlock
        self.state("caller_died", t.pid)
        self.ask("caller_died", "lock", t.pid, 2000)
        self.ask("caller_died", "unlock", t.pid)

    def target_dies(self):
        t = Shell(self.gpu, "init", "alloc 8", "kernel 4000")
        self.caller.begin("lock", t.pid, 9000)
        time.sleep(0.5)
        t.child.kill()
        t.child.wait()
        self.answers["target_died.lock"] = self.caller.end().name

    def managed(self):
        t = Shell(self.gpu, "init", "managed 2")
        for call in ("lock", "checkpoint"):
            self.ask("managed", call, t.pid)
        self.state("managed", t.pid)
        for call in ("restore", "unlock"):
            self.ask("managed", call, t.pid)
        self.state("managed_end", t.pid)

    def out_of_memory(self):
        t = Shell(self.gpu, "init", "alloc 128")
        for call in ("lock", "checkpoint"):
            self.ask("oom", call, t.pid)
        hog = Shell(self.gpu, "init")
        for size in self.fill:
            while hog.ask(f"alloc {size}").startswith("ok"):
                pass
        self.ask("oom", "restore", t.pid, timeout=60)
        self.state("oom", t.pid)
        hog.send("quit")
        hog.child.wait(20)
        self.ask("oom_later", "restore", t.pid)
        self.state("oom_later", t.pid)
        for call in ("unlock", "lock", "checkpoint", "tid"):
            self.ask("oom_later", call, t.pid, *self.args_of(call))
        t.child.kill()

    def other_user(self):
        if os.geteuid() != 0:
            return
        t = Shell(self.gpu, "init", "alloc 8")
        # Where that user can read it: the tree may lie below a folder that is closed to others.
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            program = shutil.copy(self.gpu.bin / "cuda-call", folder)
            library = shutil.copy(self.gpu.libcuda, folder) if os.path.isabs(
                str(self.gpu.libcuda)) else None
            nobody = Caller(self.gpu, library=library, program=program, user=65534, group=65534)
            for call in CALLS:
                self.ask("other_user", call, t.pid, *self.args_of(call), caller=nobody)
        self.state("other_user", t.pid)

    def entries(self):
        for symbol, version in (("cuCheckpointProcessLock", 12080),
                                ("cuCheckpointProcessLock", 12070),
                                ("cuCheckpointProcessLock", 99000),
                                ("cuCheckpointProcessRestore", 13000), ("cuNoSuch", 13000),
                                ("cuCheckpointOperationComplete", 13000),
                                ("cuDeviceGetUuid", 11000), ("cuDeviceGetUuid", 9020)):
            answer = self.caller.call("entry", symbol, version)
            found = "found" if answer.value >= 100 else "not found"
            self.answers[f"entry.{symbol}.{version}"] = f"{answer.name}, {found}"


def ask_fake(case=None, **settings):
    """All cases, or the one of that name."""
    with FakeGpu(gpus=1, memory=FAKE_MEMORY, **settings) as gpu:
        oracle = Oracle(gpu, fill=(64, 16, 4, 1))
        if case is None:
            return oracle.run()
        getattr(oracle, case)()
        return oracle.answers


def ask_real(directory):
    gpu = RealGpu(directory)
    try:
        return Oracle(gpu, fill=(16384, 4096, 1024, 256, 64, 16)).run()
    finally:
        gpu.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--real", metavar="DIR", help="folder with real-shell and cuda-call")
    parser.add_argument("--record", metavar="FILE", help="write the answers there")
    args = parser.parse_args()
    answers = ask_real(args.real) if args.real else ask_fake()
    if args.record:
        with open(args.record, "w", encoding="ascii") as f:
            json.dump(answers, f, indent=1)
    here = pathlib.Path(__file__).resolve().parent
    record = json.loads((here / "driver-580.159.04.json").read_text())
    measured, other = record["answers"], record["other_answers"]
    differ = {k: (v, measured[k]) for k, v in answers.items()
              if k in measured and v not in (measured[k], other.get(k))}
    for case, (now, then) in sorted(differ.items()):
        print(f"{case}: {now}, but measured was {then}")
    print(f"{len(answers)} answers, {len(differ)} differ")
    return bool(differ)


if __name__ == "__main__":
    sys.exit(main())
