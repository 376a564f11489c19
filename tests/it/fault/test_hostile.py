# SPDX-License-Identifier: Apache-2.0
"""Input that was made to hurt: checkpoints, connections, callers."""
import contextlib
import json
import os
import pathlib
import resource
import shutil
import socket
import stat
import struct
import subprocess
import sys
import time

import grpc
import pytest

from gpu.conftest import GROUP, SEAT, group_config
from kyb import env, procs
from kyb.agent import pb
from kyb.wait import until

from . import forge

SECRET = "s3cr3t-of-the-workload"
PASSWD = "root:x:0:0"


@pytest.fixture(name="sealed")
def _sealed(gnode):
    """(gnode, folder) of a checkpoint whose container has ended."""
    container = gnode.running(environ=[f"API_TOKEN={SECRET}"])
    outcome = gnode.checkpoint(container)
    assert outcome.ok, outcome
    assert gnode.ended(container) == 137
    return gnode, gnode.agent.store / "ck"


def everything_said(gnode):
    """All that any of our programs has logged or left for people to read."""
    said = [gnode.agent.log(), gnode.node.log_tail(10**7)]
    said += [p.read_text(errors="replace") for p in gnode.node.dir.rglob("criu-*.log")]
    return "\n".join(said)


def refused(gnode):
    container = gnode.new_life("ck")
    with pytest.raises(grpc.RpcError) as caught:
        container.run()
    return caught.value.details()


# --- the advisories ---

@pytest.mark.criu
def test_ghsa_rgh6_rfwx_v388(sealed):
    """containerd followed a link in a checkpoint's place of container.log, so that the host's
    files could be read. Here a link in a checkpoint is damage, and nobody reads what it names."""
    gnode, folder = sealed
    for name in ("logs/dump.log", "spec.json", "criu/inventory.img"):
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / name).symlink_to("/etc/passwd")
        forge_as_far_as_possible(folder)
        said = refused(gnode)
        assert "IMAGE_CORRUPT" in said and PASSWD not in said
        with pytest.raises(grpc.RpcError) as caught:
            gnode.agent.call("GetCheckpoint", checkpoint_ref="ck", verify=True)
        assert "IMAGE_CORRUPT" in caught.value.details()
        outcome, _ = gnode.clone("ck")
        assert outcome.reason == "IMAGE_CORRUPT", outcome
        (folder / name).unlink()
        (folder / name).write_bytes(kept)
        (folder / name).chmod(0o600)
        forge.reseal(folder)
    assert PASSWD not in everything_said(gnode)
    second = gnode.new_life("ck")  # and as it was it is as good as ever
    second.run()
    gnode.watch(second).goes_on()


def forge_as_far_as_possible(folder):
    """Digests of what the link leads to, as a reader that follows it would see them."""
    forge.reseal(folder)


@pytest.mark.criu
def test_ghsa_cvxm_645q_p574(sealed):
    """containerd pulled and tagged an image because a checkpoint named it. Here the name of an
    image in a checkpoint is a text: nothing is pulled, nothing is tagged, no other image runs."""
    gnode, folder = sealed
    def images():
        return sorted(gnode.node.ctr("images", "ls", "-q").stdout.split())

    before = images()
    evil = "evil.example/abcde:1"
    real = json.loads((folder / "metadata.json").read_text())["container"]["image"]
    assert len(evil) == len(real)  # its place in the record stays the same
    record = folder / "container.pb"
    forged = record.read_bytes().replace(real.encode(), evil.encode())
    assert forged != record.read_bytes()
    record.write_bytes(forged)
    forge.reseal(folder, lambda m: m["container"].update(image=evil))
    outcome, second = gnode.clone("ck")
    assert outcome.ok, outcome  # the layers are named by their digest
    gnode.watch(second).goes_on()
    assert images() == before


@pytest.mark.criu
def test_ghsa_33vj_92qq_66hc(sealed):
    """containerd took annotations that inject devices from a checkpoint. Here a new container is
    what its own spec says: the checkpoint's is not looked at."""
    gnode, folder = sealed
    spec = json.loads((folder / "spec.json").read_text())
    spec.setdefault("annotations", {})["cdi.k8s.io/evil"] = "vendor.example/gpu=all"
    spec["mounts"].append({"destination": "/host", "type": "bind", "source": "/",
                           "options": ["rbind"]})
    spec["linux"].setdefault("devices", []).append(
        {"path": "/dev/mem", "type": "c", "major": 1, "minor": 1})
    spec["hooks"] = {"createRuntime": [{"path": "/bin/touch", "args": ["touch", "/run/evil"]}]}
    (folder / "spec.json").chmod(0o600)
    (folder / "spec.json").write_text(json.dumps(spec))
    forge.reseal(folder)
    second = gnode.new_life("ck")
    second.run()
    gnode.watch(second).goes_on()
    made = json.loads((gnode.node.bundle(second.id) / "config.json").read_text())
    assert "cdi.k8s.io/evil" not in made.get("annotations", {})
    assert not [m for m in made["mounts"] if m["destination"] == "/host"]
    assert not [d for d in made["linux"].get("devices", []) if d["path"] == "/dev/mem"]
    assert "hooks" not in made or "/run/evil" not in json.dumps(made["hooks"])
    root = pathlib.Path(f"/proc/{second.pid}/root")
    assert not (root / "host/etc").exists() and not (root / "dev/mem").exists()
    assert not pathlib.Path("/run/evil").exists()


# --- what else can be wrong in a checkpoint ---

def hard_link(folder):
    os.link(folder / "criu/inventory.img", folder / "criu/also.img")


def swapped(folder):
    a, b = folder / "criu/inventory.img", folder / "criu/pstree.img"
    da, db = a.read_bytes(), b.read_bytes()
    a.write_bytes(db)
    b.write_bytes(da)


def device(folder):
    (folder / "criu/pstree.img").unlink()
    os.mknod(folder / "criu/pstree.img", stat.S_IFCHR | 0o600, os.makedev(1, 5))


def fifo(folder):
    (folder / "criu/pstree.img").unlink()
    os.mkfifo(folder / "criu/pstree.img", 0o600)


def sparse(folder):
    os.truncate(folder / "criu/pages-1.img", 8 << 40)


def extra_file(folder):
    (folder / "criu/extra.img").write_bytes(b"x")
    (folder / "criu/extra.img").chmod(0o600)


def sub_folder(folder):
    (folder / "criu/more").mkdir(mode=0o700)


def criu_elsewhere(folder):
    (folder / "criu").rename(folder.parent / "moved")
    (folder / "criu").symlink_to("../moved")


def open_to_others(folder):
    (folder / "criu").chmod(0o777)


def others_file(folder):
    os.chown(folder / "criu/pstree.img", 1000, 1000)


def _manifest(change):
    def act(folder):
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest["files"])
        (folder / "manifest.json").write_text(json.dumps(manifest))
        metadata = json.loads((folder / "metadata.json").read_text())
        del metadata["sha256"]
        (folder / "metadata.json").write_text(json.dumps(metadata))
        forge_manifest(folder)
    return act


def forge_manifest(folder):
    """Only the digests above the manifest."""
    import hashlib  # pylint: disable=import-outside-toplevel
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata["manifest"]["sha256"] = hashlib.sha256(
        (folder / "manifest.json").read_bytes()).hexdigest()
    text = json.dumps(metadata, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    metadata["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "metadata.json").write_text(json.dumps(metadata))


parent_path = _manifest(lambda files: files[0].update(path="../../../../etc/passwd"))
absolute_path = _manifest(lambda files: files[0].update(path="/etc/passwd"))
twice = _manifest(lambda files: files.append(dict(files[-1])))
huge_count = _manifest(lambda files: files.extend(
    {"path": f"criu/x{n}.img", "size": 1, "mode": "0600", "sha256": "0" * 64}
    for n in range(120000)))
huge_size = _manifest(lambda files: files[0].update(size=2**52))
control = _manifest(lambda files: files[0].update(path="criu/a\u001b[2Jb"))


def deep(folder):
    (folder / "metadata.json").write_text("[" * 100000)


def no_digest(folder):
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata.pop("sha256")
    (folder / "metadata.json").write_text(json.dumps(metadata))


def other_ref(folder):
    forge.reseal(folder, lambda m: m.update(ref="another"))


WRONGS = [hard_link, swapped, device, fifo, sparse, extra_file, sub_folder, criu_elsewhere,
          open_to_others, others_file, parent_path, absolute_path, twice, huge_count, huge_size,
          control, deep, no_digest, other_ref]
NAMES = {id(f): n for n, f in list(globals().items()) if callable(f)}


@pytest.mark.criu
def test_wrong_checkpoints(sealed):
    """Each is refused, by verification and by a restore, soon, and before CRIU sees any of it."""
    gnode, folder = sealed
    keep = gnode.node.dir / "keep"
    shutil.copytree(folder, keep, symlinks=True)
    for wrong in WRONGS:
        shutil.rmtree(folder)
        shutil.rmtree(folder.parent / "moved", ignore_errors=True)
        shutil.copytree(keep, folder, symlinks=True)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o700 if path.is_dir() else 0o600)
        wrong(folder)
        begun = time.monotonic()
        try:
            with pytest.raises(grpc.RpcError) as caught:
                gnode.agent.call("GetCheckpoint", checkpoint_ref="ck", verify=True)
            assert "IMAGE_" in caught.value.details(), NAMES[id(wrong)]
            outcome, made = gnode.clone("ck")
            assert outcome.reason in ("IMAGE_CORRUPT", "IMAGE_MISSING"), (NAMES[id(wrong)], outcome)
            assert not procs.alive(outcome.last.task_pid or 2**22)
            del made
        except BaseException:
            print(f"it was {NAMES[id(wrong)]}")
            raise
        assert time.monotonic() - begun < env.seconds(10), NAMES[id(wrong)]
    assert not list(gnode.node.dir.rglob("restore.log"))
    assert PASSWD not in everything_said(gnode)
    # A list with a wrong one in it is a list, and the wrong one can be deleted.
    gnode.agent.call("ListCheckpoints")
    gnode.agent.call("DeleteCheckpoint", checkpoint_ref="ck")
    until(lambda: not [n for n in os.listdir(folder.parent) if n.startswith(("ck", ".del"))], 10)
    shutil.rmtree(folder.parent / "moved", ignore_errors=True)


@pytest.mark.criu
def test_nothing_of_the_workload_is_logged(sealed):
    """Neither its environment nor its memory: a checkpoint, a failed one, a restore, a crash."""
    gnode, folder = sealed
    second = gnode.new_life("ck", environ=[f"API_TOKEN={SECRET}"])
    second.run()
    gnode.watch(second).goes_on()
    gnode.gpu.fault(call="lock", code=801)
    assert not gnode.checkpoint(second, "ck2", leave=True).ok
    gnode.gpu.clear()
    rule = gnode.gpu.fault(call="lock", hang=True)
    call = gnode.agent.stream("CreateCheckpoint", containerd_namespace=gnode.node.namespace,
                              container_id=second.id, checkpoint_ref="ck3")
    gnode.gpu.wait_held(rule)
    journal = [p.read_text() for p in (gnode.agent.dir / "journal").iterdir()]
    assert journal and all(SECRET not in text for text in journal)
    gnode.agent.process.kill()
    gnode.agent.process.wait()
    call.cancel()
    gnode.gpu.clear()
    gnode.agent.start()
    gnode.watch(second).goes_on()
    assert SECRET not in everything_said(gnode)
    assert SECRET not in (folder / "metadata.json").read_text()
    assert not [n for n in os.listdir(gnode.agent.store) if n.startswith(".new")]


# --- callers and connections ---

@pytest.fixture(name="agent")
def _agent(gpu, start_agent, tmp_path_factory):
    folder = tmp_path_factory.mktemp("a")
    return start_agent(folder, more=group_config(gpu))


def connect(agent):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    for _ in range(1000):
        try:
            sock.connect(str(agent.socket))
            break
        except BlockingIOError:  # its backlog is full
            time.sleep(0.01)
    else:
        raise AssertionError("the agent accepts nobody")
    return sock


def rss(agent):
    return int(procs.status(agent.process.pid, "VmRSS").split()[0])


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


FRAMES = {  # RFC 9113, the sections that h2spec goes through
    "no preface": b"GET / HTTP/1.1\r\n\r\n",
    "half a preface": PREFACE[:10],
    "preface and nothing": PREFACE,
    "huge frame": PREFACE + frame(4) + frame(0, stream=1, length=(1 << 24) - 1),
    "data on stream 0": PREFACE + frame(4) + frame(0, payload=b"x"),
    "data on an idle stream": PREFACE + frame(4) + frame(0, stream=5, payload=b"x"),
    "even stream": PREFACE + frame(4) + frame(1, 5, 2, b"\x82"),
    "broken header block": PREFACE + frame(4) + frame(1, 5, 1, b"\xff\xff\xff\xff\xff\xff\xff"),
    "continuation without headers": PREFACE + frame(4) + frame(9, 4, 1, b"\x82"),
    "endless continuation": PREFACE + frame(4) + frame(1, 1, 1, b"\x82") +
                            b"".join(frame(9, 0, 1, b"\x82" * 1000) for _ in range(200)),
    "settings of wrong length": PREFACE + frame(4, payload=b"12345"),
    "settings flood": PREFACE + frame(4) * 20000,
    "ping flood": PREFACE + frame(4) + frame(6, payload=b"12345678") * 20000,
    "reset flood": PREFACE + frame(4) + b"".join(
        frame(1, 5, 2 * n + 1, b"\x82\x84\x87\x41\x01x") + frame(3, 0, 2 * n + 1, b"\0\0\0\x08")
        for n in range(5000)),
    "window overflow": PREFACE + frame(4) + frame(8, payload=b"\x7f\xff\xff\xff") * 3,
    "window of 0": PREFACE + frame(4) + frame(8, payload=b"\0\0\0\0"),
    "push promise": PREFACE + frame(4) + frame(5, 4, 1, b"\0\0\0\2\x82"),
    "unknown frame": PREFACE + frame(4) + frame(0x7f, 0xff, 1, b"?" * 100),
    "priority on itself": PREFACE + frame(4) + frame(2, 0, 3, b"\0\0\0\3\0"),
    "goaway": PREFACE + frame(4) + frame(7, payload=b"\0" * 8),
}


@pytest.mark.parametrize("name", FRAMES)
def test_wrong_frames(agent, name):
    """Answered or cut off; the next caller notices nothing."""
    for _ in range(3):
        with connect(agent) as sock:
            try:
                sock.sendall(FRAMES[name])
                sock.recv(65536)
            except (ConnectionError, socket.timeout):
                pass
    assert agent.call("Status", timeout=5).agent_version
    assert rss(agent) < 64 << 10  # KiB


def test_recorded_requests_cut_and_replayed(agent):
    """The corpus of the server's fuzz target, whole and cut anywhere, one after the other."""
    for path in sorted((env.REPO / "fuzz/corpus/grpc_server").iterdir()):
        data = path.read_bytes()
        for cut in (len(data), len(data) // 2, max(0, len(data) - 1)):
            with connect(agent) as sock:
                try:
                    sock.sendall(data[:cut] * 3)
                    sock.shutdown(socket.SHUT_WR)
                    while sock.recv(65536):
                        pass
                except (ConnectionError, socket.timeout):
                    pass
    assert agent.call("Status", timeout=5).agent_version


def test_ten_thousand_connections(agent):
    """Most are turned away; the agent stays small, and answers when there is room again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (12000, max(hard, 12000)))
    before = rss(agent)
    made = []
    try:
        for _ in range(10000):
            made.append(connect(agent))
            with contextlib.suppress(ConnectionError):
                made[-1].sendall(PREFACE[:5])
        assert rss(agent) - before < 64 << 10
        assert len(procs.fds(agent.process.pid)) < 1200
    finally:
        for sock in made:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, max(hard, 12000)))
    agent._channel = None  # pylint: disable=protected-access
    until(lambda: len(procs.fds(agent.process.pid)) < 100, 20)
    assert agent.call("Status", timeout=10).agent_version


def test_slow_loris(agent):
    """Those who connect and say a byte now and then do not keep others out, and are cut off."""
    slow = [connect(agent) for _ in range(300)]
    end = time.monotonic() + env.seconds(40)
    try:
        at = 0
        while time.monotonic() < end and any(s.fileno() >= 0 for s in slow):
            for sock in slow:
                if sock.fileno() < 0:
                    continue
                try:
                    sock.sendall(PREFACE[at % len(PREFACE):][:1])
                except OSError:
                    sock.close()
            at += 1
            assert agent.call("Status", timeout=5).agent_version
            time.sleep(1)
        assert all(s.fileno() < 0 for s in slow), "one is still connected"
    finally:
        for sock in slow:
            sock.close()


_STRANGER = """
import os, socket, sys
os.setresgid(1000, 1000, 1000)
os.setresuid(1000, 1000, 1000)
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(5)
try:
    sock.connect(sys.argv[1])
    sock.sendall(bytes.fromhex(sys.argv[2]))
    print("answered" if sock.recv(100) else "closed", end="")
except ConnectionError:
    print("closed", end="")
"""


def test_another_user(agent):
    """The socket's mode keeps him out; where somebody opened it, the agent does."""
    assert stat.S_IMODE(agent.socket.stat().st_mode) == 0o600
    agent.socket.chmod(0o666)
    for folder in agent.socket.parents:
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    log = len(agent.log())
    # Not a fork: it hangs beside gRPC's threads on some releases.
    said = subprocess.run([sys.executable, "-c", _STRANGER, str(agent.socket),
                           (PREFACE + frame(4)).hex()], capture_output=True, text=True,
                          timeout=env.seconds(20), check=True).stdout
    assert said == "closed"
    assert "uid=1000" in agent.log()[log:]


def test_foreign_pod_and_foreign_process(agent):
    """A caller that names another pod's process, or one that is no container's, gets nothing."""
    context = pb.Context(containerd_namespace="ns", task_pid=os.getpid(), bundle="/x", gpu=True)
    request = pb.CheckpointRequest(
        container_id="c", pod_uid="0b5f3c4e-0000-0000-0000-000000000000", gpu_group=GROUP,
        gpu_seat=SEAT, context=context, options=pb.CheckpointOptions(image_path="/tmp/none"))
    for change in ({}, {"pod_uid": ""}, {"gpu_seat": "seat-9"}, {"container_id": "../x"}):
        asked = pb.CheckpointRequest()
        asked.CopyFrom(request)
        for name, value in change.items():
            setattr(asked, name, value)
        replies, code = [], None
        try:
            replies = list(agent.shim_stream("Checkpoint", iter([asked])))
        except grpc.RpcError as e:
            code = e.details()
        assert code or replies[-1].status == pb.STATUS_FAILED
        assert not [r for r in replies if r.order > 1]
    assert not pathlib.Path("/tmp/none").exists()
    assert not agent.call("Status").operations
