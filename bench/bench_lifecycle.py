# SPDX-License-Identifier: Apache-2.0
"""A container's whole life through a runtime that does nothing: the shim's own time."""
import json
import subprocess

from kyb import env, protos, starter
from lab import Row, benchmark


def _options(world, runtime):
    path = world.dir / "options.bin"
    if not path.exists():
        path.write_bytes(protos.pack(protos.RUNC_OPTIONS, protos.options.Runc(
            binary_name=runtime, root=str(world.dir / "r"))).SerializeToString())
    return str(path)


def run_once(lab, world, side):
    """One container in a shim of its own; microseconds by step, as shim-bench prints them."""
    container = world.define()
    grpc = f"{world.dir}/b.sock"
    world.addresses.add("unix://" + starter.socket_path(grpc, world.namespace, container.id))
    out = subprocess.run(
        [lab.program("bench/shim-bench"), "lifecycle", side.kind.binary, str(container.bundle),
         world.namespace, container.id, grpc,
         _options(world, lab.program("bench/null-runtime"))],
        env=env.environment(GOMAXPROCS="2"), stdout=subprocess.PIPE, check=True,
        timeout=env.seconds(120))
    return json.loads(out.stdout)


_STEPS = ("create", "run", "kill", "delete")


@benchmark(
    Row("lifecycle_null_runtime", "ms", "Create, Start, Wait, Kill, Delete, in a shim that is up",
        target="<= 0.25"),
    Row("start_null_runtime", "ms", "the same, from the exec of `start` on"),
    Row("start_binary", "ms", "`start` alone, from its exec to the end of its output"),
    Row("leave", "ms", "from Shutdown to the end of the connection"))
def lifecycle(lab):
    """A fresh shim for every container, as for a pod of one container."""
    with lab.world(lab.sides[0]) as ours, lab.world(lab.sides[1]) as theirs:
        worlds = {"ours": ours, "theirs": theirs}

        def measure(side):
            us = run_once(lab, worlds[side.name], side)
            life = sum(us[step] for step in _STEPS)
            return {"lifecycle_null_runtime": life / 1e3,
                    "start_null_runtime": (us["start"] + us["up"] + life) / 1e3,
                    "start_binary": us["start"] / 1e3, "leave": us["leave"] / 1e3}

        lab.alternate(lab.rounds(100, 10), measure)
