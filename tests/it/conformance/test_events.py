# SPDX-License-Identifier: Apache-2.0
"""Events: what is sent, in which order, and what happens when containerd is not there.

Sources: containerd repo, api/events/task.proto, runtime/v2/shim/publisher.go (1.6, 1.7),
pkg/shim/publisher.go (2.x), runtime/v2/runc/task/service.go.
"""
import time

import pytest

from kyb import env
from kyb.wait import until


def topics(world, container):
    return [e.topic.removeprefix("/tasks/") for e in world.sink.all(container.id)]


@pytest.mark.machine
def test_life_of_a_container(world):
    container = world.running()
    added = container.exec("e1", ["probe", "exit", "2"])
    added.start()
    added.finish()
    container.pause()
    container.resume()
    container.kill()
    container.finish()
    world.sink.wait("delete", container.id)
    assert topics(world, container) == ["create", "start", "exec-added", "exec-started", "exit",
                                        "paused", "resumed", "exit", "delete"]


def test_envelope(world):
    container = world.running()
    event = world.sink.wait("start", container.id)
    assert event.namespace == world.namespace
    assert event.envelope.event.type_url == "containerd.events.TaskStart"
    at = event.envelope.timestamp.seconds + event.envelope.timestamp.nanos / 1e9
    assert abs(at - event.arrived) < env.seconds(5)
    assert ("containerd-namespace-ttrpc", world.namespace) in event.metadata


def test_exit_of_init(world):
    container = world.running(["probe", "exit", "5"])
    answer = container.wait()
    event = world.sink.wait("exit", container.id)
    assert (event.id, event.pid, event.exit_status) == (container.id, container.pid, 5)
    assert event.exited_at == answer.exited_at


def test_delete_of_init(world):
    container = world.running(["probe", "exit", "5"])
    answer = container.finish()
    event = world.sink.wait("delete", container.id)
    assert (event.pid, event.exit_status, event.id) == (container.pid, 5, "")
    assert event.exited_at == answer.exited_at


def test_state_is_stopped_before_the_exit_is_told(world):
    """Who gets the event and asks must not be told 'running'."""
    container = world.running(["probe", "sleep", "100"])
    world.sink.wait("exit", container.id)
    assert container.status == "STOPPED"


def test_exactly_one_exit(world):
    container = world.running()
    container.kill()
    container.wait()
    container.delete()
    world.sink.wait("delete", container.id)
    assert topics(world, container).count("exit") == 1


def test_delete_of_a_created_one(world):
    """It never started, but it did exit."""
    container = world.container()
    container.create()
    container.delete()
    world.sink.wait("delete", container.id)
    world.sink.wait("exit", container.id)
    assert sorted(topics(world, container)) == ["create", "delete", "exit"]


def test_order_over_many_containers(world):
    """Strict for each of them."""
    everybody = [world.container(["probe", "exit"], group="pod") for _ in range(6)]
    for container in everybody:
        container.run()
    for container in everybody:
        container.finish()
    for container in everybody:
        world.sink.wait("delete", container.id)
        assert topics(world, container) == ["create", "start", "exit", "delete"]


def test_failed_publish_is_repeated(world):
    container = world.container()
    world.sink.fail(1)
    container.create()
    world.sink.wait("create", container.id, timeout=15)


def test_order_in_spite_of_a_failure(world):
    """An exit after the delete would confuse everybody."""
    container = world.container(["probe", "exit"])
    container.create()
    world.sink.wait("create", container.id)
    world.sink.fail(1)
    container.start()
    container.finish()
    world.sink.wait("start", container.id, timeout=15)
    world.sink.wait("delete", container.id, timeout=15)
    assert topics(world, container) == ["create", "start", "exit", "delete"]


def test_containerd_restarts(world):
    """The connection is gone, a new one is made; nothing waits for it."""
    container = world.container(["probe", "trap", "15", "3"], io="pipes")
    container.run()
    world.sink.wait("start", container.id)
    world.sink.stop()
    container.io.out.wait_for("ready")
    began = time.monotonic()
    container.exec("e", ["probe", "exit"]).start()
    container.kill(15)
    assert container.wait().exit_status == 3
    assert time.monotonic() - began < env.seconds(3)
    world.sink.start()
    world.sink.wait("exit", container.id, id=container.id, timeout=20)


def test_publishing_never_holds_up_a_call(world):
    """containerd takes the connection, and then answers nothing."""
    container = world.running()
    world.sink.wait("start", container.id)
    with world.sink.silence():
        began = time.monotonic()
        for n in range(5):
            container.pause()
            container.resume()
        assert container.status == "RUNNING"
        assert time.monotonic() - began < env.seconds(5)
    until(lambda: topics(world, container).count("resumed") == 5, timeout=30)


@pytest.mark.mess
def test_no_events_service_at_all(world):
    """Nobody is there: the RPCs are the truth."""
    world.sink.stop()
    container = world.running(["probe", "exit", "4"])
    assert container.finish().exit_status == 4


def test_no_address_for_events(world):
    """Without TTRPC_ADDRESS (a shim started by hand) there is nobody to tell, and no obstacle."""
    container = world.define(["probe", "exit", "4"])
    container.launch(more_env={"TTRPC_ADDRESS": ""})
    container.run()
    assert container.finish().exit_status == 4
    assert not world.sink.all(container.id)


def test_shim_ends_with_events_unsent(world):
    """Shutdown waits five seconds for them, not for ever."""
    world.sink.stop()
    container = world.running(["probe", "exit", "4"])
    container.finish()
    container.shutdown()
    until(lambda: not world.shims(), timeout=10)


@pytest.mark.mess
def test_shutdown_sends_what_is_left(world):
    container = world.running(["probe", "exit"])
    container.wait()
    world.sink.wait("exit", container.id)
    container.delete()
    container.shutdown()
    world.sink.wait("delete", container.id)
