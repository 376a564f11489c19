# SPDX-License-Identifier: Apache-2.0
"""Calls and bytes through a shim that is up: State, and a container's output."""
import json
import os
import subprocess
import time

from kyb import cgroups, env, protos
from lab import Row, benchmark

MIB = 1 << 20


def _state_rate(lab, container, depth):
    count = lab.rounds(5000, 2000)
    out = subprocess.run([lab.program("bench/shim-bench"), "state", container.address,
                          container.id, str(count), str(depth)], stdout=subprocess.PIPE,
                         check=True, timeout=env.seconds(120))
    return count / json.loads(out.stdout)["us"] * 1e6


def _null_container(lab, world):
    options = protos.pack(protos.RUNC_OPTIONS, protos.options.Runc(
        binary_name=lab.program("bench/null-runtime"), root=str(world.dir / "r")))
    container = world.container(options=options)
    container.run()
    return container


@benchmark(
    Row("state_rps", "1/s", "State calls on one connection, one after the other",
        more_is_better=True, target=">= 2"),
    Row("state_rps_deep", "1/s", "the same, with 32 in flight", more_is_better=True))
def state(lab):
    with lab.world(lab.sides[0]) as ours, lab.world(lab.sides[1]) as theirs:
        containers = {side.name: _null_container(lab, world)
                      for side, world in zip(lab.sides, (ours, theirs))}
        lab.alternate(lab.rounds(60, 3), lambda side: {
            "state_rps": _state_rate(lab, containers[side.name], 1),
            "state_rps_deep": _state_rate(lab, containers[side.name], 32)})


class _Output:
    """Two FIFOs, each read by a shim-bench; the Go shim wants stderr, too."""
    stdin = ""
    out = err = None

    def __init__(self, lab, folder):
        folder.mkdir()
        self.stdout, self.stderr = str(folder / "stdout"), str(folder / "stderr")
        self._readers = [self._read(lab, path) for path in (self.stdout, self.stderr)]

    @staticmethod
    def _read(lab, path):
        os.mkfifo(path)
        reader = subprocess.Popen(  # pylint: disable=consider-using-with
            [lab.program("bench/shim-bench"), "drain", path], stdout=subprocess.PIPE)
        reader.stdout.readline()  # it is ready
        return reader

    def result(self):
        """What came through stdout."""
        lines = [reader.communicate(timeout=env.seconds(120))[0] for reader in self._readers]
        return json.loads(lines[0])

    def close(self):
        for reader in self._readers:
            reader.kill()
            reader.wait()


def _throughput(lab, world):
    """MB/s of `dd` in a container, from the first byte to the end."""
    size = lab.rounds(512, 64)
    container = world.define(["dd", "if=/dev/zero", "bs=1M", f"count={size}"])
    container.io = _Output(lab, world.dir / f"{container.id}.io")
    try:
        container.launch()
        container.run()
        read = container.io.result()
        container.finish()
        container.shutdown()
    finally:
        container.io.close()
    if read["bytes"] != size * MIB:
        raise RuntimeError(f"{read['bytes']} of {size * MIB} bytes came through")
    return read["bytes"] / read["us"]


@benchmark(Row("stdout_throughput", "MB/s", "a container's output, through a FIFO to a fast reader",
               more_is_better=True, target=">= 1"))
def throughput(lab):
    with lab.world(lab.sides[0]) as ours, lab.world(lab.sides[1]) as theirs:
        worlds = {"ours": ours, "theirs": theirs}
        lab.alternate(lab.rounds(15, 3), lambda side: {
            "stdout_throughput": _throughput(lab, worlds[side.name])})


def _move(procs):
    """Milliseconds of a move that changes nothing: it takes the kernel's lock as any other does."""
    began = time.perf_counter()
    procs.write_text("0", encoding="ascii")
    return (time.perf_counter() - began) * 1e3


def _move_after_exec(container, procs, name):
    time.sleep(0.1)  # until the kernel has forgotten the last move
    added = container.exec(name, ["true"])
    time.sleep(0.007)  # what runc needs from Exec to its own move
    took = _move(procs)
    added.delete()
    return took


@benchmark(Row("move_after_exec", "ms", "a move into a cgroup, 7 ms after an Exec: what an OCI "
               "runtime waits there"))
def move_after_exec(lab):
    procs = cgroups.of(os.getpid(), "pids") / "cgroup.procs"
    with lab.world(lab.sides[0]) as ours, lab.world(lab.sides[1]) as theirs:
        containers = {side.name: _null_container(lab, world)
                      for side, world in zip(lab.sides, (ours, theirs))}
        names = iter(range(1 << 20))
        lab.alternate(lab.rounds(60, 6), lambda side: {"move_after_exec": _move_after_exec(
            containers[side.name], procs, f"e{next(names)}")})
