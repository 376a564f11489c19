# SPDX-License-Identifier: Apache-2.0
"""What cannot work is refused before anything is touched, with its own reason; and doctor says it
of a container beforehand."""
import ctypes
import os

import pytest

from kyb import protos, ttrpc
from kyb.agent import pb
from kyb.kubelet import Kubelet
from kyb.wait import until

from .conftest import group_config

pytestmark = pytest.mark.criu
MIB = 1 << 20
SUSPEND = {"kybernate.io/pause": "suspend"}


def options(**fields):
    return protos.pack(protos.CHECKPOINT_OPTIONS, protos.options.Checkpoint(**fields))


def device(path, minor=3):
    """A node that a container may open: /dev/null by another name."""
    return {"path": path, "type": "c", "major": 1, "minor": minor, "fileMode": 0o666,
            "uid": 0, "gid": 0}


def with_devices(*paths):
    def edit(spec):
        spec["linux"]["devices"] = [device(p) for p in paths]
        spec["linux"]["resources"]["devices"].append({"allow": True, "type": "c", "major": 1,
                                                      "minor": 3, "access": "rwm"})
    return edit


def held_by(pid):
    """What its descriptors lead to."""
    targets = []
    for n in os.listdir(f"/proc/{pid}/fd"):
        try:
            targets.append(os.readlink(f"/proc/{pid}/fd/{n}"))
        except FileNotFoundError:
            pass  # closed meanwhile
    return targets


def untouched(gpu, container):
    """No process was locked, and it computes on."""
    assert gpu.log(call="lock") == []
    assert container.status == "RUNNING"
    container.workload.goes_on()


def no_io_uring():
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(425, 4, ctypes.create_string_buffer(256))
    if fd < 0:
        return f"no io_uring here: {os.strerror(ctypes.get_errno())}"
    os.close(fd)
    return None


@pytest.mark.parametrize("path", ["/dev/nvidia0", "/dev/nvidiactl", "/dev/infiniband/uverbs0",
                                  "/dev/nvidia-fs0"])
def test_device_held_by_a_process_without_cuda(gworld, gpu, start_agent, path):
    """What the driver will not close for it, CRIU would fail on."""
    start_agent(gworld.agent_dir)
    container = gworld.running(edit=with_devices("/dev/nvidia0", "/dev/nvidiactl", path))
    helper = container.exec("e", ["sh", "-c", f"exec 5<{path}; exec probe sleep"])
    helper.start()
    until(lambda: path in held_by(helper.pid), what="it holds the device")
    with pytest.raises(ttrpc.Error) as caught:
        container.checkpoint(gworld.image(), options())
    assert "LEFTOVER_DEVICE_FD" in caught.value.message
    assert f"process {helper.pid} " in caught.value.message and path in caught.value.message
    untouched(gpu, container)
    helper.kill()
    helper.finish()
    container.checkpoint(gworld.image("second"), options())
    container.workload.goes_on()


@pytest.mark.skipif(no_io_uring() is not None, reason=str(no_io_uring()))
def test_io_uring(gworld, gpu, start_agent):
    start_agent(gworld.agent_dir)
    container = gworld.running(annotations=SUSPEND)
    helper = container.exec("e", ["probe", "undumpable"])
    helper.start()
    until(lambda: any("io_uring" in t for t in held_by(helper.pid)), what="it holds an io_uring")
    with pytest.raises(ttrpc.Error, match="IO_URING"):
        container.checkpoint(gworld.image(), options())
    untouched(gpu, container)
    container.pause()  # CRIU has no part in a suspend
    assert gpu.gpu()["used"] == 0
    container.resume()
    container.workload.goes_on()
    helper.kill()
    helper.finish()


def test_a_device_that_stays_open(gworld, gpu, start_agent):
    """The driver says that it has let go of the GPU, and has not: caught before CRIU."""
    start_agent(gworld.agent_dir)
    container = gworld.running(edit=with_devices("/dev/nvidia0", "/dev/nvidiactl",
                                                 "/dev/nvidia-uvm"))
    assert "/dev/nvidia0" in held_by(container.pid)
    rule = gpu.fault(call="checkpoint", lie="keep-device")
    with pytest.raises(ttrpc.Error, match="LEFTOVER_DEVICE_FD"):
        container.checkpoint(gworld.image(), options())
    container.workload.goes_on()
    gpu.clear(rule)
    container.checkpoint(gworld.image("second"), options())
    container.workload.goes_on()


@pytest.mark.parametrize("verb", ["checkpoint", "pause"])
def test_memory_limit(gworld, gpu, start_agent, verb):
    """GPU memory becomes memory of the container: where that would end in the kernel killing it,
    it is not begun."""
    start_agent(gworld.agent_dir)
    container = gworld.running(["gpu-counter", "--vram", "64M", "--interval", "50", "--status",
                                "/var/state"], memory=48 * MIB, annotations=SUSPEND)
    with pytest.raises(ttrpc.Error) as caught:
        if verb == "pause":
            container.pause()
        else:
            container.checkpoint(gworld.image(), options())
    assert "MEM_LIMIT" in caught.value.message
    assert "memory limit of 48 MiB" in caught.value.message
    untouched(gpu, container)


def test_memory_limit_with_room(gworld, gpu, start_agent):
    start_agent(gworld.agent_dir)
    container = gworld.running(["gpu-counter", "--vram", "32M", "--interval", "50", "--status",
                                "/var/state"], memory=128 * MIB, annotations=SUSPEND)
    container.pause()
    container.resume()
    container.workload.goes_on()
    assert len(gpu.log(call="lock")) == 1


def test_no_room_for_the_image(gworld, gpu, start_agent, tmp_path):
    start_agent(gworld.agent_dir)
    container = gworld.running()
    small = gworld.image()
    assert os.system(f"mount -t tmpfs -o size=8m none {small}") == 0
    try:
        with pytest.raises(ttrpc.Error, match="STORE_FULL"):
            container.checkpoint(small, options())
    finally:
        os.system(f"umount {small}")
    untouched(gpu, container)


# --- doctor ---

def doctor(gnode, container):
    reply = gnode.agent.call("Doctor", containerd_namespace=gnode.node.namespace,
                             container_id=container.id)
    return reply.ok, {c.name: c for c in reply.checks}


def test_doctor_of_a_container(gnode):
    container = gnode.running(memory=512 * MIB)
    _, checks = doctor(gnode, container)
    for name in ("container", "operation", "CUDA", "descriptors", "memory limit", "host memory",
                 "room for images"):
        assert checks[name].ok, checks[name]
    assert "1 processes" in checks["CUDA"].found and "(gpu-counter)" in checks["CUDA"].found
    assert "of 512 MiB free" in checks["memory limit"].found
    gnode.watch(container).goes_on()


@pytest.mark.parametrize("more,why", [
    ({"seat": "seat-9"}, 'has no seat "seat-9"'),
    ({"group": "group-x"}, 'no GPU group "group-x"'),
    ({"annotations": {"kybernate.io/gpu-seat": "seat-1"}}, 'is "seat-1"'),
])
def test_doctor_checks_the_seat(gnode, more, why):
    """By the container's specification: no shim is asked."""
    container = gnode.running(**more)
    ok, checks = doctor(gnode, container)
    assert not ok and checks["seat"].reason == pb.REASON_SEAT_MISMATCH
    assert why in checks["seat"].found
    assert checks["seat"].advice
    assert checks["CUDA"].ok
    right = gnode.running()
    _, checks = doctor(gnode, right)
    assert checks["seat"].ok and 'group "group-a", seat "seat-0"' in checks["seat"].found


@pytest.mark.parametrize("given,reason,found", [
    (["GPU-11111111-1111-1111-1111-111111111111"], "SEAT_MISMATCH", "GPU-11111111"),
    (None, "POD_MISMATCH", "web-0"),
    ([], "NONE", "0 GPUs by kubelet"),
])
def test_doctor_asks_kubelet(gnode, given, reason, found):
    socket = gnode.agent_dir.parent / "kubelet.sock"
    gnode.agent.stop()
    gnode.start(more=f'kubelet = "{socket}"\n' + group_config(gnode.gpu))
    pods = {} if given is None else {("prod", "web-0"): {"trainer": given}}
    kubelet = Kubelet(socket, pods)
    try:
        container = gnode.running(annotations={
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-name": "web-0",
            "io.kubernetes.cri.sandbox-namespace": "prod",
            "io.kubernetes.cri.container-name": "trainer"})
        _, checks = doctor(gnode, container)
        assert kubelet.asked == 1
    finally:
        kubelet.close()
    assert pb.Reason.Name(checks["seat"].reason) == "REASON_" + reason
    assert found in checks["seat"].found


def test_doctor_finds_what_is_wrong(gnode):
    container = gnode.running(["gpu-counter", "--vram", "64M", "--interval", "50", "--status",
                               "/var/state"], memory=48 * MIB,
                              edit=with_devices("/dev/nvidia0", "/dev/nvidiactl"))
    container.exec("e", ["sh", "-c", "exec 5</dev/nvidiactl; exec probe sleep"])
    until(lambda: not doctor(gnode, container)[1]["descriptors"].ok)
    ok, checks = doctor(gnode, container)
    assert not ok
    assert checks["descriptors"].advice
    assert "/dev/nvidiactl" in checks["descriptors"].found
    assert checks["descriptors"].reason == pb.REASON_LEFTOVER_DEVICE_FD
    assert checks["memory limit"].reason == pb.REASON_MEM_LIMIT
    assert gnode.gpu.log(call="lock") == []


def test_doctor_of_a_suspended_container(gnode):
    container = gnode.running(annotations=SUSPEND)
    container.pause()
    _, checks = doctor(gnode, container)
    assert "paused" in checks["container"].found
    assert checks["CUDA"].ok
    container.resume()
    gnode.watch(container).goes_on()


def test_doctor_of_nobody(gnode):
    reply = gnode.agent.call("Doctor", containerd_namespace=gnode.node.namespace,
                             container_id="nobody")
    assert not reply.ok
    assert [c.name for c in reply.checks if not c.ok][-1] == "container"
