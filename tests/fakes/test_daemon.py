# SPDX-License-Identifier: Apache-2.0
"""The daemon in bad company: broken clients, greedy clients, clients that stop reading."""

import os
import random
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import time

import pytest

from fakegpu import Caller, FakeGpu, FakeGpuError, Shell, bin_dir, wait_for

HELLO, RESULT, GPUS, ALLOC, FREE, LAUNCH, SYNC, MAP = 1, 2, 3, 4, 5, 6, 7, 8
DONE, CALL = 13, 16
APP, RESTORER, DRIVER, CONTROL = 1, 2, 3, 5
MIB = 1 << 20


def message(kind, *args, data=b"", seq=1, length=None, n=None):
    body = struct.pack(f"<{len(args)}Q", *args) + data
    return struct.pack("<IHHQ", len(body) if length is None else length, kind,
                       len(args) if n is None else n, seq) + body


class Raw:
    def __init__(self, gpu, role=None):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(10)
        self.s.connect(str(gpu.socket))
        if role is not None:
            assert self.ask(HELLO, role, 1, os.getpid())[1][0] == 0

    def send(self, *args, **kwargs):
        self.s.sendall(message(*args, **kwargs))

    def exactly(self, n):
        data = b""
        while len(data) < n:
            more = self.s.recv(n - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def recv(self):
        length, kind, n, seq = struct.unpack("<IHHQ", self.exactly(16))
        body = self.exactly(length)
        return kind, struct.unpack_from(f"<{n}Q", body), body[8 * n:], seq

    def ask(self, *args, **kwargs):
        self.send(*args, **kwargs)
        return self.recv()

    def is_cut_off(self):
        try:
            while self.s.recv(65536):
                pass
            return True
        except ConnectionError:
            return True


@pytest.mark.parametrize("data", [
    message(HELLO, APP, 1, 1, length=1 << 31),      # longer than any request
    message(HELLO, APP, 1, 1, n=200),               # more arguments than there can be
    message(HELLO, n=3),                            # arguments that are not there
    message(99), message(0), message(RESULT, 0),    # no such request
    message(GPUS),                                  # before HELLO
    message(HELLO, 77, 1, 1), message(HELLO, APP, 9, 1),
    b"\xff" * 64, os.urandom(4096)])
def test_broken_messages(gpu, data):
    raw = Raw(gpu)
    raw.s.sendall(data)
    if data[:4] == b"\xff" * 4 or len(data) != 4096:
        assert raw.is_cut_off()
    raw.s.close()
    assert gpu.status()["gpus"]


@pytest.mark.parametrize("role,kind,args", [
    (DRIVER, ALLOC, (0, 4096, 0, 0)), (APP, DONE, (0, 0)), (CONTROL, CALL, (3, 1, 0, 0)),
    (APP, HELLO, (APP, 1, 1)), (APP, LAUNCH, (0,)), (APP, CALL, (99, 0, 0, 0)),
    (RESTORER, DONE, (0, 77))])
def test_not_their_business(gpu, role, kind, args):
    raw = Raw(gpu, role)
    raw.send(kind, *args)
    assert raw.is_cut_off()
    assert gpu.status()["gpus"]


def test_random_bytes(gpu):
    rng = random.Random(1)
    for _ in range(200):
        raw = Raw(gpu, rng.choice([None, APP, DRIVER, RESTORER, CONTROL]))
        for _ in range(rng.randrange(1, 6)):
            kind = rng.randrange(0, 26)
            args = [rng.choice([0, 1, 2, 4096, 2**32, 2**63, 2**64 - 1])
                    for _ in range(rng.randrange(0, 9))]
            try:
                raw.send(kind, *args, data=rng.randbytes(rng.randrange(0, 200)))
            except OSError:
                break
        raw.s.close()
    wait_for(lambda: gpu.gpu()["used"] == 0, 20, "all VRAM to be free again")


def test_addresses_out_of_bounds(gpu):
    raw = Raw(gpu, APP)
    address = raw.ask(ALLOC, 0, 4096, 0, 0)[1][1]
    words = 4096 // 8
    for at, n, result in ((address, words + 1, 0), (address + 8, words, 0), (address - 8, 1, 0),
                          (address, 0, 0), (address + 4, 1, 0), (address, 2**61, 0),
                          (address, 1, address + 4096 - 8), (2**64 - 8, 1, 0)):
        assert raw.ask(LAUNCH, 0, at, n, 1, 0, result)[1][0] in (1, 700)
    assert raw.ask(LAUNCH, 0, address, words, 1, 0, 0)[1][0] == 0
    assert raw.ask(LAUNCH, 99, address, words, 1, 0, 0)[1][0] == 1
    assert raw.ask(FREE, address + 8)[1][0] == 1
    assert raw.ask(ALLOC, 0, 2**63, 0, 0)[1][0] == 2
    assert raw.ask(ALLOC, 9, 4096, 0, 0)[1][0] == 101
    assert raw.ask(ALLOC, 0, 4096, address, 0)[1][0] == 1  # over the first
    assert raw.ask(FREE, address)[1][0] == 0
    assert raw.ask(MAP, address)[1][0] == 1


def test_a_launch_onto_freed_memory(gpu):
    raw = Raw(gpu, APP)
    address = raw.ask(ALLOC, 0, MIB, 0, 0)[1][1]
    assert raw.ask(LAUNCH, 4, 0, 0, 2000, 0, 0)[1][0] == 0  # a kernel that sleeps
    raw.send(FREE, address)                                # waits behind it
    raw.send(LAUNCH, 0, address, 1, 1, 0, 0, seq=2)
    kind, args, _, seq = raw.recv()
    assert (kind, seq, args[0]) == (RESULT, 2, 700)
    assert raw.recv()[1][0] == 0


def test_a_client_that_dies_in_an_allocation(make_gpu):
    gpu = make_gpu(gpus=1, memory="1G")
    for _ in range(5):
        raw = Raw(gpu, APP)
        raw.send(ALLOC, 0, 900 * MIB, 0, 0)
        raw.s.close()
    wait_for(lambda: gpu.gpu()["used"] == 0, 20)


def test_too_much_work(gpu):
    raw = Raw(gpu, APP)
    codes = [raw.ask(LAUNCH, 4, 0, 0, 100, 0, 0)[1][0] for _ in range(1100)]
    assert codes[0] == 0 and codes[-1] == 2


def test_a_client_that_does_not_read(gpu):
    raw = Raw(gpu, CONTROL)
    request = message(23, data=b'{"cmd":"status"}')
    raw.s.settimeout(5)
    with pytest.raises((ConnectionError, TimeoutError)):
        for _ in range(200000):
            raw.s.sendall(request)
    assert gpu.status()["gpus"]


def test_one_big_client_does_not_block_the_others(make_gpu):
    gpu = make_gpu(gpus=1, memory="2G")
    big = Raw(gpu, APP)
    served = 0
    for _ in range(5):  # a busy machine can stop this process for as long as an allocation takes
        big.send(ALLOC, 0, 1024 * MIB, 0, 0)
        while not select.select([big.s], [], [], 0)[0]:
            Raw(gpu, DRIVER).s.close()
            served += 1
        result = big.recv()[1]
        assert result[0] == 0
        assert big.ask(FREE, result[1])[1][0] == 0
        if served > 1:  # one can have come before the allocation was begun
            return
    pytest.fail("nobody was served while memory was allocated")


def test_a_stopped_client_holds_nobody_up(gpu, caller):
    a, b = Shell(gpu, "init", "alloc 8"), Shell(gpu, "init", "alloc 8")
    os.kill(a.pid, signal.SIGSTOP)
    second = Caller(gpu)
    second.begin("lock", a.pid)
    assert caller.call("lock", b.pid, timeout=5).name == "SUCCESS"
    os.kill(a.pid, signal.SIGCONT)
    assert second.end().name == "SUCCESS"


def test_many_connections(gpu):
    raws = [Raw(gpu, DRIVER) for _ in range(300)]
    assert gpu.status()["connections"] >= 300
    for r in raws:
        r.s.close()
    wait_for(lambda: gpu.status()["connections"] == 1, 5)


def test_the_socket(tmp_path):
    with FakeGpu(dir=tmp_path) as gpu:
        with pytest.raises(FakeGpuError, match="in use"):
            FakeGpu(dir=tmp_path).start()
        gpu.daemon.kill()  # leaves its socket behind
        gpu.daemon.wait()
        gpu.daemon = None
        with FakeGpu(dir=tmp_path) as again:
            assert again.status()["gpus"]
        assert not gpu.socket.exists()
        gpu.start()


@pytest.mark.parametrize("args", [
    [], ["--socket", "x" * 200], ["--socket", "s", "--gpus", "17"],
    ["--socket", "s", "--memory", "1X"], ["--socket", "s", "--set", "branch"],
    ["--socket", "s", "--set", "none=1"], ["--socket", "s", "extra"],
    ["--socket", "s", "--config", "/nonexistent"]])
def test_bad_arguments(args, tmp_path):
    p = subprocess.run([bin_dir() / "fakegpud", *args], capture_output=True, text=True,
                       cwd=tmp_path, check=False, timeout=10)
    assert p.returncode == 1
    assert "fakegpud failed" in p.stderr


def test_bad_config(tmp_path):
    for config in ({"gpus": [{"uuid": "x"}]}, {"gpus": 3}, {"nonsense": 1}, {"branch": -1},
                   {"gpus": [{}] * 17}):
        with pytest.raises(FakeGpuError):
            FakeGpu(config=config).start()


def test_usage():
    p = subprocess.run([bin_dir() / "fakegpud", "--help"], capture_output=True, text=True,
                       check=True, timeout=10)
    assert "--socket" in p.stdout


def test_the_counter_notices(gpu):
    """gpu-counter itself: changes of its memory behind its back are found."""
    child = gpu.spawn("gpu-counter", "--vram", "1M", "--interval", "5", "--steps", "3")
    out = child.stdout.read().decode()
    assert child.wait(10) == 0
    assert [line.split()[0] for line in out.splitlines()] == ["ready", "step=1", "step=2", "step=3"]
    assert all(line.endswith(" ok") for line in out.splitlines()[1:])


def test_the_counter_survives_a_closed_stdout(gpu):
    path = gpu.dir / "status"
    child = gpu.spawn("gpu-counter", "--vram", "1M", "--interval", "5", "--status", path)
    child.stdout.readline()
    child.stdout.close()
    child.stdout = None
    wait_for(lambda: path.exists() and re.match(r"step=\d\d", path.read_text()), 10)
    assert child.poll() is None
    child.terminate()
    assert child.wait(5) == 143


def test_the_counters_processes(gpu):
    path = gpu.dir / "status"
    child = gpu.spawn("gpu-counter", "--vram", "1M", "--procs", "3", "--interval", "5",
                      "--status", path)
    wait_for(lambda: all((gpu.dir / f"status.{i}").exists() for i in range(3)), 10)
    pids = [p for p in gpu.processes() if p != child.pid]
    assert len(pids) == 3
    os.kill(pids[1], signal.SIGKILL)
    assert child.wait(10) == 128 + 9
    wait_for(lambda: gpu.gpu()["used"] == 0, 10)


@pytest.mark.parametrize("args", [["--vram", "x"], ["--vram", "0"], ["--nonsense"], ["extra"],
                                  ["--steps", "-1"]])
def test_the_counters_usage(gpu, args):
    child = gpu.spawn("gpu-counter", *args, stderr=subprocess.DEVNULL)
    assert child.wait(10) == 2


def test_no_descriptors_left(tmp_path):
    """The daemon waits for some to be free, without keeping a processor busy."""
    with FakeGpu(dir=tmp_path) as gpu:
        limit = len(os.listdir(f"/proc/{gpu.daemon.pid}/fd")) + 20
        resource.prlimit(gpu.daemon.pid, resource.RLIMIT_NOFILE, (limit, limit))
        sockets = [socket.socket(socket.AF_UNIX) for _ in range(40)]
        for s in sockets:
            s.connect(str(gpu.socket))

        def cpu():
            with open(f"/proc/{gpu.daemon.pid}/stat", encoding="ascii") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])

        time.sleep(0.2)
        before = cpu()
        time.sleep(0.5)
        assert cpu() - before < 10  # hundredths of a second
        for s in sockets:
            s.close()
        assert gpu.status()["gpus"]
