# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of one GPU comes back on another GPU of the same node: the seat's, the one that the
container has a device node of, or the one that is free."""
import json

import grpc
import pytest

import fakegpu

from .conftest import Workload

pytestmark = pytest.mark.criu
NODES = ("/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl", "/dev/nvidia-uvm")


@pytest.fixture
def gpu():
    with fakegpu.FakeGpu(gpus=2) as made:
        yield made


def groups(gpu):
    """Two groups of one seat and one GPU each."""
    return "".join(f'[[group]]\nname = "group-{name}"\nseats = ["seat-0"]\n'
                   f'gpu_uuids = ["{gpu.uuid(i)}"]\ndevice_paths = ["/dev/nvidia{i}"]\n'
                   for i, name in enumerate("ab"))


def nodes(*paths):
    """Device nodes that a container may open: /dev/null by other names."""
    def edit(spec):
        spec["linux"]["devices"] = [{"path": p, "type": "c", "major": 1, "minor": 3,
                                     "fileMode": 0o666, "uid": 0, "gid": 0} for p in paths]
        spec["linux"]["resources"]["devices"].append({"allow": True, "type": "c", "major": 1,
                                                      "minor": 3, "access": "rwm"})
    return edit


CONTROL = ("/dev/nvidiactl", "/dev/nvidia-uvm")


@pytest.fixture
def two_seats(gnode):
    """A GpuNode with a group of seats for each of its GPUs."""
    gnode.agent.stop()
    gnode.start(more=groups(gnode.gpu))
    return gnode


def on_the_first(gnode, **more):
    first = gnode.running(edit=nodes("/dev/nvidia0", *CONTROL), **more)
    assert gnode.gpu.gpu(0)["used"] > 0 and gnode.gpu.gpu(1)["used"] == 0
    return first


def test_onto_the_gpu_of_another_seat(two_seats):
    gnode = two_seats
    first = on_the_first(gnode)
    assert gnode.checkpoint(first).ok
    gnode.ended(first)
    second = gnode.new_life("ck", group="group-b", edit=nodes("/dev/nvidia1", *CONTROL))
    second.run()
    gnode.watch(second).goes_on()
    assert gnode.gpu.gpu(0)["used"] == 0 and gnode.gpu.gpu(1)["used"] > 16 << 20
    about = gnode.agent.call("GetCheckpoint", checkpoint_ref="ck").metadata_json
    (device,) = json.loads(about)["gpu"]["devices"]
    assert device["uuid"] == gnode.gpu.uuid(0) and device["node"] == "/dev/nvidia0"


def test_by_the_device_node_alone(gnode):
    """A node without a table of groups: what the container was given decides."""
    gnode.agent.stop()
    gnode.start(more="")
    first = on_the_first(gnode)
    assert gnode.checkpoint(first, leave=True).ok
    second = gnode.new_life("ck", edit=nodes("/dev/nvidia1", *CONTROL))
    second.run()
    gnode.watch(second).goes_on()
    assert gnode.gpu.gpu(1)["used"] > 16 << 20
    gnode.watch(first).goes_on()


def test_no_device_of_that_kind(gnode):
    """The container has no node of any GPU that would do."""
    gnode.agent.stop()
    gnode.start(more="")
    first = on_the_first(gnode)
    assert gnode.checkpoint(first).ok
    gnode.ended(first)
    second = gnode.new_life("ck", edit=nodes("/dev/nvidia7", *CONTROL))
    with pytest.raises(grpc.RpcError) as caught:
        second.run()
    assert "GPU_MISMATCH" in caught.value.details()


def test_the_agent_gives_the_new_container_the_node(two_seats):
    """RestoreContainer where the group has another GPU by now: the new spec names its node."""
    gnode = two_seats
    first = on_the_first(gnode)
    assert gnode.checkpoint(first).ok
    gnode.ended(first)
    gnode.agent.stop()
    gnode.start(more=f'[[group]]\nname = "group-a"\nseats = ["seat-0"]\n'
                     f'gpu_uuids = ["{gnode.gpu.uuid(1)}"]\ndevice_paths = ["/dev/nvidia1"]\n')
    outcome, second = gnode.clone("ck")
    assert outcome.ok, outcome
    assert [d["path"] for d in second.spec()["linux"]["devices"]] == ["/dev/nvidia1", *CONTROL]
    gnode.watch(second).goes_on()
    assert gnode.gpu.gpu(0)["used"] == 0 and gnode.gpu.gpu(1)["used"] > 16 << 20


ON_BOTH = ["sh", "-c", "gpu-counter --vram 4M --device 0 --interval 50 --status /var/a & "
                       "exec gpu-counter --vram 4M --device 1 --interval 50 --status /var/state"]


def dumped_on_both(gnode):
    """Two processes, a GPU each, on a node without a table of groups."""
    gnode.agent.stop()
    gnode.start(more="")
    first = gnode.running(ON_BOTH)
    assert gnode.gpu.gpu(0)["used"] > 0 and gnode.gpu.gpu(1)["used"] > 0
    assert gnode.checkpoint(first).ok
    gnode.ended(first)


def test_two_gpus_in_their_places(gnode):
    dumped_on_both(gnode)
    second = gnode.new_life("ck", args=ON_BOTH)
    second.run()
    gnode.watch(second).goes_on()
    assert gnode.gpu.gpu(0)["used"] > 0 and gnode.gpu.gpu(1)["used"] > 0


def test_one_of_two_moves(gnode, start_agent):
    """The driver wants to be told of all, also of the one that stays: else it refuses, as a real
    one was seen to do. On the node the one that stays has another number."""
    dumped_on_both(gnode)
    gnode.agent.stop()
    stays, new = gnode.gpu.uuid(1), "GPU-0f0f0f0f-1111-2222-3333-444444444444"
    config = {"gpus": [{"uuid": stays}, {"uuid": new}]}
    with fakegpu.FakeGpu(config=config) as other:
        gnode.agent = start_agent(gnode.agent_dir, containerd=gnode.node.socket, more="", gpu=other)
        second = gnode.new_life("ck", args=ON_BOTH, gpu_dir=other.dir)
        second.run()
        workload = gnode.watch(second)
        workload.goes_on()
        Workload(workload.status_file.with_name("a")).goes_on()
        assert [other.gpu(i)["processes"] != [] for i in range(2)] == [True, True]
        on_stays = [p["pid"] for p in other.gpu(0)["processes"]]
        assert second.pid in on_stays  # its second process, the init, had GPU 1
        second.kill()
        gnode.ended(second)
        gnode.agent.stop()
