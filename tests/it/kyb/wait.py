# SPDX-License-Identifier: Apache-2.0
"""Waiting for conditions: no test sleeps for a fixed time where it could look."""
import select
import os
import time

from . import env


class Timeout(AssertionError):
    """A condition did not come true in time; an assertion, so that pytest shows it as a failure."""


def until(predicate, timeout=10, what=None, pause=0.01):
    """Calls predicate until it returns something true, and returns that.

    timeout is in seconds of a fast machine (see env.seconds).
    """
    end = time.monotonic() + env.seconds(timeout)
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= end:
            raise Timeout(f"not within {env.seconds(timeout):g} s: "
                          f"{what or getattr(predicate, '__name__', predicate)}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)


def pid_exit(pidfd, timeout=10):
    """True when the process of pidfd has exited (or does within timeout)."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(env.seconds(timeout) * 1000))


def open_pid(pid):
    """A pidfd, or None when there is no such process."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
