# SPDX-License-Identifier: Apache-2.0
"""gpu-work, the workload for real GPUs, on the emulated one: its checks must see what goes wrong."""
import os
import re
import subprocess

import pytest
from fakegpu import Caller, FakeGpu

WORK = os.environ["GPU_WORK"]


@pytest.fixture
def gpu():
    with FakeGpu(gpus=1, memory="256M") as made:
        yield made


def spawn(gpu, *args):
    env = dict(gpu.env, LD_LIBRARY_PATH=str(gpu.library_dir))
    return gpu.spawn(WORK, "--vram", "8M", "--interval", "10", *args, env=env)


def line(child):
    text = child.stdout.readline().decode()
    found = re.fullmatch(r"step=(\d+) counter=(\d+) checksum=\w{16} (ok ms=[\d.]+|.*)\n", text)
    assert found, text
    return int(found.group(1)), int(found.group(2)), found.group(3)


def test_computes(gpu):
    child = spawn(gpu, "--steps", "3", "--kernel-ms", "20")
    for step in (1, 2, 3):
        n, counter, result = line(child)
        assert (n, counter) == (step, step)
        assert float(result.removeprefix("ok ms=")) >= 20
    assert child.wait(20) == 0


def test_goes_on_after_a_checkpoint(gpu):
    child = spawn(gpu)
    line(child)
    caller = Caller(gpu)
    for call in ("lock", "checkpoint", "restore", "unlock"):
        assert caller.call(call, child.pid).name == "SUCCESS"
    steps = [line(child) for _ in range(5)]
    assert all(result.startswith("ok") for _, _, result in steps)
    assert [n for n, _, _ in steps] == list(range(2, 7)) or steps[0][0] > 2


def test_lost_memory_shows(gpu):
    child = spawn(gpu)
    line(child)
    caller = Caller(gpu)
    gpu.fault("restore", lie="half-restore", count=1)
    for call in ("lock", "checkpoint", "restore", "unlock"):
        assert caller.call(call, child.pid).name == "SUCCESS"
    assert child.wait(20) == 3
    assert b"MISMATCH" in child.stdout.read()


def test_status_file(gpu, tmp_path):
    child = spawn(gpu, "--steps", "2", "--procs", "2", "--status", str(tmp_path / "state"))
    assert child.wait(20) == 0
    for n in (0, 1):
        assert (tmp_path / f"state.{n}").read_text().startswith(f"proc={n} step=2 counter=2 ")


def test_too_much_memory(gpu):
    child = spawn(gpu, "--vram", "1G")
    assert b"ERROR allocate: CUDA_ERROR_OUT_OF_MEMORY" in child.stdout.readline()
    assert child.wait(20) == 4


@pytest.mark.parametrize("argument", ["--vram=1", "--vram=1X", "--steps=-1", "--no-such", "more"])
def test_usage(argument):
    done = subprocess.run([WORK, argument], capture_output=True, check=False, timeout=20)
    assert done.returncode == 2
    assert b"Usage" in done.stderr
