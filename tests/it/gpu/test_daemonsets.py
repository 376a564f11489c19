# SPDX-License-Identifier: Apache-2.0
"""The DaemonSets of deploy/kubernetes, run at containerd's CRI with the rights that they ask for and
no more: a checkpoint is sealed by the agent in its container, and packed by the sidecar in its own.

There is no cluster here: kyb/kubernetes.py says to containerd what kubelet would. The image is made from
the programs under test and their libraries, in the places of deploy/image/Containerfile. For NVIDIA's
runtime class, which gives the agent driver and devices, stand the emulated GPU's library and socket.
"""
import copy
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from kyb import cri as cris
from kyb import deployed, env, image, kubernetes, procs, rootfs
from kyb.deployed import ARCHIVES, STATE
from kyb.wait import until

from .conftest import group_config

pytestmark = [pytest.mark.criu, pytest.mark.skipif(
    kubernetes.daemon_set("daemonset.yaml") is None, reason="no python3-yaml when this was prepared")]

IMAGE = "localhost/kybernate:test"
PROGRAMS = {"kybernate-agent": "usr/sbin", "kybernate-sidecar": "usr/sbin", "kybernatectl": "usr/bin",
            "kybernate-cuda-worker": "usr/libexec/kybernate"}


def libraries(program):
    """Of the dynamic linker's list, itself included."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return {pathlib.Path(path) for path in re.findall(r"(/\S+) \(0x", said)}


def put(root, source, folder):
    target = root / str(folder).lstrip("/")
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def make_image(folder, gpu):
    """busybox for the init container, and what the Containerfile installs."""
    root = rootfs.make(folder / "root")
    nsenter = pathlib.Path(env.which("nsenter"))
    sources = {nsenter: "usr/bin"}
    for name, place in PROGRAMS.items():
        program = deployed.elf(name)
        if program is None:
            pytest.skip(f"{name} is none that an image could have")
        sources[program] = place
    (root / "bin/nsenter").unlink(missing_ok=True)  # busybox's knows no control groups
    for source, place in sources.items():
        put(root, source, place)
        for library in libraries(source):
            put(root, library, library.parent)
    for library in pathlib.Path(gpu.library_dir).glob("lib*"):
        put(root, library, "usr/lib/x86_64-linux-gnu")
    with open(root / "etc/passwd", "a", encoding="ascii") as passwd:
        passwd.write("nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n")
    with open(root / "etc/group", "a", encoding="ascii") as group:
        group.write("nogroup:x:65534:\n")
    image.write(folder / "image.tar", root, names=(IMAGE,),
                search="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    return folder / "image.tar"


def first_process():
    """The host's, in /proc; where nobody may look at it, as on some machines, the test stands for it."""
    try:
        os.readlink("/proc/1/ns/cgroup")
        return "/proc/1/"
    except PermissionError:
        return f"/proc/{os.getpid()}/"


class Process:
    """A container's, as Agent wants one."""

    def __init__(self, node, container):
        self.container = container
        listed = node.ctr("tasks", "ls", namespace="k8s.io").stdout
        self.pid = next(int(line.split()[1]) for line in listed.splitlines()
                        if line.split()[0] == container.id)

    def poll(self):
        return None if self.container.state() == "RUNNING" else self.container.status().exit_code


class ContainedAgent(deployed.Deployed):
    """Of daemonset.yaml."""

    def __init__(self, node, daemon_set, gpu):
        self.node = node
        self.daemon_set = daemon_set
        super().__init__(gpu, node.socket, group_config(gpu))

    def begin(self):
        words = {"command": [word.replace("/proc/1/", first_process()) for word in
                             self.daemon_set.named("agent")["command"]]}
        return Process(self.node, self.daemon_set.container("agent", change=words).start())

    def stop(self, number=None):
        self.hang_up()
        self.process.container.stop(self.daemon_set.spec["terminationGracePeriodSeconds"])
        return self.process.container.status().exit_code

    def log(self):
        return "\n".join(text for _, text in self.process.container.log())


@pytest.fixture(name="cluster")
def _cluster(gnode, cri, gpu, tmp_path):
    """(gnode, the agent's DaemonSet, the sidecar's)"""
    made = []
    node = gnode.node
    gnode.agent.stop()
    until(cri.ready, what="CRI ready")
    node.ctr("images", "import", str(make_image(tmp_path, gpu)), namespace="k8s.io")
    with deployed.places():
        node.shim_config.write_text('agent_socket = "/run/kybernate/agent.sock"\n', encoding="ascii")
        try:
            # Its containerd is not in the usual place: the one path of the manifest that is another.
            made.append(kubernetes.DaemonSet(
                cri, kubernetes.daemon_set("daemonset.yaml"), IMAGE, moved={"/run/containerd": node.dir},
                stand_in=([cris.pb.Mount(container_path=str(gpu.dir), host_path=str(gpu.dir))],
                          {"FAKEGPU_SOCKET": str(gpu.socket)})))
            gnode.agent = ContainedAgent(node, made[0], gpu)
            made.append(kubernetes.DaemonSet(cri, kubernetes.daemon_set("sidecar.yaml"), IMAGE))
            yield gnode, *made
        finally:
            gnode.write_shim_config()
            for daemon_set in reversed(made):
                daemon_set.remove()


def init_container(daemon_set, name):
    ran = daemon_set.container(name).start()
    assert ended(ran) == 0, ran.log()


def packed(ref):
    """The archive, when the sidecar is done with it."""
    until((ARCHIVES / f"{ref}.tar").exists, 30, "the sidecar packs it")
    return ARCHIVES / f"{ref}.tar"


@pytest.mark.machine
def test_agent_and_sidecar(cluster):
    """Left running, ended, restored; packed, and restored from what was packed."""
    gnode, agents, sidecars = cluster
    init_container(sidecars, "folder")
    sidecar = sidecars.container("sidecar").start()
    first = gnode.running()
    outcome = gnode.checkpoint(first, "kept", leave=True)
    assert outcome.ok, outcome
    first.workload.goes_on()
    outcome = gnode.checkpoint(first)
    assert outcome.ok, outcome
    assert gnode.ended(first) == 137
    second = gnode.new_life("ck")
    second.run()
    gnode.watch(second).goes_on()
    second.kill()
    assert gnode.ended(second) == 137
    for ref in ("kept", "ck"):
        archive = packed(ref)
        assert (archive.stat().st_uid, archive.stat().st_mode & 0o777) == (65534, 0o600)
    probe = agents.named("agent")["readinessProbe"]
    said = gnode.agent.process.container.exec(*probe["exec"]["command"],
                                              seconds=probe["timeoutSeconds"])
    assert said.exit_code == 0, said
    # On another node.
    gnode.agent.call("DeleteCheckpoint", checkpoint_ref="ck")
    subprocess.run([deployed.elf("kybernate-sidecar"), "--user", "nobody", "unpack", ARCHIVES / "ck.tar",
                    ARCHIVES / "back"], check=True, stdout=subprocess.DEVNULL)
    back = STATE / "store/.new-ck"
    shutil.copytree(ARCHIVES / "back", back)
    for path in [back, *back.rglob("*")]:
        os.chown(path, 0, 0)
    back.rename(STATE / "store/ck")
    third = gnode.new_life("ck")
    third.run()
    gnode.watch(third).goes_on()
    sidecar.stop(10)
    assert sidecar.status().exit_code == 0, sidecar.log()
    assert gnode.agent.stop() == 0, gnode.agent.log()


def refused(container, command, because):
    said = container.exec("sh", "-c", command)
    assert said.exit_code != 0 and because in said.stderr.decode(), (command, said)


def test_what_the_agent_does_not_need(cluster):
    gnode, agents, _ = cluster
    container, pid = gnode.agent.process.container, gnode.agent.process.pid
    told = agents.named("agent")["securityContext"]["capabilities"]["add"]
    until(lambda: procs.command(pid)[0].endswith("kybernate-agent"), 10)  # nsenter is done
    assert deployed.capabilities(pid)["NoNewPrivs"] == "1"
    assert deployed.capabilities(pid)["CapBnd"] == deployed.mask(told)
    assert deployed.capabilities(pid)["Seccomp"] == "2"  # its own
    worker = gnode.agent.call("Status").worker_pid
    assert deployed.capabilities(worker)["CapEff"] == deployed.mask(set(told) - {"SETPCAP"})
    refused(container, "touch /etc/kybernate/x", "Read-only file system")
    refused(container, "touch /usr/x", "Read-only file system")
    refused(container, "mknod /tmp/kyb-null c 1 3", "Operation not permitted")
    refused(container, "chown 1 /tmp", "Operation not permitted")
    refused(container, "chroot / true", "Operation not permitted")


def test_what_the_sidecar_does_not_need(cluster):
    gnode, _, sidecars = cluster
    init_container(sidecars, "folder")
    sidecar = sidecars.container("sidecar").start()
    pid = Process(gnode.node, sidecar).pid
    until(lambda: deployed.capabilities(pid)["Seccomp"] == "2" and
          deployed.capabilities(pid)["CapEff"] == deployed.mask(["DAC_READ_SEARCH"]), 10,
          "it has given up what it had")
    now = deployed.capabilities(pid)
    assert now["Uid"].split() == ["65534"] * 4 and now["NoNewPrivs"] == "1"
    assert now["CapBnd"] == now["CapPrm"] == deployed.mask(["DAC_READ_SEARCH"])
    # What the container could do before that.
    refused(sidecar, "touch /var/lib/kybernate/store/x", "Read-only file system")
    refused(sidecar, "touch /usr/x", "Read-only file system")
    refused(sidecar, "touch /var/lib/kybernate-sidecar/x", "Permission denied")
    refused(sidecar, "mount -t tmpfs x /tmp", "ermi")
    refused(sidecar, "mknod /var/lib/kybernate-sidecar/x c 1 3", "ermi")
    refused(sidecar, "kill -9 1", "ermi")
    sidecar.stop(10)
    # And each is needed: three to begin at all, one to put the others away for good.
    for name in sidecars.named("sidecar")["securityContext"]["capabilities"]["add"]:
        ran = without(sidecars, name)
        if name == "SETPCAP":
            pid = Process(gnode.node, ran).pid
            confined(pid)
            assert deployed.capabilities(pid)["CapBnd"] != now["CapBnd"]
            ran.stop(10)
        else:
            assert ended(ran) == 1, (name, ran.log())


def confined(pid):
    until(lambda: deployed.capabilities(pid)["Seccomp"] == "2", 10, "its own filter")


def ended(container):
    until(lambda: container.state() == "EXITED", 20, "it ends")
    return container.status().exit_code


def without(daemon_set, capability):
    """The sidecar, started with one capability fewer."""
    words = copy.deepcopy(daemon_set.named("sidecar"))
    words["securityContext"]["capabilities"]["add"].remove(capability)
    return daemon_set.container("sidecar", change=words).start()
