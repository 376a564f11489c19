# SPDX-License-Identifier: Apache-2.0
"""A node without containerd: bundles made here, and shims that are told by ttrpc what containerd
would tell them. Standard library only; see run.

The agent's store is out of reach this way, for it keeps a container's changed files with
containerd's help: checkpoints go to folders and come back by Create's checkpoint, as those of "ctr"
do, and a new container is given the old one's files as they were left.

A ttrpc frame is 10 bytes of header (length and stream big-endian, type, flags) and a protobuf
message. (ttrpc repo: PROTOCOL.md) Field numbers are those of api/containerd/{task,options,ttrpc}.proto.
"""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import threading
import time

import lab
from lab import Failed, check

_HEADER = struct.Struct(">IIBB")
_REQUEST, _RESPONSE = 1, 2
_RUNC_OPTIONS = "containerd.runc.v1.Options"
_CHECKPOINT_OPTIONS = "containerd.runc.v1.CheckpointOptions"
_TASK = "containerd.task.v2.Task"
_NOT_FOUND = 5
_STATES = ("UNKNOWN", "CREATED", "RUNNING", "STOPPED", "PAUSED", "PAUSING")
_CAPS = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"]
_PHASE = re.compile(r'msg="phase (done|undone|failed)" id=(\S+) phase=(\S+) .*?dur_(us|ms)=(\d+)'
                    r"(?: bytes=(\d+))?")
NOT_DONE = (
    "kybernatectl's checkpoint, restore, suspend and resume: the agent asks containerd for them",
    "the store (references, restore-from): it keeps changed files with containerd's help",
    "the worker's death in a phase: the phases are told to kybernatectl's callers only")


# --- messages --------------------------------------------------------------------------------

def _varint(value):
    out = bytearray()
    while value > 0x7f:
        out.append(value & 0x7f | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def encode(*fields):
    """A message of (number, value): int or bool, str, bytes; False, 0 and "" are left out."""
    out = b""
    for number, value in fields:
        if not value:
            continue
        if isinstance(value, int):
            out += _varint(number << 3) + _varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += _varint(number << 3 | 2) + _varint(len(data)) + data
    return out


def decode(data):
    """{number: last value} of a message; int or bytes."""
    at, found = 0, {}

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7f) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            found[key >> 3] = varint()
            continue
        length = {1: 8, 5: 4}.get(kind) or varint()
        found[key >> 3] = data[at:at + length]
        at += length
    return found


def _any(url, message):
    return encode((1, url), (2, message))


def _frame(stream, kind, payload):
    return _HEADER.pack(len(payload), stream, kind, 0) + payload


def _exactly(sock, n):
    data = b""
    while len(data) < n:
        part = sock.recv(n - len(data))
        if not part:
            raise ConnectionError("the connection ended")
        data += part
    return data


def _read_frame(sock):
    length, stream, kind, _ = _HEADER.unpack(_exactly(sock, _HEADER.size))
    return stream, kind, _exactly(sock, length)


class Refused(Exception):
    """A call answered with a status other than OK."""

    def __init__(self, code, message):
        super().__init__(f"code {code}: {message}")
        self.code = code


def call(address, method, *fields, patience=30, timeout=0):
    """One call on a connection of its own; the reply as decode() gives it. timeout: what the shim
    is told, in seconds; patience: when we cease to wait for it."""
    message = encode((1, _TASK), (2, method), (3, encode(*fields)), (4, int(timeout * 1e9)),
                     (5, encode((1, "containerd-namespace-ttrpc"), (2, lab.NAMESPACE))))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(patience)
        sock.connect(address.removeprefix("unix://"))
        sock.sendall(_frame(1, _REQUEST, message))
        while True:
            _, kind, payload = _read_frame(sock)
            if kind == _RESPONSE:
                break
    reply = decode(payload)
    status = decode(reply.get(1, b""))
    if status.get(1):
        raise Refused(status[1], status.get(2, b"").decode(errors="replace"))
    return decode(reply.get(2, b""))


class Sink:
    """containerd's end of the events: each is answered, and its topic kept."""

    def __init__(self, path):
        self.topics = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        with sock, contextlib.suppress(OSError):
            while True:
                stream, _, payload = _read_frame(sock)
                envelope = decode(decode(decode(payload).get(3, b"")).get(1, b""))
                self.topics.append(envelope.get(3, b"").decode(errors="replace"))
                sock.sendall(_frame(stream, _RESPONSE, b""))

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


# --- containers ------------------------------------------------------------------------------

def _spec(argv, name, annotations, env, host_net):
    """Much as "ctr run" writes it."""
    def mount(target, kind, *options, source=None):
        return {"destination": target, "type": kind, "source": source or kind,
                "options": ["nosuid", *options]}

    sys = mount("/sys", "sysfs", "noexec", "nodev", "ro")
    if host_net:  # a new sysfs may only be mounted in one's own network namespace
        sys = mount("/sys", "none", "rbind", "noexec", "nodev", "ro", source="/sys")
    spaces = ["pid", "ipc", "uts", "mount"] + ([] if host_net else ["network"])
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": list(argv), "cwd": "/",
            "env": ["PATH=/bin", *(f"{k}={v}" for k, v in env.items())],
            "capabilities": {s: _CAPS for s in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True},
        "root": {"path": "rootfs"},
        "mounts": [
            mount("/proc", "proc", "noexec", "nodev"),
            mount("/dev", "tmpfs", "strictatime", "mode=755", "size=65536k"),
            mount("/dev/pts", "devpts", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
            mount("/dev/shm", "tmpfs", "noexec", "nodev", "mode=1777", "size=65536k"),
            mount("/dev/mqueue", "mqueue", "noexec", "nodev"), sys,
            mount("/run", "tmpfs", "strictatime", "mode=755", "size=65536k")],
        "annotations": annotations,
        "linux": {"cgroupsPath": f"/{lab.NAMESPACE}/{name}", "devices": [],
                  "resources": {"devices": [{"allow": False, "access": "rwm"}]},
                  "namespaces": [{"type": s} for s in spaces]},
    }


def _add_device(spec, path):
    about = os.stat(path)
    numbers = {"type": "c", "major": os.major(about.st_rdev), "minor": os.minor(about.st_rdev)}
    spec["linux"]["devices"].append({"path": path, "fileMode": 0o666, "uid": 0, "gid": 0, **numbers})
    spec["linux"]["resources"]["devices"].append({"allow": True, "access": "rwm", **numbers})


class Done:
    """What came of an operation, as lab.Run tells it of a program."""

    def __init__(self, seconds, error=None):
        self.seconds, self.err, self.out = seconds, str(error or ""), ""
        self.status = "refused" if error else 0

    @property
    def ok(self):
        return self.status == 0

    def must(self):
        check(self.ok, self.err)
        return self


def _timed(function, *args, **how):
    begin = time.monotonic()
    try:
        function(*args, **how)
        return Done(time.monotonic() - begin)
    except (Refused, OSError) as e:
        return Done(time.monotonic() - begin, e)


class Container(lab.Container):
    """A bundle and its shim."""

    def __init__(self, node, name):
        super().__init__(node, name)
        self.bundle = node.work / "bundles" / name
        self.address = ""

    def call(self, method, *fields, patience=30, timeout=0):
        """Bounded by the stage's time, as all else."""
        return call(self.address, method, (1, self.name), *fields, timeout=timeout,
                    patience=self.node.deadline.left(patience))

    def launch(self, spec, root):
        """The bundle, and the shim's program as containerd runs it."""
        node = self.node
        self.bundle.mkdir(parents=True)
        lab.Run(["cp", "-a", root, self.bundle / "rootfs"], node.deadline.left(60)).must()
        (self.bundle / "config.json").write_text(json.dumps(spec))
        (self.bundle / "log").symlink_to(node.logs / f"{self.name}-shim.log")
        (node.logs / f"{self.name}-shim.log").touch()
        work = node.work / "work" / self.name
        work.mkdir(parents=True)
        (self.bundle / "work").symlink_to(work)
        done = lab.Run(
            [lab.BIN / "containerd-shim-kybernate-v1", "-namespace", lab.NAMESPACE, "-address",
             node.run / "c.sock", "-publish-binary", lab.BIN / "containerd", "-id", self.name,
             "-debug", "start"], node.deadline.left(30), cwd=self.bundle,
            TTRPC_ADDRESS=str(node.run / "c.sock.ttrpc"), MAX_SHIM_VERSION="2",
            GRPC_ADDRESS=str(node.run / "c.sock"), NAMESPACE=lab.NAMESPACE,
            KYBERNATE_SHIM_CONFIG=str(node.work / "shim.toml")).must()
        text = done.out.strip()
        self.address = json.loads(text)["address"] if text.startswith("{") else text
        check(self.address.startswith("unix://"), f"start answers {text!r}")

    def run(self, images=None):
        """Create and Start; with images, from that checkpoint."""
        log = f"file://{self.node.logs}/{self.name}.log"
        runc = encode((7, str(self.node.run / "runc")))
        self.call("Create", (2, str(self.bundle)), (6, log), (7, log),
                  (8, str(images) if images else ""), (10, _any(_RUNC_OPTIONS, runc)), patience=300)
        self.call("Start", patience=300)

    @property
    def _state(self):
        """(status, pid), or None."""
        try:
            state = self.call("State")
        except (OSError, Refused):
            return None
        return _STATES[state.get(4, 0)], state.get(3, 0)

    @property
    def task(self):
        state = self._state
        return state and state[0]

    @property
    def pid(self):
        state = self._state
        if state and state[0] in ("RUNNING", "PAUSED"):
            return state[1]
        raise Failed(f"{self.name} does not run: {self.log()[-1000:]}")

    def gone(self, seconds=60):
        self.node.deadline.until(lambda: self.task in ("STOPPED", None), seconds,
                                 f"{self.name} ends")

    def pause(self):
        return _timed(self.call, "Pause", patience=120).must()

    def resume(self):
        return _timed(self.call, "Resume", patience=120).must()

    def delete(self):
        """Returns whether it went as it must: in a moment."""
        if self.task is None:
            return True
        try:
            if self.task in ("RUNNING", "PAUSED", "PAUSING"):
                self.call("Kill", (3, int(signal.SIGKILL)), (4, True), patience=10)
                self.gone(15)
            self.call("Delete", patience=10)
            went = True
        except (Failed, OSError, Refused):
            went = False
        with contextlib.suppress(OSError, Refused):
            self.call("Shutdown", patience=5)
        return went


# --- the node --------------------------------------------------------------------------------

class Node(lab.Node):
    """The agent and shims, and nobody between them and us."""

    prefix = "without containerd: "
    pausing = "the task's Pause and Resume"
    has_containerd = False

    def __init__(self, *args):
        super().__init__(*args)
        self.containers = {}
        self.saved = {}  # reference: the spec of the container it was made of
        self.sink = None

    def start_containerd(self):
        self.write_shim_config()
        self.sink = Sink(self.run / "c.sock.ttrpc")

    def find_snapshotter(self):
        return "plain copies"

    def get(self, name):
        return self.containers.get(name) or Container(self, name)

    def images(self, ref):
        return self.work / "images" / ref

    def container(self, name, argv, gpu=True, annotations=None, run=True, seat=lab.SEAT,
                  libraries=None, env=None, group=lab.GROUP, devices=None):
        if not run:
            return self.get(name)
        notes, environ = dict(annotations or {}), dict(env or {})
        if gpu:
            notes.update({"kybernate.io/gpu-group": group, "kybernate.io/gpu-seat": seat})
            environ.update(KYB_GPU_GROUP=group, KYB_GPU_SEAT=lab.SEAT)
        spec = _spec(argv, name, notes, environ, self.host_net)
        if gpu:
            for device in devices or self.driver.devices:
                _add_device(spec, device)
            binds = libraries or [(path, f"{lab.LIBRARIES}/{os.path.basename(path)}")
                                  for _, path in self.driver.libraries]
            spec["mounts"] += [{"destination": str(target), "type": "bind", "source": str(source),
                                "options": ["rbind", "ro", "nosuid", "nodev"]}
                               for source, target in binds]
            spec["mounts"] += [{"destination": target, "type": "bind", "source": source,
                                "options": ["rbind", "rw"]} for source, target in self.mounts]
        return self._run(name, spec, self._root())

    def _root(self):
        """The kit's, with the links that ldconfig would make."""
        root = self.work / "rootfs"
        if not root.exists():
            lab.Run(["cp", "-a", lab.PREFIX / "rootfs", root], self.deadline.left(60)).must()
            for soname, real in self.driver.libraries:
                if os.path.basename(real) != soname:
                    (root / lab.LIBRARIES.lstrip("/") / soname).symlink_to(os.path.basename(real))
        return root

    def _run(self, name, spec, root, images=None):
        self.containers[name] = one = Container(self, name)
        one.launch(spec, root)
        one.run(images)
        return one

    # --- operations, under the names that kybernatectl has for them ---

    def operation(self, verb, *args, timeout=300):
        """("last update", Done), as lab.Node.operation(): the phases are the agent's log's."""
        log = self.logs / "agent.log"
        begin = log.stat().st_size
        try:
            done = getattr(self, f"_{verb}")(*args, timeout=timeout)
        except Failed as e:
            done = Done(0, e)
        text = log.read_bytes()[begin:].decode(errors="replace")
        timeline = [{"phase": phase, "duration_us": int(n) * (1 if unit == "us" else 1000),
                     "undo": how == "undone", "bytes": int(size or 0)}
                    for how, _, phase, unit, n, size in _PHASE.findall(text) if how != "failed"]
        return {"status": "ok" if done.ok else "failed", "error": done.err,
                "timeline": timeline}, done

    def _checkpoint(self, name, *args, timeout):
        options = dict(zip(args, args[1:]))
        ref, leave = options["--ref"], "--exit" not in args
        images, one = self.images(ref), self.get(name)
        images.mkdir(parents=True, mode=0o700)
        logs = self.work / "criu" / ref
        logs.mkdir(parents=True)
        told = float(options.get("-t", "0s").rstrip("s"))
        done = _timed(one.call, "Checkpoint", (2, str(images)), (3, _any(
            _CHECKPOINT_OPTIONS, encode((1, not leave), (9, str(logs))))),
            patience=timeout, timeout=told)
        if done.ok and not leave:
            one.gone()
            lab.Run(["cp", "-a", one.bundle / "rootfs", f"{images}.root"],
                    self.deadline.left(60)).must()
        self.saved[ref] = json.loads((one.bundle / "config.json").read_text())
        return done

    def _restore(self, ref, *args, timeout):
        del timeout  # Create and Start have their own
        name = dict(zip(args, args[1:]))["--id"]
        spec = json.loads(json.dumps(self.saved[ref]))
        spec["linux"]["cgroupsPath"] = f"/{lab.NAMESPACE}/{name}"
        self.containers[name] = one = Container(self, name)
        one.launch(spec, pathlib.Path(f"{self.images(ref)}.root"))
        done = _timed(one.run, self.images(ref))
        if not done.ok:  # as containerd does; the name is free again
            one.delete()
            shutil.rmtree(one.bundle)
            shutil.rmtree(self.work / "work" / name)
        return done

    def _suspend(self, name, timeout):
        return _timed(self.get(name).call, "Pause", patience=timeout)

    def _resume(self, name, timeout):
        return _timed(self.get(name).call, "Resume", patience=timeout)

    def inspect(self, ref):
        return json.loads((self.images(ref) / "kybernate.json").read_text())

    def forget(self, ref):
        shutil.rmtree(self.images(ref), ignore_errors=True)
        shutil.rmtree(f"{self.images(ref)}.root", ignore_errors=True)

    # --- the end ---

    def log_folders(self):
        return [self.run, self.work / "criu", self.work / "work"]

    def end_containers(self):
        for one in self.containers.values():
            with contextlib.suppress(Failed):
                one.delete()
        if self.sink:
            self.sink.close()
        for name in ("bundles", "images", "work", "rootfs"):
            shutil.rmtree(self.work / name, ignore_errors=True)
