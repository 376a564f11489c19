# SPDX-License-Identifier: Apache-2.0
"""A driver that says what is not so is caught, and never reported as success."""
import pytest

from kyb import protos, ttrpc

import fakegpu

from .conftest import Workload

pytestmark = pytest.mark.criu
SUSPEND = {"kybernate.io/pause": "suspend"}


def options(**fields):
    return protos.pack(protos.CHECKPOINT_OPTIONS, protos.options.Checkpoint(**fields))


@pytest.fixture
def gpu():
    """Two GPUs: there has to be a wrong one."""
    with fakegpu.FakeGpu(gpus=2) as made:
        yield made


@pytest.fixture
def container(gworld, start_agent):
    start_agent(gworld.agent_dir)
    return gworld.running(annotations=SUSPEND)


@pytest.mark.parametrize("lie,reason", [("noop", "CUDA_STATE_WRONG"),
                                        ("keep-connection", "CUDA_STATE_WRONG")])
@pytest.mark.parametrize("verb", ["pause", "checkpoint"])
def test_saved(container, gpu, gworld, verb, lie, reason):
    """It says CHECKPOINTED, and the memory is still on the GPU."""
    gpu.fault(call="checkpoint", lie=lie)
    with pytest.raises(ttrpc.Error, match=reason):
        if verb == "pause":
            container.pause()
        else:
            container.checkpoint(gworld.image(), options())
    assert container.status == "RUNNING"
    container.workload.goes_on()
    gpu.clear()
    container.pause()
    assert gpu.gpu()["used"] == 0
    container.resume()
    container.workload.goes_on()


def test_locked(container, gpu):
    gpu.fault(call="lock", lie="noop")
    with pytest.raises(ttrpc.Error, match="CUDA_STATE_WRONG"):
        container.pause()
    container.workload.goes_on()


@pytest.mark.parametrize("call", ["restore", "unlock"])
def test_back(container, gpu, call):
    container.pause()
    gpu.fault(call=call, lie="noop")
    with pytest.raises(ttrpc.Error, match="CUDA_STATE_WRONG"):
        container.resume()
    assert container.status == "PAUSED"
    gpu.clear()
    container.resume()
    container.workload.goes_on()


def test_onto_the_wrong_gpu(container, gpu):
    """Resume fails, and can be repeated."""
    container.pause()
    gpu.fault(call="restore", lie="wrong-device", count=1)
    with pytest.raises(ttrpc.Error) as caught:
        container.resume()
    assert "CUDA_STATE_WRONG" in caught.value.message
    assert gpu.uuid(1) in caught.value.message
    assert container.status == "PAUSED"
    assert gpu.gpu(0)["used"] == gpu.gpu(1)["used"] == 0


def test_onto_the_wrong_gpu_after_a_dump(container, gpu, gworld):
    """The image is good, and the caller learns that the container is not where it was."""
    gpu.fault(call="restore", lie="wrong-device", count=1)
    folder = gworld.image()
    with pytest.raises(ttrpc.Error, match="CUDA_STATE_WRONG"):
        container.checkpoint(folder, options())
    assert container.status == "RUNNING"
    container.workload.goes_on()
    assert (folder / "kybernate.json").exists()


def test_one_process_forgotten(gworld, gpu, start_agent):
    """It says of one of three that it has no CUDA; the memory that it has tells."""
    start_agent(gworld.agent_dir)
    container = gworld.container(["gpu-counter", "--procs", "3", "--vram", "4M", "--interval", "50",
                                  "--status", "/var/state"], annotations=SUSPEND)
    container.run()
    workloads = [Workload(container.rootfs / f"var/state.{n}") for n in range(3)]
    for one in workloads:
        one.ready()
    victim = sorted(p for p in gpu.processes() if gpu.vram_of(p))[1]
    gpu.fault(call="get_restore_tid", pid=victim, code=3)
    with pytest.raises(ttrpc.Error) as caught:
        container.pause()
    assert "CUDA_QUERY_FAILED" in caught.value.message
    assert f"process {victim} " in caught.value.message
    assert container.status == "RUNNING"
    for one in workloads:
        one.goes_on()
    gpu.clear()
    container.pause()
    assert gpu.gpu()["used"] == 0
    container.resume()
    for one in workloads:
        one.goes_on()
