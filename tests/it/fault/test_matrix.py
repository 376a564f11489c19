# SPDX-License-Identifier: Apache-2.0
"""Phase x fault: whatever happens in the middle of whatever, the workload survives."""
import time

import pytest

from gpu.conftest import COUNTER, group_config
from kyb import agent as agents
from kyb import env
from kyb.clock import Clock
from kyb.wait import until

from . import execs, memory
from .stage import AGENT, SHIM, Stage
from .stage_node import NodeStage
from .stage_pause import PauseStage

pytestmark = pytest.mark.criu

RECOVERY_MAX = 10  # seconds


# These, and the checkpoints in rows(), are run each time; the others with --faults full.
QUICK = (("restore", "vram_restore", "agent_killed"), ("restore", "criu", "hangs"),
         ("suspend", "vram_save", "agent_killed"), ("suspend", "freeze", "shim_killed"),
         ("resume", "vram_restore", "both_killed"), ("resume", "thaw", "agent_killed"),
         ("suspend", "vram_save", "containerd_killed"), ("stop", "runtime", "dump_fails"),
         ("exit", "lock", "new_process"), ("leave", "vram_save", "journal_cut"),
         ("suspend", "vram_save", "journal_changed"), ("exit", "criu", "journal_gone"),
         ("leave", "runtime", "exec_begins"), ("leave", "criu", "exec_runs"),
         ("stop", "vram_save", "agent_killed"), ("stop", "criu", "containerd_killed"),
         ("leave", "criu", "clock_jumps"), ("restore", "vram_restore", "clock_jumps"),
         ("suspend", "vram_save", "clock_jumps"), ("leave", "vram_save", "oom_kill"),
         ("leave", "criu", "oom_kill"), ("leave", "runtime", "gpu_taken"),
         ("leave", "vram_save", "container_exits"), ("leave", "vram_save", "lies"),
         ("restore", "vram_restore", "lies"), ("resume", "vram_restore", "lies"),
         ("stop", "vram_save", "lies"))


class Row:
    """One row. ends: the call may succeed, must fail, ...: None = either."""

    def __init__(self, what, phase, fault, quick=False):
        self.what, self.phase, self.fault, self.quick = what, phase, fault, quick
        self.node = what == "stop" or fault.startswith("containerd")  # it takes a containerd

    def __str__(self):
        return f"{self.what}-{self.phase}-{self.fault}"


def pause_rows(everywhere):
    """Pause-to-RAM and back."""
    found = [("suspend", phase, fault) for phase in ("quiesce", "lock", "vram_save", "freeze")
             for fault in everywhere]
    found += [("suspend", phase, "hangs") for phase in ("lock", "vram_save")]
    found += [("suspend", phase, "new_process") for phase in ("lock", "vram_save", "freeze")]
    found += [("resume", phase, fault) for phase in ("thaw", "vram_restore", "unlock")
              for fault in everywhere]
    found += [("resume", phase, "hangs") for phase in ("vram_restore", "unlock")]
    found += [("resume", phase, "new_process") for phase in ("vram_restore", "unlock")]
    found += [(what, phase, fault) for what, phase in (
        ("suspend", "lock"), ("suspend", "vram_save"), ("resume", "vram_restore"),
        ("resume", "unlock")) for fault in ("containerd_killed", "containerd_restarted")]
    return found


def stop_rows():
    """The checkpoint in place of a SIGTERM."""
    found = [("stop", phase, fault) for phase in ("lock", "vram_save", "runtime", "criu", "seal",
                                                  "exit")
             for fault in ("nothing", "agent_killed", "agent_restarted", "agent_stopped",
                           "worker_killed", "worker_stopped", "shim_killed", "both_killed",
                           "container_killed", "containerd_killed", "containerd_restarted")]
    found += [("stop", phase, "hangs") for phase in ("lock", "vram_save", "runtime", "criu")]
    found += [("stop", phase, "new_process") for phase in ("lock", "vram_save", "runtime")]
    return found + [("stop", "runtime", "dump_fails"), ("stop", "criu", "criu_killed")]


def clock_rows():
    """The wall clock jumps by hours; nothing may hang on it."""
    phases = {"leave": ("quiesce", "lock", "vram_save", "runtime", "criu", "vram_restore",
                        "unlock", "seal"),
              "exit": ("seal", "exit"), "restore": ("verify", "criu", "vram_restore", "unlock"),
              "suspend": ("vram_save", "freeze"), "resume": ("thaw", "vram_restore"),
              "stop": ("lock", "criu", "seal")}
    return [(what, phase, "clock_jumps") for what, some in phases.items() for phase in some]


def memory_rows():
    """The container's control group runs out of memory."""
    return [(what, phase, fault) for what, phase in (
        ("leave", "vram_save"), ("leave", "criu"), ("exit", "criu"), ("suspend", "vram_save"),
        ("stop", "criu")) for fault in ("oom_kill", "oom_of_another")]


def liar_rows():
    """The driver says that something was done which was not, once or whenever it is asked."""
    calls = {"leave": ("lock", "vram_save", "vram_restore", "unlock"),
             "exit": ("lock", "vram_save"), "restore": ("vram_restore", "unlock"),
             "suspend": ("lock", "vram_save"), "resume": ("vram_restore", "unlock"),
             "stop": ("lock", "vram_save")}
    return [(what, phase, fault) for what, some in calls.items() for phase in some
            for fault in ("lies", "lies_once")]


def exit_rows():
    """The container ends by itself; while CRIU works it stands still, and ends afterwards."""
    return [("leave", phase, "container_exits") for phase in (
        "quiesce", "lock", "vram_save", "runtime", "criu", "vram_restore", "unlock", "seal")]


def journal_rows():
    """The agent dies, and the next one finds its record damaged."""
    phases = {"leave": ("lock", "vram_save", "runtime", "criu", "vram_restore", "unlock", "seal"),
              "exit": ("vram_save", "criu", "seal"), "suspend": ("lock", "vram_save", "freeze"),
              "resume": ("thaw", "vram_restore", "unlock"), "stop": ("vram_save", "criu")}
    found = [(what, phase, f"journal_{how}") for what, some in phases.items() for phase in some
             for how in ("cut", "changed")]
    # The shim of a suspension does not come back: its container would have to be guessed.
    return found + [(what, phase, "journal_gone") for what in ("leave", "exit", "stop")
                    for phase in phases[what]]


def exec_rows():
    """An exec is under way, or begun."""
    phases = {"leave": ("quiesce", "lock", "vram_save", "runtime", "criu", "vram_restore", "unlock",
                        "seal"),
              "exit": ("lock", "vram_save", "runtime", "criu", "seal", "exit"),
              "suspend": ("lock", "vram_save", "freeze")}
    return [(what, phase, fault) for what, some in phases.items() for phase in some
            for fault in ("exec_runs", "exec_begins")
            if (phase, fault) != ("freeze", "exec_begins")]  # the shim is what is held there


def rows():
    everywhere = ("nothing", "agent_killed", "agent_restarted", "agent_stopped", "worker_killed",
                  "worker_stopped", "shim_killed", "both_killed", "container_killed", "client_gone")
    quick = {("lock", "agent_killed"), ("vram_save", "shim_killed"), ("criu", "agent_killed"),
             ("criu", "criu_killed"), ("criu", "hangs"), ("runtime", "both_killed"),
             ("vram_restore", "worker_killed"), ("seal", "agent_killed"),
             ("unlock", "container_killed"), ("lock", "new_process"),
             ("runtime", "dump_fails_once"), ("exit", "agent_killed")}
    dump = ("quiesce", "lock", "vram_save", "runtime", "criu")
    found = [("leave", phase, fault) for phase in (*dump, "vram_restore", "unlock", "seal")
             for fault in everywhere]
    found += [("leave", phase, "hangs") for phase in ("lock", "vram_save", "runtime", "criu",
                                                      "vram_restore", "unlock")]
    found += [("leave", "runtime", "runtime_killed"), ("leave", "criu", "runtime_killed"),
              ("leave", "criu", "criu_killed")]
    found += [(what, "runtime", fault) for what in ("leave", "exit", "stop")
              for fault in ("dump_fails_once", "dump_fails_twice")]
    found += [("leave", phase, "new_process")
              for phase in (*dump, "vram_restore", "unlock", "seal")]
    found += [("exit", phase, "new_process") for phase in ("lock", "runtime")]
    found += [("leave", phase, "second_call") for phase in ("lock", "criu", "seal")]
    found += [("exit", phase, fault) for phase in ("vram_save", "criu", "seal", "exit")
              for fault in ("nothing", "agent_killed", "agent_restarted", "agent_stopped",
                            "shim_killed", "both_killed", "container_killed", "client_gone")]
    found += [("restore", phase, fault) for phase in ("verify", "runtime", "criu", "vram_restore",
                                                      "unlock")
              for fault in ("nothing", "agent_killed", "agent_restarted", "agent_stopped",
                            "worker_killed", "worker_stopped", "shim_killed", "both_killed",
                            "container_killed", "client_gone")]
    found += [("restore", "runtime", "runtime_killed"), ("restore", "criu", "runtime_killed"),
              ("restore", "criu", "criu_killed"), ("restore", "criu", "hangs"),
              ("restore", "vram_restore", "hangs")]
    found += [("leave", phase, "gpu_taken") for phase in ("runtime", "criu")]
    found += pause_rows(everywhere) + stop_rows() + clock_rows() + memory_rows() + liar_rows() + \
        exit_rows() + journal_rows() + exec_rows()
    return [Row(*one, quick=one[1:] in quick and one[0] in ("leave", "exit") or
                one in QUICK)
            for one in found]


@pytest.fixture(name="clock")
def _clock(row, tmp_path):
    return Clock(tmp_path / "clock") if row.fault == "clock_jumps" else None


@pytest.fixture(name="stage")
def _stage(row, gpu, clock, request):
    if row.fault.startswith("oom") and memory.why_not():
        pytest.skip(memory.why_not())
    how = {"environ": clock.environ,
           "worker": clock.wrap(agents.program("kybernate-cuda-worker"))} if clock else {}
    if row.node:
        made = NodeStage(request.getfixturevalue("gnode"), gpu, row.what, **how)
        made.clock = clock
        yield made
        made.close()
        return
    gworld = request.getfixturevalue("gworld")
    gworld.write_config(SHIM)
    gworld.shim_environ = how.get("environ", {})
    agent = request.getfixturevalue("start_agent")(gworld.agent_dir,
                                                   more=AGENT + group_config(gpu), **how)
    kind = PauseStage if row.what in ("suspend", "resume") else Stage
    made = kind(gworld, gpu, agent, row.what)
    made.clock = clock
    yield made


def likely_victim(spec):
    """Of the kernel's out-of-memory killer."""
    spec["process"]["oomScoreAdj"] = 1000


@pytest.mark.parametrize("row", rows(), ids=str)
def test_survives(kind, stage, row, record_property):  # pylint: disable=unused-argument
    result = [row.what, row.phase, row.fault, 99.0, "not survived"]
    record_property("row", result)
    # Enough to hash that the hashing is seen.
    more = {"edit": likely_victim} if row.fault == "oom_kill" else {}
    args = [*COUNTER, "--vram", "64M"] if row.phase in ("seal", "verify") else COUNTER
    if row.fault in ("dump_fails_once", "dump_fails_twice"):
        args = ["sh", "-c", f"probe inflight /var/ready /var/go & exec {' '.join(args)}"]
    if row.fault == "container_exits":
        args = ["sh", "-c", f"{' '.join(args)} & until [ -e /var/go ]; do sleep 0.1; done; exit 7"]
    stage.lies = row.fault in ("lies", "lies_once")
    stage.late = row.fault == "new_process"
    stage.prepare(args, **more)
    if stage.late and not stage.more:
        stage.more.append(stage.late_process())
    if row.fault == "exec_runs":
        stage.exec = execs.Running(stage.container)
    stage.at(row.phase)
    stage.strike(row.fault)
    stage.release()
    stage.mend(row.fault)
    stage.conclude(row.fault)
    until(stage.settled, 30, "the agent has nothing left to do")
    stage.check_attempts()
    result[4] = stage.outcome()
    result[3] = time.monotonic() - stage.mended
    if stage.exec:
        stage.exec.survives()
    if row.fault in ("nothing", "second_call", "client_gone", "clock_jumps", "exec_runs",
                     "exec_begins"):
        assert not stage.error
    if row.fault == "lies":  # a success would be none
        assert stage.error or row.what == "stop" and "SIGTERM" in result[4]
    if stage.error and not stage.killed:  # "cannot pause a stopped process": containerd's words
        assert stage.reason(), f"an error without a reason: {stage.error}"
    until(lambda: not stage.leftovers(), 5, "nothing is left over")
    until(lambda: stage.count_fds() <= stage.agent_fds + 1 or
          row.fault.startswith("journal") or
          row.fault in ("agent_killed", "agent_restarted", "both_killed"), 35,
          "the agent has closed what it opened")
    assert result[3] < env.seconds(RECOVERY_MAX)
    assert row.fault != "clock_jumps" or stage.jumped()
    if stage.shim_dead:
        stage.end_by_force()
