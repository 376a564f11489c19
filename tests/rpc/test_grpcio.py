#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Our gRPC server and client against grpcio, in both directions.

Usage: test_grpcio.py SERVER CLIENT (the two programs of this folder). Messages are plain bytes.
"""
import concurrent.futures
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

try:
    import grpc
except ImportError as e:
    print(f"skipped: {e} (Debian: python3-grpcio)")
    sys.exit(77)

SERVER, CLIENT = sys.argv[1:3]
SERVICE = "/kybernate.test.Echo/"
TIMEOUT = 30
MIB = 1 << 20
BIG = 16 * MIB
OPTIONS = [("grpc.max_receive_message_length", BIG), ("grpc.max_send_message_length", -1)]


def block(n):
    """What echo_block() makes."""
    pattern = bytes(range(251))
    return (pattern * (n // 251 + 1))[:n]


class OurServer(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="kyb-grpc-")
        self.path = self.dir.name + "/s"
        self.server = subprocess.Popen([SERVER, self.path, str(BIG)], stdout=subprocess.PIPE,
                                       text=True)
        self.addCleanup(self.server.stdout.close)
        self.addCleanup(self.server.wait, TIMEOUT)
        self.addCleanup(self.server.kill)
        self.assertEqual(self.server.stdout.readline(), "ready\n")
        self.channel = grpc.insecure_channel("unix:" + self.path, options=OPTIONS)

    def tearDown(self):
        self.channel.close()
        self.server.send_signal(signal.SIGTERM)
        out, _ = self.server.communicate(timeout=TIMEOUT)
        self.dir.cleanup()
        self.assertEqual(self.server.returncode, 0)
        self.assertIn("connections=0 calls=0 memory=0", out)

    def unary(self, method, request, **kw):
        return self.channel.unary_unary(SERVICE + method)(request, timeout=TIMEOUT, **kw)

    def error_of(self, method, request, **kw):
        with self.assertRaises(grpc.RpcError) as caught:
            self.unary(method, request, **kw)
        return caught.exception

    def ended(self):
        """The server's next line; it must come soon."""
        ready, _, _ = select.select([self.server.stdout], [], [], TIMEOUT)
        self.assertTrue(ready)
        return self.server.stdout.readline().split()

    def test_unary(self):
        self.assertEqual(self.unary("Unary", b"hello"), b"hello")
        self.assertEqual(self.unary("Unary", b""), b"")
        self.assertEqual(self.unary("Peer", b""), str(os.getpid()).encode())

    def test_a_thousand_calls(self):
        call = self.channel.unary_unary(SERVICE + "Unary")
        for i in range(1000):
            self.assertEqual(call(b"%d" % i, timeout=TIMEOUT), b"%d" % i)

    def test_many_calls_at_once(self):
        call = self.channel.unary_unary(SERVICE + "Unary")
        futures = [call.future(b"%d" % i, timeout=TIMEOUT) for i in range(1000)]
        self.assertEqual([f.result() for f in futures], [b"%d" % i for i in range(1000)])

    def test_many_connections(self):
        for _ in range(3):
            channels = [grpc.insecure_channel("unix:" + self.path,
                                              [("grpc.use_local_subchannel_pool", 1)])
                        for _ in range(60)]
            for c in channels:
                self.assertEqual(c.unary_unary(SERVICE + "Unary")(b"x", timeout=TIMEOUT), b"x")
            for c in channels:
                c.close()

    def test_server_stream(self):
        stream = self.channel.unary_stream(SERVICE + "Stream")(b"1000 1000", timeout=TIMEOUT)
        self.assertEqual([len(m) for m in stream], [1000] * 1000)
        stream = self.channel.unary_stream(SERVICE + "Stream")(b"0 0", timeout=TIMEOUT)
        self.assertEqual(list(stream), [])

    def test_server_stream_of_large_messages_and_a_slow_reader(self):
        stream = self.channel.unary_stream(SERVICE + "Stream")(b"4 %d" % (8 * MIB),
                                                               timeout=TIMEOUT)
        for m in stream:
            self.assertEqual(m, block(8 * MIB))
            time.sleep(0.2)

    def test_chat(self):
        go = threading.Semaphore(1)

        def messages():
            for i in range(100):
                go.acquire()
                yield b"%d" % i

        n = 0
        for m in self.channel.stream_stream(SERVICE + "Chat")(messages(), timeout=TIMEOUT):
            self.assertEqual(m, b"%d" % n)
            n += 1
            go.release()
        self.assertEqual(n, 100)

    def test_chat_of_large_messages(self):
        big = block(8 * MIB)
        chat = self.channel.stream_stream(SERVICE + "Chat")(iter([big] * 5), timeout=TIMEOUT)
        for m in chat:
            self.assertTrue(m == big)
        self.assertEqual(chat.code(), grpc.StatusCode.OK)

    def test_a_chat_in_steps_of_16_kib(self):
        step = block(16384)
        chat = self.channel.stream_stream(SERVICE + "Chat")(iter([step] * 512), timeout=TIMEOUT)
        self.assertEqual(sum(len(m) for m in chat), 8 * MIB)

    def test_errors(self):
        for text in ["naïve café: 100% 日本語", "", "two\nlines ", "ä" * 1000]:
            e = self.error_of("Fail", f"9 {text}".encode())
            self.assertEqual(e.code(), grpc.StatusCode.FAILED_PRECONDITION)
            self.assertEqual(e.details(), text[:512])  # 1024 bytes, whole characters
            trailers = dict(e.trailing_metadata())
            self.assertEqual(trailers["grpc-status-details-bin"], b"\x08\x09\x00\xff")

    def test_unknown_method(self):
        e = self.error_of("Nope", b"")
        self.assertEqual(e.code(), grpc.StatusCode.UNIMPLEMENTED)
        self.assertEqual(e.details(), SERVICE + "Nope is not served here")

    def test_compression_is_refused(self):
        e = self.error_of("Unary", b"x" * 1000, compression=grpc.Compression.Gzip)
        self.assertEqual(e.code(), grpc.StatusCode.UNIMPLEMENTED)

    def test_too_large_a_message(self):
        e = self.error_of("Unary", b"x" * (BIG + 1))
        self.assertEqual(e.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)

    def test_metadata(self):
        meta = [("containerd-namespace", "k8s.io"), ("trace-bin", b"\x00\xff\x01")]
        self.assertEqual(self.unary("Meta", b"containerd-namespace", metadata=meta), b"k8s.io")
        self.assertEqual(self.unary("Meta", b"trace-bin", metadata=meta).rstrip(b"="), b"AP8B")
        self.assertIn(b"grpc-python", self.unary("Meta", b"user-agent"))
        self.assertEqual(self.error_of("Meta", b"none").code(), grpc.StatusCode.NOT_FOUND)

    def test_too_much_metadata(self):
        e = self.error_of("Unary", b"", metadata=[("big", "x" * 9000)])
        self.assertEqual(e.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)

    def test_deadline(self):
        begin = time.monotonic()
        with self.assertRaises(grpc.RpcError) as caught:
            self.channel.unary_unary(SERVICE + "Hang")(b"", timeout=0.2)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertLess(time.monotonic() - begin, 5)
        method, why = self.ended()
        self.assertEqual(method, SERVICE + "Hang")
        self.assertIn(why, ["DEADLINE", "CANCELED"])

    def test_cancel(self):
        call = self.channel.unary_unary(SERVICE + "Hang").future(b"", timeout=TIMEOUT)
        self.unary("Unary", b"")  # the call has come before this one
        call.cancel()
        self.assertEqual(self.ended(), [SERVICE + "Hang", "CANCELED"])

    def test_cancel_a_stream(self):
        stream = self.channel.unary_stream(SERVICE + "Stream")(b"1000000 1000", timeout=TIMEOUT)
        self.assertEqual(len(next(stream)), 1000)
        stream.cancel()
        self.assertEqual(self.ended(), [SERVICE + "Stream", "CANCELED"])

    def test_a_client_that_dies(self):
        code = ("import grpc, os, sys, threading\n"
                "c = grpc.insecure_channel('unix:' + sys.argv[1])\n"
                "wait = threading.Event()\n"
                "def messages():\n"
                "    yield b'x'\n"
                "    wait.wait()\n"
                "s = c.stream_stream(sys.argv[2])(messages())\n"
                "next(s)\n"
                "os._exit(0)\n")
        subprocess.run([sys.executable, "-c", code, self.path, SERVICE + "Chat"], check=True,
                       timeout=TIMEOUT)
        self.assertEqual(self.ended(), [SERVICE + "Chat", "LOST"])

    def test_shutdown_lets_a_stream_end(self):
        go = threading.Event()

        def messages():
            yield b"a"
            go.wait(TIMEOUT)
            yield b"b"

        chat = self.channel.stream_stream(SERVICE + "Chat")(messages(), timeout=TIMEOUT)
        self.assertEqual(next(chat), b"a")
        self.server.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        go.set()
        self.assertEqual(list(chat), [b"b"])


class Handler(grpc.GenericRpcHandler):
    """The same service, by grpcio."""

    def __init__(self):
        self.canceled = threading.Event()

    def unary(self, request, context):
        return request

    def chat(self, requests, context):
        yield from requests

    def stream(self, request, context):
        count, size = request.split()
        for _ in range(int(count)):
            yield block(int(size))

    def fail(self, request, context):
        context.set_trailing_metadata([("grpc-status-details-bin", b"\x08\x09\x00\xff")])
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, request.decode())

    def hang(self, requests, context):
        context.add_callback(self.canceled.set)
        for r in requests:
            yield r
        self.canceled.wait(TIMEOUT)

    def meta(self, request, context):
        value = dict(context.invocation_metadata())[request.decode()]
        return value if isinstance(value, bytes) else value.encode()

    def service(self, call):
        return {
            SERVICE + "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            SERVICE + "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            SERVICE + "Stream": grpc.unary_stream_rpc_method_handler(self.stream),
            SERVICE + "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            SERVICE + "Hang": grpc.stream_stream_rpc_method_handler(self.hang),
            SERVICE + "Meta": grpc.unary_unary_rpc_method_handler(self.meta),
        }.get(call.method)


class OurClient(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="kyb-grpc-")
        self.path = self.dir.name + "/s"
        self.handler = Handler()
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), options=OPTIONS)
        self.server.add_generic_rpc_handlers([self.handler])
        self.server.add_insecure_port("unix:" + self.path)
        self.server.start()

    def tearDown(self):
        self.server.stop(None).wait()
        self.dir.cleanup()

    def call(self, method, *options):
        out = subprocess.run([CLIENT, *options, self.path, SERVICE + method], check=True,
                             stdout=subprocess.PIPE, timeout=TIMEOUT).stdout.decode()
        head, text = out.rstrip("\n").split(" text=", 1)
        result = dict(pair.split("=", 1) for pair in head.split())
        self.assertEqual(result["wrong"], "0")
        return result, text

    def test_unary(self):
        r, _ = self.call("Unary", "-m", "hello")
        self.assertEqual((r["messages"], r["bytes"], r["code"]), ("1", "5", "OK"))
        r, _ = self.call("Unary", "-m", "")
        self.assertEqual((r["messages"], r["bytes"], r["code"]), ("1", "0", "OK"))

    def test_a_thousand_calls(self):
        r, _ = self.call("Unary", "-m", "hello", "-n", "1000")
        self.assertEqual((r["calls"], r["code"]), ("1000", "OK"))

    def test_server_stream(self):
        r, _ = self.call("Stream", "-m", "1000 1000")
        self.assertEqual((r["messages"], r["bytes"], r["code"]), ("1000", "1000000", "OK"))

    def test_large_messages(self):
        n = str(8 * MIB)
        r, _ = self.call("Stream", "-m", "4 " + n, "-x", str(BIG), "-p", "100")
        self.assertEqual((r["messages"], r["bytes"], r["code"]), ("4", str(32 * MIB), "OK"))
        r, _ = self.call("Unary", "-z", n, "-x", str(BIG))
        self.assertEqual((r["bytes"], r["code"]), (n, "OK"))
        r, _ = self.call("Chat", "-z", n, "-z", n, "-z", n, "-x", str(BIG), "-p", "20")
        self.assertEqual((r["bytes"], r["code"]), (str(24 * MIB), "OK"))

    def test_a_message_larger_than_we_accept(self):
        r, _ = self.call("Stream", "-m", "1 %d" % (5 * MIB))
        self.assertEqual(r["code"], "RESOURCE_EXHAUSTED")

    def test_slow_reader_in_steps(self):
        r, _ = self.call("Stream", "-m", "512 16384", "-p", "1")
        self.assertEqual((r["bytes"], r["code"]), (str(8 * MIB), "OK"))

    def test_chat(self):
        r, _ = self.call("Chat", *["-m", "x"] * 60)
        self.assertEqual((r["messages"], r["code"]), ("60", "OK"))

    def test_errors(self):
        for text in ["naïve café: 100% 日本語", "", "two lines"]:
            r, got = self.call("Fail", "-m", text)
            self.assertEqual((r["code"], r["details"]), ("FAILED_PRECONDITION", "080900ff"))
            self.assertEqual(got, text)

    def test_unknown_method(self):
        r, text = self.call("Nope", "-m", "")
        self.assertEqual((r["code"], text), ("UNIMPLEMENTED", "Method not found!"))

    def test_metadata(self):
        r, _ = self.call("Meta", "-f", "containerd-namespace=k8s.io", "-m", "containerd-namespace")
        self.assertEqual((r["bytes"], r["code"]), ("6", "OK"))
        r, _ = self.call("Meta", "-f", "x-bin=raw", "-m", "x-bin")
        self.assertEqual((r["bytes"], r["code"]), ("3", "OK"))

    def test_deadline(self):
        r, text = self.call("Hang", "-m", "x", "-t", "200")
        self.assertEqual(r["code"], "DEADLINE_EXCEEDED")
        self.assertIn(text, ["the deadline has passed", "Deadline Exceeded"])
        self.assertTrue(self.handler.canceled.wait(TIMEOUT))

    def test_cancel(self):
        r, _ = self.call("Hang", "-m", "x", "-k", "-c")
        self.assertEqual(r["code"], "CANCELLED")
        self.assertTrue(self.handler.canceled.wait(TIMEOUT))

    def test_a_server_that_dies(self):
        client = subprocess.Popen([CLIENT, "-m", "x", "-k", self.path, SERVICE + "Chat"],
                                  stdout=subprocess.PIPE, text=True)
        time.sleep(0.3)
        self.server.stop(None).wait()
        out, _ = client.communicate(timeout=TIMEOUT)
        self.assertRegex(out, "code=(UNAVAILABLE|CANCELLED)")

    def test_nobody_there(self):
        self.server.stop(None).wait()
        r, text = self.call("Unary", "-m", "x")
        self.assertEqual(r["code"], "UNAVAILABLE")
        self.assertIn(self.path, text)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
