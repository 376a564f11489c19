# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the GPU tests: an emulated GPU, an agent, and containers that compute on it."""
import pathlib
import re
import shutil

import pytest

from kyb import agent as agents
from kyb import env
from kyb.agent import Agent
from kyb.client import Container
from kyb.node import Node
from kyb.wait import until

_LINE = re.compile(r"(?:proc=\d+ )?step=(\d+) counter=(\d+) checksum=(\w+) (\w+)")
GROUP = "group-a"
SEAT = "seat-0"
GPU_DIR = "/run/fakegpu"


def pytest_collection_modifyitems(items):
    missing = agents.why_missing() or env.why_no_criu()
    for item in items:
        if missing and "gpu" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture
def gpu(tmp_path_factory):
    """An emulated GPU."""
    import fakegpu  # pylint: disable=import-outside-toplevel,import-error
    with fakegpu.FakeGpu() as made:
        yield made


def group_config(gpu, name=GROUP, seats=(SEAT, "seat-1")):  # pylint: disable=redefined-outer-name
    quoted = ", ".join(f'"{s}"' for s in seats)
    return (f'[[group]]\nname = "{name}"\nseats = [{quoted}]\n'
            f'gpu_uuids = ["{gpu.uuid()}"]\ndevice_paths = ["/dev/nvidia0"]\n')


@pytest.fixture
def start_agent(gpu, request):  # pylint: disable=redefined-outer-name
    """start_agent(folder, **how): an Agent that is stopped at the end, whatever happens."""
    made = []

    def start(folder, more=None, with_gpu=True, gpu=gpu, **how):
        text = group_config(gpu) if more is None else more
        one = Agent(folder, gpu if with_gpu else None, more=text, **how)
        made.append(one)
        return one

    yield start
    for one in made:
        status = one.stop()
        report = getattr(request.node, "report_call", None)
        if report is not None and report.failed:
            print(f"--- agent's log\n{one.log()[-6000:]}")
        elif not request.node.get_closest_marker("mess"):
            assert status == 0, f"the agent ended with {status}:\n{one.log()[-3000:]}"


class Workload:
    """A gpu-counter in a container, seen through the file it writes."""

    def __init__(self, status):
        self.status_file = pathlib.Path(status)

    def line(self):
        try:
            found = _LINE.match(self.status_file.read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        return found

    @property
    def step(self):
        found = self.line()
        return int(found.group(1)) if found else 0

    def ready(self, step=2, patience=20):
        until(lambda: self.step >= step, patience, "the workload computes")
        return self

    def goes_on(self, beyond=None, result="ok", patience=20):
        """It computes, and every step verifies counter and pattern of its GPU memory."""
        before = self.step if beyond is None else beyond
        until(lambda: self.step > before + 2, patience, f"steps after {before}")
        assert self.line().group(4) == result
        return self.step


def gpu_options(gpu_dir, group=GROUP, seat=SEAT):
    """(mounts, env, annotations) that make a container one with a GPU."""
    mounts = [
        {"destination": GPU_DIR, "type": "bind", "source": str(gpu_dir), "options": ["rbind"]},
        {"destination": "/bin/gpu-counter", "type": "bind",
         "source": agents.program("gpu-counter"), "options": ["rbind", "ro"]},
    ]
    environ = [f"FAKEGPU_SOCKET={GPU_DIR}/gpu.sock", f"KYB_GPU_GROUP={group}",
               f"KYB_GPU_SEAT={seat}"]
    return mounts, environ, {"kybernate.io/gpu-group": group, "kybernate.io/gpu-seat": seat}


COUNTER = ["gpu-counter", "--vram", "16M", "--interval", "50", "--status", "/var/state"]


class GpuWorld:
    """A World whose shims know an agent."""

    def __init__(self, world, gpu):  # pylint: disable=redefined-outer-name
        self.world = world
        self.gpu = gpu
        self.dir = world.dir / "g"
        self.dir.mkdir()
        self.agent_dir = self.dir / "a"
        self.shim_config = self.dir / "shim.toml"
        self.shim_environ = {}  # more of it
        self.write_config()

    def write_config(self, more=""):
        self.shim_config.write_text(f'agent_socket = "{self.agent_dir}/agent.sock"\n'
                                    f'log_level = "debug"\n{more}', encoding="ascii")

    def container(self, args=None, annotations=None, group=GROUP, seat=SEAT, environ=(), io="null",
                  options=None, **more):
        """A container with a running shim, not yet created."""
        mounts, gpu_env, seats = gpu_options(self.gpu.dir, group, seat)
        made = self.world.define(args or COUNTER, mounts=mounts, env=[*gpu_env, *environ],
                                 annotations={**seats, **(annotations or {})}, **more)
        if options is not None:
            made.options = options
        made.io = self.world.io(made.id, io, made.terminal)
        made.launch(more_env={"KYBERNATE_SHIM_CONFIG": str(self.shim_config),
                              **self.shim_environ})
        made.workload = Workload(made.rootfs / "var/state")
        return made

    def running(self, *args, **more):
        made = self.container(*args, **more)
        made.run()
        made.workload.ready()
        return made

    def image(self, name="image"):
        folder = self.world.dir / name
        folder.mkdir(mode=0o700)
        return folder


@pytest.fixture
def gworld(world, gpu):  # pylint: disable=redefined-outer-name
    """A GpuWorld; our shim only (see pytest_collection_modifyitems in ../conftest.py)."""
    return GpuWorld(world, gpu)


# --- with a whole containerd ---

@pytest.fixture(scope="session")
def session_node(kind, base_rootfs, tmp_path_factory):
    """A containerd whose shims know an agent."""
    config = tmp_path_factory.mktemp("shim") / "shim.toml"
    made = Node(kind, base_rootfs, cri=True, environ={"KYBERNATE_SHIM_CONFIG": str(config)})
    made.shim_config = config
    made.shim_config_text = f'agent_socket = "{made.dir}/a/agent.sock"\nlog_level = "debug"\n'
    config.write_text(made.shim_config_text, encoding="ascii")
    try:
        yield made
    finally:
        made.close()


class GpuNode:
    """A Node with an emulated GPU and an agent of this test's own."""

    def __init__(self, node, client, gpu, start_agent):  # pylint: disable=redefined-outer-name
        self.node = node
        self.client = client
        self.gpu = gpu
        self.containers = []
        self._start_agent = start_agent
        self.agent_dir = node.dir / "a"
        shutil.rmtree(self.agent_dir, ignore_errors=True)
        self.agent = None
        self.start()

    def start(self, **how):
        self.agent = self._start_agent(self.agent_dir, containerd=self.node.socket, **how)

    def write_shim_config(self, more=""):
        """For shims that are started from now on."""
        self.node.shim_config.write_text(self.node.shim_config_text + more, encoding="ascii")

    def container(self, args=None, annotations=None, group=GROUP, seat=SEAT, gpu_dir=None,
                  environ=(), **more):
        """A container of containerd's, without a task."""
        mounts, gpu_env, seats = gpu_options(gpu_dir or self.gpu.dir, group, seat)
        made = self.client.container(args or COUNTER, mounts=mounts, env=[*gpu_env, *environ],
                                     annotations={**seats, **(annotations or {})}, **more)
        self.containers.append(made)
        return made

    def running(self, *args, **more):
        made = self.container(*args, **more)
        made.run()
        return self.watch(made).ready() and made

    def watch(self, container):
        """Its workload, seen from outside."""
        container.pid = container.get().pid
        container.workload = Workload(f"/proc/{container.pid}/root/var/state")
        return container.workload

    def checkpoint(self, container, ref="ck", leave=False, **more):
        """By the agent's own call."""
        return self.agent.run("CreateCheckpoint", containerd_namespace=self.node.namespace,
                              container_id=container.id, checkpoint_ref=ref, exit=not leave,
                              **more)

    def new_life(self, ref, **more):
        """A container that is to come from a checkpoint, without a task."""
        return self.container(annotations={"kybernate.io/restore-from": ref}, **more)

    def adopt(self, container_id):
        """A container that somebody else makes, or has made."""
        made = Container(self.client, container_id)
        self.containers.append(made)
        return made

    def clone(self, ref, **more):
        """(Outcome, Container) of the agent's RestoreContainer."""
        made = self.adopt(more.pop("container_id", self.node.new_id()))
        outcome = self.agent.run("RestoreContainer", checkpoint_ref=ref, container_id=made.id,
                                 **more)
        made.id = made.id or outcome.last.container_id
        return outcome, made

    def ended(self, container):
        """Waits for its end; the exit status."""
        status = container.wait().exit_status
        container.delete()
        return status


@pytest.fixture
def gnode(node, client, gpu, start_agent):  # pylint: disable=redefined-outer-name
    """A GpuNode; at the end its containers are ended."""
    made = GpuNode(node, client, gpu, start_agent)
    yield made
    node.clear()
