#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares our TOML reader with Python's over every file of some folders.

Both must accept a file and read the same from it, or both must refuse it. The differences that
toml.h announces are the only ones allowed: dates, strings with a NUL, integers beyond 64 bits.
Usage: test-toml-oracle.py TOML-DUMP FOLDER...
"""
import json
import pathlib
import subprocess
import sys

try:
    import tomllib
except ImportError:
    sys.exit(77)  # older than Python 3.11

ALLOWED = ("dates and times", "a NUL in a string", "does not fit into 64 bits")


def tagged(v):
    if isinstance(v, bool):
        return v
    if isinstance(v, str):
        return {"string": v}
    if isinstance(v, int):
        return {"integer": str(v)}
    if isinstance(v, float):
        return {"float": v}
    if isinstance(v, list):
        return [tagged(i) for i in v]
    if isinstance(v, dict):
        return {"table": {k: tagged(i) for k, i in v.items()}}
    return {"date": str(v)}


def floats(v):
    """Turns what toml-dump prints for floats into floats, and both sides' NaN into a name."""
    if isinstance(v, list):
        return [floats(i) for i in v]
    if not isinstance(v, dict):
        return v
    if list(v) == ["float"]:
        f = v["float"]
        f = float.fromhex(f) if isinstance(f, str) else f
        return {"float": "nan" if f != f else f}
    return {k: floats(i) for k, i in v.items()}


def main(dump, *folders):
    count = bad = 0
    for path in sorted(p for f in folders for p in pathlib.Path(f).rglob("*") if p.is_file()):
        raw = path.read_bytes()
        try:
            want = floats(tagged(tomllib.loads(raw.decode("utf-8-sig"))))
        except (ValueError, RecursionError) as e:
            want = e
        ran = subprocess.run([dump], input=raw, capture_output=True)
        got = floats(json.loads(ran.stdout)) if ran.returncode == 0 else ran.stderr.decode()
        count += 1
        if isinstance(want, Exception) and isinstance(got, str):
            continue
        if isinstance(got, str) and any(a in got for a in ALLOWED):
            continue
        if got != want:
            print(f"{path}: python: {want}\n    ours: {got}")
            bad += 1
    print(f"{count} files, {bad} differ")
    return bad != 0 or count == 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
