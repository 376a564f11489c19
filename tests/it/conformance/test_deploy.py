# SPDX-License-Identifier: Apache-2.0
"""deploy/ under this release of containerd: it takes the configuration that install-node makes, knows
our runtime then, and has lost nothing. tests/deploy has the rest, without a containerd."""
import subprocess
import tomllib

import pytest

from kyb import env

INSTALL = env.REPO / "deploy/install-node"
CRI = "io.containerd.grpc.v1.cri"
CRI_3 = "io.containerd.cri.v1.runtime"
IMAGES_3 = "io.containerd.cri.v1.images"

BARE = f"""version = 2
[plugins."{CRI}"]
sandbox_image = "registry.example/pause:9"
[plugins."{CRI}".cni]
bin_dir = "/somewhere/cni"
"""
WITH_RUNC = BARE + f"""[plugins."{CRI}".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."{CRI}".containerd.runtimes.runc.options]
SystemdCgroup = true
"""
VERSION_3 = f"""version = 3
[plugins.'{IMAGES_3}'.pinned_images]
sandbox = "registry.example/pause:9"
[plugins.'{CRI_3}'.cni]
bin_dirs = ["/somewhere/cni"]
"""
IMPORTING = 'imports = ["/etc/containerd/conf.d/*.toml"]\n' + VERSION_3

# chroot ROOT containerd -c FILE config dump: as far as that is possible without its libraries there.
CHROOT = """#!/bin/sh
root=$1
shift
case "$*" in
"containerd -c "*) exec containerd -c "$root/$3" config dump ;;
*) exec "$@" ;;
esac
"""


TEXTS = {"bare": BARE, "with-runc": WITH_RUNC, "none": None}
if env.which("containerd") and env.containerd_version() >= (2, 0):
    TEXTS.update({"version-3": VERSION_3, "importing": IMPORTING})


def dump(config):
    """All that containerd makes of it, defaults included."""
    done = subprocess.run(["containerd", "-c", str(config), "config", "dump"], capture_output=True,
                          text=True, check=False, env=env.environment())
    assert done.returncode == 0, done.stderr
    return tomllib.loads(done.stdout)["plugins"]


def less_runtimes(plugins):
    """And without the runtimes, which are returned as well."""
    part = plugins[CRI_3 if CRI_3 in plugins else CRI]
    return plugins, part["containerd"].pop("runtimes")


@pytest.mark.skipif(not env.which("containerd"), reason="no containerd")
@pytest.mark.parametrize("type_", ["own", "runc-name"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_install_node(tmp_path, text, type_):
    root = tmp_path / "root"
    config = root / "etc/containerd/config.toml"
    config.parent.mkdir(parents=True)
    before = None
    if text is not None:
        # What it imports lies in its own root.
        config.write_text(text.replace("/etc/", f"{root}/etc/"), encoding="ascii")
        before = less_runtimes(dump(config))
        config.write_text(text, encoding="ascii")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("containerd-shim-kybernate-v1", "kybernatectl", "kybernate-agent",
                 "kybernate-cuda-worker", "kybernate-sidecar"):
        (programs / name).write_text("", encoding="ascii")
    stub = tmp_path / "stub"
    stub.mkdir()
    (stub / "chroot").write_text(CHROOT, encoding="ascii")
    (stub / "chroot").chmod(0o755)
    environ = env.environment()
    environ["PATH"] = f"{stub}:{environ['PATH']}"
    done = subprocess.run([INSTALL, "--root", root, "--from", programs, "--type", type_, "install"],
                          capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == 0, done.stderr
    if config.exists():
        config.write_text(config.read_text().replace("/etc/", f"{root}/etc/"), encoding="ascii")
        after, runtimes = less_runtimes(dump(config))
    else:  # imported by default
        after, runtimes = less_runtimes(dump(config.parent / "conf.d/kybernate.toml"))
    ours, runc = runtimes["kybernate"], runtimes["runc"]
    own = type_ == "own"
    assert (ours["runtime_type"], ours["runtime_path"]) == (
        ("io.containerd.kybernate.v1", "") if own else
        ("io.containerd.runc.v2", "/usr/local/bin/containerd-shim-kybernate-v1"))
    assert ours["pod_annotations"] == ours["container_annotations"] == ["kybernate.io/*"]
    assert runc["runtime_type"] == "io.containerd.runc.v2"
    systemd = text == WITH_RUNC
    assert ours["options"]["SystemdCgroup"] == systemd
    assert runc["options"].get("SystemdCgroup", False) == systemd
    if before:
        assert after == before[0]
