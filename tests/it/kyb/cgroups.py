# SPDX-License-Identifier: Apache-2.0
"""Control groups of test containers: their names, what is in them, and getting rid of them.

Every group that a test makes carries the token of its world in its name, so that leftovers are
found by name wherever the OCI runtime or systemd put them.
"""
import contextlib
import functools
import os
import pathlib
import subprocess
import time

from . import env, procs

_ROOT = pathlib.Path("/sys/fs/cgroup")


@functools.lru_cache(None)
def hierarchies():
    """Mount points of all cgroup hierarchies: one on a v2 machine."""
    found = []
    for line in pathlib.Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, point, kind = line.split()[:3]
        if kind in ("cgroup", "cgroup2") and point.startswith(str(_ROOT)):
            found.append(pathlib.Path(point))
    return found


def path_for(token, container_id):
    """What to write into a spec as cgroupsPath."""
    if env.DRIVER == "systemd":
        return f"system.slice:{token}:{container_id}"
    return f"/{token}-{container_id}"


def of(pid, controller):
    """Folder of the group of pid; on cgroup v2 the controller does not matter."""
    text = pathlib.Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        if env.cgroup_v2() and names == "":
            return _ROOT / path.lstrip("/")
        if not env.cgroup_v2() and controller in names.split(","):
            return _ROOT / controller / path.lstrip("/")
    raise LookupError(f"{controller} of {pid}: {text}")


def folders_of(pid):
    """The groups of pid in every hierarchy."""
    found = []
    for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
        _, names, path = line.split(":", 2)
        top = _ROOT if env.cgroup_v2() else _ROOT / names.removeprefix("name=")
        if path != "/" and (top / path.lstrip("/")).is_dir():
            found.append(top / path.lstrip("/"))
    return found


@contextlib.contextmanager
def below(pid, name):
    """A group below that of pid, in every hierarchy; yields move(pid, up=False)."""
    tops = folders_of(pid)
    for top in tops:
        (top / name).mkdir()
        for file in ("cpuset.cpus", "cpuset.mems"):  # a new cpuset takes nobody without
            if (top / file).exists():
                (top / name / file).write_text((top / file).read_text())

    def move(member, up=False):
        for top in tops:
            folder = top if up else top / name
            (folder / "cgroup.procs").write_text(str(member), encoding="ascii")

    try:
        yield move
    finally:
        for top in tops:
            try:
                (top / name).rmdir()
            except OSError:
                pass  # remove() does, at the end of the world


def members(folder):
    """Pids in folder and below it."""
    found = []
    for base, _, files in os.walk(folder):
        if "cgroup.procs" in files:
            try:
                text = pathlib.Path(base, "cgroup.procs").read_text(encoding="ascii")
            except OSError:
                continue
            found += [int(line) for line in text.split()]
    return found


def named(token):
    """Every group of a world, outermost only."""
    found = []
    for top in hierarchies():
        for base, dirs, _ in os.walk(top):
            hits = [d for d in dirs if token in d]
            found += [pathlib.Path(base, d) for d in hits]
            dirs[:] = [d for d in dirs if d not in hits]
    return found


def remove(token):
    """Ends everything in the groups of a world and removes them."""
    end = time.monotonic() + env.seconds(5)
    while True:
        groups = named(token)
        if not groups:
            return
        for group in groups:
            _thaw(group)
            procs.kill_all(members(group), timeout=0.2)
            for base, _, _ in os.walk(group, topdown=False):
                try:
                    os.rmdir(base)
                except OSError:
                    pass
            if group.name.endswith(".scope"):
                subprocess.run(["systemctl", "stop", group.name], check=False, capture_output=True)
        if time.monotonic() >= end:
            raise RuntimeError(f"cannot remove {named(token)}")


def _thaw(group):
    for base, _, files in os.walk(group):
        for name, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            if name in files:
                try:
                    pathlib.Path(base, name).write_text(word, encoding="ascii")
                except OSError:
                    pass


def frozen(pid):
    """Whether the group of pid is frozen."""
    if env.cgroup_v2():
        return "frozen 1" in (of(pid, "") / "cgroup.events").read_text(encoding="ascii")
    return (of(pid, "freezer") / "freezer.state").read_text(encoding="ascii").strip() == "FROZEN"
