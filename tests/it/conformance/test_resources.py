# SPDX-License-Identifier: Apache-2.0
"""Stats, Update and out-of-memory, on whichever version of control groups the machine has.

Sources: containerd repo, runtime/v2/runc/task/service.go:Stats, pkg/oom; containerd/cgroups repo,
stats/metrics.proto (v1 and v2).
"""
import pytest

from kyb import cgroups, env, procs, protos, ttrpc
from kyb.wait import until

pytestmark = pytest.mark.machine
MIB = 1 << 20


def limit_of(pid):
    if env.cgroup_v2():
        return int((cgroups.of(pid, "memory") / "memory.max").read_text())
    return int((cgroups.of(pid, "memory") / "memory.limit_in_bytes").read_text())


def test_stats_type(world):
    """The wrong one is dropped silently by CRI."""
    container = world.running()
    assert container.stats()[0] == (protos.METRICS_V2 if env.cgroup_v2() else protos.METRICS_V1)


def test_stats_values(world):
    container = world.running(["sh", "-c", "probe spin 300; probe hog 30"], io="pipes",
                              memory=200 * MIB)
    container.io.out.wait_for("done")
    _, stats = container.stats()
    if env.cgroup_v2():
        cpu, usage, limit = stats.cpu.usage_usec * 1000, stats.memory.usage, \
            stats.memory.usage_limit
        assert stats.memory.anon >= 30 * MIB
        assert stats.cpu.usage_usec >= stats.cpu.user_usec > 0
    else:
        cpu, usage, limit = stats.cpu.usage.total, stats.memory.usage.usage, \
            stats.memory.usage.limit
        assert stats.memory.total_rss >= 30 * MIB
        assert stats.memory.usage.max >= usage > 0
    assert cpu >= 0.3e9
    assert 30 * MIB <= usage <= 200 * MIB
    assert limit == 200 * MIB
    assert stats.pids.current == len(container.pids())


def test_stats_agree_with_the_group(world):
    """Fields that CRI computes with, against the kernel's own files."""
    container = world.running(["sh", "-c", "cat /bin/* >/dev/null; echo ready; probe sleep"],
                              io="pipes")
    container.io.out.wait_for("ready")
    folder = cgroups.of(container.pid, "memory")

    def read():
        return dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())

    def quiet():  # the last process is still being started when the word arrives
        before, (_, stats) = read(), container.stats()
        return (before, stats) if read() == before else None

    stat, stats = until(quiet)
    if env.cgroup_v2():
        assert stats.memory.inactive_file == int(stat["inactive_file"])
        assert stats.memory.active_file == int(stat["active_file"])
        assert stats.memory.pgfault == int(stat["pgfault"])
    else:
        assert stats.memory.total_inactive_file == int(stat["total_inactive_file"])
        assert stats.memory.total_cache == int(stat["total_cache"])
        assert stats.memory.hierarchical_memory_limit == int(stat["hierarchical_memory_limit"])
        text = (cgroups.of(container.pid, "cpuacct") / "cpuacct.usage").read_text()
        assert abs(stats.cpu.usage.total - int(text)) < 1e9


def test_no_limit(world):
    container = world.running()
    _, stats = container.stats()
    if env.cgroup_v2():
        assert stats.memory.usage_limit == 2**64 - 1
    else:
        assert stats.memory.usage.limit > 2**62


@pytest.mark.parametrize("state", ["created", "paused", "stopped"])
def test_stats_in_other_states(world, state):
    """Until Delete: CRI asks after the exit, for the OOM counter."""
    container = world.container()
    container.create()
    if state != "created":
        container.start()
    if state == "paused":
        container.pause()
    if state == "stopped":
        container.kill()
        container.wait()
    try:
        url, _ = container.stats()
    except ttrpc.Error as error:
        # systemd removes the group of a scope as soon as it is empty.
        assert (state, env.DRIVER, error.code) == ("stopped", "systemd", ttrpc.NOT_FOUND)
    else:
        assert url in (protos.METRICS_V1, protos.METRICS_V2)


def test_update(world):
    container = world.running(memory=100 * MIB)
    assert limit_of(container.pid) == 100 * MIB
    container.update({"memory": {"limit": 50 * MIB}})
    assert limit_of(container.pid) == 50 * MIB
    _, stats = container.stats()
    assert 50 * MIB == (stats.memory.usage_limit if env.cgroup_v2() else stats.memory.usage.limit)


def test_update_goes_through_the_runtime(world):
    """Whose record of the limits would go stale otherwise."""
    container, fake = world.faked(memory=100 * MIB)
    container.run()
    container.update({"memory": {"limit": 50 * MIB}},
                     annotations=[protos.common.StringEntry(key="ignored", value="entirely")])
    (argv,) = fake.calls("update")
    assert argv[argv.index("update"):] in (["update", "--resources=-", container.id],
                                           ["update", "--resources", "-", container.id])


def test_update_of_a_paused_one(world):
    container = world.running(memory=100 * MIB)
    container.pause()
    container.update({"memory": {"limit": 60 * MIB}})
    assert limit_of(container.pid) == 60 * MIB
    assert container.status == "PAUSED"
    assert cgroups.frozen(container.pid)


def test_update_that_the_runtime_refuses(world):
    container = world.running()
    with pytest.raises(ttrpc.Error) as caught:
        container.update({"cpu": {"cpus": "no-such-cpu"}})
    assert caught.value.code == ttrpc.UNKNOWN
    assert container.status == "RUNNING"


def test_update_of_another_type(world):
    container = world.running()
    with pytest.raises(ttrpc.Error) as caught:
        container.update({}, type_url="types.containerd.io/opencontainers/runtime-spec/1/"
                         "WindowsResources")
    assert caught.value.code == ttrpc.INVALID_ARGUMENT


def test_pause_freezes(world):
    container = world.running()
    container.pause()
    assert cgroups.frozen(container.pid)
    assert world.sink.wait("paused", container.id)
    container.resume()
    assert not cgroups.frozen(container.pid)
    assert world.sink.wait("resumed", container.id)


def test_out_of_memory(world):
    container = world.running(["probe", "hog", "200"], memory=30 * MIB)
    assert container.wait(timeout=60).exit_status == 137
    assert world.sink.wait("oom", container.id)
    world.sink.wait("exit", container.id)
    if world.kind.ours:  # the reference sends it beside the queue of the others
        topics = [e.topic for e in world.sink.all(container.id)]
        assert topics == ["/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit"]
    container.delete()


def test_out_of_memory_of_an_exec(world):
    """Init lives on, and more may come."""
    container = world.running(memory=30 * MIB)
    for n in (1, 2):
        added = container.exec(f"e{n}", ["probe", "hog", "200"])
        added.start()
        assert added.finish(timeout=60).exit_status == 137
        world.sink.wait("oom", container.id, count=n)
    assert container.status == "RUNNING"


def test_no_out_of_memory_without_need(world):
    """On v1 the eventfd fires also when the group goes away."""
    container = world.running(["probe", "exit"], memory=30 * MIB)
    container.finish()
    world.sink.wait("delete", container.id)
    assert not world.sink.all(container.id, "oom")


def test_group_is_where_the_spec_says(world):
    container = world.running()
    assert f"{world.token}-{container.id}" in str(cgroups.of(container.pid, "memory"))
    assert container.pid in cgroups.members(cgroups.of(container.pid, "memory"))
    assert procs.parent(container.pid) == container.shim_pid()


@pytest.mark.skipif(not env.cgroup_v2(), reason="cgroup v2 only")
def test_controllers_are_enabled_for_the_group(world):
    container = world.running()
    files = {p.name for p in cgroups.of(container.pid, "").iterdir()}
    assert {"memory.events", "cpu.stat", "pids.current"} <= files


def test_stats_of_many_at_once(world):
    containers = [world.running(group="pod") for _ in range(4)]
    futures = [c.task.send("Stats", id=c.id) for c in containers for _ in range(10)]
    assert all(ttrpc.answer(f).stats.value for f in futures)


def test_statistics_file_gone(world):
    """Somebody removed the container from outside."""
    container = world.running()
    world.runtime("delete", "--force", container.id)
    container.wait()
    until(lambda: not cgroups.named(world.token))
    try:
        container.stats()
    except ttrpc.Error as error:
        assert error.code in (ttrpc.NOT_FOUND, ttrpc.UNKNOWN)
    container.delete()
