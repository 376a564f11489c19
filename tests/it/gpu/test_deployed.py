# SPDX-License-Identifier: Apache-2.0
"""The agent with no more rights than deploy/ gives it: a checkpoint with exit, and a restore."""
import os
import re
import shutil

import pytest

from kyb import env

pytestmark = [
    pytest.mark.criu,
    pytest.mark.skipif(not shutil.which("setpriv"), reason="no setpriv"),
]

UNIT = (env.REPO / "deploy/systemd/kybernate-agent.service.in").read_text()


def confined():
    """The unit's capabilities, no_new_privs, no network."""
    names = re.search(r"^CapabilityBoundingSet=(.*)$", UNIT, re.M)[1].lower().split()
    kept = ",".join("+" + name.removeprefix("cap_") for name in names)
    return ["unshare", "--net", "setpriv", f"--bounding-set=-all,{kept}", "--inh-caps=-all",
            "--no-new-privs"]


def contained():
    """As the DaemonSet: in a control group namespace of its own, which it leaves with these rights.
    For the host's first process stands the test."""
    return ["unshare", "--cgroup", *confined(), "nsenter", f"--cgroup=/proc/{os.getpid()}/ns/cgroup",
            "--"]


@pytest.mark.parametrize("prefix", [confined(), contained()], ids=["unit", "daemonset"])
def test_with_the_rights_of(gnode, prefix):
    gnode.agent.stop()
    gnode.start(prefix=prefix)
    first = gnode.running()
    outcome = gnode.checkpoint(first, "kept", leave=True)
    assert outcome.ok, outcome
    first.workload.goes_on()
    outcome = gnode.checkpoint(first, "ck")
    assert outcome.ok, outcome
    assert gnode.ended(first) == 137
    second = gnode.new_life("ck")
    second.run()
    gnode.watch(second).goes_on()
    assert gnode.agent.call("Doctor").checks
    gnode.agent.call("DeleteCheckpoint", checkpoint_ref="kept")
    assert gnode.agent.refs() == ["ck"]
