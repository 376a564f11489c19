# SPDX-License-Identifier: Apache-2.0
"""Places that are full, read-only or out of inodes, callers without patience, and many at once."""
import contextlib
import os
import subprocess
import threading
import time

import grpc
import pytest

from gpu.conftest import group_config
from gpu.test_checkpoint import options, state_of
from kyb import ttrpc
from kyb.agent import pb as agent_pb
from kyb.wait import until

from .stage import AGENT, SHIM, Stage

pytestmark = pytest.mark.criu


@contextlib.contextmanager
def tmpfs(folder, how):
    """A small file system at folder."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=0700,{how}", "kyb-test", str(folder)],
                   check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path):
    """Until nothing more goes in."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    with contextlib.suppress(OSError):
        while os.write(fd, b"x" * 4096):
            pass
    os.close(fd)


def remount(folder, how):
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


def label(how):
    """Of mount options."""
    return "read-only" if how.endswith("ro") else "no inodes" if "nr_inodes" in how else "full"


class Row:
    """Of the fault matrix."""

    def __init__(self, record_property, *what):
        self.result = [*what, 99.0, "not survived"]
        self.begun = self.reason = None
        record_property("row", self.result)

    def told(self, reason):
        """The caller has been; from now on it counts."""
        self.reason, self.begun = reason, time.monotonic()

    def survived(self, outcome=None):
        self.result[3:] = [time.monotonic() - self.begun,
                           outcome or f"undone ({self.reason}); computes on"]


def well(gpu, agent, container):
    """It computes on, and nobody has anything left to do."""
    assert container.status == "RUNNING"
    container.workload.goes_on()
    assert state_of(gpu, container) in (None, "RUNNING")
    until(lambda: not agent.call("Status").operations, 10)
    assert not os.listdir(agent.dir / "journal")


@pytest.fixture(name="place")
def _place(gworld, gpu, start_agent):
    """(agent, container)"""
    gworld.write_config(SHIM)
    agent = start_agent(gworld.agent_dir, more=AGENT + group_config(gpu))
    return agent, gworld.running()


# --- where the images go ---

@pytest.mark.parametrize("how", ["size=1M", "nr_inodes=6", "size=64M,ro"],
                         ids=["full", "no-inodes", "read-only"])
def test_image_folder(gworld, gpu, place, how, record_property):
    """CRIU fails in the middle, or cannot begin: everything is taken back."""
    agent, container = place
    row = Row(record_property, "leave", "criu", f"images: {label(how)}")
    with tmpfs(gworld.world.dir / "small", how.replace(",ro", "")) as folder:
        if how.endswith(",ro"):
            remount(folder, "ro")
        with pytest.raises(ttrpc.Error) as caught:
            container.checkpoint(folder, options())
        reason = caught.value.message.split(":")[0]
        assert reason in ("STORE_FULL", "STORE_FAILED", "CRIU_DUMP_FAILED")
        row.told(reason)
        well(gpu, agent, container)
        row.survived()
    container.checkpoint(gworld.image("after"), options())
    well(gpu, agent, container)


def test_full_when_it_is_sealed(gworld, gpu, place, record_property):
    """The dump has just fitted; for its description there is no room."""
    agent, container = place
    row = Row(record_property, "leave", "seal", "images: full")
    with tmpfs(gworld.world.dir / "small", "size=64M") as folder:
        rule = gpu.fault(call="restore", hang=True)  # after the dump, before the seal
        call = container.task.send("Checkpoint", id=container.id, path=str(folder),
                                   options=options())
        gpu.wait_held(rule)
        fill(folder / "core-ballast.img")  # a name like the others
        gpu.release()
        gpu.clear()
        with pytest.raises(ttrpc.Error, match="STORE_FULL"):
            ttrpc.answer(call, 30)
        row.told("STORE_FULL")
        well(gpu, agent, container)
        row.survived()


# --- the store, by way of containerd ---

@pytest.mark.parametrize("how", ["size=2M", "nr_inodes=12", "ro"],
                         ids=["full", "no-inodes", "read-only"])
def test_store(gnode, how, record_property):
    row = Row(record_property, "leave", "criu", f"store: {label(how)}")
    gnode.agent.stop()
    with tmpfs(gnode.agent.store, "size=64M" if how == "ro" else how) as folder:
        gnode.agent.start()
        container = gnode.running()
        if how == "ro":
            remount(folder, "ro")
        outcome = gnode.checkpoint(container, leave=True)
        assert outcome.reason in ("STORE_FULL", "STORE_FAILED", "CRIU_DUMP_FAILED",
                                  "ROOTFS_FAILED"), outcome
        row.told(outcome.reason)
        container.workload.goes_on()
        assert gnode.gpu.processes()[container.pid]["state"] in (None, "RUNNING")
        row.survived()
        if how == "ro":
            remount(folder, "rw")
        assert gnode.agent.refs() == []
        until(lambda: [n for n in os.listdir(folder) if n != ".kybernate-store"] == [], 10,
              "nothing is left in the store")
        gnode.agent.stop()
    gnode.agent.start()
    assert gnode.checkpoint(container, leave=True).ok
    container.workload.goes_on()


@pytest.mark.parametrize("at,phase", [("lock", "lock"), ("checkpoint", "vram_save"),
                                      ("restore", "vram_restore")])
def test_containerd_killed(gnode, at, phase, record_property):
    """It is nobody's fault but containerd's: container and operation go on."""
    row = Row(record_property, "leave", phase, "containerd killed")
    container = gnode.running()
    rule = gnode.gpu.fault(call=at, hang=True)
    updates = gnode.agent.stream("CreateCheckpoint", containerd_namespace=gnode.node.namespace,
                                 container_id=container.id, checkpoint_ref="ck")
    reader = threading.Thread(target=lambda: contextlib.suppress(grpc.RpcError) and
                              _drain(updates))
    reader.start()
    gnode.gpu.wait_held(rule)
    gnode.node.restart(9)
    gnode.gpu.release()
    gnode.gpu.clear()
    row.told(None)
    reader.join(60)
    until(lambda: not gnode.agent.call("Status").operations, 30)
    container.workload.goes_on()
    row.survived("computes on")
    assert gnode.gpu.processes()[container.pid]["state"] == "RUNNING"
    until(lambda: not [n for n in os.listdir(gnode.agent.store) if n.startswith(".new")], 10)
    for ref in gnode.agent.refs():
        gnode.agent.call("GetCheckpoint", checkpoint_ref=ref, verify=True)
    assert gnode.checkpoint(container, "next", leave=True).ok
    container.workload.goes_on()


@pytest.mark.parametrize("at,phase", [("restore", "vram_restore"), ("unlock", "unlock")])
def test_containerd_killed_in_a_restore(gnode, at, phase, record_property):
    """Nobody hears that the task has started; the next containerd finds it running."""
    row = Row(record_property, "restore", phase, "containerd killed")
    first = gnode.running()
    assert gnode.checkpoint(first).ok
    assert gnode.ended(first) == 137
    second = gnode.new_life("ck")
    second.create()
    rule = gnode.gpu.fault(call=at, hang=True)
    starting = gnode.client.task_future("Start", container_id=second.id)  # dropped it is canceled
    gnode.gpu.wait_held(rule)
    gnode.node.restart(9)
    gnode.gpu.release()
    gnode.gpu.clear()
    row.told(None)
    until(lambda: second.status == "RUNNING", 20, "it runs")
    gnode.watch(second).goes_on()
    assert gnode.gpu.processes()[second.pid]["state"] == "RUNNING"
    assert not gnode.agent.call("Status").operations
    assert starting.exception(30), "containerd was killed before it could answer"
    row.survived("restored; computes on")


def _drain(updates):
    try:
        for _ in updates:
            pass
    except grpc.RpcError:
        pass


# --- callers without patience ---

def test_deadline_of_the_call_during_the_dump(gworld, gpu, start_agent, world):
    """The runtime is ended at the deadline that containerd's client has set, not at ours."""
    agent = start_agent(gworld.agent_dir)
    fake = world.fake_runtime()
    container = gworld.running(options=world.options(binary_name=str(fake.path)))
    fake.hold("checkpoint")
    begun = time.monotonic()
    call = container.task.send("Checkpoint", 2, id=container.id, path=str(gworld.image()),
                               options=options())
    with pytest.raises(ttrpc.Error, match="TIMEOUT|deadline"):
        ttrpc.answer(call, 30)
    assert time.monotonic() - begun < 10
    fake.release("checkpoint")
    well(gpu, agent, container)


def test_interrupted_during_the_dump(gnode):
    """kybernatectl's Ctrl-C: the dump is ended, not waited for."""
    runtime = gnode.node.dir / "slow"
    real = next(p for p in ("/usr/sbin/runc", "/usr/bin/runc") if os.path.exists(p))
    runtime.write_text(f'#!/bin/sh\nfor a; do [ "$a" = checkpoint ] && exec sleep 60; done\n'
                       f'exec {real} "$@"\n', encoding="ascii")
    runtime.chmod(0o755)
    from kyb import protos  # pylint: disable=import-outside-toplevel
    container = gnode.running(options=protos.pack(
        protos.RUNC_OPTIONS, protos.options.Runc(binary_name=str(runtime))))
    updates = gnode.agent.stream("CreateCheckpoint", containerd_namespace=gnode.node.namespace,
                                 container_id=container.id, checkpoint_ref="ck")
    for update in updates:
        if update.phase == 5:  # CRIU_DUMP
            break
    time.sleep(0.2)
    begun = time.monotonic()
    updates.cancel()
    until(lambda: not gnode.agent.call("Status").operations, 10, "it is undone")
    assert time.monotonic() - begun < 5
    container.workload.goes_on()
    assert gnode.agent.refs() == []


# --- many ---

LIMIT = 3
SMALL = ["gpu-counter", "--vram", "1M", "--interval", "200", "--status", "/var/state"]


def busiest(fake):
    """How many dumps were under way at the same time at most, and how many there were."""
    moments = []
    for begun in (fake.folder / "calls").glob("*.argv"):
        if b"checkpoint" not in begun.read_bytes().split(b"\0"):
            continue
        moments.append((int(begun.name.partition(".")[0]), 1))
        ended = begun.with_suffix(".end").read_text(encoding="ascii")
        moments.append((int(ended), -1))
    most = now = 0
    for _, step in sorted(moments):
        now += step
        most = max(most, now)
    return most, len(moments) // 2


def test_many_at_once(gworld, gpu, start_agent, request, record_property):
    """Only so many dumps at a time, never fewer while somebody waits; every one comes to its turn
    and is sealed."""
    count = 50 if request.config.getoption("--faults") == "full" else 6
    agent = start_agent(gworld.agent_dir, more=f"[limits]\ncriu = {LIMIT}\n" + group_config(gpu))
    stage = Stage(gworld, gpu, agent, "leave")
    fake = stage.fake
    if count == 50:
        row = Row(record_property, "leave", "runtime", f"{count} at once, {LIMIT} dumps allowed")
    fake.after("checkpoint", 'date +%s%N >"$call.end"')
    options_ = gworld.world.options(binary_name=str(fake.path))
    containers = [gworld.running(SMALL, options=options_) for _ in range(count)]
    fds = stage.count_fds()
    fake.hold("checkpoint")
    calls = [c.task.send("Checkpoint", id=c.id, path=str(gworld.image(f"i{n}")),
                         options=options()) for n, c in enumerate(containers)]
    until(lambda: sum(o.phase == agent_pb.PHASE_CRIU_DUMP for o in
                      agent.call("Status").operations) == count, 120, "all are at the dump")
    until(lambda: len(fake.calls("checkpoint")) == LIMIT, 10)
    time.sleep(0.3)  # one too many would begin now
    assert len(fake.calls("checkpoint")) == LIMIT
    fake.release("checkpoint")
    for call in calls:
        ttrpc.answer(call, 300)
    begun = time.monotonic()
    assert busiest(fake) == (LIMIT, count)
    steps = [container.workload.step for container in containers]
    for number, container in enumerate(containers):
        assert (gworld.world.dir / f"i{number}/kybernate.json").exists()
        assert container.status == "RUNNING"
        container.workload.goes_on(beyond=steps[number])
        assert state_of(gpu, container) == "RUNNING"
        stage.container = container
        assert not stage.leftovers()
    until(stage.settled, 10, "the agent has nothing left to do")
    until(lambda: stage.count_fds() <= fds + 1, 35, "the agent has closed what it opened")
    if count == 50:
        row.begun = begun
        row.survived("checkpointed; computes on")


def test_waiting_for_a_dump_has_an_end(gworld, gpu, start_agent):
    """Whose turn does not come in time is refused with the reason, and computes on; the others are
    not disturbed."""
    agent = start_agent(gworld.agent_dir, more="[limits]\ncriu = 1\n" + group_config(gpu))
    fake = gworld.world.fake_runtime()
    options_ = gworld.world.options(binary_name=str(fake.path))
    first, second, third = (gworld.running(SMALL, options=options_) for _ in range(3))
    fake.hold("checkpoint")
    dump = first.task.send("Checkpoint", id=first.id, path=str(gworld.image("i1")),
                           options=options())
    fake.wait_call("checkpoint")
    with pytest.raises(ttrpc.Error, match="TIMEOUT: .*criu_dump"):
        ttrpc.answer(second.task.send("Checkpoint", 3, id=second.id,
                                      path=str(gworld.image("i2")), options=options()), 30)
    second.workload.goes_on()
    assert state_of(gpu, second) == "RUNNING"
    next_ = third.task.send("Checkpoint", id=third.id, path=str(gworld.image("i3")),
                            options=options())
    fake.release("checkpoint")
    ttrpc.answer(dump, 60)
    ttrpc.answer(next_, 60)
    for container in (first, second, third):
        container.workload.goes_on()
    assert len(fake.calls("checkpoint")) == 2
    assert not agent.call("Status").operations


def test_memory_limit(gworld, gpu, place):
    """GPU memory that does not fit into the pod's limit is refused, or costs the workload only as
    the kernel's OOM killer would; the agent and the others are well."""
    agent, other = place
    small = gworld.container(["gpu-counter", "--vram", "64M", "--interval", "50", "--status",
                              "/var/state"], edit=lambda spec: spec["linux"].update(
                                  resources={"memory": {"limit": 48 << 20}}))
    small.run()
    small.workload.ready()
    with pytest.raises(ttrpc.Error) as caught:
        small.checkpoint(gworld.image(), options())
    assert caught.value.message.split(":")[0] == "MEM_LIMIT"
    assert gpu.log(call="checkpoint") == []
    small.workload.goes_on()
    well(gpu, agent, other)
