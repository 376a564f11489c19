# SPDX-License-Identifier: Apache-2.0
"""kybernate.io/on-stop: checkpoint. The SIGTERM that stops a pod becomes a checkpoint with exit;
what cannot be checkpointed is stopped by its signal, as always."""
import signal
import time

import pytest

from kyb.wait import until

pytestmark = pytest.mark.criu

ON_STOP = {"kybernate.io/on-stop": "checkpoint"}


def test_stopped_by_a_checkpoint(gnode):
    """One exit, a sealed checkpoint that says where it is from, and a next life."""
    first = gnode.running(annotations=ON_STOP)
    step = first.workload.step
    before = time.monotonic()
    first.kill(signal.SIGTERM)
    assert time.monotonic() - before < 5  # who counts a grace period counts from here
    assert first.wait().exit_status == 137
    (ref,) = gnode.agent.refs()
    assert ref.startswith(first.id + "-")
    info = gnode.agent.call("GetCheckpoint", checkpoint_ref=ref, verify=True).checkpoint
    assert info.container_id == first.id and info.vram_bytes > 0
    first.delete()
    assert gnode.gpu.gpu()["used"] == 0
    second = gnode.new_life(ref)
    second.run()
    workload = gnode.watch(second)
    assert workload.step >= step
    workload.goes_on()


def test_stopped_while_suspended(gnode):
    first = gnode.running(annotations={**ON_STOP, "kybernate.io/pause": "suspend"})
    first.pause()
    first.kill(signal.SIGTERM)
    assert first.wait().exit_status == 137
    (ref,) = gnode.agent.refs()
    outcome, second = gnode.clone(ref)
    assert outcome.ok, outcome
    gnode.watch(second).goes_on()


@pytest.mark.parametrize("call", ["lock", "checkpoint"])
def test_falls_back_to_the_signal(gnode, call):
    container = gnode.running(annotations=ON_STOP)
    gnode.gpu.fault(call=call, code=801)
    container.kill(signal.SIGTERM)
    assert container.wait().exit_status == 143
    assert gnode.agent.refs() == []


def test_without_agent(gnode):
    container = gnode.running(annotations=ON_STOP)
    gnode.agent.stop()
    container.kill(signal.SIGTERM)
    assert container.wait().exit_status == 143


def test_its_time_is_over(gnode):
    """A kernel that does not end; the checkpoint gives up in time, and the signal comes."""
    gnode.write_shim_config('[timeouts]\nstop = "1s"\n')
    try:
        container = gnode.running(annotations=ON_STOP)
        rule = gnode.gpu.fault(call="lock", hang=True)
        before = time.monotonic()
        container.kill(signal.SIGTERM)
        gnode.gpu.wait_held(rule)
        assert container.wait().exit_status == 143
        assert time.monotonic() - before < 20
        gnode.gpu.release(rule)
    finally:
        gnode.write_shim_config()


def test_killed_before_it_is_done(gnode):
    """The grace period is over: SIGKILL gets through, whatever is under way."""
    container = gnode.running(annotations=ON_STOP)
    rule = gnode.gpu.fault(call="checkpoint", hang=True)
    container.kill(signal.SIGTERM)
    gnode.gpu.wait_held(rule)
    container.kill(signal.SIGKILL)
    assert container.wait().exit_status == 137
    gnode.gpu.release(rule)
    until(lambda: not gnode.agent.call("Status").operations, 20, "the operation ends")
    container.delete()
    assert gnode.agent.refs() == []


def test_a_second_signal_is_delivered(gnode):
    container = gnode.running(annotations=ON_STOP)
    rule = gnode.gpu.fault(call="lock", hang=True)
    container.kill(signal.SIGTERM)
    gnode.gpu.wait_held(rule)
    container.kill(signal.SIGTERM)
    assert container.wait().exit_status == 143
    gnode.gpu.release(rule)


def test_other_signals_and_pods(gnode):
    """Only SIGTERM, and only where the pod asks for it."""
    container = gnode.running()
    container.kill(signal.SIGTERM)
    assert container.wait().exit_status == 143
    container = gnode.running(annotations=ON_STOP)
    container.kill(signal.SIGKILL)
    assert container.wait().exit_status == 137
    assert gnode.agent.refs() == []
