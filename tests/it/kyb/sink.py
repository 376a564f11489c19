# SPDX-License-Identifier: Apache-2.0
"""The part of containerd that a shim talks to: the ttrpc service that takes its events."""
import contextlib
import threading
import time

from . import env, protos, ttrpc
from .wait import Timeout

SERVICE = "containerd.services.events.ttrpc.v1.Events"


class Event:
    """One event as it arrived; fields of the message are attributes."""

    def __init__(self, envelope, metadata):
        self.arrived = time.time()
        self.envelope = envelope
        self.metadata = metadata
        self.topic = envelope.topic
        self.namespace = envelope.namespace
        self.name, self.message = protos.event(envelope.event)

    def __getattr__(self, field):
        return getattr(self.message, field)

    def __repr__(self):
        fields = " ".join(f"{f.name}={v}" for f, v in self.message.ListFields()
                          if f.name in ("id", "exec_id", "pid", "exit_status"))
        return f"<{self.topic} {self.message.container_id} {fields}>"


class Sink:
    """Records every event in the order of arrival.

    fail(n) answers the next n with an error; stop() and start() play a containerd that goes away
    and comes back.
    """

    def __init__(self, path):
        self._events = []
        self._failures = 0
        self.attempts = 0
        self._changed = threading.Condition()
        self._open = threading.Event()
        self._open.set()
        self._server = ttrpc.Server(path, self._handle)

    def _handle(self, service, method, payload, metadata):
        if (service, method) != (SERVICE, "Forward"):
            raise ttrpc.Error(ttrpc.UNIMPLEMENTED, f"{service}/{method}")
        self._open.wait()
        envelope = protos.events.ForwardRequest.FromString(payload).envelope
        with self._changed:
            self.attempts += 1
            self._changed.notify_all()
            if self._failures > 0:
                self._failures -= 1
                raise ttrpc.Error(ttrpc.UNAVAILABLE, "told to fail")
            self._events.append(Event(envelope, metadata))
        return b""

    def fail(self, count):
        with self._changed:
            self._failures = count

    @contextlib.contextmanager
    def silence(self):
        """While this lasts calls get no answer at all; then they get it."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    def stop(self):
        self._open.set()
        self._server.stop()

    def start(self):
        self._server.start()

    def all(self, container_id=None, topic=None):
        """Events so far, of one container and one topic if named; topic without '/tasks/'."""
        with self._changed:
            return [e for e in self._events
                    if container_id in (None, e.container_id)
                    and (topic is None or e.topic == f"/tasks/{topic}")]

    def wait(self, topic, container_id=None, timeout=10, count=1, **fields):
        """The count-th event of this topic whose message has these fields."""
        end = time.monotonic() + env.seconds(timeout)

        def hits():
            return [e for e in self._events
                    if e.topic == f"/tasks/{topic}" and container_id in (None, e.container_id)
                    and all(getattr(e, k) == v for k, v in fields.items())]

        with self._changed:
            while len(hits()) < count:
                left = end - time.monotonic()
                if left <= 0:
                    raise Timeout(f"no {topic} of {container_id} {fields} (number {count}) in "
                                  f"{self._events}")
                self._changed.wait(left)
            return hits()[count - 1]

    def wait_attempts(self, count, timeout=10):
        """Until count calls came in, failed ones included."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.attempts >= count, env.seconds(timeout)):
                raise Timeout(f"{self.attempts} of {count} calls")
