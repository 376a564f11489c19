# SPDX-License-Identifier: Apache-2.0
"""checkpoint, restore, suspend and resume on pipes: every way in which they can end."""
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

GIB = 1 << 30


@pytest.fixture
def good(agent):
    """A checkpoint as it should be."""
    times = [agent.time("PREFLIGHT", 0, 12), agent.time("LOCK", 12, 200),
             agent.time("VRAM_SAVE", 212, 8000, 40 * GIB),
             agent.time("CRIU_DUMP", 8212, 30000, 42 * GIB), agent.time("SEAL", 38212, 2000),
             agent.time("VRAM_RESTORE", 40212, 4000, 40 * GIB), agent.time("UNLOCK", 44212, 50)]

    def answer(request, _context):
        yield agent.update("PREFLIGHT")
        yield agent.update("LOCK", processes=2)
        for i in range(5):
            yield agent.update("VRAM_SAVE", done=i * 10 * GIB, total=40 * GIB)
        yield agent.update("CRIU_DUMP", done=42 * GIB)
        yield agent.update("SEAL")
        yield agent.update("UNLOCK")
        yield agent.update("NONE", "OK", checkpoint_ref=request.checkpoint_ref or "web-made-up",
                           container_id=request.container_id, timeline=times)

    agent.answers["CreateCheckpoint"] = answer
    return answer


# --- success ------------------------------------------------------------------------------------

def test_checkpoint(agent, ctl, good):
    r = ctl("checkpoint", "web", "--namespace", "ns", "--ref", "web-1", "--timeout", "1m30s")
    request, = agent.requests["CreateCheckpoint"]
    assert (request.container_id, request.containerd_namespace, request.checkpoint_ref,
            request.timeout_ms, request.exit) == ("web", "ns", "web-1", 90000, False)
    assert r.code == 0
    # One plain line a phase.
    lines = r.err.splitlines()
    assert [line.split()[0] for line in lines] == [
        "preflight", "lock", "vram_save", "criu_dump", "seal", "unlock"]
    assert lines[1].split()[1:3] == ["2", "processes"]
    assert "40.0 GiB" in lines[2]
    # The timeline, then the result.
    lines = r.out.splitlines()
    assert lines[0].split() == ["PHASE", "START", "TIME", "BYTES", "RATE"]
    assert [line.split()[0] for line in lines[1:-1]] == [
        "preflight", "lock", "vram_save", "criu_dump", "seal", "vram_restore", "unlock"]
    assert lines[3].split() == ["vram_save", "212ms", "8.0s", "40.0", "GiB", "5369", "MB/s"]
    assert lines[-1] == "Checkpoint web-1 of container web is sealed, after 44.3s; " \
        "the container runs on."


def test_checkpoint_with_exit(agent, ctl, good):
    r = ctl("checkpoint", "web", "--exit")
    request, = agent.requests["CreateCheckpoint"]
    assert request.exit and request.checkpoint_ref == "" and request.timeout_ms == 0
    assert request.containerd_namespace == ""
    assert r.code == 0 and r.out.endswith("; the container was ended.\n")
    assert "Checkpoint web-made-up of" in r.out


def test_quiet(ctl, good):
    r = ctl("checkpoint", "-q", "web")
    assert (r.code, r.out, r.err) == (0, "web-made-up\n", "")


def test_json(ctl, good):
    r = ctl("checkpoint", "web", "-o", "json")
    assert (r.code, r.err) == (0, "")
    doc = r.doc
    assert doc["status"] == "ok" and doc["checkpoint_ref"] == "web-made-up"
    assert doc["error"] is None
    assert doc["timeline"][2] == {"phase": "vram_save", "start_us": 212000, "duration_us": 8000000,
                                  "bytes": 40 * GIB, "undo": False}


def test_json_lines(ctl, good):
    docs = ctl("checkpoint", "web", "-o", "jsonl").docs
    assert [d["phase"] for d in docs] == ["preflight", "lock"] + 5 * ["vram_save"] + [
        "criu_dump", "seal", "unlock", "none"]
    assert [d["status"] for d in docs] == 10 * ["working"] + ["ok"]
    assert docs[4]["progress"]["bytes_total"] == 40 * GIB
    assert len({frozenset(d) for d in docs}) == 1  # the same keys in all of them


def test_restore(agent, ctl):
    def answer(_request, _context):
        yield agent.update("VERIFY", done=GIB, total=2 * GIB)
        yield agent.update("CREATE")
        yield agent.update("UNLOCK", "OK", container_id="web-2", task_pid=4711,
                           timeline=[agent.time("VERIFY", 0, 1500)])

    agent.answers["RestoreContainer"] = answer
    r = ctl("restore", "web-1", "--id", "web-2", "-n", "ns", "--stdout", "file:///var/log/web",
            "--stderr=/run/web.fifo", "-t", "250ms")
    request, = agent.requests["RestoreContainer"]
    assert (request.checkpoint_ref, request.container_id, request.containerd_namespace,
            request.stdout, request.stderr, request.timeout_ms) == (
                "web-1", "web-2", "ns", "file:///var/log/web", "/run/web.fifo", 250)
    assert r.code == 0
    assert r.out.endswith("Container web-2 runs (pid 4711), restored from checkpoint web-1 "
                          "in 1.5s.\n")
    assert ctl("restore", "web-1", "-q").out == "web-2\n"
    assert agent.requests["RestoreContainer"][1].container_id == ""
    assert ctl("restore", "web-1", "-o", "json").doc["task_pid"] == 4711


def test_suspend_and_resume(agent, ctl):
    def answer(_request, _context):
        yield agent.update("LOCK")
        yield agent.update("UNLOCK", "OK", timeline=[agent.time("VRAM_SAVE", 0, 1500, 2 * GIB),
                                                     agent.time("UNLOCK", 1500, 500, 2 * GIB)])

    agent.answers["SuspendContainer"] = agent.answers["ResumeContainer"] = answer
    r = ctl("suspend", "web", "-n", "ns", "-t", "90s")
    request, = agent.requests["SuspendContainer"]
    assert (request.container_id, request.containerd_namespace, request.timeout_ms) == (
        "web", "ns", 90000)
    assert r.code == 0
    assert r.out.splitlines()[-1] == "Container web is suspended, after 2.0s; 2.0 GiB of GPU " \
        "memory wait in host memory."
    r = ctl("resume", "web")
    assert (r.code, r.out.splitlines()[-1]) == (
        0, "Container web runs again, after 2.0s; 2.0 GiB of GPU memory are back.")
    assert len(agent.requests["ResumeContainer"]) == 1
    assert ctl("resume", "web", "-q").out == ""
    assert ctl("suspend", "a/b").code == 2 and ctl("resume", "").code == 2


def test_resume_that_failed(agent, ctl):
    def answer(_request, _context):
        yield agent.update("UNLOCK", "FAILED", error=agent.error("CUDA_RESTORE_FAILED",
                                                                 "VRAM_RESTORE"))

    agent.answers["ResumeContainer"] = answer
    r = ctl("resume", "web")
    assert r.code == 1
    assert "Undone: the container stays suspended." in r.err


# --- failures -----------------------------------------------------------------------------------

def failing(agent, reason, phase, status="FAILED", **more):
    def answer(_request, _context):
        yield agent.update("LOCK")
        yield agent.update("UNLOCK", status, error=agent.error(reason, phase, **more), timeline=[
            agent.time("PREFLIGHT", 0, 10), agent.time("LOCK", 10, 5000),
            agent.time("UNLOCK", 5010, 20, undo=True)])

    agent.answers["CreateCheckpoint"] = answer
    agent.answers["RestoreContainer"] = answer


def test_failed(agent, ctl):
    failing(agent, "LOCK_TIMEOUT", "LOCK", message="pid 17 runs a kernel",
            detail=["first line", "second line"], transient=True)
    r = ctl("checkpoint", "web")
    assert r.code == 7
    assert r.err.splitlines()[-5:] == [
        "kybernatectl: checkpoint failed in phase lock: LOCK_TIMEOUT: pid 17 runs a kernel",
        "    first line", "    second line",
        "hint: a kernel runs for longer than the lock time-out: raise timeouts.lock or retry",
        "Undone: the container runs on."]
    lines = [line.split() for line in r.out.splitlines()]
    assert lines[0][-1] == "NOTE"
    assert lines[2][0] == "lock" and lines[2][-1] == "failed"
    assert lines[3][0] == "unlock" and lines[3][-1] == "undo"
    r = ctl("checkpoint", "-q", "web")
    assert r.code == 7 and r.out == "" and r.err.startswith("kybernatectl: checkpoint failed")


def test_failed_as_json(agent, ctl):
    failing(agent, "CRIU_DUMP_FAILED", "CRIU_DUMP", message="CRIU: no", detail=["a", "b"])
    r = ctl("checkpoint", "web", "-o", "json")
    assert r.code == 1 and r.err.startswith("kybernatectl: checkpoint failed in phase criu_dump")
    assert r.doc["status"] == "failed"
    assert r.doc["error"] == {
        "reason": "CRIU_DUMP_FAILED", "phase": "criu_dump", "message": "CRIU: no",
        "detail": ["a", "b"], "transient": False,
        "hint": "read the CRIU lines in the message, then the log named there", "exit_status": 1}
    docs = ctl("checkpoint", "web", "-o", "jsonl").docs
    assert [d["status"] for d in docs] == ["working", "failed"]
    assert docs[1]["error"]["exit_status"] == 1 and docs[0]["error"] is None


@pytest.mark.parametrize("reason, phase, code", [
    ("CRIU_DUMP_FAILED", "CRIU_DUMP", 1), ("STORE_FULL", "SEAL", 1), ("STORE_FULL", "PREFLIGHT", 5),
    ("SEAT_MISMATCH", "PREFLIGHT", 5), ("MEM_LIMIT", "NONE", 5), ("PERMISSION", "NONE", 5),
    ("CONTAINER_MISSING", "NONE", 4), ("IMAGE_MISSING", "VERIFY", 4), ("TIMEOUT", "SEAL", 7),
    ("CUDA_SAVE_FAILED", "VRAM_SAVE", 1), ("INTERNAL", "NONE", 1),
])
def test_exit_status_of_reasons(agent, ctl, reason, phase, code):
    failing(agent, reason, phase, message="so it is")
    for verb in (["checkpoint", "web"], ["restore", "web-1"]):
        r = ctl(*verb)
        assert r.code == code, r
        assert f"{reason}: so it is" in r.err and "hint: " in r.err
        kept = "Nothing was touched." if phase == "PREFLIGHT" else "Undone: "
        assert kept in r.err


def test_a_cut_container_id(agent, ctl):
    """crictl ps prints 13 digits of 64."""
    failing(agent, "CONTAINER_MISSING", "NONE", message="no container")
    assert "hint: give the whole id" in ctl("checkpoint", "0123456789abc").err
    for other in ("0123456789abc" * 4, "0123456789xyz", "web"):
        assert "hint: check the id" in ctl("checkpoint", other).err


def test_the_phase_of_a_verdict(agent, ctl):
    """It says what failed, not that this phase began again."""
    agent.answers["CreateCheckpoint"] = lambda r, c: iter([
        agent.update("LOCK"), agent.update("UNLOCK"),
        agent.update("LOCK", "FAILED", error=agent.error("BUSY", "LOCK", "x"))])
    r = ctl("checkpoint", "web")
    assert [line.split()[0] for line in r.err.splitlines()[:3]] == [
        "lock", "unlock", "kybernatectl:"]


def test_degraded(agent, ctl):
    failing(agent, "CUDA_RESTORE_FAILED", "VRAM_RESTORE", "DEGRADED", message="out of memory")
    r = ctl("checkpoint", "web")
    assert r.code == 6
    assert "checkpoint degraded in phase vram_restore: CUDA_RESTORE_FAILED: out of memory" in r.err
    assert "nothing is lost" in r.err and "Undone" not in r.err
    assert ctl("checkpoint", "web", "-o", "json").doc["status"] == "degraded"


def test_failed_without_an_error(agent, ctl):
    agent.answers["CreateCheckpoint"] = lambda r, c: iter([agent.update("LOCK", "FAILED")])
    r = ctl("checkpoint", "web")
    assert r.code == 1 and "the agent gave no message" in r.err


@pytest.mark.parametrize("code, text, status, shown", [
    ("NOT_FOUND", "CONTAINER_MISSING: no container web", 4, "CONTAINER_MISSING: no container web"),
    ("FAILED_PRECONDITION", "MIG: GPU 0 is cut up", 5, "MIG: GPU 0 is cut up"),
    ("UNAVAILABLE", "WORKER_FAILED: it died", 1, "WORKER_FAILED: it died"),
    ("ABORTED", "BUSY", 5, "BUSY: another operation runs on this container"),
    ("PERMISSION_DENIED", "no", 5, "PERMISSION_DENIED: no"),
    ("INVALID_ARGUMENT", "MIGRATION: no", 5, "INVALID_ARGUMENT: MIGRATION: no"),
    ("UNIMPLEMENTED", "", 5, "UNIMPLEMENTED: the agent gave no message"),
    ("DEADLINE_EXCEEDED", "late", 7, "DEADLINE_EXCEEDED: late"),
    ("INTERNAL", "oops", 1, "INTERNAL: oops"),
    ("UNAVAILABLE", "going away", 3, "AGENT_UNAVAILABLE: going away"),
])
def test_status_of_the_call(agent, ctl, refuse, code, text, status, shown):
    def answer(_request, _context):
        raise refuse(code, text)

    def stream(_request, _context):
        raise refuse(code, text)
        yield  # pylint: disable=unreachable

    agent.answers.update(ListCheckpoints=answer, GetCheckpoint=answer, Status=answer, Doctor=answer,
                         DeleteCheckpoint=answer, CreateCheckpoint=stream, RestoreContainer=stream)
    for args in (["list"], ["inspect", "a"], ["delete", "a"], ["status"], ["checkpoint", "web"],
                 ["restore", "a"]):
        r = ctl(*args)
        assert r.code == status, r
        assert f"kybernatectl: {args[0]} failed: {shown}\n" in r.err
        r = ctl(*args, "-o", "json")
        assert r.code == status and shown in r.err
        error = (r.doc["checkpoints"][0] if args[0] == "delete" else r.doc)["error"]
        assert shown == f"{error['reason']}: {error['message']}"
        assert error["exit_status"] == status
    r = ctl("doctor")
    assert r.code == status and shown in r.out + r.err


def test_refused_in_the_middle(agent, ctl, refuse):
    def answer(_request, _context):
        yield agent.update("VRAM_SAVE")
        raise refuse("ABORTED", "SHIM_GONE: it left")

    agent.answers["CreateCheckpoint"] = answer
    r = ctl("checkpoint", "web")
    assert r.code == 1 and "checkpoint failed in phase vram_save: SHIM_GONE: it left" in r.err
    assert "vram_save     stopped after" in r.err


# --- malformed ----------------------------------------------------------------------------------

BAD = b"\xff" * 40


def test_malformed_update(agent, ctl):
    agent.answers["CreateCheckpoint"] = lambda r, c: iter([agent.update("LOCK"), BAD])
    r = ctl("checkpoint", "web")
    assert r.code == 1 and "the agent's answer cannot be understood" in r.err


def test_malformed_replies(agent, ctl):
    for method in ("ListCheckpoints", "GetCheckpoint", "DeleteCheckpoint", "Status", "Doctor"):
        agent.answers[method] = lambda r, c: BAD
    for args in (["list"], ["inspect", "a"], ["delete", "a"], ["status"], ["doctor"]):
        r = ctl(*args)
        assert r.code == 1 and "cannot be understood" in r.err, r
        assert "hint: compare the versions" in r.err
    agent.answers["GetCheckpoint"] = lambda r, c: b""
    assert ctl("inspect", "a").code == 1  # a reply without a checkpoint


def test_no_verdict(agent, ctl):
    agent.answers["CreateCheckpoint"] = lambda r, c: iter([agent.update("SEAL")])
    r = ctl("checkpoint", "web")
    assert r.code == 1 and "without saying how the operation went" in r.err
    agent.answers["CreateCheckpoint"] = lambda r, c: iter([])
    assert ctl("checkpoint", "web").code == 1


def test_updates_after_the_verdict(agent, ctl):
    agent.answers["CreateCheckpoint"] = lambda r, c: iter([
        agent.update("UNLOCK", "OK", checkpoint_ref="a"), agent.update("LOCK", "FAILED"), BAD])
    r = ctl("checkpoint", "-q", "web")
    assert (r.code, r.out) == (0, "a\n")


def test_a_call_that_is_not_ended(agent, ctl):
    """The verdict counts; its sender may forget to end the call."""
    def answer(_request, context):
        yield agent.update("UNLOCK", "OK", checkpoint_ref="a")
        while context.is_active():
            time.sleep(0.05)

    agent.answers["CreateCheckpoint"] = answer
    assert ctl("checkpoint", "-q", "web").out == "a\n"


def test_numbers_of_another_version(agent, ctl):
    def answer(_request, _context):
        u = agent.update("LOCK")
        u.phase, u.status = 99, 77
        yield u
        u = agent.update("LOCK", "FAILED")
        u.error.reason, u.error.phase, u.error.message = 1234, 98, "new"
        yield u

    agent.answers["CreateCheckpoint"] = answer
    r = ctl("checkpoint", "web")
    assert r.code == 1
    assert "kybernatectl: checkpoint failed in phase phase_98: REASON_1234: new\n" in r.err
    assert r.err.startswith("phase_99") and "hint" not in r.err
    assert ctl("checkpoint", "web", "-o", "jsonl").docs[0]["status"] == "status_77"


def test_absurd_numbers(agent, ctl):
    most = (1 << 64) - 1

    def answer(_request, _context):
        yield agent.update("VRAM_SAVE", done=most, total=1)
        yield agent.update("VRAM_SAVE", "OK", checkpoint_ref="a", timeline=[agent.pb.PhaseTime(
            phase=agent.pb.PHASE_SEAL, start_us=most, duration_us=most, bytes=most)])

    agent.answers["CreateCheckpoint"] = answer
    for output in ("text", "json", "jsonl"):
        assert ctl("checkpoint", "web", "-o", output).code == 0
    pb = agent.pb
    agent.answers["Status"] = lambda r, c: pb.StatusReply(store_free_bytes=most, operations=[
        pb.Operation(progress=pb.Progress(bytes_done=most, bytes_total=most, elapsed_ms=most))])
    assert ctl("status").code == 0


EVIL = "\x1b]0;owned\x07\x1b[2J\r\n\t\x7f\x9b31m\u202eabc\\ é 文 ok"


def test_escapes(agent, ctl):
    """Whatever the agent sends: conftest.py looks for control characters in every output."""
    def stream(_request, _context):
        yield agent.update("LOCK", "FAILED", checkpoint_ref=EVIL, container_id=EVIL,
                           error=agent.error("INTERNAL", "LOCK", EVIL, [EVIL, EVIL]))

    pb = agent.pb
    info = pb.CheckpointInfo(**{f.name: EVIL for f in pb.CheckpointInfo.DESCRIPTOR.fields
                                if f.type == f.TYPE_STRING})
    info.processes.append(pb.GpuProcess(name=EVIL, gpu_uuids=[EVIL, EVIL]))
    operation = pb.Operation(kind=EVIL, containerd_namespace=EVIL, container_id=EVIL, pod_uid=EVIL,
                             checkpoint_ref=EVIL, error=agent.error("BUSY", "LOCK", EVIL))
    agent.answers.update(
        CreateCheckpoint=stream, RestoreContainer=stream,
        ListCheckpoints=lambda r, c: pb.ListCheckpointsReply(checkpoints=[info]),
        GetCheckpoint=lambda r, c: pb.GetCheckpointReply(
            checkpoint=info, metadata_json='{"a": "\\u009b\\u001b"}',
            files=[pb.CheckpointFile(path=EVIL, sha256=EVIL)]),
        Status=lambda r, c: pb.StatusReply(
            agent_version=EVIL, driver_version=EVIL, store_path=EVIL, operations=[operation],
            driver_error=agent.error("BUSY", "LOCK", EVIL)),
        Doctor=lambda r, c: pb.DoctorReply(checks=[pb.DoctorCheck(name=EVIL, found=EVIL,
                                                                  advice=EVIL)]))
    for args in (["checkpoint", "a"], ["restore", "a"], ["list"], ["list", "-q"], ["status"],
                 ["inspect", "a", "--files"], ["inspect", "-q", "a"], ["doctor"], ["version"]):
        r = ctl(*args)
        assert r"\x1b]0;owned\x07" in r.out + r.err, args
        assert r"\u202eabc\ é 文 ok" in r.out + r.err, args
        if "-q" not in args:
            ctl(*args, "-o", "json")
            ctl(*args, "-o", "jsonl")
    assert ctl("checkpoint", "a", "-o", "json").doc["error"]["message"] == EVIL


def test_text_that_is_not_utf8(agent, ctl):
    pb = agent.pb
    name = b"\xff\xfe\xc0\xaf\xed\xa0\x80ok"
    plain = pb.CheckpointInfo(checkpoint_ref="PLACEHOLDER!").SerializeToString()
    raw = plain.replace(b"\x0cPLACEHOLDER!", bytes([len(name)]) + name)
    reply = b"\x0a" + bytes([len(raw)]) + raw
    agent.answers["ListCheckpoints"] = lambda r, c: reply
    assert r"\xff\xfe\xc0\xaf\xed\xa0\x80ok" in ctl("list").out
    assert ctl("list", "-o", "json").doc["checkpoints"][0]["checkpoint_ref"].endswith("�ok")


def test_long_messages(agent, ctl):
    failing(agent, "INTERNAL", "LOCK", message="x" * 3000000, detail=["y" * 100000] * 500)
    r = ctl("checkpoint", "web")
    assert r.code == 1 and len(r.err) < 200000


# --- the agent goes away ------------------------------------------------------------------------

@pytest.fixture
def mortal(modules, ctl):
    """An agent in a process of its own, with a checkpoint that never ends."""
    process = subprocess.Popen(
        [sys.executable, os.path.join(os.path.dirname(__file__), "fake_agent.py"), ctl.socket,
         str(modules[0])], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_agent_dies(ctl, mortal):
    process = ctl.start("checkpoint", "web", "-o", "jsonl")
    while b"vram_save" not in process.stdout.readline():
        pass
    mortal.kill()
    r = ctl.finish(process)
    assert r.code == 3
    assert "checkpoint failed in phase vram_save: AGENT_UNAVAILABLE: the connection to the agent " \
        "was lost" in r.err
    assert "hint: nothing is lost" in r.err
    assert r.docs[-1]["error"]["phase"] == "vram_save"
    assert ctl("list").code == 3


# --- time-outs and Ctrl-C -----------------------------------------------------------------------

def when_begun(agent, timeout=30):
    """Waits until the checkpoint has been asked for."""
    until = time.monotonic() + timeout
    while not agent.requests["CreateCheckpoint"]:
        assert time.monotonic() < until
        time.sleep(0.01)


class Undoing:
    """A checkpoint that, once its caller has left, shows up in the status a few times more."""

    def __init__(self, agent, times):
        self.agent, self.times, self.left = agent, times, threading.Event()
        agent.answers["CreateCheckpoint"] = self.checkpoint
        agent.answers["Status"] = self.status

    def checkpoint(self, _request, context):
        context.add_callback(self.left.set)
        while context.is_active():
            yield self.agent.update("VRAM_SAVE", done=GIB, total=2 * GIB)
            time.sleep(0.05)

    def status(self, _request, _context):
        pb = self.agent.pb
        self.times -= 1
        operations = [pb.Operation(container_id="web", phase=pb.PHASE_UNLOCK)]
        return pb.StatusReply(operations=operations if self.times >= 0 else [])


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted(agent, ctl, signo):
    undoing = Undoing(agent, 2)
    process = ctl.start("checkpoint", "web")
    when_begun(agent)
    time.sleep(0.3)
    process.send_signal(signo)
    r = ctl.finish(process)
    assert undoing.left.wait(10)
    assert r.code == 128 + signo
    lines = r.err.splitlines()
    assert "vram_save     interrupted after" in r.err
    assert "kybernatectl: the agent undoes the checkpoint of web; once more (Ctrl-C) leaves " \
        "without waiting for it" in lines
    assert "kybernatectl: checkpoint interrupted: CANCELED: stopped; the agent has nothing " \
        "under way for it any more" in lines
    assert "hint: watch it with: kybernatectl status" in lines
    assert len(agent.requests["Status"]) >= 5


def test_interrupted_json(agent, ctl):
    Undoing(agent, 0)
    process = ctl.start("checkpoint", "web", "-o", "json")
    when_begun(agent)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    r = ctl.finish(process)
    assert r.code == 130 and r.doc["error"]["reason"] == "CANCELED"
    assert r.doc["error"]["exit_status"] == 130


def test_interrupted_twice(agent, ctl):
    undoing = Undoing(agent, 1 << 30)
    process = ctl.start("checkpoint", "web")
    when_begun(agent)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    r = ctl.finish(process)
    assert time.monotonic() - began < 5
    assert undoing.left.wait(10)
    assert r.code == 130 and "stopped; the agent undoes it\n" in r.err


def test_interrupted_and_not_undone(agent, ctl):
    Undoing(agent, 1 << 30)
    process = ctl.start("checkpoint", "web")
    when_begun(agent)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    r = ctl.finish(process)
    assert 5 < time.monotonic() - began < 30
    assert r.code == 130 and "stopped; the agent still undoes it" in r.err


def test_interrupted_then_agent_gone(ctl, mortal):
    process = ctl.start("checkpoint", "web", "-o", "jsonl")
    while b"vram_save" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    mortal.kill()
    r = ctl.finish(process)
    assert r.code == 130 and "does not answer" in r.err


def test_interrupted_question(agent, ctl):
    begun, let_go = threading.Event(), threading.Event()

    def answer(_request, _context):
        begun.set()
        let_go.wait(30)
        return agent.pb.ListCheckpointsReply()

    agent.answers["ListCheckpoints"] = answer
    process = ctl.start("list")
    assert begun.wait(30)
    process.send_signal(signal.SIGINT)
    r = ctl.finish(process)
    let_go.set()
    assert r.code == 130 and r.err.startswith("kybernatectl: list interrupted: CANCELED: Interrupt")


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGHUP])
def test_ignored_signals(agent, ctl, signo):
    """As after nohup, or behind a shell's "&": what was ignored stays ignored."""
    sent = threading.Event()

    def answer(_request, _context):
        yield agent.update("SEAL")
        sent.wait(30)
        time.sleep(0.3)
        yield agent.update("UNLOCK", "OK", checkpoint_ref="a")

    agent.answers["CreateCheckpoint"] = answer
    process = ctl.start("checkpoint", "web", "-q",
                        through=["sh", "-c", f'trap "" {int(signo)}; exec "$@"', "sh"])
    when_begun(agent)
    process.send_signal(signo)
    sent.set()
    r = ctl.finish(process)
    assert (r.code, r.out) == (0, "a\n")


def test_a_reader_that_does_not_read(agent, ctl):
    """A full pipe holds back nobody's Ctrl-C."""
    undoing = Undoing(agent, 0)

    def flood(_request, context):
        context.add_callback(undoing.left.set)
        while context.is_active():
            yield agent.update("VRAM_SAVE", done=GIB, total=2 * GIB)

    agent.answers["CreateCheckpoint"] = flood
    process = ctl.start("checkpoint", "web", "-o", "jsonl")
    when_begun(agent)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    r = ctl.finish(process)
    assert r.code == 130 and undoing.left.wait(10)


def test_a_reader_that_leaves(agent, ctl):
    """The work goes on to its end: only the view of it is gone."""
    def answer(_request, _context):
        for _ in range(20):
            yield agent.update("VRAM_SAVE", done=GIB, total=2 * GIB)
            time.sleep(0.02)
        yield agent.update("UNLOCK", "OK", checkpoint_ref="a")

    agent.answers["CreateCheckpoint"] = answer
    process = ctl.start("checkpoint", "web")
    process.stderr.close()
    process.stderr = None
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and b"Checkpoint a of container web is sealed" in out
    process = ctl.start("checkpoint", "web", "-o", "jsonl")
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=60)
    # The last line meets SIGPIPE, or its error; never a success that nobody was told of.
    assert process.returncode in (1, -13), err


@pytest.mark.parametrize("args, seconds", [(["-t", "90s"], 690), ([], 25 * 3600)])
def test_deadline_of_ours(agent, ctl, args, seconds):
    """An agent that does not keep its own limits is not waited for without end."""
    def answer(_request, context):
        left.append(context.time_remaining())
        yield agent.update("UNLOCK", "OK")

    left = []
    agent.answers["CreateCheckpoint"] = answer
    assert ctl("checkpoint", "web", *args).code == 0
    assert seconds - 60 < left[0] <= seconds
