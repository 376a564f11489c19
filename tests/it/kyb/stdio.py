# SPDX-License-Identifier: Apache-2.0
"""The client's side of a process's stdio: FIFOs, and threads that read them."""
import errno
import hashlib
import os
import pathlib
import select
import subprocess
import threading

from . import env, rootfs
from .wait import Timeout, until


class Reader:
    """Reads a FIFO as containerd's clients do: without blocking in open, until every writer left.

    keep=False only counts and hashes, for outputs of any size. gate is cleared to stop reading
    for a while, which is what a slow client looks like.
    """

    def __init__(self, path, keep=True):
        self.path = str(path)
        self.count = 0
        self.ended = False
        self.sha = hashlib.sha256()
        self.gate = threading.Event()
        self.gate.set()
        self._keep = keep
        self._data = bytearray()
        self._changed = threading.Condition()
        self._fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._stop_r, self._stop_w = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        poller.register(self._stop_r, select.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._stop_r in ready:
                break
            self.gate.wait()
            try:
                part = os.read(self._fd, 1 << 16)
            except BlockingIOError:
                continue
            with self._changed:
                self._take(part)
                self._changed.notify_all()
            if not part:
                break

    def _take(self, part):
        if not part:
            self.ended = True
            return
        self.count += len(part)
        self.sha.update(part)
        if self._keep:
            self._data += part

    @property
    def data(self):
        with self._changed:
            return bytes(self._data)

    @property
    def text(self):
        return self.data.decode(errors="replace")

    def wait_for(self, text, timeout=10):
        """Until text (str or bytes) has been read; returns everything so far."""
        wanted = text.encode() if isinstance(text, str) else text
        with self._changed:
            if not self._changed.wait_for(lambda: wanted in self._data, env.seconds(timeout)):
                raise Timeout(f"no {wanted!r} in {bytes(self._data[-500:])!r}")
            return bytes(self._data)

    def wait_count(self, count, timeout=10):
        with self._changed:
            if not self._changed.wait_for(lambda: self.count >= count, env.seconds(timeout)):
                raise Timeout(f"{self.count} of {count} bytes")

    def wait_end(self, timeout=10):
        """Until the last writer has closed; returns everything."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.ended, env.seconds(timeout)):
                raise Timeout(f"no end of {self.path} after {self.count} bytes")
            return bytes(self._data)

    def close(self):
        """Leaves: from now on the FIFO has no reader of ours."""
        self.gate.set()
        os.write(self._stop_w, b"x")
        self._thread.join(env.seconds(5))
        for fd in (self._fd, self._stop_r, self._stop_w):
            os.close(fd)


class Stdio:
    """Three FIFOs below folder; those not wanted are empty strings, as on the wire."""

    def __init__(self, folder, stdin=False, stdout=True, stderr=True, read=True, keep=True):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        self.stdin = self._make("stdin") if stdin else ""
        self.stdout = self._make("stdout") if stdout else ""
        self.stderr = self._make("stderr") if stderr else ""
        self.out = Reader(self.stdout, keep) if stdout and read else None
        self.err = Reader(self.stderr, keep) if stderr and read else None
        self._writer = None

    reader = Reader  # for who opens the other ends later

    def _make(self, name):
        path = self.folder / name
        os.mkfifo(path, 0o700)
        return str(path)

    def open_stdin(self, timeout=10):
        """Opens the write end, waiting for the shim to hold the other."""
        def attempt():
            try:
                return os.open(self.stdin, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                return None
        if self._writer is None:
            self._writer = until(attempt, timeout, f"a reader of {self.stdin}")
            os.set_blocking(self._writer, True)
        return self._writer

    def write(self, data, timeout=10):
        fd = self.open_stdin(timeout)
        view = memoryview(data.encode() if isinstance(data, str) else data)
        while view:
            view = view[os.write(fd, view):]

    def close_stdin(self):
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None

    def close(self):
        self.close_stdin()
        for reader in (self.out, self.err):
            if reader is not None:
                reader.close()
        self.out = self.err = None


class NoStdio:
    """All empty: the shim gives the process /dev/null."""
    stdin = stdout = stderr = ""
    out = err = None

    def close(self):
        pass


class Uris:
    """Given strings, for file:// and binary:// and for wrong ones."""
    out = err = None

    def __init__(self, stdout="", stderr=None, stdin=""):
        self.stdin, self.stdout = stdin, stdout
        self.stderr = stdout if stderr is None else stderr

    def close(self):
        pass


def expected_bytes(count):
    """sha256 of what 'probe bytes COUNT' writes."""
    with subprocess.Popen([rootfs.PROBE, "bytes", str(count)], stdout=subprocess.PIPE) as probe:
        sha = hashlib.sha256()
        while part := probe.stdout.read(1 << 20):
            sha.update(part)
    assert probe.returncode == 0
    return sha.hexdigest()
