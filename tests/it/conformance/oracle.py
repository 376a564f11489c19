# SPDX-License-Identifier: Apache-2.0
"""Where containerd's own shim is known not to do what the conformance tests ask of a shim.

Each entry names a test, the releases concerned, and why. For those releases the test is expected
to fail on the oracle; with always=True (the rule) it is an error if it passes, so the table cannot
go stale unnoticed. Nothing here excuses our own shim from anything.
"""
import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Difference:
    why: str
    since: tuple = (0,)      # first release concerned
    until: tuple = (999,)    # first release no longer concerned
    always: bool = True      # False: a race that the oracle sometimes wins
    where: str = ""          # the machines concerned, all if empty


# Where some differences show only; conftest.py knows how to tell.
V2_OLD_RUNTIME = "cgroup v2 with runc before 1.2 or crun before 1.21"

_OLD_CGROUP = Difference("leaves it to the OCI runtime to tell CRIU the new cgroup: the processes "
                         "are restored into that of the dumped container",
                         where=V2_OLD_RUNTIME, always=False)

CRUN = "crun"
_CRUN_WORK = Difference("has crun open a work folder of CRIU's that is not there", where=CRUN,
                        always=False)
_CRUN_LOST = Difference("knows only runc's words for a container that is not there", where=CRUN)

DIFFERENCES = {
    # --- test_bootstrap ---
    "test_plain_answer_to_an_any": Difference(
        "2.x answers JSON to everybody, which 1.6 cannot read", since=(2,)),
    "test_plain_answer_to_no_input": Difference(
        "2.x answers JSON to everybody, which 1.6 cannot read", since=(2,)),
    "test_start_with_garbage_input_fails": Difference(
        "options that cannot be read count as none", since=(1, 7)),
    "test_start_takes_every_type_of_options": Difference(
        "1.6 knows only containerd.runc.v1.Options", until=(1, 7)),
    "test_daemon_has_no_descriptor_that_is_not_its_own": Difference(
        "hands every inherited descriptor to its daemon"),
    "test_address_file": Difference("2.x writes no address file", since=(2,)),
    "test_group_socket_is_removed": Difference(
        "2.x computes the socket to remove from the id, and leaks that of a group", since=(2,)),
    "test_two_starts_of_a_group_at_once": Difference(
        "takes a socket that is bound but not yet listening for a dead one", always=False),
    "test_group_shares_a_shim": Difference("2.x writes no address file", since=(2,)),
    "test_log_reader_gone": Difference(
        "with -debug it can hang in an endless loop of logging the SIGPIPE", always=False),
    "test_log_reader_stuck": Difference("can block in writing its log", always=False),
    "test_both_versions_of_the_task_service": Difference("serves one version of Task only"),
    "test_info": Difference("-info is new in 2.0", until=(2,)),
    "test_info_echoes_the_options": Difference("-info is new in 2.0", until=(2,)),
    "test_info_takes_every_type_of_options": Difference(
        "-info is new in 2.0, and knows only containerd.runc.v1.Options"),
    "test_info_without_features": Difference("-info is new in 2.0", until=(2,)),
    # --- test_ttrpc ---
    "test_stream_ids_must_rise": Difference("ttrpc 1.1 takes any id", until=(1, 7)),
    "test_data_for_no_stream": (
        Difference("ttrpc 1.1 knows no data frames", until=(1, 7)),
        Difference("a data frame for an unknown stream panics the whole shim", since=(1, 7))),
    "test_unknown_method_is_unimplemented[containerd.runtime.sandbox.v1.Sandbox-CreateSandbox]":
        Difference("1.7 has a stub of the Sandbox service", since=(1, 7), until=(2,)),
    "test_deadline_of_a_wait": Difference("Wait heeds the deadline from 2.2 on only",
                                          until=(2, 2)),
    # --- test_states ---
    "test_state_of_execs_that_do_not_run_beside_a_paused_init": Difference(
        "calls every exec of a paused container paused"),
    "test_second_create_is_refused": Difference(
        "runs the OCI runtime again, and hands on its complaint as Unknown"),
    "test_unknown_exec[CloseIO]": Difference("CloseIO answers Unknown, not NotFound"),
    "test_exec[deleted-CloseIO]": Difference("CloseIO answers Unknown, not NotFound"),
    "test_exec[running-Start]": Difference(
        "a second Start of an exec registers it twice: its exit then closes a closed channel, "
        "which panics the whole shim", since=(1, 7, 24), always=False),
    "test_state_is_pausing_while_the_runtime_works": Difference(
        "knows the state, but waits in State for the lock that Pause holds"),
    # --- test_create ---
    "test_mount_with_a_target": Difference("Mount.target is new in 1.7", until=(1, 7)),
    "test_mount_propagation": Difference(
        "has the second call for it, but takes the words for data of the file system"),
    "test_missing_fifo": Difference("leaves the runtime's container behind"),
    "test_creates_of_a_pod_run_side_by_side": Difference("one lock for all creates",
                                                         until=(2, 3)),
    # --- test_process ---
    "test_exec_named_init": Difference("writes the pid of such an exec over that of the container"),
    "test_exec_start_when_init_was_reaped": Difference(
        "leaves it to the OCI runtime to refuse", until=(1, 7, 24)),
    "test_exit_of_init_is_told_last[host-pid-ns]": Difference(
        "tells exits in the order of reaping", until=(1, 7, 24), always=False),
    "test_exit_of_init_is_told_last[own-pid-ns]": Difference(
        "tells exits in the order of reaping", until=(1, 7, 24), always=False),
    "test_execs_race_with_the_end_of_init": Difference(
        "tells exits in the order of reaping", until=(1, 7, 24), always=False),
    "test_wait_across_delete_of_a_created_one": Difference(
        "the waiter is never told: the exit comes when the state is 'deleted' already"),
    "test_shutdown_is_answered": Difference(
        "may close the connection before it has answered", always=False),
    # --- test_stdio ---
    "test_one_stream_missing": Difference("tries to open a file without a name"),
    "test_only_stdin": Difference("Create hangs"),
    "test_file_uri": Difference(
        "the stream that ends first can close the file before the other one is counted",
        always=False),
    "test_plain_file": Difference(
        "the stream that ends first can close the file before the other one is counted",
        always=False),
    "test_null_io_is_writable[exec]": Difference(
        "opens /dev/null for reading; runc opens it anew for init, but not for an exec"),
    # --- test_terminal ---
    "test_console_is_let_go": Difference("leaves the master to the garbage collector"),
    # --- test_events ---
    "test_order_in_spite_of_a_failure": Difference("what is sent again loses its place"),
    "test_shim_ends_with_events_unsent": Difference("goes on trying for longer", always=False),
    "test_shutdown_sends_what_is_left": Difference(
        "may end before the last event is out", since=(2,), always=False),
    # --- test_checkpoint ---
    **dict.fromkeys(("test_restore", "test_stats_after_a_restore", "test_command_line_of_restore",
                     "test_output_goes_on", "test_input_goes_on", "test_terminal",
                     "test_everything_works_after_a_restore", "test_two_copies_of_one_checkpoint",
                     "test_out_of_memory_after_a_restore", "test_checkpoint_of_a_restored_one",
                     "test_restored_crash",
                     "test_restore_into_its_own_cgroup[named]",
                     "test_restore_into_its_own_cgroup[chosen]"), (_CRUN_WORK, _OLD_CGROUP)),
    **dict.fromkeys(("test_leave_running", "test_exit", "test_paused_stays_paused",
                     "test_failure_of_criu_itself", "test_failed_restore",
                     "test_deadline_while_criu_works[RUNNING]",
                     "test_deadline_while_criu_works[PAUSED]",
                     "test_ctr_checkpoint_and_restore"), _CRUN_WORK),
    **dict.fromkeys(("test_kill_of_a_container_that_the_runtime_lost",
                     "test_statistics_file_gone"), _CRUN_LOST),
    "test_state_answers_during_a_dump": Difference("State waits for the lock that the dump holds"),
    # --- test_resources ---
    "test_stats_in_other_states[stopped]": Difference(
        "on cgroup v2 it answers Unknown when systemd has removed the group", always=False),
    "test_update_of_another_type": Difference("takes whatever comes for LinuxResources"),
    "test_out_of_memory": Difference("may miss it when the container is gone quickly",
                                     always=False),
    # --- test_containerd, test_cri ---
    "test_life": Difference("may end before the last event is out", since=(2,), always=False),
    "test_events_after_a_restart": Difference(
        "may end before the last event is out", since=(2,), always=False),
    "test_crash_of_the_shim_is_cleaned_up": Difference(
        "announces version 3, for which containerd runs no 'delete' for the containers of a pod",
        since=(2, 1)),
    "test_pause_container_ends_first": Difference(
        "announces version 3, and lives on when the pod's own container was deleted first",
        since=(2, 1), always=False),
    "test_probes_in_parallel": Difference(
        "keeps descriptors until the garbage collector comes by", always=False),
    "test_nothing_of_a_pod_stays": Difference(
        "can end while the runtime removes the pod's control group, and part of it stays",
        always=False),
    "test_terminals_do_not_leak": Difference("leaves the master to the garbage collector",
                                             always=False),
    # --- test_crash ---
    "test_delete_of_one_never_created": (
        Difference("cannot do without the file 'runtime'", until=(2,)),
        Difference("answers pid -1 for none", since=(2,))),
    "test_delete_when_the_runtime_leaves_the_cgroup": Difference("does not look after it"),
    "test_delete_ends_a_shared_pid_namespace": Difference(
        "leaves the cgroup when runc finds it still busy with what it killed", always=False),
    "test_delete_unmounts_what_is_stacked": Difference("does not look below the rootfs",
                                                       until=(1, 7)),
}


def forgives(leftover, version):
    """Whether something that a world left behind is known of the oracle (and has a test of its
    own above), so that not every test has to fail for it."""
    # 2.x leaks the socket of every group, and now and then any other: its ttrpc server may end
    # the process (log.Fatal) before it gets to remove it.
    return version >= (2,) and leftover.startswith("socket ")


def forgives_node(leftover):
    """The same for a node: see test_nothing_of_a_pod_stays."""
    return leftover.startswith("cgroup ") and "-pods/" in leftover


def difference(item_name, version, here):
    """The entry for a test item ('test_x[runc-v2-param]') and a release, or None. here: what of
    'where' this machine is.

    An entry for 'test_x[param]' goes before one for 'test_x'.
    """
    name, _, rest = item_name.partition("[")
    param = "-".join(part for part in re.split("-?runc-v2-?", rest.rstrip("]")) if part)
    entry = DIFFERENCES.get(f"{name}[{param}]") or DIFFERENCES.get(name)
    if entry is None:
        return None
    for one in entry if isinstance(entry, tuple) else (entry,):
        if one.since <= version < one.until and (not one.where or one.where in here):
            return one
    return None


def check_names(collected, complete):
    """Every entry names a test that exists; only checked when all tests were collected."""
    unknown = {name.partition("[")[0] for name in DIFFERENCES} - collected if complete else set()
    assert not unknown, f"oracle.py names tests that do not exist: {unknown}"
