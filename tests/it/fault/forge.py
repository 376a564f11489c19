# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as an attacker makes them: who can write the whole directory can make one that
verifies (docs/store.md). What restores from it must then not trust what it says."""
import hashlib
import json


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sealed(document):
    document = {k: v for k, v in document.items() if k != "sha256"}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return {**document, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def _write(path, document):
    path.chmod(0o600)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def reseal(folder, change=None):
    """Makes metadata.json and manifest.json of a checkpoint fit its files again. change(metadata)
    may change what it says."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for file in manifest["files"]:
        path = folder / file["path"]
        file["size"] = path.stat().st_size
        if "sha256" in file:
            file["sha256"] = _digest(path)
    _write(folder / "manifest.json", manifest)
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata["manifest"]["sha256"] = _digest(folder / "manifest.json")
    metadata["manifest"]["bytes"] = sum(f["size"] for f in manifest["files"])
    if change:
        change(metadata)
    _write(folder / "metadata.json", _sealed(metadata))


# --- by accident ---

def tear(path, how):
    """What a disk may do to a file. Returns a function that puts it right again."""
    data, mode = path.read_bytes(), path.stat().st_mode & 0o7777
    middle = len(data) // 2
    path.unlink()
    if how != "gone":
        path.write_bytes({"cut": data[:middle], "empty": b"", "changed":
                          data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1:]}[how])
        path.chmod(mode)

    def mend():
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
    return mend
