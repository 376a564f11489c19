# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures. Each test has a daemon of its own."""

import re

import pytest

from fakegpu import Caller, FakeGpu, wait_for


@pytest.fixture
def make_gpu():
    running = []

    def make(**options):
        running.append(FakeGpu(**options).start())
        return running[-1]

    yield make
    statuses = [g.stop() for g in running]
    # A sanitizer's finding ends the daemon with another status.
    assert statuses == [0] * len(running)


@pytest.fixture
def gpu(make_gpu):
    return make_gpu(gpus=2, memory="256M")


@pytest.fixture
def caller(gpu):
    return Caller(gpu)


class Counter:
    """A gpu-counter whose lines are read from its status file."""

    def __init__(self, gpu, *args, status=None):
        self.path = gpu.dir / (status or f"status-{len(gpu._children)}")
        self.child = gpu.spawn("gpu-counter", "--interval", "10", "--status", self.path, *args)
        self.pid = self.child.pid

    def text(self):
        return self.path.read_text() if self.path.exists() else ""

    def step(self):
        found = re.search(r"step=(\d+) counter=(\d+) .* ok$", self.text())
        return int(found[1]) if found and found[1] == found[2] else 0

    def passes(self, step=None):
        """Waits for two steps more, or those after step."""
        step = self.step() + 1 if step is None else step
        wait_for(lambda: self.step() > step or self.child.poll() is not None, 20,
                 f"a step after {step}")
        assert self.child.poll() is None, self.text()
        return self.step()

    def stands_still(self, seconds=0.3):
        step = self.step()
        with pytest.raises(TimeoutError):
            wait_for(lambda: self.step() > step, seconds)
        return step


@pytest.fixture
def counter(gpu):
    def make(*args, on=None):
        c = Counter(on or gpu, *args)
        c.passes()
        return c

    return make
