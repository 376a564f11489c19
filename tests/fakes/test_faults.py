# SPDX-License-Identifier: Apache-2.0
"""fakegpuctl: the driver fails, is slow, hangs, kills, lies."""

import json
import subprocess
import time

import pytest

from fakegpu import Caller, FakeGpuError, Shell, wait_for

CALLS = {"lock": "RUNNING", "checkpoint": "LOCKED", "restore": "CHECKPOINTED", "unlock": "LOCKED"}
MIB = 1 << 20


def bring_to(caller, pid, state):
    path = {"RUNNING": [], "LOCKED": ["lock"], "CHECKPOINTED": ["lock", "checkpoint"]}
    for call in path[state]:
        assert caller.call(call, pid).name == "SUCCESS"


@pytest.mark.parametrize("call,state", CALLS.items())
def test_a_code_instead(gpu, caller, call, state):
    t = Shell(gpu, "init", "alloc 4")
    bring_to(caller, t.pid, state)
    rule = gpu.fault(call, code=999, count=2)
    assert caller.call(call, t.pid).name == "UNKNOWN"
    assert caller.call(call, t.pid).name == "UNKNOWN"
    assert caller.state(t.pid) == state  # nothing was done
    assert caller.call(call, t.pid).name == "SUCCESS"
    first, *_, last = gpu.log(call=call, pid=t.pid)[-3:]
    assert (first["code"], first["real_code"], first["rule"]) == (999, None, rule)
    assert (last["code"], last["real_code"], last["rule"]) == (0, 0, 0)


@pytest.mark.parametrize("call,state", CALLS.items())
def test_a_code_afterwards(gpu, caller, call, state):
    t = Shell(gpu, "init", "alloc 4")
    bring_to(caller, t.pid, state)
    gpu.fault(call, code=999, count=1, after=True)
    assert caller.call(call, t.pid).name == "UNKNOWN"
    assert caller.state(t.pid) != state  # it was done
    assert gpu.log(call=call, pid=t.pid)[-1]["real_code"] == 0


@pytest.mark.parametrize("call,state", CALLS.items())
def test_success_and_nothing_done(gpu, caller, call, state):
    t = Shell(gpu, "init", "alloc 4")
    bring_to(caller, t.pid, state)
    gpu.fault(call, lie="noop", count=1)
    assert caller.call(call, t.pid).name == "SUCCESS"
    assert caller.state(t.pid) == state


def test_a_delay(gpu, caller):
    t = Shell(gpu, "init", "alloc 4")
    gpu.fault("lock", delay_ms=300, count=1)
    assert caller.call("lock", t.pid).ms >= 300
    gpu.fault("unlock", delay_ms=300, after=True, count=1)
    caller.begin("unlock", t.pid)
    time.sleep(0.1)
    assert Caller(gpu).state(t.pid) == "RUNNING"  # done long ago, told late
    assert caller.end().ms >= 300


def test_a_hang_and_its_release(gpu, caller):
    t = Shell(gpu, "init", "alloc 4")
    rule = gpu.fault("lock", hang=True, count=1)
    caller.begin("lock", t.pid)
    gpu.wait_held(rule)
    assert Caller(gpu).state(t.pid) == "RUNNING"
    assert gpu.release(rule) == 1
    assert caller.end().name == "SUCCESS"
    assert caller.state(t.pid) == "LOCKED"


def test_a_hang_whose_caller_dies(gpu, caller):
    t = Shell(gpu, "init", "alloc 4")
    before = gpu.fault("lock", hang=True, count=1)
    caller.begin("lock", t.pid)
    gpu.wait_held(before)
    caller.kill()
    wait_for(lambda: gpu.held(before) == 0, 5)
    assert gpu.log(call="lock")[-1]["how"] == "abandoned"
    assert caller.state(t.pid) == "RUNNING"
    # Done, but the worker dies before it learns of it: the state stays.
    assert caller.call("lock", t.pid).name == "SUCCESS"
    after = gpu.fault("checkpoint", hang=True, after=True, count=1)
    caller.begin("checkpoint", t.pid)
    gpu.wait_held(after)
    caller.kill()
    assert caller.state(t.pid) == "CHECKPOINTED"


@pytest.mark.parametrize("outlives", [0, 1])
def test_a_lock_whose_caller_dies_while_a_kernel_runs(gpu, caller, outlives):
    """A real driver was seen to do either: take it back, or leave the process locked."""
    gpu.set("lock_outlives", outlives)
    t = Shell(gpu, "init", "alloc 4", "kernel 600")
    other = Caller(gpu)
    other.begin("lock", t.pid)
    wait_for(lambda: gpu.log(call="lock") and gpu.log(call="lock")[-1].get("execute"), 5)
    other.kill()
    # Asked while the lock still waits; answered when it is through.
    assert caller.state(t.pid) == ("LOCKED" if outlives else "RUNNING")
    if not outlives:
        assert caller.call("lock", t.pid).name == "SUCCESS"
    assert caller.call("unlock", t.pid).name == "SUCCESS"
    assert t.do("check") == "0"


def test_the_caller_crashes(gpu, caller):
    t = Shell(gpu, "init", "alloc 4")
    gpu.fault("lock", crash=True, count=1)
    assert caller.call("lock", t.pid).name == "CRASHED"
    assert caller.state(t.pid) == "RUNNING"
    gpu.fault("lock", crash=True, after=True, count=1)
    assert caller.call("lock", t.pid).name == "CRASHED"
    assert caller.state(t.pid) == "LOCKED"
    assert [c["how"] for c in gpu.log(call="lock")] == ["crashed", "crashed"]
    gpu.fault("cuInit", crash=True, count=1)
    assert Caller(gpu, init=False).call("init").name == "CRASHED"


def test_the_target_is_shot(gpu, caller):
    """As NVIDIA/cuda-checkpoint issue 58: Lock delivers SIGSEGV to its target."""
    t = Shell(gpu, "init", "alloc 4")
    gpu.fault("lock", target_signal=11, count=1)
    assert caller.call("lock", t.pid).name == "OPERATING_SYSTEM"
    assert t.child.wait(5) == -11
    wait_for(lambda: gpu.gpu()["used"] == 0, 5)


def test_one_of_several(gpu, caller):
    a, b = Shell(gpu, "init", "alloc 4"), Shell(gpu, "init", "alloc 4")
    gpu.fault("lock", pid=b.pid, code=600)
    assert caller.call("lock", a.pid).name == "SUCCESS"
    assert caller.call("lock", b.pid).name == "NOT_READY"
    gpu.clear()
    assert caller.call("lock", b.pid).name == "SUCCESS"


def test_the_second_of_several(gpu, caller):
    shells = [Shell(gpu, "init", "alloc 4") for _ in range(3)]
    gpu.fault("checkpoint", skip=1, count=1, code=2)
    for s in shells:
        assert caller.call("lock", s.pid).name == "SUCCESS"
    assert [caller.call("checkpoint", s.pid).name for s in shells] == [
        "SUCCESS", "OUT_OF_MEMORY", "SUCCESS"]


def test_any_call(gpu, caller):
    t = Shell(gpu, "init", "alloc 4")
    gpu.fault("any", code=304)
    for call in ("tid", "state", "lock", "checkpoint", "restore", "unlock"):
        assert caller.call(call, t.pid).name == "OPERATING_SYSTEM"
    assert caller.call("count").name == "OPERATING_SYSTEM"


def test_a_wrong_state_is_told(gpu, caller):
    t = Shell(gpu, "init", "alloc 4")
    gpu.fault("get_state", value=2)
    assert caller.state(t.pid) == "CHECKPOINTED"
    gpu.clear()
    gpu.fault("get_state", value=3)
    assert caller.state(t.pid) == "FAILED"
    gpu.fault("get_restore_tid", value=1)
    assert caller.call("tid", t.pid).value == 1


def test_the_connection_is_kept(gpu, caller, counter):
    c = counter("--vram", "4M")
    gpu.fault("checkpoint", lie="keep-connection", count=1)
    bring_to(caller, c.pid, "CHECKPOINTED")
    assert caller.state(c.pid) == "CHECKPOINTED"
    assert gpu.processes()[c.pid]["connected"]
    assert gpu.vram_of(c.pid) > 4 * MIB
    c.stands_still()
    for call in ("restore", "unlock"):
        assert caller.call(call, c.pid).name == "SUCCESS"
    c.passes()


def test_half_of_it_is_restored(gpu, caller, counter):
    c = counter("--vram", "4M")
    gpu.fault("restore", lie="half-restore", count=1)
    bring_to(caller, c.pid, "CHECKPOINTED")
    for call in ("restore", "unlock"):
        assert caller.call(call, c.pid).name == "SUCCESS"
    assert c.child.wait(10) == 3
    assert "MISMATCH" in c.text()


def test_onto_the_wrong_device(gpu, caller, counter):
    c = counter("--vram", "4M")
    gpu.fault("restore", lie="wrong-device", count=1)
    bring_to(caller, c.pid, "CHECKPOINTED")
    for call in ("restore", "unlock"):
        assert caller.call(call, c.pid).name == "SUCCESS"
    assert gpu.gpu(0)["used"] == 0 and gpu.gpu(1)["used"] > 4 * MIB
    c.passes()


def test_a_lock_that_was_not_taken_shows(gpu, caller, counter):
    """The wrong order breaks: saved without a lock, dumped without a save."""
    c = counter("--vram", "4M")
    gpu.fault("lock", lie="noop", count=1)
    assert caller.call("lock", c.pid).name == "SUCCESS"
    assert caller.call("checkpoint", c.pid).name == "ILLEGAL_STATE"
    c.passes()


def test_reset(gpu, caller):
    t = Shell(gpu, "init", "alloc 4")
    gpu.fault("lock", hang=True)
    gpu.set("cuinit_ms", 50)
    gpu.reserve(100 * MIB)
    caller.begin("lock", t.pid)
    wait_for(lambda: gpu.ctl("faults")["faults"][0]["held"] == 1, 5)
    gpu.reset()
    assert caller.end().name == "SUCCESS"
    assert gpu.ctl("faults")["faults"] == []
    assert gpu.setting("cuinit_ms") == 0
    assert gpu.gpu()["reserved"] == 0
    assert [c["call"] for c in gpu.log()] == []


@pytest.mark.parametrize("request_", [
    {"call": "nothing"}, {"call": "lock", "lie": "half-restore"}, {"call": "lock", "lie": "x"},
    {"call": "lock", "code": "x"}, {"call": "restore", "lie": "half-restore", "after": True}])
def test_bad_rules_are_refused(gpu, request_):
    with pytest.raises(FakeGpuError):
        gpu.fault(**request_)
    assert gpu.ctl("faults")["faults"] == []


@pytest.mark.parametrize("words", [["nonsense"], ["set", "name=none", "value=1"],
                                   ["set", "name=persistence", "value=2"],
                                   ["reserve", "gpu=7", "bytes=1"], ["log", "call=x"]])
def test_bad_requests_are_refused(gpu, words):
    p = subprocess.run([gpu.bin / "fakegpuctl", "--socket", gpu.socket, *words],
                       capture_output=True, text=True, check=False, timeout=10)
    assert p.returncode == 1
    assert "error" in json.loads(p.stdout)


@pytest.mark.parametrize("words", [[], ["status", "x"], ["--nonsense"]])
def test_usage(gpu, words):
    p = subprocess.run([gpu.bin / "fakegpuctl", *words], capture_output=True, text=True,
                       check=False, timeout=10)
    assert p.returncode == 2
