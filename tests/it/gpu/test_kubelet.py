# SPDX-License-Identifier: Apache-2.0
"""Where there is a kubelet, its word on a pod's GPUs has to agree; and the GPUs that the processes
really use have to be those of the container's group."""
import pytest

from kyb import protos, ttrpc
from kyb.kubelet import Kubelet

import fakegpu

from .conftest import group_config

POD = {"io.kubernetes.cri.container-type": "container",
       "io.kubernetes.cri.sandbox-name": "web-0",
       "io.kubernetes.cri.sandbox-namespace": "prod",
       "io.kubernetes.cri.container-name": "trainer",
       "kybernate.io/pause": "suspend"}


def options(**fields):
    return protos.pack(protos.CHECKPOINT_OPTIONS, protos.options.Checkpoint(**fields))


@pytest.fixture
def gpu():
    with fakegpu.FakeGpu(gpus=2) as made:
        yield made


@pytest.fixture
def kubelet(gworld):
    """start(pods): a Kubelet on the socket that the agent's settings name."""
    made = []

    def start(pods):
        made.append(Kubelet(gworld.dir / "kubelet.sock", pods))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.fixture
def agent(gworld, gpu, start_agent):
    return start_agent(gworld.agent_dir,
                       more=f'kubelet = "{gworld.dir}/kubelet.sock"\n' + group_config(gpu))


def trainer(ids):
    return {("prod", "other-0"): {"trainer": ["GPU-of-another"]}, ("prod", "web-0"):
            {"sidecar": [], "trainer": ids}}


@pytest.mark.parametrize("shape", ["{}", "{}::1"])
def test_it_agrees(gworld, gpu, kubelet, agent, shape):
    pods = kubelet(trainer([shape.format(gpu.uuid(0))]))
    container = gworld.running(annotations=POD)
    container.pause()
    assert pods.asked == 1
    assert gpu.gpu()["used"] == 0
    container.resume()
    container.workload.goes_on()


def test_it_gave_another_gpu(gworld, gpu, kubelet, agent):
    kubelet(trainer([gpu.uuid(1)]))
    container = gworld.running(annotations=POD)
    with pytest.raises(ttrpc.Error) as caught:
        container.pause()
    assert "SEAT_MISMATCH" in caught.value.message and gpu.uuid(1) in caught.value.message
    assert gpu.log(call="lock") == []
    container.workload.goes_on()


def test_it_knows_no_such_container(gworld, gpu, kubelet, agent):
    kubelet({("prod", "other-0"): {"trainer": [gpu.uuid(0)]}})
    container = gworld.running(annotations=POD)
    with pytest.raises(ttrpc.Error) as caught:
        container.pause()
    assert caught.value.message.startswith("POD_MISMATCH: kubelet knows no container")
    assert gpu.log(call="lock") == []
    container.workload.goes_on()


def test_devices_that_are_no_gpus(gworld, gpu, kubelet, agent):
    """Another device plugin gives out seats by names of its own: nothing to compare."""
    kubelet(trainer(["group-a/seat-0"]))
    container = gworld.running(annotations=POD)
    container.pause()
    container.resume()
    container.workload.goes_on()


def test_a_kubelet_that_is_away(gworld, gpu, kubelet, agent):
    """A socket without anybody behind it: kubelet is being restarted, and holds nobody up."""
    one = kubelet(trainer([gpu.uuid(1)]))
    one.close()
    (gworld.dir / "kubelet.sock").touch()
    container = gworld.running(annotations=POD)
    container.pause()
    container.resume()
    container.workload.goes_on()
    assert "kubelet does not say" in agent.log()


def test_no_pod_no_question(gworld, gpu, kubelet, agent):
    pods = kubelet({})
    container = gworld.running(annotations={"kybernate.io/pause": "suspend"})
    container.pause()
    container.resume()
    container.workload.goes_on()
    assert pods.asked == 0


def test_a_gpu_of_another_group(gworld, gpu, agent):
    """What the processes use is what counts, whatever they were meant to."""
    container = gworld.running(["gpu-counter", "--vram", "4M", "--device", "1", "--interval", "50",
                                "--status", "/var/state"], annotations=POD)
    with pytest.raises(ttrpc.Error) as caught:
        container.pause()
    assert "SEAT_MISMATCH" in caught.value.message and gpu.uuid(1) in caught.value.message
    assert gpu.log(call="lock") == []
    container.workload.goes_on()


@pytest.mark.criu
def test_checkpoint(gworld, gpu, kubelet, agent):
    kubelet(trainer([gpu.uuid(0)]))
    container = gworld.running(annotations=POD)
    container.checkpoint(gworld.image(), options())
    container.workload.goes_on()
