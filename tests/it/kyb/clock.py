# SPDX-License-Identifier: Apache-2.0
"""A wall clock that jumps, by a library that is preloaded into programs (programs/clock.c): into
agent, CUDA worker and CRIU, and into the shim where it is linked dynamically, as it is when it is
built with sanitizers (scripts/test asan-it)."""
import os
import shlex
import struct

from . import rootfs

HOUR = 3600


class Clock:
    """environ: what a program needs in its environment to see it."""

    def __init__(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.file = folder / "clock"
        self.jump(0)
        self.environ = {"LD_PRELOAD": str(rootfs.compiled("clock")),
                        "KYB_TEST_CLOCK": str(self.file)}

    def jump(self, hours):
        """From now on it is so much ahead of the true time."""
        fd = os.open(self.file, os.O_WRONLY | os.O_CREAT, 0o644)
        os.pwrite(fd, struct.pack("=q", hours * HOUR * 10**9), 0)
        os.close(fd)

    def wrap(self, program):
        """The program, for those whom their parents give no environment."""
        path = self.folder / os.path.basename(program)
        words = " ".join(f"{name}={shlex.quote(value)}" for name, value in self.environ.items())
        path.write_text(f'#!/bin/sh\n{words} exec {shlex.quote(program)} "$@"\n',
                        encoding="ascii")
        path.chmod(0o755)
        return str(path)
