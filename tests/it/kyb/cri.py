# SPDX-License-Identifier: Apache-2.0
"""A client of containerd's CRI service, as kubelet is one. Pods use the host's network, so that no
network plugins are needed."""
import pathlib
import secrets

import grpc

from . import env, image, protos, websocket
from .client import Channel

pb = protos.load("cri")
_RUNTIME = "runtime.v1.RuntimeService"
_REPLIES = {
    "Version": (pb.VersionRequest, pb.VersionResponse),
    "Status": (pb.StatusRequest, pb.StatusResponse),
    "RunPodSandbox": (pb.RunPodSandboxRequest, pb.RunPodSandboxResponse),
    "StopPodSandbox": (pb.PodSandboxRequest, pb.Empty),
    "RemovePodSandbox": (pb.PodSandboxRequest, pb.Empty),
    "PodSandboxStatus": (pb.PodSandboxRequest, pb.PodSandboxStatusResponse),
    "ListPodSandbox": (pb.Empty, pb.ListPodSandboxResponse),
    "CreateContainer": (pb.CreateContainerRequest, pb.CreateContainerResponse),
    "StartContainer": (pb.ContainerRequest, pb.Empty),
    "StopContainer": (pb.StopContainerRequest, pb.Empty),
    "RemoveContainer": (pb.ContainerRequest, pb.Empty),
    "ContainerStatus": (pb.ContainerRequest, pb.ContainerStatusResponse),
    "ExecSync": (pb.ExecSyncRequest, pb.ExecSyncResponse),
    "UpdateContainerResources": (pb.UpdateContainerResourcesRequest, pb.Empty),
    "ContainerStats": (pb.ContainerRequest, pb.ContainerStatsResponse),
    "ReopenContainerLog": (pb.ContainerRequest, pb.Empty),
    "Exec": (pb.ExecRequest, pb.StreamResponse),
    "Attach": (pb.AttachRequest, pb.StreamResponse),
    "PortForward": (pb.PortForwardRequest, pb.StreamResponse),
    "PodSandboxStats": (pb.PodSandboxRequest, pb.PodSandboxStatsResponse),
    "CheckpointContainer": (pb.CheckpointContainerRequest, pb.Empty),
}


class Cri:
    """The CRI service of a Node."""

    def __init__(self, node):
        self.node = node
        self.channel = Channel(node)

    def do(self, method, deadline=60, **fields):
        """The reply; deadline in seconds is the client's (some requests have a timeout too)."""
        request, reply = _REPLIES[method]
        return self.channel.call(_RUNTIME, method, request(**fields), reply, deadline)

    def ready(self):
        """Whether it answers and can run pods; not at once after a start of containerd."""
        try:
            conditions = self.do("Status").status.conditions
        except grpc.RpcError:
            return False
        return any(c.type == "RuntimeReady" and c.status for c in conditions)

    def pod(self, **more):
        return Pod(self, **more)

    def close(self):
        self.channel.close()


class Pod:
    """A pod sandbox on the host's network."""

    def __init__(self, cri, annotations=None, pid=pb.POD):
        self.cri = cri
        node = cri.node
        name = "pod" + secrets.token_hex(4)
        self.logs = node.dir / "logs" / name
        self.logs.mkdir(parents=True)
        parent = f"/{node.token}.slice" if env.DRIVER == "systemd" else f"/{node.token}-pods"
        self.config = pb.PodSandboxConfig(
            metadata=pb.PodSandboxMetadata(name=name, uid=name, namespace="default"),
            log_directory=str(self.logs), annotations=annotations or {},
            linux=pb.LinuxPodSandboxConfig(
                cgroup_parent=parent, security_context=pb.LinuxSandboxSecurityContext(
                    namespace_options=pb.NamespaceOption(network=pb.NODE, pid=pid))))
        self.id = cri.do("RunPodSandbox", config=self.config,
                         runtime_handler=node.handler).pod_sandbox_id

    def container(self, command, tty=False, memory=0, stdin=False, **fields):
        return PodContainer(self, command, tty, memory, stdin, **fields)

    def ready(self):
        state = self.cri.do("PodSandboxStatus", pod_sandbox_id=self.id).status.state
        return state == pb.SANDBOX_READY

    def forward(self, port):
        """Channels of one forwarded port: its data is channel 0, errors are channel 1. Each
        starts with the number of the port."""
        url = self.cri.do("PortForward", pod_sandbox_id=self.id, port=[port]).url
        return websocket.Channels(f"{url}?port={port}")

    def stop(self):
        try:
            self.cri.do("StopPodSandbox", pod_sandbox_id=self.id)
        except grpc.RpcError as error:
            # containerd's own shim can lose the answer to a Kill; kubelet asks again, too.
            if self.cri.node.kind.ours or "ttrpc: closed" not in error.details():
                raise
            self.cri.do("StopPodSandbox", pod_sandbox_id=self.id)

    def remove(self):
        self.stop()
        self.cri.do("RemovePodSandbox", pod_sandbox_id=self.id)


class PodContainer:
    """A container of a pod, created."""

    def __init__(self, pod, command, tty, memory, stdin, pid=None, target="", **fields):
        self.pod = pod
        namespaces = pb.NamespaceOption()
        namespaces.CopyFrom(pod.config.linux.security_context.namespace_options)
        if pid is not None:
            namespaces.pid, namespaces.target_id = pid, target
        name = "c" + secrets.token_hex(4)
        self.log_path = pod.logs / f"{name}.log"
        config = pb.ContainerConfig(
            metadata=pb.ContainerMetadata(name=name), image=pb.ImageSpec(image=image.NAME),
            command=list(command), log_path=self.log_path.name, tty=tty, stdin=stdin,
            linux=pb.LinuxContainerConfig(
                resources=pb.LinuxContainerResources(memory_limit_in_bytes=memory),
                security_context=pb.LinuxContainerSecurityContext(
                    namespace_options=namespaces)),
            **fields)
        self.id = pod.cri.do("CreateContainer", pod_sandbox_id=pod.id, config=config,
                             sandbox_config=pod.config).container_id

    def _do(self, method, **fields):
        return self.pod.cri.do(method, container_id=self.id, **fields)

    def start(self):
        self._do("StartContainer")
        return self

    def status(self):
        return self._do("ContainerStatus").status

    def state(self):
        return pb.ContainerState.Name(self.status().state).removeprefix("CONTAINER_")

    def exec(self, *command, seconds=0):
        return self._do("ExecSync", cmd=command, timeout=seconds)

    def stream(self, *command, tty=False, stdin=True):
        """An exec with its stdio as Channels."""
        return websocket.Channels(self._do("Exec", cmd=command, tty=tty, stdin=stdin, stdout=True,
                                           stderr=not tty).url)

    def attach(self, tty=False, stdin=True):
        """The container's own stdio as Channels."""
        return websocket.Channels(self._do("Attach", tty=tty, stdin=stdin, stdout=True,
                                           stderr=not tty).url)

    def stop(self, grace=0):
        self._do("StopContainer", timeout=grace)

    def remove(self):
        self._do("RemoveContainer")

    def log(self):
        """[(stream, text)] of the log file as kubelet reads it."""
        if not pathlib.Path(self.log_path).exists():
            return []
        lines = self.log_path.read_text(encoding="utf-8").splitlines()
        return [(line.split(" ", 3)[1], line.split(" ", 3)[3]) for line in lines]
