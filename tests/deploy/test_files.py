# SPDX-License-Identifier: Apache-2.0
"""The files of deploy/ fit each other, the programs' defaults, and what the tools think of them."""
import re
import shutil
import subprocess

import pytest

from conftest import DEPLOY, ROOT

MANIFESTS = sorted(p.relative_to(DEPLOY) for p in (DEPLOY / "kubernetes").rglob("*.yaml"))
UNIT = (DEPLOY / "systemd/kybernate-agent.service.in").read_text()
SIDECAR_UNIT = (DEPLOY / "systemd/kybernate-sidecar.service.in").read_text()
UNITS = {"kybernate-agent": UNIT, "kybernate-sidecar": SIDECAR_UNIT}
# A unit without any restriction has 9.6; systemd 252 gives ours 2.9 and 0.8.
EXPOSURE_MAX = {"kybernate-agent": 3.0, "kybernate-sidecar": 1.0}


def documents(path):
    yaml = pytest.importorskip("yaml", reason="no python3-yaml")
    return list(yaml.safe_load_all((DEPLOY / path).read_text()))


def capabilities(names):
    return {name.removeprefix("CAP_") for name in names}


def default(key):
    """A setting's default, from the table of the code."""
    table = (ROOT / "pkg/conf/agent_settings.h").read_text()
    return re.search(rf'X\(\w+, {re.escape(key)}, "\\"([^"\\]*)\\""', table)[1]


@pytest.mark.parametrize("path", MANIFESTS, ids=str)
def test_manifests(path):
    for doc in documents(path):
        assert doc["apiVersion"] and doc["kind"] and doc["metadata"]["name"]


def test_handler():
    """The RuntimeClass names the runtime of containerd's configuration, and pods name the class."""
    runtime_class, = documents("kubernetes/runtimeclass.yaml")
    for file in (DEPLOY / "containerd").glob("*.toml"):
        assert f".runtimes.{runtime_class['handler']}]" in file.read_text()
    for path in MANIFESTS:
        if path.parent.name == "examples":
            pod, = documents(path)
            assert pod["spec"]["runtimeClassName"] == runtime_class["metadata"]["name"]


def test_annotations_name_a_container():
    table = (ROOT / "pkg/oci/bundle.h").read_text()
    known = set(re.findall(r'X\(\w+, "([a-z-]+)", "', table))
    for path in MANIFESTS:
        for doc in documents(path):
            containers = {c["name"] for c in doc.get("spec", {}).get("containers", [])}
            for key in doc["metadata"].get("annotations", {}):
                name, _, container = key.removeprefix("kybernate.io/").partition(".")
                assert name in known and container in containers


def test_restore_is_of_the_same_template():
    first, = documents("kubernetes/examples/training.yaml")
    again, = documents("kubernetes/examples/restore.yaml")
    assert again["spec"]["containers"] == first["spec"]["containers"]
    assert again["spec"]["volumes"] == first["spec"]["volumes"]


def agent():
    daemon_set = documents("kubernetes/daemonset.yaml")[1]
    spec = daemon_set["spec"]["template"]["spec"]
    return spec, spec["containers"][0]


def test_capabilities_are_the_same_everywhere():
    """Unit, DaemonSet, what the worker keeps, and the page about it."""
    _, container = agent()
    unit = capabilities(re.search(r"^CapabilityBoundingSet=(.*)$", UNIT, re.M)[1].split())
    assert set(container["securityContext"]["capabilities"]["add"]) == unit
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
    isolate = (ROOT / "agent/kybernate-cuda-worker/isolate.c").read_text()
    kept = capabilities(re.findall(r"CAP_\w+", re.search(r"kept\[\] = \{(.*?)\}", isolate,
                                                         re.S)[1]))
    assert unit == kept | {"SETPCAP"}
    page = (ROOT / "docs/security.md").read_text()
    table = re.search(r"## Capabilities\n(.*?)\n## ", page, re.S)[1]
    assert set(re.findall(r"`([A-Z_]+)`", table.split("Which of")[0])) == unit


def sidecar():
    daemon_set, = documents("kubernetes/sidecar.yaml")
    spec = daemon_set["spec"]["template"]["spec"]
    return spec, spec["containers"][0]


def test_the_sidecar_has_one_capability_everywhere():
    """Unit, what the program keeps, and the DaemonSet, but for what it takes to become somebody else."""
    unit = capabilities(re.search(r"^CapabilityBoundingSet=(.*)$", SIDECAR_UNIT, re.M)[1].split())
    assert unit == {"DAC_READ_SEARCH"}
    assert capabilities(re.search(r"^AmbientCapabilities=(.*)$", SIDECAR_UNIT, re.M)[1].split()) == unit
    isolate = (ROOT / "sidecar/kybernate-sidecar/isolate.c").read_text()
    kept = re.findall(r"CAP_\w+", re.search(r"read_all\[\] = \{(.*?)\}", isolate, re.S)[1])
    assert capabilities(kept) == unit
    _, container = sidecar()
    context = container["securityContext"]
    assert set(context["capabilities"]["add"]) == unit | {"SETUID", "SETGID", "SETPCAP"}
    assert context["capabilities"]["drop"] == ["ALL"]
    assert context["allowPrivilegeEscalation"] is False and context["readOnlyRootFilesystem"]


def test_the_sidecar_reads_the_agents_store():
    start = re.search(r"^ExecStart=(.*)$", SIDECAR_UNIT, re.M)[1].split()
    spec, container = sidecar()
    for command in (start, container["command"]):
        assert command[command.index("--store") + 1] == default("store")
    mounts = {m["mountPath"]: m for m in container["volumeMounts"]}
    assert mounts[default("store")]["readOnly"]
    assert container["command"][-1] in mounts
    volumes = {v["name"]: v["hostPath"]["path"] for v in spec["volumes"]}
    for path, mount in mounts.items():
        assert volumes[mount["name"]] == path
    source = (ROOT / "sidecar/kybernate-sidecar/main.c").read_text()
    assert f'#define STORE "{default("store")}"' in source


def test_paths_are_those_of_the_settings():
    _, container = agent()
    mounts = [m["mountPath"] for m in container["volumeMounts"]]
    for path in (default("socket"), default("store"), default("containerd")):
        assert any(path.startswith(mount + "/") for mount in mounts), path
    spec, _ = agent()
    volumes = {v["name"]: v["hostPath"]["path"] for v in spec["volumes"]}
    for mount in container["volumeMounts"]:
        assert volumes[mount["name"]] == mount["mountPath"]
    assert default("socket").startswith("/run/" + re.search(r"^RuntimeDirectory=(.*)$", UNIT,
                                                           re.M)[1] + "/")
    assert default("store").startswith("/var/lib/" + re.search(r"^StateDirectory=(.*)$", UNIT,
                                                              re.M)[1] + "/")


def test_the_agent_has_time_to_undo():
    source = (ROOT / "pkg/agent/agent.c").read_text()
    needs = int(re.search(r"#define LEAVE_MAX\s+\((\d+) \* NSEC_PER_SEC\)", source)[1])
    spec, _ = agent()
    assert spec["terminationGracePeriodSeconds"] > needs
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", UNIT, re.M)[1]) > needs


def test_versions():
    """One version, said in several places."""
    version = re.search(r"version: '([^']+)'", (ROOT / "meson.build").read_text())[1]
    spec, container = agent()
    assert container["image"] == f"kybernate:{version}"
    assert {c["image"] for c in spec["initContainers"]} == {f"kybernate:{version}"}
    spec, _ = sidecar()
    assert {c["image"] for c in spec["initContainers"] + spec["containers"]} == \
        {f"kybernate:{version}"}
    for page in ("deploy/image/Containerfile", "README.md"):
        assert version in (ROOT / page).read_text()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
@pytest.mark.parametrize("name", UNITS)
def test_unit(tmp_path, name):
    program = tmp_path / name
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / f"{name}.service"
    unit.write_text(UNITS[name].replace("@sbindir@", str(tmp_path)))
    ran = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True,
                         text=True, check=False)
    assert ran.returncode == 0 and "kybernate" not in ran.stderr, ran.stderr
    ran = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
                         capture_output=True, text=True, check=False)
    if "nknown" in ran.stderr or "unrecognized option" in ran.stderr:
        pytest.skip("systemd-analyze cannot look at a unit offline (before 251)")
    exposure = re.search(r"Overall exposure level.*: (\d+\.\d+)", ran.stdout)
    assert exposure and float(exposure[1]) <= EXPOSURE_MAX[name], ran.stdout + ran.stderr


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck")
def test_script():
    ran = subprocess.run(["shellcheck", DEPLOY / "install-node"], capture_output=True, text=True,
                         check=False)
    assert ran.returncode == 0, ran.stdout
