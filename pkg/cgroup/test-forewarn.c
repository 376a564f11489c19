/* SPDX-License-Identifier: Apache-2.0 */
#include <poll.h>

#include "cgroup/forewarn.h"
#include "cgroup/testbed.h"

static const char v1_mounts[] = "1 1 0:1 /part @/cpu rw - cgroup cgroup rw,cpu\n"
				"2 1 0:2 / @/memory rw - cgroup cgroup rw,memory\n";

/* Until the sweep has found it: the last child has ended then. */
static void await(struct forewarn *f)
{
	for (int i = 0; f->child.pid && i < 10000; i++) {
		reaper_sweep(f->reaper);
		(void)usleep(1000);
	}
	assert_int_equal(f->child.pid, 0);
}

static void forewarn(const struct bed *b)
{
	struct reaper reaper;
	struct forewarn f;

	reaper_init(&reaper);
	forewarn_init(&f, &b->host, &reaper);
	assert_int_equal(forewarn_moves(&f), 1);
	await(&f);
	forewarn_done(&f);
}

/* Only where the whole tree is mounted, and the child is the one that moves. */
static void v1_tree(void **state)
{
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V1, v1_mounts);
	bed_file(&b, "proc/self/cgroup", "5:cpu:/part/a\n4:rdma:/a\n3:memory:/a/b\n0::/a\n");
	bed_file(&b, "cgroup/cpu/part/a/cgroup.procs", "");
	bed_file(&b, "cgroup/memory/a/b/cgroup.procs", "");
	forewarn(&b);
	bed_file_is(&b, "cgroup/cpu/part/a/cgroup.procs", "");
	bed_file_is(&b, "cgroup/memory/a/b/cgroup.procs", "0");
	bed_close(&b);
}

static void v2_tree(void **state)
{
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V2, NULL);
	bed_file(&b, "proc/self/cgroup", "0::/shims\n");
	bed_file(&b, "cgroup/shims/cgroup.procs", "");
	forewarn(&b);
	bed_file_is(&b, "cgroup/shims/cgroup.procs", "0");
	bed_file(&b, "proc/self/cgroup", "0::/\n");
	bed_file(&b, "cgroup/cgroup.procs", "");
	forewarn(&b);
	bed_file_is(&b, "cgroup/cgroup.procs", "0");
	bed_close(&b);
}

/* Nothing is written, and nobody is told: it is a hint. */
static void nowhere(void **state)
{
	static const char *const at[] = {"", "0::/../x\n", "3:memory:/x\n", "0::/gone (deleted)\n"};
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V2, NULL);
	bed_file(&b, "x/cgroup.procs", "");
	forewarn(&b); /* no /proc/self/cgroup */
	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		bed_file(&b, "proc/self/cgroup", at[i]);
		forewarn(&b);
	}
	bed_file_is(&b, "x/cgroup.procs", "");
	b.host.mode = CGROUP_NONE;
	assert_int_equal(forewarn_moves(&(struct forewarn){ .host = &b.host }), 0);
	bed_close(&b);
}

/*
 * As long as one is there it does for all. And nothing of ours is open in it: whoever waits for the
 * end of a pipe does not wait for it.
 */
static void one_at_a_time(void **state)
{
	struct reaper reaper;
	struct forewarn f;
	char path[PATH_MAX];
	struct bed b;
	int gate, ends[2];
	pid_t pid;
	char c;

	(void)state;
	bed_fake(&b, CGROUP_V2, NULL);
	bed_file(&b, "proc/self/x", "");
	assert_int_equal(PATH_PRINTF(path, "%s/proc/self/cgroup", b.top), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	reaper_init(&reaper);
	forewarn_init(&f, &b.host, &reaper);
	assert_int_equal(forewarn_moves(&f), 1); /* stays until the FIFO has a writer */
	pid = f.child.pid;
	assert_int_equal(close(ends[1]), 0);
	assert_int_equal(poll(&(struct pollfd){.fd = ends[0]}, 1, 10000), 1);
	assert_int_equal(read(ends[0], &c, 1), 0);
	assert_int_equal(forewarn_moves(&f), 1);
	reaper_sweep(&reaper);
	assert_int_equal(f.child.pid, pid);
	gate = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(gate >= 0);
	assert_int_equal(close(gate), 0);
	await(&f);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(forewarn_moves(&f), 1);
	assert_int_not_equal(f.child.pid, pid);
	await(&f);
	assert_int_equal(close(ends[0]), 0);
	bed_close(&b);
}

static void real(enum cgroup_mode mode)
{
	_cleanup_buf_ struct buf before = BUF_NULL, after = BUF_NULL;
	struct bed b;

	BED_NEEDS(mode, NULL);
	bed_real(&b, mode);
	assert_int_equal(file_read(AT_FDCWD, "/proc/self/cgroup", &before), 0);
	forewarn(&b);
	assert_int_equal(file_read(AT_FDCWD, "/proc/self/cgroup", &after), 0);
	assert_string_equal(buf_str(&before), buf_str(&after));
	bed_close(&b);
}

static void v1_real(void **state)
{
	(void)state;
	real(CGROUP_V1);
}

static void v2_real(void **state)
{
	(void)state;
	real(CGROUP_V2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(v1_tree), cmocka_unit_test(v2_tree),
		cmocka_unit_test(nowhere), cmocka_unit_test(one_at_a_time),
		cmocka_unit_test(v1_real), cmocka_unit_test(v2_real),
	};

	return cmocka_run_group_tests(tests, NULL, bed_sweep);
}
