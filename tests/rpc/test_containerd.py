#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Our gRPC client against containerd's own API, and containerd's client against our server.

Usage: test_containerd.py SERVER CLIENT (the two programs of this folder). containerd runs with
folders of its own. Field numbers: containerd api/services/content/v1/content.proto.
"""
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

SERVER, CLIENT = sys.argv[1:3]
TIMEOUT = 60
MIB = 1 << 20
CONTENT = "/containerd.services.content.v1.Content/"

if os.geteuid() != 0 or not shutil.which("containerd") or not shutil.which("ctr"):
    print("skipped: needs root, containerd and ctr")
    sys.exit(77)

CONFIG = """version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{0}/c.sock"
[ttrpc]
  address = "{0}/t.sock"
"""


def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out + bytes([n]))


def number(field, n):
    return varint(field << 3) + varint(n)


def data(field, b):
    return varint(field << 3 | 2) + varint(len(b)) + b


def fields(b):
    """The fields of a message, or of messages one after the other."""
    def take():
        nonlocal at
        n = shift = 0
        while True:
            byte = b[at]
            at += 1
            n |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return n

    at = 0
    while at < len(b):
        key = take()
        n = take()
        if key & 7 == 2:
            yield key >> 3, b[at:at + n]
            at += n
        else:
            yield key >> 3, n


class Containerd(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tmp = tempfile.TemporaryDirectory(prefix="kyb-grpc-")
        cls.dir = cls.tmp.name
        with open(cls.dir + "/config.toml", "w") as f:
            f.write(CONFIG.format(cls.dir))
        with open(cls.dir + "/log", "w") as log:
            cls.containerd = subprocess.Popen(["containerd", "-c", cls.dir + "/config.toml"],
                                              stdout=log, stderr=log)
        cls.path = cls.dir + "/c.sock"
        end = time.monotonic() + TIMEOUT
        while not os.path.exists(cls.path) and time.monotonic() < end:
            time.sleep(0.05)

    @classmethod
    def tearDownClass(cls):
        cls.containerd.terminate()
        cls.containerd.wait(TIMEOUT)
        cls.tmp.cleanup()

    def call(self, method, *options, messages=()):
        args = []
        for i, m in enumerate(messages):
            with open(f"{self.dir}/in.{i}", "wb") as f:
                f.write(m)
            args += ["-i", f"{self.dir}/in.{i}"]
        out = subprocess.run([CLIENT, "-f", "containerd-namespace=kyb", "-o", self.dir + "/out",
                              "-x", str(16 * MIB), *options, *args, self.path, method],
                             check=True, stdout=subprocess.PIPE, timeout=TIMEOUT, text=True).stdout
        head, text = out.rstrip("\n").split(" text=", 1)
        with open(self.dir + "/out", "rb") as f:
            return dict(p.split("=", 1) for p in head.split()), text, f.read()

    def test_version(self):
        r, _, reply = self.call("/containerd.services.version.v1.Version/Version",
                                messages=[b""])
        self.assertEqual((r["code"], r["messages"]), ("OK", "1"))
        self.assertTrue(dict(fields(reply))[1])

    def test_a_namespace_is_required(self):
        out = subprocess.run([CLIENT, "-m", "", self.path,
                              "/containerd.services.containers.v1.Containers/List"],
                             stdout=subprocess.PIPE, check=True, timeout=TIMEOUT, text=True).stdout
        self.assertIn("code=FAILED_PRECONDITION", out)
        self.assertIn("namespace is required", out)

    def test_content_written_and_read(self):
        blob = os.urandom(MIB) * 24
        digest = "sha256:" + hashlib.sha256(blob).hexdigest()
        step = 4 * MIB - 1000
        writes = [number(1, 1) + data(2, b"ref") + number(5, at) + data(6, blob[at:at + step])
                  for at in range(0, len(blob), step)]
        commit = (number(1, 2) + data(2, b"ref") + number(3, len(blob))
                  + data(4, digest.encode()) + number(5, len(blob)))
        r, text, reply = self.call(CONTENT + "Write", messages=writes + [commit])
        self.assertEqual((r["code"], text), ("OK", ""))
        self.assertEqual(int(r["messages"]), len(writes) + 2)  # the last one it sends twice
        self.assertEqual([v for f, v in fields(reply) if f == 6][-1], digest.encode())

        for options in [], ["-p", "5"]:  # as fast as it goes; and slowly
            r, text, reply = self.call(CONTENT + "Read", *options,
                                       messages=[data(1, digest.encode())])
            self.assertEqual((r["code"], text), ("OK", ""))
            self.assertTrue(b"".join(v for f, v in fields(reply) if f == 2) == blob)

        r, text, _ = self.call(CONTENT + "Info", messages=[data(1, b"sha256:" + b"0" * 64)])
        self.assertEqual(r["code"], "NOT_FOUND")


class Ctr(unittest.TestCase):
    """containerd's client is the other implementation: grpc-go."""

    def test_ctr_understands_our_answers(self):
        with tempfile.TemporaryDirectory(prefix="kyb-grpc-") as tmp:
            server = subprocess.Popen([SERVER, tmp + "/s"], stdout=subprocess.PIPE, text=True)
            self.addCleanup(server.stdout.close)
            self.addCleanup(server.wait, TIMEOUT)
            self.addCleanup(server.kill)
            self.assertEqual(server.stdout.readline(), "ready\n")
            for _ in range(3):
                ctr = subprocess.run(["ctr", "--address", tmp + "/s", "version"],
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                     timeout=TIMEOUT, text=True, check=False)
                self.assertIn("code = Unimplemented desc = /containerd.services.version.v1."
                              "Version/Version is not served here", ctr.stdout)
            server.send_signal(signal.SIGTERM)
            self.assertIn("calls=0 memory=0", server.stdout.read())


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
