# SPDX-License-Identifier: Apache-2.0
"""Mounts that no config.json tells of, as NVIDIA's toolkit makes them: the driver's libraries, its
firmware, device nodes and sockets, bound one by one by a hook while the container is made."""
import concurrent.futures
import hashlib
import json
import os
import pathlib
import select
import socket
import stat
import struct
import subprocess
import sys

import pytest

from kyb import env
from kyb.wait import until

from .test_restore import criu_logs, refused

pytestmark = pytest.mark.criu

LIBRARY = "/usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05"
FIRMWARE = "/lib/firmware/nvidia/580.95.05"
SOCKET = "/run/nvidia-persistenced/socket"
NODE = "/dev/nvidia-uvm"
PARAMS = "/proc/version"  # stands for /proc/driver/nvidia/params, which only a driver makes
SCRATCH = "/run/nvidia-ctk-hook4711"

# As nvidia-container-cli does it: into the new mount namespace, before the root is changed.
HOOK = """#!/bin/sh
state=$(cat)
pid=$(echo "$state" | sed -n 's/.*"pid":\\([0-9]*\\).*/\\1/p')
bundle=$(echo "$state" | sed -n 's/.*"bundle":"\\([^"]*\\)".*/\\1/p')
root=$bundle/rootfs exec nsenter -t "$pid" -m sh -c '
file() {{
    mkdir -p "$(dirname "$root$2")" && {{ [ -e "$root$2" ] || touch "$root$2"; }}
    mount --bind "$1" "$root$2"
}}
set -e
file {driver}/libcuda.so.580.95.05 {LIBRARY}
mount -o remount,bind,ro,nosuid,nodev "$root{LIBRARY}"
mkdir -p "$root{FIRMWARE}" && mount --bind {driver}/firmware "$root{FIRMWARE}"
file {driver}/nvidia-uvm {NODE}
file {driver}/socket {SOCKET}
mkdir -p "$root{SCRATCH}" && mount -t tmpfs tmpfs "$root{SCRATCH}"
echo "ModifyDeviceFiles: 0" >"$root{SCRATCH}/params"
file "$root{SCRATCH}/params" {PARAMS}
' >>{driver}/log 2>&1
"""


class Driver:
    """What an installed driver has on a node, and the hook that mounts it."""

    def __init__(self, folder):
        self.dir = folder
        (folder / "firmware").mkdir(parents=True)
        self.library = folder / "libcuda.so.580.95.05"
        self.library.write_bytes(os.urandom(300_000))
        (folder / "firmware/gsp_ga10x.bin").write_bytes(b"firmware")
        os.mknod(folder / "nvidia-uvm", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(folder / "socket"))
        self.hook = folder / "hook"
        self.hook.write_text(HOOK.format(**{**globals(), "driver": folder}), encoding="ascii")
        self.hook.chmod(0o755)

    def edit(self, spec):
        """/run is the root file system's, as in Kubernetes."""
        spec["mounts"] = [m for m in spec["mounts"] if m["destination"] != "/run"]
        spec["hooks"] = {"createRuntime": [{"path": str(self.hook), "args": ["hook"]}]}

    def edit_without(self, spec):
        self.edit(spec)
        del spec["hooks"]

    def seen_by(self, pid):
        """The container has it all."""
        root = pathlib.Path(f"/proc/{pid}/root")
        digest = hashlib.sha256((root / LIBRARY[1:]).read_bytes()).hexdigest()
        assert digest == hashlib.sha256(self.library.read_bytes()).hexdigest()
        assert (root / FIRMWARE[1:] / "gsp_ga10x.bin").read_bytes() == b"firmware"
        assert (root / NODE[1:]).stat().st_rdev == os.makedev(1, 3)
        assert stat.S_ISSOCK((root / SOCKET[1:]).stat().st_mode)
        assert (root / PARAMS[1:]).read_text() == "ModifyDeviceFiles: 0\n"
        mounts = (line.split() for line in
                  pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines())
        ours = {m[4]: m[5] for m in mounts
                if m[4] in (LIBRARY, FIRMWARE, NODE, SOCKET, SCRATCH, PARAMS)}
        assert len(ours) == 6 and ours[LIBRARY].startswith("ro,nosuid,nodev")
        return ours


@pytest.fixture
def shared(gnode):
    """What is mounted in bundles propagates, as it does on any host with systemd."""
    folder = str(gnode.node.dir / "s/io.containerd.runtime.v2.task")
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "--make-shared", folder], check=True)
    yield
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def driver(gnode, tmp_path_factory):
    """A Driver whose files may be mounted."""
    made = Driver(tmp_path_factory.mktemp("driver"))
    gnode.write_shim_config(f'[gpu]\nmount_prefixes = ["{made.dir}"]\n')
    yield made
    gnode.write_shim_config()


# It has a file open on the mount, and goes on reading it.
WITH_LIBRARY = ["sh", "-c", f"exec 9<{LIBRARY}; exec gpu-counter --vram 16M --interval 50 "
                            "--status /var/state"]


def recorded(gnode, ref="ck"):
    reply = gnode.agent.call("GetCheckpoint", checkpoint_ref=ref)
    return {m["destination"]: m for m in json.loads(reply.metadata_json)["mounts"]}


def test_a_hooks_mounts_come_back(gnode, driver):
    """In a new container with the hook, whose mounts CRIU's replace."""
    first = gnode.running(WITH_LIBRARY, edit=driver.edit)
    options = driver.seen_by(first.pid)
    outcome = gnode.checkpoint(first)
    assert outcome.ok, outcome
    gnode.ended(first)
    mounts = recorded(gnode)
    assert mounts[LIBRARY]["source"] == str(driver.library)
    assert mounts[LIBRARY]["external"] and not mounts[LIBRARY].get("configured")
    assert mounts[LIBRARY]["size"] == 300_000
    assert mounts[FIRMWARE]["kind"] == "directory" and mounts[NODE]["kind"] == "node"
    assert mounts[SCRATCH]["type"] == "tmpfs" and not mounts[SCRATCH].get("external")
    assert mounts["/bin/gpu-counter"]["configured"]
    second = gnode.new_life("ck", args=WITH_LIBRARY, edit=driver.edit)
    second.run()
    gnode.watch(second).goes_on()
    assert driver.seen_by(second.pid) == options


def test_a_hook_on_a_host_that_propagates(gnode, driver, shared):
    """At the restore the hook mounts into the host's root file system: nothing of it stays, and it
    does not take the container's mounts away with it."""
    first = gnode.running(WITH_LIBRARY, edit=driver.edit)
    options = driver.seen_by(first.pid)
    assert gnode.checkpoint(first).ok
    gnode.ended(first)
    second = gnode.new_life("ck", args=WITH_LIBRARY, edit=driver.edit)
    second.run()
    gnode.watch(second).goes_on()
    assert driver.seen_by(second.pid) == options
    assert str(driver.dir) not in pathlib.Path("/proc/self/mountinfo").read_text()
    second.kill()
    gnode.ended(second)
    del shared


def test_without_the_hook(gnode, driver):
    """The agent makes the new container without hooks; and once more, of what came back."""
    first = gnode.running(WITH_LIBRARY, edit=driver.edit)
    options = driver.seen_by(first.pid)
    assert gnode.checkpoint(first, leave=True).ok
    gnode.watch(first).goes_on()
    outcome, second = gnode.clone("ck")
    assert outcome.ok, outcome
    gnode.watch(second).goes_on()
    assert driver.seen_by(second.pid) == options
    outcome = gnode.checkpoint(second, "again")
    assert outcome.ok, outcome
    gnode.ended(second)
    assert recorded(gnode, "again").keys() == recorded(gnode).keys()
    outcome, third = gnode.clone("again")
    assert outcome.ok, outcome
    gnode.watch(third).goes_on()
    assert driver.seen_by(third.pid) == options


def cdi(driver):
    """The same files by config.json, as CDI has them: the sources are this node's."""
    def edit(spec):
        driver.edit_without(spec)
        spec["mounts"] += [
            {"destination": dest, "type": "bind", "source": str(source), "options": options}
            for dest, source, options in (
                (LIBRARY, driver.library, ["rbind", "ro", "nosuid", "nodev"]),
                (FIRMWARE, driver.dir / "firmware", ["rbind", "ro"]),
                (NODE, driver.dir / "nvidia-uvm", ["rbind"]),
                (SOCKET, driver.dir / "socket", ["rbind"]))]
    return edit


def elsewhere(driver, folder):
    """The same driver, as another node has it in another place."""
    other = Driver(folder)
    other.library.write_bytes(driver.library.read_bytes())
    return other


def seen_by_cdi(driver, pid):
    root = pathlib.Path(f"/proc/{pid}/root")
    assert (root / LIBRARY[1:]).read_bytes() == driver.library.read_bytes()
    assert (root / LIBRARY[1:]).stat().st_ino == driver.library.stat().st_ino
    assert (root / FIRMWARE[1:] / "gsp_ga10x.bin").stat().st_ino == \
        (driver.dir / "firmware/gsp_ga10x.bin").stat().st_ino
    assert (root / NODE[1:]).stat().st_rdev == os.makedev(1, 3)


def test_cdi_of_another_node(gnode, driver, tmp_path_factory):
    """The new config.json decides, for mounts of the old one and for a hook's."""
    other = elsewhere(driver, tmp_path_factory.mktemp("other"))
    first = gnode.running(WITH_LIBRARY, edit=cdi(driver))
    assert gnode.checkpoint(first).ok
    gnode.ended(first)
    assert recorded(gnode)[LIBRARY]["configured"]
    driver.library.rename(driver.dir / "gone")
    second = gnode.new_life("ck", args=WITH_LIBRARY, edit=cdi(other))
    second.run()
    gnode.watch(second).goes_on()
    seen_by_cdi(other, second.pid)


def test_from_a_hook_to_cdi(gnode, driver, tmp_path_factory):
    other = elsewhere(driver, tmp_path_factory.mktemp("other"))
    first = gnode.running(WITH_LIBRARY, edit=driver.edit)
    assert gnode.checkpoint(first).ok
    gnode.ended(first)
    driver.library.rename(driver.dir / "gone")
    second = gnode.new_life("ck", args=WITH_LIBRARY, edit=cdi(other))
    second.run()
    gnode.watch(second).goes_on()
    seen_by_cdi(other, second.pid)


def test_from_cdi_to_nothing(gnode, driver):
    """What the new config.json has not is mounted from where it was, if it is a driver's."""
    first = gnode.running(WITH_LIBRARY, edit=cdi(driver))
    assert gnode.checkpoint(first).ok
    gnode.ended(first)
    second = gnode.new_life("ck", args=WITH_LIBRARY, edit=driver.edit_without)
    second.run()
    gnode.watch(second).goes_on()
    seen_by_cdi(driver, second.pid)


def new_life_refused(gnode, driver, **more):
    """Its message. Nothing has been run, and the container could not be told from a new one."""
    more.setdefault("edit", driver.edit_without)
    container = gnode.new_life("ck", args=WITH_LIBRARY, **more)
    message = refused(container)
    assert message.startswith("MOUNT_MISMATCH: "), message
    assert not criu_logs(gnode)
    return message


def test_refused_where_it_has_no_counterpart(gnode, driver):
    """Before CRIU runs: a file that is missing, another, of another kind; a mount of config.json
    that the new one lacks. And nothing of it stands in the way when that is put right."""
    first = gnode.running(WITH_LIBRARY, edit=driver.edit)
    assert gnode.checkpoint(first).ok
    gnode.ended(first)
    for log in criu_logs(gnode):
        log.unlink()
    library = driver.library.read_bytes()
    driver.library.unlink()
    message = new_life_refused(gnode, driver)
    assert LIBRARY in message and str(driver.library) in message
    driver.library.write_bytes(library + b"newer")
    assert "300005 bytes instead of 300000" in new_life_refused(gnode, driver)
    driver.library.write_bytes(library)
    (driver.dir / "nvidia-uvm").unlink()
    (driver.dir / "nvidia-uvm").write_bytes(b"")
    assert f"had {NODE}" in new_life_refused(gnode, driver)
    (driver.dir / "nvidia-uvm").unlink()
    os.mknod(driver.dir / "nvidia-uvm", stat.S_IFCHR | 0o666, os.makedev(1, 3))

    def without_program(spec):
        driver.edit_without(spec)
        spec["mounts"] = [m for m in spec["mounts"] if m["destination"] != "/bin/gpu-counter"]

    assert "had /bin/gpu-counter" in new_life_refused(gnode, driver, edit=without_program)
    second = gnode.new_life("ck", args=WITH_LIBRARY, edit=driver.edit_without)
    second.run()
    gnode.watch(second).goes_on()
    driver.seen_by(second.pid)


def test_foreign_mounts_stay_foreign(gnode, driver):
    """What does not come from where a driver lies is not declared: CRIU says so, and the container
    computes on."""
    gnode.write_shim_config()
    first = gnode.running(WITH_LIBRARY, edit=driver.edit)
    outcome = gnode.checkpoint(first)
    assert outcome.reason == "CRIU_DUMP_FAILED", outcome
    assert "proper root mount" in str(outcome), outcome
    gnode.watch(first).goes_on()


# A process of its own: one with threads, as gRPC makes them, cannot change its mount namespace.
MOUNT_STUCK = """import ctypes, os, sys
pid, place, device = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
data = f"fd={device},rootmode=40000,user_id=0,group_id=0"
namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
if libc.setns(namespace, 0) or libc.mount(b"stuck", place.encode(), b"fuse", 0, data.encode()):
    sys.exit(os.strerror(ctypes.get_errno()))
"""


def mount_stuck(pid, place):
    """Mounts a FUSE file system whose daemon never answers into a container; its device."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    subprocess.run([sys.executable, "-c", MOUNT_STUCK, str(pid), place, str(device)],
                   pass_fds=[device], check=True)
    return device


def read_but_never_answer(device):
    """Beyond INIT. Whoever waits for a request that was read cannot be killed any more."""
    def request():
        assert select.select([device], [], [], env.seconds(10))[0], "nobody asks"
        return os.read(device, 1 << 17)

    unique = struct.unpack_from("=IIQ", request())[2]
    os.write(device, struct.pack("=IiQ", 16 + 64, 0, unique) +
             struct.pack("=IIIIHHII", 7, 31, 0, 0, 1, 1, 4096, 1).ljust(64, b"\0"))
    request()


def lookers(container):
    """The helpers of a container's shim."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"look-at-mounts" in words and container.id.encode() in words:
            found.append(entry.parent.name)
    return found


def test_a_file_system_that_does_not_answer(gnode, driver):
    """As that of a FUSE daemon which is paused with its container: the checkpoint is refused, and
    the shim serves others meanwhile and afterwards."""
    gnode.write_shim_config('[timeouts]\nquiesce = "2s"\n')
    first = gnode.running(edit=driver.edit)
    (pathlib.Path(f"/proc/{first.pid}/root") / "stuck").mkdir()
    device = mount_stuck(first.pid, "/stuck")
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            outcome = pool.submit(gnode.checkpoint, first, leave=True)
            read_but_never_answer(device)
            assert first.status == "RUNNING" and not outcome.done()
            outcome = outcome.result(30)
        assert "TIMEOUT" in str(outcome) and "mounts could not be looked at" in str(outcome), outcome
        assert first.status == "RUNNING"
        gnode.watch(first).goes_on()
        assert lookers(first), "the helper was to be one that cannot be killed"
    finally:
        os.close(device)
    until(lambda: not lookers(first))
