# SPDX-License-Identifier: Apache-2.0
"""A GPU container is checkpointed: the order of things, and that it runs on whatever fails."""
import json
import os
import pathlib
import re
import stat
import subprocess
import sys

import pytest

from kyb import cgroups, env, procs, protos, ttrpc
from kyb.wait import until

from .conftest import SEAT, Workload

pytestmark = pytest.mark.criu


def options(**fields):
    return protos.pack(protos.CHECKPOINT_OPTIONS, protos.options.Checkpoint(**fields))


def spying_runtime(world):
    """An OCI runtime that writes down its arguments and is the real one: (options, calls)."""
    log = world.dir / "runtime-calls"
    path = world.dir / "spy"
    path.write_text(f'#!/bin/sh\necho "$@" >>{log}\nexec {env.which(env.RUNTIME)} "$@"\n',
                    encoding="ascii")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def calls(verb):
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        return [line for line in lines if f" {verb} " in f" {line} "]

    return world.options(binary_name=str(path)), calls


def criu_ran(container):
    """Traces of CRIU: its log in the work folder, or its copy in the bundle."""
    return [str(p) for p in container.bundle.rglob("dump.log")] + \
           [str(p) for p in (container.bundle / "work").resolve().rglob("dump.log")]


def phases(agent):
    """In the order in which they ended."""
    return re.findall(r'msg="phase done" id=\S+ phase=(\w+)', agent.log())


def state_of(gpu, container):
    """What the driver says of the container's init."""
    return gpu.processes()[container.pid]["state"]


# --- it works ---

def test_leave_running(gworld, start_agent):
    start_agent(gworld.agent_dir)
    container = gworld.running()
    folder = gworld.image()
    container.checkpoint(folder, options())
    assert container.status == "RUNNING"
    assert (folder / "inventory.img").exists()
    container.workload.goes_on()
    about = json.loads((folder / "kybernate.json").read_text())
    assert about["container"]["id"] == container.id
    assert about["gpu"]["processes"][0]["name"] == "gpu-counter"
    assert about["gpu"]["processes"][0]["vram_bytes"] >= 16 << 20
    assert about["gpu"]["seat"] == SEAT


def test_every_cuda_step_comes_before_criu_and_in_order(gworld, gpu, start_agent):
    agent = start_agent(gworld.agent_dir)
    container = gworld.running()
    pid = container.pid
    container.checkpoint(gworld.image(), options())
    done = [c["call"] for c in gpu.log(pid=pid) if c["call"] in
            ("lock", "checkpoint", "restore", "unlock")]
    assert done == ["lock", "checkpoint", "restore", "unlock"]
    saved = next(c for c in gpu.log(pid=pid) if c["call"] == "checkpoint")
    back = next(c for c in gpu.log(pid=pid) if c["call"] == "restore")
    assert phases(agent) == ["preflight", "quiesce", "lock", "vram_save", "criu_dump", "rootfs",
                     "quiesce", "vram_restore", "unlock", "seal"]
    assert saved["end"]["tick"] < back["begin"]["tick"]


def test_exit(gworld, gpu, start_agent, world):
    agent = start_agent(gworld.agent_dir)
    container = gworld.running()
    folder = gworld.image()
    container.checkpoint(folder, options(exit=True))
    assert container.wait().exit_status == 137
    assert (folder / "kybernate.json").exists()
    assert gpu.gpu()["used"] == 0
    assert phases(agent)[-2:] == ["seal", "exit"]
    container.delete()
    assert len(world.sink.all(container.id, "exit")) == 1


def test_paused_by_containerd_stays_paused(gworld, start_agent):
    """A CUDA lock on a frozen container would hang: it is thawed for it, and frozen again."""
    start_agent(gworld.agent_dir)
    container = gworld.running()
    container.pause()
    container.checkpoint(gworld.image(), options())
    assert container.status == "PAUSED"
    assert cgroups.frozen(container.pid)
    before = container.workload.step
    container.resume()
    container.workload.goes_on(before)


def test_by_ctr(gnode):
    """'ctr tasks checkpoint': containerd pauses the task before it calls the shim, packs what the
    shim has written, and resumes it."""
    container = gnode.running()
    events = gnode.client.events()
    try:
        said = gnode.node.ctr("tasks", "checkpoint", container.id).stdout
        events.wait("resumed", container.id)
        told = [e.topic for e in events.of(container.id) if e.topic.endswith(("paused", "resumed"))]
    finally:
        events.close()
    assert told == ["/tasks/paused", "/tasks/resumed"]
    assert container.status == "RUNNING"
    container.workload.goes_on()
    assert state_of(gnode.gpu, container) == "RUNNING"
    done = [c["call"] for c in gnode.gpu.log(pid=container.pid)]
    assert [c for c in done if c in ("lock", "checkpoint", "restore", "unlock")] == \
        ["lock", "checkpoint", "restore", "unlock"]
    image = said.split()[-1]
    shown = gnode.node.ctr("images", "ls", f"name=={image}").stdout
    index = json.loads(gnode.node.ctr("content", "get", re.search(r"sha256:\w+", shown)[0]).stdout)
    assert [m for m in index["manifests"] if "criu" in m["mediaType"]]
    gnode.node.ctr("images", "rm", image)


def test_again_and_again(gworld, start_agent):
    start_agent(gworld.agent_dir)
    container = gworld.running()
    for n in range(3):
        container.checkpoint(gworld.image(f"image{n}"), options())
        container.workload.goes_on()


def test_before_cuda_is_used(gworld, start_agent):
    """A GPU in the spec, but no CUDA process yet: there is nothing to lock."""
    start_agent(gworld.agent_dir)
    container = gworld.container(["gpu-counter", "--cpu-only", "--interval", "50", "--status",
                                  "/var/state"])
    container.run()
    container.workload.ready()
    container.checkpoint(gworld.image(), options())
    container.workload.goes_on(result="cpu")


def test_several_processes(gworld, gpu, start_agent):
    start_agent(gworld.agent_dir)
    container = gworld.container(["gpu-counter", "--procs", "3", "--vram", "4M", "--interval", "50",
                                  "--status", "/var/state"])
    container.run()
    workloads = [Workload(container.rootfs / f"var/state.{n}") for n in range(3)]
    for one in workloads:
        one.ready()
    folder = gworld.image()
    container.checkpoint(folder, options())
    for one in workloads:
        one.goes_on()
    about = json.loads((folder / "kybernate.json").read_text())
    assert len(about["gpu"]["processes"]) == 3
    calls = [(c["call"], c["begin"]["tick"]) for c in gpu.log() if c["call"] in ("lock", "checkpoint")]
    last_lock = max(begin for call, begin in calls if call == "lock")
    first_save = min(begin for call, begin in calls if call == "checkpoint")
    assert last_lock < first_save


# --- it fails, and nothing happens ---

@pytest.mark.parametrize("code,reason", [(600, "LOCK_TIMEOUT"), (801, "CUDA_LOCK_FAILED")])
def test_failed_lock(gworld, gpu, start_agent, code, reason):
    """CRIU is never started, the container computes on, and the client learns why."""
    start_agent(gworld.agent_dir)
    runtime, calls = spying_runtime(gworld.world)
    container = gworld.running(options=runtime)
    gpu.fault(call="lock", code=code)
    folder = gworld.image()
    with pytest.raises(ttrpc.Error) as caught:
        container.checkpoint(folder, options())
    assert reason in caught.value.message
    assert calls("checkpoint") == []
    assert criu_ran(container) == []
    assert os.listdir(folder) == []
    assert container.status == "RUNNING"
    container.workload.goes_on()
    assert state_of(gpu, container) == "RUNNING"
    gpu.clear()
    container.checkpoint(folder, options())  # and the next one works
    assert len(calls("checkpoint")) == 1


def test_failed_lock_of_a_paused_container(gworld, gpu, start_agent):
    start_agent(gworld.agent_dir)
    container = gworld.running()
    container.pause()
    gpu.fault(call="lock", code=801)
    with pytest.raises(ttrpc.Error, match="CUDA_LOCK_FAILED"):
        container.checkpoint(gworld.image(), options())
    assert container.status == "PAUSED"
    assert cgroups.frozen(container.pid)
    container.resume()
    container.workload.goes_on()


def test_failed_save(gworld, gpu, start_agent):
    start_agent(gworld.agent_dir)
    runtime, calls = spying_runtime(gworld.world)
    container = gworld.running(options=runtime)
    gpu.fault(call="checkpoint", code=2)
    with pytest.raises(ttrpc.Error, match="CUDA_SAVE_FAILED"):
        container.checkpoint(gworld.image(), options())
    assert calls("checkpoint") == []
    container.workload.goes_on()
    assert state_of(gpu, container) == "RUNNING"


def test_lying_driver(gworld, gpu, start_agent):
    """It says that the memory was saved, and it was not."""
    start_agent(gworld.agent_dir)
    runtime, calls = spying_runtime(gworld.world)
    container = gworld.running(options=runtime)
    gpu.fault(call="checkpoint", lie="noop")
    with pytest.raises(ttrpc.Error, match="CUDA_STATE_WRONG"):
        container.checkpoint(gworld.image(), options())
    assert calls("checkpoint") == []
    container.workload.goes_on()


def test_failed_dump_by_runtime(gworld, gpu, start_agent, world):
    """The runtime fails after the GPU memory was saved: everything is taken back."""
    start_agent(gworld.agent_dir)
    real = env.which(env.RUNTIME)
    path = world.dir / "fails"
    path.write_text('#!/bin/sh\nfor a in "$@"; do\n'
                    '[ "$last" = --work-path ] && work=$a\n'
                    '[ "$a" = checkpoint ] && fails=1\nlast=$a\ndone\n'
                    '[ "$fails" ] || exec ' f'{real} "$@"\n'
                    'echo "(00.1) Error (criu/x.c:1): no dump today" > "$work/dump.log"\n'
                    'echo "it failed" >&2; exit 1\n', encoding="ascii")
    path.chmod(0o755)
    container = gworld.running(options=world.options(binary_name=str(path)))
    with pytest.raises(ttrpc.Error) as caught:
        container.checkpoint(gworld.image(), options())
    assert "CRIU_DUMP_FAILED" in caught.value.message
    assert "no dump today" in caught.value.message
    # The log is kept where it outlives the bundle.
    kept = re.search(r"CRIU's log: (\S*/\.logs/\S*-dump\.log)", caught.value.message).group(1)
    assert "no dump today" in pathlib.Path(kept).read_text(encoding="ascii")
    assert container.status == "RUNNING"
    container.workload.goes_on()
    assert state_of(gpu, container) == "RUNNING"


def test_without_agent(gworld):
    """Refused; and the workload does not notice."""
    runtime, calls = spying_runtime(gworld.world)
    container = gworld.running(options=runtime)
    with pytest.raises(ttrpc.Error) as caught:
        container.checkpoint(gworld.image(), options())
    assert "AGENT_UNAVAILABLE" in caught.value.message
    assert calls("checkpoint") == []
    assert container.status == "RUNNING"
    container.workload.goes_on()


def test_without_driver(gworld, start_agent):
    start_agent(gworld.agent_dir, more="", with_gpu=False)
    container = gworld.running()
    with pytest.raises(ttrpc.Error, match="DRIVER_UNAVAILABLE"):
        container.checkpoint(gworld.image(), options())
    container.workload.goes_on()


# Who listens is what counts: the kernel notes the credentials of that moment.
_IMPOSTOR = """
import os, signal, socket, sys
impostor = socket.socket(socket.AF_UNIX)
impostor.bind(sys.argv[1])
os.setresgid(1000, 1000, 1000)
os.setresuid(1000, 1000, 1000)
impostor.listen()
print("listens", flush=True)
signal.pause()
"""


def test_socket_of_another_user(gworld, world):
    """Whoever answers there is not believed to be the agent."""
    gworld.agent_dir.mkdir()
    path = gworld.agent_dir / "agent.sock"
    container = gworld.running()
    # Not a fork: it hangs beside gRPC's threads on some releases.
    with subprocess.Popen([sys.executable, "-c", _IMPOSTOR, str(path)],
                          stdout=subprocess.PIPE) as impostor:
        try:
            assert impostor.stdout.readline() == b"listens\n"
            with pytest.raises(ttrpc.Error) as caught:
                container.checkpoint(gworld.image(), options())
            assert "PERMISSION" in caught.value.message
            assert "uid 1000" in caught.value.message
            container.workload.goes_on()
        finally:
            impostor.kill()


def test_without_gpu_the_agent_is_not_asked(gworld, world):
    """Exactly as under containerd's own shim, with no agent at all."""
    container = world.running(["probe", "count", "/tmp/n"])
    folder = gworld.image()
    container.checkpoint(folder, options())
    assert container.status == "RUNNING"
    assert (folder / "inventory.img").exists()
    assert not (folder / "kybernate.json").exists()


# --- seats ---

@pytest.mark.parametrize("group,seat,why", [
    ("group-a", "seat-9", 'has no seat "seat-9"'),
    ("group-x", SEAT, 'no GPU group "group-x"'),
])
def test_wrong_seat(gworld, gpu, start_agent, group, seat, why):
    start_agent(gworld.agent_dir)
    container = gworld.running(group=group, seat=seat)
    with pytest.raises(ttrpc.Error) as caught:
        container.checkpoint(gworld.image(), options())
    assert "SEAT_MISMATCH" in caught.value.message
    assert why in caught.value.message
    assert gpu.log(call="lock") == []
    container.workload.goes_on()


def test_annotation_that_disagrees(gworld, gpu, start_agent):
    start_agent(gworld.agent_dir)
    container = gworld.running(annotations={"kybernate.io/gpu-seat": "seat-1"})
    with pytest.raises(ttrpc.Error) as caught:
        container.checkpoint(gworld.image(), options())
    assert "SEAT_MISMATCH" in caught.value.message
    assert "seat-0" in caught.value.message and "seat-1" in caught.value.message
    assert gpu.log(call="lock") == []


def test_device_of_another_group(gworld, gpu, start_agent):
    start_agent(gworld.agent_dir)
    device = {"path": "/dev/nvidia7", "type": "c", "major": 195, "minor": 7}
    container = gworld.running(edit=lambda spec: spec["linux"].update(devices=[device]))
    with pytest.raises(ttrpc.Error, match="/dev/nvidia7"):
        container.checkpoint(gworld.image(), options())
    assert gpu.log(call="lock") == []


def test_visible_gpu_of_another_group(gworld, gpu, start_agent):
    """By its UUID; one of the group is no reason to refuse."""
    start_agent(gworld.agent_dir)
    mine = gworld.running(environ=[f"NVIDIA_VISIBLE_DEVICES={gpu.uuid()}"])
    mine.checkpoint(gworld.image("mine"), options())
    mine.workload.goes_on()
    before = len(gpu.log(call="lock"))
    other = gworld.running(environ=[f"NVIDIA_VISIBLE_DEVICES={gpu.uuid()},GPU-0f0f0f0f"])
    with pytest.raises(ttrpc.Error, match="GPU-0f0f0f0f") as caught:
        other.checkpoint(gworld.image("other"), options())
    assert "SEAT_MISMATCH" in caught.value.message
    assert len(gpu.log(call="lock")) == before
    other.workload.goes_on()


# --- others at the same time ---

def test_execs_wait_while_it_is_dumped(gworld, gpu, start_agent):
    """A process that comes in during a dump would be neither in the image nor locked."""
    start_agent(gworld.agent_dir)
    container = gworld.running()
    rule = gpu.fault(call="checkpoint", hang=True)
    dump = container.task.send("Checkpoint", id=container.id, path=str(gworld.image()),
                               options=options())
    gpu.wait_held(rule)
    added = container.exec("e", ["probe", "sleep"])
    start = container.task.send("Start", id=container.id, exec_id="e")
    assert container.status == "RUNNING"  # State waits for nobody
    assert not start.done()
    gpu.release(rule)
    ttrpc.answer(dump, 60)
    added.pid = ttrpc.answer(start, 30).pid
    assert procs.alive(added.pid)
    added.kill()
    added.finish()


def test_killed_while_it_is_checkpointed(gworld, gpu, start_agent, world):
    start_agent(gworld.agent_dir)
    container = gworld.running()
    rule = gpu.fault(call="checkpoint", hang=True)
    dump = container.task.send("Checkpoint", id=container.id, path=str(gworld.image()),
                               options=options())
    gpu.wait_held(rule)
    container.kill()
    assert container.wait().exit_status == 137
    gpu.release(rule)
    with pytest.raises(ttrpc.Error):
        ttrpc.answer(dump, 60)
    container.delete()
    assert len(world.sink.all(container.id, "exit")) == 1


def test_agent_killed_while_it_saves(gworld, gpu, start_agent):
    """The shim hears of it at once; when no other agent comes, it undoes its half, and says so."""
    gworld.write_config('[timeouts]\nagent_return = "1s"\n')
    agent = start_agent(gworld.agent_dir)
    container = gworld.running()
    container.pause()
    rule = gpu.fault(call="lock", hang=True)
    dump = container.task.send("Checkpoint", id=container.id, path=str(gworld.image()),
                               options=options())
    gpu.wait_held(rule)
    agent.process.kill()
    agent.process.wait()
    with pytest.raises(ttrpc.Error, match="AGENT_UNAVAILABLE"):
        ttrpc.answer(dump, 60)
    assert container.status == "PAUSED"
    assert cgroups.frozen(container.pid)
    gpu.release(rule)
    container.resume()
    agent.start()
