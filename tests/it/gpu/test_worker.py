# SPDX-License-Identifier: Apache-2.0
"""The CUDA worker dies, or hangs in the driver: it is replaced, states are read again, and the
container computes on."""
import os
import signal
import time

import pytest

from gpu.conftest import COUNTER
from kyb import cgroups, ttrpc
from kyb.wait import until

SUSPEND = {"kybernate.io/pause": "suspend"}


@pytest.fixture
def suspending(gworld, start_agent):
    """(agent, container that computes and whose pod asks for suspend)."""
    agent = start_agent(gworld.agent_dir)
    return agent, gworld.running(annotations=SUSPEND)


def worker_of(agent):
    return agent.call("Status").worker_pid


def next_worker(agent, old):
    def ready():
        status = agent.call("Status")
        return status.driver_ok and status.worker_pid not in (0, old) and status.worker_pid
    return until(ready, 20, "a new worker is ready")


@pytest.mark.parametrize("call", ["get_restore_tid", "get_state", "lock", "checkpoint"])
@pytest.mark.parametrize("how", ["killed", "crash"])
def test_worker_dies_on_the_way_there(suspending, gpu, call, how):
    agent, container = suspending
    old = worker_of(agent)
    if how == "crash":
        gpu.fault(call=call, pid=container.pid, crash=True, count=1)
        why = attempt(container.pause)
    else:
        rule = gpu.fault(call=call, pid=container.pid, hang=True, count=1)
        pause = container.task.send("Pause", id=container.id)
        gpu.wait_held(rule)
        os.kill(old, signal.SIGKILL)
        why = attempt(lambda: ttrpc.answer(pause, 40))
        gpu.release(rule)
    assert why is None or "WORKER_FAILED" in why or "CUDA_" in why, why
    assert next_worker(agent, old)
    if why is None:
        assert container.status == "PAUSED"
        container.resume()
    assert container.status == "RUNNING"
    container.workload.goes_on()
    gpu.clear()
    container.pause()
    assert gpu.gpu()["used"] == 0
    container.resume()
    container.workload.goes_on()


@pytest.mark.parametrize("outlives", [0, 1])
def test_worker_dies_while_lock_waits_for_a_kernel(gworld, gpu, start_agent, outlives):
    """A real driver was seen to take back such a lock, and to leave the process locked."""
    gpu.set("lock_outlives", outlives)
    agent = start_agent(gworld.agent_dir)
    container = gworld.running([*COUNTER, "--kernel-ms", "1500"], annotations=SUSPEND)
    old, step = worker_of(agent), container.workload.step
    until(lambda: container.workload.step > step, 10, "another step")
    time.sleep(0.4)  # the pause between steps is over
    pause = container.task.send("Pause", id=container.id)
    until(lambda: any(c.get("execute") and not c.get("end") for c in gpu.log(call="lock")), 10,
          "the lock waits")
    os.kill(old, signal.SIGKILL)
    why = attempt(lambda: ttrpc.answer(pause, 40))
    assert next_worker(agent, old)
    if why is None:
        container.resume()
    else:
        assert "WORKER_FAILED" in why or "CUDA_" in why, why
    assert container.status == "RUNNING"
    container.workload.goes_on()
    assert gpu.processes()[container.pid]["state"] == "RUNNING"


@pytest.mark.parametrize("call", ["restore", "unlock"])
def test_worker_dies_on_the_way_back(suspending, gpu, call):
    agent, container = suspending
    container.pause()
    old = worker_of(agent)
    gpu.fault(call=call, pid=container.pid, crash=True, count=1)
    why = attempt(container.resume)
    gpu.clear()
    assert next_worker(agent, old)
    if why is not None:
        assert container.status == "PAUSED"
        assert cgroups.frozen(container.pid)
        container.resume()
    container.workload.goes_on()


def test_worker_that_hangs(suspending, gpu):
    """Not back by its deadline: replaced, and the lock taken back."""
    agent, container = suspending
    agent.stop()
    agent.config.write_text(agent.config.read_text() + '\n[timeouts]\nvram_save = "1s"\n')
    agent.start()
    old = worker_of(agent)
    rule = gpu.fault(call="checkpoint", pid=container.pid, hang=True, count=1)
    before = time.monotonic()
    why = attempt(container.pause)
    assert why is not None and ("TIMEOUT" in why or "WORKER_FAILED" in why), why
    assert time.monotonic() - before < 30
    gpu.release(rule)
    assert next_worker(agent, old)
    assert container.status == "RUNNING"
    container.workload.goes_on()


def test_next_worker_is_waited_for(suspending, gpu):
    """Whatever begins in the moment between two workers."""
    agent, container = suspending
    for verb in (container.pause, container.resume) * 2:
        # Twice in a row it takes longer each time: 100, 200 ms, ...
        os.kill(worker_of(agent), signal.SIGKILL)
        until(lambda: not agent.call("Status").driver_ok, 10, "the worker is gone")
        verb()
        assert agent.call("Status").driver_ok
    container.workload.goes_on()
    assert gpu.gpu()["used"] > 0


def test_worker_killed_at_rest(suspending, gpu):
    """Replaced without any call being open."""
    agent, container = suspending
    old = worker_of(agent)
    os.kill(old, signal.SIGKILL)
    assert next_worker(agent, old)
    container.pause()
    assert gpu.gpu()["used"] == 0
    container.resume()
    container.workload.goes_on()


def attempt(verb):
    """None, or what it said."""
    try:
        verb()
    except ttrpc.Error as e:
        return e.message
    return None
