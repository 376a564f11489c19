/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "event/reaper.h"
#include "tests/cmocka.h"

struct watch {
	struct child child;
	struct reaper *reaper;
	unsigned int calls;
	struct exit_record rec;
	struct watch *unwatch; /* this one, when called */
	bool again;            /* watches the same pid anew, when called */
};

static void exited(struct child *child, const struct exit_record *rec)
{
	struct watch *w = container_of(child, struct watch, child);

	assert_int_equal(child->pid, 0);
	w->calls++;
	w->rec = *rec;
	if (w->unwatch)
		reaper_unwatch(&w->unwatch->child);
	if (w->again) {
		w->again = false;
		reaper_watch(w->reaper, child, rec->pid, exited);
	}
}

/* A child that exits with status, or by signal; it has exited when this returns. */
static pid_t child(int status, int signal)
{
	siginfo_t info;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		if (signal)
			(void)raise(signal);
		_exit(status);
	}
	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	return pid;
}

static void an_exit_is_told_once(void **state)
{
	struct reaper r;
	struct watch w = { 0 };
	pid_t pid = child(3, 0);

	(void)state;
	reaper_init(&r);
	reaper_watch(&r, &w.child, pid, exited);
	reaper_sweep(&r);
	reaper_sweep(&r);
	assert_int_equal(w.calls, 1);
	assert_int_equal(w.rec.pid, pid);
	assert_int_equal(exit_record_code(&w.rec), 3);
	assert_true(w.rec.wall > 0);
}

static void a_signal_counts_from_128(void **state)
{
	struct reaper r;
	struct watch w = { 0 };

	(void)state;
	reaper_init(&r);
	reaper_watch(&r, &w.child, child(0, SIGKILL), exited);
	reaper_sweep(&r);
	assert_int_equal(exit_record_code(&w.rec), 128 + SIGKILL);
}

static void one_sweep_collects_all(void **state)
{
	struct reaper r;
	struct watch w[3] = { 0 };

	(void)state;
	reaper_init(&r);
	for (int i = 0; i < 3; i++)
		reaper_watch(&r, &w[i].child, child(i, 0), exited);
	reaper_sweep(&r);
	for (unsigned int i = 0; i < 3; i++) {
		assert_int_equal(w[i].calls, 1);
		assert_int_equal(exit_record_code(&w[i].rec), i);
	}
}

static void all_watches_of_a_pid_are_told(void **state)
{
	struct reaper r;
	struct watch a = { 0 }, b = { 0 };
	pid_t pid = child(0, 0);

	(void)state;
	reaper_init(&r);
	a.reaper = &r;
	a.again = true; /* a new process of that number: not told of the old one's exit */
	reaper_watch(&r, &a.child, pid, exited);
	reaper_watch(&r, &b.child, pid, exited);
	reaper_sweep(&r);
	assert_int_equal(a.calls, 1);
	assert_int_equal(b.calls, 1);
	assert_int_equal(a.child.pid, pid);
	reaper_unwatch(&a.child);
}

static void a_callback_may_unwatch_another(void **state)
{
	struct reaper r;
	struct watch a = { 0 }, b = { 0 };
	pid_t pid = child(0, 0);

	(void)state;
	reaper_init(&r);
	a.unwatch = &b;
	reaper_watch(&r, &a.child, pid, exited);
	reaper_watch(&r, &b.child, pid, exited);
	reaper_sweep(&r);
	assert_int_equal(a.calls, 1);
	assert_int_equal(b.calls, 0);
	reaper_unwatch(&b.child); /* harmless */
}

static void an_early_exit_is_kept_for_every_hold(void **state)
{
	struct reaper r;
	struct reaper_hold one, two, none = { 0 };
	struct exit_record rec = { 0 };
	pid_t pid;

	(void)state;
	reaper_init(&r);
	reaper_hold(&r, &one);
	reaper_hold(&r, &two);
	pid = child(7, 0);
	reaper_sweep(&r);
	assert_true(reaper_claim(&one, pid, &rec));
	assert_int_equal(exit_record_code(&rec), 7);
	reaper_release(&one);
	reaper_release(&one);  /* harmless */
	reaper_release(&none); /* harmless */
	assert_true(reaper_claim(&two, pid, &rec));
	assert_false(reaper_claim(&two, pid + 1, &rec));
	reaper_release(&two);
}

static void what_was_watched_is_not_kept(void **state)
{
	struct reaper r;
	struct reaper_hold hold;
	struct watch w = { 0 };
	struct exit_record rec;
	pid_t pid = child(0, 0);

	(void)state;
	reaper_init(&r);
	reaper_hold(&r, &hold);
	reaper_watch(&r, &w.child, pid, exited);
	reaper_sweep(&r);
	assert_int_equal(w.calls, 1);
	assert_false(reaper_claim(&hold, pid, &rec));
	reaper_release(&hold);
}

static void an_exit_before_the_hold_is_not_kept(void **state)
{
	struct reaper r;
	struct reaper_hold hold;
	struct exit_record rec;
	pid_t pid = child(0, 0);

	(void)state;
	reaper_init(&r);
	reaper_sweep(&r);
	reaper_hold(&r, &hold);
	reaper_sweep(&r);
	assert_false(reaper_claim(&hold, pid, &rec));
	reaper_release(&hold);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_exit_is_told_once),
		cmocka_unit_test(a_signal_counts_from_128),
		cmocka_unit_test(one_sweep_collects_all),
		cmocka_unit_test(all_watches_of_a_pid_are_told),
		cmocka_unit_test(a_callback_may_unwatch_another),
		cmocka_unit_test(an_early_exit_is_kept_for_every_hold),
		cmocka_unit_test(what_was_watched_is_not_kept),
		cmocka_unit_test(an_exit_before_the_hold_is_not_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
