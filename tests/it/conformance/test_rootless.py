# SPDX-License-Identifier: Apache-2.0
"""In a user namespace: root of nothing but its own namespaces, as below a rootless containerd.

The ids are those of the machine, so that the tests may still speak to the shim; the files of control
groups may thus be written as well, as where a rootless containerd has been given some.
Sources: containerd repo, pkg/userns, pkg/shim/shim_linux.go (AdjustOOMScore, EPERM); runc repo,
rootless_linux.go.
"""
import dataclasses

import pytest

from kyb import env, procs, ttrpc
from kyb.shims import Kind

# unshare(1) cannot map ids without the programs of the package uidmap.
ENTER = """#!/usr/bin/python3
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)

def check(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

begun, mapped = os.pipe(), os.pipe()
if os.fork() == 0:
    os.read(begun[0], 1)
    for kind in ("uid", "gid"):
        with open(f"/proc/{{os.getppid()}}/{{kind}}_map", "w") as file:
            file.write("0 0 65536")
    os.write(mapped[1], b"x")
    os._exit(0)
check(libc.unshare(0x10000000))  # CLONE_NEWUSER
os.write(begun[1], b"x")
os.read(mapped[0], 1)
os.wait()
check(libc.unshare(0x00020000))  # CLONE_NEWNS
os.execv({binary!r}, [{binary!r}, *__import__("sys").argv[1:]])
"""


@dataclasses.dataclass(frozen=True)
class Rootless(Kind):
    """A shim whose 'start', and all that comes of it, is in a user namespace."""
    entry: str = ""

    @property
    def binary(self):
        return self.entry


def without_limits(spec):
    """What needs a control group, or a device, is not for the powerless to ask for."""
    del spec["linux"]["cgroupsPath"]
    del spec["linux"]["resources"]


def rootless(world, args):
    entry = world.dir / "enter"
    entry.write_text(ENTER.format(binary=world.kind.binary), encoding="ascii")
    entry.chmod(0o755)
    fields = {field.name: getattr(world.kind, field.name)
              for field in dataclasses.fields(world.kind)}
    container = world.define(args, kind=Rootless(**fields, entry=str(entry)), edit=without_limits)
    container.io = world.io(container.id, "pipes")
    if env.DRIVER == "systemd":
        container.options = world.options(systemd_cgroup=False)
    container.launch()
    return container


def test_life_in_a_user_namespace(world):
    """Mounts, terminals' and pipes' owners, processes: all that takes no right over the machine."""
    container = rootless(world, ["sh", "-c", "echo hi; echo again >/dev/stdout; probe sleep"])
    shim = container.shim_pid()
    with open(f"/proc/{shim}/uid_map", encoding="ascii") as file:
        assert file.read().split() == ["0", "0", "65536"]
    container.run()
    container.io.out.wait_for("hi\nagain\n")
    assert (container.status, procs.parent(container.pid)) == ("RUNNING", shim)
    assert container.pid in container.pids()
    added = container.exec("e", ["sh", "-c", "echo exec; exit 3"], io="pipes")
    added.start()
    assert added.finish().exit_status == 3
    assert added.io.out.wait_end() == b"exec\n"
    container.kill()
    assert container.finish().exit_status == 137
    world.sink.wait("delete", container.id)
    assert [e.topic.removeprefix("/tasks/") for e in world.sink.all(container.id)] == [
        "create", "start", "exec-added", "exec-started", "exit", "exit", "delete"]


def test_failed_create_in_a_user_namespace(world):
    """The runtime's own words, and nothing left, as anywhere else."""
    container = rootless(world, ["no-such-program"])
    with pytest.raises(ttrpc.Error) as caught:
        container.create()
    assert "OCI runtime create failed" in caught.value.message
    with pytest.raises(ttrpc.Error) as caught:
        container.state()
    assert caught.value.code == ttrpc.NOT_FOUND
