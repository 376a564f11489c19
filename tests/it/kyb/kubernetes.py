# SPDX-License-Identifier: Apache-2.0
"""Pods of a manifest, made at containerd's CRI service as kubelet would make them: from each container's
own words, with nothing added but what the caller names, and the host's network (see cri.py).

What kubelet says where a manifest says nothing: pkg/kubelet/kuberuntime (security_context.go,
kuberuntime_container_linux.go) and pkg/securitycontext/util.go of Kubernetes.
"""
import json
import pathlib
import secrets

from . import cri as cris
from . import env

pb = cris.pb
_MANIFESTS = env.REPO / "deploy/kubernetes"
# Of a container whose procMount is the default.
_MASKED = ("/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
           "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
           "/sys/firmware")
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_PROFILES = {"RuntimeDefault": pb.RUNTIME_DEFAULT, "Unconfined": pb.UNCONFINED}


def prepare():
    """Environments without a YAML reader find the manifests as JSON."""
    try:
        import yaml  # pylint: disable=import-outside-toplevel
    except ImportError:
        return
    for path in _MANIFESTS.glob("*.yaml"):
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        new = env.BUILD / f"{path.name}.new"
        new.write_text(json.dumps(documents), encoding="utf-8")
        new.rename(env.BUILD / f"{path.name}.json")


def daemon_set(name):
    """The one of a manifest, or None where nobody could read it."""
    path = env.BUILD / f"{name}.json"
    if not path.exists():
        return None
    return next(d for d in json.loads(path.read_text(encoding="utf-8")) if d["kind"] == "DaemonSet")


class DaemonSet:
    """One pod of it. moved: {path of a volume: where it is on this machine}, the same in the
    container. stand_in: (mounts, environment) in the place of what another runtime class gives."""

    def __init__(self, cri, document, image, moved=None, stand_in=((), {})):
        assert document["kind"] == "DaemonSet"
        self.spec = document["spec"]["template"]["spec"]
        assert not {"hostNetwork", "hostIPC", "shareProcessNamespace", "securityContext",
                    "hostUsers"} & set(self.spec), "it would be passed over"
        self.cri = cri
        self.image = image
        self.moved = moved or {}
        self.stand_in = stand_in
        self.pod = cri.pod(pid=pb.NODE if self.spec.get("hostPID") else pb.CONTAINER)

    def _volumes(self):
        """{name: path on the machine}, made as their type says."""
        found = {}
        for volume in self.spec.get("volumes", ()):
            place = pathlib.Path(self._path(volume["hostPath"]["path"]))
            if volume["hostPath"]["type"] == "DirectoryOrCreate":
                place.mkdir(mode=0o755, parents=True, exist_ok=True)
            assert place.is_dir(), f"{place} is no directory"
            found[volume["name"]] = str(place)
        return found

    def _path(self, path):
        return str(self.moved.get(path, path))

    def _security(self, container):
        told = container["securityContext"]
        assert not told.get("privileged"), "that would be everything"
        known = {"privileged", "allowPrivilegeEscalation", "readOnlyRootFilesystem", "runAsUser",
                 "capabilities", "seccompProfile", "appArmorProfile"}
        assert set(told) <= known, set(told) - known  # it is not passed over
        profile = {key: pb.SecurityProfile(profile_type=_PROFILES[told[name]["type"]])
                   for key, name in (("seccomp", "seccompProfile"), ("apparmor", "appArmorProfile"))
                   if name in told}
        return pb.LinuxContainerSecurityContext(
            capabilities=pb.Capability(add_capabilities=told["capabilities"].get("add", ()),
                                       drop_capabilities=told["capabilities"].get("drop", ())),
            namespace_options=self.pod.config.linux.security_context.namespace_options,
            run_as_user=pb.Int64Value(value=told["runAsUser"]),
            readonly_rootfs=told.get("readOnlyRootFilesystem", False),
            no_new_privs=not told.get("allowPrivilegeEscalation", True),
            masked_paths=_MASKED, readonly_paths=_READ_ONLY, **profile)

    def _config(self, container):
        volumes = self._volumes()
        mounts = [pb.Mount(container_path=self._path(m["mountPath"]), host_path=volumes[m["name"]],
                           readonly=m.get("readOnly", False))
                  for m in container.get("volumeMounts", ())]
        more, environ = self.stand_in
        environ = {**{e["name"]: e["value"] for e in container.get("env", ())}, **environ}
        return pb.ContainerConfig(
            metadata=pb.ContainerMetadata(name=container["name"]),
            image=pb.ImageSpec(image=self.image), command=container.get("command", ()),
            args=container.get("args", ()),
            envs=[pb.KeyValue(key=k, value=v) for k, v in environ.items()],
            mounts=[*mounts, *more], log_path=f"{container['name']}.log",
            linux=pb.LinuxContainerConfig(security_context=self._security(container)))

    def named(self, name):
        every = [*self.spec.get("initContainers", ()), *self.spec["containers"]]
        return next(c for c in every if c["name"] == name)

    def container(self, name, change=None):
        """Created. change: a container's words, otherwise."""
        words = {**self.named(name), **(change or {})}
        return KubeContainer(self.pod, self._config(words))

    def remove(self):
        self.pod.remove()


class KubeContainer(cris.PodContainer):
    """Of a finished config."""

    def __init__(self, pod, config):  # pylint: disable=super-init-not-called
        self.pod = pod
        config.metadata.name += secrets.token_hex(4)
        self.log_path = pod.logs / config.log_path
        self.id = pod.cri.do("CreateContainer", pod_sandbox_id=pod.id, config=config,
                             sandbox_config=pod.config).container_id
