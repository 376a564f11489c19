# SPDX-License-Identifier: Apache-2.0
"""What a shim costs while nothing happens: memory, threads, descriptors, CPU time.

Every pod has one container of the real OCI runtime and FIFOs for its output with a reader, and a
connection to its shim is held, as containerd holds one. Both shims' pods are up at the same time.
"""
import os
import pathlib
import re
import time

from kyb import procs, protos
from lab import Row, benchmark

PODS, IDLE_PODS, IDLE_SECONDS = 50, 100, 60
SETTLE = 3  # seconds after the last pod is up
EXECS = 1000


class _Fifos:
    """Output of a container that says nothing: a reader is there, and never reads."""
    stdin = ""
    out = err = None

    def __init__(self, folder):
        folder.mkdir()
        self.stdout, self.stderr = str(folder / "stdout"), str(folder / "stderr")
        self._fds = []
        for path in (self.stdout, self.stderr):
            os.mkfifo(path)
            self._fds.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))

    def close(self):
        while self._fds:
            os.close(self._fds.pop())


class _Pods:
    """Shims with one container each, of both sides, alive until the end of the run."""

    def __init__(self, lab):
        self.lab = lab
        self._contexts = [lab.world(side) for side in lab.sides]
        self._worlds = [context.__enter__() for context in self._contexts]
        self._ios = []
        self.pids = {side.name: [] for side in lab.sides}

    def grow(self, count):
        """Until there are count pods of each side, and some time has passed."""
        for number in range(len(self.pids["ours"]), count):
            for side, world in zip(self.lab.sides, self._worlds):
                io = _Fifos(world.dir / f"io{number}")
                self._ios.append(io)
                container = world.container(io=io)
                container.run()
                self.pids[side.name].append(container.shim_pid())
        time.sleep(SETTLE)

    def first(self, count):
        """(side, pid) of the first count pods of each."""
        self.grow(count)
        return [(side, pid) for side in self.lab.sides for pid in self.pids[side.name][:count]]

    def close(self):
        for context in self._contexts:
            context.__exit__(None, None, None)
        for io in self._ios:
            io.close()


def _pods(lab):
    return lab.shared("pods", lambda: _Pods(lab), _Pods.close)


def memory(pid):
    """{field of smaps_rollup: kB}"""
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.M)}


def private(pid):
    """kB that nobody shares: what goes away with the process."""
    fields = memory(pid)
    return fields["Private_Clean"] + fields["Private_Dirty"]


@benchmark(
    Row("shim_private_memory", "kB", "private memory (USS) of the shim of a pod, of 50 pods",
        target="<= 0.1"),
    Row("shim_pss", "kB", "its proportional memory (PSS)"),
    Row("shim_rss", "kB", "its resident memory (RSS)", target="<= 0.1"),
    Row("shim_threads", "", "its threads", target="ours <= 2"),
    Row("shim_fds", "", "its descriptors", target="ours <= 16"))
def at_rest(lab):
    for side, pid in _pods(lab).first(lab.rounds(PODS, 5)):
        fields = memory(pid)
        lab.record("shim_private_memory", side, private(pid))
        lab.record("shim_pss", side, fields["Pss"])
        lab.record("shim_rss", side, fields["Rss"])
        lab.record("shim_threads", side, int(procs.status(pid, "Threads")))
        lab.record("shim_fds", side, len(procs.fds(pid)))


def _cpu_ms(pid):
    """On a CPU so far, of all its threads that live."""
    times = (path.read_text(encoding="ascii").split()[0]
             for path in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(map(int, times)) / 1e6


def _switches(pid):
    """How often its threads were put on a CPU."""
    sums = (sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", path.read_text(encoding="utf-8"))))
            for path in pathlib.Path(f"/proc/{pid}/task").glob("*/status"))
    return sum(sums)


@benchmark(
    Row("idle_cpu", "ms/min", "CPU time of all shims of 100 idle pods in a minute",
        target="<= 0.1"),
    Row("idle_wakeups", "1/min", "how often they woke up"))
def idle(lab):
    pods = _pods(lab).first(lab.rounds(IDLE_PODS, 5))
    for _ in range(lab.rounds(3, 1)):
        before = [(_cpu_ms(pid), _switches(pid)) for _, pid in pods]
        began = time.monotonic()
        time.sleep(lab.rounds(IDLE_SECONDS, 3))
        minutes = (time.monotonic() - began) / 60
        sums = {side.name: [0, 0] for side in lab.sides}
        for (side, pid), (cpu, switches) in zip(pods, before):
            sums[side.name][0] += _cpu_ms(pid) - cpu
            sums[side.name][1] += _switches(pid) - switches
        for side in lab.sides:
            lab.record("idle_cpu", side, sums[side.name][0] / minutes)
            lab.record("idle_wakeups", side, sums[side.name][1] / minutes)


def _null_options(lab, world):
    return protos.pack(protos.RUNC_OPTIONS, protos.options.Runc(
        binary_name=lab.program("bench/null-runtime"), root=str(world.dir / "r")))


def _exec_once(container, number):
    process = container.exec(f"e{number}", ["true"])
    process.start()
    process.kill()
    process.finish()


@benchmark(
    Row("private_before_execs", "kB", "private memory of a shim with one container, no exec yet"),
    Row("private_after_execs", "kB", "the same shim after 1,000 execs"))
def execs(lab):
    for side in lab.sides:
        for _ in range(lab.rounds(3, 1)):
            with lab.world(side) as world:
                container = world.container(options=_null_options(lab, world))
                container.run()
                pid = container.shim_pid()
                lab.record("private_before_execs", side, private(pid))
                for number in range(lab.rounds(EXECS, 50)):
                    _exec_once(container, number)
                lab.record("private_after_execs", side, private(pid))


@benchmark(
    Row("pod_of_five_private", "kB", "private memory of a shim with five containers"),
    Row("pod_of_five_fds", "", "its descriptors"))
def pod_of_five(lab):
    for side in lab.sides:
        for _ in range(lab.rounds(5, 1)):
            with lab.world(side) as world:
                ios = [_Fifos(world.dir / f"io{number}") for number in range(5)]
                first = world.container(io=ios[0])
                first.run()
                for io in ios[1:]:
                    world.container(io=io, group=first.id).run()
                time.sleep(1)
                pid = first.shim_pid()
                lab.record("pod_of_five_private", side, private(pid))
                lab.record("pod_of_five_fds", side, len(procs.fds(pid)))
            for io in ios:
                io.close()
