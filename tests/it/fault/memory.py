# SPDX-License-Identifier: Apache-2.0
"""A real out-of-memory kill in a container's control group (cgroup v1: on v2 what eats the memory
would be frozen with the container)."""
import contextlib
import signal
import subprocess

from kyb import cgroups, env
from kyb.wait import until

# The likely victim's score of 1000 counts as much as the limit (in thousands of pages, without the
# rest), the eater's interpreter as its 2,300 pages.
_ROOM = 32 << 20

# Joins the group, says so, and takes memory for ever; in a file that is not mapped, which is no part
# of its own size: so it dies for its score only.
_EATER = """import os, sys, time
open("/proc/self/oom_score_adj", "w").write(sys.argv[2])
kept = os.memfd_create("kept")
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
print("in", flush=True)
sys.stdin.readline()
while True:
    os.write(kept, b"x" * (1 << 18))
    time.sleep(0.001)
"""


def why_not():
    """Why it cannot be done here, or None."""
    return "what eats the memory would be frozen with the container" if env.cgroup_v2() else None


@contextlib.contextmanager
def _eater(folder, score):
    child = subprocess.Popen(["/usr/bin/python3", "-c", _EATER, str(folder), str(score)],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"in\n"
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def exhaust(pid, score, over):
    """The group of pid runs out of memory, by a process with that oom_score_adj, until over(eater's
    Popen) is true. The group has its old limit afterwards."""
    folder = cgroups.of(pid, "memory")
    limit = folder / "memory.limit_in_bytes"
    before = limit.read_text(encoding="ascii")
    with _eater(folder, score) as child:
        used = int((folder / "memory.usage_in_bytes").read_text(encoding="ascii"))
        limit.write_text(str(used + _ROOM), encoding="ascii")
        child.stdin.write(b"\n")
        child.stdin.flush()
        until(lambda: over(child), 60, "an out-of-memory kill")
    with contextlib.suppress(FileNotFoundError):  # the container has ended, and its group
        limit.write_text(before, encoding="ascii")


def was_killed(child):
    return child.poll() == -signal.SIGKILL
