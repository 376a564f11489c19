# SPDX-License-Identifier: Apache-2.0
"""Start, Exec, Kill, Wait, Delete, Pids: the life of processes.

Sources: containerd repo, runtime/v2/runc/{container.go,task/service.go}, pkg/process (1.6, 1.7),
cmd/containerd-shim-runc-v2/{runc,task,process} (2.x).
"""
import concurrent.futures
import os
import re
import signal
import subprocess
import threading
import time

import pytest

from kyb import cgroups, env, procs, stdio, ttrpc
from kyb.wait import until
from kyb.world import ZERO_TIME


def error_of(function, *args, **more):
    with pytest.raises(ttrpc.Error) as caught:
        function(*args, **more)
    return caught.value


# --- init ---

def test_start_answers_the_pid_of_create(world):
    container = world.container()
    pid = container.create()
    assert container.start() == pid
    assert container.status == "RUNNING"
    assert world.sink.wait("start", container.id).pid == pid


def test_exit_status(world):
    container = world.running(["probe", "exit", "42"])
    answer = container.wait()
    assert answer.exit_status == 42
    state = container.state()
    assert (container.status, state.exit_status) == ("STOPPED", 42)
    assert state.exited_at == answer.exited_at
    assert state.pid == container.pid
    deleted = container.delete()
    assert (deleted.pid, deleted.exit_status) == (container.pid, 42)
    assert deleted.exited_at == answer.exited_at


def test_exit_by_a_signal(world):
    container = world.running()
    container.kill(signal.SIGKILL)
    assert container.wait().exit_status == 128 + 9
    container.delete()
    second = world.running(["sh", "-c", "kill -ABRT $$; sleep 5"], group=container.id)
    # Pid 1 of a pid namespace is safe from its own signals, so the shell goes on to sleep.
    second.kill(signal.SIGKILL)
    assert second.finish().exit_status == 137


def test_time_of_exit(world):
    container = world.running(["probe", "exit"])
    before = time.time() - env.seconds(20)
    answer = container.wait()
    at = answer.exited_at.seconds + answer.exited_at.nanos / 1e9
    assert before <= at <= time.time()


def test_no_time_of_exit_while_running(world):
    """Go's zero time; anything else would be taken for an exit in 1970."""
    container = world.running()
    state = container.state()
    assert (state.exited_at.seconds, state.exited_at.nanos) == (ZERO_TIME, 0)


def test_very_short_process(world):
    """It may be gone before runc start has returned."""
    for _ in range(10):
        container = world.running(["probe", "exit", "7"], group="pod")
        assert container.pid > 0
        assert container.finish().exit_status == 7


def test_exit_while_start_is_under_way(world):
    """The exit must not get lost, nor told before the start."""
    container, fake = world.faked(["probe", "exit", "7"])
    fake.after("start", "sleep 0.5")
    container.run()
    assert container.finish().exit_status == 7
    world.sink.wait("delete", container.id)
    assert [e.topic for e in world.sink.all(container.id)] == [
        "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]


# --- Wait ---

def test_several_waiters(world):
    container = world.running(["probe", "trap", "15", "9"], io="pipes")
    container.io.out.wait_for("ready")
    waits = [container.wait_async() for _ in range(5)]
    container.kill(signal.SIGTERM)
    answers = {(a.exit_status, a.exited_at.seconds, a.exited_at.nanos)
               for a in map(ttrpc.answer, waits)}
    assert len(answers) == 1
    assert answers.pop()[0] == 9


def test_wait_after_the_exit(world):
    container = world.running(["probe", "exit", "3"])
    container.wait()
    for _ in range(3):
        assert container.wait(timeout=5).exit_status == 3


def test_wait_before_start(world):
    container = world.container(["probe", "exit", "3"])
    container.create()
    wait = container.wait_async()
    container.start()
    assert ttrpc.answer(wait).exit_status == 3


def test_wait_across_delete_of_a_created_one(world):
    """Deleting kills it: the waiter is told."""
    container = world.container()
    container.create()
    wait = container.wait_async()
    container.delete()
    assert ttrpc.answer(wait, 3).exit_status == 137


# --- Kill ---

@pytest.mark.machine
def test_kill_with_a_signal(world):
    container = world.running(["probe", "trap", "10", "33"], io="pipes")
    container.io.out.wait_for("ready")
    container.kill(signal.SIGUSR1)
    assert container.wait().exit_status == 33
    container.io.out.wait_for("got 10")


def test_ignored_signal(world):
    container = world.running(["probe", "ignore", "15"], io="pipes")
    container.io.out.wait_for("ready")
    container.kill(signal.SIGTERM)
    assert container.status == "RUNNING"


def test_kill_after_the_exit_is_not_found(world):
    """CRI's stop loop ends on this code, at once."""
    container = world.running(["probe", "exit"])
    container.wait()
    began = time.monotonic()
    assert error_of(container.kill, signal.SIGTERM).code == ttrpc.NOT_FOUND
    assert time.monotonic() - began < env.seconds(2)


def test_kill_all_after_the_exit(world):
    """runc itself finds nothing wrong with --all and a dead container."""
    container = world.running(["probe", "exit"])
    container.wait()
    try:
        container.kill(signal.SIGTERM, everybody=True)
    except ttrpc.Error as error:
        assert error.code == ttrpc.NOT_FOUND


@pytest.mark.machine
def test_kill_of_a_container_that_the_runtime_lost(world):
    """Somebody called 'runc delete --force' by hand."""
    container = world.running()
    world.runtime("delete", "--force", container.id)
    assert container.wait().exit_status == 137
    assert error_of(container.kill).code == ttrpc.NOT_FOUND
    assert container.delete().exit_status == 137


def test_kill_created(world):
    container = world.container()
    container.create()
    container.kill()
    assert container.wait().exit_status == 137
    container.delete()


@pytest.mark.machine
def test_kill_all(world):
    container = world.running(["sh", "-c", "probe sleep & probe sleep & wait"], host=("pid",))
    until(lambda: len(container.pids()) == 3)
    pids = list(container.pids())
    container.kill(signal.SIGKILL, everybody=True)
    assert container.wait().exit_status == 137
    until(lambda: not any(procs.alive(pid) for pid in pids))


@pytest.mark.machine
def test_exit_of_init_ends_all_in_a_shared_pid_namespace(world):
    """Nothing else would: without a pid namespace the kernel does not."""
    container = world.running(["sh", "-c", "probe sleep & probe sleep & wait"], host=("pid",))
    until(lambda: len(container.pids()) == 3)
    pids = list(container.pids())
    container.kill()
    assert container.wait().exit_status == 137
    until(lambda: not any(procs.alive(pid) for pid in pids))
    container.delete()


def test_unreadable_spec_counts_as_a_shared_pid_namespace(world):
    """Better one kill too many than processes that nobody knows of."""
    container = world.running(["sh", "-c", "probe sleep & probe sleep & wait"], host=("pid",))
    until(lambda: len(container.pids()) == 3)
    pids = list(container.pids())
    (container.bundle / "config.json").unlink()
    container.kill()
    assert container.wait().exit_status == 137
    until(lambda: not any(procs.alive(pid) for pid in pids))


def test_exit_of_init_ends_execs(world):
    container = world.running()
    added = container.exec("e", ["probe", "sleep"])
    added.start()
    container.kill()
    assert added.wait().exit_status == 137
    assert container.wait().exit_status == 137
    added.delete()
    container.delete()


@pytest.mark.parametrize("share", [(), ("pid",)], ids=["own-pid-ns", "host-pid-ns"])
@pytest.mark.machine
def test_exit_of_init_is_told_last(world, share):
    container = world.running(host=share)
    for n in range(5):
        container.exec(f"e{n}", ["probe", "sleep"]).start()
    container.kill()
    container.wait()
    world.sink.wait("exit", container.id, id=container.id)
    ids = [e.id for e in world.sink.all(container.id, "exit")]
    assert len(ids) == 6 and ids[-1] == container.id


def test_unusual_signals(world):
    """0, which only asks, and a real-time one."""
    container = world.running(["probe", "trap", "39", "5"], io="pipes")
    container.io.out.wait_for("ready")
    container.kill(0)
    assert container.status == "RUNNING"
    container.kill(39)
    assert container.wait().exit_status == 5


# --- Delete ---

def test_delete_of_a_running_one_is_refused(world):
    container = world.running()
    assert error_of(container.delete).code == ttrpc.UNKNOWN
    assert container.status == "RUNNING"
    assert procs.mounts_below(container.rootfs)


@pytest.mark.machine
def test_delete_of_a_created_one(world):
    container = world.container()
    pid = container.create()
    answer = container.delete()
    assert answer.pid == pid
    assert not procs.alive(pid)
    assert procs.mounts_below(container.rootfs) == []
    world.sink.wait("delete", container.id)


@pytest.mark.machine
def test_delete_cleans_up(world):
    container = world.running(["probe", "exit"], io="stdin")
    container.wait()
    container.delete()
    assert procs.mounts_below(world.dir) == []
    assert world.runtime_ids() == []
    assert cgroups.named(world.token) == []
    assert error_of(container.delete).code == ttrpc.NOT_FOUND


def test_delete_when_the_runtime_has_forgotten(world):
    """As after a checkpoint with exit."""
    container = world.running(["probe", "exit"])
    container.wait()
    world.runtime("delete", "--force", container.id)
    assert container.delete().exit_status == 0


def test_delete_lets_a_kill_be_answered(world):
    """The process may be gone before the runtime's kill has ended. After Delete containerd closes
    the connection; the Kill must not fail for that."""
    container, fake = world.faked()
    container.run()
    fake.after("kill", "sleep 0.5")
    killing = container.task.send("Kill", id=container.id, signal=9)
    container.wait()
    container.delete()
    # Both answers travel on one connection, one after the other.
    ttrpc.answer(killing, env.seconds(0.2))


def test_deletes_at_once(world):
    container, fake = world.faked(["probe", "exit", "3"])
    container.run()
    container.wait()
    fake.after("delete", "sleep 0.2")
    answers = [container.task.send("Delete", id=container.id) for _ in range(4)]
    good = 0
    for answer in answers:
        try:
            assert ttrpc.answer(answer).exit_status == 3
            good += 1
        except ttrpc.Error as error:
            assert error.code in (ttrpc.NOT_FOUND, ttrpc.UNKNOWN)
    assert good >= 1
    assert container.shim_pid()


def test_delete_survives_its_caller(world):
    """CRI gives up after ten seconds and comes again; the work goes on meanwhile."""
    container, fake = world.faked(["probe", "exit", "3"])
    container.run()
    container.wait()
    fake.hold("delete")
    container.task.send("Delete", id=container.id)
    fake.wait_call("delete")
    container.task.close()
    fake.release("delete")
    container.connect(world.service_of(container))

    def gone():
        try:
            return container.delete().exit_status == 3
        except ttrpc.Error as error:
            return error.code == ttrpc.NOT_FOUND

    assert until(gone)
    world.sink.wait("delete", container.id)


def test_failed_delete_can_be_repeated(world):
    container, fake = world.faked(["probe", "exit", "3"])
    container.run()
    container.wait()
    fake.fail("delete", "the disk is on fire")
    assert "the disk is on fire" in error_of(container.delete).message
    assert container.status == "STOPPED"
    fake.mend("delete")
    assert container.delete().exit_status == 3


def test_delete_waits_for_output_but_not_for_ever(world):
    """A child that init left behind still holds stdout: its output is lost sooner or later, the
    container is not."""
    container = world.running(["probe", "orphan", "600000", "3"], io="pipes", host=("pid",))
    container.wait()
    answer = container.delete(timeout=30)
    assert answer.exit_status == 3


def test_kill_is_answered_though_the_shim_leaves(world):
    """CRI kills, sees the exit, deletes and shuts down; all that may be quicker than the runtime's
    `kill`, whose answer it waits for."""
    container, fake = world.faked(["probe", "sleep"])
    container.run()
    fake.hold("kill")
    killing = container.task.send("Kill", id=container.id, signal=signal.SIGKILL)
    fake.wait_call("kill")
    os.kill(container.pid, signal.SIGKILL)

    def later():
        time.sleep(env.seconds(0.5))  # time enough to leave
        fake.release("kill")

    releasing = threading.Thread(target=later)
    releasing.start()
    container.wait()  # containerd's shim waits with that for the runtime
    container.delete()
    container.shutdown()
    try:
        ttrpc.answer(killing)
    except ttrpc.Error as error:
        assert "closed" not in error.message
    releasing.join()


def test_delete_waits_for_a_busy_rootfs(world):
    """Somebody looks around in there: unmounting is tried again for a while."""
    container = world.running(["probe", "exit", "3"])
    container.wait()
    with subprocess.Popen(["sleep", "0.5"], cwd=container.rootfs):
        assert container.delete().exit_status == 3
    assert procs.mounts_below(container.rootfs) == []


def test_id_can_be_used_again(world):
    container = world.running(["probe", "exit", "1"])
    container.finish()
    container.run()
    assert container.finish().exit_status == 1


# --- Exec ---

@pytest.mark.machine
def test_exec(world):
    container = world.running()
    added = container.exec("e1", ["sh", "-c", "echo $A; pwd; exit 9"], io="pipes", env=["A=b"],
                           cwd="/tmp")
    state = added.state()
    assert (state.id, state.pid, added.status) == ("e1", 0, "CREATED")
    assert (state.stdout, state.stderr) == (added.io.stdout, added.io.stderr)
    assert state.exited_at.seconds == ZERO_TIME
    assert world.sink.wait("exec-added", container.id).exec_id == "e1"
    pid = added.start()
    assert world.sink.wait("exec-started", container.id, exec_id="e1").pid == pid
    assert added.wait().exit_status == 9
    assert added.io.out.wait_end() == b"b\n/tmp\n"
    state = added.state()
    assert (added.status, state.exit_status, state.pid) == ("STOPPED", 9, pid)
    answer = added.delete()
    assert (answer.pid, answer.exit_status) == (pid, 9)
    event = world.sink.wait("exit", container.id, id="e1")
    assert (event.pid, event.exit_status) == (pid, 9)
    assert error_of(added.state).code == ttrpc.NOT_FOUND
    assert container.status == "RUNNING"


def test_exec_state_names_its_bundle(world):
    container = world.running()
    added = container.exec("e1", ["probe", "exit"])
    assert added.state().bundle == str(container.bundle)


def test_no_delete_event_of_an_exec(world):
    container = world.running()
    added = container.exec("e1", ["probe", "exit"])
    added.start()
    added.finish()
    container.kill()
    container.finish()
    world.sink.wait("delete", container.id)
    assert len(world.sink.all(topic="delete")) == 1


def test_exec_in_a_created_container(world):
    container = world.container()
    container.create()
    added = container.exec("e1", ["probe", "exit", "5"])
    added.start()
    assert added.finish().exit_status == 5


def test_duplicate_exec_id(world):
    container = world.running()
    added = container.exec("e1", ["probe", "exit"])
    assert error_of(container.exec, "e1", ["probe", "exit"]).code == ttrpc.ALREADY_EXISTS
    added.start()
    added.wait()
    assert error_of(container.exec, "e1", ["probe", "exit"]).code == ttrpc.ALREADY_EXISTS
    added.delete()
    added = container.exec("e1", ["probe", "exit", "2"])
    added.start()
    assert added.finish().exit_status == 2


def test_exec_id_of_another_container(world):
    """Ids of execs are a container's own."""
    first = world.running(group="pod")
    second = world.running(group="pod")
    for container in (first, second):
        container.exec("e", ["probe", "sleep"]).start()
    assert len(first.pids()) == len(second.pids()) == 2


def test_exec_terminal_of_the_request_counts(world):
    """Not the one of the spec."""
    container = world.running()
    added = container.exec("e1", ["probe", "tty"], io="pipes", terminal=False)
    added.start()
    added.wait()
    assert added.io.out.wait_end() == b"0 0 0\n"


@pytest.mark.only_ours("the reference takes an empty exec id for init")
def test_exec_without_an_id(world):
    container = world.running()
    assert error_of(container.exec, "", ["probe", "exit"]).code == ttrpc.INVALID_ARGUMENT
    assert container.status == "RUNNING"


@pytest.mark.only_ours("the reference makes file names of whatever it is given")
@pytest.mark.parametrize("exec_id", ["../e1", "a/b", "..", "a b", "x" * 300, "e\n1"])
def test_exec_id_that_is_no_identifier(world, exec_id):
    """The id becomes a part of file names."""
    container = world.running()
    error = error_of(container.exec, exec_id, ["probe", "exit"])
    assert error.code == ttrpc.INVALID_ARGUMENT
    assert container.status == "RUNNING"


def test_exec_with_a_broken_spec(world):
    container = world.running()
    with pytest.raises(ttrpc.Error):
        container.task.do("Exec", id=container.id, exec_id="e1", spec={
            "type_url": "types.containerd.io/opencontainers/runtime-spec/1/Process",
            "value": b"{not json"})
    added = container.exec("e1", ["probe", "exit"])  # the id was given back
    added.start()
    added.finish()


def test_large_exec_spec(world):
    """Several 100 KiB: a file, not an argument."""
    container = world.running()
    # One argument may have 128 KiB, all together more.
    added = container.exec("e1", ["sh", "-c", "echo $#", "sh", *["x" * 100_000] * 8], io="pipes")
    added.start()
    assert added.wait().exit_status == 0
    assert added.io.out.wait_end() == b"8\n"
    added.delete()


@pytest.mark.machine
def test_failed_exec(world):
    """Nothing ran, so there is no exit; but a Wait must not hang, and Delete works."""
    container = world.running()
    added = container.exec("e1", ["no-such-program"])
    error = error_of(added.start)
    assert error.code == ttrpc.UNKNOWN
    assert "OCI runtime exec failed" in error.message
    if env.RUNTIME == "runc":
        assert "executable file not found" in error.message
    added.wait(timeout=10)
    added.delete()
    assert error_of(added.state).code == ttrpc.NOT_FOUND
    container.exec("e2", ["probe", "exit"]).start()
    world.sink.wait("exit", container.id, id="e2")
    assert not [e for e in world.sink.all(container.id, "exit") if e.id == "e1"]
    assert not world.sink.all(container.id, "exec-started")[0].exec_id == "e1"


def test_waiter_of_an_exec_whose_start_fails(world):
    container = world.running()
    added = container.exec("e1", ["no-such-program"])
    wait = added.wait_async()
    error_of(added.start)
    ttrpc.answer(wait, 10)
    added.delete()


def test_init_ends_after_a_failed_exec(world):
    """The failed one must not be waited for."""
    container = world.running()
    error_of(container.exec("e1", ["no-such-program"]).start)
    container.kill()
    assert container.wait(timeout=10).exit_status == 137
    world.sink.wait("exit", container.id)


def test_delete_of_an_exec_never_started(world):
    container = world.running()
    added = container.exec("e1", ["probe", "exit"])
    added.delete()
    assert error_of(added.state).code == ttrpc.NOT_FOUND


@pytest.mark.machine
def test_start_of_an_exec_in_a_paused_container(world):
    """It was added when the container still ran: nothing runs, nobody waits for it, and what is
    added afterwards is not concerned."""
    container = world.running()
    added = container.exec("e1", ["probe", "exit"])
    waiting = added.wait_async()
    container.pause()
    error = error_of(added.start)
    assert error.code == ttrpc.UNKNOWN
    assert "paused" in error.message
    ttrpc.answer(waiting, 10)
    assert container.status == "PAUSED"
    container.resume()
    added.delete()
    another = container.exec("e2", ["probe", "exit", "3"])
    another.start()
    assert another.finish().exit_status == 3
    assert world.sink.wait("exit", container.id)
    assert [e.exec_id for e in world.sink.all(container.id, "exec-started")] == ["e2"]
    assert [e.id for e in world.sink.all(container.id, "exit")] == ["e2"]


def test_exec_after_init_exited(world):
    container = world.running()
    added = container.exec("e1", ["probe", "exit"])
    container.kill()
    container.wait()
    error_of(added.start)
    assert error_of(container.exec, "e2", ["probe", "exit"]).code == ttrpc.UNKNOWN


def test_exec_start_when_init_was_reaped(world):
    container = world.running()
    added = container.exec("e1", ["probe", "exit"])
    container.kill()
    container.wait()
    assert error_of(added.start).code == ttrpc.FAILED_PRECONDITION


def test_execs_race_with_the_end_of_init(world):
    """Whoever wins: every call is answered, and the exit of init comes, last."""
    for _ in range(3):
        container = world.running()
        added = [container.exec(f"e{n}", ["probe", "sleep", "50"]) for n in range(8)]
        calls = [container.task.send("Start", id=container.id, exec_id=process.exec_id)
                 for process in added]
        container.kill()
        for call in calls:
            try:
                ttrpc.answer(call, env.seconds(30))
            except ttrpc.Error:
                pass  # init was gone before this one's turn
        for process in added:
            process.wait()
        container.wait()
        world.sink.wait("exit", container.id, id=container.id)
        exits = world.sink.all(container.id, "exit")
        assert exits[-1].message.id == container.id
        assert len({event.message.id for event in exits}) == len(exits)
        started = {event.message.exec_id for event in world.sink.all(container.id)
                   if event.topic == "/tasks/exec-started"}
        assert started == {event.message.id for event in exits[:-1]}
        for process in added:
            process.delete()
        container.delete()


def test_exec_whose_logger_is_slower_than_the_end_of_init(world):
    """Its start was allowed when init lived; nothing of it may come after the exit of init."""
    program = world.dir / "logger"
    program.write_text(f"#!/bin/sh\nwhile [ ! -e {world.dir}/go ]; do /bin/sleep 0.05; done\n"
                       "exec 5>&-\n/bin/cat <&3 >/dev/null\n")
    program.chmod(0o755)
    container = world.running()
    added = container.exec("e1", ["probe", "exit"], io=stdio.Uris(f"binary://{program}"))
    starting = container.task.send("Start", id=container.id, exec_id="e1")
    container.kill()
    time.sleep(0.3)  # a chance for the exit to arrive while the logger is waited for
    (world.dir / "go").touch()
    with pytest.raises(ttrpc.Error):
        ttrpc.answer(starting)
    container.wait()
    world.sink.wait("exit", container.id, id=container.id)
    assert [e.message.id for e in world.sink.all(container.id, "exit")] == [container.id]
    added.delete()


def test_execs_in_parallel(world):
    container = world.running()

    def one(n):
        added = container.exec(f"e{n}", ["sh", "-c", f"echo {n}; exit {n}"], io="pipes")
        added.start()
        answer = added.wait()
        text = added.io.out.wait_end()
        added.delete()
        return answer.exit_status, text

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(one, range(24)))
    assert results == [(n, f"{n}\n".encode()) for n in range(24)]
    until(lambda: len(world.sink.all(container.id, "exit")) == 24)
    assert list(container.pids()) == [container.pid]


def test_fast_exits_of_execs(world):
    """They may exit before runc exec returns; none may be lost."""
    container = world.running()
    for n in range(30):
        added = container.exec(f"e{n}", ["probe", "exit", str(n)])
        added.start()
        assert added.finish(timeout=10).exit_status == n
    topics = [(e.topic, getattr(e.message, "exec_id", "") or getattr(e.message, "id", ""))
              for e in world.sink.all(container.id)[2:]]
    world.sink.wait("exit", container.id, id="e29")
    topics = [(e.topic, getattr(e.message, "exec_id", "") or getattr(e.message, "id", ""))
              for e in world.sink.all(container.id)[2:]]
    for n in range(30):
        assert [t for t, name in topics if name == f"e{n}"] == [
            "/tasks/exec-added", "/tasks/exec-started", "/tasks/exit"]


def test_exit_while_exec_start_is_under_way(world):
    container, fake = world.faked()
    container.run()
    fake.after("exec", "sleep 0.5")
    added = container.exec("e1", ["probe", "exit", "7"])
    added.start()
    assert added.finish().exit_status == 7
    topics = [e.topic for e in world.sink.all(container.id)]
    world.sink.wait("exit", container.id, id="e1")
    topics = [e.topic for e in world.sink.all(container.id)]
    assert topics[-2:] == ["/tasks/exec-started", "/tasks/exit"]


def test_kill_of_an_exec(world):
    container = world.running()
    added = container.exec("e1", ["probe", "trap", "15", "77"], io="pipes")
    added.start()
    added.io.out.wait_for("ready")
    added.kill(signal.SIGTERM)
    assert added.wait().exit_status == 77
    assert container.status == "RUNNING"


def test_stopped_exec_outlives_nobody(world):
    """Delete of the container takes undeleted execs along."""
    container = world.running()
    added = container.exec("e1", ["probe", "exit"])
    added.start()
    added.wait()
    container.kill()
    container.wait()
    container.delete()
    assert error_of(added.state).code == ttrpc.NOT_FOUND


def test_exec_pid_file_goes_with_it(world):
    container = world.running()
    added = container.exec("e1", ["probe", "exit"])
    added.start()
    added.finish()
    assert not (container.bundle / "e1.pid").exists()


def test_exec_named_init(world):
    """The bundle's init.pid stays the container's: `delete` goes by it."""
    container = world.running()
    added = container.exec("init", ["probe", "sleep"])
    added.start()
    assert (container.bundle / "init.pid").read_text() == str(container.pid)
    assert added.pid != container.pid
    added.kill()
    added.finish()
    assert (container.bundle / "init.pid").read_text() == str(container.pid)


def test_exec_named_like_a_file_of_the_bundle(world):
    """Nothing of the bundle is touched, whatever an exec is called."""
    container = world.running()

    def files():
        return {path.name: path.stat().st_ino for path in container.bundle.iterdir()}

    before = files()
    for name in ("config", "config.json", "log.json", "address", "work", "rootfs", "options.json",
                 "init.pid", "init-process.json", "exit-status"):
        added = container.exec(name, ["probe", "exit"])
        added.start()
        added.finish()
    assert {name: inode for name, inode in files().items() if name in before} == before


def test_exec_spec_file_goes_away(world):
    """The OCI runtime reads it once; it may hold secrets."""
    container, fake = world.faked()
    container.run()
    fake.after("exec", 'ls -l "$2" >/dev/null; for a; do case $p in --process) '
               f'stat -c %a "$a" >{world.dir}/mode;; esac; p=$a; done')
    added = container.exec("e1", ["probe", "exit"])
    added.start()
    (argv,) = fake.calls("exec")
    file = argv[argv.index("--process") + 1]
    assert (world.dir / "mode").read_text().strip() == "600"
    assert not os.path.exists(file)
    added.finish()


def test_command_line_of_exec(world):
    container, fake = world.faked()
    container.run()
    added = container.exec("e1", ["probe", "exit"])
    added.start()
    (argv,) = fake.calls("exec")
    file = argv[argv.index("--process") + 1]
    assert argv[argv.index("exec"):] == ["exec", "--process", file, "--detach", "--pid-file",
                                         str(container.bundle / "e1.pid"), container.id]
    added.finish()


# --- Pids ---

@pytest.mark.machine
def test_pids(world):
    container = world.running(["sh", "-c", "probe sleep & wait"])
    added = container.exec("e1", ["probe", "sleep"])
    added.start()
    until(lambda: len(container.pids()) == 3)
    pids = container.pids()
    assert pids[container.pid] == ""
    assert pids[added.pid] == "e1"
    assert sorted(pids.values()) == ["", "", "e1"]


@pytest.mark.parametrize("state", ["created", "running", "paused"])
def test_pids_are_never_none_while_it_lives(world, state):
    """1.7 and later take an empty list for a shim that leaked, and end it."""
    container = world.container()
    container.create()
    if state != "created":
        container.start()
    if state == "paused":
        container.pause()
    assert container.pid in container.pids()


# --- Shutdown ---

@pytest.mark.parametrize("now", [False, True])
def test_shutdown_with_containers_does_nothing(world, now):
    container = world.running()
    container.shutdown(now=now)
    assert container.status == "RUNNING"
    container.kill()
    container.wait()
    container.shutdown(now=now)
    assert container.status == "STOPPED"


def test_shutdown_is_answered(world):
    for _ in range(5):
        container = world.container()
        container.task.do("Shutdown", id=container.id)
        until(lambda: not world.shims())


def test_shim_of_a_pod_ends_with_its_last_container(world):
    """The pause container may go first (containerd issue 7496)."""
    pause = world.running(group="pod")
    work = world.running(group="pod")
    pause.kill()
    pause.finish()
    pause.shutdown()
    assert work.status == "RUNNING"
    work.kill()
    work.finish()
    work.shutdown()
    until(lambda: not world.shims())


# --- what it does to the processes it starts ---

def test_descriptors_do_not_leak(world):
    """After many lives the shim holds what it held at first."""
    container = world.running()
    pid = container.shim_pid()

    def life(n):
        added = container.exec(f"x{n}", ["probe", "sink"], io="stdin")
        added.start()
        added.io.open_stdin()
        added.io.close_stdin()
        added.close_io()
        added.finish()
        added.io.close()

    life(0)
    before = until(lambda: sorted(t for t in procs.fds(pid).values()))
    for n in range(1, 11):
        life(n)

    def settled():
        now = sorted(t for t in procs.fds(pid).values())
        return len(now) <= len(before) + 4  # Go closes some only when it collects garbage

    until(settled, what=f"descriptors {before} again")


def heap_of(container):
    """Bytes that the shim has allocated, as it logs them on SIGUSR1."""
    said = re.compile(r"heap=(\d+)")
    before = len(said.findall(container.log()))
    os.kill(container.shim_pid(), signal.SIGUSR1)
    return int(until(lambda: said.findall(container.log())[before:])[0])


@pytest.mark.only_ours("the reference leaves it to the garbage collector")
def test_memory_does_not_grow(world):
    """Not by a byte: what comes with an exec or a container of the pod goes with it."""
    elder = world.define(["probe", "reap"])
    # Without malloc's caches per thread, which would fill first.
    elder.launch(more_env={"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}, debug=True)
    elder.run()

    def life(name, terminal):
        added = elder.exec(name, ["sh", "-c", "echo x"], io="pipes", terminal=terminal)
        added.start()
        added.finish()
        member = world.running(group=elder.id, io="pipes", terminal=terminal)
        member.kill()
        member.finish()
        member.task.close()
        member.task = None
        with pytest.raises(ttrpc.Error):
            elder.exec(f"{name}bad", ["/no/such/program"]).start()
        elder.task.do("Delete", id=elder.id, exec_id=f"{name}bad")
        return world.sink.wait("delete", member.id)  # and no event waits to be sent

    for n in range(3):
        life(f"warm{n}", n == 1)
    before = heap_of(elder)
    for n in range(6):
        life(f"e{n}", n % 2 == 1)
    assert heap_of(elder) == before


def test_threads_do_not_grow_without_end(world):
    container = world.running()
    pid = container.shim_pid()
    container.exec("first", ["probe", "exit"]).start()
    for n in range(20):
        added = container.exec(f"e{n}", ["probe", "exit"])
        added.start()
        added.finish()
    assert int(procs.status(pid, "Threads")) < 40


def test_no_zombies(world):
    """Orphans of a container come to the shim, which reaps them silently."""
    container = world.running(["probe", "orphan", "100", "0"], host=("pid",))
    pid = container.shim_pid()
    container.wait()
    container.delete()

    def zombies():
        return [p for p in procs.children(pid) if not procs.alive(p)]

    until(lambda: not zombies())
    assert re.match(r"\d+", str(pid))


def test_calls_from_many_threads(world):
    """Nothing deadlocks when everybody asks while things start and end."""
    container = world.running()
    stop = threading.Event()
    failures = []

    def ask():
        client = None
        try:
            client = ttrpc.Client(container.address)
            while not stop.is_set():
                for method in ("State", "Pids", "Stats", "Connect"):
                    client.call(container.task.service, method, b"\x0a" + bytes(
                        [len(container.id)]) + container.id.encode())
        except (ttrpc.Error, ttrpc.Closed, AssertionError) as error:
            failures.append(error)
        finally:
            if client:
                client.close()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(10):
        added = container.exec(f"e{n}", ["probe", "exit", "1"])
        added.start()
        assert added.finish().exit_status == 1
    stop.set()
    for thread in threads:
        thread.join(env.seconds(30))
    assert not failures
