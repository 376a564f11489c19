# SPDX-License-Identifier: Apache-2.0
"""A node of its own on a machine with a GPU: the unpacked kit, a private containerd, an agent, and
containers that compute. Standard library only; see run."""
import contextlib
import ctypes
import glob
import hashlib
import io
import json
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import tarfile
import tempfile
import threading
import time

PREFIX = pathlib.Path("/opt/kybernate-gpu")
BIN = PREFIX / "bin"
LIBRARIES = "/usr/lib/x86_64-linux-gnu"  # in the containers
NAMESPACE = "kybgpu"
IMAGE = "localhost/gpu-work:1"
GROUP, SEAT = "group-a", "seat-0"

# What nvidia-container-toolkit mounts for "compute,utility", as far as CUDA needs it.
_DRIVER_LIBRARIES = ("libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1",
                     "libnvidia-nvvm.so.4", "libnvidia-gpucomp.so.*", "libnvidia-nvvm70.so.4",
                     "libcudadebugger.so.1")
_DEVICES = ("/dev/nvidia[0-9]*", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
_CONTAINERD = """version = 2
root = "{work}/root"
state = "{run}/s"
disabled_plugins = [{disabled}]
[debug]
level = "debug"
[grpc]
address = "{run}/c.sock"
"""
_DISABLED = ("io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs",
             "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
             "io.containerd.snapshotter.v1.aufs", "io.containerd.tracing.processor.v1.otlp",
             "io.containerd.internal.v1.tracing", "io.containerd.internal.v1.opt")
_AGENT = """socket = "{run}/agent.sock"
store = "{work}/store"
containerd = "{run}/c.sock"
journal = "{run}/journal"
worker = "{bin}/kybernate-cuda-worker"
libcuda = "{libcuda}"
log_level = "debug"
{groups}"""
_LINE = re.compile(r"(?:proc=\d+ )?step=(\d+) counter=(\d+) checksum=(\w+) (.*)")
_LIBC = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """A case did not go as it must; the text says what was seen."""


def check(condition, text):
    if not condition:
        raise Failed(text)


def size(text):
    """Bytes of "8G" and the like."""
    units = "KMG"
    if text[-1] in units:
        return int(text[:-1]) << 10 * (units.index(text[-1]) + 1)
    return int(text)


class Deadline:
    """Of a stage: everything in it waits for the shorter of its own time-out and this."""

    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def left(self, most=1e9):
        left = min(self.end - time.monotonic(), most)
        check(left > 0.5, "the stage's time is over")
        return left

    def until(self, condition, seconds, what):
        end = time.monotonic() + self.left(seconds)
        while True:
            value = condition()
            if value:
                return value
            check(time.monotonic() < end, f"{what}: not within {seconds} s")
            time.sleep(0.02)


def environment(**more):
    return {"XTABLES_LIBDIR": str(PREFIX / "lib/xtables"),
            "PATH": f"{BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root", "LANG": "C.UTF-8", **more}


class Run:
    """What came of a program."""

    def __init__(self, argv, timeout=30, cwd=None, **env):
        self.argv = [str(a) for a in argv]
        begin = time.monotonic()
        try:
            done = subprocess.run(self.argv, stdin=subprocess.DEVNULL, capture_output=True,
                                  env=environment(**env), timeout=timeout, cwd=cwd, check=False)
            self.status, out, err = done.returncode, done.stdout, done.stderr
        except subprocess.TimeoutExpired as e:
            self.status, out, err = "timed out", e.stdout or b"", e.stderr or b""
        except OSError as e:
            self.status, out, err = e.strerror, b"", b""
        self.seconds = time.monotonic() - begin
        self.out = out.decode(errors="replace")
        self.err = err.decode(errors="replace")

    @property
    def ok(self):
        return self.status == 0

    def must(self):
        check(self.ok, f"{' '.join(self.argv)[:300]}: {self.status}: "
                       f"{(self.out + self.err).strip()[-2000:]}")
        return self


def libc(name, *args):
    """0 or the name of the error."""
    if getattr(_LIBC, name)(*args) == 0:
        return 0
    return os.strerror(ctypes.get_errno())


def mount(source, target, kind, flags=0, data=None):
    return libc("mount", str(source).encode(), str(target).encode(), kind and kind.encode(),
                ctypes.c_ulong(flags), data and data.encode())


def try_overlay(folder):
    """Can an overlay have its upper folder there? 0 or why not."""
    with tempfile.TemporaryDirectory(dir=folder) as base:
        for name in ("low", "up", "work", "at"):
            os.mkdir(f"{base}/{name}")
        error = mount("overlay", f"{base}/at", "overlay", 0,
                      f"lowerdir={base}/low,upperdir={base}/up,workdir={base}/work")
        if not error:
            libc("umount", f"{base}/at".encode())
        return error


MS_REC, MS_PRIVATE = 1 << 14, 1 << 18
CLONE_NEWNS = 0x20000


def private_mounts():
    """What is mounted from now on ends with us and what we started."""
    error = libc("unshare", CLONE_NEWNS) or mount("none", "/", None, MS_REC | MS_PRIVATE)
    return error or "ok"


# --- the driver ------------------------------------------------------------------------------

class Driver:
    """The driver's files and what NVML tells."""

    def __init__(self, folder=None):
        self.folder = pathlib.Path(folder) if folder else self._find()
        self.libraries = []  # (soname, real file)
        for name in _DRIVER_LIBRARIES:
            for path in sorted(glob.glob(str(self.folder / name))):
                self.libraries.append((os.path.basename(path), os.path.realpath(path)))
        self.devices = sorted({p for pattern in _DEVICES for p in glob.glob(pattern)})
        self._nvml = None

    @staticmethod
    def _find():
        listed = re.findall(r"libcuda\.so\.1 .*x86-64.*=> (\S+)",
                            Run(["/sbin/ldconfig", "-p"]).out)
        # cuda-compat's, which LD_LIBRARY_PATH may name, comes last: it is of another version.
        for path in ["/usr/local/nvidia/lib64", "/usr/local/nvidia/lib",
                     *map(os.path.dirname, listed), LIBRARIES, "/usr/lib64",
                     *os.environ.get("LD_LIBRARY_PATH", "").split(":")]:
            if path and os.path.exists(f"{path}/libcuda.so.1"):
                return pathlib.Path(path)
        raise Failed("there is no libcuda.so.1 on this machine")

    @property
    def libcuda(self):
        return self.folder / "libcuda.so.1"

    def link(self):
        """For our programs, whose loader does not know the machine's library folders."""
        for soname, path in self.libraries:
            link = PREFIX / "lib" / soname
            link.unlink(missing_ok=True)
            link.symlink_to(path)

    def nvml(self):
        if self._nvml is None:
            lib = ctypes.CDLL(str(self.folder / "libnvidia-ml.so.1"))
            check(lib.nvmlInit_v2() == 0, "nvmlInit_v2 failed")
            self._nvml = lib
        return self._nvml

    def used(self, index=0):
        """Bytes of VRAM in use, as the driver reports them."""
        lib = self.nvml()
        handle, memory = ctypes.c_void_p(), (ctypes.c_ulonglong * 3)()
        code = lib.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle))
        code = code or lib.nvmlDeviceGetMemoryInfo(handle, memory)
        check(code == 0, f"NVML answers {code}")
        return memory[2]

    def free(self, index=0):
        """Bytes of VRAM that nobody uses."""
        lib = self.nvml()
        handle, memory = ctypes.c_void_p(), (ctypes.c_ulonglong * 3)()
        code = lib.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle))
        code = code or lib.nvmlDeviceGetMemoryInfo(handle, memory)
        check(code == 0, f"NVML answers {code}")
        return memory[1]

    def gpus(self):
        """(device node, UUID) of each GPU, in NVML's order."""
        lib, found = self.nvml(), []
        count, handle, minor = ctypes.c_uint(), ctypes.c_void_p(), ctypes.c_uint()
        uuid = ctypes.create_string_buffer(96)
        check(lib.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0, "NVML does not count")
        for i in range(count.value):
            code = lib.nvmlDeviceGetHandleByIndex_v2(i, ctypes.byref(handle))
            code = code or lib.nvmlDeviceGetUUID(handle, uuid, len(uuid))
            code = code or lib.nvmlDeviceGetMinorNumber(handle, ctypes.byref(minor))
            check(code == 0, f"NVML answers {code} about GPU {i}")
            found.append((f"/dev/nvidia{minor.value}", uuid.value.decode()))
        return found

    def uuids(self, deadline):
        """Of GPU 0, by the driver API."""
        with Lines(["real-shell"], deadline) as shell:
            check(shell.ask("init") == "ok", "cuInit or a context failed")
            return [shell.ask("uuid").split()[1]]


class Lines:
    """A program that answers a line with a line."""

    def __init__(self, argv, deadline):
        self.deadline = deadline
        self.child = subprocess.Popen(  # pylint: disable=consider-using-with
            [str(BIN / argv[0]), *argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=environment(), bufsize=0)
        self._rest = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()

    def ask(self, line, timeout=60):
        self.child.stdin.write(line.encode() + b"\n")
        end = time.monotonic() + self.deadline.left(timeout)
        while b"\n" not in self._rest:
            left = end - time.monotonic()
            check(left > 0 and select.select([self.child.stdout], [], [], left)[0],
                  f"no answer to '{line}'")
            data = os.read(self.child.stdout.fileno(), 65536)
            check(data, f"the program ended at '{line}'")
            self._rest += data
        answer, self._rest = self._rest.split(b"\n", 1)
        return answer.decode()


class Sampler:
    """VRAM in use while something happens."""

    def __init__(self, driver):
        self.driver, self.samples, self._stop = driver, [], threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        begin = time.monotonic()
        while not self._stop.is_set():
            try:
                self.samples.append((time.monotonic() - begin, self.driver.used()))
            except Failed:
                return
            time.sleep(0.02)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(5)

    def summary(self):
        used = [u for _, u in self.samples]
        if not used:
            return {}
        return {"first": used[0], "min": min(used), "max": max(used), "last": used[-1],
                "samples": len(used)}


def tail(path, size=1500):
    return path.read_text(errors="replace")[-size:] if path.exists() else "(no log)"


def when(line):
    """A log line's time, in ns from the begin of its day."""
    hours, minutes, seconds, rest = re.match(r'time="[\d-]+T(\d+):(\d+):(\d+)\.(\d+)Z"',
                                             line).groups()
    return ((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) * 10**9 + int(rest.ljust(9, "0"))


def spread(values):
    """[least, median, most], rounded."""
    found = sorted(values)
    return [round(v, 2) for v in (found[0], found[len(found) // 2], found[-1])]


def line_of(path):
    """(step, rest of the line) of a workload's status file, or None."""
    found = _LINE.match(path.read_text()) if path.exists() else None
    return (int(found.group(1)), found.group(4)) if found else None


def steps_of(deadline, status, beyond, seconds, steps=3):
    """Waits for steps after beyond, every one of which was verified. Returns the step. status: the
    path, or a function that tells it."""
    def there():
        now = line_of(status() if callable(status) else status)
        check(now is None or now[1].startswith("ok"), f"the workload says {now}")
        return now and now[0] >= beyond + steps and now[0]

    return deadline.until(there, seconds, f"steps after {beyond}")


# --- the node --------------------------------------------------------------------------------

class Node:
    """containerd and the agent."""

    prefix = ""  # of the names of cases that were run with it
    pausing = "ctr tasks pause"
    has_containerd = True

    def __init__(self, driver, work, deadline):
        self.driver, self.deadline = driver, deadline
        self.work = pathlib.Path(work)
        self.run = pathlib.Path(tempfile.mkdtemp(prefix="kg", dir="/run"))
        # As /run is where systemd has made it; the journal is written before each step.
        mount("kybernate", self.run, "tmpfs", 0, "mode=755,size=64m")
        self.processes = {}
        self.mounts = []  # further (source, destination) of GPU containers
        self.host_net = False
        self.more_args = []  # of "ctr run"
        if "cpu" not in pathlib.Path("/sys/fs/cgroup/cgroup.controllers").read_text().split() \
                if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else False:
            self.more_args = ["--cpu-shares", "0"]
        self.snapshotter = "overlayfs"
        self.closed = False
        self.work.mkdir(parents=True, exist_ok=True)
        self.logs = self.work / "logs"
        self.logs.mkdir(exist_ok=True)

    def _daemon(self, name, argv, **env):
        with open(self.logs / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(  # pylint: disable=consider-using-with
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(**env),
                start_new_session=True)

    def _alive(self, name):
        if self.processes[name].poll() is not None:
            text = (self.logs / f"{name}.log").read_text(errors="replace")
            raise Failed(f"{name} ended with {self.processes[name].returncode}: {text[-2000:]}")

    def write_shim_config(self):
        (self.work / "shim.toml").write_text(
            f'agent_socket = "{self.run}/agent.sock"\nlog_level = "debug"\n')

    def start_containerd(self):
        (self.work / "containerd.toml").write_text(_CONTAINERD.format(
            work=self.work, run=self.run, disabled=", ".join(f'"{d}"' for d in _DISABLED)))
        self.write_shim_config()
        self._daemon("containerd", [BIN / "containerd", "-c", self.work / "containerd.toml"],
                     KYBERNATE_SHIM_CONFIG=str(self.work / "shim.toml"))

        def answers():
            self._alive("containerd")
            return self.ctr("version").ok

        self.deadline.until(answers, 40, "containerd answers")
        self._import()

    def start_agent(self, groups):
        """groups: {name: (device nodes, UUIDs)}"""
        groups = "".join(
            f'[[group]]\nname = "{name}"\nseats = ["{SEAT}", "seat-1"]\n'
            f'gpu_uuids = {json.dumps(uuids)}\n'
            f'device_paths = {json.dumps(nodes)}\n' for name, (nodes, uuids) in groups.items())
        (self.work / "agent.toml").write_text(_AGENT.format(
            run=self.run, work=self.work, bin=BIN, libcuda=self.driver.libcuda, groups=groups))
        self._launch_agent()

    def _launch_agent(self):
        self._daemon("agent", [BIN / "kybernate-agent", "--config", self.work / "agent.toml"])

        def serves():
            self._alive("agent")
            return self.ctl("status", "-o", "json").ok

        self.deadline.until(serves, 30, "the agent answers")

    def another_agent(self):
        """In its place: one whose worker has not died yet, for each death doubles the pause before
        the next start."""
        old = self.processes["agent"]
        old.send_signal(signal.SIGTERM)
        old.wait(self.deadline.left(20))
        self._launch_agent()
        self.worker_ready()

    def worker_ready(self):
        """Until the worker has come (back): an operation that begins before is refused."""
        def ready():
            done = self.ctl("status", "-o", "json")
            return done.ok and json.loads(done.out).get("driver_ok")

        self.deadline.until(ready, 40, "the CUDA worker is ready")

    def agent_log_size(self):
        return len((self.logs / "agent.log").read_text(errors="replace"))

    def shares(self, begin, container_id, verb):
        """(ours, the driver's) in ms of each operation in the agent's log from there on."""
        text = (self.logs / "agent.log").read_text(errors="replace")[begin:]
        ours, driver, start, calls = [], [], None, 0
        for line in text.splitlines():
            if f'msg="operation begins" op={verb} ' in line and f"id={container_id} " in line:
                start, calls = when(line), 0
            elif start and 'msg="driver call"' in line:
                calls += int(re.search(r"\bdur_us=(\d+)", line).group(1))
            elif start and 'msg="operation ends"' in line:
                driver.append(calls / 1e3)
                ours.append((when(line) - start) / 1e6 - calls / 1e3)
                start = None
        return ours, driver

    def gpus(self):
        return [d for d in self.driver.devices if re.search(r"nvidia\d+$", d)] or ["/dev/nvidia0"]

    def _import(self):
        archive = self.work / "image.tar"
        write_image(archive, PREFIX / "rootfs", self.driver.libraries)
        self.ctr("images", "import", "--snapshotter", self.snapshotter, archive).must()
        archive.unlink()

    def ctr(self, *args, timeout=60):
        return Run([BIN / "ctr", "-a", self.run / "c.sock", "-n", NAMESPACE, *args],
                   self.deadline.left(timeout), XDG_RUNTIME_DIR=str(self.run))

    def ctl(self, *args, timeout=300):
        return Run([BIN / "kybernatectl", "--socket", self.run / "agent.sock", *args],
                   self.deadline.left(timeout))

    def operation(self, verb, *args, timeout=300):
        """(last update, Run) of a checkpoint or restore; the update has status, error, timeline."""
        done = self.ctl(verb, *args, "-n", NAMESPACE, "-o", "jsonl", timeout=timeout)
        updates = [json.loads(line) for line in done.out.splitlines() if line.startswith("{")]
        return (updates[-1] if updates else {"error": done.err.strip()[-1500:]}), done

    def container(self, name, argv, gpu=True, annotations=None, run=True, seat=SEAT, libraries=None,
                  env=None, group=GROUP, devices=None):
        """Starts a container; annotations beside those of its seat. libraries: (source,
        destination) to mount in place of the driver's; devices: some of the driver's."""
        args = ["run", "--detach", *self.more_args, "--runtime", "io.containerd.kybernate.v1", "--snapshotter",
                self.snapshotter, "--log-uri", f"file://{self.logs}/{name}.log"]
        notes = dict(annotations or {})
        if gpu:
            notes.update({"kybernate.io/gpu-group": group, "kybernate.io/gpu-seat": seat})
            args += ["--env", f"KYB_GPU_GROUP={group}", "--env", f"KYB_GPU_SEAT={SEAT}"]
            for device in devices or self.driver.devices:
                args += ["--device", device]
            for source, target in libraries or [(path, f"{LIBRARIES}/{os.path.basename(path)}")
                                                for _, path in self.driver.libraries]:
                args += ["--mount", f"type=bind,src={source},dst={target},"
                                    f"options={'bind' if libraries else 'rbind'}:ro:nosuid:nodev"]
            for key, value in (env or {}).items():
                args += ["--env", f"{key}={value}"]
            for source, target in self.mounts:
                args += ["--mount", f"type=bind,src={source},dst={target},options=rbind:rw"]
        for key, value in notes.items():
            args += ["--annotation", f"{key}={value}"]
        if self.host_net:
            args.append("--net-host")
        if run:
            self.ctr(*args, IMAGE, name, *argv, timeout=120).must()
        return self.get(name)

    def get(self, name):
        return Container(self, name)

    def inspect(self, ref):
        """What the store says of a checkpoint."""
        return json.loads(self.ctl("inspect", ref, "-o", "json").must().out)

    def forget(self, ref):
        """Whether or not there is such a checkpoint."""
        self.ctl("delete", ref)

    def find_snapshotter(self):
        """Overlayfs where its upper folder may lie in the work folder; else in a tmpfs there; else
        plain copies."""
        error = try_overlay(self.work)
        if not error:
            return "overlayfs"
        mount("kybernate", self.work, "tmpfs", 0, "mode=755,size=75%")
        self.logs.mkdir(exist_ok=True)
        if not try_overlay(self.work):
            return f"overlayfs on a tmpfs: {error} without"
        self.snapshotter = "native"
        return f"the native snapshotter: {error} with overlayfs"

    def log_folders(self):
        return [self.run, self.work / "store"]

    def traces(self):
        """Logs that lie where containerd's, the agent's and CRIU's files are."""
        return [p for folder in self.log_folders() for p in folder.rglob("*.log")
                if p.is_file()]

    def collect(self, name):
        """Keeps what is there now: a failed operation's folders may soon be gone."""
        for path in self.traces():
            shutil.copy(path, self.logs / f"{name}-{'-'.join(path.parts[-3:])}")

    def kill_worker(self):
        """Of the agent's children, the one that calls the driver. Returns how many died."""
        n = 0
        for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text().rsplit(")", 1)
                if int(fields[1].split()[1]) == self.processes["agent"].pid and \
                        "cuda-worker" in os.readlink(path.with_name("exe")):
                    os.kill(int(path.parent.name), signal.SIGKILL)
                    n += 1
        return n

    def end_containers(self):
        if "containerd" not in self.processes or self.processes["containerd"].poll() is not None:
            return
        with contextlib.suppress(Failed):
            for name in self.ctr("containers", "ls", "-q").out.split():
                self.ctr("tasks", "delete", "--force", name, timeout=10)
                self.ctr("containers", "delete", name, timeout=10)

    def close(self):
        self.closed = True
        self.deadline = Deadline(40)
        self.end_containers()
        for process in reversed(self.processes.values()):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(8)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for path in glob.glob(f"/sys/fs/cgroup/*/{NAMESPACE}") + \
                glob.glob(f"/sys/fs/cgroup/{NAMESPACE}"):
            with contextlib.suppress(OSError):  # one that is not empty has something to tell
                os.rmdir(path)


class Container:
    """One of the node's containers, and what its workload says."""

    def __init__(self, node, name):
        self.node, self.name = node, name

    @property
    def pid(self):
        for line in self.node.ctr("tasks", "ls").out.splitlines()[1:]:
            fields = line.split()
            if fields[0] == self.name and fields[2] in ("RUNNING", "PAUSED"):
                return int(fields[1])
        raise Failed(f"{self.name} does not run: {self.log()[-1000:]}")

    def log(self):
        path = self.node.logs / f"{self.name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def status(self, suffix=""):
        return pathlib.Path(f"/proc/{self.pid}/root/var/state{suffix}")

    def line(self):
        return line_of(self.status())

    def goes_on(self, beyond=0, steps=3, seconds=60, suffix=""):
        return steps_of(self.node.deadline, lambda: self.status(suffix), beyond, seconds, steps)

    def gone(self, seconds=60):
        def ended():
            tasks = self.node.ctr("tasks", "ls").out
            return not re.search(rf"^{self.name}\s+\d+\s+(RUNNING|PAUSED)", tasks, re.M)

        self.node.deadline.until(ended, seconds, f"{self.name} ends")

    def delete(self):
        """Returns whether it went as it must: in a moment."""
        done = self.node.ctr("tasks", "delete", "--force", self.name, timeout=15)
        if not done.ok:
            with contextlib.suppress(Failed):
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(1)
            self.node.ctr("tasks", "delete", "--force", self.name, timeout=15)
        self.node.ctr("containers", "delete", self.name)
        return done.status != "timed out"

    def pause(self):
        return self.node.ctr("tasks", "pause", self.name).must()

    def resume(self):
        return self.node.ctr("tasks", "resume", self.name).must()

    @property
    def task(self):
        """RUNNING, PAUSED, ..., or None."""
        found = re.search(rf"^{self.name}\s+\d+\s+(\w+)", self.node.ctr("tasks", "ls").out, re.M)
        return found and found.group(1)


def write_image(path, rootfs, libraries):
    """A docker archive of rootfs, with the links that ldconfig would make for the driver's
    libraries."""
    def add(archive, name, data):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        layer.add(rootfs, arcname=".")
        for soname, real in libraries:
            if os.path.basename(real) != soname:
                link = tarfile.TarInfo(f".{LIBRARIES}/{soname}")
                link.type, link.linkname = tarfile.SYMTYPE, os.path.basename(real)
                layer.addfile(link)
    digest = "sha256:" + hashlib.sha256(buffer.getvalue()).hexdigest()
    config = json.dumps({"architecture": "amd64", "os": "linux",
                         "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
                         "rootfs": {"type": "layers", "diff_ids": [digest]}}).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [IMAGE],
                            "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(path, "w") as archive:
        add(archive, "manifest.json", manifest)
        add(archive, "config.json", config)
        add(archive, "layer.tar", buffer.getvalue())
