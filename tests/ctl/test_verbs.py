# SPDX-License-Identifier: Apache-2.0
"""The verbs that ask once: list, inspect, delete, status, doctor, version, help."""
import datetime
import json
import os
import subprocess
import time

import pytest

NOW = datetime.datetime.now(datetime.timezone.utc)
HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def ago(**delta):
    return (NOW - datetime.timedelta(**delta)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@pytest.fixture
def infos(agent):
    info = agent.pb.CheckpointInfo
    return [
        info(checkpoint_ref="old", container_id="web", containerd_namespace="k8s.io",
             pod_name="web-0", pod_namespace="shop", created_at=ago(days=12, hours=3),
             size_bytes=5 << 30, vram_bytes=4 << 30),
        info(checkpoint_ref="a-name-that-is-quite-long-" + "x" * 100, container_id="c" * 64,
             containerd_namespace="k8s.io", created_at=ago(minutes=3, seconds=5),
             size_bytes=1500, vram_bytes=0),
        info(checkpoint_ref="undated", container_id="db", created_at="yesterday"),
    ]


@pytest.fixture
def one(agent):
    pb = agent.pb
    return pb.GetCheckpointReply(
        checkpoint=pb.CheckpointInfo(
            checkpoint_ref="web-1", container_id="web", containerd_namespace="k8s.io",
            pod_uid="b5a1", pod_name="web-0", pod_namespace="shop", image="docker.io/library/web:1",
            created_at=ago(hours=5), size_bytes=42 << 30, vram_bytes=40 << 30,
            driver_version="580.65.06", gpu_group="g0", gpu_seat="s1", files=7, runtime="runc",
            processes=[pb.GpuProcess(pid=4711, ns_pid=12, name="python3", vram_bytes=40 << 30,
                                     gpu_uuids=["GPU-1", "GPU-2"])]),
        files=[pb.CheckpointFile(path="criu/pages-1.img", size=123456789, sha256=HASH),
               pb.CheckpointFile(path="criu/ünï-文件.img", size=1, sha256=HASH)],
        metadata_json=json.dumps({"version": 1, "ref": "web-1"}))


def rows(text):
    return [line.split("   ") for line in text.splitlines()]


# --- list ---------------------------------------------------------------------------------------

def test_list(agent, ctl, infos):
    agent.answers["ListCheckpoints"] = lambda r, c: agent.pb.ListCheckpointsReply(checkpoints=infos)
    r = ctl("list")
    lines = r.out.splitlines()
    assert (r.code, r.err) == (0, "")
    assert lines[0].split() == ["REF", "CREATED", "SIZE", "VRAM", "POD", "NAMESPACE", "CONTAINER"]
    assert [line.split()[0] for line in lines[1:]] == [infos[1].checkpoint_ref, "old", "undated"]
    assert "3m ago" in lines[1] or "4m ago" in lines[1]
    assert "12d ago" in lines[2] and "5.0 GiB" in lines[2] and "shop/web-0" in lines[2]
    assert lines[1].endswith("c" * 64)
    # Columns begin below their titles.
    assert lines[2].index("12d") == lines[0].index("CREATED")
    assert lines[2].index("5.0 GiB") + 7 == lines[0].index("SIZE") + 4


def test_list_quiet(agent, ctl, infos):
    agent.answers["ListCheckpoints"] = lambda r, c: agent.pb.ListCheckpointsReply(checkpoints=infos)
    assert ctl("list", "-q").out.split() == [infos[1].checkpoint_ref, "old", "undated"]


def test_list_json(agent, ctl, infos):
    agent.answers["ListCheckpoints"] = lambda r, c: agent.pb.ListCheckpointsReply(checkpoints=infos)
    doc = ctl("list", "-o", "json").doc
    assert list(doc) == ["checkpoints"]
    assert doc["checkpoints"][1]["size_bytes"] == 5 << 30
    assert set(doc["checkpoints"][0]) == {f.name for f in agent.pb.CheckpointInfo.DESCRIPTOR.fields}
    docs = ctl("list", "--output=jsonl").docs
    assert [d["checkpoint_ref"] for d in docs] == [i["checkpoint_ref"] for i in doc["checkpoints"]]


def test_list_of_nothing(agent, ctl):
    agent.answers["ListCheckpoints"] = lambda r, c: agent.pb.ListCheckpointsReply()
    assert ctl("list").out.split()[0] == "REF"
    assert ctl("list", "-q").out == ""
    assert ctl("list", "-o", "json").doc == {"checkpoints": []}
    assert ctl("list", "-o", "jsonl").out == ""


def test_list_of_many(agent, ctl):
    """10,000 checkpoints: more than gRPC's usual 4 MiB."""
    pb, n = agent.pb, 10000
    reply = pb.ListCheckpointsReply(checkpoints=[pb.CheckpointInfo(
        checkpoint_ref=f"ref-{i:05}", container_id="c" * 64, pod_name="p" * 100,
        pod_namespace="n" * 60, image="i" * 200, created_at=ago(seconds=i),
        processes=[pb.GpuProcess(pid=i, gpu_uuids=["GPU-" + "0" * 36])]) for i in range(n)])
    assert reply.ByteSize() > 4 << 20
    agent.answers["ListCheckpoints"] = lambda r, c: reply
    began = time.monotonic()
    r = ctl("list")
    assert time.monotonic() - began < 30
    assert [line.split()[0] for line in r.out.splitlines()[1:]] == [
        f"ref-{i:05}" for i in range(n)]
    assert len(ctl("list", "-o", "json").doc["checkpoints"]) == n


def test_list_into_a_pipe_that_is_closed(agent, ctl):
    """As `kybernatectl list | head -1`: ended by SIGPIPE, without a word."""
    pb = agent.pb
    agent.answers["ListCheckpoints"] = lambda r, c: pb.ListCheckpointsReply(
        checkpoints=[pb.CheckpointInfo(checkpoint_ref=f"ref-{i}") for i in range(20000)])
    process = ctl.start("list")
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    r = process.communicate(timeout=60)
    assert process.returncode == -13 and r[1] == b""


def test_no_room_for_the_output(agent, ctl):
    agent.answers["ListCheckpoints"] = lambda r, c: agent.pb.ListCheckpointsReply()
    with open("/dev/full", "wb") as full:
        process = subprocess.run([ctl.program, "list"], env=ctl.env(), stdout=full,
                                 stderr=subprocess.PIPE, timeout=60, check=False)
    assert process.returncode == 1
    assert b"cannot write to standard output: No space left on device" in process.stderr


# --- inspect ------------------------------------------------------------------------------------

def test_inspect(agent, ctl, one):
    agent.answers["GetCheckpoint"] = lambda r, c: one
    r = ctl("inspect", "web-1")
    assert r.code == 0
    assert agent.requests["GetCheckpoint"][0].checkpoint_ref == "web-1"
    assert not agent.requests["GetCheckpoint"][0].verify
    for text in ("web-1", "(5h ago)", "shop/web-0 (uid b5a1)", "docker.io/library/web:1",
                 "42.0 GiB in 7 files", "40.0 GiB", "580.65.06", "group g0, seat s1",
                 "python3", "4711", "GPU-1 GPU-2"):
        assert text in r.out
    assert HASH not in r.out and "Verified" not in r.out
    assert ctl("inspect", "-q", "web-1").out == "web-1\n"


def test_inspect_files(agent, ctl, one):
    agent.answers["GetCheckpoint"] = lambda r, c: one
    lines = ctl("inspect", "web-1", "--files").out.splitlines()
    assert any(line.split() == ["117.7", "MiB", HASH, "criu/pages-1.img"] for line in lines)
    assert any(line.endswith("criu/ünï-文件.img") for line in lines)


def test_inspect_json(agent, ctl, one):
    agent.answers["GetCheckpoint"] = lambda r, c: one
    doc = ctl("inspect", "web-1", "-o", "json").doc
    assert doc["metadata"] == {"version": 1, "ref": "web-1"}
    assert doc["checkpoint"]["processes"][0]["gpu_uuids"] == ["GPU-1", "GPU-2"]
    assert "files" not in doc and "metadata_json" not in doc
    doc = ctl("inspect", "web-1", "-o", "json", "--files").doc
    assert doc["files"][1] == {"path": "criu/ünï-文件.img", "size": 1, "sha256": HASH}
    one.metadata_json = "{"
    assert ctl("inspect", "web-1", "-o", "json").doc["metadata"] is None


def test_verify(agent, ctl, one):
    one.verified = True
    agent.answers["GetCheckpoint"] = lambda r, c: one
    r = ctl("inspect", "--verify", "web-1")
    assert r.code == 0 and "Verified" in r.out and "yes" in r.out
    assert agent.requests["GetCheckpoint"][0].verify
    one.verified = False
    r = ctl("inspect", "--verify", "web-1")
    assert r.code == 1 and "IMAGE_CORRUPT" in r.err
    r = ctl("inspect", "--verify", "web-1", "-o", "json")
    assert r.code == 1 and r.doc["verified"] is False


# --- delete -------------------------------------------------------------------------------------

def test_delete(agent, ctl, refuse):
    def answer(request, _context):
        if request.checkpoint_ref == "b":
            raise refuse("NOT_FOUND", "IMAGE_MISSING: there is no checkpoint \"b\"")
        return agent.pb.DeleteCheckpointReply(room_pending=request.checkpoint_ref == "d")

    agent.answers["DeleteCheckpoint"] = answer
    r = ctl("delete", "a", "b", "c")
    assert r.code == 4
    assert r.out == "Deleted a\nDeleted c\n"
    assert "kybernatectl: delete failed: IMAGE_MISSING: there is no checkpoint \"b\"\n" in r.err
    assert [q.checkpoint_ref for q in agent.requests["DeleteCheckpoint"]] == ["a", "b", "c"]
    r = ctl("delete", "-o", "json", "a", "b")
    assert r.code == 4
    assert [(c["checkpoint_ref"], c["deleted"]) for c in r.doc["checkpoints"]] == [
        ("a", True), ("b", False)]
    assert r.doc["checkpoints"][1]["error"]["reason"] == "IMAGE_MISSING"
    assert [d["deleted"] for d in ctl("delete", "-o", "jsonl", "b", "a").docs] == [False, True]
    assert ctl("delete", "a", "d").out == "Deleted a\nDeleted d; its files are still being removed\n"
    assert [d["room_pending"] for d in ctl("delete", "-o", "jsonl", "a", "d").docs] == [False, True]
    r = ctl("delete", "-q", "a")
    assert (r.code, r.out, r.err) == (0, "", "")


def test_delete_checks_all_names_first(agent, ctl):
    agent.answers["DeleteCheckpoint"] = lambda r, c: agent.pb.DeleteCheckpointReply()
    r = ctl("delete", "a", "../b")
    assert r.code == 2 and '"../b" is no name for a checkpoint' in r.err
    assert agent.requests["DeleteCheckpoint"] == []


# --- status -------------------------------------------------------------------------------------

@pytest.fixture
def busy(agent):
    pb = agent.pb
    return pb.StatusReply(
        agent_version="0.1.0", worker_pid=99, driver_ok=True, driver_version="580.65.06",
        store_path="/var/lib/kybernate/store", store_free_bytes=1 << 40,
        operations=[pb.Operation(
            kind="checkpoint", containerd_namespace="k8s.io", container_id="web",
            phase=pb.PHASE_CRIU_DUMP, status=pb.STATUS_WORKING, checkpoint_ref="web-1",
            progress=pb.Progress(bytes_done=3 << 30, bytes_total=40 << 30, elapsed_ms=12300))])


def test_status(agent, ctl, busy):
    agent.answers["Status"] = lambda r, c: busy
    r = ctl("status")
    assert r.code == 0
    for text in ("0.1.0", "pid 99", "580.65.06", "/var/lib/kybernate/store (1.0 TiB free)"):
        assert text in r.out
    row = r.out.splitlines()[-1].split()
    assert row == ["checkpoint", "web-1", "criu_dump", "working", "3.0/40.0", "GiB", "12.3s",
                   "k8s.io", "web"]
    doc = ctl("status", "-o", "json").doc
    assert doc["operations"][0]["phase"] == "criu_dump"
    assert doc["driver_error"] is None
    assert ctl("status", "-q").out == ""


def test_status_without_a_driver(agent, ctl):
    pb = agent.pb
    agent.answers["Status"] = lambda r, c: pb.StatusReply(
        agent_version="0.1.0", store_path="/s",
        driver_error=agent.error("DRIVER_UNAVAILABLE", message="libcuda.so.1: not found"))
    r = ctl("status")
    assert r.code == 0
    assert "DRIVER_UNAVAILABLE: libcuda.so.1: not found" in r.out
    assert "No operation is under way." in r.out


def test_status_degraded(agent, ctl, busy):
    busy.operations[0].status = agent.pb.STATUS_DEGRADED
    busy.operations[0].error.CopyFrom(agent.error("CUDA_RESTORE_FAILED", message="pid 7: busy"))
    agent.answers["Status"] = lambda r, c: busy
    r = ctl("status")
    assert r.code == 6 and "degraded" in r.out and "web: CUDA_RESTORE_FAILED: pid 7: busy" in r.out
    assert ctl("status", "-o", "json").code == 6


# --- doctor -------------------------------------------------------------------------------------

def test_doctor(agent, ctl):
    pb = agent.pb
    reply = pb.DoctorReply(ok=True, checks=[pb.DoctorCheck(name="driver", ok=True, found="580")])
    agent.answers["Doctor"] = lambda r, c: reply
    r = ctl("doctor")
    assert (r.code, r.out) == (0, f"ok    agent: {ctl.socket}\nok    driver: 580\n")
    assert agent.requests["Doctor"][0].container_id == ""
    reply.ok = False
    reply.checks.append(pb.DoctorCheck(name="store", reason=pb.REASON_STORE_FULL, found="1 GiB"))
    reply.checks.append(pb.DoctorCheck(name="criu", found="3.16", advice="install 3.17"))
    r = ctl("doctor", "web", "--namespace=ns")
    assert r.code == 1
    assert r.out.splitlines()[2:] == [
        "FAIL  store: STORE_FULL: 1 GiB", "      hint: delete checkpoints or enlarge the store",
        "FAIL  criu: 3.16", "      hint: install 3.17"]
    assert agent.requests["Doctor"][1].container_id == "web"
    assert agent.requests["Doctor"][1].containerd_namespace == "ns"
    assert ctl("doctor", "-q").out.startswith("FAIL  store")
    doc = ctl("doctor", "-o", "json").doc
    assert doc["ok"] is False and [c["name"] for c in doc["checks"]] == [
        "agent", "driver", "store", "criu"]


def test_doctor_without_an_agent(ctl):
    r = ctl("doctor")
    assert r.code == 3 and r.out.startswith("FAIL  agent: AGENT_UNAVAILABLE: ")
    assert "hint: start kybernate-agent" in r.out
    doc = ctl("doctor", "-o", "json").doc
    assert doc["checks"][0]["reason"] == "AGENT_UNAVAILABLE" and doc["ok"] is False


# --- version, help, usage -----------------------------------------------------------------------

def test_version(agent, ctl):
    agent.answers["Status"] = lambda r, c: agent.pb.StatusReply(agent_version="9.9")
    r = ctl("version")
    assert r.code == 0 and r.out.splitlines()[1] == "kybernate-agent  9.9"
    ours = ctl("--version").out.split()[1]
    assert ctl("version", "-o", "json").doc == {
        "client": {"version": ours}, "agent": {"version": "9.9"}, "error": None}
    assert ctl("version", "-q").out == ours + "\n"
    n = len(agent.requests["Status"])
    assert ctl("version", "--client").code == 0
    assert len(agent.requests["Status"]) == n


def test_version_without_an_agent(ctl):
    r = ctl("version")
    assert r.code == 3 and r.out.startswith("kybernatectl") and "AGENT_UNAVAILABLE" in r.err
    doc = ctl("version", "-o", "json").doc
    assert doc["agent"] is None and doc["error"]["reason"] == "AGENT_UNAVAILABLE"


@pytest.mark.parametrize("args", [["help"], ["--help"], ["-h"], ["help", "list"], ["list", "-h"],
                                  ["--help", "list"], ["checkpoint", "--help"]])
def test_help(ctl, args):
    r = ctl(*args)
    assert r.code == 0 and "Usage: kybernatectl" in r.out and r.err == ""
    assert max(map(len, r.out.splitlines())) <= 80


@pytest.mark.parametrize("args, text", [
    ([], "missing verb"),
    (["frobnicate"], '"frobnicate" is not a verb'),
    (["--frobnicate", "list"], "unrecognized option '--frobnicate'"),
    (["list", "--frobnicate"], "unrecognized option '--frobnicate'"),
    (["list", "-x"], "invalid option -- 'x'"),
    (["list", "-o"], "option requires an argument -- 'o'"),
    (["list", "-o", "yaml"], '--output: "yaml" is none of text, json and jsonl'),
    (["list", "web"], '"web" is one operand too many'),
    (["help", "frobnicate"], '"frobnicate" is not a verb'),
    (["inspect"], "missing operand: REF"),
    (["inspect", "a", "b"], '"b" is one operand too many'),
    (["inspect", "/etc/passwd"], '"/etc/passwd" is no name for a checkpoint'),
    (["delete"], "missing operand: REF..."),
    (["checkpoint"], "missing operand: CONTAINER"),
    (["checkpoint", "a/b"], '"a/b" is no container id'),
    (["checkpoint", "web", "--ref", "-x"], '--ref: "-x" is no name for a checkpoint'),
    (["checkpoint", "web", "-n", ""], '--namespace: "" is no name'),
    (["checkpoint", "web", "--timeout", "5"], '--timeout: "5" is no duration'),
    (["checkpoint", "web", "-t", "0"], '"0" is no duration'),
    (["checkpoint", "web", "-t", "25h"], '"25h" is no duration'),
    (["restore", "web-1", "--stdout", "log"], '--stdout: "log" is neither'),
    (["restore", "web-1", "--id", "."], '--id: "." is no name'),
    (["doctor", "\x1b[31m"], r'"\x1b[31m" is no container id'),
])
def test_usage(ctl, args, text):
    r = ctl(*args)
    assert r.code == 2 and r.out == ""
    assert text in r.err and r.err.startswith("kybernatectl") and "Try 'kybernatectl help" in r.err


def test_options_on_both_sides_of_the_verb(agent, ctl):
    agent.answers["ListCheckpoints"] = lambda r, c: agent.pb.ListCheckpointsReply()
    env = {k: v for k, v in ctl.env().items() if k != "KYBERNATE_AGENT_SOCKET"}
    for args in (["--socket", ctl.socket, "-o", "json", "list"],
                 ["-ojson", "list", "--socket=unix://" + ctl.socket],
                 ["list", "--sock", "unix:" + ctl.socket, "--output", "json"]):
        assert ctl(*args, env=env).doc == {"checkpoints": []}
    env["KYBERNATE_AGENT_SOCKET"] = "/nowhere"
    assert ctl("--socket", ctl.socket, "list", env=env).code == 0
    assert ctl("list", env=env).code == 3


@pytest.mark.parametrize("fd", [0, 1, 2])
def test_closed_descriptors(agent, ctl, fd):
    """None of them becomes the agent's socket."""
    agent.answers["ListCheckpoints"] = lambda r, c: agent.pb.ListCheckpointsReply()
    process = ctl.start("list", through=["sh", "-c", f'exec {fd}<&-; exec "$@"', "sh"])
    process.communicate(timeout=60)
    assert process.returncode == (1 if fd == 1 else 0)
