# SPDX-License-Identifier: Apache-2.0
"""Stdio without a terminal: FIFOs, files, nothing; no byte lost, nobody blocked for ever.

Sources: containerd repo, pkg/process/io.go, cmd/containerd-shim-runc-v2/process/io.go;
go-runc repo, io_unix.go; fifo repo.
"""
import os
import stat
import time

import pytest

from kyb import env, procs, ttrpc
from kyb.stdio import Reader, Stdio, Uris, expected_bytes
from kyb.wait import until

MIB = 1 << 20


@pytest.fixture(params=["init", "exec"])
def start(request, world):
    """A function that starts a process with some stdio, as init and as exec."""
    def as_init(args, io="pipes", **more):
        return world.running(args, io=io, **more)

    def as_exec(args, io="pipes", **more):
        container = world.running(**more)
        added = container.exec("e", args, io=io)
        added.start()
        return added

    return as_init if request.param == "init" else as_exec


# --- FIFOs ---

@pytest.mark.machine
def test_output_of_both_streams(start):
    process = start(["sh", "-c", "echo out; echo err >&2"])
    process.wait()
    assert process.io.out.wait_end() == b"out\n"
    assert process.io.err.wait_end() == b"err\n"


def test_no_output(start):
    process = start(["probe", "exit"])
    process.wait()
    assert process.io.out.wait_end() == process.io.err.wait_end() == b""


def test_any_bytes(start):
    process = start(["probe", "bytes", "100000"])
    process.wait()
    process.io.out.wait_end()
    assert process.io.out.sha.hexdigest() == expected_bytes(100000)


@pytest.mark.machine
def test_input(start):
    process = start(["probe", "sink"], io="stdin")
    process.io.write(b"x" * 300_000)
    process.io.close_stdin()
    process.close_io()
    assert process.wait().exit_status == 0
    assert process.io.out.wait_end() == b"300000\n"


def test_input_has_no_end_before_close_io(start):
    """The client may come and go: the shim holds the write end."""
    process = start(["probe", "echo"], io="stdin")
    process.io.write("one\n")
    process.io.close_stdin()
    process.io.out.wait_for("one\n")
    process.io.write("two\n")
    process.io.close_stdin()
    process.io.out.wait_for("two\n")
    assert process.status == "RUNNING"
    process.close_io()
    assert process.wait().exit_status == 0
    assert process.io.out.wait_end() == b"one\ntwo\neof\n"


def test_close_io_with_the_client_still_there(start):
    """Its end comes when the client has closed too."""
    process = start(["probe", "echo"], io="stdin")
    process.io.write("one\n")
    process.io.out.wait_for("one\n")
    process.close_io()
    process.io.write("two\n")
    process.io.out.wait_for("two\n")
    process.io.close_stdin()
    assert process.wait().exit_status == 0


def test_close_io_again_and_without_stdin(start):
    process = start(["probe", "sleep"])
    process.close_io()
    process.close_io()
    assert process.status == "RUNNING"


def test_close_io_without_the_flag(start):
    """The flag is ignored; there is nothing else that could be closed."""
    process = start(["probe", "sink"], io="stdin")
    process.io.open_stdin()
    process.io.close_stdin()
    process.close_io(stdin=False)
    assert process.wait().exit_status == 0


def test_no_stdin_is_at_its_end(start):
    process = start(["probe", "sink"])
    process.wait()
    assert process.io.out.wait_end() == b"0\n"


@pytest.mark.parametrize("missing", ["stdout", "stderr"])
def test_one_stream_missing(world, missing):
    """That one is /dev/null."""
    io = Stdio(world.dir / "one", stdout=missing != "stdout", stderr=missing != "stderr")
    container = world.running(["sh", "-c", "echo out; echo err >&2; exit 3"], io=io)
    assert container.wait().exit_status == 3
    reader, text = (io.out, b"out\n") if missing == "stderr" else (io.err, b"err\n")
    assert reader.wait_end() == text
    container.delete()
    io.close()


def test_only_stdin(world):
    io = Stdio(world.dir / "one", stdin=True, stdout=False, stderr=False)
    container = world.container(["sh", "-c", "read x; exit $x"], io=io)
    container.run(timeout=5)
    io.write("7\n")
    assert container.wait().exit_status == 7
    container.delete()
    io.close()


def test_end_of_output_comes_with_the_exit(start):
    """Not only with Delete: a client waits for it before it calls that."""
    process = start(["echo", "x"])
    process.wait()
    process.io.out.wait_end(timeout=5)
    assert process.status == "STOPPED"


def test_last_output_before_delete(start):
    """Delete waits until all is copied."""
    process = start(["probe", "bytes", str(4 * MIB)])
    process.finish()
    process.io.out.wait_end(timeout=5)
    assert process.io.out.count == 4 * MIB


@pytest.mark.machine
def test_no_byte_of_100_mb_is_lost(world):
    size = 100 * MIB if env.SLOW == 1 else 5 * MIB
    io = Stdio(world.dir / "big", keep=False)
    container = world.running(["probe", "bytes", str(size)], io=io)
    assert container.wait(timeout=60).exit_status == 0
    io.out.wait_end(timeout=60)
    assert (io.out.count, io.out.sha.hexdigest()) == (size, expected_bytes(size))
    container.delete()
    io.close()


def test_100_mb_of_input(world):
    size = 100 * MIB if env.SLOW == 1 else 5 * MIB
    container = world.running(["probe", "sink"], io="stdin")
    block = bytes(MIB)
    for _ in range(size // MIB):
        container.io.write(block)
    container.io.close_stdin()
    container.close_io()
    assert container.wait(timeout=60).exit_status == 0
    assert container.io.out.wait_end() == f"{size}\n".encode()


def test_slow_reader(start):
    """The process waits, the shim does not, nothing is lost."""
    process = start(["probe", "bytes", str(32 * MIB)])  # far more than is read by now
    process.io.out.gate.clear()
    began = time.monotonic()
    assert process.status == "RUNNING"
    assert time.monotonic() - began < env.seconds(1)
    process.io.out.gate.set()
    assert process.wait().exit_status == 0
    process.io.out.wait_end()
    assert process.io.out.count == 32 * MIB


def test_slow_reader_of_one_stream_does_not_hold_up_the_other(start):
    process = start(["sh", "-c", "probe bytes 300000 2 & probe bytes 300000; wait"])
    process.io.err.gate.clear()
    process.io.out.wait_count(300000)
    process.io.err.gate.set()
    process.wait()
    process.io.err.wait_end()
    assert process.io.err.count == 300000


def test_delete_waits_for_a_slow_reader(world):
    """For two seconds at least (1.6, 1.7), then the rest of the output is given up. What does
    not fit into the FIFO is in the pipe behind it, so that the process has ended already."""
    container = world.container(["probe", "bytes", "100000"], io="pipes")
    container.create()
    container.io.out.gate.clear()
    container.start()
    container.wait()
    deleting = container.task.send("Delete", id=container.id)
    time.sleep(0.3)  # a chance to do the wrong thing
    container.io.out.gate.set()
    ttrpc.answer(deleting)
    container.io.out.wait_end()
    assert container.io.out.sha.hexdigest() == expected_bytes(100000)


def test_reader_goes_and_another_comes(world):
    """containerd restarts: output waits in the FIFO, the process must not get SIGPIPE."""
    io = Stdio(world.dir / "io", read=False)
    first = Reader(io.stdout), Reader(io.stderr)
    container = world.running(["probe", "tick", "5"], io=io)
    first[0].wait_for("20\n")
    for reader in first:
        reader.close()
    time.sleep(0.1)  # so that something is written while nobody reads
    assert container.status == "RUNNING"
    second = Reader(io.stdout), Reader(io.stderr)
    second[0].wait_count(200)
    container.kill()
    container.wait()
    second[0].wait_end()
    lines = (first[0].data + second[0].data).split()
    assert lines == [str(n).encode() for n in range(1, len(lines) + 1)]
    container.delete()
    for reader in second:
        reader.close()


def test_absent_reader_blocks_nobody_but_the_process(world):
    io = Stdio(world.dir / "io", read=False)
    first = Reader(io.stdout), Reader(io.stderr)
    container = world.running(["probe", "tick", "0"], io=io)
    first[0].wait_count(1000)
    for reader in first:
        reader.close()
    time.sleep(0.3)  # until the FIFO is full
    other = container.exec("e", ["echo", "alive"], io="pipes")
    other.start()
    assert other.io.out.wait_end() == b"alive\n"
    other.finish()
    container.kill()
    assert container.wait().exit_status == 137
    container.delete(timeout=30)


def test_child_that_holds_the_output(world):
    """The exit of init is told at once, whoever else holds its output."""
    container = world.running(["probe", "orphan", "500", "3"], io="pipes", host=("pid",))
    began = time.monotonic()
    assert container.wait().exit_status == 3
    assert time.monotonic() - began < env.seconds(5)
    container.delete()
    container.io.out.wait_end()


def test_background_child_of_an_exec(world):
    """An exec that left somebody behind: its exit comes at once, its output as long as Delete
    waits."""
    container = world.running()
    added = container.exec("e", ["probe", "orphan", "300", "3"], io="pipes")
    added.start()
    assert added.wait().exit_status == 3
    added.delete()
    assert added.io.out.wait_end() == b"late\n"


def test_fifos_stay(world):
    """They are the client's to remove."""
    container = world.running(["echo", "x"], io="stdin")
    container.finish()
    for path in (container.io.stdin, container.io.stdout, container.io.stderr):
        assert stat.S_ISFIFO(os.stat(path).st_mode)


def test_many_processes_with_output(world):
    container = world.running()
    everybody = []
    for n in range(12):
        added = container.exec(f"e{n}", ["probe", "bytes", "500000"], io="pipes")
        added.start()
        everybody.append(added)
    wanted = expected_bytes(500000)
    for added in everybody:
        assert added.wait().exit_status == 0
        added.io.out.wait_end()
        assert added.io.out.sha.hexdigest() == wanted
        added.delete()


def test_fifos_are_let_go(world):
    """After Delete the shim holds no end of them."""
    container = world.running()
    shim = container.shim_pid()
    added = container.exec("e", ["probe", "sleep"], io="stdin")
    added.start()
    folder = str(added.io.folder)
    until(lambda: [t for t in procs.fds(shim).values() if t.startswith(folder)])
    added.kill()
    added.finish()
    until(lambda: not [t for t in procs.fds(shim).values() if t.startswith(folder)])


@pytest.mark.machine
@pytest.mark.xfail(env.RUNTIME == "crun", strict=True,
                   reason="crun gives the pipes to the process's group, too")
def test_pipes_belong_to_the_users_root(world):
    """Or else it could not open /dev/stdout again in its own user namespace. The OCI runtime
    gives them to the process's user in the end, and leaves the group."""
    options = world.options(io_uid=1234, io_gid=4321)
    container = world.running(["sh", "-c", "for n in 0 1 2; do stat -L -c %g /proc/self/fd/$n;"
                               " done"], io="stdin", options=options)
    container.wait()
    assert container.io.out.wait_end() == b"4321\n" * 3


@pytest.mark.only_ours("the reference looks for a file named 'fifo:///...'")
def test_fifo_scheme(world):
    io = Stdio(world.dir / "io")
    container = world.running(["echo", "x"], io=Uris("fifo://" + io.stdout, "fifo://" + io.stderr))
    container.wait()
    assert io.out.wait_end() == b"x\n"
    container.delete()
    io.close()


# --- nothing ---

def test_null_io_is_writable(start):
    process = start(["sh", "-c", "probe rw 1 && probe rw 2 && probe sink"], io="null")
    assert process.wait().exit_status == 0


def test_null_io_is_dev_null(world):
    container = world.running()
    targets = procs.fds(container.pid)
    assert [targets[n] for n in (0, 1, 2)] == ["/dev/null"] * 3


# --- files ---

def test_file_uri(world):
    """Made with its folders; both streams in one file."""
    path = world.dir / "logs/of/this/container.log"
    container = world.running(["sh", "-c", "echo out; echo err >&2; echo out"],
                              io=Uris(f"file://{path}"))
    container.finish()
    assert sorted(path.read_text().split()) == ["err", "out", "out"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755


def test_file_uri_appends(start, world):
    path = world.dir / "container.log"
    path.write_text("before\n")
    process = start(["echo", "after"], io=Uris(f"file://{path}"))
    process.finish()
    assert path.read_text() == "before\nafter\n"


def test_plain_file(world):
    """A path that is no FIFO is opened for appending, and once only for both streams."""
    path = world.dir / "plain"
    path.write_text("before\n")
    container = world.running(["sh", "-c", "echo out; echo err >&2"], io=Uris(str(path)))
    container.finish()
    lines = path.read_text().splitlines()
    assert lines[0] == "before" and sorted(lines[1:]) == ["err", "out"]


def test_two_plain_files(world):
    out, err = world.dir / "out", world.dir / "err"
    out.touch()
    err.touch()
    container = world.running(["sh", "-c", "echo out; echo err >&2"], io=Uris(str(out), str(err)))
    container.finish()
    assert (out.read_text(), err.read_text()) == ("out\n", "err\n")


def test_file_with_a_large_output(world):
    path = world.dir / "container.log"
    container = world.running(["probe", "bytes", str(5 * MIB)], io=Uris(f"file://{path}"))
    container.finish()
    assert path.stat().st_size == 5 * MIB


# --- loggers ---

LOGGER = """#!/bin/sh
dir={dir}
/usr/bin/env >$dir/env
printf '%s\\n' "$@" >$dir/args
/bin/ls /proc/$$/fd >$dir/fds
trap '/bin/touch $dir/terminated' TERM
/bin/cat <&3 >$dir/out 3<&- 4<&- 5>&- &
/bin/cat <&4 >$dir/err 3<&- 4<&- 5>&- &
exec 3<&- 4<&-
{before_ready}
exec 5>&-
wait
wait
/bin/touch $dir/done
"""


def logger(world, before_ready=""):
    """A logging program, and the folder where it leaves what it got."""
    folder = world.dir / "logger"
    folder.mkdir()
    program = folder / "logger"
    program.write_text(LOGGER.format(dir=folder, before_ready=before_ready))
    program.chmod(0o755)
    return program, folder


def test_logger(start, world):
    program, folder = logger(world)
    process = start(["sh", "-c", "echo out; echo err >&2"], io=Uris(f"binary://{program}"))
    process.finish()
    assert (folder / "out").read_text() == "out\n"
    assert (folder / "err").read_text() == "err\n"


def test_logger_arguments(world):
    """Key and value of each pair, one after the other; the order of the pairs is nobody's
    promise."""
    program, folder = logger(world)
    container = world.running(["probe", "exit"],
                              io=Uris(f"binary://{program}?one=1&two=a%20b&three="))
    container.finish()
    words = (folder / "args").read_text().split("\n")[:-1]
    assert sorted(zip(words[::2], words[1::2])) == [("one", "1"), ("three", ""), ("two", "a b")]


def test_logger_environment(world):
    """These two and no others."""
    program, folder = logger(world)
    container = world.running(["probe", "exit"], io=Uris(f"binary://{program}"))
    container.finish()
    names = {line.partition("=")[0]: line.partition("=")[2]
             for line in (folder / "env").read_text().splitlines()}
    for own in ("PWD", "SHLVL", "_", "OLDPWD"):  # the shell's
        names.pop(own, None)
    assert names == {"CONTAINER_ID": container.id, "CONTAINER_NAMESPACE": world.namespace}


def test_logger_descriptors(world):
    program, folder = logger(world)
    container = world.running(["probe", "exit"], io=Uris(f"binary://{program}"))
    container.finish()
    numbers = {int(n) for n in (folder / "fds").read_text().split()}
    assert {0, 1, 2, 3, 4, 5} <= numbers
    assert not {n for n in numbers if 5 < n < 10}


def test_create_waits_for_the_logger(world):
    folder = world.dir / "logger"
    program, _ = logger(world, before_ready=f"while [ ! -e {folder}/go ]; do /bin/sleep 0.05; done")
    container = world.container(["echo", "x"], io=Uris(f"binary://{program}"))
    creating = container.task.send("Create", **container.create_request())
    time.sleep(0.3)  # a chance to do the wrong thing
    assert not creating.done()
    (folder / "go").touch()
    ttrpc.answer(creating)
    container.start()
    container.finish()
    assert (folder / "out").read_text() == "x\n"


def test_missing_logger(world):
    container = world.container(io=Uris("binary:///no/such/logger"))
    with pytest.raises(ttrpc.Error) as caught:
        container.create()
    assert "/no/such/logger" in caught.value.message


def test_dead_logger(world):
    """The container may suffer, the shim must not."""
    program = world.dir / "dying"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    container = world.running(["sh", "-c", "while echo x; do probe sleep 10; done; probe sleep"],
                              io=Uris(f"binary://{program}"))
    assert container.status == "RUNNING"
    container.kill()
    assert container.finish().exit_status == 137


def test_logger_ends_with_delete(world):
    """It sees the end of both streams, gets SIGTERM, and is waited for."""
    program, folder = logger(world)
    container = world.running(["echo", "x"], io=Uris(f"binary://{program}"))
    container.finish()
    until(lambda: (folder / "done").exists() or (folder / "terminated").exists())
    shim = container.shim_pid()
    until(lambda: not procs.children(shim))


def test_logger_gets_everything(world):
    program, folder = logger(world)
    container = world.running(["probe", "bytes", str(5 * MIB)], io=Uris(f"binary://{program}"))
    container.finish()
    assert (folder / "out").stat().st_size == 5 * MIB
