# SPDX-License-Identifier: Apache-2.0
"""Rows of the matrix in which files are torn, and in which the journal's file system does not take
what is to be written down."""
import contextlib
import os
import time

import grpc
import pytest

from gpu.conftest import group_config
from gpu.test_checkpoint import options
from kyb import ttrpc
from kyb.wait import until

from . import forge
from .stage import AGENT, SHIM, Stage
from .test_store import Row, fill, label, remount, tmpfs

pytestmark = pytest.mark.criu

def rows(cases, *often):
    """All are run with --faults full, those named each time."""
    return [pytest.param(*case, marks=() if case in often else pytest.mark.rare) for case in cases]


@pytest.fixture(name="stage")
def _stage(gworld, gpu, start_agent):
    """stage(what)"""
    gworld.write_config(SHIM)
    return lambda what: Stage(gworld, gpu, start_agent(gworld.agent_dir,
                                                       more=AGENT + group_config(gpu)), what)


def nothing_left(stage):
    until(stage.settled, 30, "the agent has nothing left to do")
    until(lambda: not stage.leftovers(), 5, "nothing is left over")
    until(lambda: stage.count_fds() <= stage.agent_fds + 1, 35, "the agent has closed what it opened")


# --- checkpoints ---

# "gone" is no accident of one file, but of a copy that was cut short.
IMAGES = [(name, how) for name in ("pages-1.img", "core-1.img", "inventory.img", "kybernate.json",
                                   "kybernate-manifest.json") for how in ("cut", "changed", "gone")]


@pytest.mark.parametrize("name,how", rows([*IMAGES, ("kybernate.json", "empty")],
                                          ("pages-1.img", "changed"), ("kybernate.json", "gone")))
def test_torn_image_directory(stage, name, how, record_property):
    """What is torn is not restored, and when it is repaired it is: Create and Start of the Task API
    with an image directory."""
    stage = stage("restore")
    row = Row(record_property, "restore", "verify", f"images: {name} {how}")
    stage.prepare()
    stage.container.delete()  # its own is not begun with
    mend = forge.tear(stage.folder / name, how)
    gpu_calls = len(stage.gpu.log())
    stage.container = stage.gworld.container(options=stage.options())
    created = False
    try:
        stage.container.create(checkpoint=str(stage.folder))
        created = True
        stage.container.start()
    except ttrpc.Error as e:
        stage.error = e.message
    assert stage.reason() in ("IMAGE_CORRUPT", "IMAGE_MISSING"), stage.error
    row.told(stage.reason())
    assert not stage.fake.calls("restore")
    assert not [c for c in stage.gpu.log()[gpu_calls:] if c["call"] in ("restore", "unlock")]
    assert stage.gpu.gpu()["used"] == 0
    if created:
        stage.container.delete()
    mend()
    stage.container = stage.gworld.container(options=stage.options())
    stage.container.create(checkpoint=str(stage.folder))
    stage.container.start()
    stage.computes()
    row.survived(f"refused ({stage.reason()}); restored when repaired")
    nothing_left(stage)


CHECKPOINT = [(name, how) for name in ("metadata.json", "manifest.json", "spec.json", "container.pb",
                                       "rootfs-diff.tar.zst", "criu/pages-1.img",
                                       "criu/kybernate.json") for how in ("cut", "changed", "gone")]


@pytest.mark.parametrize("name,how", rows(CHECKPOINT, ("metadata.json", "cut")))
def test_torn_checkpoint(gnode, name, how, record_property):
    """In the store; an agent that starts with it there serves, and has the others."""
    row = Row(record_property, "restore", "verify", f"store: {name.removeprefix('criu/')} {how}")
    first = gnode.running()
    assert gnode.checkpoint(first, "sound", leave=True).ok
    outcome = gnode.checkpoint(first)
    assert outcome.ok, outcome
    assert gnode.ended(first) == 137
    gnode.agent.stop()
    mend = forge.tear(gnode.agent.store / "ck" / name, how)
    gnode.agent.start()
    calls = len(gnode.gpu.log())
    assert "sound" in gnode.agent.refs()
    container = gnode.new_life("ck")
    with pytest.raises(grpc.RpcError) as caught:
        container.run()
    reason = next((r for r in ("IMAGE_CORRUPT", "IMAGE_MISSING") if r in caught.value.details()), None)
    assert reason, caught.value.details()
    row.told(reason)
    outcome, _ = gnode.clone("ck")
    assert outcome.reason == reason, outcome
    assert not [c for c in gnode.gpu.log()[calls:] if c["call"] in ("restore", "unlock")]
    assert gnode.gpu.gpu()["used"] == 0
    second = gnode.new_life("sound")
    second.run()
    gnode.watch(second).goes_on()
    mend()
    third = gnode.new_life("ck", seat="seat-1")
    third.run()
    gnode.watch(third).goes_on()
    row.survived(f"refused ({reason}); restored when repaired")
    assert not gnode.agent.call("Status").operations
    assert sorted(gnode.agent.refs()) == ["ck", "sound"]
    assert not [n for n in os.listdir(gnode.agent.store) if n.startswith((".new", ".del"))]


# --- the journal ---

def exhaust(folder, how):
    """The file system takes nothing more. Returns what undoes it."""
    if how.endswith("ro"):
        remount(folder, "ro")
        return lambda: remount(folder, "rw")
    if "nr_inodes" not in how:
        fill(folder / "ballast.bad")
        return (folder / "ballast.bad").unlink
    made = []
    with contextlib.suppress(OSError):
        while True:
            made.append(folder / f"{len(made)}.bad")
            made[-1].touch(exist_ok=False)
    return lambda: [path.unlink(missing_ok=True) for path in made]


# The phase that is not begun, and the driver's call before it.
STEPS = [("leave", "preflight", None), ("leave", "vram_save", "lock"), ("leave", "runtime", "checkpoint"),
         ("leave", "unlock", "restore"), ("exit", "vram_save", "lock"), ("exit", "runtime", "checkpoint")]
FULL, NO_INODES, READ_ONLY = "size=64k", "size=1M,nr_inodes=20", "size=1M,ro"
JOURNALS = [(*step, how) for step in STEPS for how in (FULL, NO_INODES, READ_ONLY)]


@pytest.mark.parametrize("what,phase,call,how", rows(
    JOURNALS, (*STEPS[0], READ_ONLY), (*STEPS[1], FULL), (*STEPS[-1], NO_INODES)))
def test_journal(stage, gworld, gpu, what, phase, call, how, record_property):
    """What cannot be written down is not begun, and what was begun before is taken back."""
    row = Row(record_property, what, phase, f"journal: {label(how)}")
    with tmpfs(gworld.agent_dir / "journal", how.replace(",ro", "")) as folder:
        stage = stage(what)
        stage.prepare()
        if call is None:
            mend = exhaust(folder, how)
            stage.send()
        else:
            rule = gpu.fault(call=call, hang=True, count=1)
            stage.send()
            gpu.wait_held(rule, timeout=20)
            mend = exhaust(folder, how)
            gpu.release()
            gpu.clear()
        stage.answer()
        assert stage.reason() in ("STORE_FULL", "STORE_FAILED"), stage.error
        row.told(stage.reason())
        if call is None:
            assert gpu.log(call="lock") == []
        if phase != "unlock":
            assert not stage.fake.calls("checkpoint")
        outcome = stage.outcome()
        row.survived(outcome)
        mend()
        stage.container.checkpoint(gworld.image("after"), options())
        stage.computes()
        nothing_left(stage)
        stage.agent.stop()
