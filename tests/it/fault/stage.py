# SPDX-License-Identifier: Apache-2.0
"""The stage of the fault matrix: one container that is checkpointed or restored, ways to stop it in
the middle of a phase, and things that happen to it then.

A Stage goes through: prepare(); at(), which returns inside the phase; strike(), what happens;
release(), the phase may go on; mend(), what the node does about it (an agent that is started again,
...); conclude(), what the caller is told; outcome(), what has become of it.

Pause-to-RAM and the hook at stop are in stage_pause.py and stage_node.py.
"""
import datetime
import os
import pathlib
import re
import signal
import socket
import time

from gpu.conftest import Workload
from gpu.test_checkpoint import options
from kyb import procs, ttrpc
from kyb.agent import pb
from kyb.wait import until

from . import execs, forge, memory

AGENT = """[timeouts]
preflight = "4s"
quiesce = "20s"
lock = "4s"
vram_save = "4s"
criu_dump = "14s"
seal = "20s"
vram_restore = "6s"
unlock = "4s"
criu_restore = "14s"
shim_return = "3s"
"""
SHIM = """[timeouts]
agent_return = "15s"
criu_dump = "7s"
criu_restore = "7s"
"""


def processes(match):
    """pids of those whose command line, arguments joined by blanks, has all of these words."""
    found = []
    for pid in procs.pids():
        line = " ".join(procs.command(pid))
        if line and all(word in line for word in match):
            found.append(pid)
    return found


def send_all(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


class Stage:
    """See above. what: "leave", "exit" or "restore"."""

    def __init__(self, gworld, gpu, agent, what):
        self.gworld = gworld
        self.world = gworld.world
        self.dir = self.world.dir  # all of its processes have it in their command or environment
        self.folder = gworld.image()
        self.fake = self.world.fake_runtime()
        self._begin(gpu, agent, what)

    def _begin(self, gpu, agent, what):
        self.gpu = gpu
        self.agent = agent
        self.what = what
        self.container = None
        self.origin = None       # of a restore
        self.call = None         # the Future of containerd's call
        self.error = None        # what it said, None when it was well
        self.rule = None
        self.stopped = []        # pids
        self.undo = []           # what release() does
        self.shim = None         # its pid
        self.mended = None       # when the last thing was put right
        self.more = []           # further workloads
        self.late = False        # there is to be one that becomes a CUDA process when it is told to
        self.shim_dead = False
        self.killed = False      # the container, on purpose
        self.exit_status = 137   # its, then
        self.agent_fds = 0
        self.timeout = None
        self.clock = None        # of rows in which it jumps
        self.phase = None
        self.exec = None         # one that is to be seen until the end
        self.lies = False        # the call of the driver that is held says what is not so
        self.fault = None

    # --- the play ---

    def options(self):
        return self.world.options(binary_name=str(self.fake.path))

    def run(self, args=None, **more):
        self.container = self.gworld.running(args, options=self.options(), **more)
        return self.container

    def prepare(self, args=None, **more):
        """Everything up to the call that is to be disturbed."""
        container = self.run(args, **more)
        self.agent_fds = self.count_fds()
        if self.what != "restore":
            return
        container.checkpoint(self.folder, options(exit=True))
        container.wait()
        container.delete()
        self.origin = container
        self.new_life()

    def new_life(self):
        self.container = self.gworld.container(options=self.options())
        self.container.create(checkpoint=str(self.folder))

    class Late:
        """A further process of the container."""

        def __init__(self, pid, workload):
            self.pid = pid
            self.workload = workload

    def late_process(self):
        """An exec that becomes a CUDA process when it is told to."""
        late = self.container.exec("late", ["gpu-counter", "--init-signal", "--vram", "4M",
                                            "--interval", "50", "--status", "/var/late"])
        return self.Late(late.start(), Workload(self.container.rootfs / "var/late"))

    def send(self):
        if self.what == "restore":
            self.call = self.container.task.send("Start", self.timeout, id=self.container.id)
        else:
            self.call = self.container.task.send(
                "Checkpoint", self.timeout, id=self.container.id, path=str(self.folder),
                options=options(exit=self.what == "exit"))

    def answer(self, timeout=60):
        """None, or the text of the error."""
        try:
            ttrpc.answer(self.call, timeout)
        except ttrpc.Error as e:
            self.error = e.message
        except ttrpc.Closed:
            self.error = "SHIM_GONE: the shim has closed the connection"
        return self.error

    def conclude(self, fault):
        """Waits for the answer where there is somebody who can hear it."""
        if not (fault == "client_gone" or self.call.done() and self.error):
            self.answer()
        if self.exec and self.what == "exit":
            self.exec.ends()
            self.exec = None

    # --- phases: each returns when it is under way, and held ---

    def at(self, phase):
        self.phase = phase
        getattr(self, "at_" + phase)()

    def at_quiesce(self):
        """An exec that is being started keeps the container from being quiet."""
        self.fake.hold("exec")
        added = self.container.exec("e", ["probe", "sleep"])
        start = self.container.task.send("Start", id=self.container.id, exec_id="e")
        self.fake.wait_call("exec")
        self.send()
        until(lambda: "phase done" in self.agent.log(), 10, "the preflight")
        time.sleep(0.05)  # the order travels to the shim, which has no outward sign of it

        def let_go():
            self.fake.release("exec")
            try:
                ttrpc.answer(start, 20)
                added.kill()
                added.finish()
            except (ttrpc.Error, ttrpc.Closed):
                pass  # the container or the shim has died
        self.undo.append(let_go)

    def _driver(self, call):
        lie = {"lie": "noop"} if self.lies else {}
        self.rule = self.gpu.fault(call=call, hang=True, count=1, **lie)
        self.driver_call = call
        self.send()
        self.gpu.wait_held(self.rule, timeout=20)
        self.undo += [self.gpu.clear, self.gpu.release]

    def at_lock(self):
        self._driver("lock")

    def at_vram_save(self):
        self._driver("checkpoint")

    def at_vram_restore(self):
        self._driver("restore")

    def at_unlock(self):
        self._driver("unlock")

    def _runtime(self, verb):
        self.fake.hold(verb)
        n = len(self.fake.calls(verb))
        self.send()
        until(lambda: len(self.fake.calls(verb)) > n, 20, f"a call of {verb}")
        self.undo.append(lambda: self.fake.release(verb))

    def at_runtime(self):
        """The OCI runtime has been started, CRIU not yet."""
        self._runtime("restore" if self.what == "restore" else "checkpoint")

    def at_exit(self):
        self._runtime("kill")

    def _catch(self, find, what):
        """Stops processes as soon as they are there."""
        self.send()
        end = time.monotonic() + 20
        while True:
            pids = find()
            if pids:
                break
            assert time.monotonic() < end and not self.call.done(), f"{what} was not seen"
        send_all(pids, signal.SIGSTOP)
        self.stopped = pids
        self.undo.append(lambda: send_all(self.stopped, signal.SIGCONT))

    def criu(self):
        """CRIU at work for this world: past the questions that the runtime asks it before."""
        log = "restore.log" if self.what == "restore" else "dump.log"
        work = (self.container.bundle / "work").resolve()
        if not any((folder / log).exists() for folder in (work, work / "criu-work")):
            return []
        # Below the shim: a look at all of /proc can take longer than CRIU does.
        return [pid for pid in procs.descendants(self.shim) if procs.is_criu(pid)]

    def criu_processes(self):
        return [pid for pid in procs.pids() if procs.is_criu(pid)
                and (str(self.dir) in " ".join(procs.command(pid))
                     or str(self.dir).encode() in self._environ(pid))]

    @staticmethod
    def _environ(pid):
        try:
            return pathlib.Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return b""

    def shim_pid(self):
        return self.container.shim_pid()

    def at_criu(self):
        self.shim = self.shim_pid()
        self._catch(self.criu, "CRIU")

    def _store_worker(self):
        return [pid for pid in procs.descendants(self.agent.process.pid)
                if "--store-worker" in procs.command(pid)]

    def at_seal(self):
        self._catch(self._store_worker, "the sealing")

    def at_verify(self):
        self._catch(self._store_worker, "the verification")

    # --- what happens ---

    def strike(self, fault):
        self.fault = fault
        getattr(self, "do_" + fault)()

    def do_nothing(self):
        pass

    def do_agent_killed(self):
        self.agent.process.kill()
        self.agent.process.wait()

    mend_agent_killed = mend_agent_restarted = mend_both_killed = \
        lambda self: self.agent.start()

    def _journal(self, how):
        """The agent has died, and its record of the operation does not say what it said."""
        self.do_agent_killed()
        (record,) = (self.agent.dir / "journal").glob("*,op")
        forge.tear(record, how)

    def do_journal_cut(self):
        self._journal("cut")

    def do_journal_changed(self):
        self._journal("changed")

    def do_journal_gone(self):
        self._journal("gone")

    def mend_journal_cut(self):
        """What cannot be read is kept for a person."""
        self.agent.start()
        for record in (self.agent.dir / "journal").glob("*.bad"):
            record.unlink()

    mend_journal_changed = mend_journal_gone = mend_journal_cut

    def do_agent_restarted(self):
        self.agent.process.terminate()
        until(lambda: "agent leaves" in self.agent.log(), 10)

    def before_mend_agent_restarted(self):
        self.agent.process.wait(40)

    def do_agent_stopped(self):
        os.kill(self.agent.process.pid, signal.SIGSTOP)

    def mend_agent_stopped(self):
        time.sleep(1)  # it is away for a while
        os.kill(self.agent.process.pid, signal.SIGCONT)

    def _worker(self):
        return self.agent.call("Status").worker_pid

    def do_worker_killed(self):
        os.kill(self._worker(), signal.SIGKILL)

    def do_worker_stopped(self):
        os.kill(self._worker(), signal.SIGSTOP)

    def do_shim_killed(self):
        self.shim_dead = True
        os.kill(self.container.shim_pid(), signal.SIGKILL)

    def do_both_killed(self):
        self.do_shim_killed()
        self.do_agent_killed()

    def do_container_killed(self):
        """By whoever may, past the shim: it may be the one that has to notice."""
        if self.container.pid:
            self.killed = True
            os.kill(self.container.pid, signal.SIGKILL)
            return
        try:
            self.container.kill()
            self.killed = True
        except ttrpc.Error as e:
            assert "not found" in e.message  # the runtime has not made it yet

    def do_container_exits(self):
        """Its init, which has no CUDA of its own, ends by itself."""
        self.killed, self.exit_status = True, 7
        (self.root() / "var/go").touch()

    def do_lies_once(self):
        """The driver says that the call is done, and it is not."""

    def do_lies(self):
        """However often it is asked. release() comes too late."""
        self.gpu.fault(call=self.driver_call, lie="noop")
        self.gpu.release()
        self.answer(60)

    def do_runtime_killed(self):
        verb = "restore" if self.what == "restore" else "checkpoint"
        pids = [p for p in processes([str(self.dir), f" {verb} "])
                if "criu" not in " ".join(procs.command(p)[:4])]
        assert pids
        send_all(pids, signal.SIGKILL)

    def do_criu_killed(self):
        send_all(self.stopped, signal.SIGKILL)

    def do_dump_fails_once(self):
        """A connection is just being made, which CRIU cannot dump; after the first attempt it has
        been made, because the container runs for a moment."""
        (self.root() / "var/go").touch()  # nobody sees it before the dump has failed
        assert len(self.fake.calls("checkpoint")) == 1

    def do_dump_fails_twice(self):
        """It is not made."""

    def root(self):
        return self.container.rootfs

    def do_hangs(self):
        """What is held stays held: only a time-out helps. release() comes too late."""
        self.answer(60)

    def do_client_gone(self):
        """containerd dies. Nobody hears the answer, but it does not matter to the operation."""
        self.container.task.sock.shutdown(socket.SHUT_RDWR)
        self.container.task = None

    def mend_client_gone(self):
        self.container.connect()

    def do_new_process(self):
        """A process of the container becomes a CUDA process."""
        os.kill(self.more[0].pid, signal.SIGUSR1)

    def do_clock_jumps(self):
        """Three hours ahead, and six back when the phase is over."""
        self.clock.jump(3)

    def mend_clock_jumps(self):
        time.sleep(0.2)  # whatever hangs on it has its chance to go wrong
        self.clock.jump(-3)

    def jumped(self):
        """Has the agent seen the clock jump?"""
        times = sorted(re.findall(r'^time="([^"]+)', self.agent.log(), re.M))
        first, last = (datetime.datetime.fromisoformat(t[:19]) for t in (times[0], times[-1]))
        return last - first > datetime.timedelta(hours=2)

    def do_oom_kill(self):
        """The kernel ends the container for want of memory in its control group."""
        self.killed = True
        memory.exhaust(self.container.pid, 0, lambda _: not procs.alive(self.container.pid))

    def do_oom_of_another(self):
        """Another process of its control group is ended."""
        memory.exhaust(self.container.pid, 1000, memory.was_killed)

    def do_exec_runs(self):
        self.exec.struck(self.phase)

    def do_exec_begins(self):
        self.exec = execs.Begun(self.container)
        self.exec.struck(self.phase)

    def do_second_call(self):
        self.second = self.container.task.send(
            "Checkpoint", id=self.container.id, path=str(self.gworld.image("second")),
            options=options())

    def mend_second_call(self):
        ttrpc.answer(self.second, 60)

    def do_gpu_taken(self):
        """Another process takes the memory that the driver has given free, for longer than anybody
        waits: the container stays as it is, and the operator is told so."""
        self.gpu.reserve(self.gpu.gpu()["free"])
        self.release()
        self.answer(60)
        assert self.reason() == "VRAM_SHORT", self.error
        (degraded,) = self.agent.call("Status").operations
        assert (degraded.container_id, degraded.status) == (self.container.id, pb.STATUS_DEGRADED)
        assert degraded.error.reason == pb.REASON_VRAM_SHORT
        assert procs.alive(self.container.pid)
        assert self.gpu.log(call="restore") == []  # the first out-of-memory is final

    def mend_gpu_taken(self):
        self.gpu.reserve(0)

    def release(self):
        for step in reversed(self.undo):
            step()
        self.undo = []

    def mend(self, fault):
        before = getattr(self, "before_mend_" + fault, None)
        if before:
            before()
        self.mended = time.monotonic()
        repair = getattr(self, "mend_" + fault, None)
        if repair:
            repair()

    # --- afterwards ---

    def check_attempts(self):
        """A dump is tried once more where that may help, and only once; into an empty folder."""
        n = {"dump_fails_once": 2, "dump_fails_twice": 2}.get(self.fault)
        assert n is None or len(self.fake.calls("checkpoint")) == n
        assert self.fault != "dump_fails_once" or not self.error
        assert self.fault != "dump_fails_twice" or self.reason() in (None, "CRIU_DUMP_FAILED")

    def count_fds(self):
        return len(procs.fds(self.agent.process.pid))

    def settled(self):
        """The agent has nothing to do, and remembers nothing."""
        status = self.agent.call("Status")
        return not status.operations and not os.listdir(self.agent.dir / "journal") and \
            status.worker_pid

    def leftovers(self):
        """Of the operation, besides what a World looks for itself."""
        world = str(self.dir)
        found = [f"process {procs.command(pid)}" for pid in self.criu_processes()]
        found += [f"process {procs.command(pid)}" for verb in ("checkpoint", "restore")
                  for pid in processes([world + "/r", f" {verb} "])]
        found += [f"file {n}" for n in os.listdir(self.agent.store) if n.startswith((".new", ".del"))]
        found += [f"frozen {self.container.pid}" for _ in range(1)
                  if self.container.pid and procs.alive(self.container.pid) and self._frozen()]
        return found

    def _frozen(self):
        from kyb import cgroups  # pylint: disable=import-outside-toplevel
        return cgroups.frozen(self.container.pid)

    def reason(self):
        """The reason code that containerd's client was told."""
        found = re.match(r"([A-Z_]+):", self.error or "")
        return found.group(1) if found else None

    def find_pid(self):
        """Of one that was restored."""
        if not self.container.pid:
            self.container.pid = self.container.state().pid

    def computes(self):
        workload = Workload(self.container.rootfs / "var/state")
        workload.goes_on()
        for one in self.more:
            one.workload.goes_on()

    def driver_says(self):
        """The state of the container's process; None: the driver has never been asked."""
        return self.gpu.processes()[self.container.pid]["state"]

    def end_by_force(self):
        """What containerd does about a shim that has died."""
        self.container.delete_program()
        until(lambda: not procs.alive(self.container.pid), 10, "the container ends")
        self.forget_shim()
        self.shim_dead = False

    def forget_shim(self):
        """A dead shim's socket is the next one's to replace."""
        container = self.container
        container.task.close()
        container.task = None
        container.world.addresses.discard(container.address)
        os.unlink(container.address.removeprefix("unix://"))
        container.address = None

    def outcome(self):
        """What became of it, in words; an AssertionError where it has not survived."""
        container = self.container
        if self.what == "restore" and (self.error or self.killed or self.shim_dead):
            return self._restored_again()
        if self.killed:
            if not self.shim_dead:
                assert container.wait(20).exit_status == self.exit_status
            return self.ended()
        if self.what == "exit" and (self.folder / "kybernate.json").exists() and \
                not procs.alive(container.pid):
            if self.shim_dead:
                self.end_by_force()
            else:
                container.delete()
            self.more = []  # they were added by exec: CRIU dumps what the init has begun
            self.new_life()
            self.container.start()
            self.computes()
            return "sealed, ended; restored"
        if not self.shim_dead:
            until(lambda: container.status == "RUNNING", 10, "it runs")
            self.find_pid()
        self.computes()
        assert self.driver_says() in (None, "RUNNING")
        if self.error:
            return f"undone ({self.reason()}); computes on"
        assert (self.folder / "kybernate.json").exists() or self.shim_dead
        return "checkpointed; computes on"

    def ended(self):
        """The container, and not by us; in words."""
        if self.fault == "container_exits":
            return "ended by itself"
        if self.fault != "oom_kill":
            return "ended as asked"
        until(lambda: self.world.sink.all(self.container.id, "oom"), 5, "the event")
        return "ended by the kernel"

    def _restored_again(self):
        """Nothing half restored; and the checkpoint is as good as ever."""
        if self.shim_dead:
            self.end_by_force()
        elif self.error:
            until(lambda: self.gpu.gpu()["used"] == 0, 10, "nothing half restored stays")
        self.gpu.clear()
        self.new_life()
        self.container.start()
        self.computes()
        return f"refused ({self.reason()}); restored again" if self.error else \
            "ended; restored again"
