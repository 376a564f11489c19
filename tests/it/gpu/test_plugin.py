# SPDX-License-Identifier: Apache-2.0
"""CRIU's own CUDA plugin acts on the same processes as the agent: on a host that has it installed it
is kept out of the dump and of the restore."""
import shutil
import subprocess

import pytest

from kyb import env, protos

pytestmark = pytest.mark.criu

# Whoever loads it leaves a mark. CRIU loads every *.so of its plugin folder (criu/plugin.c).
_PLUGIN = r"""
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((constructor)) static void loaded(void)
{
	int fd = open("@MARK@", O_CREAT | O_WRONLY | O_APPEND, 0600);

	if (write(fd, "x", 1) != 1)
		abort();
	close(fd);
}
"""


@pytest.fixture
def plugin(tmp_path):
    """(environment in which CRIU finds a plugin, path of the mark)."""
    mark, folder = tmp_path / "mark", tmp_path / "plugins"
    folder.mkdir()
    source = tmp_path / "plugin.c"
    source.write_text(_PLUGIN.replace("@MARK@", str(mark)), encoding="ascii")
    if shutil.which("cc") is None:
        pytest.skip("no C compiler here for a plugin of CRIU's")
    built = subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "cuda_plugin.so", source],
                           check=False, capture_output=True, text=True)
    if built.returncode:
        pytest.skip(f"no compiler: {built.stderr}")
    return {"CRIU_LIBS_DIR": str(folder)}, mark


def options(**fields):
    return protos.pack(protos.CHECKPOINT_OPTIONS, protos.options.Checkpoint(**fields))


def spying_runtime(world, environ):
    """The real runtime, on a host whose CRIU has that plugin folder unless it is told another."""
    path = world.dir / "with-plugins"
    default = "\n".join(f': "${{{name}:={value}}}"; export {name}'
                        for name, value in environ.items())
    path.write_text(f'#!/bin/sh\n{default}\nexec {env.which(env.RUNTIME)} "$@"\n', encoding="ascii")
    path.chmod(0o755)
    return world.options(binary_name=str(path))


def test_not_in_a_dump_with_gpu(gworld, world, start_agent, plugin):
    environ, mark = plugin
    start_agent(gworld.agent_dir)
    runtime = spying_runtime(world, environ)
    plain = world.running(["probe", "count", "/tmp/n"], options=runtime)
    plain.checkpoint(gworld.image("plain"), options())
    if not mark.exists():
        pytest.skip("this CRIU loads no plugins")
    mark.unlink()
    container = gworld.running(options=runtime)
    container.checkpoint(gworld.image(), options())
    assert not mark.exists()
    container.workload.goes_on()
    container.checkpoint(gworld.image("exit"), options(exit=True))
    assert container.wait().exit_status == 137
    container.delete()
    again = gworld.container(options=runtime)
    again.create(checkpoint=str(world.dir / "exit"))
    again.start()
    assert not mark.exists()
    again.workload.goes_on(0)
