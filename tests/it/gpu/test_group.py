# SPDX-License-Identifier: Apache-2.0
"""All CUDA processes of a container together: every error of the driver in every call, for one of 1,
2 and 8 processes; who is found; and that all are worked on at the same time."""
import os
import pathlib
import signal
import time

import pytest

from kyb import cgroups, procs, protos, ttrpc
from kyb.agent import pb
from kyb.wait import until

from .conftest import Workload

SUSPEND = {"kybernate.io/pause": "suspend"}
# CUresult as cuda.h has it: what the checkpoint calls are documented to return, what they were seen
# to return, and some that they never should.
CODES = [1, 2, 3, 4, 34, 36, 46, 100, 304, 401, 500, 600, 800, 801, 802, 803, 804, 999]
THERE = ["get_restore_tid", "get_state", "lock", "checkpoint"]
BACK = ["get_state", "restore", "unlock"]


def options(**fields):
    return protos.pack(protos.CHECKPOINT_OPTIONS, protos.options.Checkpoint(**fields))


def group(gworld, n, interval=10, vram="1M", patience=20, **more):
    """A container of n CUDA processes that all compute: (container, workloads)."""
    container = gworld.container(["gpu-counter", "--procs", str(n), "--vram", vram, "--interval",
                                  str(interval), "--status", "/var/state"], annotations=SUSPEND,
                                 **more)
    container.run()
    workloads = [Workload(container.rootfs / f"var/state.{i}") for i in range(n)]
    for one in workloads:
        one.ready(patience=patience)
    return container, workloads


def mine(gpu, container):
    """What the driver says of the container's CUDA processes; the agent's worker is one as well."""
    inside = cgroups.members(cgroups.of(container.pid, "freezer"))
    return {pid: p for pid, p in gpu.processes().items() if pid in inside}


def all_compute(gpu, container, workloads):
    """Counters, checksums of all GPU memory, states."""
    before = [w.step for w in workloads]
    for one, step in zip(workloads, before):
        one.goes_on(step)
    assert {p["state"] for p in mine(gpu, container).values()} == {"RUNNING"}


def reason_of(error):
    word = error.message.split(":", 1)[0]
    assert "REASON_" + word in pb.Reason.keys(), error.message
    return word


def try_to(verb):
    """None, or the reason why not."""
    try:
        verb()
    except ttrpc.Error as e:
        return reason_of(e)
    return None


class Matrix:
    """Rows of a table: call, code, what became of it."""

    def __init__(self, gworld, gpu, n):
        self.gpu = gpu
        self.container, self.workloads = group(gworld, n)
        self.victim = sorted(mine(gpu, self.container))[n // 2]
        self.rows = []

    def there(self, call, code):
        """One error on the way there: suspended all the same, or everything as it was."""
        self.gpu.fault(call=call, code=code, pid=self.victim, count=1)
        why = try_to(self.container.pause)
        self._was_hit()
        if why is None:
            assert self.container.status == "PAUSED"
            assert self.gpu.gpu()["used"] == 0
            self.container.resume()
        self._runs()
        self.rows.append((call, code, why))

    def back(self, call, code):
        """One error on the way back: resumed all the same, or suspended as it was."""
        self.container.pause()
        self.gpu.fault(call=call, code=code, pid=self.victim, count=1)
        why = try_to(self.container.resume)
        self._was_hit()
        if why is not None:
            assert self.container.status == "PAUSED"
            assert cgroups.frozen(self.container.pid)
            self.container.resume()
        self._runs()
        self.rows.append((call, code, why))

    def _was_hit(self):
        """The error did come; no more of it."""
        (rule,) = self.gpu.ctl("faults")["faults"]
        assert rule["hits"] == 1
        self.gpu.clear()

    def _runs(self):
        assert self.container.status == "RUNNING"
        assert {p["state"] for p in mine(self.gpu, self.container).values()} == {"RUNNING"}

    def refused(self, call):
        return {why for c, _, why in self.rows if c == call}


@pytest.mark.parametrize("n", [1, 2, 8])
def test_every_error_on_the_way_there(gworld, gpu, start_agent, n):
    start_agent(gworld.agent_dir)
    matrix = Matrix(gworld, gpu, n)
    for call in THERE:
        for code in CODES:
            matrix.there(call, code)
        all_compute(gpu, matrix.container, matrix.workloads)
    assert matrix.refused("checkpoint") >= {"CUDA_SAVE_FAILED"}
    assert None not in matrix.refused("checkpoint")  # one that failed is never taken for saved
    assert "LOCK_TIMEOUT" in matrix.refused("lock")


@pytest.mark.parametrize("n", [1, 2, 8])
def test_every_error_on_the_way_back(gworld, gpu, start_agent, n):
    start_agent(gworld.agent_dir)
    matrix = Matrix(gworld, gpu, n)
    for call in BACK:
        for code in CODES:
            matrix.back(call, code)
        all_compute(gpu, matrix.container, matrix.workloads)
    assert None not in matrix.refused("restore")


# --- who is found ---

def test_in_a_cgroup_below(gworld, gpu, start_agent):
    """A process that the container, or somebody on the node, has put into a cgroup below its own."""
    start_agent(gworld.agent_dir)
    container, workloads = group(gworld, 2)
    victim = max(mine(gpu, container))
    with cgroups.below(container.pid, "inner") as move:
        move(victim)
        container.pause()
        assert gpu.gpu()["used"] == 0
        container.resume()
        all_compute(gpu, container, workloads)
        move(victim, up=True)


def test_an_exec_with_cuda(gworld, gpu, start_agent):
    """An exec is part of its container."""
    start_agent(gworld.agent_dir)
    container, workloads = group(gworld, 1)
    added = container.exec("e", ["gpu-counter", "--vram", "1M", "--interval", "10", "--status",
                                 "/var/other"], env=container_env(container))
    added.start()
    other = Workload(container.rootfs / "var/other").ready()
    container.pause()
    assert gpu.gpu()["used"] == 0
    container.resume()
    all_compute(gpu, container, [*workloads, other])
    added.kill()
    added.finish()


def container_env(container):
    text = pathlib.Path(f"/proc/{container.pid}/environ").read_bytes()
    return [v for v in text.decode().split("\0") if v and not v.startswith("PATH=")]


def catches(pid, number):
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.split("SigCgt:")[1].split()[0], 16) >> (number - 1) & 1


def test_late_cuinit_is_caught(gworld, gpu, start_agent):
    """A process that calls cuInit while the others are being locked is locked, too."""
    start_agent(gworld.agent_dir)
    container, workloads = group(gworld, 2)
    late = container.exec("e", ["gpu-counter", "--vram", "1M", "--interval", "10", "--init-signal",
                                "--status", "/var/late"], env=container_env(container))
    late.start()
    # The OCI runtime's own init catches every signal, before it becomes the program.
    until(lambda: procs.command(late.pid)[:1] == ["gpu-counter"] and
          catches(late.pid, signal.SIGUSR1), what="the late one is ready for its signal")
    before = set(mine(gpu, container))
    rule = gpu.fault(call="lock", hang=True, count=1)
    pause = container.task.send("Pause", id=container.id)
    gpu.wait_held(rule)
    os.kill(late.pid, signal.SIGUSR1)
    until(lambda: set(mine(gpu, container)) - before, what="the late one has CUDA")
    gpu.release(rule)
    ttrpc.answer(pause, 30)
    assert gpu.gpu()["used"] == 0
    assert [p["state"] for p in mine(gpu, container).values()] == 3 * ["CHECKPOINTED"]
    container.resume()
    all_compute(gpu, container, [*workloads, Workload(container.rootfs / "var/late").ready()])
    late.kill()
    late.finish()


# --- at the same time ---

def spans(gpu, call):
    """(first begin, last end, longest single call) in seconds."""
    done = [c for c in gpu.log(call=call)]
    begin = min(c["begin"]["ns"] for c in done)
    end = max(c["end"]["ns"] for c in done)
    longest = max(c["end"]["ns"] - c["begin"]["ns"] for c in done)
    return len(done), (end - begin) / 1e9, longest / 1e9


@pytest.mark.parametrize("call,verb", [("lock", "pause"), ("checkpoint", "pause"),
                                       ("restore", "resume"), ("unlock", "resume")])
def test_all_at_the_same_time(gworld, gpu, start_agent, call, verb):
    """Eight that take 300 ms each take no longer than 1.5 times the slowest one."""
    start_agent(gworld.agent_dir)
    container, workloads = group(gworld, 8)
    gpu.fault(call=call, delay_ms=300)
    container.pause()
    container.resume()
    n, together, longest = spans(gpu, call)
    assert n == 8
    assert together <= 1.5 * longest, f"{verb}: {together:.3f} s, the slowest {longest:.3f} s"
    gpu.clear()
    all_compute(gpu, container, workloads)


@pytest.mark.skipif("KYB_IT_LARGE" not in os.environ, reason="needs 17 GiB: set KYB_IT_LARGE")
def test_eight_gigabytes(gworld, start_agent):
    """Eight processes with 1 GiB each: lock and save no longer than 1.5 times the slowest one."""
    import fakegpu  # pylint: disable=import-outside-toplevel,import-error
    with fakegpu.FakeGpu(memory="16G") as gpu:
        start_agent(gworld.agent_dir, gpu=gpu)
        gworld.gpu = gpu
        container, workloads = group(gworld, 8, interval=2000, vram="1G", patience=120)
        before = time.monotonic()
        container.pause()
        took = time.monotonic() - before
        _, _, lock = spans(gpu, "lock")
        _, _, save = spans(gpu, "checkpoint")
        print(f"pause {took:.2f} s, slowest lock {lock:.2f} s, slowest save {save:.2f} s")
        assert took <= 1.5 * (lock + save)
        container.resume()
        for one in workloads:
            one.goes_on(patience=120)
