# SPDX-License-Identifier: Apache-2.0
"""A checkpoint is packed into one file by the sidecar, and unpacked; what was checkpointed goes on from
what came out."""
import json
import os
import pathlib
import pwd
import shutil
import subprocess
import tarfile

import pytest

from kyb import env
from kyb.wait import until

pytestmark = pytest.mark.criu

USER = "nobody"
# Into a file system that CRIU saves: an image directory has no changed files with it, and this program
# has its file open now and then.
PLAIN = ["probe", "count", "/dev/shm/n"]


class Sidecar:
    """kybernate-sidecar as another user, with a folder of that user's."""

    def __init__(self, folder):
        self.program = env.which("kybernate-sidecar")
        if self.program is None:
            pytest.skip("kybernate-sidecar is not in PATH (set KYB_BIN to its folder)")
        self.dir = folder
        folder.mkdir(mode=0o700)
        user = pwd.getpwnam(USER)
        os.chown(folder, user.pw_uid, user.pw_gid)
        for parent in folder.parents:  # pytest makes its folders 0700
            if parent.stat().st_mode & 0o011 == 0:
                parent.chmod(parent.stat().st_mode | 0o011)

    def run(self, *args, ok=True):
        ran = subprocess.run([self.program, "--user", USER, *map(str, args)], text=True,
                             capture_output=True, timeout=env.seconds(60), check=False)
        assert (ran.returncode == 0) == ok, ran.stderr
        return json.loads(ran.stdout) if ok else ran.stderr

    def pack(self, store, ref):
        """The file."""
        file = self.dir / f"{ref}.tar"
        about = self.run("pack", "--store", store, ref, file)
        assert about["archive_bytes"] == file.stat().st_size
        return file

    def unpack(self, file, name):
        """The folder, by now root's, who trusts it."""
        folder = self.dir / name
        self.run("unpack", file, folder)
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, 0, 0)
        return folder


@pytest.fixture
def sidecar(tmp_path):
    return Sidecar(tmp_path / "archives")


def count(container):
    try:
        return int(pathlib.Path(f"/proc/{container.pid}/root/dev/shm/n").read_text() or 0)
    except (FileNotFoundError, ValueError):
        return 0


def goes_on(container, before, args):
    """From where it was, not from the beginning."""
    seen = (lambda: count(container)) if args is PLAIN else lambda: container.workload.step
    until(seen, 20, "it is seen to count")
    first = seen()
    assert first >= before
    until(lambda: seen() > first + 2, 20, f"it counts on after {first}")
    if args is not PLAIN:
        container.workload.goes_on()


def checkpointed(gnode, args=None):
    """(Container, how far it had come), ended by its checkpoint "ck"."""
    first = gnode.container(args)
    first.run()
    first.pid = first.get().pid
    if args is PLAIN:
        until(lambda: count(first) > 5, 20, "it counts")
        before = count(first)
    else:
        before = gnode.watch(first).ready(5).step
    outcome = gnode.checkpoint(first)
    assert outcome.ok, outcome
    assert gnode.ended(first) == 137
    return first, before


@pytest.mark.parametrize("args", [None, PLAIN], ids=["gpu", "plain"])
def test_on_another_node(gnode, sidecar, args):
    """Packed; gone from the store; unpacked, and put into the store: changed files and all."""
    _, before = checkpointed(gnode, args)
    file = sidecar.pack(gnode.agent.store, "ck")
    gnode.agent.call("DeleteCheckpoint", checkpoint_ref="ck")
    folder = sidecar.unpack(file, "ck")
    shutil.copytree(folder, gnode.agent.store / ".new-ck")
    (gnode.agent.store / ".new-ck").rename(gnode.agent.store / "ck")
    second = gnode.new_life("ck", args=args)
    second.run()
    gnode.watch(second)
    goes_on(second, before, args)


@pytest.mark.parametrize("args", [None, PLAIN], ids=["gpu", "plain"])
def test_as_an_image_directory(gnode, gworld, sidecar, args):
    """Packed and unpacked; Create of the Task API is given the images."""
    _, before = checkpointed(gnode, args)
    folder = sidecar.unpack(sidecar.pack(gnode.agent.store, "ck"), "out")
    gworld.agent_dir = gnode.agent_dir
    gworld.write_config()
    container = gworld.container(args)
    container.create(checkpoint=str(folder / "criu"))
    container.start()
    goes_on(container, before, args)


def test_damage_on_the_way(gnode, sidecar):
    """One byte of the file, wherever: nothing comes out of it."""
    checkpointed(gnode)
    file = sidecar.pack(gnode.agent.store, "ck")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    said = sidecar.run("unpack", file, sidecar.dir / "out", ok=False)
    assert "IMAGE_CORRUPT" in said
    assert os.listdir(sidecar.dir) == ["ck.tar"]


def test_damage_in_the_store(gnode, sidecar):
    checkpointed(gnode)
    pages = gnode.agent.store / "ck/criu/pages-1.img"
    data = bytearray(pages.read_bytes())
    data[len(data) // 2] ^= 1
    pages.write_bytes(data)
    said = sidecar.run("pack", "--store", gnode.agent.store, "ck", sidecar.dir / "ck.tar", ok=False)
    assert "IMAGE_CORRUPT" in said
    assert os.listdir(sidecar.dir) == []


def test_others_can_read_it(gnode, sidecar):
    """It is an OCI image layout, with the names in its layer that containerd and CRI-O know."""
    first, _ = checkpointed(gnode)
    packed = sidecar.pack(gnode.agent.store, "ck")
    gnode.node.ctr("images", "import", "--base-name", "localhost/checkpoint",
                   str(packed))
    gnode.node.ctr("images", "rm", "localhost/checkpoint:ck")
    with tarfile.open(packed) as file:
        index = json.load(file.extractfile("index.json"))
        digest = index["manifests"][0]["digest"].removeprefix("sha256:")
        manifest = json.load(file.extractfile(f"blobs/sha256/{digest}"))
        name = manifest["annotations"]["org.criu.checkpoint.container.name"]
        assert name == first.id
        digest = manifest["layers"][0]["digest"].removeprefix("sha256:")
        layer = file.extractfile(f"blobs/sha256/{digest}").read()
    if shutil.which("zstd") is None:
        pytest.skip("no zstd")
    plain = subprocess.run(["zstd", "-dc"], input=layer, capture_output=True, check=True).stdout
    (sidecar.dir / "layer.tar").write_bytes(plain)
    with tarfile.open(sidecar.dir / "layer.tar") as file:
        names = file.getnames()
        config = json.load(file.extractfile("config.dump"))
        spec = json.load(file.extractfile("spec.dump"))
    assert {"checkpoint", "checkpoint/inventory.img", "rootfs-diff.tar", "dump.log", "stats-dump",
            "metadata.json", "status.dump"} <= set(names)
    assert config["id"] == first.id
    assert spec["process"]["args"][0] == "gpu-counter"
