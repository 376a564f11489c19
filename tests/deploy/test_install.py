# SPDX-License-Identifier: Apache-2.0
"""deploy/install-node on a node that is a folder: what it writes, and that it takes back all of it."""
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from conftest import DEPLOY

try:
    import tomllib
except ImportError:
    tomllib = None

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="install-node wants root"),
    pytest.mark.skipif(tomllib is None, reason="no tomllib before Python 3.11"),
]

PROGRAMS = {"containerd-shim-kybernate-v1": "bin", "kybernatectl": "bin", "kybernate-agent": "sbin",
            "kybernate-cuda-worker": "libexec/kybernate", "kybernate-sidecar": "sbin"}
CRI = "io.containerd.grpc.v1.cri"
CRI_3 = "io.containerd.cri.v1.runtime"

# As Debian has it.
DEBIAN = f"""version = 2

[plugins]
  [plugins."{CRI}"]
    [plugins."{CRI}".cni]
      bin_dir = "/usr/lib/cni"
"""
KUBEADM = f"""version = 2
[plugins."{CRI}"]
  sandbox_image = "registry.k8s.io/pause:3.9"
[plugins."{CRI}".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."{CRI}".containerd.runtimes.runc.options]
    SystemdCgroup = true
"""
VERSION_3 = f"""version = 3
imports = ["/etc/containerd/conf.d/*.toml"]

[plugins.'{CRI_3}'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
  [plugins.'{CRI_3}'.containerd.runtimes.runc.options]
    SystemdCgroup = true
"""

# chroot ROOT containerd ...: a containerd of the release in RELEASE, which takes what is TOML.
CHROOT = """#!/bin/sh
root=$1
shift
[ -n "$RELEASE" ] || exit 127
case "$*" in
"containerd --version") echo "containerd github.com/containerd/containerd $RELEASE abcdef" ;;
"sh -c command -v containerd") ;;
"containerd -c "*" config dump")
    [ -z "$REFUSE" ] || { echo "containerd: failed to load TOML" >&2; exit 1; }
    cat "$root/$3" ;;
*) exit 2 ;;
esac
"""


class FakeNode:
    """A root file system, and programs to put into it."""

    def __init__(self, folder):
        self.root = folder / "root"
        self.etc = self.root / "etc/containerd"
        self.config = self.etc / "config.toml"
        self.drop_in = self.etc / "conf.d/kybernate.toml"
        self.etc.mkdir(parents=True)
        self.programs = folder / "programs"
        self.programs.mkdir()
        for name in PROGRAMS:
            (self.programs / name).write_text(f"#!/bin/sh\necho {name}\n")
        stubs = folder / "stubs"
        stubs.mkdir()
        (stubs / "chroot").write_text(CHROOT)
        (stubs / "chroot").chmod(0o755)
        self.path = f"{stubs}:{os.environ['PATH']}"
        self.release = "v1.7.24"
        self.refuse = ""

    def run(self, *args, ok=True):
        ran = subprocess.run(
            [DEPLOY / "install-node", "--root", self.root, "--from", self.programs, *args],
            capture_output=True, text=True, check=False,
            env={"PATH": self.path, "RELEASE": self.release, "REFUSE": self.refuse})
        assert (ran.returncode == 0) == ok, ran.stderr
        return ran.stderr + ran.stdout

    def tree(self):
        """{path: (mode, content)} of everything but folders."""
        return {str(p.relative_to(self.root)): (p.stat().st_mode & 0o7777, p.read_bytes())
                for p in sorted(self.root.rglob("*")) if p.is_file()}

    def runtimes(self, cri=CRI, path=None):
        doc = tomllib.loads((path or self.config).read_text())
        return doc["plugins"][cri]["containerd"]["runtimes"]


@pytest.fixture
def node(tmp_path):
    return FakeNode(tmp_path)


def test_everything_is_put_there(node):
    node.config.write_text(DEBIAN)
    node.run("install")
    for name, folder in PROGRAMS.items():
        path = node.root / "usr/local" / folder / name
        assert path.stat().st_mode & 0o7777 == 0o755
        assert path.read_text() == (node.programs / name).read_text()
    unit = (node.root / "etc/systemd/system/kybernate-agent.service").read_text()
    assert "ExecStart=/usr/local/sbin/kybernate-agent\n" in unit and "@sbindir@" not in unit
    unit = (node.root / "etc/systemd/system/kybernate-sidecar.service").read_text()
    assert "ExecStart=/usr/local/sbin/kybernate-sidecar serve " in unit and "@sbindir@" not in unit
    settings = tomllib.loads((node.root / "etc/kybernate/agent.toml").read_text())
    assert settings == {"worker": "/usr/local/libexec/kybernate/kybernate-cuda-worker"}
    assert not list(node.root.rglob(".*"))


@pytest.mark.parametrize("text", [DEBIAN, KUBEADM, VERSION_3, VERSION_3.replace("imports", "#")])
@pytest.mark.parametrize("kind", ["own", "runc-name"])
def test_uninstall_gives_back_every_byte(node, text, kind):
    node.config.write_text(text)
    node.config.chmod(0o600)
    before = node.tree()
    node.run("--type", kind, "install")
    assert node.tree() != before
    node.run("uninstall")
    assert node.tree() == before


def test_a_second_time_changes_nothing(node):
    node.config.write_text(KUBEADM)
    node.run("install")
    before = {p: p.stat().st_ino for p in node.root.rglob("*")}
    said = node.run("install")
    assert {p: p.stat().st_ino for p in node.root.rglob("*")} == before
    assert "wrote" not in said and "to do" not in said


def test_the_built_in_runc_stays(node):
    """containerd up to 1.7 forgets it as soon as another runtime is named."""
    node.config.write_text(DEBIAN)
    node.run("install")
    assert node.runtimes()["runc"] == {"runtime_type": "io.containerd.runc.v2"}
    assert node.runtimes()["kybernate"]["options"]["SystemdCgroup"] is False


def test_a_runc_that_is_named_is_left_alone(node):
    node.config.write_text(KUBEADM)
    node.run("install")
    assert node.runtimes()["runc"] == tomllib.loads(KUBEADM)["plugins"][CRI]["containerd"][
        "runtimes"]["runc"]
    assert node.config.read_text().startswith(KUBEADM)


def test_control_groups_as_the_nodes_runc_has_them(node):
    node.config.write_text(KUBEADM)
    node.run("install")
    assert node.runtimes()["kybernate"]["options"]["SystemdCgroup"] is True
    node.run("--systemd-cgroup", "no", "install")
    assert node.runtimes()["kybernate"]["options"]["SystemdCgroup"] is False


def test_own_type(node):
    node.config.write_text(KUBEADM)
    node.run("install")
    ours = node.runtimes()["kybernate"]
    assert ours["runtime_type"] == "io.containerd.kybernate.v1"
    assert "runtime_path" not in ours
    assert ours["pod_annotations"] == ["kybernate.io/*"]


def test_release_that_hands_on_no_options(node):
    """containerd 1.6 tells a runtime of another name where a file is, and nothing else."""
    node.release = "1.6.20~ds1"
    node.config.write_text(KUBEADM)
    node.run("--runtime", "crun", "install")
    path = node.runtimes()["kybernate"]["options"]["ConfigPath"]
    assert tomllib.loads((node.root / path[1:]).read_text()) == {"SystemdCgroup": True,
                                                                 "BinaryName": "crun"}
    node.run("uninstall")
    assert list(node.tree()) == ["etc/containerd/config.toml"]


@pytest.mark.parametrize("release,kind", [("v1.7.24", "own"), ("1.6.36", "runc-name")])
def test_releases_that_hand_them_on(node, release, kind):
    node.release = release
    node.config.write_text(KUBEADM)
    node.run("--type", kind, "install")
    assert node.runtimes()["kybernate"]["options"] == {"SystemdCgroup": True}
    assert not (node.root / "etc/kybernate/runtime.toml").exists()


def test_name_of_containerds_shim(node):
    node.config.write_text(KUBEADM)
    node.run("--type", "runc-name", "--prefix", "/opt/kybernate", "--runtime", "crun", "install")
    ours = node.runtimes()["kybernate"]
    assert ours["runtime_type"] == "io.containerd.runc.v2"
    assert ours["runtime_path"] == "/opt/kybernate/bin/containerd-shim-kybernate-v1"
    assert ours["options"]["BinaryName"] == "crun"
    assert (node.root / ours["runtime_path"][1:]).exists()


def test_version_3_with_imports(node):
    node.config.write_text(VERSION_3)
    node.run("install")
    assert node.config.read_text() == VERSION_3
    ours = node.runtimes(CRI_3, node.drop_in)
    assert list(ours) == ["kybernate"]
    assert ours["kybernate"]["options"]["SystemdCgroup"] is True
    assert tomllib.loads(node.drop_in.read_text())["version"] == 3


def test_version_3_without_imports(node):
    node.config.write_text(VERSION_3.replace("imports", "#"))
    node.run("install")
    assert set(node.runtimes(CRI_3)) == {"runc", "kybernate"}


@pytest.mark.parametrize("release,version", [("1.6.20~ds1", 2), ("v1.7.24", 2), ("v2.1.9", 3),
                                             ("v2.2.0", None), ("2.3.4+ds1", None)])
def test_no_configuration(node, release, version):
    """Each release's own default: 2.2 and newer import conf.d where there is no config.toml."""
    node.release = release
    node.run("install")
    if version is None:
        assert not node.config.exists() and node.drop_in.exists()
    else:
        assert tomllib.loads(node.config.read_text())["version"] == version
        cri = CRI if version == 2 else CRI_3
        assert "kybernate" in node.runtimes(cri)
        assert ("runc" in node.runtimes(cri)) == (version == 2)
    node.run("uninstall")
    assert node.tree() == {}


def test_no_configuration_and_no_containerd(node):
    node.release = ""
    assert "no containerd" in node.run("install", ok=False)


@pytest.mark.parametrize("text,why", [
    ("[plugins.cri]\n", "version 1"),
    ("version = 7\n", "version 7"),
    ("version = 2", "does not end with a newline"),
    (f'version = 2\n[plugins."{CRI}".containerd.runtimes.kybernate]\n', "is not ours"),
])
def test_refused(node, text, why):
    node.config.write_text(text)
    assert why in node.run("install", ok=False)
    assert node.config.read_text() == text
    assert list(node.tree()) == ["etc/containerd/config.toml"]


def test_a_configuration_that_containerd_does_not_take(node):
    node.config.write_text(KUBEADM)
    node.refuse = "yes"
    assert "failed to load TOML" in node.run("install", ok=False)
    assert node.config.read_text() == KUBEADM
    assert not list(node.root.rglob(".*"))


def test_an_upgrade_replaces_the_files(node):
    """By a rename: a program that runs is not written to."""
    node.config.write_text(KUBEADM)
    node.run("install")
    shim = node.root / "usr/local/bin/containerd-shim-kybernate-v1"
    with open(shim, "rb") as running:
        (node.programs / shim.name).write_text("#!/bin/sh\necho new\n")
        node.run("install")
        assert b"echo new" not in running.read()
    assert "echo new" in shim.read_text()


def test_settings_of_the_administrator_stay(node):
    node.config.write_text(KUBEADM)
    node.run("install")
    settings = node.root / "etc/kybernate/agent.toml"
    settings.write_text('worker = "/elsewhere"\nstore = "/nvme"\n')
    assert "check that 'worker'" in node.run("install")
    node.run("uninstall")
    assert settings.read_text() == 'worker = "/elsewhere"\nstore = "/nvme"\n'


def test_edits_beside_our_block_stay(node):
    node.config.write_text(KUBEADM)
    node.run("install")
    with open(node.config, "a", encoding="ascii") as file:
        file.write("[debug]\nlevel = 'debug'\n")
    node.run("uninstall")
    assert node.config.read_text() == KUBEADM + "[debug]\nlevel = 'debug'\n"


def test_shim_only(node):
    node.config.write_text(KUBEADM)
    node.run("--shim-only", "install")
    assert sorted(p.name for p in (node.root / "usr/local").rglob("*") if p.is_file()) == [
        "containerd-shim-kybernate-v1", "kybernatectl"]
    assert not (node.root / "etc/kybernate").exists()
    assert not (node.root / "etc/systemd").exists()


def test_no_config(node):
    node.config.write_text(KUBEADM)
    node.run("--no-config", "install")
    assert node.config.read_text() == KUBEADM


def test_dry_run(node):
    node.config.write_text(KUBEADM)
    before = node.tree()
    assert "would write /etc/containerd/config.toml" in node.run("--dry-run", "install")
    assert node.tree() == before
    node.run("install")
    before = node.tree()
    assert "would remove" in node.run("--dry-run", "uninstall")
    assert node.tree() == before


def test_uninstall_while_shims_run(node):
    node.config.write_text(KUBEADM)
    shutil.copy("/bin/sleep", node.programs / "containerd-shim-kybernate-v1")
    node.run("install")
    shim = node.root / "usr/local/bin/containerd-shim-kybernate-v1"
    with subprocess.Popen([shim, "60"]) as running:
        try:
            assert str(running.pid) in node.run("uninstall", ok=False)
            assert shim.exists()
            node.run("--force", "uninstall")
            assert not shim.exists()
        finally:
            running.kill()


@pytest.mark.parametrize("args", [["--prefix", "usr"], ["--prefix", "/a b"], ["--prefix", '/a"b'],
                                  ["--runtime", 'x"'], ["--type", "x"], ["--systemd-cgroup", "x"]])
def test_wrong_usage(node, args):
    node.config.write_text(KUBEADM)
    node.run(*args, "install", ok=False)
    assert list(node.tree()) == ["etc/containerd/config.toml"]


@pytest.mark.skipif(not shutil.which("containerd"), reason="no containerd")
@pytest.mark.parametrize("text", [DEBIAN, KUBEADM])
@pytest.mark.parametrize("kind", ["own", "runc-name"])
def test_this_machines_containerd_takes_it(node, text, kind):
    """And knows what it knew before."""
    node.config.write_text(text)
    before = dump(node.config)
    node.run("--type", kind, "install")
    after = dump(node.config)
    for key in (r"sandbox_image = .*|sandbox = .*", r"bin_dirs? = .*", r"default_runtime_name = .*"):
        assert re.findall(key, after) == re.findall(key, before)
    assert re.search(r"\.runtimes\.runc\]", after)
    assert re.search(r"\.runtimes\.kybernate\]", after)


def dump(config: pathlib.Path):
    return subprocess.run(["containerd", "-c", config, "config", "dump"], capture_output=True,
                          text=True, check=True).stdout
