# SPDX-License-Identifier: Apache-2.0
"""Every call of the driver that a checkpoint makes, with an error of every class, for one of 1, 2 and
8 processes, with exit and without: what the client is told, and that nothing is lost.

One container takes all rows. Its OCI runtime is the real one but for the dump, which is played: the
only place where CRIU could come from writes down what the driver said of all processes when it was
asked to, and fails, or succeeds with an empty image. So also a checkpoint with exit leaves the
container for the next row. In the end CRIU itself dumps it."""
import json
import os
import shutil

import pytest

from kyb import env, ttrpc

from .test_group import all_compute, group, mine, options, reason_of

pytestmark = pytest.mark.criu

# One of each class of docs/drivers.md.
INVALID, MEMORY, NO_DEVICE, SYSTEM = 1, 2, 100, 304
STATE, NOT_READY, UNSUPPORTED, UNKNOWN = 401, 600, 801, 999
CODES = [INVALID, MEMORY, NO_DEVICE, SYSTEM, STATE, NOT_READY, UNSUPPORTED, UNKNOWN]
DUMPED = "CRIU_DUMP_FAILED"  # the driver's error has passed: it came to the dump, which fails

PLAYED = """#!/bin/sh
dump= image= before=
for a in "$@"; do
    [ "$a" = checkpoint ] && dump=1
    [ "$before" = --image-path ] && image=$a
    before=$a
done
[ -n "$dump" ] || exec {real} "$@"
{ctl} --socket {socket} processes >>{log}
case $(cat {mode}) in
fail) echo "no dump today" >&2; exit 1 ;;
succeed) echo image >"$image/inventory.img"; exit 0 ;;
esac
exec {real} "$@"
"""


class Dumps:
    """The runtime of the container: how a dump ends, and what was so when one began."""

    def __init__(self, gworld, gpu):
        self.dir = gworld.dir / "dumps"
        self.dir.mkdir()
        self.log, self.mode, self.program = (self.dir / n for n in ("log", "mode", "runtime"))
        self.program.write_text(PLAYED.format(real=env.which(env.RUNTIME), log=self.log,
                                              mode=self.mode, ctl=gpu.bin / "fakegpuctl",
                                              socket=gpu.socket), encoding="ascii")
        self.program.chmod(0o755)

    def take(self):
        """For each dump since the last call: {pid: state}."""
        lines = self.log.read_text(encoding="ascii").splitlines() if self.log.exists() else []
        self.log.write_text("", encoding="ascii")
        text = "".join(lines)
        decoder, found = json.JSONDecoder(), []
        while text:
            one, end = decoder.raw_decode(text)
            text = text[end:].lstrip()
            found.append({p["pid"]: p["state"] for p in one["processes"]})
        return found


class Table:
    """Rows, and the container they are tried on."""

    def __init__(self, gworld, gpu, n):
        self.gworld, self.gpu = gworld, gpu
        self.dumps = Dumps(gworld, gpu)
        self.container, self.workloads = group(
            gworld, n, interval=50, options=gworld.world.options(binary_name=str(self.dumps.program)))
        self.pids = set(mine(gpu, self.container))
        assert len(self.pids) == n
        self.victim = sorted(self.pids)[n // 2]
        self.images = 0

    def checkpoint(self, ends, leave):
        """(reason or None, the dumps that began)"""
        self.dumps.mode.write_text(ends, encoding="ascii")
        self.images += 1
        folder = self.gworld.image(f"image{self.images}")
        try:
            self.container.checkpoint(folder, options(exit=not leave))
            why = None
            assert (folder / "kybernate.json").exists()
        except ttrpc.Error as e:
            why = reason_of(e)
            assert not os.listdir(folder)
        shutil.rmtree(folder)
        return why, self.dumps.take()

    def row(self, call, code, leave=True, ends="fail", skip=0, count=1):
        """One error, in one process: what the client is told. Whatever it is, no dump begins before
        all is saved, the container is the same afterwards, and runs."""
        self.gpu.fault(call=call, code=code, pid=self.victim, count=count, skip=skip)
        why, dumps = self.checkpoint(ends, leave)
        (rule,) = self.gpu.ctl("faults")["faults"]
        assert rule["hits"] == count, (call, code)
        self.gpu.clear()
        for states in dumps:
            assert {states[pid] for pid in self.pids} == {"CHECKPOINTED"}, (call, code)
        assert bool(dumps) == (why in (None, DUMPED)), (call, code, why)
        assert self.container.status == "RUNNING"
        assert {p["state"] for p in mine(self.gpu, self.container).values()} == {"RUNNING"}
        assert set(mine(self.gpu, self.container)) == self.pids
        return why

    def all_compute(self):
        """Counters, and the checksum of all GPU memory."""
        all_compute(self.gpu, self.container, self.workloads)


def passes(code, unsupported="CUDA_QUERY_FAILED"):
    """Asked again, the driver answers; but for what no second try can help."""
    return {NO_DEVICE: "DRIVER_UNAVAILABLE", UNSUPPORTED: unsupported}.get(code, DUMPED)


def lock(code):
    return "LOCK_TIMEOUT" if code == NOT_READY else passes(code, "CUDA_LOCK_FAILED")


def fails(reason):
    return lambda code: "DRIVER_UNAVAILABLE" if code == NO_DEVICE else reason


# Where the error comes, and what the client is told. Of a probe the survey is one, the lock the next;
# the state is asked for before and after the lock, and after each step from there on.
THERE = [
    ({"call": "get_restore_tid", "count": 2}, passes),
    ({"call": "get_state"}, passes),
    ({"call": "lock"}, lock),
    ({"call": "get_state", "skip": 1}, passes),
    ({"call": "checkpoint"}, fails("CUDA_SAVE_FAILED")),
    ({"call": "get_state", "skip": 2}, fails("CUDA_QUERY_FAILED")),
]
# After a dump, done or failed, the way back is tried again until it succeeds.
BACK = [
    {"call": "get_state", "skip": 3},
    {"call": "restore"},
    {"call": "get_state", "skip": 4},
    {"call": "unlock"},
]


@pytest.mark.parametrize("n", [1, 2, 8])
def test_every_error_in_a_checkpoint(gworld, gpu, start_agent, n):
    start_agent(gworld.agent_dir)
    table = Table(gworld, gpu, n)
    for at, (where, expected) in enumerate(THERE):
        for i, code in enumerate(CODES):
            why = table.row(code=code, leave=(at + i) % 2 == 0, **where)
            assert why == expected(code), (where, code)
        table.all_compute()
    for where in BACK:
        for i, code in enumerate(CODES):
            if i % 2 == 0 and where["call"] in ("restore", "unlock"):
                assert table.row(code=code, leave=False, **where) == DUMPED, (where, code)
            else:
                assert table.row(code=code, ends="succeed", **where) is None, (where, code)
        table.all_compute()
    # CRIU agrees that it is whole.
    why, dumps = table.checkpoint("really", leave=True)
    assert why is None and len(dumps) == 1
    table.all_compute()
    table.checkpoint("really", leave=False)
    assert table.container.wait().exit_status == 137
