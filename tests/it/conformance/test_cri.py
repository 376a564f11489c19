# SPDX-License-Identifier: Apache-2.0
"""Pods, as kubelet runs them through containerd's CRI service."""
import os
import signal
import time

import grpc
import pytest

from kyb import env, procs
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


@pytest.mark.machine
def test_pod(cri, node):
    until(cri.ready)
    pod = cri.pod()
    assert pod.ready()
    assert len(node.shims()) == 1
    pod.stop()
    assert not pod.ready()
    pod.stop()  # again: must be no error
    pod.remove()
    until(lambda: not node.shims())


@pytest.mark.machine
def test_container(pod):
    container = pod.container(["probe", "exit", "4"])
    assert container.state() == "CREATED"
    container.start()
    until(lambda: container.state() == "EXITED")
    status = container.status()
    assert status.exit_code == 4
    assert status.started_at > 0 and status.finished_at > 0
    container.remove()


def test_containers_share_the_pods_shim(pod, node):
    for _ in range(3):
        pod.container(["probe", "sleep"]).start()
    assert len(node.shims()) == 1


def test_log(pod):
    container = pod.container(["sh", "-c", "echo out; echo err >&2"]).start()
    until(lambda: container.state() == "EXITED")
    until(lambda: len(container.log()) == 2)
    assert sorted(container.log()) == [("stderr", "err"), ("stdout", "out")]


@pytest.mark.machine
def test_exec_sync(pod):
    container = pod.container(["probe", "sleep"]).start()
    answer = container.exec("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (answer.stdout, answer.stderr, answer.exit_code) == (b"out\n", b"err\n", 3)
    for n in range(5):
        assert container.exec("probe", "exit", str(n)).exit_code == n


def test_exec_sync_of_a_missing_program(pod):
    container = pod.container(["probe", "sleep"]).start()
    with pytest.raises(grpc.RpcError):
        container.exec("no-such-program")
    assert container.state() == "RUNNING"


def test_exec_sync_with_a_timeout(pod):
    container = pod.container(["probe", "sleep"]).start()
    began = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        container.exec("probe", "sleep", seconds=1)
    assert "timeout" in caught.value.details()
    assert time.monotonic() - began < env.seconds(10)
    assert container.exec("probe", "exit", "2").exit_code == 2


def test_large_output(pod):
    container = pod.container(["probe", "sleep"]).start()
    assert len(container.exec("probe", "bytes", "1000000").stdout) == 1000000


@pytest.mark.machine
def test_graceful_stop(pod):
    container = pod.container(["probe", "trap", "15", "6"]).start()
    until(lambda: ("stdout", "ready") in container.log())
    container.stop(grace=30)
    status = container.status()
    assert (container.state(), status.exit_code) == ("EXITED", 6)


def test_forceful_stop(pod):
    container = pod.container(["probe", "ignore", "15"]).start()
    until(lambda: ("stdout", "ready") in container.log())
    began = time.monotonic()
    container.stop(grace=1)
    assert time.monotonic() - began < env.seconds(10)
    assert (container.state(), container.status().exit_code) == ("EXITED", 137)
    container.stop(grace=1)  # again: must be no error
    container.remove()


def test_stop_pod_stops_containers(cri, node):
    until(cri.ready)
    pod = cri.pod()
    containers = [pod.container(["probe", "sleep"]).start() for _ in range(2)]
    pod.stop()
    assert [c.state() for c in containers] == ["EXITED", "EXITED"]
    pod.remove()
    until(lambda: not node.shims())


@pytest.mark.machine
def test_out_of_memory(pod):
    """The reason in the status comes from the shim's event."""
    container = pod.container(["sh", "-c", "probe sleep 500; probe hog 200"],
                              memory=30 * MIB).start()
    until(lambda: container.state() == "EXITED", timeout=60)
    status = container.status()
    assert status.exit_code == 137
    until(lambda: container.status().reason == "OOMKilled")


@pytest.mark.machine
def test_stats(pod):
    container = pod.container(["sh", "-c", "probe spin 200; probe hog 20"]).start()
    until(lambda: ("stdout", "done") in container.log())
    stats = container._do("ContainerStats").stats
    assert stats.cpu.usage_core_nano_seconds.value > 0
    assert stats.memory.working_set_bytes.value > 15 * MIB


@pytest.mark.machine
def test_update(pod, cri):
    container = pod.container(["probe", "sleep"], memory=100 * MIB).start()
    from kyb.cri import pb  # pylint: disable=import-outside-toplevel
    cri.do("UpdateContainerResources", container_id=container.id,
           linux=pb.LinuxContainerResources(memory_limit_in_bytes=60 * MIB))
    file = "memory.max" if env.cgroup_v2() else "memory.limit_in_bytes"
    folder = "" if env.cgroup_v2() else "memory/"
    answer = container.exec("sh", "-c", f"cat /sys/fs/cgroup/{folder}{file} || true")
    assert str(60 * MIB).encode() in answer.stdout


def test_terminal(pod):
    container = pod.container(["probe", "tty"], tty=True).start()
    until(lambda: container.state() == "EXITED")
    until(lambda: container.log())
    assert container.log()[0][1].strip() == "1 1 1"


def test_terminals_do_not_leak(pod, node):
    for _ in range(3):
        container = pod.container(["probe", "exit"], tty=True).start()
        until(lambda c=container: c.state() == "EXITED")
        container.remove()
    (shim,) = node.shims()
    until(lambda: not [t for t in procs.fds(shim).values() if "ptmx" in t])


@pytest.mark.machine
def test_restart_of_containerd(pod, node, cri):
    running = pod.container(["sh", "-c", "while :; do echo x; probe sleep 50; done"]).start()
    exited = pod.container(["probe", "exit", "3"]).start()
    until(lambda: exited.state() == "EXITED")
    until(lambda: len(running.log()) > 2)
    node.restart()
    until(cri.ready)
    assert pod.ready()
    assert (running.state(), exited.state()) == ("RUNNING", "EXITED")
    assert exited.status().exit_code == 3
    count = len(running.log())
    until(lambda: len(running.log()) > count, what="log goes on")
    assert running.exec("echo", "alive").stdout == b"alive\n"
    running.stop()
    assert running.state() == "EXITED"


def test_exit_while_containerd_is_away(pod, node, cri):
    container = pod.container(["sh", "-c", "probe sleep 700; exit 7"]).start()
    node.stop()
    time.sleep(env.seconds(1))  # the container's own time has to pass
    node.start()
    until(cri.ready)
    until(lambda: container.state() == "EXITED")
    # From 1.7 on the task may have been deleted for want of processes, and its status be lost.
    assert container.status().exit_code in ((7,) if env.containerd_version() < (1, 7)
                                            else (7, 255))


def test_crash_of_the_shim_is_cleaned_up(cri, node):
    """By a 'delete' for each container of the pod."""
    until(cri.ready)
    pod = cri.pod()
    container = pod.container(["probe", "sleep"]).start()
    (shim,) = node.shims()
    os.kill(shim, signal.SIGKILL)
    until(lambda: container.state() == "EXITED", timeout=20)
    until(lambda: not pod.ready())
    pod.remove()
    until(lambda: not node.leftovers())


@pytest.mark.mess
def test_crash_of_the_shim(pod, node):
    """Everything in the pod ends, and the pod can be removed."""
    container = pod.container(["probe", "sleep"]).start()
    (shim,) = node.shims()
    os.kill(shim, signal.SIGKILL)
    until(lambda: container.state() == "EXITED", timeout=20)
    # 137 by the event, 255 when CRI sees its Wait fail first.
    assert container.status().exit_code in (137, 255)
    until(lambda: not pod.ready())


def test_shared_pid_namespace(cri, node):
    """With the pod's pid namespace the exit of one container's init must end its children."""
    from kyb.cri import pb  # pylint: disable=import-outside-toplevel
    until(cri.ready)
    pod = cri.pod(pid=pb.NODE)
    container = pod.container(["sh", "-c", "probe sleep & probe sleep & wait"]).start()
    container.stop()
    assert container.state() == "EXITED"
    container.remove()
    pod.remove()
    until(lambda: not node.shims())


@pytest.mark.criu
@pytest.mark.skipif(env.containerd_version() < (2, 0), reason="CheckpointContainer is new in 2.0")
@pytest.mark.machine
def test_checkpoint_container(pod, cri, node):
    container = pod.container(["probe", "count", "/tmp/n"]).start()
    until(lambda: container.exec("cat", "/tmp/n").exit_code == 0)
    location = node.dir / "checkpoint.tar"
    cri.do("CheckpointContainer", deadline=120, container_id=container.id, location=str(location))
    assert location.stat().st_size > 10000
    assert container.state() == "RUNNING"


@pytest.mark.skipif(env.containerd_version() < (2, 0), reason="handlers are new in 2.0")
def test_features_of_the_handler(cri, node):
    """From -info."""
    until(cri.ready)
    handlers = {h.name: h.features for h in cri.do("Status").runtime_handlers}
    if not node.kind.typed_options and env.containerd_version() < (2, 2, 7):
        pytest.skip("before 2.2.7 and 2.3.4 asked of io.containerd.runc.v2 only")
    assert handlers[node.handler].recursive_read_only_mounts
