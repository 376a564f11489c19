# SPDX-License-Identifier: Apache-2.0
"""The stage of the matrix's rows with a whole containerd: "stop", the checkpoint in place of a
SIGTERM (kybernate.io/on-stop), and "suspend" and "resume" where containerd is what fails.

Nobody waits for a stop: containerd's client is answered at once, and looks when the task has ended.
"""
import os
import pathlib
import signal
import tempfile

import grpc

from gpu.conftest import COUNTER, group_config
from kyb import cgroups, env, fakeruntime, procs, protos
from kyb.wait import until

from .stage import AGENT, SHIM, Stage

ANNOTATIONS = {"stop": {"kybernate.io/on-stop": "checkpoint"}}
SUSPEND = {"kybernate.io/pause": "suspend"}
# Of a pod: after that kubelet kills it. The settings of the stage let nothing come near it.
GRACE = 30


class Ending:
    """Of a task; what stands for the call's Future where nobody waits for one."""

    def __init__(self, stage):
        self.stage = stage

    def done(self):
        return self.stage.status() in ("STOPPED", None)

    def exception(self):
        return None


class NodeStage(Stage):
    """what: "stop", "suspend" or "resume"."""

    def __init__(self, gnode, gpu, what, **how):  # pylint: disable=super-init-not-called
        self.gnode = gnode
        self.node = gnode.node
        self.dir = gnode.node.dir
        gnode.agent.stop()
        gnode.start(more=AGENT + group_config(gpu), **how)
        gnode.write_shim_config(SHIM)
        self.fake = fakeruntime.FakeRuntime(tempfile.mkdtemp(prefix="rt.", dir=self.dir))
        self._begin(gpu, gnode.agent, what)
        self.shim = 0

    def close(self):
        self.gnode.write_shim_config()

    # --- the play ---

    def prepare(self, args=None, **more):
        values = {"binary_name": str(self.fake.path),
                  "systemd_cgroup": env.DRIVER == "systemd"}
        self.container = self.gnode.running(
            args or COUNTER, annotations=ANNOTATIONS.get(self.what, SUSPEND),
            options=protos.pack(protos.RUNC_OPTIONS, protos.options.Runc(**values)), **more)
        self.container.bundle = self.node.bundle(self.container.id)
        (self.shim,) = [pid for pid in self.node.shims() if self.container.id in
                        os.readlink(f"/proc/{pid}/cwd")]
        self.agent_fds = self.count_fds()
        if self.what == "resume":
            self.container.pause()

    def shim_pid(self):
        return self.shim

    def late_process(self):
        """An exec that becomes a CUDA process when it is told to."""
        pid = self.container.exec("late", ["gpu-counter", "--init-signal", "--vram", "4M",
                                           "--interval", "50", "--status", "/var/late"])
        return self.Late(pid, None)

    def root(self):
        return pathlib.Path(f"/proc/{self.container.pid}/root")

    def send(self):
        if self.what == "stop":
            self.container.kill(signal.SIGTERM)
            self.call = Ending(self)
        else:
            self.call = self.container.client.task_future(
                "Pause" if self.what == "suspend" else "Resume", container_id=self.container.id)

    def answer(self, timeout=60):
        if self.what == "stop":
            until(self.call.done, min(timeout, GRACE), "the task has ended")
            return None
        try:
            self.call.result(env.seconds(timeout))
        except grpc.RpcError as e:
            self.error = e.details()
        return self.error

    def conclude(self, fault):
        self.answer()
        if fault.startswith("containerd"):
            self.error = None  # said by a containerd that was dying: nobody can rely on it

    def criu(self):
        """The agent has CRIU's log kept with the images."""
        if not any(self.agent.store.glob(".new*/logs/dump.log")):
            return []
        return [pid for pid in procs.descendants(self.shim) if procs.is_criu(pid)]

    # --- what happens ---

    def do_shim_killed(self):
        self.shim_dead = True
        os.kill(self.shim, signal.SIGKILL)

    def do_containerd_killed(self):
        self.node.stop(signal.SIGKILL)

    def mend_containerd_killed(self):
        self.node.start()

    def do_containerd_restarted(self):
        self.node.restart()

    def do_dump_fails(self):
        self.fake.fail("checkpoint", "no dump today")

    # --- afterwards ---

    def status(self):
        """None: containerd knows no such task (any more)."""
        try:
            return self.container.status
        except grpc.RpcError as e:
            if e.code() == grpc.StatusCode.NOT_FOUND:
                return None
            assert e.code() == grpc.StatusCode.UNAVAILABLE, e  # it is being restarted
            return "UNAVAILABLE"

    def outcome(self):
        if self.what != "stop":
            return self._switched()
        container = self.container
        until(self.call.done, GRACE, "the task has ended")
        until(lambda: not procs.alive(container.pid), 10, "the container has ended")
        exit_status = None
        if self.status() is not None:
            exit_status = container.get().exit_status
            container.delete()
        until(lambda: self.gpu.gpu()["used"] == 0, 10, "its GPU is free")
        refs = self.agent.refs()
        if exit_status == 143:
            assert not refs, "it was ended by the signal, and there is a checkpoint"
            return "no checkpoint; ended by SIGTERM"
        assert exit_status == 137 or self.shim_dead and exit_status in (None, 137, 255)
        if not refs:
            assert self.killed or self.shim_dead
            return self.ended() if self.killed else "no checkpoint; ended by containerd"
        (ref,) = refs
        self.agent.call("GetCheckpoint", checkpoint_ref=ref, verify=True)
        self.gpu.clear()
        return "sealed, ended; " + self._restored(ref)

    def ended(self):
        return "ended by the kernel" if self.fault == "oom_kill" else "ended as asked"

    def _restored(self, ref):
        second, told = self.gnode.new_life(ref), "restored"
        try:
            second.run()
        except grpc.RpcError as e:
            # Whether a worker hangs is seen when it is asked.
            assert self.fault == "worker_stopped" and "TIMEOUT: phase preflight" in e.details(), e
            until(self.settled, 10, "another worker")
            second, told = self.gnode.new_life(ref), "restored at the second attempt"
            second.run()
        self.gnode.watch(second).goes_on()
        return told

    def _switched(self):
        """Of suspend and resume: one or the other, and it can be gone on from there."""
        container = self.container
        status = until(lambda: self.status() in ("RUNNING", "PAUSED") and self.status(), 20,
                       "it runs or is paused")
        if status == "PAUSED":
            assert cgroups.frozen(container.pid)
            until(lambda: self.gpu.gpu()["used"] == 0, 5, "the GPU is free")
            container.resume()
        container.workload.goes_on()
        assert self.driver_says() in (None, "RUNNING")
        return "suspended; resumed; computes on" if status == "PAUSED" else "resumed; computes on" \
            if self.what == "resume" else "undone; computes on"

    def leftovers(self):
        found = super().leftovers()
        return [item for item in found if not (self.shim_dead and item.startswith("frozen"))]

    def end_by_force(self):
        """containerd does so by itself."""
        until(lambda: self.status() in (None, "STOPPED"), 20, "containerd has noticed")
