# SPDX-License-Identifier: Apache-2.0
"""What a user of containerd waits for: ctr, a private containerd, a real OCI runtime."""
import subprocess
import time

from kyb import cgroups, env, image
from kyb.node import Node
from lab import Row, Skip, benchmark


def open_node(lab):
    """One containerd for both shims: only the runtime's name differs from call to call."""
    return lab.shared("node", lambda: Node(lab.sides[0].kind, lab.rootfs), lambda n: n.close())


def flags(node, side, container_id, runtime="runc"):
    """For `ctr run`: which shim, which OCI runtime below it."""
    found = ["--runtime", side.kind.runtime,
             "--cgroup", cgroups.path_for(node.token, container_id)]
    if side.kind.typed_options:
        return found + ["--runc-binary", env.which(runtime)]
    options = node.dir / f"{runtime}.toml"
    options.write_text(f'BinaryName = "{env.which(runtime)}"\n', encoding="ascii")
    return found + ["--runtime-config-path", str(options)]


PEACE = 0.1  # s: until the kernel has forgotten what the other side did to its cgroups


def timed_ctr(node, *args):
    """Milliseconds of one ctr."""
    argv = ["ctr", "-a", node.socket, "-n", node.namespace, *args]
    environ = env.environment()
    time.sleep(PEACE)
    began = time.perf_counter()
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=environ, check=False,
                          timeout=env.seconds(120))
    took = time.perf_counter() - began
    if done.returncode != 0:
        raise RuntimeError(f"{argv}: {done.returncode}\n{done.stdout.decode()}{node.log_tail()}")
    return took * 1e3


def timed_run(node, side, runtime="runc"):
    container_id = node.new_id()
    return timed_ctr(node, "run", "--rm", *flags(node, side, container_id, runtime), image.NAME,
                     container_id, "true")


@benchmark(Row("ctr_run_runc", "ms", "`ctr run --rm IMAGE true`, both with runc", target="<= 0.75"))
def run_runc(lab):
    node = open_node(lab)
    lab.alternate(lab.rounds(60, 6), lambda side: {"ctr_run_runc": timed_run(node, side)}, 2)


@benchmark(Row("ctr_run_crun", "ms", "`ctr run --rm IMAGE true`, ours with crun, theirs with runc",
               target="<= 0.5"))
def run_crun(lab):
    if not env.which("crun"):
        raise Skip("crun is not installed")
    node = open_node(lab)
    try:
        timed_run(node, lab.sides[0], "crun")
    except RuntimeError as error:
        raise Skip(f"crun does not work here: {error}") from error
    lab.alternate(lab.rounds(60, 6), lambda side: {
        "ctr_run_crun": timed_run(node, side, "crun" if side.ours else "runc")}, 2)


def _exec(lab, row, runtime):
    """Ours with that OCI runtime, theirs with runc."""
    node = open_node(lab)
    running = {}
    for side in lab.sides:
        running[side.name] = node.new_id()
        timed_ctr(node, "run", "-d", "--null-io",
                  *flags(node, side, running[side.name], runtime if side.ours else "runc"),
                  image.NAME, running[side.name], "probe", "sleep")
    lab.alternate(lab.rounds(60, 6), lambda side: {
        row: timed_ctr(node, "tasks", "exec", "--exec-id", node.new_id(), running[side.name],
                       "true")}, 2)
    node.clear()


@benchmark(Row("ctr_exec", "ms", "`ctr tasks exec CONTAINER true`, both with runc",
               target="<= 0.8"))
def exec_runc(lab):
    _exec(lab, "ctr_exec", "runc")


@benchmark(Row("ctr_exec_crun", "ms", "the same, ours with crun, theirs with runc"))
def exec_crun(lab):
    if not env.which("crun"):
        raise Skip("crun is not installed")
    _exec(lab, "ctr_exec_crun", "crun")
