/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "artifact/follow.h"
#include "artifact/manifest.h"
#include "artifact/seal.h"
#include "artifact/store.h"
#include "artifact/test-loop.h"
#include "artifact/verify.h"
#include "artifact/worker.h"
#include "base/cleanup.h"

#define MIB   ((uint64_t)1 << 20)
#define CHUNK (4 * MIB)
#define SIZE  (MANIFEST_TREE_MIN + 5)
#define NAME  "pages-1.img"

static struct tree tree;
static struct error err;
static struct follow *f;
static struct scan_file file;
static struct test_loop t;

static int setup(void **state)
{
	(void)state;
	err = ERROR_NULL;
	f = NULL;
	tree_make(&tree);
	test_loop_open(&t);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_loop_close(&t);
	follow_free(f);
	tree_remove(&tree);
	return 0;
}

/* Appends up to size, with something else at every megabyte. */
static void grow(const char *name, uint64_t size)
{
	int fd = openat(tree.fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	struct stat st;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	for (uint64_t at = ((uint64_t)st.st_size + MIB - 1) / MIB * MIB; at < size; at += MIB)
		tree_poke(tree.fd, name, at, (uint8_t)(at / MIB + 1));
	assert_int_equal(close(fd), 0);
}

static unsigned int follow_all(void)
{
	unsigned int n = 0;

	while (follow_step(f))
		n++;
	return n;
}

static size_t known(const char *name, uint64_t chunk_min, const struct digest **ret,
		    uint64_t *ret_chunk_size)
{
	struct stat st;

	assert_int_equal(fstatat(tree.fd, name, &st, 0), 0);
	file = (struct scan_file){
		.path = name, .size = (uint64_t)st.st_size, .dev = st.st_dev, .ino = st.st_ino,
	};
	return follow_known(f, &file, chunk_min, ret, ret_chunk_size);
}

static size_t known_chunks(void)
{
	const struct digest *chunks;
	uint64_t chunk_size;

	return known(NAME, CHUNK, &chunks, &chunk_size);
}

static void chunks_are_known_when_they_are_whole(void **state)
{
	_cleanup_digester_ struct digester *digester = NULL;
	const struct digest *chunks = NULL;
	struct digest right;
	uint64_t chunk_size = 0;
	int fd;

	(void)state;
	assert_int_equal(follow_new(tree.fd, SIZE, &f), 0);
	assert_int_equal(follow_step(f), 0); /* nothing there yet */
	grow(NAME, CHUNK - 1);
	assert_int_equal(follow_all(), 1); /* found, and not long enough */
	grow(NAME, 3 * CHUNK + 1);
	assert_int_equal(follow_all(), 3);
	grow(NAME, SIZE);
	assert_int_equal(follow_all(), 13);
	assert_int_equal(known(NAME, CHUNK, &chunks, &chunk_size), 16);
	assert_int_equal(chunk_size, CHUNK);
	assert_int_equal(digester_new(&digester), 0);
	fd = openat(tree.fd, NAME, O_RDONLY | O_CLOEXEC);
	for (size_t i = 0; i < 16; i++) {
		assert_int_equal(digester_range(digester, fd, i * CHUNK, CHUNK, &right, NULL), 0);
		assert_true(digest_equal(&right, &chunks[i]));
	}
	(void)close(fd);
}

static void the_last_chunk_is_never_known(void **state)
{
	(void)state;
	grow(NAME, 2 * CHUNK);
	assert_int_equal(follow_new(tree.fd, 0, &f), 0);
	assert_int_equal(follow_all(), 3);
	assert_int_equal(known_chunks(), 1);
}

static void what_was_written_to_again_is_forgotten(void **state)
{
	(void)state;
	grow(NAME, SIZE);
	assert_int_equal(follow_new(tree.fd, SIZE, &f), 0);
	(void)follow_all();
	tree_poke(tree.fd, NAME, 3, 'X'); /* a header that is filled in at the end, say */
	assert_int_equal(known_chunks(), 0);
	assert_int_equal(known_chunks(), 0);
}

static void what_begins_again_is_forgotten(void **state)
{
	(void)state;
	grow(NAME, SIZE);
	assert_int_equal(follow_new(tree.fd, SIZE, &f), 0);
	(void)follow_all();
	tree_sparse(tree.fd, NAME, CHUNK);
	(void)follow_all();
	grow(NAME, SIZE);
	(void)follow_all();
	assert_int_equal(known_chunks(), 0);
}

static void another_file_of_that_name_is_not_known(void **state)
{
	(void)state;
	grow(NAME, SIZE);
	assert_int_equal(follow_new(tree.fd, SIZE, &f), 0);
	(void)follow_all();
	assert_int_equal(unlinkat(tree.fd, NAME, 0), 0);
	grow(NAME, SIZE);
	assert_int_equal(known_chunks(), 0);
	(void)follow_all(); /* found by and by */
	assert_int_equal(known_chunks(), 16);
}

/* Though it is as long as what is known of it. */
static void what_got_shorter_is_given_up(void **state)
{
	(void)state;
	grow(NAME, 3 * CHUNK);
	grow("pages-2.img", CHUNK - 1);
	assert_int_equal(follow_new(tree.fd, SIZE, &f), 0);
	assert_int_equal(follow_step(f), 1); /* found */
	assert_int_equal(follow_step(f), 1); /* its first chunk */
	tree_sparse(tree.fd, NAME, 2 * CHUNK);
	tree_sparse(tree.fd, "pages-2.img", 0); /* of which nothing is known */
	assert_int_equal(follow_step(f), 0);
	grow(NAME, SIZE);
	grow("pages-2.img", SIZE);
	assert_int_equal(follow_all(), 0);
	assert_int_equal(known_chunks(), 0);
}

static void only_pages_are_followed(void **state)
{
	(void)state;
	tree_sparse(tree.fd, "core-1.img", SIZE);
	assert_int_equal(symlinkat("core-1.img", tree.fd, "pages-2.img"), 0);
	assert_int_equal(mkfifoat(tree.fd, "pages-3.img", 0600), 0);
	assert_int_equal(mkdirat(tree.fd, "pages-4.img", 0700), 0);
	assert_int_equal(linkat(tree.fd, "core-1.img", tree.fd, "pages-5.img", 0), 0);
	assert_int_equal(follow_new(tree.fd, SIZE, &f), 0);
	assert_int_equal(follow_all(), 0);
}

static void chunks_that_are_too_small_are_of_no_use(void **state)
{
	const struct digest *chunks;
	uint64_t chunk_size;

	(void)state;
	grow(NAME, SIZE);
	assert_int_equal(follow_new(tree.fd, SIZE, &f), 0);
	(void)follow_all();
	assert_int_equal(known(NAME, 2 * CHUNK, &chunks, &chunk_size), 0);
	assert_int_equal(known(NAME, 0, &chunks, &chunk_size), 0); /* hashed as a whole */
}

static void bigger_chunks_for_what_will_be_bigger(void **state)
{
	const struct digest *chunks;
	uint64_t chunk_size;

	(void)state;
	grow(NAME, SIZE);
	assert_int_equal(follow_new(tree.fd, (uint64_t)40 << 30, &f), 0);
	(void)follow_all();
	assert_int_equal(known(NAME, CHUNK, &chunks, &chunk_size), 4);
	assert_int_equal(chunk_size, 16 * MIB);
}

/* -- in the worker --------------------------------------------------------------------------- */

static void follow_in_worker(void)
{
	assert_int_equal(image_follow(&t.env, tree.fd, SIZE, &t.bulk, test_loop_ops(), &t.err), 0);
}

static void begin_seal(void)
{
	struct metadata m = tree_metadata(NULL);

	assert_int_equal(image_commit(&t.env, tree.fd, &m, 2, NSEC_NEVER, &t.bulk, test_loop_ops(),
				      &t.err), 0);
}

static int seal(void)
{
	begin_seal();
	return test_loop_wait(&t);
}

static int verify(void)
{
	assert_int_equal(image_verify(&t.env, tree.fd, 2, 0, NSEC_NEVER, &t.bulk, test_loop_ops(),
				      &t.err), 0);
	return test_loop_wait(&t);
}

/* Until the worker has read what there is: nothing tells, so it is given its time. */
static void let_it_follow(void)
{
	(void)usleep(300000);
	assert_int_equal(loop_round(t.loop, time_now()), 0);
}

static void it_is_sealed_the_same(void **state)
{
	_cleanup_buf_ struct buf with = BUF_NULL, without = BUF_NULL;

	(void)state;
	grow(NAME, SIZE / 2);
	follow_in_worker();
	let_it_follow();
	grow(NAME, SIZE);
	let_it_follow();
	tree_text(tree.fd, "core-1.img", "registers");
	assert_int_equal(seal(), 0);
	assert_int_equal(t.bulk.result.files, 2);
	assert_int_equal(file_read(tree.fd, "kybernate-manifest.json", &with), 0);
	assert_int_equal(verify(), 0);
	assert_int_equal(seal(), 0);
	assert_int_equal(file_read(tree.fd, "kybernate-manifest.json", &without), 0);
	assert_int_equal(buf_len(&with), buf_len(&without));
	assert_memory_equal(buf_bytes(&with).p, buf_bytes(&without).p, buf_len(&with));
}

/* What the first one has written is emptied and removed (the shim, before it tries again). */
static void a_second_dump_into_the_same_folder_is_sealed(void **state)
{
	_cleanup_buf_ struct buf with = BUF_NULL, without = BUF_NULL;

	(void)state;
	grow(NAME, SIZE / 2);
	grow("pages-2.img", SIZE / 2 + 1);
	follow_in_worker();
	let_it_follow();
	tree_sparse(tree.fd, NAME, 0);
	assert_int_equal(unlinkat(tree.fd, NAME, 0), 0);
	tree_sparse(tree.fd, "pages-2.img", 0);
	assert_int_equal(unlinkat(tree.fd, "pages-2.img", 0), 0);
	grow(NAME, CHUNK);
	tree_poke(tree.fd, NAME, 0, 'X'); /* not what the first one began with */
	let_it_follow();
	grow(NAME, SIZE);
	let_it_follow();
	assert_int_equal(seal(), 0);
	assert_int_equal(t.bulk.result.files, 1);
	assert_int_equal(file_read(tree.fd, "kybernate-manifest.json", &with), 0);
	assert_int_equal(verify(), 0);
	assert_int_equal(seal(), 0); /* nobody has followed */
	assert_int_equal(file_read(tree.fd, "kybernate-manifest.json", &without), 0);
	assert_int_equal(buf_len(&with), buf_len(&without));
	assert_memory_equal(buf_bytes(&with).p, buf_bytes(&without).p, buf_len(&with));
}

static void a_change_is_hashed_as_it_is(void **state)
{
	(void)state;
	grow(NAME, SIZE);
	follow_in_worker();
	let_it_follow();
	tree_poke(tree.fd, NAME, 0, 'X');
	assert_int_equal(seal(), 0);
	assert_int_equal(verify(), 0);
}

static void it_is_sealed_without_the_worker_that_followed(void **state)
{
	(void)state;
	grow(NAME, SIZE);
	follow_in_worker();
	assert_int_equal(kill(t.bulk.child.pid, SIGKILL), 0);
	assert_int_equal(test_loop_wait(&t), -EIO);
	assert_false(bulk_running(&t.bulk));
	assert_int_equal(seal(), 0);
	assert_int_equal(verify(), 0);
}

static void a_death_in_the_sealing_is_a_failure(void **state)
{
	(void)state;
	grow(NAME, SIZE);
	follow_in_worker();
	/* It has the order, and cannot have carried it out. */
	assert_int_equal(kill(t.bulk.child.pid, SIGSTOP), 0);
	begin_seal();
	assert_int_equal(kill(t.bulk.child.pid, SIGKILL), 0);
	assert_int_equal(test_loop_wait(&t), -EIO);
	assert_int_equal(t.err.reason, REASON_STORE_FAILED);
	assert_int_equal(seal(), 0);
	assert_int_equal(verify(), 0);
}

/* Its socket says so, before the loop has heard of it: another one does all of it. */
static void a_death_that_nobody_has_noticed_costs_nothing(void **state)
{
	siginfo_t info;

	(void)state;
	grow(NAME, SIZE);
	follow_in_worker();
	assert_int_equal(kill(t.bulk.child.pid, SIGKILL), 0);
	assert_int_equal(waitid(P_PID, (id_t)t.bulk.child.pid, &info, WEXITED | WNOWAIT), 0);
	assert_int_equal(seal(), 0);
	assert_int_equal(verify(), 0);
}

static void nothing_is_left_of_it(void **state)
{
	(void)state;
	grow(NAME, SIZE);
	follow_in_worker();
	bulk_release(&t.bulk);
	assert_false(bulk_running(&t.bulk));
	assert_false(tree_has(tree.fd, "kybernate.json"));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(chunks_are_known_when_they_are_whole),
		T(the_last_chunk_is_never_known),
		T(what_was_written_to_again_is_forgotten),
		T(what_begins_again_is_forgotten),
		T(another_file_of_that_name_is_not_known),
		T(what_got_shorter_is_given_up),
		T(only_pages_are_followed),
		T(chunks_that_are_too_small_are_of_no_use),
		T(bigger_chunks_for_what_will_be_bigger),
		T(it_is_sealed_the_same),
		T(a_second_dump_into_the_same_folder_is_sealed),
		T(a_change_is_hashed_as_it_is),
		T(it_is_sealed_without_the_worker_that_followed),
		T(a_death_in_the_sealing_is_a_failure),
		T(a_death_that_nobody_has_noticed_costs_nothing),
		T(nothing_is_left_of_it),
	};
	int status;

	if (worker_role(argc, argv, &status))
		return status;
	tree_in_memory();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
