# SPDX-License-Identifier: Apache-2.0
"""A node agent made of grpcio and the real agent.proto, which answers as a test tells it to.

As a program (fake_agent.py SOCKET DIRECTORY-OF-MODULES) it serves a checkpoint that never ends, for
a test to kill.
"""
import concurrent.futures
import importlib
import os
import pathlib
import subprocess
import sys
import time

import grpc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "api/agent/v1/agent.proto"
SERVICE = "kybernate.agent.v1.NodeAgent"
REQUESTS = {
    "CreateCheckpoint": "CreateCheckpointRequest",
    "RestoreContainer": "RestoreContainerRequest",
    "SuspendContainer": "SuspendContainerRequest",
    "ResumeContainer": "ResumeContainerRequest",
    "ListCheckpoints": "ListCheckpointsRequest",
    "GetCheckpoint": "GetCheckpointRequest",
    "DeleteCheckpoint": "DeleteCheckpointRequest",
    "Status": "StatusRequest",
    "Doctor": "DoctorRequest",
}
STREAMS = {"CreateCheckpoint", "RestoreContainer", "SuspendContainer", "ResumeContainer"}


def generate(directory):
    """Makes the messages' module with protoc, and imports it."""
    subprocess.run(["protoc", f"--proto_path={PROTO.parent}", f"--python_out={directory}",
                    PROTO.name], check=True)
    return load(directory)


def load(directory):
    sys.path.insert(0, str(directory))
    return importlib.import_module("agent_pb2")


class Refuse(Exception):
    """Raised by an answer: ends the call with this status."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code, self.text = code, text


def serialize(answer):
    """What is bytes already goes out as it is: answers that are no messages."""
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


class FakeAgent:
    """answers: method -> function(request, context), a generator for streams. requests: method ->
    what was asked, in order."""

    def __init__(self, pb, path):
        self.pb, self.path = pb, str(path)
        self.answers, self.requests = {}, {name: [] for name in REQUESTS}
        # Room for streams that a test leaves running.
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=16))
        self.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(
            SERVICE, {name: self._handler(name) for name in REQUESTS})])
        assert self.server.add_insecure_port("unix:" + self.path)
        self.server.start()

    def close(self):
        self.server.stop(0).wait()

    def _handler(self, name):
        make = (grpc.unary_stream_rpc_method_handler if name in STREAMS
                else grpc.unary_unary_rpc_method_handler)
        behave = self._stream if name in STREAMS else self._unary
        return make(lambda request, context: behave(name, request, context),
                    request_deserializer=getattr(self.pb, REQUESTS[name]).FromString,
                    response_serializer=serialize)

    def _unary(self, name, request, context):
        self.requests[name].append(request)
        try:
            return self.answers[name](request, context)
        except Refuse as e:
            return context.abort(e.code, e.text)
        except KeyError:
            return context.abort(grpc.StatusCode.UNIMPLEMENTED, f"no answer for {name}")

    def _stream(self, name, request, context):
        self.requests[name].append(request)
        try:
            yield from self.answers[name](request, context)
        except Refuse as e:
            context.abort(e.code, e.text)

    # --- what is often said ---

    def update(self, phase, status="WORKING", done=0, total=0, processes=0, **more):
        pb = self.pb
        u = pb.OperationUpdate(status=getattr(pb, "STATUS_" + status),
                               phase=getattr(pb, "PHASE_" + phase), **more)
        u.progress.bytes_done, u.progress.bytes_total = done, total
        u.progress.processes = processes
        return u

    def time(self, phase, start_ms, ms, size=0, undo=False):
        return self.pb.PhaseTime(phase=getattr(self.pb, "PHASE_" + phase), start_us=start_ms * 1000,
                                 duration_us=ms * 1000, bytes=size, undo=undo)

    def error(self, reason, phase="NONE", message="", detail=(), transient=False):
        return self.pb.Error(reason=getattr(self.pb, "REASON_" + reason),
                             phase=getattr(self.pb, "PHASE_" + phase), message=message,
                             detail=detail, transient=transient)


def endless(agent, pause=0.05):
    """A checkpoint that saves GPU memory for ever, until its caller has gone."""
    def answer(_request, context):
        yield agent.update("LOCK", processes=2)
        for i in range(100000):
            if not context.is_active():
                return
            yield agent.update("VRAM_SAVE", done=i << 20, total=40 << 30)
            time.sleep(pause)
    return answer


def main(path, directory):
    agent = FakeAgent(load(directory), path)
    agent.answers["CreateCheckpoint"] = endless(agent)
    os.write(1, b"ready\n")
    time.sleep(300)


if __name__ == "__main__":
    main(*sys.argv[1:3])
