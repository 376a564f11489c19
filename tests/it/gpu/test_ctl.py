# SPDX-License-Identifier: Apache-2.0
"""kybernatectl with a real agent, containerd and CRIU behind it. What it makes of every answer is
asked in tests/ctl, of an agent that is played."""
import json
import subprocess

import pytest

from kyb import env

pytestmark = [
    pytest.mark.criu,
    pytest.mark.skipif(not env.which("kybernatectl"), reason="no kybernatectl"),
]


@pytest.fixture
def ctl(gnode):
    """ctl(WORD...): the CompletedProcess; its status is `status`."""
    def call(*words, status=0):
        done = subprocess.run(
            [env.which("kybernatectl"), "--socket", str(gnode.agent.socket), *words],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=env.seconds(60))
        assert done.returncode == status, f"{words}: {done}"
        return done
    return call


def test_a_life(gnode, ctl):
    """Checkpointed, looked at, restored, deleted."""
    here = ("--namespace", gnode.node.namespace)
    container = gnode.running()
    found = json.loads(ctl("doctor", *here, container.id, "-o", "json").stdout)
    assert {c["name"]: c["ok"] for c in found["checks"]}["CUDA"]
    ctl("checkpoint", *here, "--ref", "running", container.id)
    container.workload.goes_on()
    done = ctl("checkpoint", *here, "--ref", "last", "--exit", container.id)
    for phase in ("lock", "vram_save", "criu_dump", "seal", "exit"):
        assert phase in done.stdout + done.stderr
    assert gnode.ended(container) == 137
    assert sorted(ctl("list", "--quiet").stdout.split()) == ["last", "running"]
    about = json.loads(ctl("inspect", "--verify", "-o", "json", "last").stdout)
    assert about["verified"] and about["metadata"]["container"]["id"] == container.id
    again = ctl("restore", "--id", gnode.node.new_id(), "--quiet", "last").stdout.strip()
    second = gnode.adopt(again)
    gnode.watch(second).goes_on()
    ctl("delete", "running", "last")
    assert ctl("list", "--quiet").stdout == ""
    ctl("restore", "last", status=4)


def test_suspended_and_resumed(gnode, ctl):
    here = ("--namespace", gnode.node.namespace)
    container = gnode.running()
    ctl("suspend", *here, container.id)
    assert container.status == "PAUSED"
    assert gnode.gpu.gpu()["used"] == 0
    ctl("resume", *here, container.id)
    assert container.status == "RUNNING"
    container.workload.goes_on()


def test_a_failure(gnode, ctl):
    """Status and words say why, and it computes on."""
    container = gnode.running()
    gnode.gpu.fault(call="lock", code=801)
    done = ctl("checkpoint", "--namespace", gnode.node.namespace, "--ref", "no", container.id,
               status=1)
    assert "CUDA_LOCK_FAILED" in done.stderr
    assert ctl("list", "--quiet").stdout == ""
    container.workload.goes_on()
