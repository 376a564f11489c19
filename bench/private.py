# SPDX-License-Identifier: Apache-2.0
"""Makes the machine comparable, and ours alone, before anything is measured.

In a mount namespace of its own the run gets a /run in memory, as every node with systemd has (on a
disk, each file that a shim creates there would wait for that of everybody else), and no cgroup2
mount beside cgroup v1 controllers, a mixture that crun 1.8 refuses. What is mounted in it goes away
with it, however the run ends.
"""
import os
import pathlib
import signal
import subprocess
import sys

_MARK = "KYB_BENCH_PRIVATE"
_PROGRAMS = ("shim/containerd-shim-kybernate-v1/containerd-shim-kybernate-v1",
             "agent/kybernate-agent/kybernate-agent",
             "agent/kybernate-cuda-worker/kybernate-cuda-worker",
             "tests/fakes/fakegpud", "tests/fakes/fakegpuctl", "tests/fakes/gpu-counter")


def enter(build):
    """Returns inside the namespace; build is the folder with our programs."""
    if not os.environ.get(_MARK):
        os.environ[_MARK] = "1"
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable,
                              *sys.argv])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], check=True)
    _hide_mixed_cgroup2()
    _link_programs(build)
    # Ends as an interruption does: through every "finally".
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("run: terminated"))


def _hide_mixed_cgroup2():
    mounts = [line.split() for line in
              pathlib.Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    if any(m[2] == "cgroup" for m in mounts):
        for mount in mounts:
            if mount[2] == "cgroup2":
                subprocess.run(["umount", mount[1]], check=True)


def _link_programs(build):
    """One folder with all our programs, for PATH."""
    folder = pathlib.Path("/run/kyb-bench/bin")
    folder.mkdir(parents=True)
    for name in _PROGRAMS:
        source = build / name
        if source.exists():
            (folder / source.name).symlink_to(source)
    os.environ["KYB_BIN"] = str(folder)
    os.environ["FAKEGPU_BIN"] = str(build / "tests/fakes")
