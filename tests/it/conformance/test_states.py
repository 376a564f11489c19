# SPDX-License-Identifier: Apache-2.0
"""The state machine: what each call does in each state of an init process and of an exec.

Sources: containerd repo, pkg/process/{init_state,exec_state}.go (1.6, 1.7),
cmd/containerd-shim-runc-v2/process (2.x).
"""
import pytest

from kyb import env, ttrpc
from kyb.protos import task as pb

OK, WRONG, GONE = ttrpc.OK, ttrpc.UNKNOWN, ttrpc.NOT_FOUND
CALLS = ("Start", "Pause", "Resume", "Update", "Checkpoint", "Exec", "Kill", "Delete", "Resize")
INIT = {
    #                     Start  Pause  Resume Update Checkp Exec   Kill   Delete Resize
    "created":           (OK,    WRONG, WRONG, OK,    WRONG, OK,    OK,    OK,    OK),
    "createdCheckpoint": (None,  WRONG, WRONG, WRONG, WRONG, WRONG, None,  OK,    OK),
    "running":           (WRONG, OK,    WRONG, OK,    OK,    OK,    OK,    WRONG, OK),
    "paused":            (WRONG, WRONG, OK,    OK,    OK,    WRONG, OK,    WRONG, OK),
    "stopped":           (WRONG, WRONG, WRONG, WRONG, WRONG, WRONG, GONE,  OK,    OK),
    "deleted":           (GONE,) * 9,
}
AFTER = {("created", "Start"): "RUNNING", ("running", "Pause"): "PAUSED",
         ("paused", "Resume"): "RUNNING", ("running", "Checkpoint"): "RUNNING",
         ("paused", "Checkpoint"): "PAUSED"}
EXEC_CALLS = ("Start", "Kill", "Delete", "Resize", "CloseIO", "Wait", "State")
EXEC = {
    #           Start  Kill                        Delete Resize CloseIO Wait  State
    "created": (OK,    ttrpc.FAILED_PRECONDITION,  OK,    OK,    OK,     None, OK),
    "running": (WRONG, OK,                         WRONG, OK,    OK,     None, OK),
    "stopped": (WRONG, GONE,                       OK,    WRONG, OK,     OK,   OK),
    "deleted": (GONE,  GONE,                       GONE,  GONE,  GONE,   GONE, GONE),
}
# CREATED is also what a container looks like that waits for its restore.
SHOWN = {"created": "CREATED", "createdCheckpoint": "CREATED", "running": "RUNNING",
         "paused": "PAUSED", "stopped": "STOPPED"}


def reach(world, state):
    """A container in that state."""
    if state == "createdCheckpoint":
        container = world.container()
        image = world.dir / "image"
        image.mkdir()
        container.create(checkpoint=str(image))
        return container
    container = world.container()
    container.create()
    if state != "created":
        container.start()
        container.settle()
    if state == "paused":
        container.pause()
    if state in ("stopped", "deleted"):
        container.kill()
        container.wait()
    if state == "deleted":
        container.delete()
    return container


def call(world, container, method):
    """Status code of a call."""
    try:
        if method == "Update":
            container.update({"pids": {"limit": 100}})
        elif method == "Checkpoint":
            container.checkpoint(world.dir / "dump")
        elif method == "Exec":
            container.exec("e", ["probe", "exit"])
        elif method == "Kill":
            container.kill(0 if container.pid else 9)
        elif method == "Resize":
            container.resize(80, 24)
        else:
            {"Start": container.start, "Delete": container.delete, "Pause": container.pause,
             "Resume": container.resume}[method]()
    except ttrpc.Error as error:
        return error.code
    return OK


def cells(table, calls):
    """(state, call, expected) of every cell that says something."""
    return [pytest.param(state, call, expected, id=f"{state}-{call}")
            for state, row in table.items()
            for call, expected in zip(calls, row) if expected is not None]


# What a created one with a checkpoint does on Start is for test_checkpoint.py.
@pytest.mark.parametrize("state, method, expected", cells(INIT, CALLS))
def test_init(world, state, method, expected):
    if method == "Checkpoint" and expected == OK and env.why_no_criu():
        pytest.skip(env.why_no_criu())
    container = reach(world, state)
    assert call(world, container, method) == expected
    if state == "deleted" or (method, expected) == ("Delete", OK):
        with pytest.raises(ttrpc.Error) as caught:
            container.state()
        assert caught.value.code == GONE
    else:
        assert container.status == AFTER.get((state, method), SHOWN[state])


def reach_exec(world, state):
    container = world.running()
    added = container.exec("e", ["probe", "sleep"])
    if state != "created":
        added.start()
    if state in ("stopped", "deleted"):
        added.kill()
        added.wait()
    if state == "deleted":
        added.delete()
    return added


@pytest.mark.parametrize("state, method, expected", cells(EXEC, EXEC_CALLS))
def test_exec(world, state, method, expected):
    added = reach_exec(world, state)
    try:
        {"Start": added.start, "Kill": added.kill, "Delete": added.delete, "Wait": added.wait,
         "Resize": lambda: added.resize(80, 24), "CloseIO": added.close_io,
         "State": added.state}[method]()
        code = OK
    except ttrpc.Error as error:
        code = error.code
    assert code == expected
    if state == "running":  # whatever was asked of it, it ends as it should
        if method != "Kill":
            added.kill()
        assert added.finish().exit_status == 137
        another = added.container.exec("another", ["probe", "exit", "3"])
        another.start()
        assert another.finish().exit_status == 3
    assert added.container.status == "RUNNING"


@pytest.mark.parametrize("method", ["State", "Start", "Delete", "Pids", "Pause",
                                    "Resume", "Checkpoint", "Kill", "Exec", "ResizePty", "CloseIO",
                                    "Update", "Wait", "Stats"])
def test_unknown_container(world, method):
    container = world.container()
    with pytest.raises(ttrpc.Error) as caught:
        container.task.do(method, id="nobody")
    assert caught.value.code == GONE


@pytest.mark.parametrize("method", ["State", "Start", "Delete", "Kill", "ResizePty", "CloseIO",
                                    "Wait"])
def test_unknown_exec(world, method):
    container = world.running()
    with pytest.raises(ttrpc.Error) as caught:
        container.task.do(method, id=container.id, exec_id="nobody")
    assert caught.value.code == GONE


def test_connect_knows_everybody(world):
    """containerd asks before Create, and when it loads shims: it must not fail."""
    container = world.container()
    reply = container.task.do("Connect", id="nobody")
    assert (reply.shim_pid, reply.task_pid) == (container.shim_pid(), 0)
    pid = container.run()
    assert container.task.do("Connect", id=container.id).task_pid == pid


def test_second_create_is_refused(world):
    container = world.running()
    with pytest.raises(ttrpc.Error) as caught:
        container.create()
    assert caught.value.code == ttrpc.ALREADY_EXISTS
    assert container.status == "RUNNING"


def test_wrong_state_texts_are_for_people(world):
    container = world.running()
    with pytest.raises(ttrpc.Error) as caught:
        container.start()
    assert "running" in caught.value.message
    with pytest.raises(ttrpc.Error) as caught:
        container.delete()
    assert "running" in caught.value.message


def test_failed_runc_start_leaves_it_created(world):
    container, fake = world.faked()
    container.create()
    fake.fail("start")
    with pytest.raises(ttrpc.Error):
        container.start()
    assert container.status == "CREATED"
    fake.mend("start")
    container.start()
    assert container.status == "RUNNING"


def test_failed_pause_leaves_it_running(world):
    container, fake = world.faked()
    container.run()
    fake.fail("pause", "no freezer today")
    with pytest.raises(ttrpc.Error):
        container.pause()
    assert container.status == "RUNNING"
    assert not world.sink.all(container.id, "paused")


def test_state_is_pausing_while_the_runtime_works(world):
    """State has two seconds; pausing may take longer."""
    container, fake = world.faked()
    container.run()
    fake.hold("pause")
    pausing = container.task.send("Pause", id=container.id)
    fake.wait_call("pause")
    state = container.task.do("State", timeout=2, id=container.id)
    assert state.status == pb.PAUSING
    fake.release("pause")
    ttrpc.answer(pausing)
    assert container.status == "PAUSED"


@pytest.mark.machine
def test_state_of_execs_follows_a_paused_init(world):
    container = world.running()
    added = container.exec("e", ["probe", "sleep"])
    added.start()
    container.pause()
    assert added.status == "PAUSED"
    container.resume()
    assert added.status == "RUNNING"


@pytest.mark.machine
def test_state_of_execs_that_do_not_run_beside_a_paused_init(world):
    """Only what runs is frozen; a client deletes no exec that seems to live."""
    container = world.running()
    created = container.exec("created", ["probe", "sleep"])
    stopped = container.exec("stopped", ["probe", "exit", "3"])
    stopped.start()
    stopped.wait()
    container.pause()
    assert (created.status, stopped.status) == ("CREATED", "STOPPED")
    created.delete()
    assert stopped.delete().exit_status == 3
    container.resume()


@pytest.mark.machine
def test_exit_while_paused(world):
    """Killed in the freezer: on cgroup v1 SIGKILL waits for the thaw, unless the OCI runtime
    sees to that."""
    container = world.running()
    container.pause()
    container.kill()
    try:
        container.resume()
    except ttrpc.Error:
        pass  # it is dead already
    assert container.wait().exit_status == 137
    assert container.status == "STOPPED"
