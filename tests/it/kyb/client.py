# SPDX-License-Identifier: Apache-2.0
"""A client of containerd's gRPC API: containers, tasks, events."""
import json
import os
import threading

# Our processes are started by fork; gRPC must not try to follow. Before its import.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# pylint: disable=wrong-import-position
import grpc  # noqa: E402

from . import cgroups, env, protos, spec, stdio  # noqa: E402
from .sink import Event  # noqa: E402
from .wait import Timeout  # noqa: E402

pb = protos.load("client")
svc = protos.module("api.containerd.services_pb2")
_OPTIONS = [("grpc.max_receive_message_length", 64 << 20),
            ("grpc.use_local_subchannel_pool", 1)]


class Channel:
    """Calls by name; errors are grpc.RpcError. A containerd that was started anew gets a new
    connection: a call over the old one would fail once more before gRPC notices."""

    def __init__(self, node, metadata=()):
        self._node = node
        self._channel = None
        self._starts = None
        self.metadata = list(metadata)

    @property
    def channel(self):
        if self._starts != self._node.starts:
            self.close()
            self._channel = grpc.insecure_channel(f"unix:{self._node.socket}", options=_OPTIONS)
            self._starts = self._node.starts
        return self._channel

    def call(self, service, method, request, reply, timeout=60):
        function = self.channel.unary_unary(f"/{service}/{method}",
                                            request_serializer=type(request).SerializeToString,
                                            response_deserializer=reply.FromString)
        return function(request, timeout=env.seconds(timeout), metadata=self.metadata,
                        wait_for_ready=True)

    def future(self, service, method, request, reply):
        function = self.channel.unary_unary(f"/{service}/{method}",
                                            request_serializer=type(request).SerializeToString,
                                            response_deserializer=reply.FromString)
        return function.future(request, metadata=self.metadata)

    def stream(self, service, method, request, reply):
        function = self.channel.unary_stream(f"/{service}/{method}",
                                             request_serializer=type(request).SerializeToString,
                                             response_deserializer=reply.FromString)
        return function(request, metadata=self.metadata, wait_for_ready=True)

    def close(self):
        if self._channel is not None:
            self._channel.close()
            self._channel = None


_TASKS = "containerd.services.tasks.v1.Tasks"
_METHODS = {  # of Tasks: request, reply
    "Create": (svc.TaskCreateRequest, svc.TaskCreateResponse),
    "Start": (pb.ProcessRequest, svc.TaskStartResponse),
    "Delete": (pb.ProcessRequest, pb.DeleteResponse),
    "DeleteProcess": (pb.ProcessRequest, pb.DeleteResponse),
    "Get": (pb.ProcessRequest, svc.TaskGetResponse),
    "List": (protos.common.Empty, pb.ListTasksResponse),
    "Kill": (svc.TaskKillRequest, protos.common.Empty),
    "Exec": (pb.ExecProcessRequest, protos.common.Empty),
    "ResizePty": (pb.ResizePtyRequest, protos.common.Empty),
    "CloseIO": (pb.CloseIORequest, protos.common.Empty),
    "Pause": (pb.ProcessRequest, protos.common.Empty),
    "Resume": (pb.ProcessRequest, protos.common.Empty),
    "ListPids": (pb.ProcessRequest, pb.ListPidsResponse),
    "Checkpoint": (svc.TaskCheckpointRequest, svc.TaskCheckpointResponse),
    "Update": (pb.UpdateTaskRequest, protos.common.Empty),
    "Metrics": (pb.MetricsRequest, pb.MetricsResponse),
    "Wait": (pb.ProcessRequest, pb.WaitResponse),
}


class Events:
    """A subscription: everything that containerd publishes from now on, in a thread."""

    def __init__(self, channel):
        self._events = []
        self._changed = threading.Condition()
        self._stream = channel.stream("containerd.services.events.v1.Events", "Subscribe",
                                      pb.SubscribeRequest(), protos.events.Envelope)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for envelope in self._stream:
                if not envelope.topic.startswith("/tasks/"):
                    continue
                with self._changed:
                    self._events.append(Event(envelope, []))
                    self._changed.notify_all()
        except grpc.RpcError:
            pass  # containerd ended, or we cancelled

    def of(self, container_id):
        with self._changed:
            return [e for e in self._events if e.container_id == container_id]

    def wait(self, topic, container_id, timeout=10, **fields):
        def hit():
            return next((e for e in self._events if e.topic == f"/tasks/{topic}"
                         and e.container_id == container_id
                         and all(getattr(e, k) == v for k, v in fields.items())), None)

        with self._changed:
            if not self._changed.wait_for(hit, env.seconds(timeout)):
                raise Timeout(f"no {topic} of {container_id} in {self._events}")
            return hit()

    def close(self):
        self._stream.cancel()


class Client:
    """The API of a Node, in its namespace."""

    def __init__(self, node):
        self.node = node
        self.channel = Channel(node, [("containerd-namespace", node.namespace)])

    def task(self, method, timeout=60, **fields):
        request, reply = _METHODS[method]
        return self.channel.call(_TASKS, method, request(**fields), reply, timeout)

    def task_future(self, method, **fields):
        request, reply = _METHODS[method]
        return self.channel.future(_TASKS, method, request(**fields), reply)

    def events(self):
        return Events(self.channel)

    def options(self):
        """Runtime options as a client sends them for this runtime's name."""
        if self.node.kind.typed_options:
            values = {"systemd_cgroup": env.DRIVER == "systemd"}
            if env.RUNTIME != "runc":
                values["binary_name"] = env.which(env.RUNTIME)
            return protos.pack(protos.RUNC_OPTIONS, protos.options.Runc(**values))
        return protos.pack(protos.RUNTIME_OPTIONS, protos.options.Runtime(
            config_path=str(self.node.options_file())))

    def container(self, args=("probe", "sleep"), annotations=None, options=None, **more):
        """A container and its snapshot; no task yet. more goes to spec.container()."""
        made = Container(self, self.node.new_id())
        document = spec.container(args, cgroups.path_for(self.node.token, made.id),
                                  annotations=annotations, **more)
        snapshots = "containerd.services.snapshots.v1.Snapshots"
        made.mounts = self.channel.call(snapshots, "Prepare", svc.SnapshotPrepareRequest(
            snapshotter="overlayfs", key=made.id, parent=self.node.chain),
            svc.SnapshotMounts).mounts
        self.channel.call("containerd.services.containers.v1.Containers", "Create",
                          svc.ContainerMessage(container=svc.Container(
                              id=made.id, image="localhost/kyb-test:1",
                              runtime=svc.ContainerRuntime(name=self.node.kind.runtime,
                                                           options=options or self.options()),
                              spec=protos.pack(
                                  "types.containerd.io/opencontainers/runtime-spec/1/Spec",
                                  json.dumps(document).encode()),
                              snapshotter="overlayfs", snapshot_key=made.id)),
                          svc.ContainerMessage)
        return made

    def close(self):
        self.channel.close()


class Container:
    """A container of containerd's, and its task when created."""

    def __init__(self, client, container_id):
        self.client = client
        self.id = container_id
        self.mounts = []
        self.pid = 0
        self.io = stdio.NoStdio()

    def _do(self, method, timeout=60, **fields):
        return self.client.task(method, timeout, container_id=self.id, **fields)

    def create(self, io=None, terminal=False, **fields):
        if io is not None:
            self.io = io
        kind = self.client.node.kind
        request = {"rootfs": self.mounts, "stdin": self.io.stdin, "stdout": self.io.stdout,
                   "stderr": self.io.stderr, "terminal": terminal,
                   "runtime_path": kind.binary if kind.by_path else ""}
        request.update(fields)
        self.pid = self._do("Create", **request).pid
        return self.pid

    def start(self, exec_id=""):
        return self._do("Start", exec_id=exec_id).pid

    def run(self, **more):
        self.create(**more)
        return self.start()

    def exec(self, exec_id, args, io=None, terminal=False, **process):
        """Adds and starts an exec; its pid."""
        io = io or stdio.NoStdio()
        self._do("Exec", exec_id=exec_id, stdin=io.stdin, stdout=io.stdout, stderr=io.stderr,
                 terminal=terminal, spec=protos.pack(protos.PROCESS, json.dumps(
                     spec.process(args, terminal=terminal, **process)).encode()))
        return self.start(exec_id)

    def get(self, exec_id=""):
        return self._do("Get", exec_id=exec_id).process

    @property
    def status(self):
        return protos.task.Status.Name(self.get().status)

    def wait(self, exec_id="", timeout=60):
        return self._do("Wait", timeout, exec_id=exec_id)

    def kill(self, number=9, exec_id="", everybody=False):
        return self._do("Kill", exec_id=exec_id, signal=int(number), all=everybody)

    def delete(self, exec_id=""):
        if exec_id:
            return self._do("DeleteProcess", exec_id=exec_id)
        return self._do("Delete")

    def spec(self):
        """Its OCI spec at containerd."""
        got = self.client.channel.call("containerd.services.containers.v1.Containers", "Get",
                                       svc.ContainerRequest(id=self.id), svc.ContainerMessage)
        return json.loads(got.container.spec.value)

    def remove(self):
        """The container itself, and its snapshot; its task is gone."""
        channel = self.client.channel
        channel.call("containerd.services.containers.v1.Containers", "Delete",
                     svc.ContainerRequest(id=self.id), protos.common.Empty)
        channel.call("containerd.services.snapshots.v1.Snapshots", "Remove",
                     svc.SnapshotRequest(snapshotter="overlayfs", key=self.id), protos.common.Empty)

    def pids(self):
        return [p.pid for p in self._do("ListPids").processes]

    def pause(self):
        self._do("Pause")

    def resume(self):
        self._do("Resume")

    def metrics(self):
        (metric,) = self.client.task("Metrics", filters=[f"id=={self.id}"]).metrics
        return metric.data
