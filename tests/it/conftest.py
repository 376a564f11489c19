# SPDX-License-Identifier: Apache-2.0
"""Fixtures and rules of all integration tests; see README.md."""
import json
import os
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(__file__))

# pylint: disable=wrong-import-position
from conformance import oracle  # noqa: E402
from kyb import env, procs, rootfs, shims  # noqa: E402
from kyb.wait import Timeout, until  # noqa: E402
from kyb.world import World  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--shim", action="append", metavar="NAME", choices=list(shims.KINDS),
                     help=f"shim to test, may be repeated: {', '.join(shims.KINDS)} (all there are)")
    parser.addoption("--summary", metavar="FILE", help="write counts and reasons there, as JSON")


def _kinds(config):
    return [shims.KINDS[name] for name in config.getoption("--shim") or shims.KINDS]


def pytest_report_header(config):
    lines = [env.describe()]
    for kind in _kinds(config):
        lines.append(f"shim {kind}: {kind.why_missing or kind.binary}")
    return lines


def pytest_generate_tests(metafunc):
    """Runs each test once per shim. Without a containerd our two deployments are the same."""
    if "kind" not in metafunc.fixturenames:
        return
    kinds = _kinds(metafunc.config)
    if metafunc.function.__name__ != "test_shim_is_there":  # that one tells who is missing
        kinds = [kind for kind in kinds if not kind.why_missing]
        if "node" not in metafunc.fixturenames:
            kinds = [kind for kind in kinds if not kind.by_path]
    metafunc.parametrize("kind", kinds, ids=str, scope="session")


def _here():
    """Which of the machines that oracle.py names this is."""
    told = {"runc": (1, 2), "crun": (1, 21)}[env.RUNTIME]  # from then on CRIU is told the cgroup
    old = env.cgroup_v2() and env.runtime_version() < told
    return {place for place, here in ((oracle.V2_OLD_RUNTIME, old),
                                      (oracle.CRUN, env.RUNTIME == "crun")) if here}


def _kind(item):
    return item.callspec.params.get("kind") if hasattr(item, "callspec") else None


def _drop_gpus_of_others(config, items):
    """containerd's own shim knows no GPU: those tests are not asked of it at all."""
    other = [item for item in items if _kind(item) is not None and not _kind(item).ours
             and "gpu" in getattr(item, "fixturenames", ())]
    if other:
        dropped = set(other)
        items[:] = [item for item in items if item not in dropped]
        config.hook.pytest_deselected(items=other)


@pytest.hookimpl(tryfirst=True)  # xdist looks at the groups in the same hook
def pytest_collection_modifyitems(config, items):
    _drop_gpus_of_others(config, items)
    for item in items:
        kind = _kind(item)
        if "node" in getattr(item, "fixturenames", ()):
            # One containerd per shim and file is enough: these stay on one worker.
            item.add_marker(pytest.mark.xdist_group(f"{item.module.__name__}-{kind}"))
        if item.get_closest_marker("criu") and env.why_no_criu():
            item.add_marker(pytest.mark.skip(reason=env.why_no_criu()))
        if kind is None or kind.ours:
            continue
        ours = item.get_closest_marker("only_ours")
        if ours:
            item.add_marker(pytest.mark.skip(reason=f"only ours: {ours.args[0]}"))
        difference = oracle.difference(item.name, env.oracle_version(), _here())
        if difference:
            item.add_marker(pytest.mark.xfail(reason=f"oracle: {difference.why}",
                                              strict=difference.always))
    files = {item.path for item in items}
    oracle.check_names({item.originalname for item in items},
                       complete=files.issuperset(env.HERE.glob("conformance/test_*.py")))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    setattr(item, f"report_{report.when}", report)
    world = getattr(item, "world", None)
    if report.failed and world is not None and report.when == "call":
        for container in world.containers:
            if (container.bundle / "log").exists():
                report.sections.append((f"log of {container.id}", container.log()[-1500:]))
            log = container.bundle / "log.json"
            if log.exists():
                report.sections.append((f"log.json of {container.id}", log.read_text()[-2000:]))
        report.sections.append(("events", "\n".join(map(repr, world.sink.all()))))
    containerd = getattr(item, "containerd", None)
    if report.failed and containerd is not None:
        report.sections.append(("containerd's log", containerd.log_tail()))


@pytest.fixture(scope="session")
def base_rootfs():
    """The read-only lower layer of every container."""
    rootfs.prepare()
    folder = tempfile.mkdtemp(prefix="ktroot.", dir=env.BASE)
    yield rootfs.make(folder)
    procs.unmount_below(folder)
    shutil.rmtree(folder)


@pytest.fixture
def world(kind, base_rootfs, request):  # pylint: disable=redefined-outer-name
    """A World (see kyb/world.py). When the test passed, everything it made is ended politely and
    nothing may be left over: every test is a leak test."""
    made = World(kind, base_rootfs)
    request.node.world = made
    if not kind.ours:
        made.forgives = lambda leftover: oracle.forgives(leftover, env.oracle_version())
    try:
        yield made
        report = getattr(request.node, "report_call", None)
        if report is not None and report.passed and not request.node.get_closest_marker("mess"):
            made.finish()
    finally:
        made.close()


@pytest.fixture(scope="session")
def session_node(kind, base_rootfs):  # pylint: disable=redefined-outer-name
    """One containerd for all tests of a worker and a shim."""
    from kyb.node import Node  # pylint: disable=import-outside-toplevel
    made = Node(kind, base_rootfs, cri=True)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def node(session_node, request):  # pylint: disable=redefined-outer-name
    """A running containerd with nothing in it; and nothing may be left in it when the test has
    passed."""
    request.node.containerd = session_node
    yield session_node
    if session_node.process.poll() is not None:  # the test stopped it, and failed
        session_node.start()
    report = getattr(request.node, "report_call", None)
    tidy = report is not None and report.passed and not request.node.get_closest_marker("mess")

    def leftovers():
        return [item for item in session_node.leftovers()
                if session_node.kind.ours or not oracle.forgives_node(item)]

    try:
        until(lambda: not leftovers(), 10 if tidy else 1)
    except Timeout:
        left = leftovers()
        session_node.sweep()  # the next test is not to blame
        if tidy:
            raise AssertionError(f"left behind: {left}") from None


@pytest.fixture
def client(node):  # pylint: disable=redefined-outer-name
    """containerd's gRPC API."""
    from kyb.client import Client  # pylint: disable=import-outside-toplevel
    made = Client(node)
    yield made
    made.close()


@pytest.fixture
def cri(node):  # pylint: disable=redefined-outer-name
    """containerd's CRI service."""
    from kyb.cri import Cri  # pylint: disable=import-outside-toplevel
    made = Cri(node)
    yield made
    made.close()


def _reason(report):
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return getattr(report, "wasxfail", "") or str(report.longrepr)


def _why(report):
    crash = getattr(report.longrepr, "reprcrash", None)
    return (crash.message if crash else str(report.longrepr)).strip()[:300]


def _by_shim(stats):
    """{shim: {"passed": ..., "skipped": ..., "failed": ...}} of the conformance tests."""
    counts = {}
    for outcome, words in (("passed", ("passed", "xpassed")), ("skipped", ("skipped", "xfailed")),
                           ("failed", ("failed", "error"))):
        for report in (report for word in words for report in stats.get(word, [])):
            name, _, params = report.nodeid.partition("[")
            if not name.startswith("conformance/"):
                continue
            # The longest name first: one is the beginning of another.
            for shim in sorted(shims.KINDS, key=len, reverse=True):
                if shim in params:
                    counts.setdefault(shim, dict.fromkeys(("passed", "skipped", "failed"), 0))
                    counts[shim][outcome] += 1
                    break
    return dict(sorted(counts.items()))


def pytest_terminal_summary(terminalreporter, config):
    """Counts for tests/it/run; a known difference of the oracle counts as skipped, with its
    reason."""
    path = config.getoption("--summary")
    if not path:
        return
    stats = terminalreporter.stats
    reasons = {}
    for report in stats.get("skipped", []) + stats.get("xfailed", []):
        reason = _reason(report)
        reasons[reason] = reasons.get(reason, 0) + 1
    broken = stats.get("failed", []) + stats.get("error", [])
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"passed": len(stats.get("passed", [])) + len(stats.get("xpassed", [])),
                   "failed": len({report.nodeid for report in broken}),
                   "broken": sorted({f"{report.nodeid}: {_why(report)}" for report in broken}),
                   "reasons": reasons, "what": env.describe(), "shims": _by_shim(stats)}, file)
