# SPDX-License-Identifier: Apache-2.0
"""OCI images made on the spot, in the form that 'ctr images import' takes; no registry."""
import hashlib
import io
import json
import tarfile

NAME = "localhost/kyb-test:1"
PAUSE = "localhost/kyb-pause:1"


def _add(archive, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def layer_of(rootfs):
    """A file system as an uncompressed layer."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(rootfs, arcname=".")
    return buffer.getvalue()


def write(path, rootfs, names=(NAME, PAUSE), search="/bin"):
    """An archive with several names for one image, the second one for pods' pause containers; search is
    its PATH. Returns the chain id of its only layer, which is the parent for snapshots."""
    layer = layer_of(rootfs)
    chain = "sha256:" + hashlib.sha256(layer).hexdigest()
    config = json.dumps({
        "architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": ["/bin/probe"], "Cmd": ["sleep"], "Env": [f"PATH={search}"]},
        "rootfs": {"type": "layers", "diff_ids": [chain]}}).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": list(names),
                            "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(path, "w") as archive:
        _add(archive, "manifest.json", manifest)
        _add(archive, "config.json", config)
        _add(archive, "layer.tar", layer)
    return chain
