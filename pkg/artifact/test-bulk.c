/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include "artifact/bulk.h"
#include "artifact/manifest.h"
#include "artifact/store.h"
#include "artifact/test-loop.h"
#include "artifact/worker.h"

static struct tree tree;
static struct test_loop t;

static int setup(void **state)
{
	(void)state;
	tree_make(&tree);
	tree_text(tree.fd, "pages-1.img", "memory");
	test_loop_open(&t);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_loop_close(&t);
	tree_remove(&tree);
	return 0;
}

static int start(nsec_t deadline)
{
	struct metadata m = tree_metadata(NULL);

	return image_commit(&t.env, tree.fd, &m, 1, deadline, &t.bulk, test_loop_ops(), &t.err);
}

/* A program that does something else than what a worker does. */
static void pretend(const char *script)
{
	static char path[128];

	tree_text(tree.fd, "script", script);
	assert_int_equal(fchmodat(tree.fd, "script", 0700, 0), 0);
	(void)snprintf(path, sizeof(path), "%s/script", tree.path);
	t.env.program = path;
}

static nsec_t soon(void)
{
	return time_add(time_now(), 200 * NSEC_PER_MSEC);
}

static void failed(enum reason reason, const char *text)
{
	assert_true(t.r < 0);
	assert_int_equal(t.err.code, t.r);
	assert_int_equal(t.err.reason, reason);
	assert_string_equal(t.err.text, text);
	assert_false(bulk_running(&t.bulk));
	assert_false(tree_has(tree.fd, "kybernate.json"));
}

static void it_is_done_in_a_child(void **state)
{
	(void)state;
	assert_int_equal(start(NSEC_NEVER), 0);
	assert_true(bulk_running(&t.bulk));
	assert_int_equal(test_loop_wait(&t), 0);
	assert_false(bulk_running(&t.bulk));
	assert_int_equal(t.bulk.result.files, 1);
	assert_int_equal(t.bulk.result.bytes, 6);
	assert_true(t.reports >= 1);
	assert_true(tree_has(tree.fd, "kybernate.json"));
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* and nothing is left of it */
	assert_int_equal(image_verify(&t.env, tree.fd, 1, 0, NSEC_NEVER, &t.bulk,
				      test_loop_ops(), &t.err), 0);
	assert_int_equal(test_loop_wait(&t), 0);
}

static void what_goes_wrong_there_is_told_here(void **state)
{
	(void)state;
	assert_int_equal(start(NSEC_NEVER), 0);
	assert_int_equal(test_loop_wait(&t), 0);
	tree_poke(tree.fd, "pages-1.img", 0, 'X');
	assert_int_equal(image_verify(&t.env, tree.fd, 1, 0, NSEC_NEVER, &t.bulk,
				      test_loop_ops(), &t.err), 0);
	assert_int_equal(test_loop_wait(&t), -EBADMSG);
	assert_int_equal(t.err.reason, REASON_IMAGE_CORRUPT);
	assert_string_equal(t.err.text, "pages-1.img: is damaged");
	assert_string_equal(t.bulk.result.damaged, "pages-1.img");
	assert_int_equal(t.bulk.result.damaged_length, 6);
}

static void helpers_share_a_big_file(void **state)
{
	struct metadata m = tree_metadata(NULL);

	(void)state;
	tree_sparse(tree.fd, "pages-2.img", 4 * MANIFEST_TREE_MIN);
	assert_int_equal(image_commit(&t.env, tree.fd, &m, 3, NSEC_NEVER, &t.bulk,
				      test_loop_ops(), &t.err), 0);
	assert_int_equal(test_loop_wait(&t), 0);
	assert_int_equal(image_verify(&t.env, tree.fd, 1, 0, NSEC_NEVER, &t.bulk,
				      test_loop_ops(), &t.err), 0);
	assert_int_equal(test_loop_wait(&t), 0);
}

static void at_the_deadline_it_is_killed(void **state)
{
	(void)state;
	tree_sparse(tree.fd, "pages-2.img", (uint64_t)64 << 30);
	assert_int_equal(start(soon()), 0);
	assert_int_equal(test_loop_wait(&t), -ETIMEDOUT);
	failed(REASON_TIMEOUT, "the store worker was killed: it did not end in its time");
}

static void it_can_be_canceled(void **state)
{
	(void)state;
	tree_sparse(tree.fd, "pages-2.img", (uint64_t)64 << 30);
	assert_int_equal(start(NSEC_NEVER), 0);
	bulk_cancel(&t.bulk);
	bulk_cancel(&t.bulk);
	assert_int_equal(test_loop_wait(&t), -ECANCELED);
	failed(REASON_CANCELED, "the work was canceled");
	bulk_cancel(&t.bulk); /* harmless */
}

static void cancel_it(struct test_loop *at)
{
	bulk_cancel(&at->bulk);
}

static void it_can_be_canceled_out_of_its_progress(void **state)
{
	(void)state;
	tree_sparse(tree.fd, "pages-2.img", (uint64_t)64 << 30);
	t.on_progress = cancel_it;
	assert_int_equal(start(NSEC_NEVER), 0);
	assert_int_equal(test_loop_wait(&t), -ECANCELED);
	failed(REASON_CANCELED, "the work was canceled");
	assert_int_equal(t.reports, 1); /* no more of it afterwards */
}

static void helpers_die_with_their_worker(void **state)
{
	struct metadata m = tree_metadata(NULL);

	(void)state;
	tree_sparse(tree.fd, "pages-2.img", (uint64_t)64 << 30);
	t.on_progress = cancel_it;
	assert_int_equal(image_commit(&t.env, tree.fd, &m, 2, NSEC_NEVER, &t.bulk,
				      test_loop_ops(), &t.err), 0);
	assert_int_equal(test_loop_wait(&t), -ECANCELED);
	/* Nobody has the file open any more; helpers may need a moment to die. */
	for (int i = 0;; i++) {
		char command[256];

		(void)snprintf(command, sizeof(command),
			       "! ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q '%s/pages-2.img'",
			       tree.path);
		if (system(command) == 0)
			break;
		assert_true(i < 50);
		(void)usleep(100000);
	}
}

static void released_it_says_nothing_more(void **state)
{
	(void)state;
	tree_sparse(tree.fd, "pages-2.img", (uint64_t)64 << 30);
	assert_int_equal(start(NSEC_NEVER), 0);
	bulk_release(&t.bulk);
	assert_false(bulk_running(&t.bulk));
	for (int i = 0; i < 10; i++)
		assert_int_equal(loop_round(t.loop, time_add(time_now(), 10 * NSEC_PER_MSEC)), 0);
	assert_false(t.done);
	bulk_release(&t.bulk); /* harmless */
}

static void a_program_that_is_missing_is_told_at_once(void **state)
{
	(void)state;
	t.env.program = "/nonexistent/program";
	assert_int_equal(start(NSEC_NEVER), -ENOENT);
	assert_int_equal(t.err.reason, REASON_STORE_FAILED);
	assert_false(bulk_running(&t.bulk));
}

static void a_worker_that_dies_is_a_failure(void **state)
{
	(void)state;
	pretend("#!/bin/sh\nexit 7\n");
	assert_int_equal(start(NSEC_NEVER), 0);
	assert_int_equal(test_loop_wait(&t), -EIO);
	failed(REASON_STORE_FAILED, "the store worker ended without a result, with status 7");
	pretend("#!/bin/sh\nkill -SEGV $$\n");
	assert_int_equal(start(NSEC_NEVER), 0);
	assert_int_equal(test_loop_wait(&t), -EIO);
	failed(REASON_STORE_FAILED, "the store worker was killed by signal 11");
}

static void a_worker_that_talks_nonsense_is_killed(void **state)
{
	(void)state;
	pretend("#!/bin/sh\necho 'all is well, believe me' >&3\nexec sleep 100\n");
	assert_int_equal(start(NSEC_NEVER), 0);
	assert_int_equal(test_loop_wait(&t), -EBADMSG);
	failed(REASON_STORE_FAILED, "the store worker cannot be understood");
}

static void a_worker_that_talks_without_end_is_killed(void **state)
{
	(void)state;
	pretend("#!/bin/sh\nexec cat /dev/zero >&3\n");
	assert_int_equal(start(NSEC_NEVER), 0);
	assert_int_equal(test_loop_wait(&t), -EBADMSG);
	failed(REASON_STORE_FAILED, "the store worker cannot be understood");
}

static void a_worker_that_says_nothing_is_killed_in_time(void **state)
{
	(void)state;
	pretend("#!/bin/sh\nexec 3>&-\nexec sleep 100\n");
	assert_int_equal(start(soon()), 0);
	assert_int_equal(test_loop_wait(&t), -ETIMEDOUT);
	failed(REASON_TIMEOUT, "the store worker was killed: it did not end in its time");
}

/* It takes the time that a child is given to end by itself. */
static void a_worker_that_does_not_end_is_killed(void **state)
{
	(void)state;
	pretend("#!/bin/sh\nexec 3>&-\nexec sleep 100\n");
	assert_int_equal(start(NSEC_NEVER), 0);
	assert_int_equal(test_loop_wait(&t), -EPROTO);
	failed(REASON_STORE_FAILED, "the store worker was killed: it did not end");
}

/* The result of a sweep that found nothing, by a worker that stays on. */
static void a_result_counts_even_if_the_worker_hangs(void **state)
{
	_cleanup_buf_ struct buf frame = BUF_NULL;
	struct protocol_result result = { .files = 3 };

	(void)state;
	assert_int_equal(protocol_put_result(&frame, &result), 0);
	tree_write(tree.fd, "frame", buf_bytes(&frame).p, buf_len(&frame));
	pretend("#!/bin/sh\ncat \"${0%script}frame\" >&3\nexec sleep 100\n");
	assert_int_equal(start(NSEC_NEVER), 0);
	assert_int_equal(test_loop_wait(&t), 0);
	assert_int_equal(t.bulk.result.files, 3);
}

/* Half a result, then the end. */
static void a_worker_that_is_cut_off_is_a_failure(void **state)
{
	(void)state;
	pretend("#!/bin/sh\nprintf '\\020\\0\\0\\0\\003' >&3\n");
	assert_int_equal(start(NSEC_NEVER), 0);
	assert_int_equal(test_loop_wait(&t), -EIO);
	failed(REASON_STORE_FAILED, "the store worker ended without a result, with status 0");
}

static void a_result_out_of_bounds_is_not_believed(void **state)
{
	(void)state;
	/* A frame of type RESULT that is far too short. */
	pretend("#!/bin/sh\nprintf '\\001\\0\\0\\0\\003' >&3\nexec sleep 100\n");
	assert_int_equal(start(NSEC_NEVER), 0);
	assert_int_equal(test_loop_wait(&t), -EBADMSG);
}

static void a_role_is_played_only_when_asked_for(void **state)
{
	char *none[] = { (char[]){ "x" }, NULL };
	char *other[] = { (char[]){ "x" }, (char[]){ "--store" }, NULL };
	char *more[] = { (char[]){ "x" }, (char[]){ "--store-worker" }, (char[]){ "y" }, NULL };
	int status;

	(void)state;
	assert_false(worker_role(1, none, &status));
	assert_false(worker_role(2, other, &status));
	assert_false(worker_role(3, more, &status));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(it_is_done_in_a_child),
		T(what_goes_wrong_there_is_told_here),
		T(helpers_share_a_big_file),
		T(at_the_deadline_it_is_killed),
		T(it_can_be_canceled),
		T(it_can_be_canceled_out_of_its_progress),
		T(helpers_die_with_their_worker),
		T(released_it_says_nothing_more),
		T(a_program_that_is_missing_is_told_at_once),
		T(a_worker_that_dies_is_a_failure),
		T(a_worker_that_talks_nonsense_is_killed),
		T(a_worker_that_talks_without_end_is_killed),
		T(a_worker_that_says_nothing_is_killed_in_time),
		T(a_worker_that_does_not_end_is_killed),
		T(a_result_counts_even_if_the_worker_hangs),
		T(a_worker_that_is_cut_off_is_a_failure),
		T(a_result_out_of_bounds_is_not_believed),
		T(a_role_is_played_only_when_asked_for),
	};
	int status;

	if (worker_role(argc, argv, &status))
		return status;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
