# SPDX-License-Identifier: Apache-2.0
"""Runs the real kybernatectl (environment: KYBERNATECTL) against a fake agent."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile

import pytest

grpc = None
try:
    import grpc  # noqa: F811
    import fake_agent
except ImportError as e:
    WHY_NOT = f"{e} (Debian: python3-grpcio, python3-protobuf)"
else:
    WHY_NOT = None if shutil.which("protoc") else "no protoc (Debian: protobuf-compiler)"

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, by all children too

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIMEOUT = 60  # of one run; sanitizers and a busy machine included
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def pytest_collection_modifyitems(items):
    for item in items:
        if WHY_NOT and "modules" in item.fixturenames:
            item.add_marker(pytest.mark.skip(reason=WHY_NOT))


class Result:
    """One run: .code, .out, .err."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def __repr__(self):
        return f"exit status {self.code}\n--- stdout\n{self.out}--- stderr\n{self.err}"

    @property
    def doc(self):
        return json.loads(self.out)

    @property
    def docs(self):
        return [json.loads(line) for line in self.out.splitlines()]


class Ctl:
    def __init__(self, directory):
        self.program = os.environ["KYBERNATECTL"]
        self.directory = directory
        self.socket = str(directory / "agent.sock")

    def env(self, **more):
        env = {k: v for k, v in os.environ.items()
               if k not in ("NO_COLOR", "KYBERNATE_AGENT_SOCKET")}
        env.update(KYBERNATE_AGENT_SOCKET=self.socket, TERM="xterm", LC_ALL="C.UTF-8",
                   UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1")
        env.update(more)
        return env

    def start(self, *args, through=(), **more):
        """through: a command that ends in an exec of what follows. (No preexec_fn: that takes a
        fork, which hangs beside gRPC's threads on some releases.)"""
        more.setdefault("env", self.env())
        return subprocess.Popen([*through, self.program, *args], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)

    def finish(self, process):
        try:
            out, err = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            pytest.fail(f"did not end in time\n{Result(None, out.decode(), err.decode())}")
        result = Result(process.returncode, out.decode(), err.decode())
        # On pipes there is never anything but text, whatever the agent sends.
        assert not CONTROL.search(result.out + result.err), repr(result.out + result.err)
        return result

    def __call__(self, *args, **more):
        return self.finish(self.start(*args, **more))


@pytest.fixture
def directory():
    # Not pytest's own: a socket's path is short, and users without privilege must get here.
    path = pathlib.Path(tempfile.mkdtemp(prefix="kyb-ctl-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def ctl(directory):
    return Ctl(directory)


@pytest.fixture(scope="session")
def modules(tmp_path_factory):
    path = tmp_path_factory.mktemp("proto")
    return path, fake_agent.generate(path)


@pytest.fixture
def agent(modules, ctl):
    agent = fake_agent.FakeAgent(modules[1], ctl.socket)
    yield agent
    agent.close()


@pytest.fixture
def refuse():
    """refuse("NOT_FOUND", text): to be raised by an answer."""
    return lambda code, text: fake_agent.Refuse(getattr(grpc.StatusCode, code), text)
