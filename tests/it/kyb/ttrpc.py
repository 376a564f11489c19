# SPDX-License-Identifier: Apache-2.0
"""ttrpc for tests: a client, a server, and the frames themselves for misbehaving on purpose.

A frame is 10 bytes of header (length and stream id big-endian, type, flags) and a protobuf
message. Only unary calls: the Task and Events services have no others. (ttrpc repo: PROTOCOL.md)
"""
import os
import socket
import struct
import threading
from concurrent import futures

from . import env
from .protos import ttrpc as pb
from .wait import Timeout

HEADER = struct.Struct(">IIBB")
REQUEST, RESPONSE, DATA = 1, 2, 3
MAX_MESSAGE = 4 << 20

(OK, CANCELED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS,
 PERMISSION_DENIED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE, UNIMPLEMENTED,
 INTERNAL, UNAVAILABLE, DATA_LOSS, UNAUTHENTICATED) = range(17)


class Error(Exception):
    """A call answered with a status other than OK."""

    def __init__(self, code, message):
        super().__init__(f"code {code}: {message}")
        self.code = code
        self.message = message


class Closed(Exception):
    """The connection ended before the answer came."""


def frame(stream, kind, payload, flags=0):
    return HEADER.pack(len(payload), stream, kind, flags) + payload


def read_exact(sock, n):
    """n bytes, or None at the end of the stream."""
    data = bytearray()
    while len(data) < n:
        part = sock.recv(min(n - len(data), 1 << 20))
        if not part:
            return None
        data += part
    return bytes(data)


def read_frame(sock):
    """(stream, type, flags, payload), or None at the end of the stream."""
    head = read_exact(sock, HEADER.size)
    if head is None:
        return None
    length, stream, kind, flags = HEADER.unpack(head)
    payload = read_exact(sock, length)
    return None if payload is None else (stream, kind, flags, payload)


def request(service, method, message=b"", timeout_ns=0, metadata=()):
    """The bytes of a Request; message is a protobuf message or bytes."""
    payload = message if isinstance(message, bytes) else message.SerializeToString()
    req = pb.Request(service=service, method=method, payload=payload, timeout_nano=timeout_ns)
    for key, value in metadata:
        req.metadata.add(key=key, value=value)
    return req.SerializeToString()


def connect(path, timeout=5):
    """A connected socket; path may be an address ('unix://...')."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.settimeout(env.seconds(timeout))
    try:
        sock.connect(path[len("unix://"):] if path.startswith("unix://") else path)
    except BaseException:
        sock.close()
        raise
    sock.settimeout(None)
    return sock


def answer(future, timeout=30):
    """What a call's Future came to; the test fails when nothing comes in time."""
    try:
        return future.result(env.seconds(timeout))
    except futures.TimeoutError:
        raise Timeout(f"no answer within {env.seconds(timeout):g} s") from None


class Client:
    """One connection; calls may be made from any thread and run concurrently."""

    def __init__(self, path):
        self.sock = connect(path)
        self._lock = threading.Lock()
        self._next = 1
        self._waiting = {}
        self._closed = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        try:
            while True:
                got = read_frame(self.sock)
                if got is None:
                    break
                stream, kind, _, payload = got
                if kind != RESPONSE:
                    continue
                with self._lock:
                    future = self._waiting.pop(stream, None)
                if future is not None:
                    future.set_result(payload)
        except OSError:
            pass
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.set_exception(Closed("connection closed"))

    def call_async(self, service, method, message=b"", reply=None, timeout=None, metadata=()):
        """A Future of the reply message (bytes when reply is None), or of Error or Closed.

        timeout (seconds) is only what the server is told.
        """
        data = request(service, method, message, int((timeout or 0) * 1e9), metadata)
        raw, result = futures.Future(), futures.Future()

        def decode(done):
            try:
                response = pb.Response.FromString(done.result())
                if response.status.code:
                    raise Error(response.status.code, response.status.message)
                result.set_result(response.payload if reply is None
                                  else reply.FromString(response.payload))
            except Exception as error:  # pylint: disable=broad-except
                result.set_exception(error)

        raw.add_done_callback(decode)
        with self._lock:  # ids have to rise on the wire
            if self._closed:
                raise Closed("connection closed")
            stream, self._next = self._next, self._next + 2
            self._waiting[stream] = raw
            try:
                self.sock.sendall(frame(stream, REQUEST, data))
            except OSError as error:
                self._waiting.pop(stream, None)
                raise Closed(str(error)) from error
        return result

    def call(self, service, method, message=b"", reply=None, timeout=30, metadata=()):
        """The reply message; raises Error, Closed, or Timeout when none comes at all."""
        return answer(self.call_async(service, method, message, reply, None, metadata), timeout)

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._reader.join(env.seconds(5))
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class Server:
    """Listens on a Unix socket and answers unary calls one after the other per connection.

    handler(service, method, payload, metadata) returns the payload of the answer or raises Error;
    raising Drop closes the connection without an answer.
    """

    class Drop(Exception):
        pass

    def __init__(self, path, handler):
        self.path = str(path)
        self.handler = handler
        self._connections = set()
        self._lock = threading.Lock()
        self._listener = None
        self.start()

    def start(self):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.bind(self.path)
        listener.listen(64)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                if self._listener is not listener:
                    sock.close()
                    return
                self._connections.add(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        try:
            while True:
                got = read_frame(sock)
                if got is None:
                    break
                stream, _, _, payload = got
                req = pb.Request.FromString(payload)
                response = pb.Response()
                try:
                    metadata = [(kv.key, kv.value) for kv in req.metadata]
                    response.payload = self.handler(req.service, req.method, req.payload, metadata)
                except Error as error:
                    response.status.code = error.code
                    response.status.message = error.message
                sock.sendall(frame(stream, RESPONSE, response.SerializeToString()))
        except (OSError, Server.Drop):
            pass
        finally:
            with self._lock:
                self._connections.discard(sock)
            sock.close()

    def stop(self):
        """Closes the listener, its file and every connection: what a dead containerd looks like."""
        with self._lock:
            listener, self._listener = self._listener, None
            connections = list(self._connections)
        if listener is None:
            return
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for sock in connections:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
