# SPDX-License-Identifier: Apache-2.0
"""Checkpoint and restore, driven through the OCI runtime and CRIU.

Sources: containerd repo, pkg/process/init.go, cmd/containerd-shim-runc-v2/process/init.go;
runc repo, libcontainer/criu_linux.go; crun repo, src/{checkpoint,restore}.c.
"""
import json
import os
import shutil
import time

import pytest

from kyb import cgroups, env, procs, protos, ttrpc
from kyb.stdio import Stdio
from kyb.wait import until

pytestmark = pytest.mark.criu

COUNT = ["probe", "count", "/tmp/n"]
MIB = 1 << 20


def options(**fields):
    return protos.pack(protos.CHECKPOINT_OPTIONS, protos.options.Checkpoint(**fields))


def count(container):
    return int(container.read("/tmp/n") or 0)


def counting(world, **more):
    """A container that counts, and has begun to."""
    container = world.running(COUNT, **more)
    until(lambda: count(container) > 3)
    return container


def image(world, name="image"):
    """A folder as containerd makes it before it calls Checkpoint."""
    folder = world.dir / name
    folder.mkdir(mode=0o700)
    return folder


def counting_faked(world):
    """The same below a FakeRuntime. Counting before it is dumped matters: what runc start leaves
    is for a moment still runc itself, which CRIU does not like."""
    container, fake = world.faked(COUNT)
    container.run()
    until(lambda: count(container) > 3)
    return container, fake


def copy_of(world, original, checkpoint, io="null", options=None, **more):
    """A second container to restore into, with the first one's writable layer."""
    container = world.define(more.pop("args", COUNT), **more)
    if options is not None:
        container.options = options
    upper = [o.partition("=")[2] for o in original.mounts[0].options if o.startswith("upperdir=")]
    target = [o.partition("=")[2] for o in container.mounts[0].options
              if o.startswith("upperdir=")]
    shutil.copytree(upper[0], target[0], dirs_exist_ok=True, symlinks=True)
    container.io = world.io(container.id, io, container.terminal)
    container.launch()
    container.create(checkpoint=str(checkpoint))
    return container


def dumped(world, **more):
    """(container, folder): a counting one, dumped, and ended by that."""
    container = counting(world, **more)
    folder = image(world)
    container.checkpoint(folder, options(exit=True))
    container.finish()
    return container, folder


# --- checkpoint ---

@pytest.mark.machine
def test_leave_running(world):
    container = counting(world)
    folder = image(world)
    container.checkpoint(folder, options())
    assert container.status == "RUNNING"
    assert container.state().pid == container.pid
    assert (folder / "inventory.img").exists()
    before = count(container)
    until(lambda: count(container) > before)
    assert [e.topic for e in world.sink.all(container.id)] in (
        ["/tasks/create", "/tasks/start"],
        ["/tasks/create", "/tasks/start", "/tasks/checkpointed"])


def test_without_options(world):
    """What ctr of 1.6 and 1.7 sends for a runtime of another name."""
    container = counting(world)
    folder = image(world)
    container.checkpoint(folder)
    assert container.status == "RUNNING"
    assert (folder / "inventory.img").exists()


@pytest.mark.machine
def test_exit(world):
    container = counting(world)
    folder = image(world)
    container.checkpoint(folder, options(exit=True))
    assert container.wait().exit_status == 137
    assert container.status == "STOPPED"
    event = world.sink.wait("exit", container.id)
    assert (event.pid, event.exit_status) == (container.pid, 137)
    answer = container.delete()
    assert (answer.pid, answer.exit_status) == (container.pid, 137)
    assert procs.mounts_below(container.rootfs) == []
    assert len(world.sink.all(container.id, "exit")) == 1


@pytest.mark.machine
def test_paused_stays_paused(world):
    """As all of containerd's clients do it: pause, checkpoint, resume."""
    container = counting(world)
    container.pause()
    before = count(container)
    container.checkpoint(image(world), options())
    assert container.status == "PAUSED"
    assert cgroups.frozen(container.pid)
    time.sleep(0.1)  # in which it would count on
    assert count(container) == before
    assert not world.sink.all(container.id, "resumed")
    container.resume()
    until(lambda: count(container) > before)


def test_paused_and_exit(world):
    container = counting(world)
    container.pause()
    container.checkpoint(image(world), options(exit=True))
    assert container.wait().exit_status == 137
    container.delete()


def test_again_and_again(world):
    container = counting(world)
    for n in range(3):
        container.checkpoint(image(world, f"image{n}"), options())
        before = count(container)
        until(lambda: count(container) > before)
    assert len(world.sink.all(container.id)) == 2 or world.kind.ours


def test_command_line(world):
    container, fake = counting_faked(world)
    folder = image(world)
    container.checkpoint(folder, options(
        open_tcp=True, external_unix_sockets=True, terminal=True, file_locks=True,
        empty_namespaces=["network"]))
    (argv,) = fake.calls("checkpoint")
    argv = argv[argv.index("checkpoint") + 1:]
    assert argv[-1] == container.id
    assert argv[argv.index("--image-path") + 1] == str(folder)
    assert "--work-path" in argv
    assert {"--tcp-established", "--ext-unix-sk", "--shell-job", "--file-locks",
            "--leave-running"} <= set(argv)
    assert argv[argv.index("--empty-ns") + 1] == "network"


def test_command_line_of_exit(world):
    container, fake = counting_faked(world)
    container.checkpoint(image(world), options(exit=True))
    (argv,) = fake.calls("checkpoint")
    assert not {"--leave-running", "--tcp-established", "--file-locks", "--shell-job"} & set(argv)
    container.finish()


def test_work_path(world):
    """There the log and the statistics of the dump go; CRI looks for them."""
    container = counting(world)
    work = world.dir / "work"
    container.checkpoint(image(world), options(work_path=str(work)))
    assert (work / "dump.log").exists()
    assert (work / "stats-dump").exists()


def test_default_work_path(world):
    """In the bundle's own, which containerd made."""
    container, fake = counting_faked(world)
    container.checkpoint(image(world), options())
    (argv,) = fake.calls("checkpoint")
    assert argv[argv.index("--work-path") + 1].startswith(str(container.bundle / "work"))


@pytest.mark.only_ours("containerd's shim knows only its own options")
def test_legacy_options(world):
    """Two of their numbers are the other way round."""
    container = counting(world)
    work = world.dir / "work"
    legacy = protos.pack(protos.LEGACY_CHECKPOINT, protos.options.LegacyCheckpoint(
        work_path=str(work)))
    container.checkpoint(image(world), legacy)
    assert (work / "dump.log").exists()
    assert container.status == "RUNNING"


def test_failure(world):
    """It runs on, and the text says where to look."""
    container, fake = counting_faked(world)
    work = world.dir / "work"
    work.mkdir()
    (work / "dump.log").write_text("criu's own words\n")
    fake.fail("checkpoint", "criu failed: it did not want to")
    with pytest.raises(ttrpc.Error) as caught:
        container.checkpoint(image(world), options(work_path=str(work)))
    log = container.bundle / "criu-dump.log"
    assert "criu failed" in caught.value.message
    assert str(log) in caught.value.message
    assert log.read_text() == "criu's own words\n"
    assert container.status == "RUNNING"
    before = count(container)
    until(lambda: count(container) > before)


def test_failure_while_paused(world):
    container, fake = counting_faked(world)
    container.pause()
    fake.fail("checkpoint", "criu failed")
    with pytest.raises(ttrpc.Error):
        container.checkpoint(image(world), options())
    assert container.status == "PAUSED"
    assert cgroups.frozen(container.pid)


@pytest.mark.machine
def test_failure_of_criu_itself(world):
    container = world.running(["probe", "undumpable"], io="pipes")
    container.io.out.wait_for("ready")
    with pytest.raises(ttrpc.Error) as caught:
        container.checkpoint(image(world), options())
    assert "criu-dump.log" in caught.value.message
    assert "Error" in (container.bundle / "criu-dump.log").read_text()
    assert container.status == "RUNNING"
    assert procs.alive(container.pid)


def test_state_answers_during_a_dump(world):
    """It has two seconds, a dump may take minutes."""
    container, fake = counting_faked(world)
    fake.hold("checkpoint")
    dumping = container.task.send("Checkpoint", id=container.id, path=str(image(world)))
    fake.wait_call("checkpoint")
    try:
        reply = container.task.do("State", timeout=2, id=container.id)
        assert reply.status in (protos.task.RUNNING, protos.task.PAUSED)
        container.task.do("Stats", timeout=2, id=container.id)
    finally:
        fake.release("checkpoint")
        ttrpc.answer(dumping, 60)


def test_deadline_during_a_dump(world):
    """Whatever becomes of the dump, the container is what it was."""
    container, fake = counting_faked(world)
    fake.hold("checkpoint")
    dumping = container.task.send("Checkpoint", timeout=env.seconds(0.3), id=container.id,
                                  path=str(image(world)))
    fake.wait_call("checkpoint")
    time.sleep(env.seconds(0.5))  # past the deadline
    fake.release("checkpoint")
    try:
        ttrpc.answer(dumping, 60)
    except ttrpc.Error:
        pass
    until(lambda: container.status == "RUNNING")
    before = count(container)
    until(lambda: count(container) > before)
    container.checkpoint(image(world, "again"), options())


def criu_of(container):
    """Pids of CRIU at work below the shim."""
    return [pid for pid in procs.descendants(container.shim_pid()) if procs.is_criu(pid)]


@pytest.mark.machine
@pytest.mark.parametrize("state", ["RUNNING", "PAUSED"])
def test_deadline_while_criu_works(world, state):
    """CRIU holds the processes, and has thawed what was paused. When it is ended for the deadline
    the container is what it was: a paused one that runs could never be resumed."""
    container = counting(world)
    if state == "PAUSED":
        container.pause()
    folder = image(world)
    pages = folder / "pages-1.img"
    os.mkfifo(pages)  # which CRIU waits to open: there is no reader
    dumping = container.task.send("Checkpoint", timeout=env.seconds(3), id=container.id,
                                  path=str(folder), options=options())
    until(lambda: any(folder.glob("pagemap-*.img")))
    criu = until(lambda: criu_of(container))
    with pytest.raises(ttrpc.Error):
        ttrpc.answer(dumping, 60)
    # containerd's shim leaves CRIU to end by itself.
    with open(os.open(pages, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        until(lambda: (reader.read(), not any(procs.alive(pid) for pid in criu))[1])
    until(lambda: container.status == state and cgroups.frozen(container.pid) == (
        state == "PAUSED"))
    before = count(container)
    if state == "PAUSED":
        time.sleep(0.1)  # in which it would count on
        assert count(container) == before
        container.resume()
    until(lambda: count(container) > before)
    container.checkpoint(image(world, "again"), options())


def test_connection_lost_during_a_dump(world):
    """containerd restarts meanwhile."""
    container, fake = counting_faked(world)
    fake.hold("checkpoint")
    container.task.send("Checkpoint", id=container.id, path=str(image(world)))
    fake.wait_call("checkpoint")
    container.task.close()
    container.connect(world.service_of(container))
    fake.release("checkpoint")
    until(lambda: container.status == "RUNNING")
    before = count(container)
    until(lambda: count(container) > before)
    until(lambda: not [p for p in procs.pids() if "criu" in " ".join(procs.command(p))
                       and world.token in " ".join(procs.command(p))])
    container.checkpoint(image(world, "again"), options())


def test_changed_stdio(world):
    """Pipes at the dump, nothing at the restore: it works or it is refused, and either way nothing
    hangs and Delete works."""
    container = world.running(["probe", "tick", "10"], io="pipes")
    container.io.out.wait_for("10\n")
    folder = image(world)
    container.checkpoint(folder, options(exit=True))
    container.finish()
    again = copy_of(world, container, folder, args=["probe", "tick", "10"])
    try:
        again.start()
    except ttrpc.Error as error:
        assert error.message
        assert again.status == "CREATED"
    else:
        again.kill()
        again.wait()
    again.delete()


def test_exit_during_a_dump(world):
    """Killed meanwhile: the dump fails, the exit is told."""
    container, fake = counting_faked(world)
    fake.hold("checkpoint")
    dumping = container.task.send("Checkpoint", id=container.id, path=str(image(world)))
    fake.wait_call("checkpoint")
    os.kill(container.pid, 9)
    until(lambda: not procs.alive(container.pid))
    fake.release("checkpoint")
    with pytest.raises(ttrpc.Error):
        ttrpc.answer(dumping, 60)
    assert container.wait().exit_status == 137
    container.delete()


# --- restore ---

@pytest.mark.machine
def test_restore(world):
    original, folder = dumped(world)
    before = count(original) or int(_layer(world, original, "tmp/n"))
    container = copy_of(world, original, folder)
    assert container.pid == 0
    assert container.status == "CREATED"
    event = world.sink.wait("create", container.id)
    assert (event.pid, event.checkpoint) == (0, str(folder))
    pid = container.start()
    assert pid > 0
    assert container.status == "RUNNING"
    assert container.state().pid == pid
    assert world.sink.wait("start", container.id).pid == pid
    until(lambda: count(container) > before)
    assert count(container) < before + 1000
    assert procs.parent(pid) == container.shim_pid()
    assert (container.bundle / "init.pid").read_text().strip() == str(pid)


def _without_a_path(spec):
    """Then the runtime chooses, and nobody else knows which."""
    del spec["linux"]["cgroupsPath"]


@pytest.mark.machine
@pytest.mark.parametrize("edit", [None, _without_a_path], ids=["named", "chosen"])
def test_restore_into_its_own_cgroup(world, edit):
    """In every tree, with its limits, wherever the dumped one was."""
    name = f"{world.token}-restored"  # by which what is left of it is found
    original = counting(world)
    was = cgroups.folders_of(original.pid)
    folder = image(world)
    original.checkpoint(folder, options(exit=True))
    original.finish()
    container = copy_of(world, original, folder, container_id=name, edit=edit,
                        memory=60 * MIB)
    container.start()
    now = cgroups.folders_of(container.pid)
    assert now and not set(now) & set(was)
    assert all(name in str(one) for one in now)
    limit = "memory.max" if env.cgroup_v2() else "memory.limit_in_bytes"
    assert int((cgroups.of(container.pid, "memory") / limit).read_text()) == 60 * MIB
    assert not [one for one in was if one.exists()]
    container.pause()
    assert cgroups.frozen(container.pid)
    container.resume()
    container.kill(everybody=True)
    container.finish()


def _layer(world, container, path):
    """A file of the writable layer, also when it is not mounted any more."""
    return (world.dir / "l" / container.id / "up" / path).read_text()


def test_create_mounts_but_does_not_run(world):
    """Between Create and Start containerd unpacks the writable layer."""
    original, folder = dumped(world)
    container = copy_of(world, original, folder)
    assert procs.mounts_below(container.rootfs) == [str(container.rootfs)]
    assert world.runtime_ids() == []
    (container.rootfs / "tmp/unpacked").write_text("late\n")
    container.start()
    assert container.read("/tmp/unpacked") == "late\n"


@pytest.mark.machine
def test_everything_works_after_a_restore(world):
    original, folder = dumped(world, memory=60 * MIB)
    container = copy_of(world, original, folder, memory=60 * MIB)
    container.start()
    assert container.pid in container.pids()
    added = container.exec("e", ["probe", "exit", "3"])
    added.start()
    assert added.finish().exit_status == 3
    container.pause()
    container.resume()
    container.update({"memory": {"limit": 50 * MIB}})
    container.kill()
    assert container.finish().exit_status == 137
    world.sink.wait("delete", container.id)
    assert [e.topic for e in world.sink.all(container.id)] == [
        "/tasks/create", "/tasks/start", "/tasks/exec-added", "/tasks/exec-started", "/tasks/exit",
        "/tasks/paused", "/tasks/resumed", "/tasks/exit", "/tasks/delete"]


@pytest.mark.machine
def test_stats_after_a_restore(world):
    original, folder = dumped(world, memory=60 * MIB)
    container = copy_of(world, original, folder, memory=60 * MIB)
    container.start()
    _, stats = container.stats()
    assert stats.pids.current == 1


@pytest.mark.machine
def test_out_of_memory_after_a_restore(world):
    original, folder = dumped(world, memory=30 * MIB)
    container = copy_of(world, original, folder, memory=30 * MIB)
    container.start()
    added = container.exec("e", ["probe", "hog", "200"])
    added.start()
    added.finish(timeout=60)
    world.sink.wait("oom", container.id)


def test_checkpoint_of_a_restored_one(world):
    original, folder = dumped(world)
    container = copy_of(world, original, folder)
    container.start()
    before = int(_layer(world, original, "tmp/n"))
    until(lambda: count(container) > before + 3)
    second = image(world, "second")
    container.checkpoint(second, options(exit=True))
    container.finish()
    third = copy_of(world, container, second)
    third.start()
    until(lambda: count(third) > before + 4)


def test_two_copies_of_one_checkpoint(world):
    original, folder = dumped(world)
    copies = [copy_of(world, original, folder, group="pod") for _ in range(2)]
    for container in copies:
        container.start()
    for container in copies:
        before = count(container)
        until(lambda c=container, b=before: count(c) > b)
        container.kill()
        assert container.finish().exit_status == 137


def test_restore_beside_the_running_original(world):
    original = counting(world)
    folder = image(world)
    original.checkpoint(folder, options())
    container = copy_of(world, original, folder)
    container.start()
    for one in (original, container):
        before = count(one)
        until(lambda c=one, b=before: count(c) > b)


@pytest.mark.machine
def test_output_goes_on(world):
    """The new pipes take the place of the old."""
    container = world.running(["probe", "tick", "10"], io="pipes")
    container.io.out.wait_for("10\n")
    folder = image(world)
    container.checkpoint(folder, options(exit=True))
    container.wait()
    first = container.io.out.wait_end().split()
    container.delete()
    again = copy_of(world, container, folder, io="pipes", args=["probe", "tick", "10"])
    again.start()
    again.io.out.wait_for(f"\n{int(first[-1]) + 5}\n")
    second = again.io.out.data.split()
    assert abs(int(second[0]) - int(first[-1])) <= 2


def test_input_goes_on(world):
    container = world.running(["probe", "echo"], io="stdin")
    container.io.write("one\n")
    container.io.out.wait_for("one\n")
    folder = image(world)
    container.checkpoint(folder, options(exit=True))
    container.finish()
    again = copy_of(world, container, folder, io="stdin", args=["probe", "echo"])
    again.start()
    again.io.write("two\n")
    again.io.out.wait_for("two\n")
    again.io.close_stdin()
    again.close_io()
    assert again.wait().exit_status == 0
    assert again.io.out.wait_end() == b"two\neof\n"


@pytest.mark.machine
def test_terminal(world):
    """A new one takes the place of the old."""
    container = world.container(["probe", "echo"], io="stdin", terminal=True)
    container.run()
    container.io.write("one\n")
    container.io.out.wait_for("one\r\none\r\n")
    folder = image(world)
    container.checkpoint(folder, options(exit=True))
    container.finish()
    again = copy_of(world, container, folder, io="stdin", args=["probe", "echo"], terminal=True)
    again.start()
    again.io.write("two\n")
    again.io.out.wait_for("two\r\ntwo\r\n")


@pytest.mark.machine
def test_command_line_of_restore(world):
    original, folder = dumped(world)
    fake = world.fake_runtime()
    work = world.dir / "criu-work"
    container = copy_of(world, original, folder, options=world.options(
        binary_name=str(fake.path), criu_work_path=str(work)))
    assert fake.calls() == []
    container.start()
    (argv,) = fake.calls("restore")
    argv = argv[argv.index("restore") + 1:]
    assert argv[-1] == container.id
    assert argv[argv.index("--image-path") + 1] == str(folder)
    assert argv[argv.index("--bundle") + 1] == str(container.bundle)
    assert argv[argv.index("--pid-file") + 1] == str(container.bundle / "init.pid")
    assert argv[argv.index("--work-path") + 1] == str(work)
    assert "--detach" in argv
    assert ("-no-subreaper" in argv or "--no-subreaper" in argv) == (env.RUNTIME == "runc")


def test_options_of_the_dump_are_not_those_of_the_restore(world):
    """Those of the dump are said once: Create has none of them, so the OCI runtime is told none."""
    original, folder = counting(world), image(world)
    original.checkpoint(folder, options(exit=True, open_tcp=True, external_unix_sockets=True,
                                        file_locks=True, work_path=str(world.dir / "dump-work")))
    original.finish()
    fake = world.fake_runtime()
    container = copy_of(world, original, folder, options=world.options(
        binary_name=str(fake.path)))
    container.start()
    (argv,) = fake.calls("restore")
    argv = argv[argv.index("restore") + 1:]
    assert not {"--tcp-established", "--ext-unix-sk", "--file-locks", "--shell-job",
                "--empty-ns", "--parent-path"} & set(argv)
    assert str(world.dir / "dump-work") not in argv
    until(lambda: count(container) > 0)


@pytest.mark.machine
def test_failed_restore(world):
    """The state is what it was, and Delete works."""
    _, folder = dumped(world)
    (folder / "inventory.img").write_bytes(b"garbage")
    container = world.container(COUNT)
    container.create(checkpoint=str(folder))
    with pytest.raises(ttrpc.Error) as caught:
        container.start()
    assert caught.value.code == ttrpc.UNKNOWN
    assert caught.value.message
    assert container.status == "CREATED"
    container.delete()
    assert procs.mounts_below(container.rootfs) == []
    assert not world.sink.all(container.id, "start")


def test_missing_image(world):
    container = world.container(COUNT)
    container.create(checkpoint="/no/such/image")
    with pytest.raises(ttrpc.Error):
        container.start()
    container.delete()


def test_delete_instead_of_restore(world):
    _, folder = dumped(world)
    container = world.container(COUNT)
    container.create(checkpoint=str(folder))
    container.delete()
    assert procs.mounts_below(container.rootfs) == []


@pytest.mark.only_ours("1.6 and 1.7 do it in the daemon, by the name of the runtime")
def test_image_path_of_the_options(world):
    original, folder = dumped(world)
    before = int(_layer(world, original, "tmp/n"))
    container = copy_of(world, original, "", options=world.options(criu_image_path=str(folder)))
    assert container.status == "CREATED" and container.pid == 0
    container.start()
    until(lambda: count(container) >= before)


@pytest.mark.mess
def test_restored_crash(world):
    """delete finds a restored container like any other."""
    original, folder = dumped(world)
    container = copy_of(world, original, folder)
    container.start()
    procs.kill_all([container.shim_pid()])
    result = container.delete_program()
    reply = protos.task.DeleteResponse.FromString(result.stdout)
    assert (reply.pid, reply.exit_status) == (container.pid, 137)
    assert not procs.alive(container.pid)


def test_images_of_a_dump(world):
    """Whatever a restore needs lies there, flat: containerd packs that folder and nothing else."""
    container = counting(world)
    folder = image(world)
    container.checkpoint(folder, options())
    assert (folder / "descriptors.json").exists()
    json.loads((folder / "descriptors.json").read_text())
    assert not [p for p in folder.iterdir() if p.is_dir()]
