# SPDX-License-Identifier: Apache-2.0
"""Phase x fault: whatever happens in the middle of whatever, the workload survives."""
import os
import time

import pytest

from gpu.conftest import COUNTER, group_config
from kyb import procs
from kyb.wait import until

from .stage import AGENT, SHIM, Stage

pytestmark = pytest.mark.criu

RECOVERY_MAX = 10  # seconds


class Row:
    """One row. ends: the call may succeed, must fail, ...: None = either."""

    def __init__(self, what, phase, fault, quick=False):
        self.what, self.phase, self.fault, self.quick = what, phase, fault, quick

    def __str__(self):
        return f"{self.what}-{self.phase}-{self.fault}"


def rows():
    everywhere = ("nothing", "agent_killed", "agent_restarted", "agent_stopped", "worker_killed",
                  "worker_stopped", "shim_killed", "both_killed", "container_killed", "client_gone")
    quick = {("lock", "agent_killed"), ("vram_save", "shim_killed"), ("criu", "agent_killed"),
             ("criu", "criu_killed"), ("criu", "hangs"), ("runtime", "both_killed"),
             ("vram_restore", "worker_killed"), ("seal", "agent_killed"),
             ("unlock", "container_killed"), ("lock", "new_process"), ("exit", "agent_killed")}
    dump = ("quiesce", "lock", "vram_save", "runtime", "criu")
    found = [("leave", phase, fault) for phase in (*dump, "vram_restore", "unlock", "seal")
             for fault in everywhere]
    found += [("leave", phase, "hangs") for phase in ("lock", "vram_save", "runtime", "criu",
                                                      "vram_restore", "unlock")]
    found += [("leave", "runtime", "runtime_killed"), ("leave", "criu", "runtime_killed"),
              ("leave", "criu", "criu_killed")]
    found += [("leave", phase, "new_process") for phase in ("lock", "vram_save", "runtime")]
    found += [("leave", phase, "second_call") for phase in ("lock", "criu", "seal")]
    found += [("exit", phase, fault) for phase in ("vram_save", "criu", "seal", "exit")
              for fault in ("nothing", "agent_killed", "agent_restarted", "agent_stopped",
                            "shim_killed", "both_killed", "container_killed", "client_gone")]
    found += [("restore", phase, fault) for phase in ("verify", "runtime", "criu", "vram_restore",
                                                      "unlock")
              for fault in ("nothing", "agent_killed", "agent_restarted", "agent_stopped",
                            "worker_killed", "shim_killed", "container_killed", "client_gone")]
    found += [("restore", "runtime", "runtime_killed"), ("restore", "criu", "runtime_killed"),
              ("restore", "criu", "criu_killed"), ("restore", "criu", "hangs"),
              ("restore", "vram_restore", "hangs")]
    return [Row(*one, quick=one[1:] in quick and one[0] != "restore" or
                one in (("restore", "vram_restore", "agent_killed"), ("restore", "criu", "hangs")))
            for one in found]


@pytest.fixture(name="stage")
def _stage(gworld, gpu, start_agent, row):
    gworld.write_config(SHIM)
    agent = start_agent(gworld.agent_dir, more=AGENT + group_config(gpu))
    return Stage(gworld, gpu, agent, row.what)


def end_by_force(stage):
    """What containerd does about a shim that has died."""
    container = stage.container
    container.delete_program()
    until(lambda: not procs.alive(container.pid), 10, "the container ends")
    forget(container)


def forget(container):
    """A dead shim's socket is the next one's to replace."""
    container.task.close()
    container.task = None
    container.world.addresses.discard(container.address)
    os.unlink(container.address.removeprefix("unix://"))
    container.address = None


def check_survival(stage):
    """Returns what became of it, in words."""
    container = stage.container
    if stage.what == "restore" and (stage.error or stage.killed or stage.shim_dead):
        # Nothing half restored; and the checkpoint is as good as ever.
        if stage.shim_dead:
            end_by_force(stage)
            stage.shim_dead = False
        elif stage.error:
            until(lambda: stage.gpu.gpu()["used"] == 0, 10, "nothing half restored stays")
        stage.gpu.clear()
        stage.new_life()
        stage.container.start()
        stage.computes()
        return f"refused ({stage.reason()}); restored again" if stage.error else \
            "ended; restored again"
    if stage.killed:
        if not stage.shim_dead:
            assert container.wait(20).exit_status == 137
        return "ended as asked"
    if stage.what == "exit" and (stage.folder / "kybernate.json").exists() and \
            not procs.alive(container.pid):
        if stage.shim_dead:
            end_by_force(stage)
            stage.shim_dead = False
        else:
            container.delete()
        stage.new_life()
        stage.container.start()
        stage.computes()
        return "sealed, ended; restored"
    if not stage.shim_dead:
        until(lambda: container.status == "RUNNING", 10, "it runs")
        stage.find_pid()
    stage.computes()
    # None: the driver has never been asked.
    assert stage.gpu.processes()[container.pid]["state"] in (None, "RUNNING")
    if stage.error:
        return f"undone ({stage.reason()}); computes on"
    assert (stage.folder / "kybernate.json").exists() or stage.shim_dead
    return "checkpointed; computes on"


@pytest.mark.parametrize("row", rows(), ids=str)
def test_survives(stage, row, record_property, request):
    result = [row.what, row.phase, row.fault, 99.0, "not survived"]
    record_property("row", result)
    # Enough to hash that the hashing is seen.
    stage.prepare([*COUNTER, "--vram", "64M"] if row.phase in ("seal", "verify") else None)
    if row.fault == "new_process":
        late = stage.container.exec("late", ["gpu-counter", "--init-signal", "--vram", "4M",
                                             "--interval", "50", "--status", "/var/late"])
        late.start()
        from gpu.conftest import Workload  # pylint: disable=import-outside-toplevel
        late.workload = Workload(stage.container.rootfs / "var/late")
        stage.more.append(late)
    stage.at(row.phase)
    stage.strike(row.fault)
    stage.release()
    stage.mend(row.fault)
    if not (row.fault == "client_gone" or stage.call.done() and stage.error):
        stage.answer()
    until(stage.settled, 30, "the agent has nothing left to do")
    result[4] = check_survival(stage)
    result[3] = time.monotonic() - stage.mended
    if row.fault in ("nothing", "second_call", "client_gone"):
        assert not stage.error
    if stage.error:
        assert stage.reason(), f"an error without a reason: {stage.error}"
    until(lambda: not stage.leftovers(), 5, "nothing is left over")
    until(lambda: stage.count_fds() <= stage.agent_fds + 1 or
          row.fault in ("agent_killed", "agent_restarted", "both_killed"), 35,
          "the agent has closed what it opened")
    assert result[3] < RECOVERY_MAX
    if stage.shim_dead:
        end_by_force(stage)
