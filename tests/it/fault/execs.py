# SPDX-License-Identifier: Apache-2.0
"""Execs of a container that something is done to: one that is under way, with somebody who talks to
it, and one that is begun in the middle."""
import time

import pytest

from kyb import procs, ttrpc

# Nothing may come into the container then: it would be neither in the image nor locked.
CLOSED = ("lock", "vram_save", "runtime", "criu", "freeze")


class Running:
    """It answers what it is told, before, in between and afterwards."""

    def __init__(self, container):
        self.process = container.exec("r", ["cat"], io="stdin")
        self.process.start()
        self._say("before")
        self.said.wait_for("before\n")

    @property
    def said(self):
        return self.process.io.out

    def _say(self, word):
        self.process.io.write(word + "\n")

    def struck(self, phase):
        self._say(f"in {phase}")

    def survives(self):
        self._say("after")
        assert self.said.wait_for("after\n").startswith(b"before\nin ")
        assert self.process.status == "RUNNING"
        self.process.kill()
        assert self.process.finish().exit_status == 137

    def ends(self):
        """With its container."""
        assert self.process.finish().exit_status == 137


class Begun:
    """Its Start waits, and is answered truly."""

    def __init__(self, container):
        self.container = container
        self.process = self.start = None

    def struck(self, phase):
        self.process = self.container.exec("b", ["probe", "sleep"])
        self.start = self.container.task.send("Start", id=self.container.id, exec_id="b")
        if phase in CLOSED:
            time.sleep(0.2)  # it would be there by then
            assert not self.start.done()

    def survives(self):
        self.process.pid = ttrpc.answer(self.start, 30).pid
        assert procs.alive(self.process.pid)
        self.process.kill()
        assert self.process.finish().exit_status == 137

    def ends(self):
        with pytest.raises(ttrpc.Error) as caught:
            ttrpc.answer(self.start, 30)
        assert "stopped" in caught.value.message or "not running" in caught.value.message, caught
        self.process.delete()

    def refused(self):
        """The container is paused by then."""
        with pytest.raises(ttrpc.Error, match="paused"):
            ttrpc.answer(self.start, 30)
        self.process.delete()
