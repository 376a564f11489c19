# SPDX-License-Identifier: Apache-2.0
"""What was checkpointed comes back, in a new container, and counts as running only when its GPU
memory is where it was."""
import json
import os
import pathlib
import time

import grpc
import pytest

from kyb import env
from kyb.agent import pb as agent_pb
from kyb.client import Container
from kyb.wait import until

from fakegpu import FakeGpu

from .conftest import group_config

pytestmark = pytest.mark.criu


def checkpointed(gnode, ref="ck", args=None, **more):
    """A container that computed, and was ended by its checkpoint: the step it came to."""
    container = gnode.running(args, **more)
    outcome = gnode.checkpoint(container, ref)
    assert outcome.ok, outcome
    assert gnode.ended(container) == 137
    assert gnode.gpu.gpu()["used"] == 0
    return container


def refused(container):
    """The message of a start that is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        container.run()
    return caught.value.details()


def criu_logs(gnode):
    return [p for p in gnode.node.dir.rglob("restore.log")]


# --- it works ---

def test_by_annotation(gnode):
    """Checkpointed with exit; created anew with an annotation: counter, GPU memory and files go
    on."""
    first = gnode.running(environ=["KYB_TEST=1"])
    first.exec("e", ["sh", "-c", "echo precious >/etc/kept; rm /bin/true; mkdir -m 700 /new"])
    first.wait("e")
    first.delete("e")
    outcome = gnode.checkpoint(first)
    assert outcome.ok, outcome
    assert outcome.phases[-2:] == ["seal", "exit"]
    assert gnode.ended(first) == 137
    second = gnode.new_life("ck", environ=["KYB_TEST=1"])
    second.run()
    workload = gnode.watch(second)
    assert workload.step > 1
    workload.goes_on()
    root = pathlib.Path(f"/proc/{second.pid}/root")
    assert (root / "etc/kept").read_text() == "precious\n"
    assert not (root / "bin/true").exists()
    assert (root / "new").stat().st_mode & 0o777 == 0o700
    assert gnode.gpu.processes()[second.pid]["state"] == "RUNNING"


def test_by_the_agent(gnode):
    """RestoreContainer makes the new container by itself, as often as one likes."""
    first = gnode.running()
    outcome = gnode.checkpoint(first, leave=True)
    assert outcome.ok, outcome
    assert outcome.phases[-2:] == ["unlock", "seal"]
    outcome, second = gnode.clone("ck")
    assert outcome.ok, outcome
    assert outcome.last.container_id == second.id
    gnode.watch(second).goes_on()
    assert second.pid == outcome.last.task_pid
    gnode.watch(first).goes_on()
    outcome, third = gnode.clone("ck")
    assert outcome.ok, outcome
    gnode.watch(third).goes_on()


def test_the_agent_chooses_an_id(gnode):
    """The checkpoint's own while it is free, else one that shows where it comes from."""
    first = gnode.running()
    assert gnode.checkpoint(first).ok
    gnode.ended(first)
    outcome, second = gnode.clone("ck", container_id="")
    assert outcome.ok, outcome
    assert second.id.startswith(first.id + "-r")
    assert {u.container_id for u in outcome.updates} == {second.id}
    assert second.pid or second.get().pid == outcome.last.task_pid
    gnode.watch(second).goes_on()
    first.remove()
    outcome, third = gnode.clone("ck", container_id="")
    assert outcome.ok, outcome
    assert third.id == first.id
    gnode.watch(third).goes_on()


def test_the_timeline_is_whole(gnode):
    """What was prepared before the container was mounted is in it, in its place."""
    first = gnode.running()
    assert gnode.checkpoint(first, leave=True).ok
    outcome, _ = gnode.clone("ck")
    assert outcome.ok, outcome
    assert outcome.phases == ["preflight", "verify", "rootfs", "preflight", "verify",
                              "criu_restore", "vram_restore", "unlock"]
    starts = [t.start_us for t in outcome.last.timeline]
    assert starts == sorted(starts)
    seen = {u.phase for u in outcome.updates[:-1]}
    assert {agent_pb.PHASE_CREATE, agent_pb.PHASE_ROOTFS, agent_pb.PHASE_CRIU_RESTORE,
            agent_pb.PHASE_VRAM_RESTORE} <= seen


def test_progress_comes_while_a_phase_takes_its_time(gnode):
    """A caller hears of the operation at least once a second, whatever it is waiting for."""
    container = gnode.running()
    rule = gnode.gpu.fault(call="checkpoint", hang=True)
    heard = []
    before = time.time() * 1000
    updates = gnode.agent.stream("CreateCheckpoint", container_id=container.id, checkpoint_ref="ck",
                                 containerd_namespace=gnode.node.namespace)
    for update in updates:
        heard.append(update.progress.elapsed_ms)
        if update.phase == agent_pb.PHASE_VRAM_SAVE and heard[-1] > 2500:
            break
    (doing,) = gnode.agent.call("Status").operations
    assert before <= doing.started_ms <= time.time() * 1000
    gnode.gpu.release(rule)
    assert list(updates)[-1].status == agent_pb.STATUS_OK
    assert max(b - a for a, b in zip(heard, heard[1:])) < 1000
    info = gnode.agent.call("GetCheckpoint", checkpoint_ref="ck").checkpoint
    assert info.container_id == container.id


def test_not_running_before_the_gpu_is_back(gnode):
    """Start does not return, and State does not say RUNNING, while the driver restores."""
    checkpointed(gnode)
    rule = gnode.gpu.fault(call="restore", hang=True)
    second = gnode.new_life("ck")
    second.create()
    start = gnode.client.task_future("Start", container_id=second.id)
    gnode.gpu.wait_held(rule)
    assert second.status == "CREATED"
    assert not start.done()
    gnode.gpu.release(rule)
    start.result(env.seconds(30))
    assert second.status == "RUNNING"
    gnode.watch(second).goes_on()


def test_by_ctr(gnode):
    """'ctr containers checkpoint' and 'restore' know nothing of us; their images hold the GPU
    memory all the same, and it is checked and brought back in the same way."""
    node = gnode.node
    first = gnode.running()
    ref = f"localhost/checkpoint-{first.id}:1"
    node.ctr("containers", "checkpoint", "--rw", "--image", "--task", first.id, ref)
    first.workload.goes_on()
    first.kill()
    gnode.ended(first)
    again = Container(gnode.client, node.new_id())
    node.ctr("containers", "restore", "--live", "--rw", again.id, ref)
    assert len(gnode.gpu.log(call="restore", pid=again.get().pid)) == 1
    gnode.watch(again).goes_on()
    node.ctr("images", "rm", ref)


def test_several_generations(gnode):
    """The restored is checkpointed and restored."""
    checkpointed(gnode, "one")
    second = gnode.new_life("one")
    second.run()
    gnode.watch(second).goes_on()
    outcome = gnode.checkpoint(second, "two")
    assert outcome.ok, outcome
    assert gnode.ended(second) == 137
    third = gnode.new_life("two")
    third.run()
    gnode.watch(third).goes_on()
    outcome, fourth = gnode.clone("two")
    assert outcome.ok, outcome
    gnode.watch(fourth).goes_on()


def test_on_another_node(gnode, start_agent):
    """Another GPU, of the same kind: memory moves to it."""
    checkpointed(gnode)
    gnode.agent.stop()
    with FakeGpu(node=2) as other:
        assert other.uuid() != gnode.gpu.uuid()
        gnode.agent = start_agent(gnode.agent_dir, containerd=gnode.node.socket,
                                  more=group_config(other), gpu=other)
        second = gnode.new_life("ck", gpu_dir=other.dir)
        second.run()
        gnode.watch(second).goes_on()
        assert other.gpu()["used"] > 0
        second.kill()
        gnode.ended(second)
        gnode.agent.stop()


def test_several_processes(gnode):
    args = ["gpu-counter", "--procs", "3", "--vram", "4M", "--interval", "50",
            "--status", "/var/state"]
    first = gnode.container(args)
    first.run()
    states = [pathlib.Path(f"/proc/{first.pid}/root/var/state.{n}") for n in range(3)]
    until(lambda: all(s.exists() for s in states), what="three processes compute")
    outcome = gnode.checkpoint(first)
    assert outcome.ok, outcome
    gnode.ended(first)
    second = gnode.new_life("ck", args=args)
    second.run()
    gnode.watch(second)
    states = [pathlib.Path(f"/proc/{second.pid}/root/var/state.{n}") for n in range(3)]
    before = [s.read_text() for s in states]
    until(lambda: all(s.read_text() != b for s, b in zip(states, before)), what="all three go on")
    assert all(s.read_text().endswith(" ok\n") for s in states)


def test_standard_output_goes_on(gnode):
    """What it writes after the restore arrives, in the log the restore was given."""
    args = ["gpu-counter", "--vram", "1M", "--interval", "50"]
    first = gnode.container(args)
    log = gnode.node.dir / "first.log"
    first.create(stdout=f"file://{log}")
    first.start()
    until(lambda: log.exists() and "step=3 " in log.read_text())
    outcome = gnode.checkpoint(first)
    assert outcome.ok, outcome
    gnode.ended(first)
    last = int(log.read_text().split("step=")[-1].split()[0])
    log2 = gnode.node.dir / "second.log"
    outcome, _ = gnode.clone("ck", stdout=f"file://{log2}")
    assert outcome.ok, outcome
    until(lambda: log2.exists() and log2.read_text().count("\n") >= 2)
    assert int(log2.read_text().split("step=")[1].split()[0]) == last + 1
    log.unlink()
    log2.unlink()


# --- what is refused, and that nothing is lost ---

@pytest.mark.parametrize("ref,reason", [
    ("no-such", "IMAGE_MISSING"), ("../ck", "REF_INVALID"), ("a/b", "REF_INVALID"),
    ("..", "REF_INVALID"), ("x" * 129, "REF_INVALID"), (".new-ck", "REF_INVALID"),
])
def test_bad_refs(gnode, ref, reason):
    container = gnode.new_life(ref)
    assert reason in refused(container)
    outcome, _ = gnode.clone(ref)
    assert (outcome.ok, outcome.reason) == (False, reason), outcome
    running = gnode.running()
    if reason == "REF_INVALID":
        outcome = gnode.checkpoint(running, ref)
        assert outcome.reason == reason, outcome
    for verb in ("GetCheckpoint", "DeleteCheckpoint"):
        with pytest.raises(grpc.RpcError) as caught:
            gnode.agent.call(verb, checkpoint_ref=ref)
        assert reason in caught.value.details()


def test_empty_ref_is_no_cold_start(gnode):
    """A template that renders to nothing must not start a training from its beginning."""
    assert "restore-from" in refused(gnode.new_life(""))


def test_existing_ref(gnode):
    """Refused before anything is touched; the first checkpoint stays what it was."""
    container = gnode.running()
    assert gnode.checkpoint(container, leave=True).ok
    before = gnode.agent.call("GetCheckpoint", checkpoint_ref="ck").metadata_json
    locks = len(gnode.gpu.log(call="lock"))
    outcome = gnode.checkpoint(container, leave=True)
    assert outcome.reason == "REF_EXISTS", outcome
    assert len(gnode.gpu.log(call="lock")) == locks
    assert gnode.agent.call("GetCheckpoint", checkpoint_ref="ck").metadata_json == before
    container.workload.goes_on()


@pytest.mark.parametrize("name,how", [
    ("criu/pages-1.img", "flip"), ("criu/inventory.img", "truncate"), ("criu/pstree.img", "remove"),
    ("metadata.json", "flip"), ("manifest.json", "flip"), ("rootfs-diff.tar.zst", "truncate"),
])
def test_damaged_image(gnode, name, how):
    """Found before CRIU or the driver see anything of it."""
    checkpointed(gnode)
    path = gnode.agent.store / "ck" / name
    data = path.read_bytes()
    os.chmod(path, 0o600)
    if how == "remove":
        path.unlink()
    elif how == "truncate":
        path.write_bytes(data[:len(data) // 2])
    else:
        path.write_bytes(data[:len(data) // 2] + bytes([data[len(data) // 2] ^ 1])
                         + data[len(data) // 2 + 1:])
    container = gnode.new_life("ck")
    message = refused(container)
    assert "IMAGE_CORRUPT" in message
    outcome, _ = gnode.clone("ck")
    assert outcome.reason == "IMAGE_CORRUPT", outcome
    assert not criu_logs(gnode)
    assert not gnode.gpu.log(call="restore")
    path.write_bytes(data)  # what was repaired is good again
    path.chmod(0o600)
    again = gnode.new_life("ck")
    again.run()
    gnode.watch(again).goes_on()


def test_wrong_seat(gnode):
    """The pod is on a seat of another group than its environment says."""
    checkpointed(gnode)
    message = refused(gnode.new_life("ck", seat="seat-9"))
    assert "SEAT_MISMATCH" in message and "seat-9" in message
    other = gnode.new_life("ck", seat="seat-1")  # another seat of the group is fine
    other.run()
    gnode.watch(other).goes_on()


def test_reason_of_the_shim_by_way_of_containerd(gnode):
    """What the shim refuses by itself, before it asks the agent, has its own reason to the agent's
    caller: containerd knows texts only."""
    container = gnode.running(annotations={"kybernate.io/gpu-seat": "seat-1"})
    outcome = gnode.checkpoint(container, leave=True)
    assert outcome.reason == "SEAT_MISMATCH", outcome
    assert outcome.failure.details().startswith("SEAT_MISMATCH: ")
    assert not outcome.last.error.transient
    assert "seat-0" in outcome.message and "seat-1" in outcome.message
    gnode.watch(container).goes_on()


def test_reason_of_a_seat_that_is_gone(gnode, start_agent):
    """Restored by the agent's own call, where the node has no such seat any more."""
    checkpointed(gnode)
    gnode.agent.stop()
    gnode.agent = start_agent(gnode.agent_dir, containerd=gnode.node.socket,
                              more=group_config(gnode.gpu, seats=("seat-7",)))
    outcome, _ = gnode.clone("ck")
    assert outcome.reason == "SEAT_MISMATCH", outcome
    assert outcome.failure.details().startswith("SEAT_MISMATCH: ")
    assert not criu_logs(gnode)


def test_a_restore_and_a_resume_for_the_room_of_one(gnode, start_agent):
    """Neither is given what the other one was promised and does not hold yet: whoever comes second is
    refused before the driver, whose out-of-memory would be final, is asked."""
    args = ["gpu-counter", "--vram", "36M", "--interval", "50", "--status", "/var/state"]
    gnode.agent.stop()
    with FakeGpu(memory="64M") as gnode.gpu:
        gpu = gnode.gpu
        gnode.agent = start_agent(gnode.agent_dir, containerd=gnode.node.socket,
                                  more=group_config(gpu), gpu=gpu)
        checkpointed(gnode, args=args)
        held = gnode.running(args, annotations={"kybernate.io/pause": "suspend"})
        held.pause()

        late = gnode.new_life("ck")
        late.create()
        rule = gpu.fault(call="restore", hang=True, count=1)
        resume = gnode.client.task_future("Resume", container_id=held.id)
        gpu.wait_held(rule)
        with pytest.raises(grpc.RpcError, match="VRAM_SHORT"):
            late.start()
        assert not criu_logs(gnode)
        late.delete()
        gpu.release(rule)
        resume.result(env.seconds(30))
        held.workload.goes_on()
        held.pause()

        again = gnode.new_life("ck")
        again.create()
        rule = gpu.fault(call="restore", hang=True, count=1)
        start = gnode.client.task_future("Start", container_id=again.id)
        gpu.wait_held(rule)
        asked = len(gpu.log(call="restore", pid=held.pid))
        with pytest.raises(grpc.RpcError, match="VRAM_SHORT"):
            held.resume()
        assert held.status == "PAUSED"
        assert len(gpu.log(call="restore", pid=held.pid)) == asked
        gpu.release(rule)
        start.result(env.seconds(30))
        gnode.watch(again).goes_on()
        again.kill()
        gnode.ended(again)
        held.resume()
        held.workload.goes_on()
        held.kill()
        gnode.ended(held)


def test_too_little_gpu_memory(gnode):
    """Said before CRIU runs; and once there is room, it works."""
    checkpointed(gnode)
    total = gnode.gpu.gpu()["total"]
    gnode.gpu.reserve(total - (8 << 20))
    assert "VRAM_SHORT" in refused(gnode.new_life("ck"))
    late = gnode.new_life("ck")
    gnode.gpu.reserve(0)
    late.create()
    gnode.gpu.reserve(total - (8 << 20))  # between create and start
    with pytest.raises(grpc.RpcError) as caught:
        late.start()
    assert "VRAM_SHORT" in caught.value.details()
    assert not criu_logs(gnode)
    late.delete()
    gnode.gpu.reserve(0)
    again = gnode.new_life("ck")
    again.run()
    gnode.watch(again).goes_on()


def test_another_kind_of_gpu(gnode, start_agent):
    checkpointed(gnode)
    gnode.agent.stop()
    with FakeGpu(node=3, name="NVIDIA Other") as other:
        gnode.agent = start_agent(gnode.agent_dir, containerd=gnode.node.socket,
                                  more=group_config(other), gpu=other)
        message = refused(gnode.new_life("ck", gpu_dir=other.dir))
        assert "GPU_MISMATCH" in message
        assert not criu_logs(gnode)
        gnode.agent.stop()


def test_a_driver_that_cannot_move(gnode, start_agent):
    """Branch 575 restores onto the same GPUs only: said before CRIU runs."""
    checkpointed(gnode)
    gnode.agent.stop()
    with FakeGpu(node=4, config={"branch": 575, "driver_version": "580.159.04"}) as other:
        gnode.agent = start_agent(gnode.agent_dir, containerd=gnode.node.socket,
                                  more=group_config(other), gpu=other)
        message = refused(gnode.new_life("ck", gpu_dir=other.dir))
        assert "GPU_MISMATCH" in message and "580" in message
        assert not criu_logs(gnode)
        gnode.agent.stop()


def test_failing_restore_by_driver(gnode):
    """The new container does not count as started, and the checkpoint is still there."""
    checkpointed(gnode)
    gnode.gpu.fault(call="restore", code=999)
    container = gnode.new_life("ck")
    container.create()
    with pytest.raises(grpc.RpcError) as caught:
        container.start()
    assert "CUDA_RESTORE_FAILED" in caught.value.details()
    assert container.status == "CREATED"
    assert gnode.gpu.gpu()["used"] == 0
    with pytest.raises(grpc.RpcError, match="whose start has failed"):
        container.start()  # its files may have changed since the checkpoint
    container.delete()
    gnode.gpu.clear()
    again = gnode.new_life("ck")
    again.run()
    gnode.watch(again).goes_on()


def test_lying_restore(gnode):
    """Half of the memory is somewhere else: the driver says success, its state does not agree."""
    checkpointed(gnode)
    gnode.gpu.fault(call="restore", lie="noop")
    container = gnode.new_life("ck")
    container.create()
    with pytest.raises(grpc.RpcError) as caught:
        container.start()
    assert "CUDA_STATE_WRONG" in caught.value.details()


def test_without_agent(gnode):
    checkpointed(gnode)
    gnode.agent.stop()
    assert "AGENT_UNAVAILABLE" in refused(gnode.new_life("ck"))


# --- the agent's other verbs ---

def test_list_get_delete(gnode):
    container = gnode.running()
    assert gnode.agent.refs() == []
    for ref in ("a", "b"):
        assert gnode.checkpoint(container, ref, leave=True).ok
    assert sorted(gnode.agent.refs()) == ["a", "b"]
    found = gnode.agent.call("GetCheckpoint", checkpoint_ref="a", verify=True)
    assert found.verified
    assert found.checkpoint.container_id == container.id
    assert found.checkpoint.vram_bytes >= 16 << 20
    assert [p.name for p in found.checkpoint.processes] == ["gpu-counter"]
    names = {f.path for f in found.files}
    assert {"criu/inventory.img", "rootfs-diff.tar.zst", "container.pb"} <= names
    assert json.loads(found.metadata_json)["container"]["id"] == container.id
    gnode.agent.call("DeleteCheckpoint", checkpoint_ref="a")
    assert gnode.agent.refs() == ["b"]
    assert not (gnode.agent.store / "a").exists()


def test_limit_of_the_store(gnode):
    """There is room for one. Refused before anything is touched; deleted, its room is free at once."""
    gnode.agent.stop()
    gnode.start(more='limits.store_size = "32MiB"\n' + group_config(gnode.gpu))
    container = gnode.running()
    assert gnode.checkpoint(container, "a", leave=True).ok
    locks = len(gnode.gpu.log(call="lock"))
    outcome = gnode.checkpoint(container, "b", leave=True)
    assert outcome.reason == "STORE_FULL", outcome
    assert "limits.store_size" in outcome.message
    assert len(gnode.gpu.log(call="lock")) == locks
    container.workload.goes_on()
    assert not gnode.agent.call("DeleteCheckpoint", checkpoint_ref="a").room_pending
    assert gnode.checkpoint(container, "b", leave=True).ok
    assert gnode.agent.refs() == ["b"]


def test_made_up_ref(gnode):
    container = gnode.running()
    outcome = gnode.checkpoint(container, "", leave=True)
    assert outcome.ok, outcome
    assert gnode.agent.refs() == [outcome.last.checkpoint_ref]


def test_unknown_container(gnode):
    outcome = gnode.agent.run("CreateCheckpoint", containerd_namespace=gnode.node.namespace,
                              container_id="nobody", checkpoint_ref="x")
    assert outcome.reason == "CONTAINER_MISSING", outcome
    assert gnode.agent.refs() == []


def test_updates_tell_the_phases(gnode):
    container = gnode.running()
    phases = []
    for update in gnode.agent.stream("CreateCheckpoint", containerd_namespace=gnode.node.namespace,
                                     container_id=container.id, checkpoint_ref="ck", exit=False):
        if not phases or phases[-1] != update.phase:
            phases.append(update.phase)
    wanted = [1, 2, 3, 4, 5, 6]
    assert [p for p in phases if p in wanted][:6] == wanted


def test_status_and_doctor(gnode):
    status = gnode.agent.call("Status")
    assert status.driver_ok
    assert status.worker_pid > 0
    assert status.store_free_bytes > 0
    doctor = gnode.agent.call("Doctor")
    assert doctor.ok, [c for c in doctor.checks if not c.ok]
    container = gnode.running()
    doctor = gnode.agent.call("Doctor", containerd_namespace=gnode.node.namespace,
                              container_id=container.id)
    assert doctor.ok, [c for c in doctor.checks if not c.ok]
