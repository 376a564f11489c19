/* SPDX-License-Identifier: Apache-2.0 */
#include "cgroup/freezer.h"
#include "cgroup/testbed.h"

struct probe {
	struct bed bed;
	struct loop *loop;
	struct freezer f;
	struct timer timer;
	int done, r;
	struct error err;
};

static void done(struct freezer *f, int r, const struct error *err)
{
	struct probe *p = container_of(f, struct probe, f);

	p->done++;
	p->r = r;
	p->err = *err;
	assert_null(f->loop); /* idle again, may be started anew or freed */
	loop_stop(p->loop);
}

static void setup(struct probe *p)
{
	*p = (struct probe){ 0 };
	assert_int_equal(loop_new(&p->loop), 0);
}

static void teardown(struct probe *p)
{
	freezer_cancel(&p->f);
	timer_cancel(&p->timer);
	bed_close(&p->bed);
	loop_free(p->loop);
}

static int start(struct probe *p, bool freeze, nsec_t limit)
{
	nsec_t deadline = time_add(time_now(), limit);

	p->done = 0;
	p->err = ERROR_NULL;
	if (freeze)
		return freezer_freeze(&p->f, p->loop, &p->bed.cg, deadline, done, &p->err);
	return freezer_thaw(&p->f, p->loop, &p->bed.cg, deadline, done, &p->err);
}

static void run(struct probe *p, bool freeze, nsec_t limit, int want)
{
	if (start(p, freeze, limit) < 0)
		fail_msg("%s", p->err.text);
	assert_int_equal(p->done, 0); /* never from inside */
	assert_int_equal(loop_run(p->loop), 0);
	assert_int_equal(p->done, 1);
	if (p->r != want)
		fail_msg("%s gives %d (%s)", freeze ? "freeze" : "thaw", p->r, p->err.text);
}

static void state_is(struct probe *p, bool frozen, bool self, bool parent)
{
	struct freezer_state s;
	struct error err = ERROR_NULL;

	if (freezer_state(&p->bed.cg, &s, &err) < 0)
		fail_msg("%s", error_text(&err));
	assert_int_equal(s.frozen, frozen);
	assert_int_equal(s.self, self);
	assert_int_equal(s.parent, parent);
}

static void add_children(struct probe *p, enum cgroup_mode mode, unsigned int n, void (*fn)(void))
{
	bed_real(&p->bed, mode);
	for (unsigned int i = 0; i < n; i++)
		(void)bed_child(&p->bed, "", fn);
	assert_int_equal(cgroup_open_pid(&p->bed.cg, &p->bed.host, p->bed.child[0], NULL), 0);
}

/* CPU time of a process in ticks, fields 14 and 15 of its stat; the name has no blanks here. */
static unsigned long cpu_time(pid_t pid)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	unsigned long user = 0, system = 0;
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	assert_int_equal(file_read(AT_FDCWD, path, &b), 0);
	assert_int_equal(sscanf(strrchr(buf_str(&b), ')') + 1,
				" %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
				&system), 2);
	return user + system;
}

static void spin(void)
{
	for (;;)
		;
}

static void freeze_and_thaw(enum cgroup_mode mode)
{
	struct probe p;
	unsigned long before;

	BED_NEEDS(mode, mode == CGROUP_V1 ? "freezer" : NULL);
	setup(&p);
	add_children(&p, mode, 3, spin);
	state_is(&p, false, false, false);
	run(&p, true, 10 * NSEC_PER_SEC, 0);
	state_is(&p, true, true, false);
	before = cpu_time(p.bed.child[0]);
	(void)usleep(200000);
	assert_int_equal(cpu_time(p.bed.child[0]), before); /* it really stands still */
	run(&p, true, 10 * NSEC_PER_SEC, 0); /* is so already */
	state_is(&p, true, true, false);
	run(&p, false, 10 * NSEC_PER_SEC, 0);
	state_is(&p, false, false, false);
	for (int i = 0; i < 500 && cpu_time(p.bed.child[0]) == before; i++)
		(void)usleep(10000);
	assert_true(cpu_time(p.bed.child[0]) > before);
	run(&p, false, 10 * NSEC_PER_SEC, 0);
	teardown(&p);
}

static void v1_freeze_and_thaw(void **state)
{
	(void)state;
	freeze_and_thaw(CGROUP_V1);
}

static void v2_freeze_and_thaw(void **state)
{
	(void)state;
	freeze_and_thaw(CGROUP_V2);
}

static void empty(void **state)
{
	static const enum cgroup_mode modes[] = { CGROUP_V1, CGROUP_V2 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		struct probe p;

		if (!bed_can(modes[i], modes[i] == CGROUP_V1 ? "freezer" : NULL))
			continue;
		setup(&p);
		add_children(&p, modes[i], 1, NULL);
		bed_end_children(&p.bed);
		run(&p, true, 10 * NSEC_PER_SEC, 0);
		state_is(&p, true, true, false);
		run(&p, false, 10 * NSEC_PER_SEC, 0);
		teardown(&p);
	}
}

static void fork_for_ever(void)
{
	(void)signal(SIGCHLD, SIG_IGN);
	for (;;)
		if (fork() == 0)
			_exit(0);
}

/* Processes that appear and go while the cgroup is frozen: what makes version 1 hang. */
static void a_moving_target(enum cgroup_mode mode)
{
	struct probe p;

	BED_NEEDS(mode, mode == CGROUP_V1 ? "freezer" : NULL);
	setup(&p);
	add_children(&p, mode, 3, fork_for_ever);
	for (int i = 0; i < 10; i++) {
		run(&p, true, 20 * NSEC_PER_SEC, 0);
		state_is(&p, true, true, false);
		run(&p, false, 20 * NSEC_PER_SEC, 0);
		(void)usleep(3000);
	}
	teardown(&p);
}

static void v1_a_moving_target(void **state)
{
	(void)state;
	a_moving_target(CGROUP_V1);
}

static void v2_a_moving_target(void **state)
{
	(void)state;
	a_moving_target(CGROUP_V2);
}

/* Moves all children of the bed into a cgroup below and makes that the one of the bed. */
static void go_below(struct probe *p, const char *sub)
{
	char path[PATH_MAX], text[16];

	assert_int_equal(cgroup_path(&p->bed.cg, CGROUP_FREEZER, path, sizeof(path)), 0);
	(void)strcat(path, sub);
	assert_int_equal(mkdir(path, 0755), 0);
	(void)strcat(path, "/cgroup.procs");
	for (unsigned int i = 0; i < p->bed.n_children; i++) {
		(void)snprintf(text, sizeof(text), "%d", p->bed.child[i]);
		assert_int_equal(file_put(AT_FDCWD, path, text), 0);
	}
	cgroup_close(&p->bed.cg);
	assert_int_equal(cgroup_open_pid(&p->bed.cg, &p->bed.host, p->bed.child[0], NULL), 0);
}

static void leave_below(struct probe *p)
{
	char path[PATH_MAX];

	bed_end_children(&p->bed);
	assert_int_equal(cgroup_path(&p->bed.cg, CGROUP_FREEZER, path, sizeof(path)), 0);
	bed_rmdir(path);
}

/* Frozen because a cgroup above is: told apart, and a thaw says what is in the way. */
static void frozen_parent(enum cgroup_mode mode)
{
	struct cgroup above = { 0 };
	struct probe p;

	BED_NEEDS(mode, mode == CGROUP_V1 ? "freezer" : NULL);
	setup(&p);
	add_children(&p, mode, 2, NULL);
	assert_int_equal(cgroup_open_pid(&above, &p.bed.host, p.bed.child[0], NULL), 0);
	go_below(&p, "/sub");
	{
		struct cgroup mine = p.bed.cg;

		p.bed.cg = above;
		run(&p, true, 10 * NSEC_PER_SEC, 0);
		p.bed.cg = mine;
	}
	state_is(&p, true, false, true);
	run(&p, false, 10 * NSEC_PER_SEC, -EBUSY);
	assert_non_null(strstr(p.err.text, "above"));
	run(&p, true, 10 * NSEC_PER_SEC, 0);
	state_is(&p, true, true, true);
	run(&p, false, 10 * NSEC_PER_SEC, -EBUSY); /* thawed itself all the same: */
	state_is(&p, true, false, true);
	{
		struct cgroup mine = p.bed.cg;

		p.bed.cg = above;
		run(&p, false, 10 * NSEC_PER_SEC, 0);
		p.bed.cg = mine;
	}
	for (int i = 0; i < 100; i++) {
		struct freezer_state s;

		assert_int_equal(freezer_state(&p.bed.cg, &s, NULL), 0);
		if (!s.frozen)
			break;
		(void)usleep(10000);
	}
	state_is(&p, false, false, false);
	leave_below(&p);
	cgroup_close(&above);
	teardown(&p);
}

static void v1_frozen_parent(void **state)
{
	(void)state;
	frozen_parent(CGROUP_V1);
}

static void v2_frozen_parent(void **state)
{
	(void)state;
	frozen_parent(CGROUP_V2);
}

/* No kernel behind these files, so nothing ever happens: the deadline, and what it undoes. */
static void fake(struct probe *p, enum cgroup_mode mode)
{
	setup(p);
	if (mode == CGROUP_V1) {
		bed_fake(&p->bed, mode, "1 1 0:1 / @/freezer rw - cgroup cgroup rw,freezer\n");
		bed_file(&p->bed, "cgroup/freezer/c/freezer.state", "THAWED\n");
		bed_file(&p->bed, "cgroup/freezer/c/freezer.self_freezing", "0\n");
		bed_file(&p->bed, "cgroup/freezer/c/freezer.parent_freezing", "0\n");
		bed_member(&p->bed, "1:freezer:/c\n");
	} else {
		bed_fake(&p->bed, mode, NULL);
		bed_file(&p->bed, "cgroup/pod/cgroup.freeze", "0\n");
		bed_file(&p->bed, "cgroup/pod/c/cgroup.freeze", "0\n");
		bed_file(&p->bed, "cgroup/pod/c/cgroup.events", "populated 1\nfrozen 0\n");
		bed_member(&p->bed, "0::/pod/c\n");
	}
}

static void deadlines(void **state)
{
	struct probe p;
	nsec_t start_at = time_now();

	(void)state;
	fake(&p, CGROUP_V1);
	bed_file(&p.bed, "cgroup/freezer/c/freezer.state", "FREEZING\n");
	run(&p, true, 200 * NSEC_PER_MSEC, -ETIMEDOUT);
	assert_int_equal(p.err.reason, REASON_TIMEOUT);
	bed_file_is(&p.bed, "cgroup/freezer/c/freezer.state", "THAWEDNG\n"); /* taken back */
	teardown(&p);

	fake(&p, CGROUP_V2);
	run(&p, true, 50 * NSEC_PER_MSEC, -ETIMEDOUT);
	bed_file_is(&p.bed, "cgroup/pod/c/cgroup.freeze", "0\n");
	/* It was on the way before we came: so it stays. */
	bed_file(&p.bed, "cgroup/pod/c/cgroup.freeze", "1\n");
	run(&p, true, 50 * NSEC_PER_MSEC, -ETIMEDOUT);
	bed_file_is(&p.bed, "cgroup/pod/c/cgroup.freeze", "1\n");
	bed_file(&p.bed, "cgroup/pod/c/cgroup.events", "populated 1\nfrozen 1\n");
	run(&p, false, 50 * NSEC_PER_MSEC, -ETIMEDOUT);
	bed_file_is(&p.bed, "cgroup/pod/c/cgroup.freeze", "0\n");
	bed_file(&p.bed, "cgroup/pod/cgroup.freeze", "1\n");
	run(&p, false, 50 * NSEC_PER_MSEC, -EBUSY);
	teardown(&p);
	assert_true(time_now() - start_at < 5 * NSEC_PER_SEC);
}

static void write_later(struct timer *t)
{
	struct probe *p = container_of(t, struct probe, timer);

	if (p->bed.host.mode == CGROUP_V1) {
		bed_file(&p->bed, "cgroup/freezer/c/freezer.self_freezing", "1\n");
		bed_file(&p->bed, "cgroup/freezer/c/freezer.state", "FROZEN\n");
	} else {
		/* In place: the open file is the one that is asked. */
		assert_int_equal(file_put(AT_FDCWD, strcat(strcpy((char[256]){ 0 }, p->bed.top),
							   "/cgroup/pod/c/cgroup.events"),
					  "populated 1\nfrozen 1\n"), 0);
	}
}

/* The kernel takes its time. */
static void later(void **state)
{
	static const enum cgroup_mode modes[] = { CGROUP_V1, CGROUP_V2 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		struct probe p;

		fake(&p, modes[i]);
		timer_set(p.loop, &p.timer, time_now() + 60 * NSEC_PER_MSEC, write_later);
		run(&p, true, 10 * NSEC_PER_SEC, 0);
		state_is(&p, true, true, false);
		teardown(&p);
	}
}

static void remove_it(struct timer *t)
{
	struct probe *p = container_of(t, struct probe, timer);

	bed_end_children(&p->bed);
	bed_each_dir(&p->bed, bed_rmdir);
}

/* The cgroup vanishes in the middle of it. */
static void removed_meanwhile(void **state)
{
	static const enum cgroup_mode modes[] = { CGROUP_V1, CGROUP_V2 };
	struct freezer_state s;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		struct probe p;

		if (!bed_can(modes[i], modes[i] == CGROUP_V1 ? "freezer" : NULL))
			continue;
		setup(&p);
		add_children(&p, modes[i], 1, NULL);
		/* A thaw under a frozen parent would end at once; so freeze what is gone. */
		assert_int_equal(start(&p, true, 10 * NSEC_PER_SEC), 0);
		bed_each_dir(&p.bed, bed_thaw);
		remove_it(&p.timer);
		assert_int_equal(loop_run(p.loop), 0);
		assert_int_equal(p.r, -ENOENT);
		assert_int_equal(start(&p, true, 10 * NSEC_PER_SEC), -ENOENT);
		assert_int_equal(p.done, 0);
		assert_int_equal(freezer_state(&p.bed.cg, &s, NULL), -ENOENT);
		teardown(&p);
	}
}

static void canceled(void **state)
{
	struct probe p;

	(void)state;
	fake(&p, CGROUP_V2);
	assert_int_equal(start(&p, true, 20 * NSEC_PER_MSEC), 0);
	freezer_cancel(&p.f);
	freezer_cancel(&p.f);
	assert_int_equal(loop_round(p.loop, time_now() + 50 * NSEC_PER_MSEC), 0);
	assert_int_equal(p.done, 0);
	bed_file_is(&p.bed, "cgroup/pod/c/cgroup.freeze", "1\n");
	teardown(&p);
}

static void no_freezer(void **state)
{
	struct freezer_state s;
	struct probe p;

	(void)state;
	setup(&p);
	bed_fake(&p.bed, CGROUP_V2, NULL);
	bed_file(&p.bed, "cgroup/c/cgroup.events", "populated 1\n"); /* before Linux 5.2 */
	bed_member(&p.bed, "0::/c\n");
	assert_int_equal(start(&p, true, NSEC_PER_SEC), -EOPNOTSUPP);
	assert_int_equal(freezer_state(&p.bed.cg, &s, NULL), -EOPNOTSUPP);
	teardown(&p);
	setup(&p);
	bed_fake(&p.bed, CGROUP_V1, "1 1 0:1 / @/memory rw - cgroup cgroup rw,memory\n");
	bed_file(&p.bed, "cgroup/memory/c/cgroup.procs", "");
	bed_member(&p.bed, "1:memory:/c\n");
	assert_int_equal(start(&p, true, NSEC_PER_SEC), -EOPNOTSUPP);
	teardown(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(v1_freeze_and_thaw), cmocka_unit_test(v2_freeze_and_thaw),
		cmocka_unit_test(empty),	      cmocka_unit_test(v1_a_moving_target),
		cmocka_unit_test(v2_a_moving_target), cmocka_unit_test(v1_frozen_parent),
		cmocka_unit_test(v2_frozen_parent),   cmocka_unit_test(deadlines),
		cmocka_unit_test(later),	      cmocka_unit_test(removed_meanwhile),
		cmocka_unit_test(canceled),	      cmocka_unit_test(no_freezer),
	};

	return cmocka_run_group_tests(tests, NULL, bed_sweep);
}
