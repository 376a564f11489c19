# SPDX-License-Identifier: Apache-2.0
"""Stdio with a terminal.

Sources: containerd repo, pkg/process/{init,exec}.go, runtime/v2/runc/platform.go;
cmd/containerd-shim-runc-v2 (2.x); console repo.
"""
import hashlib
import os
import pathlib
import tempfile

import pytest

from kyb import procs, ttrpc
from kyb.stdio import Stdio, Uris, expected_bytes
from kyb.wait import until


@pytest.fixture(params=["init", "exec"])
def start(request, world):
    """A function that starts a process on a terminal, as init and as exec."""
    def as_init(args, io="stdin"):
        container = world.container(args, io=io, terminal=True)
        container.run()
        return container

    def as_exec(args, io="stdin"):
        container = world.running()
        added = container.exec("e", args, io=io, terminal=True)
        added.start()
        return added

    return as_init if request.param == "init" else as_exec


def consoles(world):
    """Descriptors of terminals that the shim holds."""
    (pid,) = world.shims()
    return [t for t in procs.fds(pid).values() if "ptmx" in t or "/pts/" in t]


@pytest.mark.machine
def test_it_is_a_terminal(start):
    process = start(["probe", "tty"])
    process.wait()
    assert b"1 1 1\r\n" in process.io.out.wait_end()


def test_state_says_terminal(start):
    process = start(["probe", "sleep"])
    state = process.state()
    assert state.terminal
    assert (state.stdin, state.stdout, state.stderr) == (process.io.stdin, process.io.stdout, "")


def test_both_streams_are_one(start):
    process = start(["sh", "-c", "echo out; echo err >&2"])
    process.wait()
    assert process.io.out.wait_end() == b"out\r\nerr\r\n"


def test_input(start):
    process = start(["sh", "-c", "read x; echo got $x; exit 4"])
    process.io.write("hello\n")
    assert process.wait().exit_status == 4
    assert b"got hello\r\n" in process.io.out.wait_end()


def test_more_input_than_it_holds(start):
    """The shim waits until the process reads, with the client's FIFO full as well."""
    process = start(["sh", "-c", "stty raw -echo; echo ready; sleep 1; head -c 200000 | md5sum"])
    process.io.out.wait_for("ready")
    data = os.urandom(50000).hex().encode() * 2
    process.io.write(data)
    assert process.wait().exit_status == 0
    assert hashlib.md5(data).hexdigest().encode() in process.io.out.wait_end()


def test_the_shim_holds_it_once(start, world):
    """Its input and its output are one: so containerd looks for leaks of terminals."""
    start(["probe", "sleep"])
    assert len(consoles(world)) == 1


def test_control_characters(start):
    """^C is the terminal's business: SIGINT for the foreground."""
    process = start(["probe", "trap", "2", "6"])
    process.io.out.wait_for("ready")
    process.io.write(b"\x03")
    assert process.wait().exit_status == 6


@pytest.mark.machine
def test_resize(start):
    process = start(["probe", "winsize"])
    process.io.out.wait_for("x")
    process.resize(111, 37)
    process.io.out.wait_for("111x37")
    process.resize(80, 24)
    process.io.out.wait_for("80x24")


def test_resize_before_start(world):
    """Clients do it as early as they can."""
    container = world.container(["probe", "winsize"], io="stdin", terminal=True)
    container.create()
    container.resize(99, 11)
    container.start()
    container.io.out.wait_for("99x11")


def test_resize_without_a_terminal(world):
    container = world.running(io="pipes")
    container.resize(80, 24)


def test_no_stdin(start):
    process = start(["probe", "tty"], io="pipes")
    process.wait()
    assert b"1 1 1\r\n" in process.io.out.wait_end()


def test_all_output_arrives(start):
    """What is still in the terminal when the process exits, too."""
    process = start(["sh", "-c", "stty raw; probe bytes 1000000"])
    assert process.finish().exit_status == 0
    process.io.out.wait_end()
    assert process.io.out.count == 1000000
    assert process.io.out.sha.hexdigest() == expected_bytes(1000000)


def test_output_of_many_short_processes(world):
    container = world.running()
    for n in range(15):
        added = container.exec(f"e{n}", ["sh", "-c", "stty raw; probe bytes 20000"], io="stdin",
                               terminal=True)
        added.start()
        added.finish()
        added.io.out.wait_end()
        assert added.io.out.count == 20000


def test_closed_and_opened_again(start):
    """With nobody on the other side the master reads an error, which is not the end."""
    process = start(["sh", "-c", "t=$(tty); exec </dev/null >/dev/null 2>&1; probe sleep 300;"
                     " exec >$t; echo back"])
    process.wait()
    assert b"back" in process.io.out.wait_end()


def test_close_io_hangs_up(start):
    """The end of input is the end of the session."""
    process = start(["sh", "-c", "trap 'exit 8' HUP; echo ready; while :; do probe sleep 20; done"])
    process.io.out.wait_for("ready")
    process.io.open_stdin()
    process.io.close_stdin()
    process.close_io()
    assert process.wait().exit_status == 8


def test_console_is_let_go(start, world):
    """Descriptors of terminals are a resource of the machine."""
    process = start(["probe", "sleep"])
    assert consoles(world)
    process.kill()
    process.finish()
    until(lambda: not consoles(world), what="consoles closed")


def test_consoles_of_failed_execs(world):
    container = world.running()
    for n in range(3):
        added = container.exec(f"e{n}", ["no-such-program"], io="stdin", terminal=True)
        with pytest.raises(ttrpc.Error):
            added.start()
        added.delete()
    until(lambda: not consoles(world), what="consoles closed")


def test_console_of_a_failed_create(world):
    container = world.container(["no-such-program"], io="stdin", terminal=True)
    with pytest.raises(ttrpc.Error):
        container.create()
    until(lambda: not consoles(world), what="consoles closed")


def test_console_sockets_go_away(world):
    """They lie in the temporary folder while the OCI runtime runs."""
    folder = world.dir / "tmp"
    folder.mkdir()
    container = world.define(["probe", "exit"], terminal=True)
    container.io = world.io("c", "stdin")
    container.launch(more_env={"XDG_RUNTIME_DIR": str(folder), "TMPDIR": str(folder)})
    container.run()
    container.finish()
    assert not list(folder.iterdir())
    assert not [p for p in pathlib.Path(tempfile.gettempdir()).glob("pty*")
                if p.stat().st_uid == os.getuid() and world.token in str(p)]


def test_slow_reader(start):
    process = start(["sh", "-c", "stty raw; probe bytes 3000000"])
    process.io.out.gate.clear()
    assert process.status == "RUNNING"
    process.io.out.gate.set()
    process.wait()
    process.io.out.wait_end()
    assert process.io.out.count == 3000000


def test_logger_with_a_terminal(world):
    """Output goes to its stdout pipe."""
    got = world.dir / "got"
    program = world.dir / "logger"
    program.write_text(f"#!/bin/sh\n/bin/cat <&3 >{got} 5>&- &\nexec 5>&-\nwait\n")
    program.chmod(0o755)
    container = world.container(["echo", "hello"], io=Uris(f"binary://{program}", ""),
                                terminal=True)
    container.run()
    container.finish()
    until(lambda: got.exists() and got.read_bytes() == b"hello\r\n")


@pytest.mark.only_ours("the reference tries to open a file without a name")
def test_no_stdout(world):
    """Read and dropped, so that the process does not block."""
    io = Stdio(world.dir / "io", stdin=True, stdout=False, stderr=False)
    container = world.container(["sh", "-c", "stty raw; probe bytes 100000; exit 3"], io=io,
                                terminal=True)
    container.run()
    assert container.finish().exit_status == 3
    io.close()
