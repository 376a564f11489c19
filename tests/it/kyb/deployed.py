# SPDX-License-Identifier: Apache-2.0
"""An agent at the places that everything in deploy/ names, run by whoever runs it there: systemd, or a
container of containerd's CRI."""
import contextlib
import fcntl
import os
import pathlib
import subprocess

from . import agent as agents
from . import env

RUN = pathlib.Path("/run/kybernate")
STATE = pathlib.Path("/var/lib/kybernate")
ETC = pathlib.Path("/etc/kybernate")
ARCHIVES = pathlib.Path("/var/lib/kybernate-sidecar")
_CONFIG = """containerd = "{containerd}"
log_level = "debug"
{more}
"""


@contextlib.contextmanager
def alone():
    """There is one of each place on a machine."""
    with open(env.BASE / "kyb-deployed.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def places():
    """Empty file systems at those places; what is below them is hidden meanwhile."""
    made, mounted = [], []
    with alone():
        try:
            for place in (RUN, STATE, ETC, ARCHIVES):
                if not place.exists():
                    place.mkdir()
                    made.append(place)
                subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "kyb-test", str(place)],
                               check=True)
                mounted.append(place)
            yield
        finally:
            for place in mounted:
                subprocess.run(["umount", "-l", str(place)], check=True)
            for place in made:
                place.rmdir()


class Deployed(agents.Agent):
    """begin() starts it and returns something with pid and poll(), as a subprocess.Popen has."""

    def __init__(self, gpu, containerd, more=""):  # pylint: disable=super-init-not-called
        self.dir = RUN
        self.gpu = gpu
        self.socket = RUN / "agent.sock"
        self.store = STATE / "store"
        self.log_path = None
        self.process = None
        self._channel = None
        (ETC / "agent.toml").write_text(_CONFIG.format(containerd=containerd, more=more),
                                        encoding="utf-8")
        self.start()

    def begin(self):
        raise NotImplementedError

    def start(self):
        self.process = self.begin()
        self.comes_back()

    def comes_back(self):
        """It, or another one that somebody has started."""
        self.hang_up()
        agents.until(self._serves, 30, "the agent serves")

    def log(self):
        raise NotImplementedError


def capabilities(pid):
    """{line of /proc/PID/status: value}, of those that tell what a process may."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)
            if key in ("Uid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")}


_NUMBERS = {"CHOWN": 0, "DAC_OVERRIDE": 1, "DAC_READ_SEARCH": 2, "KILL": 5, "SETGID": 6, "SETUID": 7,
            "SETPCAP": 8, "SYS_PTRACE": 19, "SYS_ADMIN": 21}


def mask(names):
    """As /proc writes it."""
    return f"{sum(1 << _NUMBERS[name.removeprefix('CAP_')] for name in names):016x}"


def elf(name):
    """One of our programs, or None where it is a script that stands for it."""
    path = env.which(name)
    if path is None:
        return None
    with open(path, "rb") as file:
        return pathlib.Path(os.path.realpath(path)) if file.read(4) == b"\x7fELF" else None
