# SPDX-License-Identifier: Apache-2.0
"""Processes, their descriptors, and mounts, as /proc shows them."""
import os
import pathlib
import re
import signal
import subprocess
import time


def alive(pid):
    """Exists and is no zombie."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def status(pid, field):
    """A field of /proc/PID/status, as text."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    return re.search(rf"^{field}:\s*(.*)$", text, re.M).group(1)


def parent(pid):
    return int(status(pid, "PPid"))


def command(pid):
    """argv; empty for one that has gone."""
    try:
        data = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [part.decode(errors="replace") for part in data.split(b"\0")[:-1]]


def is_criu(pid):
    """CRIU as a runtime starts it. At work it calls itself by what it does, where it was built with
    libbsd, as Debian's is (criu/setproctitle.h)."""
    argv = command(pid)
    return "swrk" in argv or bool(argv) and argv[0].startswith("criu: ")


def environ(pid):
    data = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
    pairs = (part.decode(errors="replace").partition("=") for part in data.split(b"\0") if part)
    return {name: value for name, _, value in pairs}


def fds(pid):
    """{descriptor: what it points to}; those that close meanwhile are left out."""
    found = {}
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            found[int(entry.name)] = os.readlink(entry.path)
        except FileNotFoundError:
            pass
    return found


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def children(pid):
    found = []
    for other in pids():
        try:
            if parent(other) == pid:
                found.append(other)
        except (FileNotFoundError, ProcessLookupError, AttributeError):
            pass
    return found


def descendants(pid):
    """Children, and theirs, in far less time than a look at all of /proc takes."""
    found, ahead = [], [pid]
    while ahead:
        tasks = f"/proc/{ahead.pop()}/task"
        try:
            texts = [pathlib.Path(tasks, thread, "children").read_text(encoding="ascii")
                     for thread in os.listdir(tasks)]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ends, or one of its threads: the next look tells
        ahead += map(int, " ".join(texts).split())
        found += map(int, " ".join(texts).split())
    return found


def working_below(folder):
    """Processes whose working directory is folder or below it."""
    folder = str(folder)
    found = []
    for pid in pids():
        try:
            cwd = os.readlink(f"/proc/{pid}/cwd")
        except OSError:
            continue
        cwd = cwd.removesuffix(" (deleted)")
        if (cwd == folder or cwd.startswith(folder + "/")) and alive(pid):
            found.append(pid)
    return found


def daemons_below(folder):
    """The same without their children: a shim's own, and the runtime's while it works."""
    found = working_below(folder)
    return [pid for pid in found if not _has_parent_in(pid, found)]


def _has_parent_in(pid, others):
    try:
        return parent(pid) in others
    except (FileNotFoundError, ProcessLookupError, AttributeError):
        return True  # gone meanwhile


def kill_all(wanted, timeout=5):
    """SIGKILL, and waits until they are gone."""
    for pid in wanted:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    end = time.monotonic() + timeout
    while any(alive(pid) for pid in wanted) and time.monotonic() < end:
        time.sleep(0.01)


def mounts_below(folder):
    """Mount points at or below folder in our mount namespace, deepest last."""
    folder = str(folder)
    found = []
    for line in pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == folder or point.startswith(folder + "/"):
            found.append(point)
    return sorted(found)


def unmount_below(folder):
    for point in reversed(mounts_below(folder)):
        subprocess.run(["umount", "-l", point], check=False, capture_output=True)
