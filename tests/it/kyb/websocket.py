# SPDX-License-Identifier: Apache-2.0
"""The streams of CRI's exec, attach and port-forward, over WebSocket (RFC 6455).

containerd's streaming server speaks the protocol of Kubernetes' remote commands
(v4.channel.k8s.io): each binary message is one byte with the number of a channel, then data.
"""
import base64
import json
import os
import re
import socket
import struct
import threading
import urllib.parse

from . import env
from .wait import Timeout

STDIN, STDOUT, STDERR, STATUS, RESIZE = range(5)
_BINARY, _CLOSE, _PING, _PONG = 2, 8, 9, 10


class Channels:
    """A connection with numbered channels, read by a thread of its own."""

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port), env.seconds(10))
        self._socket.settimeout(None)
        self._changed = threading.Condition()
        self._data = {}
        self.closed = False
        self._buffer = b""
        self._shake_hands(parts)
        threading.Thread(target=self._run, daemon=True).start()

    def _shake_hands(self, parts):
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall((
            f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: v4.channel.k8s.io\r\nOrigin: http://localhost\r\n\r\n"
        ).encode())
        while b"\r\n\r\n" not in self._buffer:
            part = self._socket.recv(4096)
            assert part, f"no handshake: {self._buffer!r}"
            self._buffer += part
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        assert re.match(rb"HTTP/1.1 101 ", head), head

    def _take(self, size):
        while len(self._buffer) < size:
            part = self._socket.recv(1 << 16)
            if not part:
                raise EOFError
            self._buffer += part
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _frame(self):
        """(opcode, payload) of the next one; servers do not mask theirs."""
        first, size = self._take(2)
        if size == 126:
            (size,) = struct.unpack(">H", self._take(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self._take(8))
        return first & 15, self._take(size)

    def _run(self):
        try:
            while True:
                opcode, payload = self._frame()
                if opcode == _CLOSE:
                    break
                if opcode == _PING:
                    self._write(_PONG, payload)
                elif payload:
                    with self._changed:
                        self._data.setdefault(payload[0], bytearray()).extend(payload[1:])
                        self._changed.notify_all()
        except (EOFError, OSError):
            pass
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def _write(self, opcode, payload):
        mask = os.urandom(4)
        head = bytes([0x80 | opcode])
        if len(payload) < 126:
            head += bytes([0x80 | len(payload)])
        else:
            head += bytes([0x80 | 126]) + struct.pack(">H", len(payload))
        masked = bytes(b ^ mask[i % 4] for i, b in enumerate(payload))
        self._socket.sendall(head + mask + masked)

    def send(self, data, channel=STDIN):
        for start in range(0, len(data), 32768):
            self._write(_BINARY, bytes([channel]) + data[start:start + 32768])

    def resize(self, width, height):
        self.send(json.dumps({"Width": width, "Height": height}).encode(), RESIZE)

    def data(self, channel=STDOUT):
        with self._changed:
            return bytes(self._data.get(channel, b""))

    def wait_for(self, wanted, channel=STDOUT, timeout=10):
        """Until the channel holds the bytes; everything of it so far."""
        with self._changed:
            if not self._changed.wait_for(lambda: wanted in self._data.get(channel, b""),
                                          env.seconds(timeout)):
                raise Timeout(f"no {wanted!r} in {self._data}")
            return bytes(self._data[channel])

    def status(self, timeout=10):
        """The exit status that the server told at the end."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.closed, env.seconds(timeout)):
                raise Timeout(f"the stream does not end: {self._data}")
        told = json.loads(self.data(STATUS))
        if told["status"] == "Success":
            return 0
        (code,) = [c["message"] for c in told["details"]["causes"] if c["reason"] == "ExitCode"]
        return int(code)

    def close(self):
        """As a client that goes away."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the server was quicker
        self._socket.close()
