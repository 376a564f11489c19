# SPDX-License-Identifier: Apache-2.0
"""Facts of the machine and settings of the run, found once.

Settings are environment variables:

  KYB_TEST_SLOW       factor on every deadline (1); an emulated VM needs about 20
  KYB_BIN             folder with our own programs; it goes in front of PATH
  FAKEGPU_BIN         folder with the emulated GPU
  KYB_CRIU            folder with a CRIU that works here; also in front of PATH
  KYB_TEST_RUNTIME    OCI runtime of the tests: runc or crun (runc)
  KYB_TEST_DRIVER     cgroup driver: cgroupfs or systemd (cgroupfs)
  KYB_TEST_DIR        where tests make their folders (/run: Unix socket paths are short)
  KYB_IT_BUILD        where generated modules and test programs are kept (build-it)
  KYB_KEEP            set to keep the folders of tests that failed
"""
import functools
import os
import pathlib
import re
import shutil
import subprocess

HERE = pathlib.Path(__file__).resolve().parent.parent  # tests/it
REPO = HERE.parent.parent
BUILD = pathlib.Path(os.environ.get("KYB_IT_BUILD") or REPO / "build-it")
BASE = pathlib.Path(os.environ.get("KYB_TEST_DIR") or "/run")
SLOW = float(os.environ.get("KYB_TEST_SLOW") or 1)
RUNTIME = os.environ.get("KYB_TEST_RUNTIME") or "runc"
DRIVER = os.environ.get("KYB_TEST_DRIVER") or "cgroupfs"

_DEFAULT_CRIU = "/opt/kybernate-criu/sbin"


def seconds(value):
    """A deadline that is right on a fast machine, made right for this one."""
    return value * SLOW


def _path():
    dirs = [os.environ.get("KYB_BIN"), os.environ.get("KYB_CRIU") or _DEFAULT_CRIU,
            os.environ.get("FAKEGPU_BIN")]
    dirs = [os.path.abspath(d) for d in dirs if d and os.path.isdir(d)]
    return ":".join(dirs + ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin",
                            "/sbin", "/bin"])


PATH = _path()


def which(program):
    return shutil.which(program, path=PATH)


def environment(**more):
    """What every program of ours is started with: our PATH, and nothing of the caller's shell."""
    env = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"}
    env.update({name: os.environ[name] for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS")
                if name in os.environ})
    env.update(more)
    return env


def _version_of(*argv):
    out = subprocess.run(argv, capture_output=True, text=True, env=environment(), check=False,
                         timeout=seconds(60))
    # The first is the program's: more follow, of the OCI spec, of Go. crun says 1.21, not 1.21.0.
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", out.stdout + out.stderr)
    return tuple(int(n or 0) for n in found.groups()) if found else (0, 0, 0)


@functools.lru_cache(None)
def containerd_version():
    return _version_of("containerd", "--version")


@functools.lru_cache(None)
def oracle_version():
    """The release of containerd's own shim, which need not be containerd's."""
    return _version_of("containerd-shim-runc-v2", "-v")


@functools.lru_cache(None)
def runtime_version():
    return _version_of(RUNTIME, "--version")


@functools.lru_cache(None)
def cgroup_v2():
    out = subprocess.run(["stat", "-fc", "%T", "/sys/fs/cgroup"], capture_output=True, text=True,
                         check=True)
    return out.stdout.strip() == "cgroup2fs"


@functools.lru_cache(None)
def why_no_criu():
    """Why checkpoints cannot be tested here, or None when they can."""
    criu = which("criu")
    if criu is None:
        return "no criu in PATH: run scripts/setup-criu"
    check = subprocess.run([criu, "check"], capture_output=True, text=True, env=environment(),
                           check=False, timeout=seconds(60))
    return None if check.returncode == 0 else "criu check fails on this kernel"


@functools.lru_cache(None)
def can_lower_oom_score():
    """Lowering oom_score_adj takes CAP_SYS_RESOURCE, which not every test machine gives root."""
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    effective = int(re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.M).group(1), 16)
    return bool(effective >> 24 & 1)


def describe():
    """One line that says what was tested, for the head of a run."""
    def dotted(version):
        return ".".join(str(n) for n in version)
    return (f"kernel {os.uname().release}, cgroup {'v2' if cgroup_v2() else 'v1'}, "
            f"driver {DRIVER}, containerd {dotted(containerd_version())}, "
            f"{RUNTIME} {dotted(runtime_version())}, "
            f"criu {dotted(_version_of('criu', '--version')) if which('criu') else 'none'}, "
            f"slow {SLOW:g}")
