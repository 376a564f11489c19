# SPDX-License-Identifier: Apache-2.0
"""A containerd of the tests' own: private root, state and socket, and its clean-up.

Containers of a Node live in a namespace and in control groups named by its token, like those of a
World, so that what a test leaves behind is found.
"""
import os
import pathlib
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time

from . import cgroups, env, image, procs
from .wait import Timeout, until

_CONFIG = """version = 2
root = "{dir}/root"
state = "{dir}/s"
disabled_plugins = [{disabled}]
[debug]
level = "debug"
[grpc]
address = "{socket}"
[plugins."io.containerd.gc.v1.scheduler"]
startup_delay = "10m"
"""
_CRI = """
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
disable_apparmor = true
netns_mounts_under_state_dir = true
tolerate_missing_hugetlb_controller = true
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{dir}/cni/bin"
conf_dir = "{dir}/cni/conf"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "{handler}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{handler}]
runtime_type = "{runtime}"
{runtime_path}
pod_annotations = ["kybernate.io/*"]
container_annotations = ["kybernate.io/*"]
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{handler}.options]
{options}
"""
# Plugins that only cost time, or want kernel features that a test machine may lack.
_DISABLED = ("io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
             "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs",
             "io.containerd.snapshotter.v1.blockfile", "io.containerd.tracing.processor.v1.otlp",
             "io.containerd.internal.v1.tracing", "io.containerd.nri.v1.nri",
             "io.containerd.internal.v1.opt")


class Node:
    """See the head of this file. With cri=True pods can be run (see kyb/cri.py). environ: more
    of it, also for the shims."""

    def __init__(self, kind, rootfs, cri=False, handler="kyb", environ=None):
        self.kind = kind
        self.environ = environ or {}
        self.handler = handler
        self.cri_enabled = cri
        self.token = "kn" + secrets.token_hex(4)
        self.namespace = self.token
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=f"{self.token}.", dir=env.BASE))
        self.socket = str(self.dir / "c.sock")
        self.log = self.dir / "containerd.log"
        self.process = None
        self.starts = 0
        self._numbers = iter(range(10**6))
        self._write_config()
        self.start()
        self.chain = image.write(self.dir / "image.tar", rootfs)
        for namespace in [self.namespace, *(["k8s.io"] if cri else [])]:
            self.ctr("images", "import", str(self.dir / "image.tar"), namespace=namespace)
        (self.dir / "image.tar").unlink()

    def _write_config(self):
        text = _CONFIG.format(dir=self.dir, socket=self.socket, disabled=", ".join(
            f'"{name}"' for name in _DISABLED + (() if self.cri_enabled else (
                "io.containerd.grpc.v1.cri",))))
        if self.cri_enabled:
            options = f"SystemdCgroup = {str(env.DRIVER == 'systemd').lower()}\n"
            if env.RUNTIME != "runc":
                options += f'BinaryName = "{env.which(env.RUNTIME)}"\n'
            if env.containerd_version() < (1, 7) and not self.kind.typed_options:
                options = f'ConfigPath = "{self.options_file()}"\n'  # all that 1.6 passes on
            text += _CRI.format(
                dir=self.dir, pause=image.PAUSE, handler=self.handler, runtime=self.kind.runtime,
                runtime_path=f'runtime_path = "{self.kind.binary}"' if self.kind.by_path else "",
                options=options)
        (self.dir / "config.toml").write_text(text, encoding="utf-8")

    # --- the daemon ---

    def start(self, timeout=60):
        """Starts containerd and waits until it answers."""
        environ = env.environment(**self.environ)
        if self.kind.by_path:  # for ctr, which cannot name a path and a type: the stock name
            shadow = self.dir / "bin"
            shadow.mkdir(exist_ok=True)
            link = shadow / "containerd-shim-runc-v2"
            if not link.exists():
                link.symlink_to(self.kind.binary)
            environ["PATH"] = f"{shadow}:{environ['PATH']}"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(  # pylint: disable=consider-using-with
                ["containerd", "-c", str(self.dir / "config.toml")], stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, env=environ, process_group=0)

        def answers():
            assert self.process.poll() is None, f"containerd ended:\n{self.log_tail()}"
            return self.ctr("version", check=False).returncode == 0

        until(answers, timeout, f"containerd answers: {self.log}", pause=0.05)
        self.starts += 1

    def stop(self, number=signal.SIGTERM):
        """Ends containerd; shims and containers live on."""
        self.process.send_signal(number)
        try:
            self.process.wait(env.seconds(30))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Timeout(f"containerd did not end:\n{self.log_tail()}") from None

    def restart(self, number=signal.SIGTERM):
        self.stop(number)
        self.start()

    def log_tail(self, size=4000):
        """The end of containerd's log; nothing once the node is closed."""
        try:
            return self.log.read_text(encoding="utf-8", errors="replace")[-size:]
        except FileNotFoundError:
            return ""

    # --- clients ---

    def ctr(self, *args, namespace=None, check=True, timeout=60):
        """ctr; the CompletedProcess."""
        done = subprocess.run(["ctr", "-a", self.socket, "-n", namespace or self.namespace, *args],
                              capture_output=True, text=True, check=False,
                              env=env.environment(XDG_RUNTIME_DIR=str(self.dir)),
                              stdin=subprocess.DEVNULL, timeout=env.seconds(timeout))
        if check and done.returncode != 0:
            raise AssertionError(f"ctr {' '.join(args)}: {done.returncode}\n{done.stdout}"
                                 f"{done.stderr}\n{self.log_tail()}")
        return done

    def ctr_process(self, *args):
        """ctr with pipes, running."""
        return subprocess.Popen(["ctr", "-a", self.socket, "-n", self.namespace, *args],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                env=env.environment(XDG_RUNTIME_DIR=str(self.dir)))

    def new_id(self):
        return f"c{next(self._numbers)}"

    def ctr_flags(self, container_id):
        """What every 'ctr run' of a test needs: runtime, control group."""
        flags = ["--runtime", self.kind.runtime,
                 "--cgroup", cgroups.path_for(self.token, container_id)]
        if env.DRIVER == "systemd" and self.kind.typed_options:
            flags.append("--runc-systemd-cgroup")
        if env.RUNTIME != "runc" and self.kind.typed_options:
            flags += ["--runc-binary", env.which(env.RUNTIME)]
        if not self.kind.typed_options:
            flags += ["--runtime-config-path", str(self.options_file())]
        return flags

    def options_file(self):
        """Runtime options of our own type, as a file for --runtime-config-path."""
        path = self.dir / "options.toml"
        path.write_text(f'SystemdCgroup = {str(env.DRIVER == "systemd").lower()}\n'
                        f'BinaryName = "{env.which(env.RUNTIME)}"\n', encoding="ascii")
        return path

    def tasks(self, namespace=None):
        """{container id: status} as ctr lists them."""
        lines = self.ctr("tasks", "ls", namespace=namespace).stdout.splitlines()[1:]
        return {line.split()[0]: line.split()[2] for line in lines}

    def task_pid(self, container_id):
        for line in self.ctr("tasks", "ls").stdout.splitlines()[1:]:
            name, pid, _ = line.split()
            if name == container_id:
                return int(pid)
        raise LookupError(container_id)

    # --- looking ---

    def bundle(self, container_id, namespace=None):
        return (self.dir / "s/io.containerd.runtime.v2.task" / (namespace or self.namespace)
                / container_id)

    def shims(self):
        """Pids of the shim daemons of this node."""
        return procs.daemons_below(self.dir / "s")

    def leftovers(self):
        found = [f"shim {pid}: {procs.command(pid)}" for pid in self.shims()]
        found += [f"mount {point}" for point in procs.mounts_below(
            self.dir / "s/io.containerd.runtime.v2.task")]
        for path in cgroups.named(self.token):
            if path.name.startswith((f"{self.token}-pods", f"{self.token}.slice")):
                found += [f"cgroup {p}" for p in path.iterdir() if p.is_dir()]
            else:
                found.append(f"cgroup {path}")
        return found

    # --- ending ---

    def clear(self):
        """Ends all tasks and deletes all containers, by force; containerd runs on."""
        for namespace in [self.namespace, *(["k8s.io"] if self.cri_enabled else [])]:
            for container_id in self.ctr("containers", "ls", "-q",
                                         namespace=namespace).stdout.split():
                self.ctr("tasks", "delete", "--force", container_id, namespace=namespace,
                         check=False)
                self.ctr("containers", "delete", container_id, namespace=namespace, check=False)

    def sweep(self):
        """clear(), and by force what that leaves; containerd runs on."""
        self.clear()
        procs.kill_all(self.shims())
        cgroups.remove(self.token)
        procs.unmount_below(self.dir / "s/io.containerd.runtime.v2.task")

    def close(self):
        """Ends and removes everything."""
        if self.process.poll() is None:
            self.stop(signal.SIGKILL)
        sockets = _listening(self.shims())
        procs.kill_all(self.shims())
        for root in pathlib.Path("/run/containerd/runc").glob("*"):
            for container in root.glob("*"):
                state = container / ("state.json" if env.RUNTIME == "runc" else "status")
                if state.exists() and str(self.dir) in state.read_text(errors="replace"):
                    subprocess.run([env.RUNTIME, "--root", str(root), "delete", "--force",
                                    container.name], check=False, capture_output=True,
                                   env=env.environment())
            if root.name == self.token:
                shutil.rmtree(root)
        cgroups.remove(self.token)
        procs.kill_all(procs.working_below(self.dir))
        procs.unmount_below(self.dir)
        for path in sockets:
            pathlib.Path(path).unlink(missing_ok=True)
        if not os.environ.get("KYB_KEEP"):
            _remove(self.dir)


def _listening(pids):
    """Paths of the Unix sockets that these processes listen on."""
    inodes = set()
    for pid in pids:
        for target in procs.fds(pid).values():
            found = re.fullmatch(r"socket:\[(\d+)\]", target)
            if found:
                inodes.add(found.group(1))
    paths = set()
    for line in pathlib.Path("/proc/net/unix").read_text(encoding="utf-8").splitlines()[1:]:
        fields = line.split()
        if fields[6] in inodes and len(fields) > 7 and fields[7].startswith("/run/containerd/s/"):
            paths.add(fields[7])
    return paths


def _remove(folder):
    """rmtree, again while something that is ending still writes."""
    for _ in range(5):
        try:
            shutil.rmtree(folder)
            return
        except OSError:
            procs.unmount_below(folder)
            time.sleep(0.2)
    shutil.rmtree(folder)
