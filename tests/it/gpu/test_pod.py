# SPDX-License-Identifier: Apache-2.0
"""Pods, made through the CRI as kubelet makes them: checkpointed by the agent, continued in another
pod that names the checkpoint by an annotation."""
import os
import pathlib
import subprocess

import grpc
import pytest

from kyb import agent as agents
from kyb import cri as cris
from kyb.wait import until

from .conftest import COUNTER, GPU_DIR, GROUP, SEAT, Workload

pytestmark = pytest.mark.criu

NAMESPACE = "k8s.io"


class Pods:
    """Pods with one container that computes on the emulated GPU."""

    def __init__(self, gnode, cri):
        self.gnode = gnode
        self.cri = cri
        self.made = []
        until(cri.ready, what="CRI ready")

    def trainer(self, **annotations):
        """(pod, container), created but not started."""
        pod = self.cri.pod(annotations={f"kybernate.io/{key.replace('_', '-')}": value
                                        for key, value in annotations.items()},
                           pid=cris.pb.CONTAINER)
        self.made.append(pod)
        mounts = [cris.pb.Mount(container_path=GPU_DIR, host_path=str(self.gnode.gpu.dir)),
                  cris.pb.Mount(container_path="/bin/gpu-counter",
                                host_path=agents.program("gpu-counter"), readonly=True)]
        envs = {"FAKEGPU_SOCKET": f"{GPU_DIR}/gpu.sock", "KYB_GPU_GROUP": GROUP,
                "KYB_GPU_SEAT": SEAT}
        return pod, pod.container(
            COUNTER, mounts=mounts,
            envs=[cris.pb.KeyValue(key=k, value=v) for k, v in envs.items()])

    def workload(self, container):
        pid = self.pid(container)
        return Workload(pathlib.Path(f"/proc/{pid}/root/var/state"))

    def pid(self, container):
        listed = self.gnode.node.ctr("tasks", "ls", namespace=NAMESPACE).stdout
        return next(int(line.split()[1]) for line in listed.splitlines()
                    if line.split()[0] == container.id)

    def checkpoint(self, container, **more):
        return self.gnode.agent.run("CreateCheckpoint", containerd_namespace=NAMESPACE,
                                    container_id=container.id, **more)


@pytest.fixture
def pods(gnode, cri):
    made = Pods(gnode, cri)
    yield made
    for pod in made.made:
        pod.remove()


def test_continued_in_another_pod(pods):
    _, first = pods.trainer()
    first.start()
    pods.workload(first).ready()
    outcome = pods.checkpoint(first, checkpoint_ref="ck", exit=True)
    assert outcome.ok, outcome
    until(lambda: first.state() == "EXITED")
    assert first.status().exit_code == 137
    about = pods.gnode.agent.call("GetCheckpoint", checkpoint_ref="ck").checkpoint
    assert about.pod_namespace == "default" and about.pod_name.startswith("pod")
    _, second = pods.trainer(restore_from="ck")
    second.start()
    assert second.state() == "RUNNING"
    workload = pods.workload(second)
    assert workload.step > 1
    workload.goes_on()


@pytest.fixture
def networks(gnode):
    """Paths of two network namespaces, each with an address of its own."""
    paths = []
    for n in (1, 2):
        name = f"{gnode.node.token}-{n}"
        for command in (["netns", "add", name], ["-n", name, "link", "set", "lo", "up"],
                        ["-n", name, "address", "add", f"10.9.8.{n}/32", "dev", "lo"]):
            subprocess.run(["ip", *command], check=True)
        paths.append(f"/run/netns/{name}")
    yield paths
    for path in paths:
        subprocess.run(["ip", "netns", "delete", os.path.basename(path)], check=True)


def test_in_the_network_of_its_own_pod(gnode, networks):
    """What pods with a network of their own have: a namespace that the sandbox holds. The restored
    container is in the new pod's."""
    def within(path):
        def edit(spec):
            for namespace in spec["linux"]["namespaces"]:
                if namespace["type"] == "network":
                    namespace["path"] = path
        return edit

    first = gnode.running(edit=within(networks[0]))
    outcome = gnode.checkpoint(first)
    assert outcome.ok, outcome
    assert gnode.ended(first) == 137
    second = gnode.new_life("ck", edit=within(networks[1]))
    second.run()
    gnode.watch(second).goes_on()
    assert os.stat(f"/proc/{second.pid}/ns/net").st_ino == os.stat(networks[1]).st_ino
    shown = pathlib.Path(f"/proc/{second.pid}/net/fib_trie").read_text(encoding="ascii")
    assert "10.9.8.2" in shown and "10.9.8.1" not in shown


def test_runs_on(pods):
    _, container = pods.trainer()
    container.start()
    workload = pods.workload(container).ready()
    outcome = pods.checkpoint(container, checkpoint_ref="ck")
    assert outcome.ok, outcome
    assert container.state() == "RUNNING"
    workload.goes_on()


def test_suspended(pods):
    """A pod's own wish: kubelet has no call to pause, but containerd has."""
    gpu, node = pods.gnode.gpu, pods.gnode.node
    _, container = pods.trainer(pause="suspend")
    container.start()
    workload = pods.workload(container).ready()
    assert gpu.gpu()["used"] > 0
    node.ctr("tasks", "pause", container.id, namespace=NAMESPACE)
    assert gpu.gpu()["used"] == 0
    assert container.state() == "RUNNING"  # the CRI knows no other word for it
    step = workload.step
    node.ctr("tasks", "resume", container.id, namespace=NAMESPACE)
    assert gpu.gpu()["used"] > 0
    workload.goes_on(step)


def test_never_cold(pods):
    _, container = pods.trainer(restore_from="nothing")
    with pytest.raises(grpc.RpcError) as caught:
        container.start()
    assert "IMAGE_MISSING" in caught.value.details()
    assert container.state() == "EXITED"


def test_stopped_by_kubelet(pods):
    """StopContainer's SIGTERM becomes a checkpoint, and the pod's next life goes on from it."""
    _, first = pods.trainer(on_stop="checkpoint")
    first.start()
    step = pods.workload(first).ready().step
    first.stop(grace=30)
    assert first.state() == "EXITED"
    (ref,) = pods.gnode.agent.refs()
    _, second = pods.trainer(restore_from=ref)
    second.start()
    assert pods.workload(second).goes_on() > step
