# SPDX-License-Identifier: Apache-2.0
"""A wall clock that jumps.

On a machine of the tests' own, which KYB_TEST_SET_CLOCK says (tests/it/run does for VMs), the real
one, for everybody. Elsewhere what programs see of it, by a library that is preloaded into them
(programs/clock.c): agent, CUDA worker and CRIU, and the shim where it is linked dynamically.
"""
import os
import shlex
import struct
import time

from . import rootfs

HOUR = 3600


def real():
    """Is it the machine's own clock?"""
    return bool(os.environ.get("KYB_TEST_SET_CLOCK"))


class Clock:
    """environ: what a program needs in its environment to see it. Ends with close()."""

    def __init__(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.file = folder / "clock"
        self._began = time.time(), time.monotonic()
        self.environ = {}
        self.jump(0)
        if not real():
            library = rootfs.compiled("clock")
            self.environ = {"LD_PRELOAD": str(library), "KYB_TEST_CLOCK": str(self.file)}

    def jump(self, hours):
        """From now on it is so much ahead of the true time."""
        if real():
            wall, monotonic = self._began
            time.clock_settime(time.CLOCK_REALTIME,
                               wall + time.monotonic() - monotonic + hours * HOUR)
            return
        fd = os.open(self.file, os.O_WRONLY | os.O_CREAT, 0o644)
        os.pwrite(fd, struct.pack("=q", hours * HOUR * 10**9), 0)
        os.close(fd)

    def wrap(self, program):
        """The program, for those whom their parents give no environment."""
        if real():
            return program
        path = self.folder / os.path.basename(program)
        words = " ".join(f"{name}={shlex.quote(value)}" for name, value in self.environ.items())
        path.write_text(f'#!/bin/sh\n{words} exec {shlex.quote(program)} "$@"\n',
                        encoding="ascii")
        path.chmod(0o755)
        return str(path)

    def close(self):
        self.jump(0)
