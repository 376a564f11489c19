# SPDX-License-Identifier: Apache-2.0
"""What makes a pod of several containers: one shim, shared namespaces, resources, restarts."""
import json
import os
import pathlib
import signal

import grpc
import pytest

from kyb import cgroups, env, procs
from kyb.cri import pb
from kyb.wait import until

pytestmark = pytest.mark.skipif(
    not env.can_lower_oom_score() and env.RUNTIME == "crun",
    reason="crun insists on the oom score of pods, which takes CAP_SYS_RESOURCE")
MIB = 1 << 20


@pytest.fixture
def pod(cri):
    until(cri.ready, what="CRI ready")
    made = cri.pod()
    yield made
    made.remove()


def spec_of(node, container_id):
    return json.loads((node.bundle(container_id, "k8s.io") / "config.json").read_text())


def test_annotations_reach_the_shim(cri, node):
    """The ones that the handler's configuration lets through."""
    until(cri.ready)
    pod = cri.pod(annotations={"kybernate.io/gpu-group": "g1", "example.org/other": "x"})
    container = pod.container(["probe", "sleep"],
                              annotations={"kybernate.io/pause": "freeze"}).start()
    annotations = spec_of(node, container.id)["annotations"]
    assert annotations["io.kubernetes.cri.sandbox-id"] == pod.id
    assert annotations["kybernate.io/pause"] == "freeze"
    assert spec_of(node, pod.id)["annotations"]["kybernate.io/gpu-group"] == "g1"
    assert "example.org/other" not in annotations
    pod.remove()


def test_order_of_ends(pod, node):
    """The shim lives as long as any of the pod's containers, whichever ends first."""
    first, second = (pod.container(["probe", "sleep"]).start() for _ in range(2))
    (shim,) = node.shims()
    first.stop()
    first.remove()
    assert node.shims() == [shim]
    assert second.exec("echo", "alive").stdout == b"alive\n"
    third = pod.container(["probe", "exit", "3"]).start()
    until(lambda: third.state() == "EXITED")
    assert node.shims() == [shim]


def test_pause_container_ends_first(cri, node):
    """Its exit stops the pod; the others are ended by StopPodSandbox, and the shim goes."""
    until(cri.ready)
    pod = cri.pod(pid=pb.CONTAINER)  # or the container would end with the pod's pid namespace
    container = pod.container(["probe", "sleep"]).start()
    pause = int((node.bundle(pod.id, "k8s.io") / "init.pid").read_text())
    os.kill(pause, signal.SIGKILL)
    until(lambda: not pod.ready())
    assert container.state() == "RUNNING"
    pod.remove()
    until(lambda: not node.shims())


@pytest.mark.machine
def test_shared_pid_namespace_of_the_pod(cri):
    """The containers see each other; the end of one ends its own processes and no others."""
    until(cri.ready)
    pod = cri.pod(pid=pb.POD)
    left = pod.container(["sh", "-c", "probe sleep 7000001 & probe sleep 7000002; true"]).start()
    right = pod.container(["probe", "sleep", "7000003"]).start()
    listing = right.exec("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout
    assert b"7000001" in listing and b"7000003" in listing
    left.stop()
    until(lambda: left.state() == "EXITED")
    until(lambda: b"7000001" not in right.exec(
        "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout)
    assert right.state() == "RUNNING"
    pod.remove()


def test_debug_container(cri):
    """An ephemeral container in the pid namespace of another one, as kubectl debug makes it."""
    until(cri.ready)
    pod = cri.pod(pid=pb.CONTAINER)
    target = pod.container(["probe", "sleep", "7000011"]).start()
    debug = pod.container(["probe", "sleep"], pid=pb.TARGET, target=target.id).start()
    assert b"7000011" in debug.exec("cat", "/proc/1/cmdline").stdout
    debug.stop()
    assert target.state() == "RUNNING"
    debug.remove()
    pod.remove()


def test_restart_policy(pod):
    """kubelet runs a container that failed anew, in the same pod, again and again."""
    for attempt in range(4):
        container = pod.container(["sh", "-c", f"echo {attempt}; exit 1"]).start()
        until(lambda c=container: c.state() == "EXITED")
        assert container.status().exit_code == 1
        until(lambda c=container, n=attempt: c.log() == [("stdout", str(n))])
        container.remove()
    assert pod.ready()


def test_failed_container_leaves_the_pod_alone(pod):
    good = pod.container(["probe", "sleep"]).start()
    bad = pod.container(["/no/such/program"])
    with pytest.raises(grpc.RpcError, match="no such file"):
        bad.start()
    assert bad.state() == "EXITED"
    assert bad.status().exit_code == 128
    bad.remove()
    assert good.exec("echo", "alive").stdout == b"alive\n"


def test_volume(pod, node):
    folder = node.dir / "volume"
    folder.mkdir()
    (folder / "in").write_text("from the host")
    container = pod.container(["sh", "-c", "cat /v/in > /v/out; cat /v/in > /ro/x"], mounts=[
        pb.Mount(container_path="/v", host_path=str(folder)),
        pb.Mount(container_path="/ro", host_path=str(folder), readonly=True)]).start()
    until(lambda: container.state() == "EXITED")
    assert (folder / "out").read_text() == "from the host"
    assert not (folder / "x").exists()


@pytest.mark.machine
@pytest.mark.skipif(env.containerd_version() < (1, 6), reason="PodSandboxStats is new in 1.6")
def test_pod_stats(pod, cri):
    for _ in range(2):
        container = pod.container(["sh", "-c", "probe spin 100; probe hog 20"]).start()
        until(lambda c=container: ("stdout", "done") in c.log())
    linux = cri.do("PodSandboxStats", pod_sandbox_id=pod.id).stats.linux
    assert len(linux.containers) == 2
    assert all(c.memory.working_set_bytes.value > 15 * MIB for c in linux.containers)
    assert linux.memory.usage_bytes.value > 30 * MIB


@pytest.mark.machine
def test_update_changes_cpu_and_memory(pod, cri):
    container = pod.container(["probe", "sleep"], memory=100 * MIB).start()
    cri.do("UpdateContainerResources", container_id=container.id,
           linux=pb.LinuxContainerResources(memory_limit_in_bytes=70 * MIB, cpu_shares=512,
                                            cpu_period=100000, cpu_quota=50000))
    folder = pathlib.Path("/sys/fs/cgroup")
    pid = json.loads(cri.do("ContainerStatus", container_id=container.id,
                            verbose=True).info["info"])["pid"]
    lines = pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    if env.cgroup_v2():
        group = folder / lines[0].partition("::")[2].lstrip("/")
        assert (group / "cpu.max").read_text() == "50000 100000\n"
        assert int((group / "memory.max").read_text()) == 70 * MIB
        return
    paths = {name: path.lstrip("/") for _, names, path in (line.split(":", 2) for line in lines)
             for name in names.split(",")}
    assert int((folder / "cpu" / paths["cpu"] / "cpu.cfs_quota_us").read_text()) == 50000
    assert int((folder / "memory" / paths["memory"] / "memory.limit_in_bytes").read_text()) \
        == 70 * MIB


@pytest.mark.machine
def test_pods_across_a_restart(cri, node):
    """Pods in every state; all are found again as they were, without a new shim."""
    until(cri.ready)
    pods = [cri.pod() for _ in range(5)]
    running = [pod.container(["probe", "sleep"]).start() for pod in pods]
    created = pods[0].container(["probe", "sleep"])
    exited = pods[1].container(["probe", "exit", "9"]).start()
    until(lambda: exited.state() == "EXITED")
    pods[4].stop()
    def four():
        """A program that deletes something may be there for a moment, too."""
        found = sorted(node.shims())
        return found if len(found) == 4 else None

    shims = until(four)
    for number in (signal.SIGTERM, signal.SIGKILL):
        node.restart(number)
        until(cri.ready)
        assert [pod.ready() for pod in pods] == [True] * 4 + [False]
        assert [c.state() for c in running] == ["RUNNING"] * 4 + ["EXITED"]
        assert (exited.state(), exited.status().exit_code) == ("EXITED", 9)
        # A task that was never started has no process of its own; CRI counts it as failed.
        assert created.state() in ("CREATED", "EXITED")
        until(lambda: four() == shims)
    for container in running[:4]:
        assert container.exec("echo", "alive").stdout == b"alive\n"
    for pod in pods:
        pod.remove()
    until(lambda: not node.shims())


@pytest.mark.machine
def test_stop_while_containerd_restarts(pod, node, cri):
    """A stop that containerd forgot over its restart is simply asked for again."""
    container = pod.container(["probe", "ignore", "15"]).start()
    until(lambda: ("stdout", "ready") in container.log())
    with pytest.raises(grpc.RpcError):
        future = cri.channel.future(
            "runtime.v1.RuntimeService", "StopContainer",
            pb.StopContainerRequest(container_id=container.id, timeout=1000), pb.Empty)
        node.restart(signal.SIGKILL)
        future.result(env.seconds(30))
    until(cri.ready)
    assert container.state() == "RUNNING"
    container.stop(grace=1)
    assert container.status().exit_code == 137


@pytest.mark.machine
def test_nothing_of_a_pod_stays(cri, node):
    """No process, mount, control group or socket."""
    until(cri.ready)
    for _ in range(3):
        pod = cri.pod()
        containers = [pod.container(["sh", "-c", "probe sleep & probe sleep"]).start()
                      for _ in range(2)]
        containers[0].exec("echo", "x")
        shims = node.shims()
        pod.remove()
        until(lambda s=shims: not [pid for pid in s if procs.alive(pid)])
    assert not node.leftovers()
    assert not [path for path in cgroups.named(node.token) if "cri-containerd" in str(path)]
