# SPDX-License-Identifier: Apache-2.0
"""The agent dies in the middle of a checkpoint and comes back: what was begun is finished or taken
back, by the journal of the dead one."""
import os
import signal
import time

import pytest

from kyb import cgroups, procs, ttrpc
from kyb.wait import until

from .conftest import group_config
from .test_checkpoint import options, state_of

pytestmark = pytest.mark.criu

RETURN_MAX = 10  # seconds after its return


def send(container, folder, **fields):
    return container.task.send("Checkpoint", id=container.id, path=str(folder),
                               options=options(**fields))


def crash(agent):
    agent.process.kill()
    agent.process.wait()


def come_back(agent, gpu, container):
    """Starts it again; returns when the driver says that all is well. It has so long for it."""
    begun = time.monotonic()
    agent.start()
    until(lambda: not agent.call("Status").operations, RETURN_MAX, "nothing is under way")
    assert time.monotonic() - begun < RETURN_MAX
    assert not os.listdir(agent.dir / "journal")
    assert state_of(gpu, container) == "RUNNING"


@pytest.fixture(name="agent")
def _agent(gworld, start_agent):
    return start_agent(gworld.agent_dir)


# --- it is killed inside a call of the driver: taken back ---

@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
@pytest.mark.parametrize("call", ["lock", "checkpoint"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_before_the_dump(gworld, gpu, agent, call, after, paused):
    container = gworld.running()
    if paused:
        container.pause()
    rule = gpu.fault(call=call, hang=True, after=after)
    dump = send(container, gworld.image())
    gpu.wait_held(rule)
    crash(agent)
    gpu.clear()
    come_back(agent, gpu, container)
    with pytest.raises(ttrpc.Error, match="AGENT_UNAVAILABLE.*restarted"):
        ttrpc.answer(dump, 30)
    assert container.status == ("PAUSED" if paused else "RUNNING")
    if paused:
        assert cgroups.frozen(container.pid)
        container.resume()
    container.workload.goes_on()
    container.checkpoint(gworld.image("again"), options())
    container.workload.goes_on()


# --- it is killed while CRIU dumps: the dump is not lost ---

@pytest.mark.parametrize("when", ["during", "after"])
@pytest.mark.parametrize("exit_", [False, True], ids=["leave", "exit"])
def test_killed_while_criu_dumps(gworld, gpu, start_agent, when, exit_, world):
    agent = start_agent(gworld.agent_dir)
    fake = world.fake_runtime()
    container = gworld.running(options=world.options(binary_name=str(fake.path)))
    fake.hold("checkpoint")
    done = world.dir / "dumped"
    fake.after("checkpoint", f"touch {done}")
    folder = gworld.image()
    dump = send(container, folder, exit=exit_)
    fake.wait_call("checkpoint")
    crash(agent)
    if when == "after":
        fake.release("checkpoint")
        until(done.exists, 20, "the dump is done")
        agent.start()
    else:
        agent.start()
        fake.release("checkpoint")
    ttrpc.answer(dump, 30)
    assert (folder / "kybernate.json").exists()
    if exit_:
        assert container.wait().exit_status == 137
        assert gpu.gpu()["used"] == 0
        container.delete()
    else:
        assert state_of(gpu, container) == "RUNNING"
        assert container.status == "RUNNING"
        container.workload.goes_on()
    until(lambda: not agent.call("Status").operations, 5)
    assert not os.listdir(agent.dir / "journal")


def test_killed_while_a_dump_fails(gworld, gpu, agent, world):
    fake = world.fake_runtime()
    container = gworld.running(options=world.options(binary_name=str(fake.path)))
    fake.hold("checkpoint")
    fake.fail("checkpoint", "no dump today")
    dump = send(container, gworld.image())
    fake.wait_call("checkpoint")
    crash(agent)
    agent.start()
    fake.release("checkpoint")
    with pytest.raises(ttrpc.Error, match="no dump today"):
        ttrpc.answer(dump, 30)
    until(lambda: not agent.call("Status").operations, 10)
    assert state_of(gpu, container) == "RUNNING"
    container.workload.goes_on()


# --- it is killed on the way back: finished ---

@pytest.mark.parametrize("call", ["restore", "unlock"])
def test_killed_on_the_way_back(gworld, gpu, agent, call):
    container = gworld.running()
    rule = gpu.fault(call=call, hang=True)
    folder = gworld.image()
    dump = send(container, folder)
    gpu.wait_held(rule)
    crash(agent)
    gpu.clear()
    come_back(agent, gpu, container)
    ttrpc.answer(dump, 30)
    assert (folder / "kybernate.json").exists()
    container.workload.goes_on()


# --- nobody comes back ---

def test_agent_that_does_not_come_back_in_time(gworld, gpu, start_agent):
    """The call ends in its time; the next agent undoes its half alone."""
    gworld.write_config('[timeouts]\nagent_return = "500ms"\n')
    agent = start_agent(gworld.agent_dir)
    container = gworld.running()
    container.pause()
    rule = gpu.fault(call="checkpoint", hang=True, after=True)
    dump = send(container, gworld.image())
    gpu.wait_held(rule)
    crash(agent)
    gpu.clear()
    with pytest.raises(ttrpc.Error, match="AGENT_UNAVAILABLE"):
        ttrpc.answer(dump, 30)
    assert container.status == "PAUSED"
    assert cgroups.frozen(container.pid)
    assert state_of(gpu, container) == "CHECKPOINTED"
    come_back(agent, gpu, container)
    assert cgroups.frozen(container.pid)
    container.resume()
    container.workload.goes_on()


@pytest.mark.mess
@pytest.mark.parametrize("first", ["shim", "agent"])
def test_both_die(gworld, gpu, agent, first):
    container = gworld.running()
    rule = gpu.fault(call="checkpoint", hang=True, after=True)
    send(container, gworld.image())
    gpu.wait_held(rule)
    shim = container.shim_pid()
    for who in ("shim", "agent") if first == "shim" else ("agent", "shim"):
        if who == "agent":
            crash(agent)
        else:
            os.kill(shim, signal.SIGKILL)
    gpu.clear()
    come_back(agent, gpu, container)
    container.workload.goes_on()


@pytest.mark.mess
def test_shim_dies_while_criu_is_held(gworld, gpu, agent, world):
    """The agent lives: the frozen container is thawed, its GPU memory brought back."""
    fake = world.fake_runtime()
    container = gworld.running(options=world.options(binary_name=str(fake.path)))
    fake.hold("checkpoint")
    send(container, gworld.image())
    fake.wait_call("checkpoint")
    shim = container.shim_pid()
    os.kill(shim, signal.SIGKILL)
    until(lambda: not agent.call("Status").operations, RETURN_MAX, "it is undone")
    assert not cgroups.frozen(container.pid)
    assert state_of(gpu, container) == "RUNNING"
    container.workload.goes_on()
    assert not os.listdir(agent.dir / "journal")


def test_degraded_container_is_remembered(gworld, gpu, start_agent):
    """Its GPU memory could not come back; a new agent goes on trying."""
    agent = start_agent(gworld.agent_dir, more='[timeouts]\nvram_restore = "1s"\nunlock = "1s"\n' +
                        group_config(gpu))
    container = gworld.running()
    gpu.fault(call="restore", code=2)  # of a driver that can be asked again
    dump = send(container, gworld.image())
    with pytest.raises(ttrpc.Error):
        ttrpc.answer(dump, 60)
    assert [o.status for o in agent.call("Status").operations] == [4]
    crash(agent)
    gpu.clear()
    come_back(agent, gpu, container)
    container.workload.goes_on()


@pytest.mark.parametrize("call", ["lock", "checkpoint"])
def test_killed_while_it_suspends(gworld, gpu, agent, call):
    """The shim undoes its half at once, the next agent the driver's."""
    container = gworld.running(annotations={"kybernate.io/pause": "suspend"})
    rule = gpu.fault(call=call, hang=True, after=True)
    pause = container.task.send("Pause", id=container.id)
    gpu.wait_held(rule)
    crash(agent)
    gpu.clear()
    with pytest.raises(ttrpc.Error, match="AGENT_UNAVAILABLE"):
        ttrpc.answer(pause, 30)
    come_back(agent, gpu, container)
    assert container.status == "RUNNING"
    container.workload.goes_on()
    container.pause()
    assert gpu.gpu()["used"] == 0
    container.resume()
    container.workload.goes_on()
