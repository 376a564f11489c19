# SPDX-License-Identifier: Apache-2.0
"""Thousands of lives of containers, several at a time, while containerd comes and goes; and then
nothing may be left: no process, descriptor, mount, control group, socket or FIFO, and a shim that
saw all of it may hold no byte more than after the first of it.

  KYB_SOAK_CYCLES    lives of containers; 2000 is the full test  (as many as fit in a minute)
  KYB_SOAK_WORKERS   how many at a time                           (8)

What a life is, is drawn from a seed that a failure names; KYB_SOAK_SEED repeats it.
"""
import collections
import concurrent.futures
import itertools
import os
import pathlib
import random
import re
import shutil
import signal
import threading
import time

import grpc
import pytest

from kyb import cgroups, env, procs, starter, stdio
from kyb.client import Client
from kyb.node import Node
from kyb.wait import Timeout, until

CYCLES = int(os.environ.get("KYB_SOAK_CYCLES") or 0)
WORKERS = int(os.environ.get("KYB_SOAK_WORKERS") or 8)
SEED = os.environ.get("KYB_SOAK_SEED") or str(time.time_ns())
SHORT = 60            # seconds, when no number of cycles is given
RESTART_EVERY = 7     # seconds
GROUP = "io.containerd.runc.v2.group"
# Without malloc's caches per thread the heap in use is what the shim holds, to the byte. A new
# connection of containerd's may differ from the last one in how much it has buffered.
EXACT_HEAP = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
HEAP_SLACK = 512
PRIVATE_SLACK = 128   # KiB; the heap's pages that were touched


class Interrupted(Exception):
    """containerd went away in the middle; the container has been cleaned up."""


class Elder:
    """The container, and the shim, that live through all of it."""

    def __init__(self, client, node):
        self.container = client.container(["probe", "reap"])
        self.container.run()
        self.node = node
        self.pid = int(until(lambda: node.shims())[0])
        self.ids = itertools.count()
        self.open = set()  # execs that a restart of containerd may have left behind

    def exec(self, client, rng):
        """An exec of its own name in it."""
        name = f"x{next(self.ids)}"
        self.open.add(name)
        container = client_view(client, self.container)
        code = rng.randrange(120)
        container.exec(name, ["probe", "exit", str(code)])
        status = container.wait(name).exit_status
        container.delete(name)
        self.open.remove(name)
        assert status == code

    def tidy(self):
        """Without the execs that nobody deleted."""
        for name in sorted(self.open):
            until(lambda n=name: self._exec_gone(n), 60, f"exec {name} is gone", pause=0.1)
        self.open.clear()

    def _exec_gone(self, name):
        try:
            self.container.delete(name)
        except grpc.RpcError as error:
            return error.code() == grpc.StatusCode.NOT_FOUND
        return True

    def heap(self):
        """Bytes that the shim has allocated, by its own word; None where it has none."""
        return self._said("heap") if self.node.kind.ours else None

    def containers(self):
        return self._said("containers")

    def _said(self, what):
        said = re.compile(r'msg="?state"? .*id=%s .*\b%s=(\d+)' % (self.container.id, what))
        before = len(said.findall(self.node.log.read_text(errors="replace")))
        os.kill(self.pid, signal.SIGUSR1)
        return int(until(lambda: said.findall(
            self.node.log.read_text(errors="replace"))[before:], 10, "the shim tells")[0])

    def private(self):
        """KiB of pages written to and its own. (Clean private pages of the program say only how
        many other shims there are.)"""
        text = pathlib.Path(f"/proc/{self.pid}/smaps_rollup").read_text(encoding="ascii")
        return int(re.search(r"^Private_Dirty:\s+(\d+)", text, re.M).group(1))

    def fds(self):
        """What its descriptors are, without the numbers of sockets and the like."""
        return sorted(re.sub(r"\[\d+\]", "", target)
                      for target in procs.fds(self.pid).values())


def client_view(client, container):
    """The same container, seen through another client."""
    seen = type(container).__new__(type(container))
    seen.__dict__.update(container.__dict__)
    seen.client = client
    return seen


# --- one life ---

def _execs(container, rng, folder):
    for n in range(rng.randrange(3)):
        io = stdio.Stdio(folder / f"e{n}")
        try:
            container.exec(f"e{n}", ["sh", "-c", f"echo {n}; exit {n}"], io=io)
            assert container.wait(f"e{n}").exit_status == n
            assert io.out.wait_end(60) == f"{n}\n".encode()
            container.delete(f"e{n}")
        finally:
            io.close()


def _end(container, rng):
    """Ends it in one of the ways, and says with what status."""
    if rng.random() < 0.5:
        container.kill(9)
        return 137
    container.kill(15)  # probe trap 15 21
    return 21


def _life(client, elder, rng, folder):
    pod = rng.random() < 0.3
    terminal = rng.random() < 0.2
    io = stdio.Stdio(folder / "io", stdin=terminal, stderr=not terminal)
    container = None
    try:
        container = client.container(["probe", "trap", "15", "21"], terminal=terminal,
                                     annotations={GROUP: elder.container.id} if pod else None)
        container.create(io=io, terminal=terminal)
        if rng.random() < 0.1:  # never started
            container.delete()
            return container
        container.start()
        io.out.wait_for("ready", 60)
        _execs(container, rng, folder)
        if rng.random() < 0.2:
            container.pause()
            container.resume()
        if rng.random() < 0.3:
            elder.exec(client, rng)
        expected = _end(container, rng)
        assert container.wait().exit_status == expected
        container.delete()
        return container
    except (grpc.RpcError, Timeout) as error:
        _recover(client, container, error)
        raise Interrupted from error
    finally:
        io.close()


def _gone(client, container):
    """Whether containerd and its shim have forgotten the task; ends the one they know. A task that
    only the shim has forgotten, because containerd ended between the two, goes with Delete too."""
    seen = client_view(client, container)
    try:
        seen.kill(9)
        seen.wait(timeout=10)
    except grpc.RpcError:
        pass  # it may have no process any more, or never had a task
    try:
        seen.delete()
    except grpc.RpcError as error:
        return error.code() == grpc.StatusCode.NOT_FOUND
    return False


def _recover(client, container, error):
    """A life that containerd's end interrupted is ended; any other error is one."""
    if client.node.calm(error):
        raise error
    if container is None:  # of the shim's there is nothing yet
        return
    until(lambda: _gone(client, container), 60, f"{container.id} is gone after {error!r}",
          pause=0.1)


def _forget(client, container):
    """Without the container and its snapshot; they are containerd's, not the shim's."""
    client.node.ctr("containers", "delete", container.id, check=False)


# --- all of them ---

class SoakNode(Node):
    """A node that knows when it was last taken away."""
    restarting = threading.Lock()
    last = 0.0

    def disturb(self, number):
        with self.restarting:
            self.last = time.monotonic()
            self.restart(number)
            self.last = time.monotonic()

    def calm(self, error):
        """Whether an error cannot come from a restart."""
        code = error.code() if isinstance(error, grpc.RpcError) else None
        recent = time.monotonic() - self.last < env.seconds(90) or self.restarting.locked()
        lost = code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        return not lost and not recent


class Soak:
    """The workers, the one that restarts containerd, and what they counted."""

    def __init__(self, node, folder):
        self.node, self.folder = node, folder
        self.client = Client(node)
        self.elder = Elder(self.client, node)
        self.done = self.interrupted = self.restarts = 0
        self.numbers = itertools.count()
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.used = []

    def worker(self, until_count, until_time):
        client = Client(self.node)
        try:
            while not self.stop.is_set():
                with self.lock:
                    number = next(self.numbers)
                if number >= until_count or time.monotonic() > until_time:
                    return
                self.one(client, number)
        except BaseException:
            self.stop.set()
            raise
        finally:
            client.close()

    def one(self, client, number):
        folder = self.folder / str(number)
        folder.mkdir()
        try:
            container = _life(client, self.elder, random.Random(f"{SEED}.{number}"), folder)
            with self.lock:
                self.done += 1
                self.used.append(container.id)
            _forget(client, container)
        except Interrupted:
            with self.lock:
                self.interrupted += 1
        finally:
            shutil.rmtree(folder)

    def disturber(self):
        for number in itertools.cycle((signal.SIGTERM, signal.SIGKILL)):
            if self.stop.wait(env.seconds(RESTART_EVERY)):
                return
            self.node.disturb(number)
            self.restarts += 1

    def run(self, cycles, seconds):
        """So many lives, or so many seconds of them."""
        first = next(self.numbers)
        end = time.monotonic() + seconds
        disturber = threading.Thread(target=self.disturber, daemon=True)
        disturber.start()
        try:
            with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
                for job in [pool.submit(self.worker, first + cycles, end)
                            for _ in range(WORKERS)]:
                    job.result()
        finally:
            self.stop.set()
            disturber.join(env.seconds(60))
        self.stop.clear()
        self.settle()

    def _story(self, pid):
        """What is known of a shim that should be gone."""
        argv = procs.command(pid)
        name = argv[argv.index("-id") + 1] if "-id" in argv else "?"
        lines = [line for line in self.node.log.read_text(errors="replace").splitlines()
                 if re.search(rf"\b{name}\b", line)]
        return "\n".join([f"{pid}: {' '.join(argv)}", f"children {procs.children(pid)}",
                          f"bundle {sorted(p.name for p in self.node.bundle(name).glob('*'))}",
                          *lines[-40:]])

    def settle(self):
        """Until only the elder is left."""
        try:
            # One that containerd has forgotten looks for its bundle now and then.
            until(lambda: self.node.shims() == [self.elder.pid], 120)
        except Timeout:
            pytest.fail(f"shims that stay (seed {SEED}):\n" + "\n".join(
                self._story(pid) for pid in self.node.shims() if pid != self.elder.pid))
        self.elder.tidy()
        if self.node.kind.ours:  # looks for what containerd has forgotten after 15, 45, 105, 225 s
            until(lambda: self.elder.containers() == 1, 240, "no container but its own")
        # Its connection for events is made with the first one after a restart of containerd.
        self.elder.exec(self.client, random.Random(SEED))
        # A child would share what is the shim's own.
        until(lambda: len(procs.children(self.elder.pid)) == 1, 20, "no child but its init")


def _leftovers(soak):
    node = soak.node
    found = list(node.leftovers())
    found += [f"socket of {name}" for name in soak.used
              if os.path.exists(starter.socket_path(node.socket, node.namespace, name))]
    root = pathlib.Path("/run/containerd/runc") / node.namespace
    found += [f"state of {path.name}" for path in (root.iterdir() if root.exists() else ())]
    found += [f"file {path}" for path in node.dir.glob("pty*")]
    found += [f"FIFO {path}" for path in soak.folder.rglob("*")]
    found += [f"process in {path}" for path in cgroups.named(node.token) if cgroups.members(path)]
    return found


@pytest.mark.soak
def test_soak(kind, base_rootfs):
    if not CYCLES and kind.name != "kybernate":
        pytest.skip("the short form is run on our shim by its own name only")
    node = SoakNode(kind, base_rootfs, environ=EXACT_HEAP)
    folder = node.dir / "io"
    folder.mkdir()
    try:
        soak = Soak(node, folder)
        # Buffers, tables and the like grow to their working size first.
        soak.run(max(CYCLES // 10, 40), 3600 if CYCLES else SHORT / 3)
        elder = soak.elder
        before = elder.heap(), elder.private(), elder.fds()
        soak.run(CYCLES - CYCLES // 10 if CYCLES else 10**6, 7200 if CYCLES else SHORT)
        after = elder.heap(), elder.private(), elder.fds()
        print(f"\n{kind}: {soak.done} lives, {soak.interrupted} interrupted, {soak.restarts} "
              f"restarts of containerd; heap {before[0]} -> {after[0]} bytes, private "
              f"{before[1]} -> {after[1]} KiB, descriptors {len(before[2])} -> {len(after[2])}; "
              f"seed {SEED}")
        more = collections.Counter(after[2]) - collections.Counter(before[2])
        assert not more, "descriptors"
        if kind.ours:
            assert after[0] <= before[0] + HEAP_SLACK
            assert after[1] <= before[1] + PRIVATE_SLACK
        elder.container.kill()
        elder.container.wait()
        elder.container.delete()
        soak.used.append(elder.container.id)
        try:
            until(lambda: not _leftovers(soak), 30)
        except Timeout:
            pytest.fail(f"left behind (seed {SEED}): {_leftovers(soak)}")
        assert soak.done > 0 and soak.restarts > 0
        soak.client.close()
    finally:
        node.close()
