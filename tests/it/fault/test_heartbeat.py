# SPDX-License-Identifier: Apache-2.0
"""A CUDA worker that hangs while nobody asks it for anything is found out, and replaced."""
import os
import signal

from gpu.conftest import group_config
from kyb import procs
from kyb.wait import until

ALARM = 60  # seconds; it is asked every 5, and given 30 (pkg/gpu/worker.h)


def test_a_worker_without_a_heartbeat(gpu, start_agent, tmp_path):
    agent = start_agent(tmp_path / "a", more=group_config(gpu))
    old = agent.call("Status").worker_pid
    os.kill(old, signal.SIGSTOP)

    def replaced():
        status = agent.call("Status")
        return status.driver_ok and status.worker_pid not in (0, old)
    until(replaced, ALARM, "another worker")
    assert not procs.alive(old)
