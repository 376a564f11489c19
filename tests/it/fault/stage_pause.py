# SPDX-License-Identifier: Apache-2.0
"""The stage of the matrix's rows of pause-to-RAM: "suspend" is the Pause of a pod that asks for it,
"resume" the way back."""
import os
import signal
import time

from kyb import cgroups, procs, ttrpc
from kyb.wait import Timeout, until

from .stage import Stage

SUSPEND = {"kybernate.io/pause": "suspend"}
AGENT_DIES = ("agent_killed", "agent_restarted", "both_killed", "journal_cut", "journal_changed",
              "journal_gone")


class PauseStage(Stage):
    """what: "suspend" or "resume"."""

    def __init__(self, *args):
        super().__init__(*args)
        self.shim = 0
        self.attempts = 0

    def prepare(self, args=None, **more):
        container = self.run(args, annotations=SUSPEND, **more)
        self.shim = container.shim_pid()
        self.agent_fds = self.count_fds()
        if self.what == "resume":
            if self.late:  # there is no exec in a paused one
                self.more.append(self.late_process())
            container.pause()

    def send(self):
        self.call = self.container.task.send("Pause" if self.what == "suspend" else "Resume",
                                             id=self.container.id)

    # --- phases ---

    def _shim_away(self, call, done):
        """The shim is stopped while the agent is held at the driver: the order that follows is one
        that it does not carry out yet."""
        rule = self.gpu.fault(call=call, hang=True, count=1)
        self.send()
        self.gpu.wait_held(rule, timeout=20)
        begun = self.agent.log().count(done)
        os.kill(self.shim, signal.SIGSTOP)
        self.undo.append(lambda: self._shim_back())  # pylint: disable=unnecessary-lambda
        self.gpu.clear()
        self.gpu.release()
        until(lambda: self.agent.log().count(done) > begun, 10, "the agent's order")
        time.sleep(0.05)  # on its way

    def _shim_back(self):
        if not self.shim_dead:
            os.kill(self.shim, signal.SIGCONT)

    def at_freeze(self):
        self._shim_away("checkpoint", "phase=vram_save")

    def at_thaw(self):
        self._shim_away("nvml_memory", "phase=preflight")

    # --- what happens ---

    def do_shim_killed(self):
        self.shim_dead = True
        os.kill(self.shim, signal.SIGKILL)

    # --- afterwards ---

    def conclude(self, fault):
        super().conclude(fault)
        if fault == "exec_begins":
            self.exec.refused()
            self.exec = None

    def outcome(self):
        container = self.container
        if self.killed:
            if not self.shim_dead:
                self._ends()
            return self.ended()
        if self.shim_dead:
            return self._without_shim()
        status = self._settled_status()
        if self.error:
            # A Pause that fails leaves it running, a Resume that fails leaves it paused.
            assert status == ("RUNNING" if self.what == "suspend" else "PAUSED")
        elif self.call.done() and self.call.exception() is None:
            assert status == ("PAUSED" if self.what == "suspend" else "RUNNING")
        told = f"undone ({self.reason()})" if self.error else \
            "suspended" if status == "PAUSED" else "resumed"
        if status == "PAUSED":
            told += self._resumed()
        self.computes()
        assert self.driver_says() in (None, "RUNNING")
        if self.what == "suspend" and self.error:  # and it can be asked again
            self.gpu.clear()
            container.pause()
            self._is_held()
            container.resume()
            self.computes()
        return told + "; computes on"

    def _ends(self):
        """Cgroup v1 may freeze a process that has a SIGKILL to come; Kill sees to that."""
        exited = self.container.wait_async()
        try:
            ttrpc.answer(exited, 2)
        except Timeout:
            assert self.container.status == "PAUSED"
            self.container.kill()
        assert ttrpc.answer(exited, 20).exit_status == 137

    def _resumed(self):
        """From where it is. What came back before the agent died is on the GPU, and counts there,
        until then."""
        assert cgroups.frozen(self.container.pid)
        if not (self.what == "resume" and self.fault in AGENT_DIES):
            self._is_held()
        self.gpu.clear()
        again = " again" if self.what == "resume" else ""
        if self.fault != "worker_stopped":
            self.container.resume()
            return f"; resumed{again}"
        # Whether it hangs is seen when it is asked; then there is another one after a moment.
        return f"; resumed{again}" if until(self._resumes, 10) == 1 else "; resumed at a later call"

    def _resumes(self):
        """Which attempt it was that succeeded; None: not yet."""
        self.attempts += 1
        try:
            self.container.resume()
        except ttrpc.Error as e:
            assert e.message.startswith(("TIMEOUT:", "WORKER_FAILED:")), e.message
            assert self.container.status == "PAUSED"
            return None
        return self.attempts

    def _settled_status(self):
        return until(lambda: self.container.status in ("RUNNING", "PAUSED") and
                     self.container.status, 10, "it runs or is paused")

    def _is_held(self):
        assert cgroups.frozen(self.container.pid)
        until(lambda: self.gpu.gpu()["used"] == 0, 5, "the GPU is free")

    def _without_shim(self):
        """Nobody can freeze it and nobody can be asked to resume it: the agent lets it compute on,
        but where it stands still with its memory saved, as it did when the shim died."""
        pid = self.container.pid
        assert procs.alive(pid)
        if cgroups.frozen(pid):
            assert self.what == "resume"
            self._is_held()
            return "still suspended, without a shim"
        self.computes()
        assert self.driver_says() in (None, "RUNNING")
        return f"undone ({self.reason()}); computes on"

    def leftovers(self):
        return [] if self.shim_dead else super().leftovers()
