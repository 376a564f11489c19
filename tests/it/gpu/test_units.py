# SPDX-License-Identifier: Apache-2.0
"""The units of deploy/systemd, under systemd, with what they give and no more: the agent seals a
checkpoint, the sidecar packs it. In a machine that can be thrown away (scripts/vm-run) only, for they are
installed there; for the driver stand the emulated GPU's library and socket, in a drop-in."""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import pytest

from kyb import deployed, env
from kyb.deployed import ARCHIVES, ETC, RUN, STATE
from kyb.wait import until

from .conftest import group_config

pytestmark = [
    pytest.mark.criu, pytest.mark.machine,
    pytest.mark.skipif(not (pathlib.Path("/run/systemd/system").is_dir() and
                            pathlib.Path("/run/vm/started").exists()),
                       reason="no systemd of a machine that can be thrown away"),
]

UNITS = pathlib.Path("/run/systemd/system")
SOURCES = {"kybernate-agent": "/usr/local/sbin", "kybernate-sidecar": "/usr/local/sbin",
           "kybernate-cuda-worker": "/usr/libexec/kybernate"}
STAND_IN = """[Service]
Environment=FAKEGPU_SOCKET={socket} LD_LIBRARY_PATH={libraries}
"""


def systemctl(*words, check=True):
    return subprocess.run(["systemctl", *words], check=check, capture_output=True, text=True,
                          timeout=env.seconds(60)).stdout.strip()


class Unit:
    """A service, as Agent wants its process."""

    def __init__(self, name):
        self.name = name
        systemctl("start", name)

    def about(self, key):
        return systemctl("show", "--property", key, "--value", self.name)

    @property
    def pid(self):
        return int(self.about("MainPID"))

    def poll(self):
        return None if self.about("ActiveState") in ("active", "activating") else self.about("Result")

    def kill(self):
        systemctl("kill", "--kill-who=main", "--signal=KILL", self.name)

    def stop(self):
        systemctl("stop", self.name)
        return self.about("Result")


class UnitAgent(deployed.Deployed):
    """Of kybernate-agent.service."""

    def begin(self):
        return Unit("kybernate-agent")

    def stop(self, number=None):
        self.hang_up()
        return self.process.stop()

    def log(self):
        return subprocess.run(["journalctl", "--output=cat", "--unit=kybernate-agent"], check=True,
                              capture_output=True, text=True).stdout


def install(gpu):
    for program, folder in SOURCES.items():
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(env.which(program), folder)
    for path in (env.REPO / "deploy/systemd").glob("*.service.in"):
        text = path.read_text(encoding="ascii").replace("@sbindir@", "/usr/local/sbin")
        (UNITS / path.stem).write_text(text, encoding="ascii")
    more = UNITS / "kybernate-agent.service.d"
    more.mkdir(exist_ok=True)
    (more / "gpu.conf").write_text(STAND_IN.format(socket=gpu.socket, libraries=gpu.library_dir),
                                   encoding="ascii")
    systemctl("daemon-reload")
    ETC.mkdir(exist_ok=True)


def remove():
    for name in ("kybernate-sidecar", "kybernate-agent"):
        systemctl("stop", name, check=False)
        systemctl("reset-failed", name, check=False)
        (UNITS / f"{name}.service").unlink(missing_ok=True)
    shutil.rmtree(UNITS / "kybernate-agent.service.d")
    systemctl("daemon-reload")
    if ARCHIVES.is_symlink():
        ARCHIVES.unlink()
    for place in (RUN, STATE, ETC, ARCHIVES, pathlib.Path("/var/lib/private/kybernate-sidecar")):
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(name="served")
def _served(gnode, gpu):
    """gnode, with the agent's unit in the place of its agent."""
    gnode.agent.stop()
    with deployed.alone():
        gnode.node.shim_config.write_text('agent_socket = "/run/kybernate/agent.sock"\n',
                                          encoding="ascii")
        try:
            install(gpu)
            gnode.agent = UnitAgent(gpu, gnode.node.socket, group_config(gpu))
            yield gnode
        finally:
            gnode.write_shim_config()
            gnode.node.clear()
            remove()


def told(name, key):
    text = (env.REPO / f"deploy/systemd/{name}.service.in").read_text()
    return re.search(rf"^{key}=(.*)$", text, re.M)[1].split()


def refused(pid, command, because):
    """With that process' view of the file systems, and more rights than it has."""
    said = subprocess.run(["nsenter", f"--mount=/proc/{pid}/ns/mnt", "sh", "-c", command], check=False,
                          capture_output=True, text=True)
    assert said.returncode != 0 and because in said.stderr, (command, said)


def test_agent_and_sidecar(served):
    first = served.running()
    outcome = served.checkpoint(first, "kept", leave=True)
    assert outcome.ok, outcome
    first.workload.goes_on()
    sidecar = Unit("kybernate-sidecar")
    until((ARCHIVES / "kept.tar").exists, 30, "what was there is packed")
    outcome = served.checkpoint(first)
    assert outcome.ok, outcome
    assert served.ended(first) == 137
    until((ARCHIVES / "ck.tar").exists, 30, "what comes is packed")
    second = served.new_life("ck")
    second.run()
    served.watch(second).goes_on()
    with tempfile.TemporaryDirectory() as folder:  # and it is whole
        os.chmod(folder, 0o755)
        out = pathlib.Path(folder) / "out"
        out.mkdir()
        shutil.chown(out, "nobody")
        shutil.copy(ARCHIVES / "ck.tar", folder)
        (pathlib.Path(folder) / "ck.tar").chmod(0o644)
        subprocess.run([env.which("kybernate-sidecar"), "--user", "nobody", "unpack",
                        f"{folder}/ck.tar", out / "ck"], check=True, stdout=subprocess.DEVNULL)
        assert (out / "ck/criu/kybernate.json").exists()
    assert sidecar.stop() == "success"
    assert served.agent.stop() == "success", served.agent.log()
    assert not list(ARCHIVES.glob(".*.part"))


def test_agent_is_started_again(served):
    """By systemd, with the journal of the one that died."""
    container = served.running()
    rule = served.gpu.fault(call="checkpoint", hang=True)
    updates = served.agent.stream("CreateCheckpoint", container_id=container.id, checkpoint_ref="ck",
                                  containerd_namespace=served.node.namespace)
    served.gpu.wait_held(rule)
    before = served.agent.process.pid
    served.agent.process.kill()
    served.gpu.clear()
    until(lambda: served.agent.process.pid not in (0, before), 20, "another one")
    updates.cancel()
    served.agent.comes_back()
    until(lambda: not served.agent.call("Status").operations, 10, "nothing is under way")
    container.workload.goes_on()
    assert served.checkpoint(container, leave=True).ok
    container.workload.goes_on()


def test_what_they_do_not_need(served):
    pid = served.agent.process.pid
    now = deployed.capabilities(pid)
    assert now["CapBnd"] == deployed.mask(told("kybernate-agent", "CapabilityBoundingSet"))
    assert now["NoNewPrivs"] == "1" and now["Seccomp"] == "2"
    refused(pid, "touch /etc/x", "Read-only file system")
    refused(pid, "touch /usr/x", "Read-only file system")
    refused(pid, "touch /var/lib/x", "Read-only file system")
    pid = Unit("kybernate-sidecar").pid
    until(lambda: deployed.capabilities(pid)["Seccomp"] == "2", 10)
    now = deployed.capabilities(pid)
    assert now["CapEff"] == now["CapBnd"] == deployed.mask(["DAC_READ_SEARCH"])
    assert "0" not in now["Uid"].split() and now["NoNewPrivs"] == "1"
    refused(pid, "touch /var/lib/kybernate/store/x", "Read-only file system")
    refused(pid, "touch /etc/x", "Read-only file system")
    refused(pid, "ls -d /dev/kmsg", "No such file")
