# SPDX-License-Identifier: Apache-2.0
"""A containerd that is not there: everything around a shim that a test needs, and no daemon.

A World is one test's folder, namespace and event sink. It makes bundles as containerd would,
starts shims for them, and speaks the Task API to them. It knows all that was made in it by a token
in every name, so that close() can end and remove it whatever the test did.
"""
import json
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading

from . import cgroups, env, fakeruntime, procs, protos, sink, spec, starter, stdio, ttrpc
from .protos import task as pb
from .wait import Timeout, until

TASK_V2 = "containerd.task.v2.Task"
TASK_V3 = "containerd.task.v3.Task"
ZERO_TIME = -62135596800  # seconds of Go's zero time, "not yet"

_RUNTIME_INITS = ("runc", "crun")  # argv[0] of what becomes the container's init
_REPLIES = {
    "State": (pb.StateRequest, pb.StateResponse),
    "Create": (pb.CreateTaskRequest, pb.CreateTaskResponse),
    "Start": (pb.StartRequest, pb.StartResponse),
    "Delete": (pb.DeleteRequest, pb.DeleteResponse),
    "Pids": (pb.PidsRequest, pb.PidsResponse),
    "Pause": (pb.PauseRequest, protos.common.Empty),
    "Resume": (pb.ResumeRequest, protos.common.Empty),
    "Checkpoint": (pb.CheckpointTaskRequest, protos.common.Empty),
    "Kill": (pb.KillRequest, protos.common.Empty),
    "Exec": (pb.ExecProcessRequest, protos.common.Empty),
    "ResizePty": (pb.ResizePtyRequest, protos.common.Empty),
    "CloseIO": (pb.CloseIORequest, protos.common.Empty),
    "Update": (pb.UpdateTaskRequest, protos.common.Empty),
    "Wait": (pb.WaitRequest, pb.WaitResponse),
    "Stats": (pb.StatsRequest, pb.StatsResponse),
    "Connect": (pb.ConnectRequest, pb.ConnectResponse),
    "Shutdown": (pb.ShutdownRequest, protos.common.Empty),
}


class TaskClient(ttrpc.Client):
    """The Task API over one connection."""

    def __init__(self, address, namespace="", service=TASK_V2):
        super().__init__(address)
        self.service = service
        self.metadata = [("containerd-namespace-ttrpc", namespace)] if namespace else []

    def send(self, method, timeout=None, **fields):
        """A Future of the reply."""
        kind, reply = _REPLIES[method]
        return self.call_async(self.service, method, kind(**fields), reply, timeout,
                               self.metadata)

    def do(self, method, timeout=30, **fields):
        """The reply; timeout in seconds is the test's patience, not sent."""
        return ttrpc.answer(self.send(method, **fields), timeout)


class Process:
    """The calls that init and execs have in common."""

    def __init__(self, container, exec_id=""):
        self.container = container
        self.exec_id = exec_id
        self.pid = 0
        self.io = stdio.NoStdio()

    def _do(self, method, timeout=30, **fields):
        return self.container.task.do(method, timeout, id=self.container.id,
                                      exec_id=self.exec_id, **fields)

    def start(self, timeout=30):
        self.pid = self._do("Start", timeout).pid
        return self.pid

    def state(self):
        return self._do("State")

    @property
    def status(self):
        return pb.Status.Name(self.state().status)

    def wait(self, timeout=30):
        return self._do("Wait", timeout)

    def wait_async(self):
        return self.container.task.send("Wait", id=self.container.id, exec_id=self.exec_id)

    def kill(self, number=signal.SIGKILL, everybody=False):
        return self._do("Kill", signal=int(number), all=everybody)

    def delete(self, timeout=30):
        return self._do("Delete", timeout)

    def resize(self, width, height):
        return self._do("ResizePty", width=width, height=height)

    def close_io(self, **fields):
        return self._do("CloseIO", **{"stdin": True, **fields})

    def finish(self, timeout=30):
        """Wait and Delete; the answer of Delete."""
        self.wait(timeout)
        return self.delete(timeout)


class Exec(Process):
    """A further process of a container."""


class Container(Process):
    """One bundle and the connection that containerd would hold for it."""

    def __init__(self, world, container_id, bundle, kind):
        super().__init__(self)
        self.world = world
        self.id = container_id
        self.bundle = bundle
        self.kind = kind
        self.options = world.options()
        self.address = None
        self.task = None
        self.started = None  # Result of the program's start
        self.mounts = []
        self.terminal = False

    # --- the program ---

    def launch(self, stdin=None, **how):
        """Runs 'start', and connects to what it answers."""
        if stdin is None:
            stdin = self.start_input()
        self.world.program(self, "start", stdin=stdin, **how)
        if self.started.status != 0:
            raise RuntimeError(f"start failed: {self.started}")
        self.connect(self.world.service_of(self))
        return self

    def start_input(self):
        world = self.world
        if starter.dialect() == "params":
            return starter.bootstrap(self.id, world.namespace, world.grpc, world.ttrpc,
                                     self.options).SerializeToString()
        return self.options.SerializeToString() if self.options is not None else b""

    def connect(self, service=TASK_V2):
        if self.task is not None:
            self.task.close()
        self.task = TaskClient(self.address, self.world.namespace, service)
        return self.task

    def shim_pid(self):
        return self.task.do("Connect", id=self.id).shim_pid

    def delete_program(self, **how):
        """Runs 'delete', as containerd does after a crash: the program's Result."""
        return self.world.program(self, "-bundle", str(self.bundle), "delete", **how)

    # --- the Task API ---

    def create_request(self, **fields):
        """The fields of a CreateTaskRequest."""
        request = {"id": self.id, "bundle": str(self.bundle), "rootfs": self.mounts,
                   "terminal": self.terminal, "stdin": self.io.stdin, "stdout": self.io.stdout,
                   "stderr": self.io.stderr}
        if self.options is not None:
            request["options"] = self.options
        request.update(fields)
        return request

    def create(self, timeout=60, **fields):
        self.pid = self.task.do("Create", timeout, **self.create_request(**fields)).pid
        return self.pid

    def run(self, timeout=60):
        """create and start; the pid."""
        self.create(timeout)
        return self.start()

    def settle(self):
        """Until init is the container's own program. Start is answered a moment before: the OCI
        runtime's init has yet to execute it, and cannot be dumped."""
        until(lambda: (procs.command(self.pid) or [""])[0].rpartition("/")[2] not in _RUNTIME_INITS,
              what="the container's own program runs")
        return self

    def exec(self, exec_id, args, io="null", terminal=False, **process):
        """Adds an exec without starting it; io as for World.container()."""
        added = Exec(self, exec_id)
        added.io = self.world.io(f"{self.id}-{exec_id}", io, terminal)
        proc = spec.process(args, terminal=terminal, **process)
        self.task.do("Exec", id=self.id, exec_id=exec_id, terminal=terminal,
                     stdin=added.io.stdin, stdout=added.io.stdout, stderr=added.io.stderr,
                     spec=protos.pack(protos.PROCESS, json.dumps(proc).encode()))
        return added

    def pids(self):
        """{pid: exec id or ''}"""
        found = {}
        for process in self.task.do("Pids", id=self.id).processes:
            detail = pb.ProcessDetails()
            if process.info.type_url:
                assert process.info.type_url == protos.PROCESS_DETAILS
                detail.ParseFromString(process.info.value)
            found[process.pid] = detail.exec_id
        return found

    def pause(self):
        return self.task.do("Pause", id=self.id)

    def resume(self):
        return self.task.do("Resume", id=self.id)

    def checkpoint(self, path, options=None, timeout=120):
        fields = {"id": self.id, "path": str(path)}
        if options is not None:
            fields["options"] = options
        return self.task.do("Checkpoint", timeout, **fields)

    def update(self, resources, type_url=protos.RESOURCES, **fields):
        return self.task.do("Update", id=self.id, resources=protos.pack(
            type_url, json.dumps(resources).encode()), **fields)

    def stats(self):
        """(type url, message)"""
        stats = self.task.do("Stats", id=self.id).stats
        kind = {protos.METRICS_V1: protos.metrics.MetricsV1,
                protos.METRICS_V2: protos.metrics.MetricsV2}[stats.type_url]
        return stats.type_url, kind.FromString(stats.value)

    def shutdown(self, now=False):
        """Whether or not the shim lives to answer it."""
        try:
            self.task.do("Shutdown", id=self.id, now=now)
        except ttrpc.Closed:
            pass

    # --- what is on the machine ---

    @property
    def rootfs(self):
        return self.bundle / "rootfs"

    def read(self, path):
        """A file of the container's root, '' while it is not there."""
        try:
            return (self.rootfs / path.lstrip("/")).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def log(self):
        """What the shim wrote to its log so far."""
        return self.world.log_of(self.id)


class _Log:
    """containerd's end of the bundle's log FIFO."""

    def __init__(self, path):
        os.mkfifo(path, 0o700)
        # Read-write, so that the FIFO has a reader always and never ends.
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.data = bytearray()

    def take(self):
        while self.fd is not None:
            try:
                part = os.read(self.fd, 65536)
            except BlockingIOError:
                break
            self.data += part
        return self.data.decode(errors="replace")

    def fill(self):
        """Until nothing more goes in."""
        for size in (4096, 1):
            try:
                while True:
                    os.write(self.fd, b"x" * size)
            except BlockingIOError:
                pass

    def close(self):
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


class World:
    """See the head of this file. rootfs is a folder from rootfs.make(), shared and never written
    to: each container gets an overlay over it."""

    def __init__(self, kind, rootfs):
        self.kind = kind
        self.token = "kt" + secrets.token_hex(4)
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=f"{self.token}.", dir=env.BASE))
        self.namespace = self.token
        self.grpc = str(self.dir / "c.sock")
        self.ttrpc = self.grpc + ".ttrpc"
        self.base = pathlib.Path(rootfs)
        self.sink = sink.Sink(self.ttrpc)
        self.containers = []
        self.addresses = set()
        self._ios = []
        self._logs = {}
        self._lock = threading.Lock()
        self._numbers = iter(range(10**6))
        self.forgives = lambda leftover: False

    # --- making ---

    def options(self, **fields):
        """Runtime options with an OCI runtime root of this world."""
        values = {"root": str(self.dir / "r"), "systemd_cgroup": env.DRIVER == "systemd"}
        if env.RUNTIME != "runc":
            values["binary_name"] = env.RUNTIME
        values.update(fields)
        return protos.pack(protos.RUNC_OPTIONS, protos.options.Runc(**values))

    def fake_runtime(self):
        """A FakeRuntime; containers use it with options(binary_name=str(fake.path))."""
        return fakeruntime.FakeRuntime(self.dir / "rt")

    def bundle(self, container_id):
        return self.dir / "t" / self.namespace / container_id

    def define(self, args=("probe", "sleep"), container_id=None, group=None, annotations=None,
               kind=None, terminal=False, log=True, **more):
        """A container's bundle, with no shim yet. group: id of the container whose shim is to be
        shared; more goes to spec.container()."""
        container_id = container_id or f"c{next(self._numbers)}"
        bundle = self.bundle(container_id)
        bundle.mkdir(parents=True)
        container = Container(self, container_id, bundle, kind or self.kind)
        container.terminal = terminal
        annotations = dict(annotations or {})
        if group:
            annotations.setdefault("io.containerd.runc.v2.group", group)
        document = spec.container(args, cgroups.path_for(self.token, container_id),
                                  annotations=annotations, terminal=terminal, **more)
        (bundle / "config.json").write_text(json.dumps(document), encoding="utf-8")
        work = self.dir / "w" / container_id
        work.mkdir(parents=True)
        (bundle / "work").symlink_to(work)
        (bundle / "rootfs").mkdir(mode=0o711)
        layers = self.dir / "l" / container_id
        for name in ("up", "work"):
            (layers / name).mkdir(parents=True)
        container.mounts = [protos.common.Mount(type="overlay", source="overlay", options=[
            f"lowerdir={self.base}", f"upperdir={layers}/up", f"workdir={layers}/work"])]
        if log:
            self._logs[container_id] = _Log(bundle / "log")
        with self._lock:
            self.containers.append(container)
        return container

    def container(self, args=("probe", "sleep"), io=None, stdin=None, options=None, **more):
        """define() and a running shim. io: 'null', 'pipes', 'stdin' (pipes with stdin) or an
        object of stdio; options: those of the runtime, instead of options()."""
        container = self.define(args, **more)
        if options is not None:
            container.options = options
        container.io = self.io(container.id, io or "null", container.terminal)
        return container.launch(stdin)

    def faked(self, args=("probe", "sleep"), **more):
        """(container, FakeRuntime) with the one driven through the other."""
        fake = self.fake_runtime()
        return self.container(args, options=self.options(binary_name=str(fake.path)),
                              **more), fake

    def running(self, args=("probe", "sleep"), **more):
        """container() that has been created and started."""
        container = self.container(args, **more)
        container.run()
        return container.settle()

    def io(self, name, how="pipes", terminal=False, **more):
        """Stdio for a process."""
        if how == "null":
            return stdio.NoStdio()
        if not isinstance(how, str):
            return how
        made = stdio.Stdio(self.dir / "f" / name, stdin=how == "stdin", stderr=not terminal,
                           **more)
        self._ios.append(made)
        return made

    def program(self, container, *action, stdin=b"", more_env=None, debug=False, argv=None,
                cwd=None, **how):
        """Runs the shim's program for a container."""
        environ = starter.start_environment(self.ttrpc, self.grpc, self.namespace)
        environ.update(more_env or {})
        argv = argv or starter.arguments(self.namespace, container.id, self.grpc, *action,
                                         debug=debug)
        result = starter.run(container.kind, argv, cwd or container.bundle, stdin, environ, **how)
        if "start" in action:
            container.started = result
        if "start" in action and result.status == 0:
            self.addresses.add(result.reply.address)
            container.address = result.reply.address
        return result

    # --- looking ---

    def log_of(self, container_id):
        return self._logs[container_id].take()

    def log_fifo(self, container_id):
        """containerd's end of a log FIFO."""
        return self._logs[container_id]

    def close_log(self, container_id):
        """What the FIFO looks like to the shim when containerd has gone."""
        self._logs[container_id].close()

    def shims(self):
        """Pids of this world's shim daemons: their working directory is a bundle."""
        return procs.daemons_below(self.dir / "t")

    def runtime(self, *argv):
        """The OCI runtime on this world's root, as a person would call it."""
        return self._runtime(self.dir / "r" / self.namespace, *argv)

    @staticmethod
    def _runtime(root, *argv):
        systemd = ["--systemd-cgroup"] if env.DRIVER == "systemd" else []
        return subprocess.run([env.RUNTIME, "--root", str(root), *systemd, *argv],
                              capture_output=True, text=True, check=False,
                              env=env.environment(), timeout=env.seconds(60))

    def _runtime_roots(self):
        """Ours, and the default one of a shim that was given no options."""
        return [root for root in (self.dir / "r" / self.namespace,
                                  pathlib.Path("/run/containerd/runc") / self.namespace)
                if root.exists()]

    def runtime_ids(self):
        """Containers that the OCI runtime knows of."""
        return sorted(name for root in self._runtime_roots() for name in os.listdir(root))

    def leftovers(self):
        """What a world must not hold once its containers are deleted and its shims shut down."""
        found = [f"shim {pid}: {procs.command(pid)}" for pid in self.shims()]
        found += [f"mount {point}" for point in procs.mounts_below(self.dir)]
        found += [f"cgroup {path}" for path in cgroups.named(self.token)]
        found += [f"container {name}" for name in self.runtime_ids()]
        found += [f"socket {a}" for a in sorted(self.addresses) if starter.exists(a)]
        return [item for item in found if not self.forgives(item)]

    # --- ending ---

    def finish(self):
        """Ends every container the polite way and expects nothing to be left.

        Raises AssertionError naming what is.
        """
        for container in reversed(self.containers):
            if container.task is None and container.address and starter.exists(container.address):
                try:
                    container.connect(self.service_of(container))
                except (FileNotFoundError, ConnectionRefusedError):
                    continue  # its shim is another's, too, and has just ended with that one
            if container.task is not None:
                self._finish_one(container)
        try:
            until(lambda: not self.leftovers(), 10)
        except Timeout:
            raise AssertionError(f"left behind: {self.leftovers()}") from None

    @staticmethod
    def service_of(container):
        """The Task service that the answer of 'start' announced."""
        reply = container.started.reply if container.started else None
        return TASK_V3 if reply and reply.version >= 3 else TASK_V2

    @staticmethod
    def _finish_one(container):
        try:
            state = container.state()
        except (ttrpc.Error, ttrpc.Closed):
            state = None
        if state is not None:
            if state.status not in (pb.STOPPED, pb.CREATED):
                try:
                    container.kill()
                except ttrpc.Error:
                    pass  # it exited just now
                container.wait()
            container.delete()
        container.shutdown()

    def close(self):
        """Ends and removes everything, whatever state it is in."""
        self.sink.stop()
        for container in self.containers:
            if container.task is not None:
                container.task.close()
        procs.kill_all(self.shims())
        for root in self._runtime_roots():
            for container_id in os.listdir(root):
                self._runtime(root, "delete", "--force", container_id)
            if not root.is_relative_to(self.dir):
                shutil.rmtree(root)
        cgroups.remove(self.token)
        for made in self._ios:
            made.close()
        for log in self._logs.values():
            log.close()
        procs.kill_all(procs.working_below(self.dir))
        procs.unmount_below(self.dir)
        for address in self.addresses:
            try:
                os.unlink(address.removeprefix("unix://"))
            except FileNotFoundError:
                pass
        if not os.environ.get("KYB_KEEP"):
            shutil.rmtree(self.dir)
