# SPDX-License-Identifier: Apache-2.0
"""A whole containerd with the shim below it: ctr, the gRPC API, restarts of the daemon, crashes of
the shim."""
import json
import os
import pathlib
import signal
import time

import grpc
import pytest

from kyb import cgroups, env, image, procs, protos
from kyb.stdio import Reader, Stdio
from kyb.wait import until


def run(node, *command, flags=(), **more):
    """ctr run --rm; (id, CompletedProcess)."""
    name = node.new_id()
    done = node.ctr("run", "--rm", *node.ctr_flags(name), *flags, image.NAME, name, *command,
                    check=False, **more)
    return name, done


def detached(node, *command, flags=(), group=None):
    """ctr run -d; the id."""
    name = node.new_id()
    extra = ["--annotation", f"io.containerd.runc.v2.group={group}"] if group else []
    node.ctr("run", "-d", "--null-io", *node.ctr_flags(name), *extra, *flags, image.NAME, name,
             *command)
    return name


def end(node, name):
    node.ctr("tasks", "kill", "-s", "KILL", name, check=False)
    until(lambda: node.tasks().get(name) in (None, "STOPPED"))
    node.ctr("tasks", "delete", name, check=False)
    node.ctr("containers", "delete", name)


# --- ctr ---

@pytest.mark.machine
def test_ctr_run(node):
    _, done = run(node, "/bin/sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_ctr_run_with_input(node):
    """Not all at once: ctr misses an end of input that comes before its task is made."""
    name = node.new_id()
    with node.ctr_process("run", "--rm", *node.ctr_flags(name), image.NAME, name, "/bin/probe",
                          "echo") as ctr:
        ctr.stdin.write(b"some text\n")
        ctr.stdin.flush()
        assert ctr.stdout.readline() == b"some text\n"
        ctr.stdin.close()
        assert ctr.stdout.read() == b"eof\n"
        assert ctr.wait(env.seconds(30)) == 0


def test_ctr_run_missing_program(node):
    _, done = run(node, "/no/such/program")
    assert done.returncode != 0
    assert "no such file or directory" in done.stderr
    assert node.tasks() == {}


def test_ctr_run_by_path(node):
    """The runtime may be named by the path of the shim."""
    name = node.new_id()
    flags = [f for f in node.ctr_flags(name) if not f.startswith("--runc-")]
    flags[1] = node.kind.binary
    if "--runtime-config-path" in flags or env.DRIVER == "systemd" or env.RUNTIME != "runc":
        pytest.skip("ctr cannot send options to a runtime named by its path")
    done = node.ctr("run", "--rm", *flags, image.NAME, name, "/bin/probe", "exit", "5",
                    check=False)
    assert done.returncode == 5


@pytest.mark.machine
def test_ctr_exec(node):
    name = detached(node)
    done = node.ctr("tasks", "exec", "--exec-id", "e1", name, "/bin/sh", "-c", "echo hi; exit 4",
                    check=False)
    assert (done.returncode, done.stdout) == (4, "hi\n")
    end(node, name)


@pytest.mark.machine
def test_ctr_pause_resume(node):
    name = detached(node)
    node.ctr("tasks", "pause", name)
    assert node.tasks()[name] == "PAUSED"
    node.ctr("tasks", "resume", name)
    assert node.tasks()[name] == "RUNNING"
    end(node, name)


@pytest.mark.machine
def test_ctr_ps_and_metrics(node):
    name = detached(node)
    pid = node.task_pid(name)
    assert str(pid) in node.ctr("tasks", "ps", name).stdout
    assert "memory.usage" in node.ctr("tasks", "metrics", name).stdout
    end(node, name)


def test_ctr_refuses_to_delete_a_running_task(node):
    name = detached(node)
    assert node.ctr("tasks", "delete", name, check=False).returncode != 0
    assert node.tasks()[name] == "RUNNING"
    node.ctr("tasks", "delete", "--force", name)
    node.ctr("containers", "delete", name)


def test_many_ctr_runs(node):
    for n in range(5):
        _, done = run(node, "/bin/probe", "exit", str(n))
        assert done.returncode == n


# --- the API ---

@pytest.mark.machine
def test_life(client):
    events = client.events()
    container = client.container(["probe", "exit", "5"])
    pid = container.create()
    assert container.status == "CREATED"
    assert container.start() == pid
    assert container.wait().exit_status == 5
    answer = container.delete()
    assert (answer.pid, answer.exit_status) == (pid, 5)
    events.wait("delete", container.id)
    assert [e.topic for e in events.of(container.id)] == [
        "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
    events.close()


def test_events_name_the_namespace(client):
    events = client.events()
    container = client.container(["probe", "exit"])
    container.run()
    container.wait()
    container.delete()
    assert events.wait("exit", container.id).namespace == client.node.namespace
    events.close()


def test_stdio(client, tmp_path):
    io = Stdio(tmp_path / "io", stdin=True)
    container = client.container(["probe", "echo"])
    container.run(io=io)
    io.write("hello\n")
    io.out.wait_for("hello\n")
    io.close_stdin()
    client.task("CloseIO", container_id=container.id, stdin=True)
    container.wait()
    assert io.out.wait_end() == b"hello\neof\n"
    container.delete()
    io.close()


def test_exec(client):
    container = client.container()
    container.run()
    pid = container.exec("e1", ["probe", "sleep"])
    assert sorted(container.pids()) == sorted([container.pid, pid])
    assert container.get("e1").pid == pid
    container.kill(exec_id="e1")
    assert container.wait("e1").exit_status == 137
    assert container.delete("e1").exit_status == 137
    container.kill()
    container.wait()
    container.delete()


def test_metrics(client):
    container = client.container()
    container.run()
    data = container.metrics()
    assert data.type_url == (protos.METRICS_V2 if env.cgroup_v2() else protos.METRICS_V1)
    container.kill()
    container.wait()
    container.delete()


def test_update(client):
    container = client.container(memory=100 << 20)
    container.run()
    client.task("Update", container_id=container.id, resources=protos.pack(
        protos.RESOURCES, json.dumps({"memory": {"limit": 50 << 20}}).encode()))
    file = "memory.max" if env.cgroup_v2() else "memory.limit_in_bytes"
    text = (cgroups.of(container.pid, "memory") / file).read_text()
    assert int(text) == 50 << 20
    container.kill()
    container.wait()
    container.delete()


def code_of(function, *args, **more):
    """How a call ended."""
    try:
        function(*args, **more)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_errors(client):
    container = client.container()
    container.run()
    assert code_of(container.create) == grpc.StatusCode.ALREADY_EXISTS
    assert code_of(container.delete) in (grpc.StatusCode.FAILED_PRECONDITION,
                                         grpc.StatusCode.UNKNOWN)
    container.kill()
    container.wait()
    assert code_of(container.kill) == grpc.StatusCode.NOT_FOUND
    container.delete()
    assert code_of(container.get) == grpc.StatusCode.NOT_FOUND


def test_failed_create_leaves_nothing(client, node):
    container = client.container(["no-such-program"])
    assert code_of(container.create) == grpc.StatusCode.UNKNOWN
    until(lambda: not node.shims())
    assert not node.bundle(container.id).exists()


def test_same_id_after_a_failed_create(client):
    container = client.container(["no-such-program"])
    code_of(container.create)
    code_of(container.create)


def test_pod_of_two(client, node):
    """One shim for both, gone after the second."""
    group = {"io.containerd.runc.v2.group": "pod-" + node.token}
    first = client.container(annotations=group)
    second = client.container(annotations=group)
    first.run()
    second.run()
    assert len(node.shims()) == 1
    for container in (first, second):
        container.kill()
        assert container.wait().exit_status == 137
        container.delete()
    until(lambda: not node.shims())


# --- containerd goes and comes ---

def lost(container):
    """From 1.7 on containerd deletes a task that it finds without processes when it starts: it
    takes the shim for leaked. One whose shim names the pid of a dead init survives."""
    if env.containerd_version() < (1, 7):
        return False
    try:
        container.get()
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
@pytest.mark.parametrize("state", ["CREATED", "RUNNING", "PAUSED", "STOPPED"])
def test_restart(client, node, state, number):
    """A task is found again, in the state it was in."""
    container = client.container()
    container.create()
    if state != "CREATED":
        container.start()
    if state == "PAUSED":
        container.pause()
    if state == "STOPPED":
        container.kill()
        container.wait()
    shims = node.shims()
    node.restart(number)
    if state == "STOPPED" and lost(container):
        return
    assert node.shims() == shims
    process = container.get()
    assert protos.task.Status.Name(process.status) == state
    assert process.pid == container.pid
    if state == "PAUSED":
        container.resume()
    if state in ("PAUSED", "RUNNING"):
        container.kill()
    if state == "CREATED":
        container.start()
        container.kill()
    assert container.wait().exit_status == 137
    container.delete()


def test_exec_across_a_restart(client, node):
    container = client.container()
    container.run()
    pid = container.exec("e1", ["probe", "sleep"])
    node.restart()
    assert container.get("e1").pid == pid
    container.kill(exec_id="e1")
    assert container.wait("e1").exit_status == 137
    container.delete("e1")
    container.exec("e2", ["probe", "exit"])
    container.wait("e2")
    container.kill()
    container.wait()
    container.delete()


def test_exit_while_containerd_is_away(client, node):
    container = client.container(["probe", "trap", "15", "9"])
    container.run()
    time.sleep(0.1)  # until the signal is caught; the test fails visibly when it is not
    node.stop()
    os.kill(container.pid, signal.SIGTERM)
    until(lambda: not procs.alive(container.pid))
    node.start()
    if lost(container):
        return
    assert container.status == "STOPPED"
    assert container.wait().exit_status == 9
    container.delete()


def test_output_across_a_restart(client, node, tmp_path):
    """The shim keeps both ends of the FIFO: what is written meanwhile waits in there."""
    io = Stdio(tmp_path / "io", read=False)
    first = Reader(io.stdout), Reader(io.stderr)
    container = client.container(["probe", "tick", "20"])
    container.run(io=io)
    first[0].wait_for("5\n")
    node.stop()
    for reader in first:
        reader.close()
    time.sleep(0.2)  # in which something is written
    node.start()
    process = container.get()
    assert (process.stdout, process.stderr) == (io.stdout, io.stderr)
    second = Reader(process.stdout), Reader(process.stderr)
    second[0].wait_count(20)
    container.kill()
    container.wait()
    second[0].wait_end()
    lines = (first[0].data + second[0].data).split()
    assert lines == [str(n).encode() for n in range(1, len(lines) + 1)]
    container.delete()
    for reader in second:
        reader.close()


def test_events_after_a_restart(client, node):
    """The shim's connection went with the old daemon; it makes a new one."""
    container = client.container()
    container.run()
    node.restart()
    events = client.events()
    container.exec("e1", ["probe", "exit", "3"])
    container.wait("e1")
    events.wait("exit", container.id, id="e1", timeout=20)
    container.delete("e1")
    container.kill()
    container.wait()
    container.delete()
    events.wait("delete", container.id, timeout=20)
    events.close()


@pytest.mark.machine
def test_pod_across_a_restart(client, node):
    group = {"io.containerd.runc.v2.group": "pod-" + node.token}
    first = client.container(annotations=group)
    second = client.container(annotations=group)
    first.run()
    second.run()
    node.restart()
    assert len(node.shims()) == 1
    third = client.container(["probe", "exit", "2"], annotations=group)
    third.run()
    assert len(node.shims()) == 1
    third.wait()
    third.delete()
    for container in (first, second):
        container.kill()
        assert container.wait().exit_status == 137
        container.delete()
    until(lambda: not node.shims())


def test_stats_after_a_restart(client, node):
    container = client.container()
    container.run()
    node.restart()
    assert container.metrics().value
    container.kill()
    container.wait()
    container.delete()


# --- the shim crashes ---

@pytest.mark.machine
def test_crash(client, node):
    """containerd runs 'delete' and tells the exit itself."""
    container = client.container()
    container.run()
    events = client.events()
    waiting = client.task_future("Wait", container_id=container.id)
    (shim,) = node.shims()
    bundle = node.bundle(container.id)
    assert bundle.exists()
    os.kill(shim, signal.SIGKILL)
    event = events.wait("exit", container.id, timeout=20)
    assert (event.exit_status, event.pid, event.id) == (137, container.pid, container.id)
    assert events.wait("delete", container.id).exit_status == 137
    until(lambda: code_of(container.get) == grpc.StatusCode.NOT_FOUND)
    until(lambda: not bundle.exists())
    assert not procs.alive(container.pid)
    try:
        waiting.result(env.seconds(10))
    except grpc.RpcError:
        pass  # its connection is gone
    events.close()


def test_crash_of_a_pod(client, node):
    """Every container of the shim ends, each with its own 'delete'."""
    group = {"io.containerd.runc.v2.group": "pod-" + node.token}
    containers = [client.container(annotations=group) for _ in range(3)]
    for container in containers:
        container.run()
    events = client.events()
    (shim,) = node.shims()
    os.kill(shim, signal.SIGKILL)
    for container in containers:
        assert events.wait("exit", container.id, timeout=20).exit_status == 137
        until(lambda c=container: not procs.alive(c.pid))
        until(lambda c=container: not node.bundle(c.id).exists())
    events.close()


def test_crash_while_containerd_is_away(client, node):
    container = client.container()
    container.run()
    (shim,) = node.shims()
    node.stop()
    os.kill(shim, signal.SIGKILL)
    until(lambda: not procs.alive(shim))
    node.start()
    until(lambda: code_of(container.get) == grpc.StatusCode.NOT_FOUND)
    until(lambda: not procs.alive(container.pid))
    assert not node.bundle(container.id).exists()


def test_terminated_shim(client, node):
    """The orderly way; containerd cleans up all the same."""
    container = client.container()
    container.run()
    events = client.events()
    (shim,) = node.shims()
    os.kill(shim, signal.SIGTERM)
    assert events.wait("exit", container.id, timeout=20).exit_status == 137
    until(lambda: not procs.alive(container.pid))
    events.close()


def test_new_task_after_a_crash(client, node):
    container = client.container()
    container.run()
    (shim,) = node.shims()
    os.kill(shim, signal.SIGKILL)
    until(lambda: not node.bundle(container.id).exists())
    until(lambda: code_of(container.create) == grpc.StatusCode.OK)
    container.start()
    assert container.status == "RUNNING"
    container.kill()
    container.wait()
    container.delete()


# --- checkpoints ---

def restored_count(node, name):
    done = node.ctr("tasks", "exec", "--exec-id", f"r{time.monotonic_ns()}", name, "/bin/cat",
                    "/tmp/n", check=False)
    return int(done.stdout or 0)


@pytest.mark.criu
@pytest.mark.machine
def test_ctr_checkpoint_and_restore(node):
    """Through an image in containerd, with the writable layer."""
    name = detached(node, "/bin/probe", "count", "/tmp/n")
    until(lambda: restored_count(node, name) > 5)
    ref = f"localhost/checkpoint-{name}:1"
    node.ctr("containers", "checkpoint", "--rw", "--image", "--task", name, ref)
    assert node.tasks()[name] == "RUNNING"
    before = restored_count(node, name)
    end(node, name)
    again = node.new_id()
    node.ctr("containers", "restore", "--live", "--rw", again, ref)
    assert node.tasks()[again] == "RUNNING"
    until(lambda: restored_count(node, again) > before)
    end(node, again)
    node.ctr("images", "rm", ref)


@pytest.mark.criu
def test_ctr_task_checkpoint_with_an_image_path(node):
    if not node.kind.typed_options:
        pytest.skip("containerd heeds the path for its own shim's name only")
    name = detached(node, "/bin/probe", "count", "/tmp/n")
    until((node.bundle(name) / "rootfs/tmp/n").exists)
    folder = node.dir / f"image-{name}"
    node.ctr("tasks", "checkpoint", "--image-path", str(folder), name)
    assert (folder / "inventory.img").exists()
    assert node.tasks()[name] == "RUNNING"
    end(node, name)


@pytest.mark.criu
def test_ctr_task_checkpoint_with_exit(node):
    if not node.kind.typed_options:
        pytest.skip("containerd heeds the path for its own shim's name only")
    name = detached(node, "/bin/probe", "count", "/tmp/n")
    until((node.bundle(name) / "rootfs/tmp/n").exists)
    folder = node.dir / f"image-{name}"
    node.ctr("tasks", "checkpoint", "--exit", "--image-path", str(folder), name)
    until(lambda: node.tasks().get(name) == "STOPPED")
    node.ctr("tasks", "delete", name, check=False)  # hands the exit status, 137, on as its own
    node.ctr("containers", "delete", name)


@pytest.mark.criu
def test_checkpoint_into_the_content_store(client):
    """Without a path containerd packs a folder of its own."""
    container = client.container(["probe", "count", "/tmp/n"])
    container.run()
    until((client.node.bundle(container.id) / "rootfs/tmp/n").exists)
    container.pause()
    reply = client.task("Checkpoint", container_id=container.id)
    container.resume()
    assert [d.media_type for d in reply.descriptors]
    assert all(d.size for d in reply.descriptors)
    assert container.status == "RUNNING"
    container.kill()
    container.wait()
    container.delete()


# --- what is on disk ---

def test_files_of_the_bundle(client, node):
    container = client.container()
    container.run()
    bundle = node.bundle(container.id)
    assert (bundle / "shim-binary-path").read_text() == node.kind.binary \
        or pathlib.Path((bundle / "shim-binary-path").read_text()).resolve() \
        == pathlib.Path(node.kind.binary).resolve()
    if env.containerd_version() >= (2,):
        params = json.loads((bundle / "bootstrap.json").read_text())
        assert params["address"].startswith("unix://") and params["protocol"] == "ttrpc"
    else:
        assert (bundle / "address").read_text().startswith("unix://")
    container.kill()
    container.wait()
    container.delete()
    assert not bundle.exists()


def test_log_reaches_containerd(client, node):
    """Through the FIFO in the bundle, as it is; with -debug there is something to say."""
    before = node.log.stat().st_size
    container = client.container()
    container.run()
    container.kill()
    container.wait()
    container.delete()
    text = node.log.read_bytes()[before:].decode(errors="replace")
    assert "level=" in text
