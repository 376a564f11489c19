# SPDX-License-Identifier: Apache-2.0
"""How containerd runs the program's 'start': arguments, input, answer, socket, and the daemon.

Sources: containerd repo, runtime/v2/{binary.go,shim/} (1.6, 1.7), pkg/shim and core/runtime/v2
(2.x), {runtime/v2/runc,cmd/containerd-shim-runc-v2}/manager.
"""
import concurrent.futures
import ctypes
import json
import os
import signal
import socket
import stat
import subprocess
import sys

import pytest

from kyb import cgroups, env, procs, protos, starter, ttrpc
from kyb.wait import open_pid, pid_exit, until
from kyb.world import TASK_V2, TASK_V3


# --- the answer ---

@pytest.mark.machine
def test_start_answers_an_address_that_listens(world):
    container = world.define()
    assert world.program(container, "start").status == 0
    container.connect(world.service_of(container))
    assert container.shim_pid() in world.shims()


def test_start_prints_nothing_else(world):
    container = world.define()
    result = world.program(container, "start")
    assert result.stderr == b""
    assert starter.exists(result.reply.address)
    assert container.log() is not None


def test_daemon_holds_no_descriptor_of_start(world):
    """containerd reads the output of start to its end: a daemon that kept it would hang it."""
    container = world.container()
    assert container.started.seconds < env.seconds(5)
    fds = procs.fds(container.shim_pid())
    assert fds[0] == fds[1] == "/dev/null"
    assert fds[2].endswith("/log")


def test_plain_answer_to_an_any(world):
    """1.6 takes the whole output for the address, so no other form will do for its input."""
    container = world.define()
    world.program(container, "start", stdin=world.options().SerializeToString())
    assert container.started.stdout.decode().strip() == container.address
    assert container.started.reply.form == "plain"


def test_plain_answer_to_no_input(world):
    container = world.define()
    world.program(container, "start")
    assert container.started.reply.form == "plain"


# --- the input ---

@pytest.mark.only_ours("BootstrapParams are new in 2.3")
def test_bootstrap_params_get_a_protobuf_answer(world):
    container = world.define()
    params = starter.bootstrap(container.id, world.namespace, world.grpc, world.ttrpc,
                               container.options)
    container.launch(params.SerializeToString())
    reply = container.started.reply
    assert (reply.form, reply.version, reply.protocol) == ("proto", 2, "ttrpc")
    assert reply.address.startswith("unix:///run/containerd/s/")
    container.run()


@pytest.mark.only_ours("BootstrapParams are new in 2.3")
@pytest.mark.parametrize("level", [-8, -4, 0, 4, 12])
def test_bootstrap_log_levels(world, level):
    """The enum is signed: a negative level is a ten-byte varint."""
    container = world.define()
    params = starter.bootstrap(container.id, world.namespace, world.grpc, world.ttrpc,
                               container.options, log_level=level)
    container.launch(params.SerializeToString())
    assert container.started.reply.form == "proto"
    assert ("-debug" in procs.command(container.shim_pid())) == (level < 0)


@pytest.mark.only_ours("BootstrapParams are new in 2.3")
def test_bootstrap_instead_of_the_command_line(world):
    """2.3 says everything twice, and means to drop flags and environment in a later release."""
    container = world.define(["probe", "exit", "4"])
    params = starter.bootstrap(container.id, world.namespace, world.grpc, world.ttrpc,
                               container.options)
    done = starter.run(container.kind, ["start"], container.bundle, params.SerializeToString())
    assert (done.status, done.stderr) == (0, b"")
    container.started = done
    container.address = done.reply.address
    world.addresses.add(container.address)
    assert container.address == "unix://" + starter.socket_path(world.grpc, world.namespace,
                                                                container.id)
    container.connect(world.service_of(container))
    container.run()
    assert container.finish().exit_status == 4
    world.sink.wait("delete", container.id)


@pytest.mark.only_ours("BootstrapParams are new in 2.3")
@pytest.mark.parametrize("namespace, container_id", [("", "c"), ("../x", "c"), ("n", "a/b")])
def test_bootstrap_with_bad_names(world, namespace, container_id):
    """They become parts of paths: refused wherever they come from."""
    container = world.define()
    params = starter.bootstrap(container_id, namespace, world.grpc, world.ttrpc,
                               container.options)
    done = starter.run(container.kind, ["start"], container.bundle, params.SerializeToString())
    assert (done.status, done.stdout) == (1, b"")
    assert done.stderr.strip()
    assert not world.shims()


@pytest.mark.only_ours("BootstrapParams are new in 2.3")
def test_bootstrap_unknown_fields_are_skipped(world):
    """What a later release adds: a varint, a fixed64, a length-delimited and a fixed32 field."""
    container = world.define()
    params = starter.bootstrap(container.id, world.namespace, world.grpc, world.ttrpc,
                               container.options).SerializeToString()
    later = (bytes([0xa0, 0x06, 0x05]) + bytes([0xa9, 0x06]) + bytes(8) +
             bytes([0xb2, 0x06, 0x03]) + b"abc" + bytes([0xbd, 0x06]) + bytes(4))
    container.launch(later + params)
    assert container.started.reply.form == "proto"


@pytest.mark.only_ours("BootstrapParams are new in 2.3")
def test_bootstrap_without_extensions(world):
    container = world.define()
    container.options = None
    params = starter.bootstrap(container.id, world.namespace, world.grpc, world.ttrpc)
    container.launch(params.SerializeToString())
    assert container.started.reply.form == "proto"


@pytest.mark.only_ours("BootstrapParams are new in 2.3")
def test_bootstrap_socket_dir(world):
    """The socket goes where containerd says, and the bundle points there."""
    container = world.define()
    folder = world.dir / "s"
    params = starter.bootstrap(container.id, world.namespace, world.grpc, world.ttrpc,
                               container.options, socket_dir=str(folder))
    container.launch(params.SerializeToString())
    assert container.address == "unix://" + starter.socket_path(
        world.grpc, world.namespace, container.id, socket_dir=str(folder))
    assert os.readlink(container.bundle / "s") == str(folder)


@pytest.mark.only_ours("BootstrapParams are new in 2.3")
def test_any_is_not_taken_for_bootstrap_params(world):
    """Both messages begin with two length-delimited fields; what tells them apart is whether the
    first two are this shim's id and namespace."""
    container = world.define()
    foreign = starter.bootstrap("another", world.namespace, world.grpc, world.ttrpc)
    assert foreign.ByteSize() > 0
    result = world.program(container, "start", stdin=foreign.SerializeToString())
    assert result.status != 0 or result.reply.form == "plain"


def test_options_of_the_runc_type(world):
    container = world.container()
    assert container.started.status == 0
    container.run()


def test_start_with_garbage_input_fails(world):
    """A protobuf that ends in the middle of a field."""
    container = world.define()
    result = world.program(container, "start", stdin=b"\x0a\xff\xff\xff\x7f!")
    assert result.status == 1
    assert result.stderr.strip()
    until(lambda: not world.shims(), what="no daemon left")
    assert not os.path.exists(starter.socket_path(world.grpc, world.namespace, container.id))


@pytest.mark.parametrize("options", [
    protos.pack(protos.RUNTIME_OPTIONS, protos.options.Runtime(type_url="kybernate")),
    protos.pack(protos.LEGACY_CREATE, protos.options.LegacyCreate()),
    protos.pack("type.googleapis.com/" + protos.RUNC_OPTIONS, protos.options.Runc()),
], ids=["runtimeoptions", "legacy", "prefixed"])
def test_start_takes_every_type_of_options(world, options):
    container = world.define()
    container.options = options
    container.launch(options.SerializeToString())


# --- arguments ---

@pytest.mark.parametrize("form", ["-flag value", "-flag=value", "--flag value", "--flag=value"])
def test_argument_forms(world, form):
    """Those of Go's flag package."""
    container = world.define()
    pairs = [("namespace", world.namespace), ("address", world.grpc),
             ("publish-binary", "/usr/bin/containerd"), ("id", container.id)]
    dashes = "--" if form.startswith("--") else "-"
    argv = []
    for name, value in pairs:
        argv += [f"{dashes}{name}={value}"] if "=" in form else [dashes + name, value]
    result = world.program(container, "start", argv=argv + ["start"])
    assert result.status == 0, result
    assert result.reply.address.endswith(starter.socket_path(world.grpc, world.namespace,
                                                             container.id))


@pytest.mark.parametrize("flag", ["-debug", "-debug=true", "--debug", "-debug=1", "-debug=false"])
def test_debug_flag(world, flag):
    container = world.define()
    argv = starter.arguments(world.namespace, container.id, world.grpc, flag, "start")
    assert world.program(container, "start", argv=argv).status == 0


def test_double_dash_ends_the_flags(world):
    container = world.define()
    argv = starter.arguments(world.namespace, container.id, world.grpc, "--", "start")
    assert world.program(container, "start", argv=argv).status == 0


def test_words_after_the_action_are_ignored(world):
    container = world.define()
    argv = starter.arguments(world.namespace, container.id, world.grpc, "start", "-bogus")
    assert world.program(container, "start", argv=argv).status == 0


def test_unknown_flag_is_refused(world):
    container = world.define()
    argv = starter.arguments(world.namespace, container.id, world.grpc, "-bogus", "start")
    result = world.program(container, "start", argv=argv)
    assert result.status == 2
    assert b"bogus" in result.stderr
    assert result.stdout == b""


def test_missing_value_is_refused(world):
    container = world.define()
    result = world.program(container, argv=["-namespace", world.namespace, "-id"])
    assert result.status == 2
    assert b"id" in result.stderr


@pytest.mark.parametrize("action", ["start", "delete"])
def test_empty_namespace_is_refused(world, action):
    container = world.define()
    argv = ["-address", world.grpc, "-publish-binary", "/usr/bin/containerd", "-id", container.id,
            action]
    result = world.program(container, argv=argv)
    assert result.status == 1
    assert b"namespace" in result.stderr
    assert result.stdout == b""


def test_version(world):
    """-v needs no namespace."""
    container = world.define()
    result = world.program(container, argv=["-v"])
    assert result.status == 0
    assert b"ersion" in result.stdout


def test_missing_config_is_refused(world):
    container = world.define()
    (container.bundle / "config.json").unlink()
    result = world.program(container, "start")
    assert result.status == 1
    assert b"config.json" in result.stderr
    assert not world.shims()
    assert not os.path.exists(starter.socket_path(world.grpc, world.namespace, container.id))


def test_broken_config_is_refused(world):
    container = world.define()
    (container.bundle / "config.json").write_text('{"annotations": {', encoding="ascii")
    result = world.program(container, "start")
    assert result.status == 1
    assert result.stderr.strip()
    assert not world.shims()


# --- the socket ---

def test_socket_path_is_what_others_compute(world):
    container = world.container()
    assert container.address == "unix://" + starter.socket_path(world.grpc, world.namespace,
                                                                container.id)


@pytest.mark.parametrize("written", ["//run//kt/./x/../c.sock", "/run/kt/c.sock/", "run/c.sock"])
def test_socket_path_of_an_uncleaned_address(world, written):
    """Go's filepath.Join cleans what it joins, before the hash is taken."""
    container = world.define()
    argv = starter.arguments(world.namespace, container.id, written, "start")
    world.program(container, "start", argv=argv)
    assert container.address == "unix://" + starter.socket_path(written, world.namespace,
                                                                container.id)


def test_socket_is_private(world):
    container = world.container()
    path = container.address.removeprefix("unix://")
    mode = os.stat(path).st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) & 0o077 == 0


def test_address_file(world):
    """1.6 and 1.7 read it to find the task again after a restart."""
    container = world.container()
    assert (container.bundle / "address").read_text() == container.address


def test_stale_socket_is_replaced(world):
    """What a crashed shim left: a socket file that nobody listens on."""
    container = world.define()
    path = starter.socket_path(world.grpc, world.namespace, container.id)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(path)
    container.launch()
    assert container.address == f"unix://{path}"
    container.run()


def test_failed_start_leaves_no_socket(world):
    container = world.define()
    options = world.options(shim_cgroup="/kyb-there-is-no-such-group")
    result = world.program(container, "start", stdin=options.SerializeToString())
    assert result.status == 1
    assert result.stderr.strip()
    assert not os.path.exists(starter.socket_path(world.grpc, world.namespace, container.id))
    until(lambda: not world.shims(), what="no daemon left")


def test_other_users_are_turned_away(world):
    """Even one who may open the socket file: the shim looks at the peer's credentials."""
    container = world.container()
    path = container.address.removeprefix("unix://")
    code = ("import socket,sys\n"
            "s = socket.socket(socket.AF_UNIX)\n"
            "s.settimeout(20)\n"
            "s.connect(sys.argv[1])\n"
            "try:\n"
            "    s.sendall(bytes.fromhex(sys.argv[2]))\n"
            "    print(len(s.recv(100)))\n"
            "except (BrokenPipeError, ConnectionResetError):\n"
            "    print(0)\n")
    data = ttrpc.frame(1, ttrpc.REQUEST, ttrpc.request(
        container.task.service, "Connect", protos.task.ConnectRequest(id="x")))

    def ask(*prefix):
        done = subprocess.run([*prefix, sys.executable, "-c", code, path, data.hex()],
                              capture_output=True, text=True, check=True,
                              timeout=env.seconds(30))
        return int(done.stdout)

    assert ask() > 0
    assert ask("setpriv", "--reuid=1000", "--clear-groups", "--inh-caps=+dac_override",
               "--ambient-caps=+dac_override") == 0
    assert container.shim_pid() in world.shims()


# --- groups ---

@pytest.mark.parametrize("annotation", ["io.containerd.runc.v2.group",
                                        "io.kubernetes.cri.sandbox-id"])
def test_group_shares_a_shim(world, annotation):
    first = world.container(annotations={annotation: "pod"})
    second = world.container(annotations={annotation: "pod"})
    assert first.address == second.address == "unix://" + starter.socket_path(
        world.grpc, world.namespace, "pod")
    assert len(world.shims()) == 1
    assert (second.bundle / "address").read_text() == first.address


@pytest.mark.parametrize("group", ["g" * 300, "team a/pod #1", "../up/./side"],
                         ids=["long", "any-text", "uncleaned"])
def test_group_may_be_any_text(world, group):
    """Nobody has to have made an identifier of a label; it only goes into the socket's name."""
    container = world.container(group=group)
    assert container.address == "unix://" + starter.socket_path(world.grpc, world.namespace, group)
    container.run()


def test_group_socket_is_removed(world):
    container = world.container(group="pod")
    container.shutdown()
    until(lambda: not world.shims())
    assert not starter.exists(container.address)


def test_group_annotation_goes_before_the_sandbox_id(world):
    container = world.container(annotations={"io.containerd.runc.v2.group": "first",
                                             "io.kubernetes.cri.sandbox-id": "second"})
    assert container.address == "unix://" + starter.socket_path(world.grpc, world.namespace,
                                                                "first")


def test_two_starts_of_a_group_at_once(world):
    """Only one may win: bind is the arbiter."""
    members = [world.define(group="pod") for _ in range(6)]
    with concurrent.futures.ThreadPoolExecutor(len(members)) as pool:
        results = list(pool.map(lambda c: world.program(c, "start"), members))
    assert [r.status for r in results] == [0] * len(members), results
    assert len({r.reply.address for r in results}) == 1
    assert len(until(world.shims)) == 1


def test_debug_has_its_own_socket_or_none(world):
    """The task socket's name does not change with -debug."""
    container = world.define()
    world.program(container, "start", debug=True)
    assert container.address == "unix://" + starter.socket_path(world.grpc, world.namespace,
                                                                container.id)
    world.addresses.add("unix://" + starter.socket_path(world.grpc, world.namespace,
                                                        container.id, debug=True))


# --- the daemon ---

def test_daemon_is_its_own_process_group_in_the_bundle(world):
    container = world.container()
    pid = container.shim_pid()
    assert os.getpgid(pid) == pid
    assert os.readlink(f"/proc/{pid}/cwd") == str(container.bundle)


def test_daemon_has_no_descriptor_that_is_not_its_own(world):
    """Nothing that the caller of start held open: only devices, sockets, and files of the kernel
    and of the bundle."""
    leak = world.dir / "leak"
    with open(leak, "w", encoding="ascii") as held:
        os.set_inheritable(held.fileno(), True)
        container = world.define()
        argv = starter.arguments(world.namespace, container.id, world.grpc, "start")
        world.program(container, "start", argv=argv, close_fds=False)
    container.connect(world.service_of(container))
    targets = procs.fds(container.shim_pid()).values()
    assert str(leak) not in targets


@pytest.mark.machine
def test_oom_score_is_one_above_its_starter(world):
    container = world.container()
    ours = int(open("/proc/self/oom_score_adj", encoding="ascii").read())
    score = int(open(f"/proc/{container.shim_pid()}/oom_score_adj", encoding="ascii").read())
    assert score == min(1000, ours + 1)


PR_SCHED_CORE, PR_SCHED_CORE_GET = 62, 0


def core_scheduling(option, command, pid=0):
    """What prctl(2) tells of a process's core-scheduling cookie; None where it cannot."""
    cookie = ctypes.c_ulonglong()
    done = ctypes.CDLL(None).prctl(option, ctypes.c_ulong(command), ctypes.c_ulong(pid),
                                   ctypes.c_ulong(0), ctypes.byref(cookie))
    return cookie.value if done == 0 else None


def test_core_scheduling(world):
    """SCHED_CORE: a cookie of its own for the shim and what it starts; where the kernel has none
    'start' must fail, for containerd was told to separate pods."""
    has = core_scheduling(PR_SCHED_CORE, PR_SCHED_CORE_GET) is not None
    container = world.define()
    world.program(container, "start", stdin=container.start_input(),
                  more_env={"SCHED_CORE": "1"})
    if not has:
        assert container.started.status != 0
        assert not world.shims()
        return
    container.connect(world.service_of(container))
    assert core_scheduling(PR_SCHED_CORE, PR_SCHED_CORE_GET, container.shim_pid())


@pytest.mark.machine
def test_shim_cgroup(world):
    """The daemon is in the group before the answer is printed."""
    name = f"/{world.token}-shim"
    tops = [top for top in cgroups.hierarchies()
            if env.cgroup_v2() or top.name not in ("unified", "systemd")]
    for top in tops:
        (top / name.lstrip("/")).mkdir()
        if top.name == "cpuset":  # a new v1 cpuset takes nobody in before it has these
            for file in ("cpuset.cpus", "cpuset.mems"):
                value = (top / file).read_text(encoding="ascii")
                (top / name.lstrip("/") / file).write_text(value, encoding="ascii")
    container = world.define()
    options = world.options(shim_cgroup=name)
    container.options = options
    container.launch(options.SerializeToString() if starter.dialect() == "any" else None)
    pid = container.shim_pid()
    for top in tops:
        procs_file = top / name.lstrip("/") / "cgroup.procs"
        assert str(pid) in procs_file.read_text(encoding="ascii").split(), procs_file
    container.run()
    container.kill()
    container.finish()
    container.shutdown()
    until(lambda: not world.shims())
    cgroups.remove(world.token)


def test_signal_dispositions_of_the_daemon(world):
    """A write to a FIFO whose reader left must not kill the shim."""
    container = world.container()
    pid = container.shim_pid()
    os.kill(pid, signal.SIGPIPE)
    os.kill(pid, signal.SIGUSR1)
    assert container.shim_pid() == pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
@pytest.mark.mess
def test_termination_ends_the_shim_but_not_the_container(world, number):
    """containerd then runs 'delete', which kills the container; it is not for the shim to do."""
    container = world.running()
    shim = container.shim_pid()
    watch = open_pid(shim)
    os.kill(shim, number)
    assert pid_exit(watch, 15)
    os.close(watch)
    assert procs.alive(container.pid)
    assert not starter.exists(container.address)


def test_log_lines_have_containerds_form(world):
    """containerd copies them to its own log as they are."""
    container = world.define()
    container.launch(debug=True)
    container.run()
    container.kill()
    container.finish()
    for line in container.log().splitlines():
        assert line.startswith("time=\"") and " level=" in line and " msg=" in line, line


def test_log_reader_gone(world):
    """containerd is away: writing the log must not kill the shim."""
    container = world.define()
    container.launch(debug=True)
    world.close_log(container.id)
    container.run(timeout=5)
    container.kill()
    container.finish()


def test_log_reader_stuck(world):
    """A full log FIFO must not stop the shim."""
    container = world.define()
    container.launch(debug=True)
    log = world.log_fifo(container.id)
    log.fill()
    container.run(timeout=5)
    assert container.status == "RUNNING"
    container.kill()
    container.finish()


def test_shutdown_removes_the_socket_and_ends_the_shim(world):
    container = world.container()
    watch = open_pid(container.shim_pid())
    container.shutdown()
    assert pid_exit(watch, 10)
    os.close(watch)
    assert not starter.exists(container.address)


def test_both_versions_of_the_task_service(world):
    """containerd 2.x falls back from v3 to v2 only on Unimplemented, and tests dial v3."""
    container = world.container()
    for service in (TASK_V2, TASK_V3):
        client = container.connect(service)
        assert client.do("Connect", id=container.id).shim_pid in world.shims()


# --- -info ---

def info(world, options=None):
    container = world.define()
    stdin = options.SerializeToString() if options is not None else b""
    result = world.program(container, argv=["-info"], stdin=stdin)
    assert result.status == 0, result
    return protos.options.RuntimeInfo.FromString(result.stdout)


def test_info(world):
    """2.0+; containerd asks for it without a namespace."""
    answer = info(world)
    assert answer.name
    assert answer.version.version
    assert answer.features.type_url == \
        "types.containerd.io/opencontainers/runtime-spec/1/features/Features"
    assert "ociVersionMin" in json.loads(answer.features.value)


def test_info_echoes_the_options(world):
    options = world.options()
    assert info(world, options).options == options


@pytest.mark.parametrize("options", [
    protos.pack(protos.RUNTIME_OPTIONS, protos.options.Runtime(type_url="kybernate")),
    protos.pack(protos.LEGACY_CREATE, protos.options.LegacyCreate()),
], ids=["runtimeoptions", "legacy"])
def test_info_takes_every_type_of_options(world, options):
    assert info(world, options).name


def test_info_without_features(world):
    """The runtime may not know 'features'."""
    fake = world.fake_runtime()
    fake.fail("features")
    answer = info(world, world.options(binary_name=str(fake.path)))
    assert answer.name and not answer.features.type_url
