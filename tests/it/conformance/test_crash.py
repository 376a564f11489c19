# SPDX-License-Identifier: Apache-2.0
"""The shim is gone: what 'delete' has to clean up and to answer, and that a start works again.

Sources: containerd repo, runtime/v2/binary.go:Delete, {runtime/v2/runc,
cmd/containerd-shim-runc-v2}/manager:Stop.
"""
import json
import os
import signal
import subprocess
import threading
import time

import pytest

from kyb import cgroups, env, procs, protos, starter
from kyb.shims import KINDS
from kyb.wait import until

pytestmark = pytest.mark.mess


def crash(container):
    """SIGKILL for the shim."""
    pid = container.shim_pid()
    procs.kill_all([pid])
    return pid


def answer(result):
    assert result.status == 0, result
    return protos.task.DeleteResponse.FromString(result.stdout)


def clean(container):
    """Nothing of the container may be left; its bundle is containerd's."""
    world = container.world
    assert container.id not in world.runtime_ids()
    assert procs.mounts_below(container.rootfs) == []
    assert not [p for p in cgroups.named(world.token) if container.id in p.name]
    assert not procs.alive(container.pid)


@pytest.mark.parametrize("state", ["created", "running", "paused", "stopped"])
@pytest.mark.machine
def test_delete_after_a_crash(world, state):
    container = world.container()
    container.create()
    if state != "created":
        container.start()
    if state == "paused":
        container.pause()
    if state == "stopped":
        container.kill()
        container.wait()
    crash(container)
    before = time.time() - env.seconds(10)
    reply = answer(container.delete_program())
    assert (reply.pid, reply.exit_status) == (container.pid, 137)
    assert before <= reply.exited_at.seconds <= time.time() + 1
    clean(container)


def test_container_outlives_the_crash_until_delete(world):
    container = world.running()
    crash(container)
    assert procs.alive(container.pid)
    container.delete_program()
    clean(container)


def test_delete_ends_execs(world):
    container = world.running()
    added = container.exec("e", ["probe", "sleep"])
    added.start()
    crash(container)
    answer(container.delete_program())
    until(lambda: not procs.alive(added.pid))


@pytest.mark.machine
def test_delete_ends_a_shared_pid_namespace(world):
    container = world.running(["sh", "-c", "probe sleep & probe sleep & wait"], host=("pid",))
    until(lambda: len(container.pids()) == 3)
    pids = list(container.pids())
    crash(container)
    answer(container.delete_program())
    until(lambda: not any(procs.alive(pid) for pid in pids))
    clean(container)


def test_delete_twice(world):
    container = world.running()
    crash(container)
    container.delete_program()
    assert answer(container.delete_program()).exit_status == 137


def test_delete_of_one_never_created(world):
    """start failed later on, or Create was never called."""
    container = world.container()
    crash(container)
    reply = answer(container.delete_program())
    assert (reply.pid, reply.exit_status) == (0, 137)


def test_delete_after_a_failed_create(world):
    container = world.container(["no-such-program"])
    with pytest.raises(Exception):
        container.create()
    crash(container)
    assert answer(container.delete_program()).exit_status == 137
    clean(container)


def test_delete_after_shutdown(world):
    """containerd calls it also when nothing is wrong."""
    container = world.running(["probe", "exit"])
    container.finish()
    container.shutdown()
    until(lambda: not world.shims())
    status = answer(container.delete_program()).exit_status
    assert status == (0 if container.kind.ours else 137)  # the reference always says "killed"


@pytest.mark.machine
def test_delete_of_a_member(world):
    """One call per bundle, each only for its own container."""
    first = world.running(group="pod")
    second = world.running(group="pod")
    crash(first)
    assert answer(second.delete_program()).pid == second.pid
    assert procs.alive(first.pid)
    assert procs.mounts_below(first.rootfs)
    assert answer(first.delete_program()).pid == first.pid
    clean(first)
    clean(second)


def test_delete_uses_the_root_of_the_options(world):
    """With the wrong root the container would live on."""
    container = world.running()
    assert json.loads((container.bundle / "options.json").read_text())["root"]
    crash(container)
    answer(container.delete_program())
    clean(container)


@pytest.mark.machine
def test_delete_uses_the_runtime_of_the_bundle(world):
    container, fake = world.faked()
    container.run()
    crash(container)
    answer(container.delete_program())
    (argv,) = fake.calls("delete")
    assert argv[-3:] == ["delete", "--force", container.id]
    assert argv[argv.index("--root") + 1] == str(world.dir / "r" / world.namespace)


@pytest.mark.machine
@pytest.mark.skipif(env.DRIVER == "systemd", reason="systemd removes its scopes by itself")
def test_delete_when_the_runtime_leaves_the_cgroup(world):
    """As runc does that finds it busy with processes it has just killed: it fails, and knows the
    container no more."""
    container, fake = world.faked()
    container.run()
    folders = " ".join(str(folder) for folder in cgroups.folders_of(container.pid)
                       if container.id in folder.name)
    fake.after("delete", f"mkdir -p {folders}\necho busy >&2\nstatus=1")
    crash(container)
    answer(container.delete_program())
    clean(container)


def test_delete_without_a_working_runtime(world):
    """It says so, and does the rest."""
    container, fake = world.faked()
    container.run()
    fake.fail("delete", "no way")
    crash(container)
    result = container.delete_program()
    assert answer(result).exit_status == 137
    assert procs.mounts_below(container.rootfs) == []


def test_delete_speaks_protobuf_only(world):
    """containerd decodes all of stdout; an empty one would be exit status 0."""
    container = world.running()
    crash(container)
    result = container.delete_program(debug=True)
    reply = protos.task.DeleteResponse.FromString(result.stdout)
    assert reply.SerializeToString() == result.stdout
    assert reply.exit_status == 137


def test_delete_by_working_directory(world):
    """Without -bundle: the folder it runs in, or a neighbour of that."""
    container = world.running()
    crash(container)
    argv = starter.arguments(world.namespace, container.id, world.grpc, "delete")
    assert answer(world.program(container, argv=argv)).pid == container.pid
    clean(container)


def test_delete_heeds_no_signals(world):
    """It runs to its end: half a clean-up is none."""
    container, fake = world.faked()
    container.run()
    crash(container)
    fake.hold("delete")
    results = []
    thread = threading.Thread(target=lambda: results.append(container.delete_program()))
    thread.start()
    fake.wait_call("delete")
    (pid,) = [p for p in procs.working_below(container.bundle)
              if procs.command(p)[:1] == [world.kind.binary]]
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(pid, number)
    time.sleep(0.1)  # a chance to do the wrong thing
    fake.release("delete")
    thread.join(env.seconds(30))
    assert answer(results[0]).exit_status == 137
    clean(container)


def test_delete_is_quick(world):
    """containerd waits five seconds."""
    container = world.running()
    crash(container)
    assert container.delete_program().seconds < env.seconds(3)


def test_delete_unmounts_what_is_stacked(world):
    container = world.container()
    container.mounts.append(protos.common.Mount(type="bind", source=str(world.base),
                                                options=["rbind", "ro"]))
    container.run()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", container.rootfs / "tmp"], check=True)
    assert len(procs.mounts_below(container.rootfs)) == 3
    crash(container)
    answer(container.delete_program())
    clean(container)


def test_start_after_a_crash(world):
    """The same id again, over what the dead one left."""
    container = world.running()
    crash(container)
    container.delete_program()
    container.task.close()
    container.task = None
    container.launch()
    container.run()
    container.kill()
    assert container.finish().exit_status == 137


@pytest.mark.parametrize("verb", ["create", "start", "delete", "pause", "checkpoint"])
def test_crash_while_the_runtime_works(world, verb):
    container, fake = world.faked(["probe", "sleep"])
    if verb != "create":
        container.create()
    if verb in ("delete", "pause", "checkpoint"):
        container.start()
    if verb == "delete":
        container.kill()
        container.wait()
    fake.hold(verb)
    method = verb.capitalize()
    fields = container.create_request() if verb == "create" else {"id": container.id}
    if verb == "checkpoint":
        fields["path"] = str(world.dir / "image")
    shim = container.shim_pid()
    container.task.send(method, **fields)
    fake.wait_call(verb)
    procs.kill_all([shim])
    # The runtime goes with its parent, or else it would finish behind our back.
    until(lambda: not [p for p in procs.working_below(container.bundle)
                       if str(fake.path) in procs.command(p)], what="the runtime gone")
    fake.release(verb)
    assert answer(container.delete_program()).exit_status == 137
    assert procs.mounts_below(container.rootfs) == []
    assert container.id not in world.runtime_ids()


@pytest.mark.only_ours("the oracle's bundles are its own")
def test_delete_of_another_shims_bundle(world):
    """After an upgrade the program on the disk is run for what an older one, or containerd's own,
    has left."""
    other = KINDS["runc-v2"]
    if other.why_missing:
        pytest.skip(other.why_missing)
    container = world.running(kind=other)
    crash(container)
    container.kind = world.kind
    reply = answer(container.delete_program())
    assert (reply.pid, reply.exit_status) == (container.pid, 137)
    clean(container)


@pytest.mark.only_ours("the oracle's bundles are its own")
def test_bundle_is_readable_for_others(world):
    """And the way back: a downgrade."""
    other = KINDS["runc-v2"]
    if other.why_missing:
        pytest.skip(other.why_missing)
    container = world.running()
    crash(container)
    container.kind = other
    reply = answer(container.delete_program())
    assert (reply.pid, reply.exit_status) == (container.pid, 137)
    clean(container)


def test_stdio_of_a_crashed_shim(world):
    """The process gets SIGPIPE or an error, its reader the end."""
    container = world.running(["probe", "tick", "10"], io="pipes")
    container.io.out.wait_for("10\n")
    crash(container)
    container.io.out.wait_end()
    answer(container.delete_program())
    clean(container)
