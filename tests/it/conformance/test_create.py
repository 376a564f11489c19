# SPDX-License-Identifier: Apache-2.0
"""Create: what it makes, mounts and writes, how it calls the OCI runtime, and how it fails.

Sources: containerd repo, runtime/v2/runc/container.go, pkg/process/{init,utils}.go, mount/;
core/mount (2.x); go-runc repo.
"""
import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import time

import pytest

from kyb import env, procs, protos, rootfs, ttrpc
from kyb.stdio import Stdio, Uris
from kyb.wait import until
from kyb.world import ZERO_TIME


def fails(container, **fields):
    """The Error of a Create that must fail, and leave nothing behind of the container."""
    world = container.world
    with pytest.raises(ttrpc.Error) as caught:
        container.create(**fields)
    for method in ("State", "Start", "Delete"):
        with pytest.raises(ttrpc.Error) as unknown:
            container.task.do(method, id=container.id)
        assert unknown.value.code == ttrpc.NOT_FOUND
    assert procs.mounts_below(world.dir) == []
    assert container.id not in world.runtime_ids()
    # An event on its way would come before those of another container.
    other = world.running(["probe", "exit"], group=container.id)
    other.finish()
    world.sink.wait("delete", other.id)
    assert world.sink.all(container.id) == []
    return caught.value


# --- what it makes ---

@pytest.mark.machine
def test_answers_the_pid_of_init(world):
    container = world.container()
    pid = container.create()
    assert procs.alive(pid)
    assert (container.bundle / "init.pid").read_text().strip() == str(pid)
    assert procs.parent(pid) == container.shim_pid()


def test_state_after_create(world):
    container = world.container(io="stdin")
    pid = container.create()
    state = container.state()
    assert (state.id, state.bundle, state.pid) == (container.id, str(container.bundle), pid)
    assert container.status == "CREATED"
    assert (state.stdin, state.stdout, state.stderr) == (container.io.stdin, container.io.stdout,
                                                         container.io.stderr)
    assert (state.terminal, state.exit_status, state.exec_id) == (False, 0, "")
    assert (state.exited_at.seconds, state.exited_at.nanos) == (ZERO_TIME, 0)


def test_event_of_create(world):
    container = world.container(io="stdin")
    pid = container.create()
    event = world.sink.wait("create", container.id)
    assert (event.bundle, event.pid, event.checkpoint) == (str(container.bundle), pid, "")
    assert list(event.rootfs) == container.mounts
    assert (event.io.stdin, event.io.stdout, event.io.stderr, event.io.terminal) == (
        container.io.stdin, container.io.stdout, container.io.stderr, False)


def test_files_for_delete(world):
    """The delete of a later release reads them, so the form is a contract."""
    options = world.options(binary_name=env.which(env.RUNTIME), no_new_keyring=True)
    container = world.container(options=options)
    container.create()
    written = json.loads((container.bundle / "options.json").read_text())
    assert written["root"] == str(world.dir / "r")
    assert written["no_new_keyring"] is True
    assert (container.bundle / "runtime").read_text() == env.which(env.RUNTIME)
    for name in ("options.json", "runtime"):
        assert stat.S_IMODE((container.bundle / name).stat().st_mode) == 0o600


@pytest.mark.machine
def test_process_starts_with_clean_signals(world):
    """What is blocked or ignored survives exec: the container would inherit it."""
    container = world.running(["probe", "signals"], io="pipes")
    assert container.io.out.wait_end() == b"blocked\nignored\n"
    container.finish()


def test_process_has_only_its_three_descriptors(world):
    container = world.running(["probe", "fds"], io="pipes")
    lines = container.io.out.wait_end().decode().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1", "2"]
    container.finish()


@pytest.mark.machine
def test_user_namespace(world):
    """Its root may open /dev/stdout again: the pipes belong to it."""
    def mapped(spec):
        spec["linux"]["namespaces"].append({"type": "user"})
        for kind in ("uidMappings", "gidMappings"):
            spec["linux"][kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]

    world.dir.chmod(0o711)
    for folder in ("t", f"t/{world.namespace}"):
        (world.dir / folder).mkdir(exist_ok=True)
        (world.dir / folder).chmod(0o711)
    container = world.container(
        ["sh", "-c", "cat /proc/self/uid_map; echo again >/dev/stdout"], io="pipes", edit=mapped,
        options=world.options(io_uid=100000, io_gid=100000))
    container.run()
    assert container.wait().exit_status == 0
    lines = container.io.out.wait_end().decode().splitlines()
    assert lines[0].split() == ["0", "100000", "65536"]
    assert lines[1] == "again"
    container.delete()


def test_init_killed_before_start(world):
    container = world.container()
    pid = container.create()
    os.kill(pid, signal.SIGKILL)
    assert container.wait().exit_status == 137
    assert container.status == "STOPPED"
    assert world.sink.wait("exit", container.id).exit_status == 137
    container.delete()


def test_init_killed_before_create_answers(world):
    """The exit is known before the pid is: it must be kept for later."""
    container, fake = world.faked()
    fake.after("create", "kill -9 $(cat init.pid)")
    pid = container.create()
    assert container.wait().exit_status == 137
    assert container.status == "STOPPED"
    event = world.sink.wait("exit", container.id)
    assert (event.pid, event.exit_status) == (pid, 137)
    container.delete()
    assert len(world.sink.all(container.id, "exit")) == 1


# --- how the OCI runtime is called ---

@pytest.mark.machine
def test_command_line(world):
    container, fake = world.faked()
    container.run()
    (argv,) = fake.calls("create")
    systemd = ["--systemd-cgroup"] if env.DRIVER == "systemd" else []
    assert argv == ["--root", str(world.dir / "r" / world.namespace),
                    "--log", str(container.bundle / "log.json"), "--log-format", "json", *systemd,
                    "create", "--bundle", str(container.bundle),
                    "--pid-file", str(container.bundle / "init.pid"), container.id]
    (argv,) = fake.calls("start")
    assert argv[-2:] == ["start", container.id]


@pytest.mark.machine
def test_options_become_flags(world):
    fake = world.fake_runtime()
    container = world.container(options=world.options(
        binary_name=str(fake.path), no_pivot_root=True, no_new_keyring=True))
    container.create()
    (argv,) = fake.calls("create")
    assert "--no-pivot" in argv and "--no-new-keyring" in argv


def test_environment_of_the_runtime(world):
    """With NOTIFY_SOCKET runc would wait for a word from the container."""
    fake = world.fake_runtime()
    container = world.define()
    container.options = world.options(binary_name=str(fake.path))
    container.launch(more_env={"NOTIFY_SOCKET": "/run/systemd/notify", "KYB_MARK": "1"})
    container.create()
    (environ,) = fake.environments()
    assert "NOTIFY_SOCKET" not in environ
    assert environ["KYB_MARK"] == "1"


@pytest.mark.only_ours("containerd's shim goes by its environment's PATH alone")
def test_runtime_options_as_toml(world):
    """What CRI sends a runtime of another name: the options table as text."""
    fake = world.fake_runtime()
    body = (f'BinaryName = "{fake.path}"\nRoot = "{world.dir}/r"\nNoNewKeyring = true\n'
            f'SystemdCgroup = {str(env.DRIVER == "systemd").lower()}\n')
    options = protos.pack(protos.RUNTIME_OPTIONS, protos.options.Runtime(
        type_url=protos.RUNC_OPTIONS, config_body=body.encode()))
    container = world.container(options=options)
    container.run()
    (argv,) = fake.calls("create")
    assert "--no-new-keyring" in argv
    assert argv[argv.index("--root") + 1] == str(world.dir / "r" / world.namespace)


@pytest.mark.only_ours("containerd's shim knows only its own options")
def test_runtime_options_in_a_file(world):
    fake = world.fake_runtime()
    config = world.dir / "options.toml"
    config.write_text(f'BinaryName = "{fake.path}"\nRoot = "{world.dir}/r"\n'
                      f'SystemdCgroup = {str(env.DRIVER == "systemd").lower()}\n')
    options = protos.pack(protos.RUNTIME_OPTIONS, protos.options.Runtime(config_path=str(config)))
    container = world.container(options=options)
    container.run()
    assert fake.calls("create")


@pytest.mark.only_ours("containerd's shim knows only its own options")
def test_legacy_create_options(world):
    """What clients of 1.6 and 1.7 send for a runtime of another name."""
    options = protos.pack(protos.LEGACY_CREATE, protos.options.LegacyCreate(no_new_keyring=True))
    container = world.container(options=options)
    container.run()
    written = json.loads((container.bundle / "options.json").read_text())
    assert written["no_new_keyring"] is True


@pytest.mark.skipif(env.RUNTIME != "runc", reason="the default runtime is runc")
def test_no_options_at_all(world):
    container = world.define()
    container.options = None
    container.launch()
    if env.DRIVER == "systemd":
        pytest.skip("without options there is no systemd driver")
    container.run()
    assert os.listdir(f"/run/containerd/runc/{world.namespace}") == [container.id]


def test_large_spec(world):
    annotations = {f"key{n}": "x" * 1000 for n in range(1000)}
    container = world.running(["probe", "exit"], annotations=annotations)
    assert container.finish().exit_status == 0


# --- mounts ---

def root_mount(kind, *options, source="none", target=""):
    return protos.common.Mount(type=kind, source=str(source), target=target, options=options)


def test_rootfs_folder_is_made(world):
    container = world.container()
    container.rootfs.rmdir()
    container.create()
    assert procs.mounts_below(container.rootfs) == [str(container.rootfs)]


def test_no_mounts(world):
    """docker mounts the root by itself and names it in the spec."""
    container = world.container(["probe", "exit", "4"], rootfs=str(world.base))
    container.mounts = []
    container.run()
    assert container.finish().exit_status == 4


def test_bind_mount(world):
    container = world.container(["probe", "exit", "4"])
    container.mounts = [root_mount("bind", "rbind", "rw", source=world.base)]
    container.run()
    assert container.finish().exit_status == 4


@pytest.mark.machine
@pytest.mark.xfail(env.RUNTIME == "crun", strict=True, reason="crun makes the root file system "
                   "writable again unless the spec says that it is read-only")
def test_read_only_bind_mount(world):
    """ro of a bind mount takes a second call: without it the source would be open to writes."""
    container = world.container(["sh", "-c", "echo x >/new; probe exit 5"])
    container.mounts = [root_mount("bind", "rbind", "ro", source=world.base)]
    container.run()
    assert container.finish().exit_status == 5
    assert not (world.base / "new").exists()


def mount_fields(point):
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            fields = line.split()
            if fields[4] == str(point):
                return fields
    raise LookupError(point)


def test_mount_flags_and_data(world):
    container = world.container()
    container.mounts[0].options.extend(["nosuid", "nodev", "noatime"])
    container.create()
    options = mount_fields(container.rootfs)[5].split(",")
    assert {"nosuid", "nodev", "noatime"} <= set(options)


def test_mount_propagation(world):
    """A call of its own, after the mount."""
    container = world.container(host=())
    container.mounts = [root_mount("bind", "rbind", "rshared", source=world.base)]
    container.create()
    assert any(f.startswith("shared:") for f in mount_fields(container.rootfs)[6:9])


@pytest.mark.skipif(shutil.which("mke2fs") is None or not os.path.exists("/dev/loop-control"),
                    reason="needs mke2fs and loop devices")
@pytest.mark.parametrize("options", [["loop"], ["loop", "ro"]], ids=["rw", "ro"])
def test_loop_mount(world, options):
    """A file system in a file, as snapshotters with block devices hand it over."""
    image = world.dir / "image"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", world.base, image, "64M"], check=True,
                   capture_output=True)
    container = world.container(["sh", "-c", "echo x >/new || exit 7; exit 5"])
    container.mounts = [root_mount("ext4", *options, source=image)]
    container.run()
    device = os.path.basename(mount_fields(container.rootfs)[mount_fields(
        container.rootfs).index("-") + 2])
    assert device.startswith("loop")
    assert container.finish().exit_status == (7 if "ro" in options else 5)
    backing = pathlib.Path(f"/sys/block/{device}/loop/backing_file")
    until(lambda: not backing.exists() or str(image) not in backing.read_text(),
          what="the loop device is let go")


def test_several_mounts(world):
    """One over the other, and all gone after Delete."""
    container = world.container(["probe", "exit", "4"])
    container.mounts.append(root_mount("bind", "rbind", "ro", source=world.base))
    container.run()
    assert len(procs.mounts_below(container.rootfs)) == 2
    assert container.finish().exit_status == 4
    assert procs.mounts_below(container.rootfs) == []


def test_mount_with_a_target(world):
    """A field that 1.6 does not know."""
    container = world.container(["cat", "/tmp/inner"], io="pipes")
    extra = world.dir / "extra"
    extra.mkdir()
    (extra / "inner").write_text("there\n")
    container.mounts.append(root_mount("bind", "rbind", "ro", source=extra, target="/tmp"))
    container.run()
    assert container.io.out.wait_end() == b"there\n"
    container.finish()


def test_overlay_with_many_layers(world):
    """More option text than a page holds: relative names from a common folder."""
    container = world.container(["cat", "/layer0", "/layer99"], io="pipes")
    layers = world.dir / ("layers-" + "x" * 60)
    rootfs.make(layers / "base" / "fs")
    names = []
    for n in range(100):
        layer = layers / f"{n}" / "fs"
        layer.mkdir(parents=True)
        (layer / f"layer{n}").write_text(f"{n}\n")
        names.append(str(layer))
    assert sum(map(len, names)) > 8192
    upper, work = container.mounts[0].options[1:]
    container.mounts = [root_mount("overlay", f"lowerdir={':'.join(names)}:{layers}/base/fs",
                                   upper, work, source="overlay")]
    container.run()
    assert container.io.out.wait_end() == b"0\n99\n"
    container.finish()


def test_overlay_far_too_long_fails(world):
    container = world.container()
    names = ":".join(f"/{n}-{'x' * 200}/{'y' * 200}" for n in range(60))
    container.mounts = [root_mount("overlay", f"lowerdir={names}", source="overlay")]
    fails(container)


def test_failed_mount(world):
    container = world.container()
    container.mounts = [root_mount("nosuchfs")]
    assert "mount" in fails(container).message


def test_second_mount_fails(world):
    """The first is undone."""
    container = world.container()
    container.mounts.append(root_mount("bind", "rbind", source="/no/such/folder"))
    fails(container)


# --- failures ---

@pytest.mark.machine
def test_missing_runtime(world):
    """docker and containerd's tests look for the name in the text."""
    container = world.container(options=world.options(binary_name="no-runc"))
    error = fails(container)
    assert '"no-runc"' in error.message
    assert "executable file not found" in error.message


@pytest.mark.parametrize("args, text", [
    (["/no/such/program"], "no such file or directory"),
    (["no-such-program"], "executable file not found"),
    (["/etc/passwd"], "permission denied"),
], ids=["absolute", "searched", "not-executable"])
@pytest.mark.machine
def test_missing_program(world, args, text):
    """docker makes its exit codes 127 and 126 of these words; crun's differ a little."""
    container = world.container(args)
    error = fails(container)
    assert error.code == ttrpc.UNKNOWN
    assert "OCI runtime create failed" in error.message
    if env.RUNTIME == "runc":
        assert text in error.message


def test_missing_working_directory(world):
    container = world.container(cwd="relative")
    assert "OCI runtime create failed" in fails(container).message


def test_missing_rootfs(world):
    container = world.container(rootfs="/no/such/rootfs")
    container.mounts = []
    fails(container)


def test_broken_spec(world):
    container = world.container()
    (container.bundle / "config.json").write_text("{")
    fails(container)


def test_error_is_the_last_of_the_runtimes_log(world):
    """log.json only grows: the second failure must not be told with the words of the first."""
    container, fake = world.faked(["/no/such/first"])
    with pytest.raises(ttrpc.Error) as first:
        container.create()
    config = json.loads((container.bundle / "config.json").read_text())
    config["process"]["args"] = ["/no/such/second"]
    (container.bundle / "config.json").write_text(json.dumps(config))
    with pytest.raises(ttrpc.Error) as second:
        container.create()
    assert "/no/such/first" in first.value.message
    assert "/no/such/second" in second.value.message
    assert "/no/such/first" not in second.value.message
    assert len(fake.calls("create")) == 2


@pytest.mark.only_ours("containerd's shim looks for the last error in the whole log")
def test_silent_failure_is_not_told_with_old_words(world):
    container, fake = world.faked(["/no/such/first"])
    with pytest.raises(ttrpc.Error):
        container.create()
    fake.fail("create", "words on stderr")
    with pytest.raises(ttrpc.Error) as second:
        container.create()
    assert "/no/such/first" not in second.value.message


def test_create_again_after_a_failure(world):
    container = world.container(["/no/such/program"])
    with pytest.raises(ttrpc.Error):
        container.create()
    config = json.loads((container.bundle / "config.json").read_text())
    config["process"]["args"] = ["probe", "exit", "6"]
    (container.bundle / "config.json").write_text(json.dumps(config))
    container.run()
    assert container.finish().exit_status == 6


def test_missing_fifo(world):
    container = world.container(io=Uris("/no/such/fifo"))
    fails(container)


def test_unknown_scheme(world):
    container = world.container(io=Uris("gopher:///x"))
    assert "gopher" in fails(container).message


def test_create_waits_for_the_reader(world):
    """The client may open its ends late."""
    io = Stdio(world.dir / "late", read=False)
    container = world.container(["echo", "hello"], io=io)
    creating = container.task.send("Create", **container.create_request())
    time.sleep(0.3)  # not a wait for something: a chance to do the wrong thing
    assert not creating.done()
    readers = [Stdio.reader(io.stdout), Stdio.reader(io.stderr)]
    ttrpc.answer(creating)
    container.start()
    assert readers[0].wait_end() == b"hello\n"
    container.finish()
    for reader in readers:
        reader.close()


# --- side by side ---

def test_creates_of_a_pod_run_side_by_side(world):
    """One that is slow must not hold up another, nor what is asked about it."""
    first, fake = world.faked(group="pod")
    fake.hold("create")
    creating = first.task.send("Create", **first.create_request())
    fake.wait_call("create")
    second = world.container(group="pod")
    try:
        second.create(timeout=5)
        second.start()
        assert second.status == "RUNNING"
    finally:
        fake.release("create")
        ttrpc.answer(creating)


@pytest.mark.machine
def test_many_containers_in_one_shim(world):
    first = world.container(group="pod")
    others = [world.container(group="pod") for _ in range(7)]
    everybody = [first, *others]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        pids = list(pool.map(lambda c: c.run(), everybody))
    assert len(set(pids)) == 8
    assert len(world.shims()) == 1
    for container in everybody:
        assert container.state().pid == container.pid
        assert list(container.pids()) == [container.pid]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda c: c.kill(), everybody))
        answers = list(pool.map(lambda c: c.finish(), everybody))
    assert [a.exit_status for a in answers] == [137] * 8
    until(lambda: len(world.sink.all(topic="delete")) == 8)
