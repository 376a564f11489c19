# SPDX-License-Identifier: Apache-2.0
"""Whom kybernatectl talks to, and whom not: nothing is sent to a stranger."""
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest

NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has other users' sockets")


class Listener:
    """A socket that notes what it is sent, and answers with these bytes."""

    def __init__(self, path, answer=b"", close=False):
        self.got, self.connections, self.answer, self.close = b"", 0, answer, close
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(path)
        self.socket.listen(5)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            peer, _ = self.socket.accept()
            self.connections += 1
            peer.sendall(self.answer)
            if self.close:
                peer.close()
                continue
            while True:
                piece = peer.recv(65536)
                self.got += piece
                if not piece:
                    break


def test_no_socket(ctl):
    r = ctl("list")
    assert r.code == 3
    assert r.err.startswith(f"kybernatectl: list failed: AGENT_UNAVAILABLE: {ctl.socket}: No such "
                            "file or directory\n")
    assert "hint: start kybernate-agent on this node" in r.err
    assert ctl("list", "-o", "json").doc["error"]["exit_status"] == 3
    assert ctl("checkpoint", "web").code == 3
    assert ctl("delete", "a", "-o", "json").doc["error"]["reason"] == "AGENT_UNAVAILABLE"


def test_nobody_listens(ctl):
    s = socket.socket(socket.AF_UNIX)
    s.bind(ctl.socket)
    s.close()
    r = ctl("list")
    assert r.code == 3 and "nobody listens on this socket" in r.err


def test_not_a_socket(ctl, directory):
    r = ctl("--socket", str(directory), "list")
    assert r.code == 3 and "not a socket" in r.err


def test_bad_paths(ctl):
    r = ctl("--socket", "/" + "x" * 200, "list")
    assert r.code == 2 and "a socket's path has 1 to 107 bytes" in r.err
    assert ctl("--socket", "", "list").code == 2
    r = ctl("--socket", "/a\x1b]0;b\x07", "list")
    assert r.code == 3 and r"/a\x1b]0;b\x07" in r.err


def test_an_agent_that_does_not_answer(ctl):
    """Accepts and says nothing: given up after the connection's time-out."""
    Listener(ctl.socket)
    began = time.monotonic()
    r = ctl("list")
    assert r.code == 3 and time.monotonic() - began < 30
    assert "no answer in time" in r.err


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 100,
                                    b"SSH-2.0-OpenSSH_9.2\r\n"])
def test_something_else_answers(ctl, answer):
    Listener(ctl.socket, answer)
    for args in (["list"], ["checkpoint", "web"]):
        r = ctl(*args)
        assert r.code == 3 and "AGENT_UNAVAILABLE" in r.err


def test_an_agent_that_hangs_up(ctl):
    Listener(ctl.socket, close=True)
    assert ctl("list").code == 3


@needs_root
def test_socket_of_another_user(ctl):
    listener = Listener(ctl.socket)
    os.chown(ctl.socket, NOBODY, NOBODY)
    for args in (["list"], ["checkpoint", "web"], ["delete", "a"], ["doctor"]):
        r = ctl(*args)
        assert r.code == 5
        assert f"PERMISSION: {ctl.socket} belongs to user {NOBODY}, who is neither root nor you" \
            in r.out + r.err
        assert "hint: somebody else listens there" in r.out + r.err
    time.sleep(0.1)
    assert listener.connections == 0


@needs_root
def test_server_of_another_user(ctl, directory):
    """root's socket by its path, but another user listens on it."""
    log = directory / "log"
    log.touch()
    os.chmod(log, 0o666)
    server = subprocess.Popen([sys.executable, "-c", f"""
import os, socket
s = socket.socket(socket.AF_UNIX)
s.bind({ctl.socket!r})
os.setgid({NOBODY}); os.setuid({NOBODY})
s.listen(5)
print("ready", flush=True)
while True:
    c, _ = s.accept()
    with open({str(log)!r}, "ab") as f:
        f.write(b"connected, then: " + c.recv(65536))
"""], stdout=subprocess.PIPE)
    try:
        assert server.stdout.readline() == b"ready\n"
        r = ctl("list")
        assert r.code == 5 and f"is served by user {NOBODY}, who is neither root nor you" in r.err
        until = time.monotonic() + 10
        while not log.read_bytes() and time.monotonic() < until:
            time.sleep(0.05)
        assert log.read_bytes() == b"connected, then: "
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


@needs_root
def test_as_another_user(agent, ctl, directory):
    """Whom root's socket keeps out is told so, and what to do."""
    os.chmod(ctl.socket, 0o600)
    shutil.copy(ctl.program, directory / "kybernatectl")  # where that user may go

    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    ctl.program = str(directory / "kybernatectl")
    r = ctl("list", through=drop)
    assert r.code == 5
    assert f"PERMISSION: {ctl.socket}: Permission denied\nhint: call as the user the agent runs " \
        "as: root" in r.err
    os.chmod(ctl.socket, 0o666)
    agent.answers["ListCheckpoints"] = lambda r, c: agent.pb.ListCheckpointsReply()
    assert ctl("list", through=drop).code == 0


def test_a_full_backlog(agent_free_socket, ctl):
    """Connections wait: tried again until there is room."""
    path, make_room = agent_free_socket
    process = ctl.start("--socket", path, "list")
    time.sleep(0.3)
    assert process.poll() is None
    make_room()
    r = ctl.finish(process)
    assert r.code == 3 and "refused" not in r.err  # what listens there is no agent, but it was met


@pytest.fixture
def agent_free_socket(directory):
    path = str(directory / "full.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(0)
    waiting = []
    while True:
        s = socket.socket(socket.AF_UNIX)
        s.setblocking(False)
        try:
            s.connect(path)
        except BlockingIOError:
            s.close()
            break
        waiting.append(s)

    def make_room():
        def serve():
            while True:
                try:
                    listener.accept()[0].close()
                except OSError:
                    return
        threading.Thread(target=serve, daemon=True).start()

    yield path, make_room
    listener.close()
    for s in waiting:
        s.close()
