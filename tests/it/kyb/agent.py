# SPDX-License-Identifier: Apache-2.0
"""The node agent, with an emulated GPU below it and a gRPC client (Debian's grpcio) in front."""
import os
import pathlib
import signal
import subprocess
import sys

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# pylint: disable=wrong-import-position
import grpc  # noqa: E402

from . import env, protos  # noqa: E402
from .wait import Timeout, until  # noqa: E402

sys.path.insert(0, str(env.REPO / "tests/fakes"))

pb = protos.module("api.agent.v1.agent_pb2")
SERVICE = "/kybernate.agent.v1.NodeAgent/"
_VERBS = {  # request, reply
    "ListCheckpoints": (pb.ListCheckpointsRequest, pb.ListCheckpointsReply),
    "GetCheckpoint": (pb.GetCheckpointRequest, pb.GetCheckpointReply),
    "DeleteCheckpoint": (pb.DeleteCheckpointRequest, pb.DeleteCheckpointReply),
    "Status": (pb.StatusRequest, pb.StatusReply),
    "Doctor": (pb.DoctorRequest, pb.DoctorReply),
}
_STREAMS = {"CreateCheckpoint": pb.CreateCheckpointRequest,
            "RestoreContainer": pb.RestoreContainerRequest,
            "SuspendContainer": pb.SuspendContainerRequest,
            "ResumeContainer": pb.ResumeContainerRequest}
_CONFIG = """socket = "{dir}/agent.sock"
store = "{dir}/store"
journal = "{dir}/journal"
containerd = "{containerd}"
worker = "{worker}"
libcuda = "{libcuda}"
log_level = "debug"
{more}
"""


def program(name):
    """One of our programs, or None."""
    return env.which(name)


def why_missing():
    """Why the agent cannot be tested here, or None."""
    for name in ("kybernate-agent", "kybernate-cuda-worker", "fakegpud", "gpu-counter"):
        if program(name) is None:
            return f"{name} is not in PATH (set KYB_BIN to its folder)"
    return None


class Agent:
    """A running agent. more: further lines of its configuration. prefix: the words of a command that
    runs it. worker: instead of ours."""

    def __init__(self, folder, gpu, containerd="/nonexistent/containerd.sock", more="",
                 environ=None, prefix=(), worker=None):
        self.dir = pathlib.Path(folder)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.gpu = gpu
        self.socket = self.dir / "agent.sock"
        self.store = self.dir / "store"
        self.log_path = self.dir / "agent.log"
        self.config = self.dir / "agent.toml"
        self.environ = environ or {}
        self.prefix = prefix
        self.process = None
        self._channel = None
        self.config.write_text(_CONFIG.format(
            dir=self.dir, containerd=containerd,
            worker=worker or program("kybernate-cuda-worker"),
            libcuda=gpu.libcuda if gpu else "libcuda.so.1", more=more), encoding="utf-8")
        self.start()

    # --- the daemon ---

    def start(self):
        environ = env.environment(**self.environ)
        if self.gpu:
            environ.update(FAKEGPU_SOCKET=str(self.gpu.socket),
                           LD_LIBRARY_PATH=str(self.gpu.library_dir))
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(  # pylint: disable=consider-using-with
                [*self.prefix, program("kybernate-agent"), "--config", str(self.config)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ, process_group=0)
        until(self._serves, 20, "the agent serves")

    def _serves(self):
        assert self.process.poll() is None, f"the agent ended:\n{self.log()}"
        try:
            status = self.call("Status", timeout=2)
        except grpc.RpcError:
            self._channel.close()  # it would back off for seconds
            self._channel = None
            return False
        return status.driver_ok or self.gpu is None

    def hang_up(self):
        """The next call connects anew."""
        if self._channel:
            self._channel.close()
            self._channel = None

    def stop(self, number=signal.SIGTERM):
        """Its exit status."""
        self.hang_up()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(env.seconds(40))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Timeout(f"the agent did not end:\n{self.log()}") from None

    def log(self):
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    # --- the client ---

    @property
    def channel(self):
        if self._channel is None:
            self._channel = grpc.insecure_channel(
                f"unix:{self.socket}", options=[("grpc.use_local_subchannel_pool", 1)])
        return self._channel

    def call(self, verb, timeout=30, **fields):
        """A unary call; errors are grpc.RpcError."""
        request, reply = _VERBS[verb]
        function = self.channel.unary_unary(SERVICE + verb,
                                            request_serializer=request.SerializeToString,
                                            response_deserializer=reply.FromString)
        return function(request(**fields), timeout=env.seconds(timeout))

    def stream(self, verb, timeout=120, **fields):
        """The OperationUpdates of a call, as they come."""
        request = _STREAMS[verb]
        function = self.channel.unary_stream(SERVICE + verb,
                                             request_serializer=request.SerializeToString,
                                             response_deserializer=pb.OperationUpdate.FromString)
        return function(request(**fields), timeout=env.seconds(timeout))

    def shim_stream(self, verb, requests):
        """What a shim opens, with an iterator of requests."""
        request, reply = {"Checkpoint": (pb.CheckpointRequest, pb.CheckpointReply),
                          "Restore": (pb.RestoreRequest, pb.RestoreReply),
                          "Suspend": (pb.SuspendRequest, pb.SuspendReply)}[verb]
        function = self.channel.stream_stream(SERVICE + verb,
                                              request_serializer=request.SerializeToString,
                                              response_deserializer=reply.FromString)
        return function(requests, timeout=env.seconds(60))

    def run(self, verb, **fields):
        """All updates of a call; a failed operation is an Outcome with error, not an exception."""
        updates, failure = [], None
        try:
            for update in self.stream(verb, **fields):
                updates.append(update)
        except grpc.RpcError as e:
            failure = e
        return Outcome(updates, failure)

    def refs(self):
        return [c.checkpoint_ref for c in self.call("ListCheckpoints").checkpoints]


class Outcome:
    """What came of an operation."""

    def __init__(self, updates, failure):
        self.updates = updates
        self.failure = failure
        self.last = updates[-1] if updates else None

    @property
    def ok(self):
        return self.failure is None and self.last.status == pb.STATUS_OK

    @property
    def reason(self):
        if self.last is not None and self.last.HasField("error"):
            return pb.Reason.Name(self.last.error.reason).removeprefix("REASON_")
        return self.failure.details().partition(":")[0] if self.failure else "NONE"

    @property
    def message(self):
        if self.last is not None and self.last.HasField("error"):
            return self.last.error.message
        return self.failure.details() if self.failure else ""

    @property
    def phases(self):
        """Names of the phases in the timeline, undone ones with a '-'."""
        return [("-" if t.undo else "") + pb.Phase.Name(t.phase).removeprefix("PHASE_").lower()
                for t in self.last.timeline]

    def __repr__(self):
        return f"<{'ok' if self.ok else self.reason}: {self.message}>"
