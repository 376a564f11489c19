# SPDX-License-Identifier: Apache-2.0
"""Checkpoint jobs (driver r610): their processes are worked on one after the other, and the job's
file is part of the image. The emulated driver refuses two calls for one job at the same time, and a
restore with a file that is not the checkpoint's."""
import json
import os

import pytest

from kyb import ttrpc
from kyb.wait import until

from .conftest import Workload
from .test_group import SUSPEND, all_compute, mine, options
from .test_return import crash, send

pytestmark = pytest.mark.criu

N = 4
# In a volume, which is not in the image.
NAMED = "CUDA_CHECKPOINT_JOB_FILE=/job/file"
# As `cuda-checkpoint --launch-job` hands it on: a file without a name, by its descriptor.
UNNAMED = ["sh", "-c", "exec 7<>/dev/shm/job; rm /dev/shm/job; exec gpu-counter --procs "
                       f"{N} --vram 1M --interval 20 --status /var/state"]
COUNTERS = ["gpu-counter", "--procs", str(N), "--vram", "1M", "--interval", "20", "--status",
            "/var/state"]


@pytest.fixture
def gpu(request):
    """One whose driver knows jobs."""
    import fakegpu  # pylint: disable=import-outside-toplevel,import-error
    with fakegpu.FakeGpu(branch=getattr(request, "param", 610)) as made:
        yield made


def volume(folder):
    (folder / "file").touch()
    return [{"destination": "/job", "type": "bind", "source": str(folder), "options": ["rbind"]}]


def with_volume(folder):
    def edit(spec):
        spec["mounts"] += volume(folder)
    return edit


def watched(gnode, container):
    container.pid = container.get().pid
    return [Workload(f"/proc/{container.pid}/root/var/state.{i}") for i in range(N)]


def order(gpu, pids, *calls):
    """The processes as those calls came to them, which did not overlap."""
    log = [c for c in gpu.log() if c["pid"] in pids and c["call"] in calls]
    for before, after in zip(log, log[1:]):
        assert before["end"]["tick"] < after["begin"]["tick"], (before, after)
    return {call: [c["pid"] for c in log if c["call"] == call] for call in calls}


def test_one_after_the_other(gworld, gpu, start_agent, tmp_path):
    """Locked, saved, restored and unlocked in the same order; others still go side by side."""
    start_agent(gworld.agent_dir)
    container = gworld.container(COUNTERS, environ=[NAMED], edit=with_volume(tmp_path),
                                 annotations=SUSPEND)
    container.run()
    workloads = [Workload(container.rootfs / f"var/state.{i}").ready() for i in range(N)]
    folder = gworld.image()
    container.checkpoint(folder, options())
    all_compute(gpu, container, workloads)
    pids = set(mine(gpu, container))
    calls = order(gpu, pids, "lock", "checkpoint", "restore", "unlock")
    assert calls["lock"] == sorted(pids)
    assert calls["lock"] == calls["checkpoint"] == calls["restore"] == calls["unlock"]
    about = json.loads((folder / "kybernate.json").read_text())
    assert [p["job"] for p in about["gpu"]["processes"]] == [1] * N
    manifest = json.loads((folder / "kybernate-manifest.json").read_text())
    assert "cuda-job-1.bin" in [f["path"] for f in manifest["files"]]
    assert (folder / "cuda-job-1.bin").stat().st_size > 0
    # What lies there now is of after the restore, and would not do for another one.
    assert (folder / "cuda-job-1.bin").read_bytes() != (tmp_path / "file").read_bytes()
    container.pause()
    assert gpu.gpu()["used"] == 0
    container.resume()
    all_compute(gpu, container, workloads)


def test_the_file_comes_back_with_the_image(gnode, tmp_path):
    """It lies in a volume, where others have been at it since."""
    first = gnode.container(COUNTERS, environ=[NAMED], edit=with_volume(tmp_path))
    first.run()
    for one in watched(gnode, first):
        one.ready()
    outcome = gnode.checkpoint(first)
    assert outcome.ok, outcome
    gnode.ended(first)
    (tmp_path / "file").write_bytes(b"of another job")
    second = gnode.new_life("ck", args=COUNTERS, environ=[NAMED], edit=with_volume(tmp_path))
    second.run()
    for one in watched(gnode, second):
        one.goes_on()
    pids = {p for p in gnode.gpu.processes() if p in
            [int(t) for t in os.listdir("/proc") if t.isdigit()]}
    calls = order(gnode.gpu, pids, "restore", "unlock")
    assert calls["restore"] == calls["unlock"]


def test_without_a_name(gnode):
    """CRIU brings the file back, with what was in it."""
    first = gnode.container(UNNAMED, environ=["CUDA_CHECKPOINT_JOB_FILE=/proc/self/fd/7"])
    first.run()
    for one in watched(gnode, first):
        one.ready()
    outcome = gnode.checkpoint(first)
    assert outcome.ok, outcome
    gnode.ended(first)
    outcome, second = gnode.clone("ck")
    assert outcome.ok, outcome
    for one in watched(gnode, second):
        one.goes_on()


def test_the_file_is_checked(gnode, tmp_path):
    """One that does not belong to the image: nothing is restored from it."""
    first = gnode.container(COUNTERS, environ=[NAMED], edit=with_volume(tmp_path))
    first.run()
    for one in watched(gnode, first):
        one.ready()
    assert gnode.checkpoint(first).ok
    gnode.ended(first)
    path = gnode.agent_dir / "store/ck/criu/cuda-job-1.bin"
    path.write_bytes(bytes(len(path.read_bytes())))
    outcome, _ = gnode.clone("ck")
    assert outcome.reason == "IMAGE_CORRUPT", outcome
    assert not [c for c in gnode.gpu.log(call="restore")]


def test_a_failure_on_the_way(gworld, gpu, start_agent, tmp_path):
    """The third of four cannot be saved: all run on."""
    start_agent(gworld.agent_dir)
    container = gworld.container(COUNTERS, environ=[NAMED], edit=with_volume(tmp_path))
    container.run()
    workloads = [Workload(container.rootfs / f"var/state.{i}").ready() for i in range(N)]
    pids = sorted(mine(gpu, container))
    gpu.fault(call="checkpoint", code=801, pid=pids[2], count=1)
    with pytest.raises(ttrpc.Error, match="CUDA_SAVE_FAILED"):
        container.checkpoint(gworld.image(), options())
    assert [c["pid"] for c in gpu.log(call="checkpoint")] == pids[:3]
    all_compute(gpu, container, workloads)
    container.checkpoint(gworld.image("second"), options())
    all_compute(gpu, container, workloads)


@pytest.mark.parametrize("exit_", [False, True], ids=["leave", "exit"])
def test_the_agent_dies_while_criu_dumps(gworld, gpu, start_agent, world, tmp_path, exit_):
    """The next one keeps the file before it gives the memory back."""
    agent = start_agent(gworld.agent_dir)
    fake = world.fake_runtime()
    container = gworld.container(COUNTERS, environ=[NAMED], edit=with_volume(tmp_path),
                                 options=world.options(binary_name=str(fake.path)))
    container.run()
    for i in range(N):
        Workload(container.rootfs / f"var/state.{i}").ready()
    fake.hold("checkpoint")
    folder = gworld.image()
    dump = send(container, folder, exit=exit_)
    fake.wait_call("checkpoint")
    saved = (tmp_path / "file").read_bytes()
    crash(agent)
    agent.start()
    fake.release("checkpoint")
    ttrpc.answer(dump, 60)
    assert (folder / "cuda-job-1.bin").read_bytes() == saved
    about = json.loads((folder / "kybernate.json").read_text())
    assert [p["job"] for p in about["gpu"]["processes"]] == [1] * N
    assert "/job" in [m["destination"] for m in about["mounts"]]


@pytest.mark.parametrize("call", ["restore", "unlock"])
def test_the_agent_dies_on_the_way_back(gworld, gpu, start_agent, tmp_path, call):
    """Twice. What the processes have made of the file since the dump is not the image's."""
    agent = start_agent(gworld.agent_dir)
    container = gworld.container(COUNTERS, environ=[NAMED], edit=with_volume(tmp_path))
    container.run()
    workloads = [Workload(container.rootfs / f"var/state.{i}").ready() for i in range(N)]
    pids = sorted(mine(gpu, container))
    rule = gpu.fault(call=call, hang=True, pid=pids[2])
    folder = gworld.image()
    dump = send(container, folder)
    gpu.wait_held(rule)
    saved = (folder / "cuda-job-1.bin").read_bytes()
    crash(agent)
    assert (tmp_path / "file").read_bytes() != saved
    agent.start()
    until(lambda: len(gpu.log(call=call, pid=pids[2])) > 1, 20, "the next one is at it")
    crash(agent)
    gpu.clear()
    agent.start()
    ttrpc.answer(dump, 60)
    assert (folder / "cuda-job-1.bin").read_bytes() == saved
    about = json.loads((folder / "kybernate.json").read_text())
    assert [p["job"] for p in about["gpu"]["processes"]] == [1] * N
    all_compute(gpu, container, workloads)


@pytest.mark.parametrize("gpu", [595], indirect=True)
def test_refused_by_an_older_driver(gworld, gpu, start_agent, tmp_path):
    """Before anything is touched; and the name of the file is in no log."""
    agent = start_agent(gworld.agent_dir)
    container = gworld.container(COUNTERS, environ=[NAMED], edit=with_volume(tmp_path))
    container.run()
    workloads = [Workload(container.rootfs / f"var/state.{i}").ready() for i in range(N)]
    with pytest.raises(ttrpc.Error, match="DRIVER_TOO_OLD: .* branch 610"):
        container.checkpoint(gworld.image(), options())
    assert not gpu.log(call="lock")
    for one in workloads:
        one.goes_on()
    assert "/job/file" not in agent.log()


def test_a_file_that_is_too_large(gworld, gpu, start_agent, tmp_path):
    """Refused before anything is touched."""
    start_agent(gworld.agent_dir)
    container = gworld.container(COUNTERS, environ=[NAMED], edit=with_volume(tmp_path))
    os.truncate(tmp_path / "file", (64 << 20) + 1)
    container.run()
    workloads = [Workload(container.rootfs / f"var/state.{i}").ready() for i in range(N)]
    with pytest.raises(ttrpc.Error, match="CUDA_QUERY_FAILED: .* 64 MiB together"):
        container.checkpoint(gworld.image(), options())
    assert not gpu.log(call="lock")
    for one in workloads:
        one.goes_on()


@pytest.mark.parametrize("name,owner,why", [
    ("/none", 0, "No such file"), ("/proc/self/fd/99", 0, "No such file"),
    ("/proc/self/fd/9", 0, "neither a memfd"), ("/job/file", 1000, "neither a memfd"),
    ("job/file", 0, "Invalid argument"), ("/proc/1/environ", 0, "neither a memfd"),
    ("/dev/null", 0, "neither a memfd")])
def test_what_is_no_file_of_its_own(gworld, gpu, start_agent, tmp_path, name, owner, why):
    """The agent could write where the container cannot: it does so to a memfd, and to files of the
    process's user."""
    start_agent(gworld.agent_dir)
    container = gworld.container(["sh", "-c", "exec 9</job/file; exec gpu-counter --vram 1M "
                                  "--interval 20 --status /var/state"],
                                 environ=[f"CUDA_CHECKPOINT_JOB_FILE={name}"],
                                 edit=with_volume(tmp_path))
    (tmp_path / "file").write_bytes(b"precious")
    os.chown(tmp_path / "file", owner, owner)
    container.run()
    container.workload.ready()
    with pytest.raises(ttrpc.Error, match=f"CUDA_QUERY_FAILED: .*{why}"):
        container.checkpoint(gworld.image(), options())
    assert not gpu.log(call="lock")
    container.workload.goes_on()
    assert (tmp_path / "file").read_bytes() == b"precious"
