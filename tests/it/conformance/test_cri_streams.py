# SPDX-License-Identifier: Apache-2.0
"""exec, attach, port-forward and logs of pods, as kubectl and kubelet use them through CRI."""
import re
import socket
import struct
import threading

import pytest

from kyb import env, procs
from kyb.wait import until
from kyb.websocket import STDERR

pytestmark = pytest.mark.skipif(
    not env.can_lower_oom_score() and env.RUNTIME == "crun",
    reason="crun insists on the oom score of pods, which takes CAP_SYS_RESOURCE")


@pytest.fixture
def pod(cri):
    until(cri.ready, what="CRI ready")
    made = cri.pod()
    yield made
    made.remove()


@pytest.fixture
def sleeper(pod):
    return pod.container(["probe", "sleep"]).start()


# --- exec ---

def test_exec_stream(sleeper):
    stream = sleeper.stream("sh", "-c", "read x; echo out $x; echo err $x >&2; exit 5")
    stream.send(b"word\n")
    assert stream.status() == 5
    assert (stream.data(), stream.data(STDERR)) == (b"out word\n", b"err word\n")


def test_exec_stream_of_success(sleeper):
    stream = sleeper.stream("echo", "hello", stdin=False)
    assert stream.status() == 0
    assert stream.data() == b"hello\n"


def test_exec_stream_with_a_terminal(sleeper):
    stream = sleeper.stream("sh", tty=True)
    stream.send(b"probe tty; exit 6\n")
    assert stream.status() == 6
    assert b"1 1 1" in stream.data()


def test_exec_stream_heeds_a_resize(sleeper):
    stream = sleeper.stream("sh", tty=True)
    stream.resize(123, 45)
    # The resize travels beside the input: ask until it has arrived.
    until(lambda: (stream.send(b"stty size\n"), b"45 123" in stream.data())[1])
    stream.send(b"exit\n")
    assert stream.status() == 0


def test_exec_stream_with_much_output(sleeper):
    stream = sleeper.stream("probe", "bytes", "3000000", stdin=False)
    assert stream.status(timeout=60) == 0
    assert len(stream.data()) == 3000000


def test_exec_stream_with_much_input(sleeper):
    stream = sleeper.stream("sh", "-c", "head -c 1000000 | wc -c")
    stream.send(b"x" * 1000000)
    assert stream.status(timeout=60) == 0
    assert int(stream.data()) == 1000000


def test_exec_streams_side_by_side(sleeper, node):
    (shim,) = node.shims()
    before = len(procs.fds(shim))
    streams = [sleeper.stream("sh", "-c", f"read x; echo $x; exit {n}") for n in range(10)]
    for n, stream in reversed(list(enumerate(streams))):
        stream.send(f"to {n}\n".encode())
        assert stream.status() == n
        assert stream.data() == f"to {n}\n".encode()
    until(lambda: len(procs.fds(shim)) <= before, what="descriptors of the execs are closed")


def test_client_of_an_exec_goes_away(sleeper, node):
    """The process sees the end of its input, ends, and the shim keeps nothing of it."""
    (shim,) = node.shims()
    before = len(procs.fds(shim))
    stream = sleeper.stream("sh", "-c", "echo here; read x; read x")
    stream.wait_for(b"here")
    stream.close()
    until(lambda: len(procs.fds(shim)) <= before, 20, what="descriptors of the exec are closed")
    assert sleeper.exec("echo", "alive").stdout == b"alive\n"


def test_exec_sync_with_a_timeout_leaves_no_process(sleeper):
    def processes():
        """The pod's, and the one that looks: a single one, so that it counts as one every time."""
        return len(re.findall(rb"^\d+$", sleeper.exec("ls", "/proc").stdout, re.MULTILINE))

    before = processes()
    for _ in range(3):
        with pytest.raises(Exception, match="timeout"):
            sleeper.exec("probe", "sleep", seconds=1)
    until(lambda: processes() == before, what="no process more than before")


def test_probes_in_parallel(sleeper, node):
    """kubelet's exec probes: many short ones at once, and nothing of them stays."""
    (shim,) = node.shims()
    before = len(procs.fds(shim))
    codes = []

    def probe(n):
        for _ in range(5):
            codes.append(sleeper.exec("probe", "exit", str(n)).exit_code == n)

    threads = [threading.Thread(target=probe, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(env.seconds(60))
    assert codes == [True] * 40
    until(lambda: len(procs.fds(shim)) <= before)
    until(lambda: not [pid for pid in procs.children(shim) if not procs.alive(pid)],
          what="no zombie")


# --- attach ---

def test_attach(pod):
    container = pod.container(["sh", "-c", "while read x; do echo got $x; done"],
                              stdin=True).start()
    stream = container.attach()
    stream.send(b"one\n")
    stream.wait_for(b"got one\n")
    stream.close()
    assert container.state() == "RUNNING"
    again = container.attach()
    again.send(b"two\n")
    again.wait_for(b"got two\n")
    assert b"one" not in again.data()
    assert [text for _, text in container.log()][:2] == ["got one", "got two"]


def test_attach_once(pod):
    """With stdin_once the input ends when the first client goes."""
    container = pod.container(["sh", "-c", "cat; echo end"], stdin=True, stdin_once=True).start()
    stream = container.attach()
    stream.send(b"one\n")
    stream.wait_for(b"one\n")
    stream.close()
    until(lambda: container.state() == "EXITED")
    until(lambda: ("stdout", "end") in container.log())


def test_attach_with_a_terminal(pod):
    container = pod.container(["sh"], tty=True, stdin=True).start()
    stream = container.attach(tty=True)
    stream.resize(99, 33)
    until(lambda: (stream.send(b"stty size\n"), b"33 99" in stream.data())[1])
    stream.send(b"exit 3\n")
    until(lambda: container.state() == "EXITED")
    assert container.status().exit_code == 3


def test_attach_without_input(pod):
    container = pod.container(["sh", "-c", "while :; do echo x; probe sleep 20; done"]).start()
    stream = container.attach(stdin=False)
    stream.wait_for(b"x\nx\n")
    stream.close()
    count = len(container.log())
    until(lambda: len(container.log()) > count, what="the log goes on without the client")


@pytest.mark.machine
def test_attach_after_a_restart_of_containerd(pod, node, cri):
    """containerd opens the FIFOs again that the shim has kept both ends of."""
    container = pod.container(["sh", "-c", "while read x; do echo got $x; done"],
                              stdin=True).start()
    first = container.attach()
    first.send(b"before\n")
    first.wait_for(b"got before\n")
    node.restart()
    until(cri.ready)
    stream = container.attach()
    stream.send(b"after\n")
    stream.wait_for(b"got after\n")
    assert container.state() == "RUNNING"


# --- port-forward ---

def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_port_forward(pod):
    port = _free_port()
    container = pod.container(["sh", "-c", f"echo hello | nc -l -p {port}"]).start()
    listening = f":{port:04X} "
    until(lambda: listening.encode() in container.exec("cat", "/proc/net/tcp",
                                                       "/proc/net/tcp6").stdout)
    stream = pod.forward(port)
    got = stream.wait_for(b"hello\n", channel=0)
    assert got == struct.pack("<H", port) + b"hello\n"
    stream.close()


# --- logs ---

LONG = "head -c {} /dev/zero | tr '\\0' x; echo"


def test_log_format(pod):
    """Each line: time, stream, whether it is whole, text."""
    container = pod.container(["sh", "-c", f"echo out; {LONG.format(20000)}; echo end"]).start()
    until(lambda: ("stdout", "end") in container.log())
    lines = container.log_path.read_text(encoding="utf-8").splitlines()
    form = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|[+-]\d\d:\d\d) (stdout|stderr) ([FP]) ")
    tags = [form.match(line).group(3) for line in lines]
    assert len(lines) > 3 and tags[0] == "F" and tags[-1] == "F" and "P" in tags


def test_log_is_reopened(pod):
    """Log rotation: what is written afterwards goes to a new file."""
    container = pod.container(["sh", "-c", "while :; do echo x; probe sleep 20; done"]).start()
    until(lambda: len(container.log()) > 3)
    rotated = container.log_path.with_suffix(".1")
    container.log_path.rename(rotated)
    container._do("ReopenContainerLog")
    until(lambda: len(container.log()) > 3)
    size = rotated.stat().st_size
    count = len(container.log())
    until(lambda: len(container.log()) > count)
    assert rotated.stat().st_size == size


def test_log_has_the_last_words(pod):
    """Nothing is lost of what a container writes as it ends."""
    containers = [pod.container(["sh", "-c", f"{LONG.format(200000)}; echo last"]).start()
                  for _ in range(5)]
    for container in containers:
        until(lambda c=container: c.state() == "EXITED")
        until(lambda c=container: ("stdout", "last") in c.log())
        text = "".join(text for _, text in container.log())
        assert len(text) == 200000 + len("last")
