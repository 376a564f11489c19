# SPDX-License-Identifier: Apache-2.0
"""VRAM: finite, freed, moved to other GPUs - and what NVML tells of it."""

import json
import os
import signal
import subprocess

import pytest

from fakegpu import Caller, FakeGpu, Shell, wait_for

MIB = 1 << 20


def nvml(gpu, **env):
    p = subprocess.run([gpu.bin / "nvml-call", gpu.libnvml], env=dict(gpu.env, **env),
                       capture_output=True, text=True, timeout=20, check=True)
    return json.loads(p.stdout)


def down(caller, *pids):
    for call in ("lock", "checkpoint"):
        for pid in pids:
            assert caller.call(call, pid).name == "SUCCESS"


def test_it_is_finite(gpu):
    a = Shell(gpu, "init", "alloc 100")
    b = Shell(gpu, "init", "alloc 100")
    assert a.ask("alloc 100") == "error OUT_OF_MEMORY"
    assert b.ask("alloc 200") == "error OUT_OF_MEMORY"
    a.do("free")
    b.do("alloc 100")
    assert b.do("check") == "0"
    Shell(gpu, "init", "device 1", "alloc 200")


def test_a_dead_process_frees_it(gpu):
    a = Shell(gpu, "init", "alloc 200")
    a.child.kill()
    wait_for(lambda: gpu.gpu()["used"] == 0, 5)
    Shell(gpu, "init", "alloc 200")


def test_a_dead_process_frees_it_though_its_child_lives(gpu):
    a = Shell(gpu, "init", "alloc 200")
    child = int(a.do("fork"))
    a.child.kill()
    a.child.wait()
    wait_for(lambda: gpu.gpu()["used"] == 0, 5)
    os.kill(child, signal.SIGKILL)  # it was still there


def test_freed_memory_is_clean(gpu):
    """Nobody's data may come back in somebody else's allocation: a restore that was left out
    must show."""
    a = Shell(gpu, "init", "alloc 200")
    a.do("free")
    b = Shell(gpu, "init", "alloc 8")
    caller = Caller(gpu)
    gpu.fault("restore", lie="half-restore")
    down(caller, b.pid)
    for call in ("restore", "unlock"):
        assert caller.call(call, b.pid).name == "SUCCESS"
    assert int(b.do("check")) == 4 * MIB // 8  # exactly the words that were left out


def test_the_pool(make_gpu, counter):
    """Pages that are kept for the next owner are fast, and empty when he gets them."""
    gpu = make_gpu(gpus=1, memory="256M", pool=64 * MIB)
    c = counter("--vram", "16M", on=gpu)
    caller = Caller(gpu)
    down(caller, c.pid)
    assert gpu.status()["pooled"] == 18 * MIB + 4096
    assert gpu.gpu()["used"] == 0
    gpu.fault("restore", lie="half-restore", count=1)
    t = Shell(gpu, "init", "alloc 16")  # takes the counter's
    assert gpu.status()["pooled"] == 4096
    down(caller, t.pid)
    for call in ("restore", "unlock"):
        assert caller.call(call, t.pid).name == "SUCCESS"
    assert int(t.do("check")) == 8 * MIB // 8
    t.do("free")
    wait_for(lambda: gpu.status()["pooled"] >= 16 * MIB, 5)
    gpu.set("pool", 0)
    assert gpu.status()["pooled"] == 0
    for call in ("restore", "unlock"):
        assert caller.call(call, c.pid).name == "SUCCESS"
    c.passes()


def test_out_of_memory_is_for_ever(gpu, caller, counter):
    c = counter("--vram", "64M")
    down(caller, c.pid)
    hog = Shell(gpu, "init", "alloc 200")
    assert caller.call("restore", c.pid).name == "OUT_OF_MEMORY"
    assert gpu.vram_of(c.pid) == 0
    hog.do("free")
    assert caller.call("restore", c.pid).name == "OPERATING_SYSTEM"
    assert caller.call("unlock", c.pid).name == "ILLEGAL_STATE"
    assert caller.state(c.pid) == "CHECKPOINTED"
    c.stands_still()


def test_room_that_was_checked_first(gpu, caller, counter):
    """What a careful caller does: looks for room, waits, and only then restores."""
    c = counter("--vram", "64M")
    down(caller, c.pid)
    assert gpu.reserve(200 * MIB) == 56 * MIB
    assert nvml(gpu)["devices"][0]["memory"]["free"] == 56 * MIB
    gpu.reserve(0)
    assert caller.call("restore", c.pid).name == "SUCCESS"
    assert caller.call("unlock", c.pid).name == "SUCCESS"
    c.passes()


def test_remap(make_gpu, counter):
    gpu = make_gpu(gpus=3, memory="256M")
    caller = Caller(gpu)
    c = counter("--vram", "16M", on=gpu)
    u = [gpu.uuid(i) for i in range(3)]
    down(caller, c.pid)
    for wrong in ([f"{u[0]}={u[1]}"],                                     # not every GPU
                  [f"{u[0]}={u[1]}", f"{u[1]}={u[1]}", f"{u[2]}={u[2]}"],  # one target twice
                  [f"{u[0]}={u[1]}", f"{u[0]}={u[0]}", f"{u[2]}={u[2]}"]):  # one source twice
        assert caller.call("restore", c.pid, *wrong).name == "INVALID_VALUE"
    pairs = [f"{u[0]}={u[2]}", f"{u[1]}={u[1]}", f"{u[2]}={u[0]}"]
    assert caller.call("restore", c.pid, *pairs).name == "SUCCESS"
    assert gpu.processes()[c.pid]["vram"] == {u[2]: gpu.gpu(2)["used"]}
    assert caller.call("unlock", c.pid).name == "SUCCESS"
    c.passes()
    # From now on it is on GPU 2: back, by the same names.
    down(caller, c.pid)
    assert caller.call("restore", c.pid).name == "SUCCESS"
    assert gpu.gpu(2)["used"] > 16 * MIB


def test_remap_needs_the_same_chip(make_gpu, counter):
    gpu = make_gpu(config={"gpus": [{"name": "Chip A"}, {"name": "Chip B"}]})
    caller = Caller(gpu)
    c = counter("--vram", "4M", on=gpu)
    u = [gpu.uuid(i) for i in range(2)]
    down(caller, c.pid)
    swap = [f"{u[0]}={u[1]}", f"{u[1]}={u[0]}"]
    assert caller.call("restore", c.pid, *swap).name == "INVALID_VALUE"
    assert caller.call("restore", c.pid).name == "SUCCESS"


def test_visible_devices(make_gpu):
    gpu = make_gpu(gpus=3, memory="64M")
    u = [gpu.uuid(i) for i in range(3)]
    for value, n in (("all", 3), (u[1], 1), (f"{u[0]},{u[2]}", 2), ("2", 1), ("", 3)):
        t = Shell(gpu, "init", env=dict(gpu.env, NVIDIA_VISIBLE_DEVICES=value))
        assert t.do("count") == str(n)
    none = Shell(gpu, env=dict(gpu.env, NVIDIA_VISIBLE_DEVICES="none"))
    assert none.ask("init") == "error NO_DEVICE"
    # Only the GPUs it sees are to be mapped.
    t = Shell(gpu, "init", "alloc 4", env=dict(gpu.env, NVIDIA_VISIBLE_DEVICES=u[1]))
    caller = Caller(gpu)
    down(caller, t.pid)
    assert caller.call("restore", t.pid, f"{u[1]}={u[2]}").name == "SUCCESS"
    assert gpu.gpu(2)["used"] > 0


def test_device_nodes(make_gpu, tmp_path):
    """With nodes in /dev - here: in another folder - a process opens those of its GPUs, a
    checkpoint closes them, and a restore needs the new one's."""
    gpu = make_gpu(gpus=3, memory="64M")
    for name in ("nvidiactl", "nvidia-uvm", "nvidia0", "nvidia1"):
        (tmp_path / name).touch()
    t = Shell(gpu, "init", "alloc 4", env=dict(gpu.env, FAKEGPU_DEV=str(tmp_path)))
    assert t.do("count") == "2"

    def nodes():
        links = [os.readlink(f"/proc/{t.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{t.pid}/fd")]
        return sorted(os.path.basename(n) for n in links if n.startswith(str(tmp_path)))

    everything = ["nvidia-uvm", "nvidia0", "nvidia1", "nvidiactl"]
    assert nodes() == everything
    caller = Caller(gpu)
    down(caller, t.pid)
    assert nodes() == []
    u = [gpu.uuid(i) for i in range(3)]
    pairs = [f"{u[0]}={u[2]}", f"{u[1]}={u[1]}"]
    # NVIDIA/cuda-checkpoint issue 379 of ai-dynamo/snapshot: the destination's node is missing.
    assert caller.call("restore", t.pid, *pairs).name == "NOT_SUPPORTED"
    (tmp_path / "nvidia2").touch()
    assert caller.call("restore", t.pid, *pairs).name == "SUCCESS"
    assert nodes() == ["nvidia-uvm", "nvidia1", "nvidia2", "nvidiactl"]
    assert caller.call("unlock", t.pid).name == "SUCCESS"
    assert t.do("check") == "0"
    # A lying driver leaves them open.
    gpu.fault("checkpoint", lie="keep-device")
    down(caller, t.pid)
    assert nodes() == ["nvidia-uvm", "nvidia1", "nvidia2", "nvidiactl"]
    assert gpu.vram_of(t.pid) == 0


def test_mig(gpu, caller, counter):
    c = counter("--vram", "4M")
    gpu.set("mig", 1, gpu=0)
    assert nvml(gpu)["devices"][0]["mig"] == 1
    assert caller.call("lock", c.pid).name == "SUCCESS"
    assert caller.call("checkpoint", c.pid).name == "NOT_SUPPORTED"
    assert caller.state(c.pid) == "LOCKED"
    assert caller.call("unlock", c.pid).name == "SUCCESS"
    c.passes()
    # Another GPU's MIG is not this process's concern.
    gpu.set("mig", 0, gpu=0)
    gpu.set("mig", 1, gpu=1)
    down(caller, c.pid)


def test_managed(gpu, caller, counter):
    c = counter("--vram", "4M", "--managed")
    assert caller.call("lock", c.pid).name == "SUCCESS"
    assert caller.call("checkpoint", c.pid).name == "NOT_SUPPORTED"
    assert caller.call("unlock", c.pid).name == "SUCCESS"
    c.passes()


def test_context_costs(make_gpu):
    gpu = make_gpu(gpus=1, memory="256M", context=64 * MIB)
    t = Shell(gpu, "init")
    assert gpu.vram_of(t.pid) == 0  # cuInit alone makes none
    t.do("alloc 4")
    assert gpu.vram_of(t.pid) == 68 * MIB
    caller = Caller(gpu)
    down(caller, t.pid)
    assert gpu.gpu()["used"] == 0
    assert caller.call("restore", t.pid).name == "SUCCESS"
    assert gpu.vram_of(t.pid) == 68 * MIB


def test_nvml(make_gpu, counter):
    gpu = make_gpu(driver_version="580.65.06", persistence=1, config={
        "gpus": [{"uuid": "GPU-01234567-89ab-cdef-0123-456789abcdef", "name": "Chip A",
                  "memory": "128M", "minor": 3}, {"mig": True}]})
    c = counter("--vram", "16M", on=gpu)
    told = nvml(gpu)
    assert (told["count_before_init"], told["init"], told["init_text"]) == (1, 0, "Success")
    assert (told["driver_version"], told["count"]) == ("580.65.06", 2)
    assert (told["shutdown"], told["shutdown_again"]) == (0, 1)
    assert told["one_past"] == {"error": 2}
    first, second = told["devices"]
    used = 16 * MIB + 2 * MIB + 4096
    assert first == {
        "uuid": "GPU-01234567-89ab-cdef-0123-456789abcdef", "name": "Chip A", "minor": 3,
        "memory": {"total": 128 * MIB, "free": 128 * MIB - used, "used": used},
        "processes": [{"pid": c.pid, "bytes": used}], "mig": 0, "persistence": 1,
        "by_uuid": True, "uuid_in_tiny_buffer": 7}
    assert second["mig"] == 1 and second["processes"] == []
    down(Caller(gpu), c.pid)
    assert nvml(gpu)["devices"][0]["processes"] == []


def test_nvml_misbehaves(gpu, counter):
    c = counter("--vram", "4M")
    gpu.fault("nvml_memory", value=123 * MIB, count=1)
    assert nvml(gpu)["devices"][0]["memory"]["used"] == 123 * MIB
    gpu.fault("nvml_processes", value=0, count=2)  # hides them
    assert nvml(gpu)["devices"][0]["processes"] == []
    gpu.fault("nvml_mig", code=3)
    assert nvml(gpu)["devices"][0]["mig"] == {"error": 3}
    gpu.clear()
    gpu.fault("nvml_init", code=999, count=1)
    told = nvml(gpu)
    assert (told["init"], told["init_text"], told["count"]) == (999, "Unknown Error", {"error": 1})
    told = nvml(gpu)
    assert told["devices"][0]["processes"][0]["pid"] == c.pid
    assert nvml(gpu, FAKEGPU_SOCKET="/nonexistent")["init"] == 9


@pytest.mark.parametrize("size", [4096, 1 << 20, (1 << 20) + 8])
def test_sizes(gpu, caller, counter, size):
    c = counter("--vram", str(size))
    down(caller, c.pid)
    for call in ("restore", "unlock"):
        assert caller.call(call, c.pid).name == "SUCCESS"
    c.passes()


def test_two_nodes_have_other_uuids():
    with FakeGpu(gpus=2) as a, FakeGpu(gpus=2, node=1) as b:
        assert len({a.uuid(0), a.uuid(1), b.uuid(0), b.uuid(1)}) == 4
