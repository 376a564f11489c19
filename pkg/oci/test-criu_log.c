/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "oci/criu_log.h"
#include "tests/golden.h"

static void digest_of(const char *text, enum criu_log_kind kind, struct criu_digest *ret)
{
	struct criu_log log;

	criu_log_begin(&log, kind);
	criu_log_feed(&log, bytes_of(text, strlen(text)));
	criu_log_end(&log, ret);
}

/* Every real log: its reason, and a word of the advice (NULL: no cause is known). */
static void real_failures_are_known(void **state)
{
	static const struct {
		const char *file;
		enum reason reason;
		const char *advice;
	} cases[] = {
		{ "4.1.1-dump-tcp", REASON_CRIU_DUMP_FAILED, "checkpoint.tcp_established" },
		{ "4.1.1-dump-unix", REASON_CRIU_DUMP_FAILED, "outside of the container" },
		{ "4.1.1-dump-file-lock", REASON_CRIU_DUMP_FAILED, "checkpoint.file_locks" },
		{ "4.1.1-dump-ghost", REASON_CRIU_DUMP_FAILED, "ghost-limit" },
		{ "4.1.1-dump-link-remap", REASON_CRIU_DUMP_FAILED, "link-remap" },
		{ "4.1.1-dump-io-uring", REASON_IO_URING, "io_uring" },
		{ "4.1.1-dump-io-uring-mapped", REASON_IO_URING, "io_uring" },
		{ "4.1.1-dump-device", REASON_LEFTOVER_DEVICE_FD, "character device" },
		{ "4.1.1-dump-perf", REASON_CRIU_DUMP_FAILED, "perf events" },
		{ "4.1.1-dump-userfaultfd", REASON_CRIU_DUMP_FAILED, "userfaultfd" },
		{ "4.1.1-dump-traced", REASON_TIMEOUT, "debugger" },
		{ "4.1.1-dump-disk-full", REASON_STORE_FULL, "store" },
		{ "4.1.1-restore-file-missing", REASON_ROOTFS_FAILED, "missing here" },
		{ "4.1.1-restore-file-size", REASON_ROOTFS_FAILED, "differs" },
		{ "4.1.1-restore-mount-missing", REASON_CRIU_RESTORE_FAILED, "same volumes" },
		{ "4.1.1-restore-pid-in-use", REASON_CRIU_RESTORE_FAILED, "process id" },
		{ "4.1.1-restore-memory-limit", REASON_CRIU_RESTORE_FAILED, "memory limit" },
		{ "4.1.1-restore-bad-magic", REASON_IMAGE_CORRUPT, "another checkpoint" },
		{ "4.1.1-restore-no-inventory", REASON_IMAGE_CORRUPT, "another checkpoint" },
		{ "4.1.1-restore-no-pstree", REASON_IMAGE_CORRUPT, "another checkpoint" },
		{ "4.1.1-restore-pages-short", REASON_IMAGE_CORRUPT, "another checkpoint" },
		{ "4.2.1-restore-address-gone", REASON_CRIU_RESTORE_FAILED, "address" },
		{ "4.2.1-restore-port-in-use", REASON_CRIU_RESTORE_FAILED, "port" },
		{ "4.2.1-restore-tcp-flag", REASON_CRIU_RESTORE_FAILED, "tcp_established" },
		{ "4.2.1-restore-unix-flag", REASON_CRIU_RESTORE_FAILED, "ext_unix_sk" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_buf_ struct buf text = BUF_NULL;
		struct error err = ERROR_NULL;
		struct criu_digest d;
		char name[80];

		(void)snprintf(name, sizeof(name), "criu-log/%s.log", cases[i].file);
		text = golden(name);
		digest_of(buf_str(&text), strstr(name, "-dump-") ? CRIU_LOG_DUMP : CRIU_LOG_RESTORE,
			  &d);
		if (d.reason != cases[i].reason)
			fail_msg("%s: %s", cases[i].file, reason_name(d.reason));
		if (!d.advice || !strstr(d.advice, cases[i].advice))
			fail_msg("%s: advice %s", cases[i].file, d.advice);
		assert_int_equal(criu_digest_error(&d, "/log", &err), -EIO);
		assert_non_null(strstr(error_text(&err), d.cause.text));
		assert_non_null(strstr(error_text(&err), d.advice));
		assert_int_equal(err.reason, cases[i].reason);
	}
}

static void nvidias_leftovers_have_their_reasons(void **state)
{
	struct criu_digest d;

	(void)state;
	digest_of("(00.1) Error (criu/files-ext.c:94): Can't dump file 9 of that type [20666] "
		  "(chr 195:255)\n",
		  CRIU_LOG_DUMP, &d);
	assert_int_equal(d.reason, REASON_LEFTOVER_DEVICE_FD);
	assert_non_null(strstr(d.advice, "NVML"));
	digest_of("(00.1) Handling VMA with the following smaps entry: 200000000-200200000 rw-s "
		  "00000000 00:06 42 /dev/nvidia-uvm\n"
		  "(00.2) Error (criu/proc_parse.c:1): Can't handle non-regular mapping on 7's map "
		  "200000000\n",
		  CRIU_LOG_DUMP, &d);
	assert_int_equal(d.reason, REASON_UVM_IN_USE);
	assert_int_equal(d.n_lines, 2);
	assert_non_null(strstr(d.lines[0].text, "/dev/nvidia-uvm"));
	digest_of("(00.1) Handling VMA with the following smaps entry: 200000000-200200000 rw-s "
		  "00000000 00:06 42 /dev/nvidia0\n"
		  "(00.2) Error (criu/proc_parse.c:1): Can't handle non-regular mapping on 7's map "
		  "200000000\n",
		  CRIU_LOG_DUMP, &d);
	assert_int_equal(d.reason, REASON_LEFTOVER_DEVICE_FD);
	digest_of("(00.1)      1: Error (criu/files-reg.c:1): Can't open file "
		  "usr/lib/x86_64-linux-gnu/libcuda.so.570.86.15 on restore: No such file or "
		  "directory\n",
		  CRIU_LOG_RESTORE, &d);
	assert_int_equal(d.reason, REASON_DRIVER_MISMATCH);
}

static void what_passes_is_told(void **state)
{
	struct criu_digest d;

	(void)state;
	digest_of("(00.1) Error (criu/sk-inet.c:176): In-flight connection (l) for 1c3\n"
		  "(00.1) Error (criu/sk-inet.c:177): In-flight connections can be ignored with the "
		  "--skip-in-flight option.\n"
		  "(00.2) Error (criu/cr-dump.c:2111): Dumping FAILED.\n",
		  CRIU_LOG_DUMP, &d);
	assert_true(d.passes);
	digest_of("(00.1) Error (criu/sk-unix.c:525): Found a closed in-flight socket to 0x1\n",
		  CRIU_LOG_DUMP, &d);
	assert_true(d.passes);
	/* What will not go away is the cause, whatever comes after it. */
	digest_of("(00.1) Error (criu/sk-inet.c:192): inet: Connected TCP socket, consider using "
		  "--tcp-established option.\n"
		  "(00.1) Error (criu/sk-inet.c:176): In-flight connection (l) for 1c3\n",
		  CRIU_LOG_DUMP, &d);
	assert_false(d.passes);
	digest_of("", CRIU_LOG_DUMP, &d);
	assert_false(d.passes);
}

static void the_first_cause_wins(void **state)
{
	struct criu_digest d;

	(void)state;
	digest_of("(1) Error (a): Connected TCP socket, consider\n"
		  "(2) Error (b): x [io_uring]\n",
		  CRIU_LOG_DUMP, &d);
	assert_int_equal(d.reason, REASON_CRIU_DUMP_FAILED);
	assert_string_equal(d.cause.text, "Error (a): Connected TCP socket, consider");
	assert_int_equal(d.n_lines, 2);
	/* What only a restore can mean is not looked for in a dump. */
	digest_of("(1) Error (a): Magic doesn't match for x\n", CRIU_LOG_DUMP, &d);
	assert_int_equal(d.reason, REASON_CRIU_DUMP_FAILED);
	assert_null(d.advice);
	assert_string_equal(d.cause.text, "");
}

static void the_last_errors_are_kept(void **state)
{
	_cleanup_buf_ struct buf text = BUF_NULL;
	struct criu_digest d;

	(void)state;
	for (int i = 0; i < 20; i++)
		assert_int_equal(buf_printf(&text, "(%d) chatter\n(%d) Error (x): e%d\n", i, i, i),
				 0);
	digest_of(buf_str(&text), CRIU_LOG_RESTORE, &d);
	assert_int_equal(d.n_lines, CRIU_LOG_LINES);
	assert_string_equal(d.lines[0].text, "Error (x): e12");
	assert_string_equal(d.lines[CRIU_LOG_LINES - 1].text, "Error (x): e19");
}

static void an_unknown_failure_still_says_something(void **state)
{
	struct error err = ERROR_NULL;
	struct criu_digest d;

	(void)state;
	digest_of("(1) Error (x): first\n(2) Error (x): second", CRIU_LOG_RESTORE, &d);
	(void)criu_digest_error(&d, "/w/restore.log", &err);
	assert_string_equal(error_text(&err), "CRIU could not restore the container: Error (x): "
					      "first | Error (x): second; see /w/restore.log");
	digest_of("(1) Error (a): a\n(2) Error (x): b\n(3) Error (x): c\n(4) Error (x): d\n"
		  "(5) Error (criu/cr-restore.c:2320): Restoring FAILED.\n",
		  CRIU_LOG_RESTORE, &d);
	(void)criu_digest_error(&d, "/w/restore.log", &err);
	assert_string_equal(error_text(&err), "CRIU could not restore the container: Error (x): b"
					      " | Error (x): c | Error (x): d; see /w/restore.log");
	digest_of("(5) Error (criu/cr-dump.c:2111): Dumping FAILED.\n", CRIU_LOG_DUMP, &d);
	(void)criu_digest_error(&d, "/w/dump.log", &err);
	assert_string_equal(error_text(&err), "CRIU could not dump the container: Error "
					      "(criu/cr-dump.c:2111): Dumping FAILED.; see "
					      "/w/dump.log");
	assert_int_equal(err.reason, REASON_CRIU_DUMP_FAILED);
	digest_of("", CRIU_LOG_DUMP, &d);
	(void)criu_digest_error(&d, "/w/dump.log", &err);
	assert_string_equal(error_text(&err), "CRIU could not dump the container: its log ends "
					      "without an error: it was killed, or crashed; "
					      "see /w/dump.log");
}

static void harmless_errors_are_left_out(void **state)
{
	struct criu_digest d;

	(void)state;
	digest_of("(1) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: "
		  "Operation not permitted\n(2) Error (x): y\n"
		  "(3) Error (criu/cgroup.c:1998): cg: cgroupd: recv req error: No such file or "
		  "directory\n",
		  CRIU_LOG_DUMP, &d);
	assert_int_equal(d.n_lines, 1);
	assert_string_equal(d.lines[0].text, "Error (x): y");
}

static void nothing_but_ascii_leaves(void **state)
{
	char longest[2048] = "Error (x): ";
	struct criu_digest d;

	(void)state;
	digest_of("Error (x): \x1b[31m \xc3\xa9 \x80\n", CRIU_LOG_DUMP, &d);
	assert_string_equal(d.lines[0].text, "Error (x): ?[31m ?? ?");
	memset(longest + 11, 'a', sizeof(longest) - 12);
	digest_of(longest, CRIU_LOG_DUMP, &d);
	assert_int_equal(strlen(d.lines[0].text), CRIU_LOG_LINE_MAX - 1);
}

static void only_the_end_of_a_huge_log_is_read(void **state)
{
	char path[] = "/tmp/criu-log-test-XXXXXX";
	static const char end[] = "\n(9) Error (x): Connected TCP socket, consider\n";
	struct criu_digest d;
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	/* A sparse file of 900 MB. */
	assert_int_equal(write(fd, "(1) Error (x): [io_uring]\n", 26), 26);
	assert_int_equal(pwrite(fd, end, sizeof(end) - 1, 900000000), (ssize_t)sizeof(end) - 1);
	assert_int_equal(criu_log_read(AT_FDCWD, path, CRIU_LOG_DUMP, &d), 0);
	assert_int_equal(d.n_lines, 1);
	assert_non_null(strstr(d.advice, "TCP"));
	assert_int_equal(close(fd), 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(criu_log_read(AT_FDCWD, path, CRIU_LOG_RESTORE, &d), -ENOENT);
	assert_int_equal(d.reason, REASON_CRIU_RESTORE_FAILED);
	assert_int_equal(criu_log_read(AT_FDCWD, "/dev/zero", CRIU_LOG_DUMP, &d), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(real_failures_are_known),
		cmocka_unit_test(nvidias_leftovers_have_their_reasons),
		cmocka_unit_test(what_passes_is_told),
		cmocka_unit_test(the_first_cause_wins),
		cmocka_unit_test(the_last_errors_are_kept),
		cmocka_unit_test(an_unknown_failure_still_says_something),
		cmocka_unit_test(harmless_errors_are_left_out),
		cmocka_unit_test(nothing_but_ascii_leaves),
		cmocka_unit_test(only_the_end_of_a_huge_log_is_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
