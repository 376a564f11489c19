# SPDX-License-Identifier: Apache-2.0
"""What all benchmarks share: the registry, the two shims, private worlds for them, the samples.

A benchmark is a function in a file bench_NAME.py, registered for the rows it fills:

    @benchmark(Row("state_rps", "1/s", "State calls on one connection", more_is_better=True))
    def state(lab):
        lab.alternate(rounds=10, measure=lambda side: {"state_rps": ...})

alternate() calls measure() in turn for our shim and for containerd's own, in an order that changes
from round to round, so that what else happens on the machine hits both alike.
"""
import contextlib
import dataclasses
import os
import pathlib
import shutil
import statistics
import sys
import tempfile

REPO = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("KYB_BUILD") or REPO / "build").resolve()

os.environ.setdefault("KYB_BIN", str(BUILD / "shim/containerd-shim-kybernate-v1"))
os.environ.setdefault("KYB_IT_BUILD", str(REPO / "build-it"))
sys.path[:0] = [str(REPO / "tests/it"), str(REPO / "tests/fakes")]

# pylint: disable=wrong-import-position
from kyb import env, procs, rootfs, shims  # noqa: E402
from kyb.world import World  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table. target: what ratio we want, as text; never asserted."""
    name: str
    unit: str
    what: str
    more_is_better: bool = False
    target: str = ""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A function and the rows that it fills."""
    rows: tuple
    run: object


BENCHMARKS = []


def benchmark(*rows):
    """Registers a function of lab for these rows."""
    def register(function):
        BENCHMARKS.append(Benchmark(rows, function))
        return function
    return register


class Skip(Exception):
    """Cannot be measured here; the text says why."""


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two shims that are compared."""
    name: str     # "ours", "theirs"
    kind: object  # of kyb.shims

    @property
    def ours(self):
        return self.name == "ours"


OURS = Side("ours", shims.KINDS["kybernate"])
THEIRS = Side("theirs", shims.KINDS["runc-v2"])


class Lab:
    """One run: settings, shared resources, and the samples of every row."""

    def __init__(self, quick=False, say=print):
        self.quick = quick
        self.say = say
        self.sides = (OURS, THEIRS)
        self.samples = {}   # row name -> {"ours": [...], "theirs": [...]}
        self.skipped = {}   # row name -> why
        self.failed = False # a benchmark broke
        self._stack = contextlib.ExitStack()
        self._made = {}

    def rounds(self, full, quick):
        return quick if self.quick else full

    # --- samples ---

    def record(self, row, side, value):
        sides = self.samples.setdefault(row, {"ours": [], "theirs": []})
        sides[side if isinstance(side, str) else side.name].append(value)

    def alternate(self, rounds, measure, warm_up=1):
        """measure(side) returns {row: value}; the first warm_up rounds are thrown away."""
        for number in range(-warm_up, rounds):
            for side in self.sides if number % 2 else reversed(self.sides):
                for row, value in measure(side).items():
                    if number >= 0:
                        self.record(row, side, value)

    # --- what is shared, made when first asked for ---

    def shared(self, key, make, close):
        """The one object of this key; close(object) at the end of the run."""
        if key not in self._made:
            self._made[key] = make()
            self._stack.callback(close, self._made[key])
        return self._made[key]

    @property
    def rootfs(self):
        """The read-only lower layer of all containers."""
        def make():
            rootfs.prepare()
            return rootfs.make(tempfile.mkdtemp(prefix="kbroot.", dir=env.BASE))

        def close(folder):
            procs.unmount_below(folder)
            shutil.rmtree(folder)

        return self.shared("rootfs", make, close)

    @contextlib.contextmanager
    def world(self, side):
        """A World of this side's shim: no containerd, the Task API directly."""
        made = World(side.kind, self.rootfs)
        try:
            yield made
        finally:
            made.close()

    def program(self, name):
        """A program that meson built, by its path below the build folder."""
        path = BUILD / name
        if not path.exists():
            raise Skip(f"{path} is missing: build it first")
        return str(path)

    def close(self):
        self._stack.close()


@dataclasses.dataclass(frozen=True)
class Result:
    """A row with its figures."""
    row: Row
    ours: list
    theirs: list
    why: str = ""  # it was skipped

    @staticmethod
    def _median(values):
        return statistics.median(values) if values else None

    @property
    def ours_median(self):
        return self._median(self.ours)

    @property
    def theirs_median(self):
        return self._median(self.theirs)

    @property
    def ratio(self):
        """Ours to theirs, of the medians."""
        if self.ours_median is None or not self.theirs_median:
            return None
        return self.ours_median / self.theirs_median


def results(lab, rows):
    """Rows in the order of the table."""
    found = []
    for row in rows:
        samples = lab.samples.get(row.name, {"ours": [], "theirs": []})
        found.append(Result(row, samples["ours"], samples["theirs"],
                            lab.skipped.get(row.name, "")))
    return found
