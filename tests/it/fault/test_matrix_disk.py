# SPDX-License-Identifier: Apache-2.0
"""Rows of the matrix in which the disk of the images is slow: a file system on a loop device that
the kernel lets write so many bytes a second (blkio.throttle of cgroup v1), CRIU's writes and the
agent's fsync alike."""
import contextlib
import os
import pathlib
import subprocess
import time

import pytest

from gpu.conftest import Workload, group_config
from gpu.test_checkpoint import options, state_of
from kyb import env, ttrpc
from kyb.wait import until

from .stage import AGENT, SHIM

pytestmark = pytest.mark.criu

THROTTLE = pathlib.Path("/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device")
FAST = 0  # no limit


class Disk:
    """A file system of its own at folder, on a device that can be made slow."""

    def __init__(self, image, folder, how):
        self.folder = folder
        with open(image, "wb") as file:
            file.truncate(256 << 20)
        self._run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0", str(image))
        self.device = self._run("losetup", "-f", "--show", str(image)).strip()
        name = os.path.basename(self.device)
        self.number = pathlib.Path(f"/sys/block/{name}/dev").read_text(encoding="ascii").strip()
        folder.mkdir(mode=0o700)
        self._run("mount", "-o", how, self.device, str(folder))
        folder.chmod(0o700)

    @staticmethod
    def _run(*argv):
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def speed(self, bytes_per_second):
        THROTTLE.write_text(f"{self.number} {bytes_per_second}", encoding="ascii")

    def close(self):
        self.speed(FAST)
        self._run("umount", "-l", str(self.folder))
        self._run("losetup", "-d", self.device)


@contextlib.contextmanager
def disk(world, how):
    made = Disk(world.dir / "disk.img", world.dir / "disk", how)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(name="place")
def _place(gworld, gpu, start_agent):
    """(agent, container)"""
    if not THROTTLE.exists():
        pytest.skip("no throttle of block devices here (blkio of cgroup v1)")
    gworld.write_config(SHIM)
    more = AGENT.replace('seal = "20s"', 'seal = "4s"')
    assert more != AGENT
    agent = start_agent(gworld.agent_dir, more=more + group_config(gpu))
    return agent, gworld.running()


def well(gpu, container):
    assert container.status == "RUNNING"
    Workload(container.rootfs / "var/state").goes_on()
    assert state_of(gpu, container) in (None, "RUNNING")


# CRIU writes to the disk at once where it is mounted "sync"; else it is the seal that waits.
@pytest.mark.parametrize("phase,how,speed,reason", [
    ("criu", "sync", 8 << 20, None), ("criu", "sync", 1 << 20, "TIMEOUT"),
    ("seal", "defaults", 8 << 20, None), ("seal", "defaults", 1 << 20, "TIMEOUT")],
    ids=["dump-slow", "dump-too-slow", "seal-slow", "seal-too-slow"])
def test_slow_disk(place, gworld, gpu, phase, how, speed, reason, record_property):
    agent, container = place
    fault = "too slow a disk" if reason else "slow disk"
    result = ["leave", phase, fault, 99.0, "not survived"]
    record_property("row", result)
    with disk(gworld.world, how) as slow:
        images = slow.folder / "i"
        images.mkdir(mode=0o700)
        slow.speed(speed)
        begun = time.monotonic()
        call = container.task.send("Checkpoint", id=container.id, path=str(images),
                                   options=options())
        if phase == "seal":  # the container does not wait for it, nor does the agent's loop
            until(lambda: "phase=unlock" in agent.log(), 20, "it runs again")
            well(gpu, container)
            asked = time.monotonic()
            agent.call("Status")
            assert time.monotonic() - asked < env.seconds(1)
        error = None
        try:
            ttrpc.answer(call, 60)
        except ttrpc.Error as e:
            error = e.message
        assert time.monotonic() - begun > 1, "the disk was not slow"
        over = time.monotonic()
        assert (error or "").partition(":")[0] == (reason or ""), error
        well(gpu, container)
        assert (images / "kybernate.json").exists() == (reason is None)
        result[3:] = [time.monotonic() - over,
                      f"undone ({reason}); computes on" if reason else "checkpointed; computes on"]
        slow.speed(FAST)
        until(lambda: not agent.call("Status").operations, 20)
        assert not os.listdir(agent.dir / "journal")
        if phase == "criu" and reason:
            return  # CRIU was killed, and what it leaves behind may be in its own way: see
            # docs/troubleshooting.md
        again = slow.folder / "again"
        again.mkdir(mode=0o700)
        container.checkpoint(again, options())
        well(gpu, container)
