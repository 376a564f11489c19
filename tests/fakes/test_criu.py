# SPDX-License-Identifier: Apache-2.0
"""The emulation against a real runc and a real CRIU: what the driver did not save cannot be
dumped, and what was dumped lacks its VRAM until the driver brings it back."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess

import pytest

from fakegpu import Caller, FakeGpu, wait_for

MIB = 1 << 20


def find_criu():
    """A CRIU of version 4 or newer that passes its own check of this kernel, or a reason."""
    for path in (os.environ.get("CRIU"), shutil.which("criu"), "/opt/criu/sbin/criu"):
        if not path or not os.access(path, os.X_OK):
            continue
        version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        major = re.search(r"Version: (\d+)", version.stdout)
        check = subprocess.run([path, "check"], capture_output=True, check=False)
        if major and int(major[1]) >= 4 and check.returncode == 0:
            return path, None
    return None, "no CRIU of version 4 or newer that works on this kernel"


CRIU, REASON = find_criu() if os.geteuid() == 0 else (None, "not root")
if not shutil.which("runc"):
    REASON = "no runc"
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


class Container:
    """A container run by runc, with gpu-counter in a root file system that holds nothing else."""

    def __init__(self, gpu, tmp, *args, name="c", memory_limit=None):
        self.memory_limit = memory_limit
        self.gpu, self.tmp, self.name = gpu, pathlib.Path(tmp), f"{name}-{os.getpid()}"
        self.bundle = self.tmp / name
        self.rootfs = self.tmp / "rootfs"
        self.args = ["/bin/gpu-counter", "--interval", "20", "--status", "/tmp/status",
                     *map(str, args)]
        for d in ("bin", "proc", "tmp", "dev", "run/fakegpu"):
            (self.rootfs / d).mkdir(parents=True, exist_ok=True)
        shutil.copy(gpu.bin / "gpu-counter", self.rootfs / "bin")
        self.bundle.mkdir()
        self.write_config()

    def write_config(self):
        namespaces = [{"type": t} for t in ("pid", "ipc", "uts", "mount", "network")]
        config = {
            "ociVersion": "1.0.2",
            "process": {
                "terminal": False, "user": {"uid": 0, "gid": 0}, "cwd": "/",
                "args": self.args,
                "env": ["PATH=/bin", "FAKEGPU_SOCKET=/run/fakegpu/gpu.sock"],
            },
            "root": {"path": str(self.rootfs), "readonly": False},
            "hostname": "fakegpu",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                 "options": ["nosuid", "mode=755"]},
                {"destination": "/run/fakegpu", "type": "bind", "source": str(self.gpu.dir),
                 "options": ["bind", "rw"]},
            ],
            "linux": {"namespaces": namespaces, "cgroupsPath": f"/fakegpu-{self.name}"},
        }
        if self.memory_limit:
            config["linux"]["resources"] = {"memory": {"limit": self.memory_limit}}
        (self.bundle / "config.json").write_text(json.dumps(config))

    def runc(self, *args, check=True):
        env = dict(os.environ, PATH=f"{os.path.dirname(CRIU)}:{os.environ['PATH']}")
        log = self.tmp / "runc.out"
        # Not a pipe: what runc leaves running would keep it open.
        with open(log, "wb") as out:
            p = subprocess.run(["runc", "--root", str(self.tmp / "runc"), *map(str, args)],
                               stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env,
                               check=False, timeout=120)
        if check and p.returncode != 0:
            raise AssertionError(f"runc {args}: {log.read_text()}{self.criu_log()}")
        return p.returncode == 0

    def criu_log(self):
        text = ""
        for log in self.tmp.glob("work*/*.log"):
            lines = log.read_text(errors="replace").splitlines()
            text += "\n".join([str(log), *[s for s in lines if "rror" in s or "External" in s]])
        return text

    def run(self):
        # stdio of the container must not be a file of ours: CRIU could not find it again.
        env = dict(os.environ)
        subprocess.run(["runc", "--root", str(self.tmp / "runc"), "run", "-d", "-b",
                        str(self.bundle), self.name], stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env, check=True,
                       timeout=60)
        return self

    def checkpoint(self, image="image", check=True):
        return self.runc("checkpoint", "--image-path", self.tmp / image, "--work-path",
                         self.tmp / "work", self.name, check=check)

    def restore(self, image="image"):
        subprocess.run(["runc", "--root", str(self.tmp / "runc"), "restore", "-d", "-b",
                        str(self.bundle), "--image-path", str(self.tmp / image), "--work-path",
                        str(self.tmp / "work"), self.name], stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
                       timeout=120,
                       env=dict(os.environ, PATH=f"{os.path.dirname(CRIU)}:{os.environ['PATH']}"))

    def delete(self):
        self.runc("delete", "-f", self.name, check=False)

    def pids(self):
        """Host pids, the init first."""
        p = subprocess.run(["runc", "--root", str(self.tmp / "runc"), "ps", "-f", "json",
                            self.name], capture_output=True, text=True, check=True)
        return sorted(json.loads(p.stdout) or [])

    def status(self, proc=None):
        path = self.rootfs / ("tmp/status" if proc is None else f"tmp/status.{proc}")
        return path.read_text() if path.exists() else ""

    def step(self, proc=None):
        found = re.search(r"step=(\d+) counter=(\d+) .* ok$", self.status(proc))
        if not found:
            assert "MISMATCH" not in self.status(proc) and "ERROR" not in self.status(proc)
            return 0
        assert found[1] == found[2]
        return int(found[1])

    def passes(self, step, proc=None):
        wait_for(lambda: self.step(proc) > step, 20, f"a step after {step}")

    def stands_still(self, proc=None):
        step = self.step(proc)
        with pytest.raises(TimeoutError):
            wait_for(lambda: self.step(proc) > step, 0.5)
        return step

    def memory(self):
        base = pathlib.Path("/sys/fs/cgroup")
        v1 = base / "memory" / f"fakegpu-{self.name}" / "memory.usage_in_bytes"
        path = v1 if v1.exists() else base / f"fakegpu-{self.name}" / "memory.current"
        return int(path.read_text())


@pytest.fixture
def gpu():
    with FakeGpu(gpus=2, memory="1G") as g:
        yield g


@pytest.fixture
def make(tmp_path):
    made = []

    def make_container(gpu, *args, **kwargs):
        c = Container(gpu, tmp_path, *args, **kwargs)
        made.append(c)
        return c

    yield make_container
    for c in made:
        c.delete()


def save(caller, pids):
    for call in ("lock", "checkpoint"):
        for pid in pids:
            assert caller.call(call, pid).name == "SUCCESS"


def bring_back(caller, pids, *pairs):
    for pid in pids:
        assert caller.call("restore", pid, *pairs).name == "SUCCESS"
    for pid in pids:
        assert caller.call("unlock", pid).name == "SUCCESS"


def test_a_process_on_the_gpu_cannot_be_dumped(gpu, make):
    c = make(gpu, "--vram", "8M").run()
    c.passes(2)
    assert not c.checkpoint(check=False)
    assert "External socket is used" in c.criu_log()
    c.passes(c.step())  # CRIU let it run on


def test_a_lock_alone_is_not_enough(gpu, make):
    c = make(gpu, "--vram", "8M").run()
    c.passes(2)
    caller = Caller(gpu)
    assert caller.call("lock", c.pids()[0]).name == "SUCCESS"
    assert not c.checkpoint(check=False)
    assert caller.call("unlock", c.pids()[0]).name == "SUCCESS"
    c.passes(c.step())


def test_checkpoint_dump_kill_restore(gpu, make):
    c = make(gpu, "--vram", "32M").run()
    c.passes(2)
    caller = Caller(gpu)
    pid = c.pids()[0]
    save(caller, [pid])
    step = c.stands_still()
    assert gpu.vram_of(pid) == 0
    assert c.checkpoint()
    assert pid not in gpu.processes()

    c.restore()
    new = c.pids()[0]
    assert new != pid
    # Without its VRAM it waits, in the state that was dumped, and uses nothing of the GPU.
    assert c.stands_still() == step
    assert caller.state(new) == "CHECKPOINTED"
    assert gpu.gpu()["used"] == 0

    assert caller.call("restore", new).name == "SUCCESS"
    assert c.stands_still() == step
    assert gpu.vram_of(new) >= 32 * MIB
    assert caller.call("unlock", new).name == "SUCCESS"
    c.passes(step + 3)
    assert caller.state(new) == "RUNNING"


def test_twice_over(gpu, make):
    c = make(gpu, "--vram", "8M").run()
    caller = Caller(gpu)
    for i in range(2):
        c.passes(c.step() + 2)
        save(caller, c.pids())
        step = c.step()
        assert c.checkpoint(f"image{i}")
        c.restore(f"image{i}")
        bring_back(caller, c.pids())
        c.passes(step + 2)


def test_a_failed_dump_is_undone(gpu, make):
    c = make(gpu, "--vram", "8M").run()
    c.passes(2)
    caller = Caller(gpu)
    gpu.fault("checkpoint", lie="keep-connection")
    save(caller, c.pids())
    assert caller.state(c.pids()[0]) == "CHECKPOINTED"
    assert not c.checkpoint(check=False)
    bring_back(caller, c.pids())
    c.passes(c.step() + 2)


def test_several_processes(gpu, make):
    c = make(gpu, "--vram", "8M", "--procs", "3").run()
    for i in range(3):
        c.passes(2, i)
    caller = Caller(gpu)
    init, *cuda = c.pids()
    assert len(cuda) == 3
    assert caller.call("tid", init).name == "NOT_INITIALIZED"
    save(caller, cuda)
    steps = [c.step(i) for i in range(3)]
    assert c.checkpoint()
    c.restore()
    bring_back(caller, c.pids()[1:])
    for i in range(3):
        c.passes(steps[i] + 2, i)


def test_one_of_several_left_out(gpu, make):
    c = make(gpu, "--vram", "8M", "--procs", "2").run()
    for i in range(2):
        c.passes(2, i)
    caller = Caller(gpu)
    save(caller, c.pids()[1:2])
    assert not c.checkpoint(check=False)
    bring_back(caller, c.pids()[1:2])
    for i in range(2):
        c.passes(c.step(i), i)


def test_a_forked_child_keeps_the_connection(gpu, make):
    c = make(gpu, "--vram", "8M", "--forked-child").run()
    c.passes(2)
    save(Caller(gpu), c.pids()[:1])
    assert gpu.gpu()["used"] == 0
    assert not c.checkpoint(check=False)


def test_on_another_node(gpu, make, tmp_path):
    c = make(gpu, "--vram", "8M").run()
    c.passes(2)
    save(Caller(gpu), c.pids())
    step = c.step()
    assert c.checkpoint()
    with FakeGpu(gpus=1, node=1, memory="256M") as other:
        there = make(other, "--vram", "8M", name="d")
        there.restore()
        caller = Caller(other)
        pid = there.pids()[0]
        # Not without saying which GPU is to be which.
        assert caller.call("restore", pid).name == "INVALID_VALUE"
        pairs = [f"{gpu.uuid(0)}={other.uuid(0)}"]
        # Every GPU the process saw must be named.
        assert caller.call("restore", pid, *pairs).name == "INVALID_VALUE"
        there.delete()


def test_on_another_node_of_the_same_shape(gpu, make):
    c = make(gpu, "--vram", "8M", "--device", "1").run()
    c.passes(2)
    save(Caller(gpu), c.pids())
    step = c.step()
    assert c.checkpoint()
    with FakeGpu(gpus=2, node=1, memory="256M") as other:
        there = make(other, name="d")
        there.restore()
        pairs = [f"{gpu.uuid(i)}={other.uuid(1 - i)}" for i in range(2)]
        bring_back(Caller(other), there.pids(), *pairs)
        there.passes(step + 2)
        assert other.gpu(0)["used"] >= 8 * MIB and other.gpu(1)["used"] == 0
        there.delete()


def test_the_copy_is_charged_to_the_container(gpu, make):
    c = make(gpu, "--vram", "64M").run()
    c.passes(2)
    caller = Caller(gpu)
    running = c.memory()
    assert running < 16 * MIB  # VRAM is nobody's host memory
    save(caller, c.pids())
    saved = c.memory()
    assert saved - running > 60 * MIB
    bring_back(caller, c.pids())
    c.passes(c.step() + 1)
    wait_for(lambda: c.memory() < running + 8 * MIB, 5, "the copy to be given back")


def test_a_limit_too_small_for_the_copy(gpu, make):
    """Why a checkpointer must look at the memory limit first: the workload is lost."""
    c = make(gpu, "--vram", "64M", memory_limit=32 * MIB).run()
    c.passes(2)
    caller, pid = Caller(gpu), c.pids()[0]
    assert caller.call("lock", pid).name == "SUCCESS"
    assert caller.call("checkpoint", pid).name == "OPERATING_SYSTEM"
    wait_for(lambda: not os.path.exists(f"/proc/{pid}") or not c.pids(), 10, "the OOM killer")


def test_frozen(gpu, make):
    c = make(gpu, "--vram", "8M").run()
    c.passes(2)
    pid = c.pids()[0]
    caller = Caller(gpu)
    c.runc("pause", c.name)
    # As measured on the real driver: the time-out is kept by a thread that cannot run.
    assert caller.call("lock", pid, 200, timeout=1.5).name == "HANGS"
    assert caller.call("state", pid, timeout=0.5).name == "HANGS"
    assert caller.call("tid", pid, timeout=5).name == "SUCCESS"
    gpu.set("lock_expires", 1)
    answer = caller.call("lock", pid, 200)
    assert answer.name == "NOT_READY" and answer.ms >= 200
    c.runc("resume", c.name)
    assert caller.state(pid) == "RUNNING"
    c.passes(c.step() + 1)
    save(caller, [pid])
    c.runc("pause", c.name)
    assert caller.call("restore", pid, timeout=0.5).name == "HANGS"
    c.runc("resume", c.name)
    assert caller.state(pid) == "CHECKPOINTED"  # nobody waited for it any more
    bring_back(caller, [pid])
    c.passes(c.step() + 1)


def test_sigterm_ends_the_init(gpu, make):
    c = make(gpu, "--vram", "8M").run()
    c.passes(1)
    c.runc("kill", c.name, "TERM")
    wait_for(lambda: gpu.gpu()["used"] == 0, 10, "the VRAM to be free")
    assert signal.SIGTERM == 15
