# SPDX-License-Identifier: Apache-2.0
"""The checkpoint calls: what a whole cycle does to a workload, groups, branches of the driver.
(What each call answers in each state is test_oracle.py's.)"""

import json
import os
import subprocess
import time

import pytest

from fakegpu import Caller, Shell, wait_for

MIB = 1 << 20


def ok(answer):
    assert answer.name == "SUCCESS", answer
    return answer


def cycle_down(caller, pid):
    ok(caller.call("lock", pid))
    ok(caller.call("checkpoint", pid))


def cycle_up(caller, pid, *pairs):
    ok(caller.call("restore", pid, *pairs))
    ok(caller.call("unlock", pid))


def test_a_cycle(gpu, caller, counter):
    c = counter("--vram", "16M")
    assert gpu.vram_of(c.pid) == 16 * MIB + 2 * MIB + 4096  # and context, and cells
    ok(caller.call("lock", c.pid))
    step = c.stands_still()
    assert gpu.vram_of(c.pid) > 16 * MIB
    ok(caller.call("checkpoint", c.pid))
    assert gpu.vram_of(c.pid) == 0
    assert gpu.gpu()["free"] == gpu.gpu()["total"]
    assert not any("socket" in os.readlink(f"/proc/{c.pid}/fd/{fd}")
                   for fd in os.listdir(f"/proc/{c.pid}/fd"))
    ok(caller.call("restore", c.pid))
    assert c.stands_still() == step
    assert gpu.vram_of(c.pid) > 16 * MIB
    ok(caller.call("unlock", c.pid))
    c.passes(step + 2)
    assert gpu.processes()[c.pid]["state"] == "RUNNING"


def test_the_copy_is_anonymous_memory(gpu, caller, counter):
    c = counter("--vram", "32M")

    def rss():
        with open(f"/proc/{c.pid}/status", encoding="ascii") as f:
            return {line.split()[0]: int(line.split()[1]) * 1024 for line in f
                    if line.startswith("Rss")}

    before = rss()
    cycle_down(caller, c.pid)
    grown = {k: v - before[k] for k, v in rss().items()}
    assert grown["RssAnon:"] > 30 * MIB
    assert grown["RssFile:"] + grown["RssShmem:"] < 4 * MIB
    with open(f"/proc/{c.pid}/maps", encoding="ascii") as f:
        assert "memfd" not in f.read()
    cycle_up(caller, c.pid)
    wait_for(lambda: rss()["RssAnon:"] < before["RssAnon:"] + 4 * MIB, 5)
    c.passes()


def test_a_process_without_allocations(gpu, caller):
    t = Shell(gpu, "init")
    cycle_down(caller, t.pid)
    assert caller.state(t.pid) == "CHECKPOINTED"
    cycle_up(caller, t.pid)
    t.do("alloc 4")


def test_many_cycles(gpu, caller, counter):
    c = counter("--vram", "4M")
    for _ in range(20):
        cycle_down(caller, c.pid)
        cycle_up(caller, c.pid)
    c.passes()


def test_eight_at_once(make_gpu):
    gpu = make_gpu(gpus=2, memory="256M")
    shells = [Shell(gpu, "init", f"device {i % 2}", "alloc 16") for i in range(8)]
    p = subprocess.run([gpu.bin / "cuda-threads", gpu.libcuda, "5", *[str(s.pid) for s in shells]],
                       env=gpu.env, capture_output=True, text=True, timeout=120, check=False)
    assert p.returncode == 0, p.stderr
    for s in shells:
        assert s.do("check") == "0"
    # They really ran at the same time: some call began before another one's had ended.
    calls = gpu.log(call="checkpoint")
    assert len(calls) == 40
    assert any(a["pid"] != b["pid"] and
               a["begin"]["tick"] < b["begin"]["tick"] < a["end"]["tick"]
               for a in calls for b in calls)


def test_the_log_proves_the_order(gpu, counter):
    a, b = counter("--vram", "4M"), counter("--vram", "4M", "--device", "1")
    caller = Caller(gpu)
    assert caller.pid
    since = gpu.ctl("log")["last"]
    for call in ("lock", "checkpoint", "restore", "unlock"):
        for pid in (a.pid, b.pid):
            ok(caller.call(call, pid))
    calls = gpu.log(since=since)
    assert [c["call"] for c in calls] == [n for n in ("lock", "checkpoint", "restore", "unlock")
                                          for _ in range(2)]
    assert {c["pid"] for c in calls} == {a.pid, b.pid}
    assert {c["caller"] for c in calls} == {caller.pid}
    locks = [c for c in calls if c["call"] == "lock"]
    saves = [c for c in calls if c["call"] == "checkpoint"]
    assert max(c["end"]["tick"] for c in locks) < min(c["begin"]["tick"] for c in saves)
    for c in calls:
        assert c["code"] == 0 and c["real_code"] == 0 and c["how"] == "answered"
        ticks = [c[m]["tick"] for m in ("begin", "execute", "executed", "end")]
        assert ticks == sorted(ticks)
        assert c["begin"]["ns"] <= c["end"]["ns"]
    assert gpu.log(call="nvml_init") == []


def test_a_lock_waits_for_the_kernel_and_its_copy(gpu, caller):
    t = Shell(gpu, "init", "alloc 4", "kernel 400")
    assert caller.call("lock", t.pid, 5000).ms >= 350
    ok(caller.call("unlock", t.pid))
    t.do("kernel 3000")
    answer = caller.call("lock", t.pid, 300)
    assert answer.name == "NOT_READY" and 280 <= answer.ms < 2000
    t.do("api")  # the gate is open again
    assert caller.state(t.pid) == "RUNNING"


def test_a_lock_waits_for_a_call_under_way(gpu, caller):
    t = Shell(gpu, "init", "kernel 1500")
    t.send("sync")
    time.sleep(0.1)
    answer = caller.call("lock", t.pid, 200)
    assert answer.name == "NOT_READY"
    assert t.recv(10).strip() == "ok"
    ok(caller.call("lock", t.pid, 200))


def test_late_init(gpu, caller):
    """The race: a process that becomes CUDA while others are locked already."""
    late = gpu.spawn("gpu-counter", "--vram", "4M", "--init-signal")
    wait_for(lambda: b"SigCgt" in open(f"/proc/{late.pid}/status", "rb").read(), 5)
    time.sleep(0.1)
    assert caller.call("lock", late.pid).name == "NOT_INITIALIZED"
    late.send_signal(10)  # SIGUSR1
    wait_for(lambda: caller.call("tid", late.pid).name == "SUCCESS", 5)
    assert caller.call("checkpoint", late.pid).name == "ILLEGAL_STATE"
    cycle_down(caller, late.pid)
    cycle_up(caller, late.pid)


def test_cpu_only(gpu, caller):
    child = gpu.spawn("gpu-counter", "--cpu-only", "--interval", "10")
    wait_for(lambda: child.stdout.read(4), 5)
    assert caller.call("tid", child.pid).name == "NOT_INITIALIZED"
    assert child.pid not in gpu.processes()


def test_persistence_or_init(make_gpu):
    gpu = make_gpu(persistence=0)
    fresh = Caller(gpu, init=False)
    t = Shell(gpu, "init", "alloc 4")
    cycle_down(fresh, t.pid)  # these need neither
    assert fresh.call("restore", t.pid).name == "NOT_INITIALIZED"
    assert fresh.state(t.pid) == "CHECKPOINTED"
    gpu.set("persistence", 1)
    cycle_up(fresh, t.pid)
    gpu.set("persistence", 0)
    cycle_down(fresh, t.pid)
    cycle_up(Caller(gpu), t.pid)
    assert t.do("check") == "0"


@pytest.mark.parametrize("branch,cuda", [(550, 12040), (570, 12080), (580, 13000),
                                         (610, 13030), (615, 13040)])
def test_branches(make_gpu, branch, cuda):
    gpu = make_gpu(branch=branch, gpus=1, memory="64M")
    caller = Caller(gpu)
    assert caller.call("version").value == cuda
    assert gpu.status()["driver_version"].startswith(f"{branch}.")
    t = Shell(gpu, "init", "alloc 4")
    found = caller.call("entry", "cuCheckpointProcessLock", 12040)
    if branch == 550:
        assert found.value == 1  # no such symbol
        # The library of that branch does not export it either; one that does refuses.
        assert caller.call("lock", t.pid).name == "BAD_REQUEST"
        full = Caller(gpu, library=gpu.bin / "libcuda.so.1")
        assert full.call("lock", t.pid).name == "NOT_SUPPORTED"
        assert full.call("tid", t.pid).name == "NOT_SUPPORTED"
        return
    assert found.value == 2  # there is, but not for a caller of CUDA 12.4
    assert caller.call("entry", "cuCheckpointProcessLock", cuda).value == 100
    cycle_down(caller, t.pid)
    pair = f"{gpu.uuid()}={gpu.uuid()}"
    if branch == 570:
        # The structure was all reserved then.
        assert caller.call("restore", t.pid, pair).name == "INVALID_VALUE"
        cycle_up(caller, t.pid)
    else:
        cycle_up(caller, t.pid, pair)
    assert t.do("check") == "0"


def test_not_cuda_code(make_gpu):
    gpu = make_gpu(not_cuda_code=1)
    assert Caller(gpu).call("tid", os.getpid()).name == "INVALID_VALUE"


def test_cuinit_takes_its_time(make_gpu):
    gpu = make_gpu(cuinit_ms=300)
    caller = Caller(gpu, init=False)
    assert caller.call("init").ms >= 300
    assert caller.call("init").ms < 100


def test_without_a_daemon(gpu, tmp_path):
    caller = Caller(gpu, init=False, env=dict(os.environ, FAKEGPU_SOCKET=str(tmp_path / "none")))
    assert caller.call("init").name == "NO_DEVICE"
    assert caller.call("lock", os.getpid()).name == "OPERATING_SYSTEM"


def test_a_library_finds_its_daemon_without_an_environment(gpu):
    caller = Caller(gpu, env={})
    t = Shell(gpu, "init", "alloc 4")
    cycle_down(caller, t.pid)
    cycle_up(caller, t.pid)
    told = json.loads(subprocess.run([gpu.bin / "nvml-call", gpu.libnvml], env={}, check=True,
                                     capture_output=True, timeout=20).stdout)
    assert told["devices"][0]["processes"][0]["pid"] == t.pid


def test_without_gpus(make_gpu):
    assert Caller(make_gpu(gpus=0), init=False).call("init").name == "NO_DEVICE"


def test_the_daemon_dies(make_gpu, counter):
    gpu = make_gpu(gpus=1)
    c = counter("--vram", "4M", on=gpu)
    gpu.daemon.terminate()
    gpu.daemon.wait(10)
    assert c.child.wait(10) == 4
    assert "ERROR" in c.text()


def test_an_innocent_thread_of_that_name(gpu, caller, tmp_path):
    """Anybody can call a thread so; the signal would end the process."""
    script = ("import threading,ctypes,time\n"
              "def f():\n"
              " ctypes.CDLL(None).prctl(15, b'cuda-fake-rt', 0, 0, 0)\n"
              " print('up', flush=True)\n"
              " time.sleep(60)\n"
              "threading.Thread(target=f).start()\n")
    child = subprocess.Popen(["python3", "-c", script], stdout=subprocess.PIPE)
    try:
        child.stdout.readline()
        assert caller.call("lock", child.pid, 100).name == "NOT_INITIALIZED"
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_a_job(gpu, caller, tmp_path):
    """Its file changes with each checkpoint, and a restore takes none but that; one at a time."""
    job = tmp_path / "job"
    job.touch()
    shells = [Shell(gpu, "init", env=dict(gpu.env, CUDA_CHECKPOINT_JOB_FILE=str(job)))
              for _ in range(2)]
    cycle_down(caller, shells[0].pid)
    saved = job.read_bytes()
    cycle_up(caller, shells[0].pid)
    assert job.read_bytes() != saved
    cycle_down(caller, shells[0].pid)
    right = job.read_bytes()
    job.write_bytes(saved)
    assert caller.call("restore", shells[0].pid).name == "INVALID_VALUE"
    job.write_bytes(right)
    cycle_up(caller, shells[0].pid)
    others = [Caller(gpu) for _ in range(2)]
    answers = set()
    for _ in range(20):
        for one, shell in zip(others, shells):
            one.begin("lock", shell.pid)
        answers |= {one.end().name for one in others}
        for shell in shells:
            caller.call("unlock", shell.pid)
    assert answers == {"SUCCESS", "ILLEGAL_STATE"}
    for one in others:
        one.kill()
