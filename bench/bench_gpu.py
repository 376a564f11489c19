# SPDX-License-Identifier: Apache-2.0
"""What we add to the driver's own time, on the emulated GPU: one process, one GPU.

Here "ours" is the time in which neither driver nor NVML was at work for us, and "theirs" the time in
which one was: lock, checkpoint, restore, unlock, and the questions about states and memory between
them, as the emulated GPU has timed them. There is nothing of containerd's to compare with.
"""
import contextlib
import os
import re

from kyb import env, protos
from lab import BUILD, OURS, Row, Skip, benchmark

CALLS = ("lock", "checkpoint", "restore", "unlock")
PHASES = ("lock", "vram_save", "vram_restore", "unlock")
VRAM = "64M"
_DONE = re.compile(r'msg="phase done" id=\S+ phase=(\w+) dur_us=(\d+)')


@contextlib.contextmanager
def _gpu_world(lab):
    """(GpuWorld, FakeGpu, Agent, a container that computes)."""
    folders = [BUILD / f for f in ("agent/kybernate-agent", "agent/kybernate-cuda-worker",
                                   "tests/fakes")]
    if not all(f.is_dir() for f in folders):
        raise Skip("the agent or the emulated GPU is not built")
    env.PATH = ":".join([*map(str, folders), env.PATH])
    os.environ.setdefault("FAKEGPU_BIN", str(BUILD / "tests/fakes"))
    import fakegpu  # pylint: disable=import-outside-toplevel,import-error
    from gpu.conftest import GpuWorld, group_config  # pylint: disable=import-outside-toplevel
    from kyb.agent import Agent  # pylint: disable=import-outside-toplevel
    with lab.world(OURS) as world, fakegpu.FakeGpu() as gpu:
        gworld = GpuWorld(world, gpu)
        agent = Agent(gworld.agent_dir, gpu, more=group_config(gpu))
        try:
            container = gworld.running(["gpu-counter", "--vram", VRAM, "--interval", "1000",
                                        "--status", "/var/state"],
                                       annotations={"kybernate.io/pause": "suspend"})
            yield gworld, gpu, agent, container
        finally:
            agent.stop()


def _driver_ms(gpu, since):
    """How long the driver and NVML were at work for us since then, in ms. With one process there is
    one call at a time, but for NVML's."""
    calls = [c for c in gpu.log(since=since) if c["end"]]
    spans = sorted((c["begin"]["ns"], c["end"]["ns"]) for c in calls)
    total = at = 0
    for begin, end in spans:
        total += max(0, end - max(begin, at))
        at = max(at, end)
    found = [c["call"] for c in calls if c["call"] in CALLS]
    assert found == list(CALLS), found
    return total / 1e6


def _last(gpu):
    return max((c["id"] for c in gpu.log()), default=0)


@benchmark(Row("suspend_overhead", "ms", "Pause and Resume with pause=suspend: all but the time "
               "in the driver (theirs: that)", target="<= 5 ms"))
def suspend(lab):
    import time  # pylint: disable=import-outside-toplevel
    with _gpu_world(lab) as (_, gpu, _agent, container):
        for number in range(-2, lab.rounds(30, 5)):
            before, began = _last(gpu), time.monotonic()
            container.pause()
            paused = time.monotonic()
            again = time.monotonic()
            container.resume()
            took = (paused - began + time.monotonic() - again) * 1000
            driver = _driver_ms(gpu, before)
            if number >= 0:
                lab.record("suspend_overhead", "ours", took - driver)
                lab.record("suspend_overhead", "theirs", driver)


@benchmark(Row("agent_overhead", "ms", "a checkpoint's phases lock, vram_save, vram_restore and "
               "unlock: all but the time in the driver (theirs: that)", target="<= 10 ms"))
def agent_overhead(lab):
    with _gpu_world(lab) as (gworld, gpu, agent, container):
        options = protos.pack(protos.CHECKPOINT_OPTIONS, protos.options.Checkpoint())
        for number in range(-1, lab.rounds(10, 3)):
            before, at = _last(gpu), len(agent.log())
            container.checkpoint(gworld.image(f"image{number}"), options)
            phases = [(name, int(us)) for name, us in _DONE.findall(agent.log()[at:])]
            took = sum(us for name, us in phases if name in PHASES) / 1000
            driver = _driver_ms(gpu, before)
            if number >= 0:
                lab.record("agent_overhead", "ours", took - driver)
                lab.record("agent_overhead", "theirs", driver)
