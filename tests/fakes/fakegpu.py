# SPDX-License-Identifier: Apache-2.0
"""The emulated GPU for Python tests: starts and stops the daemon, talks to fakegpuctl.

    with FakeGpu(gpus=2, memory="4G") as gpu:
        w = gpu.spawn("gpu-counter", "--vram", "64M")
        gpu.fault(call="lock", code=600, count=1)
        ...
        assert [c["code"] for c in gpu.log(call="lock")] == [600]

Programs are looked for in $FAKEGPU_BIN, else in build*/tests/fakes beside this file's tree. Only the
standard library is used.
"""

import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import tempfile
import time

SUCCESS, INVALID_VALUE, OUT_OF_MEMORY, NOT_INITIALIZED = 0, 1, 2, 3
NO_DEVICE, OPERATING_SYSTEM, ILLEGAL_STATE = 100, 304, 401
NOT_READY, NOT_SUPPORTED, UNKNOWN = 600, 801, 999


class FakeGpuError(Exception):
    """The daemon refused a request, or cannot be reached."""


def bin_dir():
    """The folder with the built programs."""
    if os.environ.get("FAKEGPU_BIN"):
        return pathlib.Path(os.environ["FAKEGPU_BIN"])
    root = pathlib.Path(__file__).resolve().parents[2]
    for build in sorted(root.glob("build*")):
        if (build / "tests/fakes/fakegpud").exists():
            return build / "tests/fakes"
    raise FakeGpuError("fakegpud is not built: set FAKEGPU_BIN")


def wait_for(condition, timeout=10.0, what="condition"):
    """Polls until condition() is true and returns its value."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not become true within {timeout} s")
        time.sleep(0.01)


class FakeGpu:
    """A daemon of its own in a temporary folder. Keyword arguments: gpus, memory, name, node,
    driver_version, branch, and whatever --set takes (persistence, context, cuinit_ms,
    not_cuda_code, lock_expires, lock_outlives); config: a dict for --config; dir: folder for the socket."""

    def __init__(self, *, dir=None, config=None, **options):
        self.bin = bin_dir()
        self._own_dir = dir is None
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="fakegpu-") if dir is None else dir)
        if self._own_dir:
            self.dir.chmod(0o755)  # other users' processes have a GPU, too
        self.socket = self.dir / "gpu.sock"
        self.log_path = self.dir / "fakegpud.log"
        self.daemon = None
        self._children = []
        self._argv = [str(self.bin / "fakegpud"), "--socket", str(self.socket)]
        for name, value in options.items():
            if name in ("gpus", "memory", "name", "node", "driver_version"):
                self._argv += ["--" + name.replace("_", "-"), str(value)]
            else:
                self._argv += ["--set", f"{name}={int(value) if value is not None else ''}"]
        if config is not None:
            path = self.dir / "config.json"
            path.write_text(json.dumps(config))
            self._argv += ["--config", str(path)]

    # -- life ---------------------------------------------------------------------------------

    def start(self):
        with open(self.log_path, "wb") as log:
            self.daemon = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stdout=log,
                                           stderr=log)
        try:
            wait_for(self._listens, 10, "the daemon's socket")
            self.status()
        except (FakeGpuError, TimeoutError) as e:
            log = self.log_path.read_text(errors="replace")
            self.stop()
            raise FakeGpuError(f"fakegpud did not start: {e}: {log}") from e
        return self

    def _listens(self):
        if self.daemon.poll() is not None:
            raise FakeGpuError(f"it ended with {self.daemon.returncode}")
        return "msg=\"listening\"" in self.log_path.read_text(errors="replace")

    def stop(self):
        """Ends the workloads and the daemon, removes the folder. The daemon's exit status."""
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                if stream:
                    stream.close()
        self._children.clear()
        status = None
        if self.daemon:
            self.daemon.send_signal(signal.SIGTERM)
            try:
                status = self.daemon.wait(20)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                status = self.daemon.wait()
            self.daemon = None
        if self._own_dir:
            shutil.rmtree(self.dir, ignore_errors=True)
        return status

    def __enter__(self):
        return self.start()

    def __exit__(self, *exc):
        status = self.stop()
        if exc[0] is None and status != 0:
            raise FakeGpuError(f"fakegpud ended with {status}")

    # -- what others need to know -------------------------------------------------------------

    @property
    def env(self):
        """Environment for anything that uses the GPU."""
        return dict(os.environ, FAKEGPU_SOCKET=str(self.socket))

    @property
    def library_dir(self):
        """For LD_LIBRARY_PATH: links to libcuda.so.1 (of branch 550: without the checkpoint
        symbols) and libnvidia-ml.so.1, which find this daemon even without FAKEGPU_SOCKET."""
        old = self.setting("branch") < 555
        folder = self.dir / ("lib-old" if old else "lib")
        if not folder.exists():
            folder.mkdir()
            source = self.bin / "driver-550" if old else self.bin
            (folder / "libcuda.so.1").symlink_to(source / "libcuda.so.1")
            (folder / "libnvidia-ml.so.1").symlink_to(self.bin / "libnvidia-ml.so.1")
            (folder / "fakegpu.sock").symlink_to(self.socket)
        return folder

    @property
    def libcuda(self):
        return self.library_dir / "libcuda.so.1"

    @property
    def libnvml(self):
        return self.library_dir / "libnvidia-ml.so.1"

    def spawn(self, program, *args, **kwargs):
        """Starts a workload (a name in bin, or a path); stdout is a pipe unless said otherwise. It
        is killed at stop()."""
        path = program if os.sep in str(program) else str(self.bin / program)
        kwargs.setdefault("env", self.env)
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        kwargs.setdefault("stdout", subprocess.PIPE)
        child = subprocess.Popen([str(path), *map(str, args)], bufsize=0, **kwargs)
        self._children.append(child)
        return child

    # -- fakegpuctl ---------------------------------------------------------------------------

    def ctl(self, command, **members):
        words = [f"{k}={str(v).lower() if isinstance(v, bool) else v}"
                 for k, v in members.items() if v is not None]
        p = subprocess.run([str(self.bin / "fakegpuctl"), "--socket", str(self.socket), command,
                            *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           check=False, timeout=60)
        if p.returncode == 2:
            raise FakeGpuError(p.stderr.strip())
        answer = json.loads(p.stdout)
        if p.returncode:
            raise FakeGpuError(answer["error"])
        return answer

    def status(self):
        return self.ctl("status")

    def gpu(self, index=0):
        return self.status()["gpus"][index]

    def uuid(self, index=0):
        return self.gpu(index)["uuid"]

    def setting(self, name):
        return self.status()["settings"][name]

    def processes(self):
        """pid -> what the daemon knows of each CUDA process."""
        return {p["pid"]: p for p in self.ctl("processes")["processes"]}

    def vram_of(self, pid):
        """Bytes in use by the process, on all GPUs."""
        return self.processes().get(pid, {"vram_total": 0})["vram_total"]

    def log(self, call=None, pid=None, since=None):
        return self.ctl("log", call=call, pid=pid, since=since)["calls"]

    def fault(self, call, **members):
        """Adds a rule, returns its id. See README.md."""
        return self.ctl("fault", call=call, **members)["rule"]

    def held(self, rule):
        """How many calls the rule holds at this moment."""
        return next((f["held"] for f in self.ctl("faults")["faults"] if f["rule"] == rule), 0)

    def wait_held(self, rule, n=1, timeout=10.0):
        return wait_for(lambda: self.held(rule) >= n, timeout, f"{n} calls held by rule {rule}")

    def release(self, rule=None):
        return self.ctl("release", rule=rule)["released"]

    def clear(self, rule=None):
        self.ctl("clear", rule=rule)

    def set(self, name, value, gpu=None):
        self.ctl("set", name=name, value=int(value), gpu=gpu)

    def reserve(self, size, gpu=0):
        return self.ctl("reserve", gpu=gpu, bytes=size)["free"]

    def reset(self):
        self.ctl("reset")


class Lines:
    """A child that talks in lines over pipes: gpu-shell, cuda-call."""

    def __init__(self, child):
        self.child = child
        self.pid = child.pid
        self._rest = b""

    def send(self, line):
        self.child.stdin.write(line.encode() + b"\n")

    def recv(self, timeout=20.0):
        """The next line; None when none comes in time, "" at the end."""
        end = time.monotonic() + timeout
        while b"\n" not in self._rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.child.stdout], [], [], left)[0]:
                return None
            data = os.read(self.child.stdout.fileno(), 65536)
            if not data:
                return ""
            self._rest += data
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode()

    def ask(self, line, timeout=20.0):
        self.send(line)
        return self.recv(timeout)


class Shell(Lines):
    """A gpu-shell; commands are given to do() and must be answered with "ok"."""

    def __init__(self, gpu, *commands, **kwargs):
        super().__init__(gpu.spawn("gpu-shell", stdin=subprocess.PIPE, **kwargs))
        for c in commands:
            self.do(c)

    def do(self, command, timeout=20.0):
        answer = self.ask(command, timeout)
        if not (answer or "").startswith("ok"):
            raise AssertionError(f"gpu-shell: {command}: {answer}")
        return answer[3:]


class Answer(tuple):
    """(name, ms, value) of a call; name is that of the CUresult, HANGS or CRASHED."""

    name = property(lambda self: self[0])
    ms = property(lambda self: self[1])
    value = property(lambda self: self[2])


class Caller:
    """A process that calls the checkpoint API, as a worker does. Replaced when it had to be
    killed."""

    def __init__(self, gpu, init=True, library=None, program="cuda-call", **kwargs):
        self.gpu, self.init = gpu, init
        self.program = program
        self.library = str(library or gpu.libcuda)
        self._kwargs = kwargs
        self._lines = None

    @property
    def pid(self):
        return self._alive().pid

    def _alive(self):
        if self._lines is None or self._lines.child.poll() is not None:
            self._lines = Lines(self.gpu.spawn(self.program, self.library, stdin=subprocess.PIPE,
                                               **self._kwargs))
            if self.init:
                self._lines.ask("init")
        return self._lines

    def kill(self):
        if self._lines:
            self._lines.child.kill()
            self._lines.child.wait()

    def begin(self, call, *args):
        self._alive().send(" ".join(map(str, (call, *args))))

    def end(self, timeout=20.0):
        line = self._lines.recv(timeout)
        if line is None:
            self.kill()
            return Answer(("HANGS", int(timeout * 1000), None))
        if line == "":
            self._lines.child.wait()
            return Answer(("CRASHED", 0, None))
        words = line.split()
        return Answer((words[0], int(words[1]), int(words[2]) if len(words) > 2 else None))

    def call(self, call, *args, timeout=20.0):
        self.begin(call, *args)
        return self.end(timeout)

    def state(self, pid, timeout=20.0):
        """"RUNNING" and so on, or the name of the error."""
        answer = self.call("state", pid, timeout=timeout)
        states = {0: "RUNNING", 1: "LOCKED", 2: "CHECKPOINTED", 3: "FAILED"}
        if answer.name == "SUCCESS":
            return states.get(answer.value, answer.value)
        return answer.name
