# SPDX-License-Identifier: Apache-2.0
"""Python message modules, generated from the project's own api/*.proto when first needed.

The generated code has to fit the installed protobuf runtime, so it is made on the machine that
runs the tests and never committed. What the project does not need itself, but a client of
containerd does, is restated in tests/it/proto.
"""
import fcntl
import hashlib
import importlib
import subprocess
import sys

from . import env

_OURS = sorted((env.REPO / "api").rglob("*.proto"))
_TESTS = sorted((env.HERE / "proto").glob("*.proto"))


def _generate():
    version = subprocess.run(["protoc", "--version"], capture_output=True, text=True, check=True)
    key = hashlib.sha256(f"{version.stdout} {sys.version}".encode())
    for proto in _OURS + _TESTS:
        key.update(proto.read_bytes())
    out = env.BUILD / ("python-" + key.hexdigest()[:16])
    env.BUILD.mkdir(parents=True, exist_ok=True)
    with open(env.BUILD / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # xdist workers come here together
        if not (out / "done").exists():
            out.mkdir(exist_ok=True)
            subprocess.run(["protoc", f"-I{env.HERE / 'proto'}", f"-I{env.REPO}",
                            f"--python_out={out}", *map(str, _OURS + _TESTS)], check=True)
            (out / "done").touch()
    return str(out)


sys.path.insert(0, _generate())


def _module(name):
    return importlib.import_module(name)


common = _module("api.containerd.common_pb2")
ttrpc = _module("api.containerd.ttrpc_pb2")
task = _module("api.containerd.task_pb2")
events = _module("api.containerd.events_pb2")
options = _module("api.containerd.options_pb2")
metrics = _module("api.containerd.metrics_pb2")


def module(name):
    """A module of api/: module("api.agent.v1.agent_pb2")."""
    return _module(name)


def load(name):
    """A module of tests/it/proto: load('cri')."""
    assert (env.HERE / "proto" / f"{name}.proto").exists(), name
    return _module(f"{name}_pb2")


# The names under which the messages travel: our restatement has its own packages.
EVENTS = {name: getattr(events, name) for name in (
    "TaskCreate", "TaskStart", "TaskDelete", "TaskExit", "TaskOOM", "TaskExecAdded",
    "TaskExecStarted", "TaskPaused", "TaskResumed", "TaskCheckpointed")}
RUNC_OPTIONS = "containerd.runc.v1.Options"
CHECKPOINT_OPTIONS = "containerd.runc.v1.CheckpointOptions"
RUNTIME_OPTIONS = "runtimeoptions.v1.Options"
LEGACY_CREATE = "containerd.linux.runc.CreateOptions"
LEGACY_CHECKPOINT = "containerd.linux.runc.CheckpointOptions"
PROCESS_DETAILS = "containerd.runc.v1.ProcessDetails"
PROCESS = "types.containerd.io/opencontainers/runtime-spec/1/Process"
RESOURCES = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
METRICS_V1 = "io.containerd.cgroups.v1.Metrics"
METRICS_V2 = "io.containerd.cgroups.v2.Metrics"


def pack(type_url, message):
    """An Any; message is a protobuf message or the bytes themselves."""
    value = message if isinstance(message, bytes) else message.SerializeToString()
    return common.Any(type_url=type_url, value=value)


def event(any_):
    """(name, message) of an event's Any."""
    package, _, name = any_.type_url.rpartition(".")
    assert package == "containerd.events", any_.type_url
    message = EVENTS[name]()
    message.ParseFromString(any_.value)
    return name, message
