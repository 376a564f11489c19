# SPDX-License-Identifier: Apache-2.0
"""The wire protocol: frames, status codes, concurrency, misbehaving peers.

Sources: ttrpc repo, PROTOCOL.md, channel.go, server.go.
"""
import socket
import struct
import time

import pytest

from kyb import env, procs, protos, ttrpc
from kyb.protos import task as pb
from kyb.wait import until


class Raw:
    """A connection on which a test writes bytes of its own making."""

    def __init__(self, container):
        self.sock = ttrpc.connect(container.address)
        self.sock.settimeout(env.seconds(10))
        self.service = container.task.service

    def send(self, data):
        self.sock.sendall(data)

    def call(self, stream, method="Connect", message=None, service=None, **more):
        message = pb.ConnectRequest(id="x") if message is None else message
        self.send(ttrpc.frame(stream, ttrpc.REQUEST, ttrpc.request(
            service or self.service, method, message, **more)))

    def reply(self):
        """(stream, Response), or None when the connection ended."""
        try:
            got = ttrpc.read_frame(self.sock)
        except ConnectionResetError:
            return None
        if got is None:
            return None
        stream, kind, _, payload = got
        assert kind == ttrpc.RESPONSE
        return stream, protos.ttrpc.Response.FromString(payload)

    def code(self, stream):
        """Status code of the next answer, which must be to stream."""
        answered, response = self.reply()
        assert answered == stream
        return response.status.code


@pytest.fixture
def shim(world):
    return world.container()


@pytest.fixture
def raw(shim):
    made = Raw(shim)
    yield made
    made.sock.close()


def test_response_frame(raw):
    raw.call(1)
    stream, kind, flags, payload = ttrpc.read_frame(raw.sock)
    assert (stream, kind, flags) == (1, ttrpc.RESPONSE, 0)
    response = protos.ttrpc.Response.FromString(payload)
    assert response.status.code == ttrpc.OK
    assert pb.ConnectResponse.FromString(response.payload).shim_pid > 0


def test_error_response_has_no_payload(raw):
    raw.call(1, "State", pb.StateRequest(id="nobody"))
    _, response = raw.reply()
    assert response.status.code == ttrpc.NOT_FOUND
    assert response.status.message
    assert response.payload == b""


@pytest.mark.parametrize("service, method", [
    ("containerd.task.v2.Task", "NoSuchMethod"), ("no.such.Service", "State"), ("", ""),
    ("containerd.runtime.sandbox.v1.Sandbox", "CreateSandbox")])
def test_unknown_method_is_unimplemented(raw, service, method):
    """This very code drives containerd's downgrades and probes."""
    raw.call(1, method, service=service)
    assert raw.code(1) == ttrpc.UNIMPLEMENTED
    raw.call(3)
    assert raw.code(3) == ttrpc.OK


def test_undecodable_payload(raw):
    raw.call(1, message=b"\x0a\xff\xff\xff\x7f")
    assert raw.code(1) in (ttrpc.INVALID_ARGUMENT, ttrpc.INTERNAL)  # Go's ttrpc: the latter
    raw.call(3)
    assert raw.code(3) == ttrpc.OK


def test_unknown_fields_are_skipped(raw):
    raw.call(1, message=pb.ConnectRequest(id="x").SerializeToString() + b"\xa0\x06\x01")
    assert raw.code(1) == ttrpc.OK


def test_undecodable_request(raw):
    """The envelope itself is broken: an error or the end of the connection, and nobody else
    notices."""
    raw.send(ttrpc.frame(1, ttrpc.REQUEST, b"\x0a\xff\xff\xff\x7f"))
    reply = raw.reply()
    assert reply is None or reply[1].status.code != ttrpc.OK


def test_empty_payload(raw):
    """An Empty or all-default message has no bytes."""
    raw.call(1, "Connect", b"")
    assert raw.code(1) == ttrpc.OK


def test_empty_frame(raw, shim):
    raw.send(ttrpc.frame(1, ttrpc.REQUEST, b""))
    reply = raw.reply()
    assert reply is None or reply[1].status.code != ttrpc.OK
    assert shim.shim_pid()


def test_oversized_message_is_refused_and_the_connection_kept(raw):
    """More than 4 MiB: the body is read and dropped."""
    body = ttrpc.request(raw.service, "Connect", bytes(ttrpc.MAX_MESSAGE))
    assert len(body) > ttrpc.MAX_MESSAGE
    raw.send(ttrpc.frame(1, ttrpc.REQUEST, body))
    assert raw.code(1) == ttrpc.RESOURCE_EXHAUSTED
    raw.call(3)
    assert raw.code(3) == ttrpc.OK


def test_largest_message(raw):
    message = pb.ConnectRequest(id="x" * (ttrpc.MAX_MESSAGE - 200))
    raw.call(1, message=message)
    assert raw.code(1) == ttrpc.OK


def test_even_stream_id(raw):
    raw.call(2)
    assert raw.code(2) == ttrpc.INVALID_ARGUMENT


@pytest.mark.parametrize("second", [5, 3, 1])
def test_stream_ids_must_rise(raw, second):
    raw.call(5)
    assert raw.code(5) == ttrpc.OK
    raw.call(second)
    assert raw.code(second) == ttrpc.INVALID_ARGUMENT


def test_stream_ids_may_have_gaps(raw):
    for stream in (1, 7, 4001, 2**31 - 1):
        raw.call(stream)
        assert raw.code(stream) == ttrpc.OK


def test_unknown_frame_type_is_ignored(raw):
    raw.send(ttrpc.frame(1, 99, b"whatever"))
    raw.call(3)
    assert raw.code(3) == ttrpc.OK


def test_data_for_no_stream(raw):
    raw.send(ttrpc.frame(1, ttrpc.DATA, b"data"))
    assert raw.code(1) == ttrpc.INVALID_ARGUMENT
    raw.call(3)
    assert raw.code(3) == ttrpc.OK


def test_unknown_flags_are_ignored(raw):
    raw.send(ttrpc.frame(1, ttrpc.REQUEST, ttrpc.request(
        raw.service, "Connect", pb.ConnectRequest(id="x")), flags=0xf0))
    assert raw.code(1) == ttrpc.OK


def test_frame_in_single_bytes(raw):
    data = ttrpc.frame(1, ttrpc.REQUEST, ttrpc.request(raw.service, "Connect",
                                                       pb.ConnectRequest(id="x")))
    for byte in data:
        raw.send(bytes([byte]))
        time.sleep(0.001)  # so that they are segments of their own
    assert raw.code(1) == ttrpc.OK


def test_many_frames_in_one_write(raw):
    data = b"".join(ttrpc.frame(stream, ttrpc.REQUEST, ttrpc.request(
        raw.service, "Connect", pb.ConnectRequest(id="x"))) for stream in range(1, 401, 2))
    raw.send(data)
    answers = [raw.reply() for _ in range(200)]
    assert sorted(stream for stream, _ in answers) == list(range(1, 401, 2))
    assert all(response.status.code == ttrpc.OK for _, response in answers)


def test_metadata_is_no_obstacle(shim):
    reply = shim.task.call(shim.task.service, "Connect", pb.ConnectRequest(id="x"),
                           pb.ConnectResponse, metadata=[
                               ("containerd-namespace-ttrpc", "a"), ("a", "1"), ("a", "2"),
                               ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-"
                                "b7ad6b7169203331-01")])
    assert reply.shim_pid


def test_requests_of_a_connection_run_side_by_side(world):
    """Wait blocks for hours; State has two seconds."""
    container = world.running()
    waits = [container.wait_async() for _ in range(20)]
    began = time.monotonic()
    assert container.status == "RUNNING"
    assert time.monotonic() - began < env.seconds(1)
    assert not any(w.done() for w in waits)
    container.kill()
    for wait in waits:
        assert ttrpc.answer(wait).exit_status == 137


def test_many_connections(world):
    container = world.running()
    clients = [ttrpc.Client(container.address) for _ in range(50)]
    futures = [c.call_async(container.task.service, "State", pb.StateRequest(id=container.id),
                            pb.StateResponse) for c in clients]
    assert all(ttrpc.answer(f).pid == container.pid for f in futures)
    for client in clients:
        client.close()
    assert container.status == "RUNNING"


def test_closing_a_connection_leaves_containers_alone(world):
    container = world.running()
    wait = container.wait_async()
    container.task.close()
    with pytest.raises(ttrpc.Closed):
        ttrpc.answer(wait)
    container.connect(world.service_of(container))
    assert container.status == "RUNNING"
    container.kill()
    assert container.finish().exit_status == 137


def test_connection_cut_in_a_frame(shim):
    for cut in (1, 9, 10, 15):
        raw = Raw(shim)
        data = ttrpc.frame(1, ttrpc.REQUEST, ttrpc.request(raw.service, "Connect",
                                                           pb.ConnectRequest(id="x")))
        raw.send(data[:cut])
        raw.sock.close()
    assert shim.shim_pid()


def test_half_closed_connection_gets_its_answer(raw):
    """The peer has said all it wants to say, but still reads."""
    raw.call(1)
    raw.sock.shutdown(socket.SHUT_WR)
    reply = raw.reply()
    assert reply is None or reply[1].status.code == ttrpc.OK


def test_garbage_ends_only_its_own_connection(shim):
    raw = Raw(shim)
    raw.send(b"GET / HTTP/1.1\r\nHost: shim\r\n\r\n" * 4)
    raw.sock.close()
    raw = Raw(shim)
    raw.send(struct.pack(">IIBB", 0xffffffff, 1, 1, 0) + b"x" * 100)
    raw.sock.close()
    assert shim.shim_pid()


def test_connection_storm_leaks_nothing(shim):
    pid = shim.shim_pid()
    before = len(procs.fds(pid))
    for _ in range(100):
        with ttrpc.Client(shim.address) as client:
            client.call(shim.task.service, "Connect", pb.ConnectRequest(id="x"))
    until(lambda: len(procs.fds(pid)) <= before + 2, what="descriptors closed")


def test_slow_reader_does_not_hold_up_others(world):
    """A peer that asks a lot and reads nothing."""
    container = world.running()
    raw = Raw(container)
    raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.sock.settimeout(0.5)
    stream = 1
    try:
        for _ in range(3000):
            raw.call(stream, "State", pb.StateRequest(id=container.id))
            stream += 2
    except (TimeoutError, socket.timeout):
        pass  # the shim has stopped reading from us, as it may
    began = time.monotonic()
    assert container.status == "RUNNING"
    assert time.monotonic() - began < env.seconds(2)
    raw.sock.close()


def test_deadline_of_a_wait(world):
    """timeout_nano counts from receipt; afterwards nothing is broken."""
    container = world.running()
    future = container.task.call_async(container.task.service, "Wait",
                                       pb.WaitRequest(id=container.id), pb.WaitResponse,
                                       timeout=env.seconds(0.2))
    with pytest.raises(ttrpc.Error) as caught:
        ttrpc.answer(future, 5)
    assert caught.value.code in (ttrpc.DEADLINE_EXCEEDED, ttrpc.CANCELED)
    assert container.status == "RUNNING"
