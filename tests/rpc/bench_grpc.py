#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What gRPC costs: time of a call, throughput of streams, memory of a connection.

Usage: bench_grpc.py SERVER CLIENT (the two programs of this folder).
"""
import atexit
import os
import re
import socket
import subprocess
import sys
import tempfile

SERVER, CLIENT = sys.argv[1:3]
SERVICE = "/kybernate.test.Echo/"
CONNECTIONS = 200
MIB = 1 << 20


def memory(pid, what="Rss"):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return int(re.search(rf"^{what}:\s+(\d+) kB", f.read(), re.M).group(1))


def frame(kind, flags, stream, payload=b""):
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


def field(name, value):
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def one_call(path, method, end=True):
    """A connection that has made one call: to its end, or it is still open."""
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    block = b"".join(field(*f) for f in [
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", (SERVICE + method).encode()),
        (b":authority", b"x"), (b"te", b"trailers"), (b"content-type", b"application/grpc")])
    s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + frame(1, 4, 1, block)
              + frame(0, end, 1, b"\0\0\0\0\1x"))
    got = s.makefile("rb")
    while True:
        head = got.read(9)
        got.read(int.from_bytes(head[:3], "big"))
        # HEADERS with END_STREAM is the whole answer, DATA the echo.
        if head[3] == 1 and head[4] & 1 or not end and head[3] == 0:
            break
    return s


def call(path, method, *options):
    out = subprocess.run([CLIENT, *options, path, SERVICE + method], check=True,
                         stdout=subprocess.PIPE, text=True).stdout
    result = dict(pair.split("=", 1) for pair in out.split(" text=")[0].split())
    if result["code"] != "OK":
        sys.exit(out)
    return int(result["us"]), int(result["bytes"])


def start(path):
    server = subprocess.Popen([SERVER, path, str(16 * MIB)], stdout=subprocess.PIPE, text=True)
    atexit.register(server.kill)
    server.stdout.readline()
    return server


def stop(server, path):
    server.terminate()
    server.wait()
    os.unlink(path)


def main():
    with tempfile.TemporaryDirectory(prefix="kyb-grpc-") as tmp:
        path = tmp + "/s"
        for what, args in [("after a call, idle", ["Unary"]), ("with an open stream",
                                                               ["Chat", False])]:
            server = start(path)
            fresh = memory(server.pid)
            first = one_call(path, *args)
            before = memory(server.pid)
            connections = [one_call(path, *args) for _ in range(CONNECTIONS)]
            print(f"server, a connection {what}: "
                  f"{(memory(server.pid) - before) / CONNECTIONS:.1f} kB Rss "
                  f"(without any: {fresh} kB)")
            for c in [first, *connections]:
                c.close()
            stop(server, path)

        server = start(path)
        n = 20000
        best = min(call(path, "Unary", "-m", "hello", "-n", str(n))[0] for _ in range(3))
        print(f"unary call, one after the other: {best / n:.1f} us")
        for size, window in [(100, 65536), (16384, 65536), (MIB, 65536), (MIB, 262144), (MIB, MIB)]:
            count = min(100000, 256 * MIB // size)
            us, got = max((call(path, "Stream", "-m", f"{count} {size}", "-w", str(window))
                           for _ in range(3)), key=lambda r: r[1] / r[0])
            print(f"server stream of {size} byte messages, window {window >> 10} KiB: "
                  f"{got / us:.0f} MB/s, {count / us * 1e6:.0f} messages/s")
        n = 20
        us, got = call(path, "Chat", *["-z", str(MIB)] * 16, "-x", str(16 * MIB), "-n", str(n))
        print(f"both ways at once, 1 MiB messages: {2 * n * got / us:.0f} MB/s")
        print(f"server afterwards: Rss {memory(server.pid)} kB")
        stop(server, path)


if __name__ == "__main__":
    os.environ["LC_ALL"] = "C"
    main()
