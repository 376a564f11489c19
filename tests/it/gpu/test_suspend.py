# SPDX-License-Identifier: Apache-2.0
"""Pause-to-RAM: a paused container's GPU memory is in host memory, its GPU is free, and Resume
brings it back. Whatever fails: a Pause that fails leaves the container running, a Resume that fails
leaves it paused with nothing lost."""
import json
import os
import signal

import pytest

from kyb import cgroups, env, protos, ttrpc
from kyb.agent import pb as agent_pb
from kyb.wait import until

from .conftest import Workload

SUSPEND = {"kybernate.io/pause": "suspend"}


def options(**fields):
    return protos.pack(protos.CHECKPOINT_OPTIONS, protos.options.Checkpoint(**fields))


@pytest.fixture
def suspending(gworld, start_agent):
    """(agent, container that computes and whose pod asks for suspend)."""
    agent = start_agent(gworld.agent_dir)
    return agent, gworld.running(annotations=SUSPEND)


def stands_still(container):
    step = container.workload.step
    assert cgroups.frozen(container.pid)
    until(lambda: True)
    return step


def calls(gpu, pid):
    return [c["call"] for c in gpu.log(pid=pid)
            if c["call"] in ("lock", "checkpoint", "restore", "unlock")]


# --- it works ---

def test_the_gpu_is_free_while_it_is_paused(suspending, gpu, world):
    _, container = suspending
    assert gpu.gpu()["used"] > 16 << 20
    container.pause()
    assert container.status == "PAUSED"
    assert gpu.gpu()["used"] == 0
    step = stands_still(container)
    assert calls(gpu, container.pid) == ["lock", "checkpoint"]
    container.resume()
    assert container.status == "RUNNING"
    assert gpu.gpu()["used"] > 16 << 20
    container.workload.goes_on(step)
    assert calls(gpu, container.pid) == ["lock", "checkpoint", "restore", "unlock"]
    assert len(world.sink.all(container.id, "paused")) == 1
    assert len(world.sink.all(container.id, "resumed")) == 1


def test_again_and_again(suspending, gpu):
    _, container = suspending
    for _ in range(5):
        container.pause()
        assert gpu.gpu()["used"] == 0
        container.resume()
        container.workload.goes_on()


def test_several_processes(gworld, gpu, start_agent):
    start_agent(gworld.agent_dir)
    container = gworld.container(["gpu-counter", "--procs", "3", "--vram", "4M", "--interval", "50",
                                  "--status", "/var/state"], annotations=SUSPEND)
    container.run()
    workloads = [Workload(container.rootfs / f"var/state.{n}") for n in range(3)]
    for one in workloads:
        one.ready()
    container.pause()
    assert gpu.gpu()["used"] == 0
    container.resume()
    for one in workloads:
        one.goes_on()


def test_before_cuda_is_used(gworld, start_agent):
    start_agent(gworld.agent_dir)
    container = gworld.container(["gpu-counter", "--cpu-only", "--interval", "50", "--status",
                                  "/var/state"], annotations=SUSPEND)
    container.run()
    container.workload.ready()
    container.pause()
    assert cgroups.frozen(container.pid)
    container.resume()
    container.workload.goes_on(result="cpu")


def test_an_agent_that_was_restarted_knows(suspending, gpu):
    """What a suspended container holds is not the agent's to lose."""
    agent, container = suspending
    container.pause()
    agent.stop(signal.SIGKILL)
    agent.start()
    container.resume()
    container.workload.goes_on()
    container.pause()
    assert agent.stop() == 0
    agent.start()
    container.resume()
    container.workload.goes_on()


def test_killed_and_deleted(suspending, gpu, world):
    _, container = suspending
    container.pause()
    container.kill()
    assert container.wait().exit_status == 137
    container.delete()
    assert len(world.sink.all(container.id, "exit")) == 1
    assert gpu.gpu()["used"] == 0


# --- and a checkpoint of it ---

@pytest.mark.criu
def test_checkpoint_goes_straight_to_criu(suspending, gworld, gpu):
    agent, container = suspending
    container.pause()
    step = stands_still(container)
    folder = gworld.image()
    container.checkpoint(folder, options())
    assert container.status == "PAUSED"
    assert stands_still(container) == step
    assert gpu.gpu()["used"] == 0
    assert calls(gpu, container.pid) == ["lock", "checkpoint"]
    about = json.loads((folder / "kybernate.json").read_text())
    (process,) = about["gpu"]["processes"]
    assert process["vram_bytes"] >= 16 << 20
    assert process["gpu_uuids"] == [gpu.uuid()]
    assert about["gpu"]["devices"][0]["uuid"] == gpu.uuid()
    container.resume()
    container.workload.goes_on(step)
    agent.stop()
    agent.start()
    container.pause()
    container.checkpoint(gworld.image("second"), options(exit=True))
    assert container.wait().exit_status == 137


@pytest.mark.criu
def test_checkpoint_that_fails_leaves_it_suspended(gworld, gpu, start_agent, world):
    start_agent(gworld.agent_dir)
    path = world.dir / "fails"
    path.write_text('#!/bin/sh\nfor a in "$@"; do [ "$a" = checkpoint ] && '
                    '{ echo "no dump today" >&2; exit 1; }; done\n'
                    f'exec {env.which(env.RUNTIME)} "$@"\n', encoding="ascii")
    path.chmod(0o755)
    container = gworld.running(annotations=SUSPEND, options=world.options(binary_name=str(path)))
    container.pause()
    with pytest.raises(ttrpc.Error, match="no dump today"):
        container.checkpoint(gworld.image(), options())
    assert container.status == "PAUSED"
    assert cgroups.frozen(container.pid)
    assert gpu.gpu()["used"] == 0
    container.resume()
    container.workload.goes_on()


@pytest.mark.criu
def test_its_image_restores(gnode):
    """A container that was suspended when it was dumped computes on in its next life."""
    first = gnode.running(annotations=SUSPEND)
    first.pause()
    outcome = gnode.checkpoint(first)
    assert outcome.ok, outcome
    assert "lock" not in outcome.phases
    assert gnode.ended(first) == 137
    second = gnode.new_life("ck")
    second.run()
    gnode.watch(second).goes_on()


def test_by_ctr(gnode):
    container = gnode.running(annotations=SUSPEND)
    gnode.node.ctr("tasks", "pause", container.id)
    assert gnode.gpu.gpu()["used"] == 0
    gnode.node.ctr("tasks", "resume", container.id)
    gnode.watch(container).goes_on()


# --- it fails ---

@pytest.mark.parametrize("call,code,reason", [("lock", 600, "LOCK_TIMEOUT"),
                                              ("checkpoint", 2, "CUDA_SAVE_FAILED")])
def test_pause_that_fails(suspending, gpu, call, code, reason):
    _, container = suspending
    gpu.fault(call=call, code=code)
    with pytest.raises(ttrpc.Error, match=reason):
        container.pause()
    assert container.status == "RUNNING"
    container.workload.goes_on()
    gpu.clear()
    container.pause()
    assert gpu.gpu()["used"] == 0
    container.resume()
    container.workload.goes_on()


def test_lying_driver(suspending, gpu):
    _, container = suspending
    gpu.fault(call="checkpoint", lie="noop")
    with pytest.raises(ttrpc.Error, match="CUDA_STATE_WRONG"):
        container.pause()
    assert container.status == "RUNNING"
    container.workload.goes_on()


def test_without_agent(gworld):
    container = gworld.running(annotations=SUSPEND)
    with pytest.raises(ttrpc.Error, match="AGENT_UNAVAILABLE"):
        container.pause()
    assert container.status == "RUNNING"
    container.workload.goes_on()


def test_resume_without_agent(suspending, gpu):
    agent, container = suspending
    container.pause()
    agent.stop()
    with pytest.raises(ttrpc.Error, match="AGENT_UNAVAILABLE"):
        container.resume()
    assert container.status == "PAUSED"
    assert cgroups.frozen(container.pid)
    agent.start()
    container.resume()
    container.workload.goes_on()


def test_no_room_for_the_way_back(suspending, gpu):
    """Refused before the driver is asked: its first out-of-memory would be final."""
    _, container = suspending
    container.pause()
    one = gpu.gpu()
    gpu.reserve(one["total"] - (8 << 20))
    with pytest.raises(ttrpc.Error, match="VRAM_SHORT"):
        container.resume()
    assert container.status == "PAUSED"
    assert cgroups.frozen(container.pid)
    assert calls(gpu, container.pid) == ["lock", "checkpoint"]
    gpu.reserve(0)
    container.resume()
    container.workload.goes_on()


def test_two_for_the_room_of_one(gworld, start_agent):
    """Both find the GPU free, for neither is back yet: the second one is refused, as the driver's
    out-of-memory would be final for whoever gets it."""
    import fakegpu  # pylint: disable=import-outside-toplevel,import-error
    with fakegpu.FakeGpu(memory="64M") as gpu:
        gworld.gpu = gpu
        start_agent(gworld.agent_dir, gpu=gpu, more="")
        args = ["gpu-counter", "--vram", "36M", "--interval", "50", "--status", "/var/state"]
        both = []
        for _ in range(2):
            both.append(gworld.running(args, annotations=SUSPEND))
            both[-1].pause()
        first, second = both
        rule = gpu.fault(call="restore", hang=True, count=1)
        resume = first.task.send("Resume", id=first.id)
        gpu.wait_held(rule)
        with pytest.raises(ttrpc.Error, match="VRAM_SHORT"):
            second.resume()
        assert second.status == "PAUSED"
        assert calls(gpu, second.pid) == ["lock", "checkpoint"]
        gpu.release(rule)
        ttrpc.answer(resume, 30)
        first.workload.goes_on()
        first.pause()
        second.resume()
        second.workload.goes_on()
        first.kill()


@pytest.mark.parametrize("call,code,reason", [("restore", 304, "CUDA_RESTORE_FAILED"),
                                              ("unlock", 304, "CUDA_")])
def test_resume_that_fails_can_be_repeated(suspending, gpu, call, code, reason):
    _, container = suspending
    container.pause()
    gpu.fault(call=call, code=code)
    with pytest.raises(ttrpc.Error, match=reason):
        container.resume()
    assert container.status == "PAUSED"
    assert cgroups.frozen(container.pid)
    assert gpu.gpu()["used"] == 0
    gpu.clear()
    container.resume()
    container.workload.goes_on()


def test_killed_while_it_is_suspended(suspending, gpu, world):
    """In the middle of the save: the exit comes, the Pause fails, nothing is left."""
    _, container = suspending
    rule = gpu.fault(call="checkpoint", hang=True)
    pause = container.task.send("Pause", id=container.id)
    gpu.wait_held(rule)
    assert container.status == "PAUSING"
    container.kill()
    assert container.wait().exit_status == 137
    gpu.release(rule)
    with pytest.raises(ttrpc.Error):
        ttrpc.answer(pause, 30)
    container.delete()
    world.sink.wait("delete", container.id)
    assert len(world.sink.all(container.id, "exit")) == 1


# --- who asks for it ---

def test_a_pod_that_does_not_ask_is_frozen_and_no_more(gworld, gpu, start_agent):
    start_agent(gworld.agent_dir)
    container = gworld.running()
    container.pause()
    assert gpu.log(call="lock") == []
    assert gpu.gpu()["used"] > 0
    container.resume()
    container.workload.goes_on()


def test_frozen_without_agent(gworld, gpu):
    container = gworld.running()
    container.pause()
    assert cgroups.frozen(container.pid)
    container.resume()
    container.workload.goes_on()


def test_an_agent_that_does_not_answer(gworld, gpu, start_agent):
    """It is not waited for longer than its first answer may take."""
    gworld.write_config('[timeouts]\nagent = "1s"\n')
    agent = start_agent(gworld.agent_dir)
    container = gworld.running()
    os.kill(agent.process.pid, signal.SIGSTOP)
    try:
        container.pause()
        assert cgroups.frozen(container.pid)
    finally:
        os.kill(agent.process.pid, signal.SIGCONT)
    container.resume()
    container.workload.goes_on()


def test_by_the_operator(gnode):
    """Also a container whose pod does not ask for it; and containerd's view is true."""
    container = gnode.running()
    outcome = gnode.agent.run("SuspendContainer", containerd_namespace=gnode.node.namespace,
                              container_id=container.id)
    assert outcome.ok, outcome
    assert outcome.phases == ["preflight", "quiesce", "lock", "vram_save", "freeze", "freeze"]
    assert outcome.last.container_id == container.id
    assert container.status == "PAUSED"
    assert gnode.gpu.gpu()["used"] == 0
    again = gnode.agent.run("SuspendContainer", containerd_namespace=gnode.node.namespace,
                            container_id=container.id)
    assert not again.ok and "paused already" in again.message
    outcome = gnode.agent.run("ResumeContainer", containerd_namespace=gnode.node.namespace,
                              container_id=container.id)
    assert outcome.ok, outcome
    assert outcome.phases == ["preflight", "quiesce", "vram_restore", "unlock"]
    gnode.watch(container).goes_on()


def test_by_the_operator_refused(gnode):
    """What went wrong comes with its reason, and the container runs on."""
    container = gnode.running()
    gnode.gpu.fault(call="checkpoint", code=2)
    outcome = gnode.agent.run("SuspendContainer", containerd_namespace=gnode.node.namespace,
                              container_id=container.id)
    assert outcome.reason == "CUDA_SAVE_FAILED"
    assert outcome.last.phase == agent_pb.PHASE_VRAM_SAVE
    gnode.watch(container).goes_on()
    outcome = gnode.agent.run("SuspendContainer", containerd_namespace=gnode.node.namespace,
                              container_id="nobody")
    assert outcome.reason == "CONTAINER_MISSING"


def test_by_the_operator_without_a_gpu(gnode):
    """There is nothing to suspend: it runs on."""
    container = gnode.client.container(["probe", "count", "/tmp/n"])
    gnode.containers.append(container)
    container.run()
    outcome = gnode.agent.run("SuspendContainer", containerd_namespace=gnode.node.namespace,
                              container_id=container.id)
    assert outcome.reason == "NOT_GPU"
    assert container.status == "RUNNING"
