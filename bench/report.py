# SPDX-License-Identifier: Apache-2.0
"""The table and the JSON file."""
import json
import platform

from kyb import env

_HEAD = ("", "unit", "ours", "min–max", "theirs", "min–max", "ratio", "target", "n")


def _number(value):
    if value is None:
        return "–"
    if value == 0:
        return "0"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def _span(values):
    return f"{_number(min(values))}–{_number(max(values))}" if len(values) > 1 else ""


def _cells(result):
    ratio = "–" if result.ratio is None else f"{result.ratio:.3f}"
    return (result.row.name, result.row.unit, _number(result.ours_median), _span(result.ours),
            _number(result.theirs_median), _span(result.theirs), ratio, result.row.target,
            str(max(len(result.ours), len(result.theirs))))


def table(results):
    """As text; it is a table in Markdown, too."""
    measured = [r for r in results if r.ours or r.theirs]
    lines = [_HEAD] + [_cells(r) for r in measured]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEAD))]
    rule = ["-" * w for w in widths]
    text = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths)) + " |"
            for line in [lines[0], rule, *lines[1:]]]
    text += [f"{r.row.name}: not measured: {r.why or 'no samples'}"
             for r in results if not (r.ours or r.theirs)]
    return "\n".join(text)


def versions(lab):
    """What was compared, and on what."""
    def dotted(numbers):
        return ".".join(map(str, numbers))
    shim = lab.sides[0].kind.binary
    return (f"{platform.uname().release}, {_cores()} cores, cgroup {'v2' if env.cgroup_v2() else 'v1'}; "
            f"containerd {dotted(env.containerd_version())}, containerd-shim-runc-v2 "
            f"{dotted(env.oracle_version())}, {env.RUNTIME} {dotted(env.runtime_version())}; "
            f"ours: {shim}")


def _cores():
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        return sum(line.startswith("processor") for line in file)


def write(path, results):
    """[{name, unit, ours, theirs, ratio, runs, ...}]"""
    rows = [{"name": r.row.name, "unit": r.row.unit, "ours": r.ours_median,
             "theirs": r.theirs_median, "ratio": r.ratio,
             "runs": max(len(r.ours), len(r.theirs)), "target": r.row.target or None,
             "more_is_better": r.row.more_is_better,
             "samples": {"ours": r.ours, "theirs": r.theirs},
             **({"skipped": r.why} if r.why else {})} for r in results]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
