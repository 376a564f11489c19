# SPDX-License-Identifier: Apache-2.0
"""What a person sees: kybernatectl on a pseudo-terminal."""
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import threading
import time

import pytest

GIB = 1 << 30


class Screen:
    """As much of a terminal as is needed: text, new lines, return, erase to the end of the line.
    Fails on any other control sequence but colours."""

    TOKEN = re.compile(r"\x1b\[(\d*(?:;\d+)*)([a-zA-Z])|([\r\n])|([^\x00-\x1f\x7f]+)")

    def __init__(self, text):
        self.lines, self.column = [""], 0
        self.colours, self.draws = [], 0
        at = 0
        while at < len(text):
            m = self.TOKEN.match(text, at)
            assert m, f"unexpected control sequence: {text[at:at + 20]!r}"
            at = m.end()
            self.take(m)

    def take(self, m):
        if m[2] == "K":
            self.lines[-1] = self.lines[-1][:self.column]
            self.draws += 1
        elif m[2] == "m":
            self.colours.append(m[1])
        elif m[2]:
            pytest.fail(f"unexpected sequence {m[0]!r}")
        elif m[3] == "\r":
            self.column = 0
        elif m[3] == "\n":
            self.lines.append("")
            self.column = 0
        else:
            line = self.lines[-1]
            self.lines[-1] = line[:self.column] + m[4] + line[self.column + len(m[4]):]
            self.column += len(m[4])

    @property
    def text(self):
        return "\n".join(self.lines)


class Terminal:
    """A run of kybernatectl with a controlling terminal."""

    def __init__(self, ctl, *args, columns=100, env=None):
        self.data = b""
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._process = subprocess.Popen(  # pylint: disable=consider-using-with
            ["setsid", "--ctty", ctl.program, *args], stdin=slave, stdout=slave, stderr=slave,
            env=env or ctl.env())
        self.pid = self._process.pid
        os.close(slave)

    def read(self, until=None, timeout=60):
        """Reads until this text has come, or to the end."""
        end = time.monotonic() + timeout
        while until is None or until.encode() not in self.data:
            ready, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
            assert ready, f"nothing more comes after {self.data!r}"
            try:
                piece = os.read(self.master, 65536)
            except OSError:  # EIO: the other side is closed
                piece = b""
            if not piece:
                assert until is None, f"ended with {self.data!r}"
                break
            self.data += piece

    def type(self, text):
        os.write(self.master, text.encode())

    def finish(self):
        self.read()
        _, status = os.waitpid(self.pid, 0)
        os.close(self.master)
        self.code = os.waitstatus_to_exitcode(status)
        return Screen(self.data.decode())


@pytest.fixture
def good(agent):
    """A checkpoint with a flood of updates in its longest phase."""
    times = [agent.time("LOCK", 0, 200), agent.time("VRAM_SAVE", 200, 1000, 40 * GIB)]

    def answer(_request, _context):
        yield agent.update("LOCK", processes=2)
        time.sleep(0.3)
        for i in range(1000):
            yield agent.update("VRAM_SAVE", done=i * GIB // 25, total=40 * GIB)
            time.sleep(0.001)
        yield agent.update("VRAM_SAVE", "OK", done=40 * GIB, total=40 * GIB,
                           checkpoint_ref="web-1", timeline=times)

    agent.answers["CreateCheckpoint"] = answer


def test_progress(ctl, good):
    began = time.monotonic()
    t = Terminal(ctl, "checkpoint", "web")
    t.read("GiB")
    t.read("MB/s")
    screen = t.finish()
    took = time.monotonic() - began
    assert t.code == 0
    # Redrawn in place: two lines of phases, and nothing of the many before them.
    assert [line.split()[0] for line in screen.lines[:2]] == ["lock", "vram_save"]
    assert re.fullmatch(r"vram_save     40\.0 GiB  \d+ MB/s  [\d.]+m?s", screen.lines[1])
    assert screen.lines[2].split()[0] == "PHASE"
    assert screen.lines[-2] == "Checkpoint web-1 of container web is sealed, after 1.2s; " \
        "the container runs on."
    # At most ten a second, and the erasing of each phase's line.
    assert 4 <= screen.draws <= took * 10 + 4
    live = t.data.decode().split("\r\x1b[K")
    assert any(re.search(r"vram_save     [\d.]+/40\.0 GiB  \d+ MB/s  [\d.]+m?s", line)
               for line in live)


def test_seconds_go_on(agent, ctl):
    """Also while the agent has nothing to say."""
    def answer(_request, _context):
        yield agent.update("LOCK", processes=1)
        time.sleep(1.2)
        yield agent.update("LOCK", "OK", checkpoint_ref="web-1")

    agent.answers["CreateCheckpoint"] = answer
    t = Terminal(ctl, "checkpoint", "web")
    screen = t.finish()
    seen = set(re.findall(rb"lock          1 process  ([\d.]+m?s)", t.data))
    assert t.code == 0 and len(seen) >= 4 and screen.draws <= 16


@pytest.mark.parametrize("columns", [20, 40, 1])
def test_narrow(ctl, good, columns):
    t = Terminal(ctl, "checkpoint", "web", columns=columns)
    t.finish()
    for drawn in t.data.decode().split("\r\x1b[K")[1:-1]:
        assert "\n" in drawn or len(drawn) < columns


def test_colours(agent, ctl):
    def answer(_request, _context):
        yield agent.update("LOCK", "FAILED", error=agent.error("BUSY", "LOCK", "\x1b[35m"),
                           timeline=[agent.time("LOCK", 0, 1), agent.time("UNLOCK", 1, 1,
                                                                          undo=True)])

    agent.answers["CreateCheckpoint"] = answer
    t = Terminal(ctl, "checkpoint", "web")
    screen = t.finish()
    assert t.code == 5
    assert set(screen.colours) == {"31", "33", "0"} and r"\x1b[35m" in screen.text
    # Aligned all the same.
    lines = [line for line in screen.lines if line.startswith(("lock  ", "unlock", "PHASE"))][-3:]
    assert lines[0].index("NOTE") == lines[1].index("failed") == lines[2].index("undo")
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""}):
        assert Terminal(ctl, "checkpoint", "web", env=ctl.env(**env)).finish().colours == []
    assert Terminal(ctl, "checkpoint", "web", env=ctl.env(NO_COLOR="")).finish().colours


def test_dumb_terminal(ctl, good):
    t = Terminal(ctl, "checkpoint", "web", env=ctl.env(TERM="dumb"))
    screen = t.finish()
    assert screen.draws == 0
    assert [line.split()[0] for line in screen.lines[:2]] == ["lock", "vram_save"]


def test_quiet_and_json(ctl, good):
    assert Terminal(ctl, "checkpoint", "web", "-q").finish().lines == ["web-1", ""]
    t = Terminal(ctl, "checkpoint", "web", "-o", "json")
    screen = t.finish()
    assert screen.lines[0] == "{" and screen.colours == [] and screen.draws == 0


def test_wide_characters(agent, ctl):
    pb = agent.pb
    agent.answers["GetCheckpoint"] = lambda r, c: pb.GetCheckpointReply(
        checkpoint=pb.CheckpointInfo(checkpoint_ref="a", processes=[
            pb.GpuProcess(name="训练", gpu_uuids=["GPU-1"]),
            pb.GpuProcess(name="e\u0301te\u0301", gpu_uuids=["GPU-2"]),
            pb.GpuProcess(name="plain", gpu_uuids=["GPU-3"])]))
    lines = Terminal(ctl, "inspect", "a").finish().lines

    def column(line):
        """Where the last column is, as a terminal shows it."""
        head = line[:line.rindex("GPU")]
        return len(head) + sum(c in "训练" for c in head) - sum(c == "\u0301" for c in head)

    assert len({column(line) for line in lines if "GPU-" in line}) == 1


def test_ctrl_c(agent, ctl):
    left = threading.Event()

    def answer(_request, context):
        context.add_callback(left.set)
        while context.is_active():
            yield agent.update("VRAM_SAVE", done=GIB, total=2 * GIB)
            time.sleep(0.05)

    agent.answers["CreateCheckpoint"] = answer
    agent.answers["Status"] = lambda r, c: agent.pb.StatusReply()
    t = Terminal(ctl, "checkpoint", "web")
    t.read("MB/s")
    t.type("\x03")
    screen = t.finish()
    assert left.wait(10)
    assert t.code == 130
    assert "interrupted after" in screen.text and "the agent has nothing under way" in screen.text
    # The line that was being drawn is finished; what follows begins on one of its own.
    assert any(line.endswith("kybernatectl: the agent undoes the checkpoint of web; once more "
                             "(Ctrl-C) leaves without waiting for it") for line in screen.lines)
    assert [line for line in screen.lines if line.startswith("vram_save")][-1].endswith("s")


def test_list_is_plain(agent, ctl):
    pb = agent.pb
    agent.answers["ListCheckpoints"] = lambda r, c: pb.ListCheckpointsReply(
        checkpoints=[pb.CheckpointInfo(checkpoint_ref="r" * 128, container_id="c" * 64)])
    screen = Terminal(ctl, "list", columns=40).finish()
    assert "r" * 128 in screen.text and "c" * 64 in screen.text
