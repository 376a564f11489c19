# SPDX-License-Identifier: Apache-2.0
"""Running a shim's program the way each release of containerd does, without containerd.

Facts: containerd repo, runtime/v2/binary.go and shim/util.go (1.6, 1.7), pkg/shim/util.go and
core/runtime/v2/binary.go (2.x).
"""
import dataclasses
import hashlib
import json
import os
import posixpath
import subprocess
import time

from . import env, protos

SOCKET_DIR = "/run/containerd/s"
CONTAINERD = "/usr/bin/containerd"


@dataclasses.dataclass
class Result:
    """What a run of the program gave."""
    status: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def reply(self):
        return parse_reply(self.stdout)


@dataclasses.dataclass
class Reply:
    address: str
    version: int = 2
    protocol: str = "ttrpc"
    form: str = "plain"


def parse_reply(data):
    """stdout of start in the three forms that exist; 2.3's protobuf first, as 2.3 does."""
    text = data.decode("utf-8", errors="replace").strip()
    if text.startswith("{"):
        reply = json.loads(text)
        return Reply(reply["address"], reply["version"], reply["protocol"], "json")
    if text.startswith("unix://"):
        return Reply(text)
    reply = protos.options.BootstrapResult.FromString(data)
    return Reply(reply.address, reply.version, reply.protocol, "proto")


def dialect():
    """How the release under test hands options over: 'any' to 2.2, 'params' from 2.3 on."""
    return "params" if env.oracle_version() >= (2, 3) else "any"


def socket_path(grpc_address, namespace, group, socket_dir=SOCKET_DIR, debug=False):
    """Where the shim of a group has to listen: computed by others too, so it is a contract.

    Go's filepath.Join, which cleans what it joined.
    """
    parts = [p for p in (grpc_address, namespace, group, "debug" if debug else "") if p]
    cleaned = posixpath.normpath("/".join(parts))
    if cleaned.startswith("//"):  # POSIX keeps two leading slashes, Go does not
        cleaned = cleaned[1:]
    return f"{socket_dir}/{hashlib.sha256(cleaned.encode()).hexdigest()}"


def run(kind, argv, cwd, stdin=b"", more_env=None, timeout=60, close_fds=True):
    """Runs the program to the end of its output, as containerd reads it."""
    environ = env.environment(GOMAXPROCS="2", **(more_env or {}))
    began = time.monotonic()
    # With nothing to say containerd gives no pipe but /dev/null.
    source = {"input": stdin} if stdin else {"stdin": subprocess.DEVNULL}
    done = subprocess.run([kind.binary, *argv], capture_output=True, cwd=cwd, env=environ,
                          check=False, timeout=env.seconds(timeout), process_group=0,
                          close_fds=close_fds, **source)
    return Result(done.returncode, done.stdout, done.stderr, time.monotonic() - began)


def arguments(namespace, container_id, grpc_address, *more, debug=False):
    return ["-namespace", namespace, "-address", grpc_address, "-publish-binary", CONTAINERD,
            "-id", container_id, *(["-debug"] if debug else []), *more]


def start_environment(ttrpc_address, grpc_address, namespace, release=None):
    """What containerd adds to the environment for start and delete."""
    release = release or env.oracle_version()
    more = {"TTRPC_ADDRESS": ttrpc_address}
    if release >= (1, 7):
        more.update(MAX_SHIM_VERSION="2", GRPC_ADDRESS=grpc_address, NAMESPACE=namespace)
    return more


def bootstrap(container_id, namespace, grpc_address, ttrpc_address, options=None, log_level=0,
              socket_dir=SOCKET_DIR):
    """BootstrapParams, as containerd 2.3 writes them for start."""
    params = protos.options.BootstrapParams(
        instance_id=container_id, namespace=namespace, log_level=log_level,
        containerd_version="2.3.4", containerd_ttrpc_address=ttrpc_address,
        containerd_grpc_address=grpc_address, containerd_binary=CONTAINERD,
        socket_dir=socket_dir)
    if options is not None:
        params.extensions.add().value.CopyFrom(options)
    return params


def exists(address):
    return os.path.exists(address.removeprefix("unix://"))
