/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <sys/mman.h>

#include "cgroup/controllers.h"
#include "cgroup/oom.h"
#include "cgroup/testbed.h"

#define LIMIT "16777216"

struct probe {
	struct bed bed;
	struct loop *loop;
	struct oom_watch w;
	int kills;
};

static void killed(struct oom_watch *w)
{
	container_of(w, struct probe, w)->kills++;
}

static void setup(struct probe *p)
{
	*p = (struct probe){ 0 };
	assert_int_equal(loop_new(&p->loop), 0);
}

static void teardown(struct probe *p)
{
	oom_watch_stop(&p->w);
	bed_close(&p->bed);
	loop_free(p->loop);
}

static void start(struct probe *p)
{
	struct error err = ERROR_NULL;

	if (oom_watch_start(&p->w, p->loop, &p->bed.cg, killed, &err) < 0)
		fail_msg("%s", error_text(&err));
}

/* Runs the loop until there are that many callbacks, or for 10 s; then a little longer. */
static void wait_for(struct probe *p, int kills)
{
	nsec_t end = time_now() + 10 * NSEC_PER_SEC;

	while (p->kills < kills && time_now() < end)
		assert_int_equal(loop_round(p->loop, time_now() + 50 * NSEC_PER_MSEC), 0);
	end = time_now() + 300 * NSEC_PER_MSEC;
	while (time_now() < end)
		assert_int_equal(loop_round(p->loop, end), 0);
	assert_int_equal(p->kills, kills);
}

/* Takes far more than it may. */
static void eat(void)
{
	size_t n = (size_t)256 << 20;
	char *mem = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED)
		_exit(98);
	for (size_t at = 0; at < n; at += 4096)
		mem[at] = 1;
	_exit(97);
}

static void wait_killed(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static const char *limit_file(const struct probe *p)
{
	return p->bed.host.mode == CGROUP_V2 ? "memory.max" : "memory.limit_in_bytes";
}

/* A real cgroup with a memory limit and a process that idles. */
static void limited(struct probe *p, enum cgroup_mode mode)
{
	struct error err = ERROR_NULL;
	pid_t pid;

	bed_real(&p->bed, mode);
	pid = bed_child(&p->bed, "", NULL);
	assert_int_equal(cgroup_open_pid(&p->bed.cg, &p->bed.host, pid, NULL), 0);
	if (mode == CGROUP_V2 && cgroup_mode_at(CGROUP_ROOT) == CGROUP_V2 &&
	    controllers_enable(&p->bed.cg, &err) < 0)
		fail_msg("%s", error_text(&err));
	bed_write(&p->bed, limit_file(p), LIMIT);
}

static unsigned int open_fds(void)
{
	_cleanup_closedir_ DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	return n;
}

static void one_kill_one_call(enum cgroup_mode mode)
{
	unsigned int fds;
	struct probe p;

	BED_NEEDS(mode, "memory");
	setup(&p);
	limited(&p, mode);
	fds = open_fds();
	start(&p);
	assert_int_equal(open_fds(), fds + 1);
	wait_for(&p, 0);
	for (int i = 1; i <= 3; i++) {
		wait_killed(bed_child(&p.bed, "", eat));
		p.bed.n_children--;
		wait_for(&p, i);
	}
	oom_watch_check(&p.w);
	wait_for(&p, 3);
	oom_watch_stop(&p.w);
	oom_watch_stop(&p.w);
	oom_watch_check(&p.w);
	assert_int_equal(open_fds(), fds);
	/* A watch that begins later knows nothing of it. */
	start(&p);
	oom_watch_check(&p.w);
	wait_for(&p, 3);
	teardown(&p);
}

static void v1_one_kill_one_call(void **state)
{
	(void)state;
	one_kill_one_call(CGROUP_V1);
}

static void v2_one_kill_one_call(void **state)
{
	(void)state;
	one_kill_one_call(CGROUP_V2);
}

/* The exit is known before the event has been seen: the last look finds it, and only once. */
static void at_the_exit(enum cgroup_mode mode)
{
	struct probe p;

	BED_NEEDS(mode, "memory");
	setup(&p);
	limited(&p, mode);
	start(&p);
	wait_killed(bed_child(&p.bed, "", eat));
	p.bed.n_children--;
	assert_int_equal(p.kills, 0);
	oom_watch_check(&p.w);
	assert_int_equal(p.kills, 1);
	wait_for(&p, 1);
	teardown(&p);
}

static void v1_at_the_exit(void **state)
{
	(void)state;
	at_the_exit(CGROUP_V1);
}

static void v2_at_the_exit(void **state)
{
	(void)state;
	at_the_exit(CGROUP_V2);
}

static void make_below(const char *dir)
{
	char path[PATH_MAX];

	assert_int_equal(PATH_PRINTF(path, "%s/sub", dir), 0);
	bed_mkdir(path);
}

static void remove_below(const char *dir)
{
	char path[PATH_MAX];

	assert_int_equal(PATH_PRINTF(path, "%s/sub", dir), 0);
	bed_rmdir(path);
}

/* The victim is in a cgroup that the container has made for itself. */
static void below(enum cgroup_mode mode)
{
	struct probe p;

	BED_NEEDS(mode, "memory");
	setup(&p);
	limited(&p, mode);
	bed_each_dir(&p.bed, make_below);
	start(&p);
	wait_killed(bed_child(&p.bed, "/sub", eat));
	p.bed.n_children--;
	wait_for(&p, 1);
	/* On its removal version 1 forgets the count: no call, and the next kill counts again. */
	bed_each_dir(&p.bed, remove_below);
	oom_watch_check(&p.w);
	wait_for(&p, 1);
	wait_killed(bed_child(&p.bed, "", eat));
	p.bed.n_children--;
	wait_for(&p, 2);
	teardown(&p);
}

static void v1_below(void **state)
{
	(void)state;
	below(CGROUP_V1);
}

static void v2_below(void **state)
{
	(void)state;
	below(CGROUP_V2);
}

/* The pod's memory runs out, by one container: the other one has not been killed. */
static void of_the_pod(enum cgroup_mode mode)
{
	struct probe pod, other;
	pid_t pid;

	BED_NEEDS(mode, "memory");
	setup(&pod);
	setup(&other);
	limited(&pod, mode);
	bed_each_dir(&pod.bed, make_below);
	other.bed.host = pod.bed.host;
	pid = bed_child(&pod.bed, "/sub", NULL);
	assert_int_equal(cgroup_open_pid(&other.bed.cg, &pod.bed.host, pid, NULL), 0);
	if (mode == CGROUP_V2)
		/* Its memory is counted with the pod's: no controller below, nothing to watch. */
		assert_int_equal(oom_watch_start(&other.w, other.loop, &other.bed.cg, killed, NULL),
				 -ENOENT);
	else
		start(&other);
	start(&pod);
	wait_killed(bed_child(&pod.bed, "", eat));
	pod.bed.n_children--;
	wait_for(&pod, 1);
	wait_for(&other, 0);
	oom_watch_stop(&other.w);
	cgroup_close(&other.bed.cg);
	bed_end_children(&pod.bed);
	bed_each_dir(&pod.bed, remove_below);
	loop_free(other.loop);
	teardown(&pod);
}

static void v1_of_the_pod(void **state)
{
	(void)state;
	of_the_pod(CGROUP_V1);
}

static void v2_of_the_pod(void **state)
{
	(void)state;
	of_the_pod(CGROUP_V2);
}

/* The removal of the cgroup is no kill, and does not keep the loop busy. */
static void removed(enum cgroup_mode mode)
{
	struct probe p;
	nsec_t end;
	int rounds = 0;

	BED_NEEDS(mode, "memory");
	setup(&p);
	limited(&p, mode);
	start(&p);
	bed_end_children(&p.bed);
	bed_each_dir(&p.bed, bed_rmdir);
	end = time_now() + 500 * NSEC_PER_MSEC;
	while (time_now() < end) {
		assert_int_equal(loop_round(p.loop, end), 0);
		rounds++;
	}
	assert_true(rounds < 20);
	assert_int_equal(p.kills, 0);
	oom_watch_check(&p.w);
	assert_int_equal(p.kills, 0);
	assert_null(p.w.loop); /* by then it has stopped itself */
	assert_int_equal(oom_watch_start(&p.w, p.loop, &p.bed.cg, killed, NULL), -ENOENT);
	teardown(&p);
}

static void v1_removed(void **state)
{
	(void)state;
	removed(CGROUP_V1);
}

static void v2_removed(void **state)
{
	(void)state;
	removed(CGROUP_V2);
}

/* Files in place of a kernel; the eventfd is real, and the test is the kernel that signals it. */
static void fake_v1(struct probe *p, const char *oom_control)
{
	setup(p);
	bed_fake(&p->bed, CGROUP_V1, "1 1 0:1 / @/memory rw - cgroup cgroup rw,memory\n");
	bed_file(&p->bed, "cgroup/memory/c/memory.oom_control", oom_control);
	bed_file(&p->bed, "cgroup/memory/c/cgroup.event_control", "");
	bed_member(&p->bed, "1:memory:/c\n");
	start(p);
}

static void signal_event(struct probe *p)
{
	uint64_t one = 1;

	assert_int_equal(write(p->w.src.fd, &one, sizeof(one)), sizeof(one));
}

/* The event comes first, the count a little later; an event without a kill is none. */
static void event_before_the_count(void **state)
{
	struct probe p;

	(void)state;
	fake_v1(&p, "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n");
	signal_event(&p);
	assert_int_equal(loop_round(p.loop, time_now() + NSEC_PER_SEC), 0);
	assert_int_equal(p.kills, 0);
	bed_file(&p.bed, "cgroup/memory/c/memory.oom_control",
		 "oom_kill_disable 0\nunder_oom 0\noom_kill 6\n");
	wait_for(&p, 1); /* one rise, by two */
	signal_event(&p);
	wait_for(&p, 1);
	teardown(&p);
}

/* A kernel that does not count: every event is a kill, but the one of the removal. */
static void without_a_count(void **state)
{
	char path[PATH_MAX];
	struct probe p;

	(void)state;
	fake_v1(&p, "oom_kill_disable 0\nunder_oom 0\n");
	signal_event(&p);
	wait_for(&p, 1);
	signal_event(&p);
	wait_for(&p, 2);
	oom_watch_check(&p.w);
	assert_int_equal(p.kills, 2);
	assert_int_equal(PATH_PRINTF(path, "%s/cgroup/memory/c", p.bed.top), 0);
	assert_int_equal(path_remove_tree(AT_FDCWD, path), 0);
	signal_event(&p);
	wait_for(&p, 2);
	assert_null(p.w.loop);
	teardown(&p);
}

static void stop_it(struct oom_watch *w)
{
	killed(w);
	oom_watch_stop(w);
}

static void stopped_inside(void **state)
{
	struct probe p;

	(void)state;
	fake_v1(&p, "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n");
	p.w.killed = stop_it;
	bed_file(&p.bed, "cgroup/memory/c/memory.oom_control", "oom_kill 1\n");
	signal_event(&p);
	wait_for(&p, 1);
	assert_null(p.w.loop);
	teardown(&p);
}

static void no_memory_controller(void **state)
{
	struct error err = ERROR_NULL;
	struct probe p;

	(void)state;
	setup(&p);
	bed_fake(&p.bed, CGROUP_V2, NULL);
	bed_file(&p.bed, "cgroup/c/cgroup.procs", "");
	bed_member(&p.bed, "0::/c\n");
	assert_int_equal(oom_watch_start(&p.w, p.loop, &p.bed.cg, killed, &err), -ENOENT);
	assert_null(p.w.loop);
	teardown(&p);
}

/* As it was opened at the start; a regular file cannot be polled, so the tests say when to look. */
static int events_file(const struct probe *p, const char *name)
{
	char path[PATH_MAX];
	int fd;

	bed_file(&p->bed, name, "low 0\nmax 3\noom 0\noom_kill 0\n");
	assert_int_equal(PATH_PRINTF(path, "%s/%s", p->bed.top, name), 0);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

/* Files in place of a kernel: a scope, and its parent. */
static void fake_scope(struct probe *p)
{
	setup(p);
	bed_fake(&p->bed, CGROUP_V2, NULL);
	bed_member(&p->bed, "0::/pod.slice/c.scope\n");
	p->w = (struct oom_watch){ .loop = p->loop,
				   .cg = &p->bed.cg,
				   .counts = true,
				   .killed = killed,
				   .has_above = true };
	p->w.src.fd = events_file(p, "cgroup/pod.slice/c.scope/memory.events");
	p->w.above.fd = events_file(p, "cgroup/pod.slice/memory.events");
}

static void count(int fd, int kills)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "low 0\nmax 3\noom 0\noom_kill %d\n", kills);

	assert_int_equal(pwrite(fd, text, (size_t)n, 0), n);
}

/* What is open of a removed cgroup cannot be read any more. */
static void scope_goes(struct probe *p)
{
	int fd = open(p->bed.top, O_PATH | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(dup3(fd, p->w.src.fd, O_CLOEXEC), p->w.src.fd);
	(void)close(fd);
	oom_watch_check(&p->w);
	assert_null(p->w.loop);
	assert_int_equal(p->kills, 0); /* not before somebody asks */
}

static void the_end_is(struct probe *p, int kills)
{
	scope_goes(p);
	oom_watch_infer(&p->w);
	assert_int_equal(p->kills, kills);
	oom_watch_infer(&p->w);
	assert_int_equal(p->kills, kills);
	teardown(p);
}

static void scope_gone_with_its_count(void **state)
{
	struct probe p;

	(void)state;
	fake_scope(&p);
	count(p.w.above.fd, 1);
	the_end_is(&p, 1);
}

static void scope_gone_without_a_kill(void **state)
{
	struct probe p;

	(void)state;
	fake_scope(&p);
	the_end_is(&p, 0);
}

/* Siblings were killed, and may have been removed since: it is the parent's count that tells. */
static void scope_gone_beside_kills_of_others(void **state)
{
	struct probe p;

	(void)state;
	fake_scope(&p);
	count(p.w.above.fd, 4);
	oom_watch_check(&p.w); /* as each rise makes us */
	the_end_is(&p, 0);
	fake_scope(&p);
	count(p.w.above.fd, 4);
	oom_watch_check(&p.w);
	count(p.w.above.fd, 5);
	the_end_is(&p, 1);
}

/* One that has been told is not told again, whoever else was killed meanwhile. */
static void scope_gone_after_a_kill_that_was_seen(void **state)
{
	struct probe p;

	(void)state;
	fake_scope(&p);
	count(p.w.src.fd, 2);
	count(p.w.above.fd, 5);
	oom_watch_check(&p.w);
	assert_int_equal(p.kills, 1);
	p.kills = 0;
	the_end_is(&p, 0);
}

/* Others' kills after the end are not ours either, for we have looked at once. */
static void scope_gone_before_others_are_killed(void **state)
{
	struct probe p;
	int above;

	(void)state;
	fake_scope(&p);
	above = dup(p.w.above.fd);
	assert_true(above >= 0);
	scope_goes(&p);
	count(above, 1);
	(void)close(above);
	oom_watch_check(&p.w);
	oom_watch_infer(&p.w);
	assert_int_equal(p.kills, 0);
	teardown(&p);
}

/* The kernel's own files: its parent has counted, whichever of two scopes the victim was in. */
static void v2_scope_is_removed(void **state)
{
	static const char *const victims[] = { "/a.scope", "/b.scope" };
	char a[PATH_MAX], b[PATH_MAX];
	struct error err = ERROR_NULL;
	struct cgroup scope;
	struct probe p;

	(void)state;
	BED_NEEDS(CGROUP_V2, "memory");
	for (int i = 0; i < 2; i++) {
		setup(&p);
		bed_real(&p.bed, CGROUP_V2);
		assert_int_equal(cgroup_open_path(&p.bed.cg, &p.bed.host, p.bed.name, NULL), 0);
		assert_int_equal(PATH_PRINTF(a, "%s%s/a.scope", p.bed.host.root, p.bed.name), 0);
		assert_int_equal(PATH_PRINTF(b, "%s%s/b.scope", p.bed.host.root, p.bed.name), 0);
		bed_mkdir(a);
		bed_mkdir(b);
		assert_int_equal(PATH_PRINTF(a, "%s/a.scope", p.bed.name), 0);
		assert_int_equal(cgroup_open_path(&scope, &p.bed.host, a, NULL), 0);
		if (controllers_enable(&p.bed.cg, &err) < 0 || controllers_enable(&scope, &err) < 0)
			fail_msg("%s", error_text(&err));
		bed_write(&p.bed, "memory.max", LIMIT);
		assert_int_equal(oom_watch_start(&p.w, p.loop, &scope, killed, &err), 0);
		assert_true(p.w.has_above);
		wait_killed(bed_child(&p.bed, victims[i], eat));
		p.bed.n_children--;
		if (i == 1)
			wait_for(&p, 0); /* it was the other: the loop sees that */
		assert_int_equal(PATH_PRINTF(a, "%s%s/a.scope", p.bed.host.root, p.bed.name), 0);
		bed_rmdir(a);
		bed_rmdir(b);
		oom_watch_check(&p.w);
		oom_watch_infer(&p.w);
		assert_int_equal(p.kills, i == 0);
		cgroup_close(&scope);
		teardown(&p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(v1_one_kill_one_call), cmocka_unit_test(v2_one_kill_one_call),
		cmocka_unit_test(v1_at_the_exit),	cmocka_unit_test(v2_at_the_exit),
		cmocka_unit_test(v1_below),		cmocka_unit_test(v2_below),
		cmocka_unit_test(v1_of_the_pod),	cmocka_unit_test(v2_of_the_pod),
		cmocka_unit_test(v1_removed),		cmocka_unit_test(v2_removed),
		cmocka_unit_test(event_before_the_count), cmocka_unit_test(without_a_count),
		cmocka_unit_test(stopped_inside),	cmocka_unit_test(no_memory_controller),
		cmocka_unit_test(scope_gone_with_its_count),
		cmocka_unit_test(scope_gone_without_a_kill),
		cmocka_unit_test(scope_gone_beside_kills_of_others),
		cmocka_unit_test(scope_gone_after_a_kill_that_was_seen),
		cmocka_unit_test(scope_gone_before_others_are_killed),
		cmocka_unit_test(v2_scope_is_removed),
	};

	return cmocka_run_group_tests(tests, NULL, bed_sweep);
}
