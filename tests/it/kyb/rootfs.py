# SPDX-License-Identifier: Apache-2.0
"""The file system of all test containers: static busybox and our probe program.

What is to be compiled is by prepare(), where a compiler is; environments without one (another
release's root file system, a VM) share the build folder and find it there.
"""
import os
import pathlib
import shutil
import subprocess

from . import env

PROBE = env.BUILD / "probe"
_DIRS = ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "var")


_OPTIONS = {"probe": ["-static"], "sleep": ["-static"], "clock": ["-shared", "-fPIC"]}


def compiled(name):
    """A program of programs/, compiled when it is missing or older than its source."""
    source, made = env.HERE / "programs" / f"{name}.c", env.BUILD / name
    if made.exists() and made.stat().st_mtime >= source.stat().st_mtime:
        return made
    env.BUILD.mkdir(parents=True, exist_ok=True)
    new = made.with_suffix(f".{os.getpid()}")
    subprocess.run(["gcc", "-std=gnu17", "-O1", *_OPTIONS[name], "-Wall", "-Wextra", "-Werror",
                    "-o", new, source], check=True)
    new.rename(made)
    return made


def prepare():
    """All of them."""
    for name in _OPTIONS:
        compiled(name)


def make(folder):
    """Fills folder; returns it."""
    folder = pathlib.Path(folder)
    for name in _DIRS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "tmp").chmod(0o1777)
    busybox = env.which("busybox")
    shutil.copy(busybox, folder / "bin/busybox")
    shutil.copy(PROBE, folder / "bin/probe")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    for applet in applets.stdout.split():
        if applet not in ("busybox", "probe"):
            (folder / "bin" / applet).symlink_to("busybox")
    (folder / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n",
                                       encoding="ascii")
    (folder / "etc/group").write_text("root:x:0:\nuser:x:1000:\n", encoding="ascii")
    return folder
