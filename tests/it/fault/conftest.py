# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the fault matrix, and its report."""
import collections
import pathlib
import re

import pytest

# pylint: disable=unused-import
from gpu.conftest import gnode, gpu, gworld, session_node, start_agent  # noqa: F401

HEAD = """# What has been made to fail

<!-- Made by: tests/it/run -- fault --faults full --fault-page docs/fault-matrix.md -->

A container that computes on the emulated GPU is checkpointed, restored, suspended, resumed or
stopped, and in the middle of a phase something happens to it. Survived means: the container
computes on, with the checksums of its GPU memory right in every step, or it was ended because that
was asked for and its sealed checkpoint computes on in a new container; the driver says RUNNING for
every process; no process, mount, control group, descriptor, socket, file or journal record is left;
and what containerd's client was told is true. Seconds: from the moment the fault is over (an agent
is started again, say) until that is so. Each row says how its last run ended.

What each column is: `tests/it/fault/stage.py`, and the files beside it.

"""


def pytest_addoption(parser):
    parser.addoption("--faults", choices=["some", "full"], default="some",
                     help="which rows of the fault matrix")
    parser.addoption("--fault-page", metavar="FILE",
                     help="write the matrix there; rows that were not run stay as they are")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--faults") == "full":
        return
    for item in items:
        row = item.callspec.params.get("row") if hasattr(item, "callspec") else None
        if row is not None and not row.quick or item.get_closest_marker("rare"):
            item.add_marker(pytest.mark.skip(reason="only with --faults full"))


def pytest_terminal_summary(terminalreporter, config):
    path = config.getoption("--fault-page")
    if not path:
        return
    rows = {}
    if pathlib.Path(path).exists():
        rows = known(pathlib.Path(path).read_text(encoding="utf-8"))
    for kind in ("passed", "failed"):
        for report in terminalreporter.stats.get(kind, []):
            found = dict(report.user_properties).get("row")
            if found and report.when == "call":
                what, phase, fault, seconds, outcome = found
                rows[what, phase, fault.replace("_", " ")] = kind == "passed", seconds, outcome
    if rows:
        pathlib.Path(path).write_text(HEAD + page(rows), encoding="utf-8")


TITLES = {"leave": "Checkpoint, the container runs on",
          "exit": "Checkpoint with exit", "restore": "Restore",
          "suspend": "Pause that suspends", "resume": "Resume of a suspended container",
          "stop": "SIGTERM of a pod that is checkpointed at its stop"}


def known(text):
    """The rows of a page."""
    rows, what = {}, None
    for line in text.splitlines():
        if line.startswith("## "):
            what = next(key for key, title in TITLES.items() if title == line[3:])
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if what and len(cells) == 5 and re.fullmatch(r"\d+\.\d", cells[3]):
            rows[what, cells[0], cells[1]] = cells[2] == "yes", float(cells[3]), cells[4]
    return rows


def page(rows):
    survived = sum(ok for ok, _, _ in rows.values())
    lines = [f"Rows run: {len(rows)}. Survived: {survived} ({100 * survived // len(rows)} %). "
             f"Slowest recovery: {max(s for _, s, _ in rows.values()):.1f} s.", ""]
    groups = collections.defaultdict(list)
    for (what, phase, fault), result in sorted(rows.items()):
        groups[what].append((phase, fault, result))
    for what, found in groups.items():
        lines += [f"## {TITLES[what]}", "", "| phase | what happens | survived | seconds | outcome |",
                  "| --- | --- | --- | --- | --- |"]
        lines += [f"| {phase} | {fault} | {'yes' if ok else '**no**'} | "
                  f"{seconds:.1f} | {outcome} |" for phase, fault, (ok, seconds, outcome) in found]
        lines.append("")
    return "\n".join(lines)
