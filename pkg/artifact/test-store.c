/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "artifact/manifest.h"
#include "artifact/store.h"
#include "artifact/test-loop.h"
#include "artifact/worker.h"

static struct tree tree;
static struct test_loop t;
static struct store *store;
static char path[128];
static struct error err;

static bool swept;
static unsigned int n_swept, n_told;
static int swept_r;
static bool all_gone_told; /* as who waits for the room understands it */

static void on_swept(void *arg, unsigned int n, int r, const struct error *e)
{
	assert_ptr_equal(arg, &tree);
	assert_int_equal(r < 0, e != NULL);
	swept = true;
	n_swept += n;
	n_told++;
	swept_r = r;
	all_gone_told |= r == 0 && !store_sweeping(store);
}

static int setup(void **state)
{
	(void)state;
	err = ERROR_NULL;
	swept = false;
	n_swept = n_told = 0;
	all_gone_told = false;
	tree_make(&tree);
	(void)snprintf(path, sizeof(path), "%s/store", tree.path);
	test_loop_open(&t);
	assert_int_equal(store_open(path, STORE_OWNER, &t.env, &store, &err), 0);
	store_on_swept(store, on_swept, &tree);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	store_close(store);
	store = NULL;
	test_loop_close(&t);
	tree_remove(&tree);
	return 0;
}

static void wait_swept(void)
{
	test_loop_until(&t, &swept);
	swept = false;
}

/* What CRIU and the shim leave behind. */
static void fill(const struct store_work *w)
{
	tree_text(w->fd, "criu/inventory.img", "i");
	tree_text(w->fd, "criu/pages-1.img", "memory");
	tree_text(w->fd, "logs/dump.log", "log");
	assert_int_equal(store_put(w, "spec.json", bytes_of("{}", 2), &err), 0);
}

static int commit(const struct store_work *w)
{
	struct metadata m = tree_metadata(NULL);

	assert_int_equal(store_commit(w, &m, 1, NSEC_NEVER, &t.bulk, test_loop_ops(), &err), 0);
	return test_loop_wait(&t);
}

static void make_checkpoint(const char *ref)
{
	struct store_work w;

	assert_int_equal(store_begin(store, ref, &w, &err), 0);
	fill(&w);
	assert_int_equal(commit(&w), 0);
	store_work_close(&w);
}

static int count_entries(const char *prefix)
{
	_cleanup_closedir_ DIR *dir = opendir(path);
	struct dirent *e;
	int n = 0;

	assert_non_null(dir);
	while ((e = readdir(dir)))
		n += strncmp(e->d_name, prefix, strlen(prefix)) == 0;
	return n;
}

/* -- opening --------------------------------------------------------------------------------- */

static void reopen_fails(enum store_access access, const char *why)
{
	struct store *again = NULL;

	err = ERROR_NULL;
	assert_true(store_open(path, access, &t.env, &again, &err) < 0);
	assert_null(again);
	if (!strstr(error_text(&err), why))
		assert_string_equal(error_text(&err), why);
	assert_int_equal(err.reason, REASON_STORE_FAILED);
}

static void a_store_is_made_where_there_is_none(void **state)
{
	struct stat st;

	(void)state;
	assert_string_equal(store_path(store), path);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	store_close(store);
	/* Parents too. */
	(void)snprintf(path, sizeof(path), "%s/a/b/store", tree.path);
	assert_int_equal(store_open(path, STORE_OWNER, &t.env, &store, &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
}

static void one_agent_at_a_time(void **state)
{
	struct store *reader;

	(void)state;
	reopen_fails(STORE_OWNER, "is in use by another agent");
	assert_int_equal(store_open(path, STORE_READER, &t.env, &reader, &err), 0);
	store_close(reader);
	store_close(store);
	assert_int_equal(store_open(path, STORE_OWNER, &t.env, &store, &err), 0);
}

static void a_directory_with_something_else_in_it_is_no_store(void **state)
{
	(void)state;
	store_close(store);
	store = NULL;
	assert_int_equal(unlinkat(tree.fd, "store/.kybernate-store", 0), 0);
	tree_text(tree.fd, "store/docker", "");
	reopen_fails(STORE_OWNER, "is neither a checkpoint store nor empty");
	assert_false(tree_has(tree.fd, "store/.kybernate-store"));
	reopen_fails(STORE_READER, "is not a checkpoint store");
}

static void a_fresh_file_system_is_as_good_as_empty(void **state)
{
	(void)state;
	store_close(store);
	store = NULL;
	assert_int_equal(unlinkat(tree.fd, "store/.kybernate-store", 0), 0);
	assert_int_equal(mkdirat(tree.fd, "store/lost+found", 0700), 0);
	tree_text(tree.fd, "store/.kybernate-store.new", ""); /* a crash in the middle */
	assert_int_equal(store_open(path, STORE_OWNER, &t.env, &store, &err), 0);
}

static void another_version_of_store_is_refused(void **state)
{
	(void)state;
	store_close(store);
	store = NULL;
	tree_text(tree.fd, "store/.kybernate-store", "kybernate.io/store/v2\n");
	reopen_fails(STORE_OWNER, "is of a version that this kybernate does not know");
	tree_text(tree.fd, "store/.kybernate-store", "");
	reopen_fails(STORE_OWNER, "is of a version that this kybernate does not know");
}

static void a_store_open_to_others_is_refused(void **state)
{
	(void)state;
	store_close(store);
	store = NULL;
	assert_int_equal(chmod(path, 0750), 0);
	reopen_fails(STORE_OWNER, "is open to others: its mode has to be 0700");
	assert_int_equal(chmod(path, 0700), 0);
	assert_int_equal(chmod(tree.path, 0777), 0);
	reopen_fails(STORE_OWNER, "lies below a directory that others can write to");
	/* As /tmp is: nobody can rename what is not his. */
	assert_int_equal(chmod(tree.path, 01777), 0);
	assert_int_equal(store_open(path, STORE_OWNER, &t.env, &store, &err), 0);
}

static void a_store_of_another_user_is_refused(void **state)
{
	(void)state;
	store_close(store);
	store = NULL;
	if (chown(path, 12345, -1) < 0)
		skip(); /* not root */
	reopen_fails(STORE_OWNER, "belongs to another user");
	assert_int_equal(chown(path, 0, -1), 0);
	assert_int_equal(chown(tree.path, 12345, -1), 0);
	reopen_fails(STORE_OWNER, "lies below a directory that belongs to somebody else");
}

static void a_link_to_a_store_is_refused(void **state)
{
	struct store *other;

	(void)state;
	assert_int_equal(symlinkat("store", tree.fd, "link"), 0);
	(void)snprintf(path, sizeof(path), "%s/link", tree.path);
	assert_int_equal(store_open(path, STORE_READER, &t.env, &other, &err), -ENOTDIR);
}

static void paths_have_to_be_absolute_and_short(void **state)
{
	char longer[PATH_MAX];
	struct store *other;

	(void)state;
	assert_int_equal(store_open("store", STORE_OWNER, &t.env, &other, &err), -EINVAL);
	assert_int_equal(err.reason, REASON_CONFIG_INVALID);
	memset(longer, 'a', sizeof(longer));
	longer[0] = '/';
	longer[sizeof(longer) - 1] = 0;
	assert_int_equal(store_open(longer, STORE_OWNER, &t.env, &other, &err), -EINVAL);
}

/* -- making ---------------------------------------------------------------------------------- */

static void a_checkpoint_from_begin_to_end(void **state)
{
	_cleanup_arena_ struct arena arena = ARENA_LIMIT(METADATA_MEMORY_MAX);
	struct store_pin pin = STORE_PIN_NULL;
	struct metadata m;
	struct store_work w;
	char want[256];

	(void)state;
	assert_int_equal(store_begin(store, "trainer-1", &w, &err), 0);
	(void)snprintf(want, sizeof(want), "%s/.new-trainer-1/criu", path);
	assert_string_equal(w.criu_path, want);
	(void)snprintf(want, sizeof(want), "%s/.new-trainer-1/logs", path);
	assert_string_equal(w.logs_path, want);
	assert_int_equal(access(w.criu_path, W_OK), 0);
	fill(&w);
	/* Not there before it is sealed. */
	assert_int_equal(store_get(store, "trainer-1", &arena, &m, &err), -ENOENT);
	assert_int_equal(err.reason, REASON_IMAGE_MISSING);
	assert_int_equal(commit(&w), 0);
	store_work_close(&w);
	assert_int_equal(store_get(store, "trainer-1", &arena, &m, &err), 0);
	assert_string_equal(m.ref, "trainer-1");
	assert_int_equal(m.manifest.files, 6);
	assert_int_equal(m.gpu.n_processes, 1);
	assert_int_equal(store_pin(store, "trainer-1", &pin, &err), 0);
	(void)snprintf(want, sizeof(want), "%s/trainer-1/criu", path);
	assert_string_equal(pin.criu_path, want);
	assert_int_equal(store_verify(store, &pin, 1, true, 0, NSEC_NEVER, &t.bulk,
				      test_loop_ops(), &err), 0);
	assert_int_equal(test_loop_wait(&t), 0);
	assert_int_equal(t.bulk.result.files, 6);
	store_unpin(&pin);
	store_unpin(&pin); /* harmless */
}

static void refs_are_names(void **state)
{
	static const char *const wrong[] = {
		"", ".", "..", "../x", "a/b", "/etc", ".new-a", "a b", "a\n", "-a",
	};
	_cleanup_arena_ struct arena arena = ARENA_LIMIT(METADATA_MEMORY_MAX);
	struct store_pin pin = STORE_PIN_NULL;
	struct store_work w;
	struct metadata m;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_int_equal(store_begin(store, wrong[i], &w, &err), -EINVAL);
		assert_int_equal(err.reason, REASON_REF_INVALID);
		assert_int_equal(store_resume(store, wrong[i], &w, &err), -EINVAL);
		assert_int_equal(store_get(store, wrong[i], &arena, &m, &err), -EINVAL);
		assert_int_equal(store_pin(store, wrong[i], &pin, &err), -EINVAL);
		assert_int_equal(store_delete(store, wrong[i], &err), -EINVAL);
	}
}

static void the_longest_ref_works(void **state)
{
	char ref[REF_MAX + 1];

	(void)state;
	memset(ref, 'r', REF_MAX);
	ref[REF_MAX] = 0;
	make_checkpoint(ref);
	assert_int_equal(store_delete(store, ref, &err), 0);
	wait_swept();
	assert_int_equal(count_entries(".del-"), 0);
}

static void a_ref_is_claimed_once(void **state)
{
	struct store_work w, other;

	(void)state;
	assert_int_equal(store_begin(store, "a", &w, &err), 0);
	assert_int_equal(store_begin(store, "a", &other, &err), -EEXIST);
	assert_int_equal(err.reason, REASON_REF_EXISTS);
	assert_string_equal(error_text(&err), "a checkpoint 'a' is being made");
	fill(&w);
	assert_int_equal(commit(&w), 0);
	store_work_close(&w);
	assert_int_equal(store_begin(store, "a", &other, &err), -EEXIST);
	assert_int_equal(err.reason, REASON_REF_EXISTS);
	assert_string_equal(error_text(&err), "a checkpoint 'a' exists");
}

static void thrown_away_the_ref_is_free_again(void **state)
{
	struct store_work w;

	(void)state;
	assert_int_equal(store_begin(store, "a", &w, &err), 0);
	fill(&w);
	assert_int_equal(store_abort(&w, &err), 0);
	assert_int_equal(count_entries(".new-"), 0);
	assert_int_equal(store_begin(store, "a", &w, &err), 0);
	store_work_close(&w);
	wait_swept();
	assert_int_equal(n_swept, 1);
	assert_int_equal(count_entries(".del-"), 0);
}

static void a_commit_that_failed_can_be_tried_again(void **state)
{
	struct store_work w;

	(void)state;
	assert_int_equal(store_begin(store, "a", &w, &err), 0);
	fill(&w);
	assert_int_equal(symlinkat("pages-1.img", w.fd, "criu/parent"), 0);
	assert_int_equal(commit(&w), -EBADMSG);
	assert_int_equal(t.err.reason, REASON_IMAGE_CORRUPT);
	assert_int_equal(count_entries("a"), 0);
	assert_int_equal(unlinkat(w.fd, "criu/parent", 0), 0);
	assert_int_equal(commit(&w), 0);
	store_work_close(&w);
	assert_int_equal(count_entries("a"), 1);
}

static void a_commit_stopped_in_the_middle_leaves_no_checkpoint(void **state)
{
	struct metadata m = tree_metadata(NULL);
	struct store_work w;

	(void)state;
	assert_int_equal(store_begin(store, "a", &w, &err), 0);
	fill(&w);
	tree_sparse(w.fd, "criu/pages-2.img", (uint64_t)64 << 30);
	assert_int_equal(store_commit(&w, &m, 2, time_add(time_now(), 300 * NSEC_PER_MSEC),
				      &t.bulk, test_loop_ops(), &err), 0);
	assert_int_equal(test_loop_wait(&t), -ETIMEDOUT);
	assert_int_equal(count_entries("a"), 0);
	assert_int_equal(store_abort(&w, &err), 0);
	wait_swept();
	assert_int_equal(count_entries("."), 3); /* ".", ".." and the marker */
}

static void metadata_that_cannot_be_written_is_refused_at_once(void **state)
{
	struct metadata m = tree_metadata(NULL);
	struct store_work w;

	(void)state;
	m.created_at = "today";
	assert_int_equal(store_begin(store, "a", &w, &err), 0);
	assert_int_equal(store_commit(&w, &m, 1, NSEC_NEVER, &t.bulk, test_loop_ops(), &err),
			 -EINVAL);
	assert_int_equal(err.reason, REASON_INTERNAL);
	assert_false(bulk_running(&t.bulk));
	store_work_close(&w);
	store_work_close(&w); /* harmless */
}

static void small_files_go_in_once_under_plain_names(void **state)
{
	struct store_work w;

	(void)state;
	assert_int_equal(store_begin(store, "a", &w, &err), 0);
	assert_int_equal(store_put(&w, "container.pb", bytes_of("\0\1", 2), &err), 0);
	assert_int_equal(store_put(&w, "container.pb", bytes_of("x", 1), &err), -EEXIST);
	assert_int_equal(store_put(&w, "a/b", bytes_of("x", 1), &err), -EINVAL);
	assert_int_equal(store_put(&w, "../b", bytes_of("x", 1), &err), -EINVAL);
	assert_int_equal(store_put(&w, "metadata.json", bytes_of("x", 1), &err), -EINVAL);
	assert_int_equal(symlinkat("/tmp/x", w.fd, "link"), 0);
	assert_int_equal(store_put(&w, "link", bytes_of("x", 1), &err), -EEXIST);
	store_work_close(&w);
}

static void one_that_was_begun_before_can_be_finished(void **state)
{
	struct store_work w;

	(void)state;
	assert_int_equal(store_resume(store, "a", &w, &err), -ENOENT);
	assert_int_equal(err.reason, REASON_IMAGE_MISSING);
	assert_int_equal(store_begin(store, "a", &w, &err), 0);
	fill(&w);
	store_work_close(&w); /* the agent dies here, the dump goes on */
	store_close(store);
	assert_int_equal(store_open(path, STORE_OWNER, &t.env, &store, &err), 0);
	assert_int_equal(store_resume(store, "a", &w, &err), 0);
	assert_int_equal(commit(&w), 0);
	store_work_close(&w);
	assert_int_equal(count_entries("a"), 1);
}

static void names_are_made_up_that_are_free(void **state)
{
	static const struct {
		const char *hint, *begin;
	} cases[] = {
		{ "trainer", "trainer-20" },
		{ NULL, "checkpoint-20" },
		{ "", "checkpoint-20" },
		{ "../../etc/passwd", "etc-passwd-20" },
		{ ".hidden name\n", "hidden-name--20" },
		{ "\xc3\xa9", "checkpoint-20" },
	};
	char ref[REF_MAX + 1], other[REF_MAX + 1], hint[500];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(store_new_ref(store, cases[i].hint, ref, &err), 0);
		assert_true(ref_valid(ref));
		if (strncmp(ref, cases[i].begin, strlen(cases[i].begin)) != 0)
			assert_string_equal(ref, cases[i].begin);
	}
	memset(hint, 'h', sizeof(hint));
	hint[sizeof(hint) - 1] = 0;
	assert_int_equal(store_new_ref(store, hint, ref, &err), 0);
	assert_int_equal(strlen(ref), REF_MAX);
	assert_true(ref_valid(ref));
	assert_int_equal(store_new_ref(store, hint, other, &err), 0);
	assert_string_not_equal(ref, other);
	/* "-20261123T152201Z-1a2b" */
	for (int i = 1; i <= 4; i++)
		assert_true(isxdigit((unsigned char)ref[REF_MAX - i]));
	assert_int_equal(ref[REF_MAX - 5], '-');
	assert_int_equal(ref[REF_MAX - 6], 'Z');
	assert_int_equal(ref[REF_MAX - 13], 'T');
}

/* -- using ----------------------------------------------------------------------------------- */

static void the_files_of_a_checkpoint(void **state)
{
	_cleanup_arena_ struct arena arena = ARENA_LIMIT(METADATA_MEMORY_MAX);
	_cleanup_arena_ struct arena files = ARENA_LIMIT(MANIFEST_MEMORY_MAX);
	struct manifest list;
	struct metadata m;

	(void)state;
	make_checkpoint("a");
	assert_int_equal(store_get(store, "a", &arena, &m, &err), 0);
	assert_int_equal(store_get_files(store, &m, &files, &list, &err), 0);
	assert_int_equal(list.n_files, 6);
	assert_string_equal(list.files[5].path, "spec.json");
	assert_int_equal(manifest_bytes(&list), m.manifest.bytes);
	tree_poke(tree.fd, "store/a/manifest.json", 50, '#');
	assert_int_equal(store_get_files(store, &m, &files, &list, &err), -EBADMSG);
	assert_string_equal(error_text(&err),
			    "checkpoint 'a': manifest.json: is not the one that metadata.json names");
	assert_int_equal(store_delete(store, "a", &err), 0);
	assert_int_equal(store_get_files(store, &m, &files, &list, &err), -ENOENT);
	wait_swept();
}

static void what_is_in_use_is_not_deleted(void **state)
{
	struct store_pin one = STORE_PIN_NULL, two = STORE_PIN_NULL;

	(void)state;
	make_checkpoint("a");
	assert_int_equal(store_pin(store, "a", &one, &err), 0);
	assert_int_equal(store_pin(store, "a", &two, &err), 0);
	assert_int_equal(store_delete(store, "a", &err), -EBUSY);
	assert_int_equal(err.reason, REASON_BUSY);
	store_unpin(&one);
	assert_int_equal(store_delete(store, "a", &err), -EBUSY);
	store_unpin(&two);
	assert_int_equal(store_delete(store, "a", &err), 0);
	assert_int_equal(store_pin(store, "a", &one, &err), -ENOENT);
	assert_int_equal(err.reason, REASON_IMAGE_MISSING);
	wait_swept();
	assert_int_equal(count_entries(".del-"), 0);
}

static void a_lock_of_another_process_counts_too(void **state)
{
	int ready[2];
	char byte;
	pid_t pid;

	(void)state;
	make_checkpoint("a");
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		int fd = openat(tree.fd, "store/a", O_RDONLY | O_DIRECTORY);

		if (flock(fd, LOCK_SH) < 0 || write(ready[1], "x", 1) != 1)
			_exit(1);
		(void)pause();
		_exit(0);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(store_delete(store, "a", &err), -EBUSY);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	/* And goes with it. */
	assert_int_equal(store_delete(store, "a", &err), 0);
	wait_swept();
	(void)close(ready[0]);
	(void)close(ready[1]);
}

static void what_is_being_made_is_no_checkpoint_to_delete(void **state)
{
	struct store_work w;

	(void)state;
	assert_int_equal(store_begin(store, "a", &w, &err), 0);
	assert_int_equal(store_delete(store, "a", &err), -ENOENT);
	assert_int_equal(err.reason, REASON_IMAGE_MISSING);
	store_work_close(&w);
}

static void damage_is_found(void **state)
{
	struct store_pin pin = STORE_PIN_NULL;

	(void)state;
	make_checkpoint("a");
	tree_poke(tree.fd, "store/a/criu/pages-1.img", 0, 'X');
	assert_int_equal(store_pin(store, "a", &pin, &err), 0);
	assert_int_equal(store_verify(store, &pin, 2, false, 0, NSEC_NEVER, &t.bulk,
				      test_loop_ops(), &err), 0);
	assert_int_equal(test_loop_wait(&t), -EBADMSG);
	assert_int_equal(t.err.reason, REASON_IMAGE_CORRUPT);
	assert_string_equal(t.bulk.result.damaged, "criu/pages-1.img");
	store_unpin(&pin);
}

static void a_renamed_checkpoint_is_not_taken_for_another(void **state)
{
	_cleanup_arena_ struct arena arena = ARENA_LIMIT(METADATA_MEMORY_MAX);
	struct metadata m;

	(void)state;
	make_checkpoint("a");
	assert_int_equal(renameat(tree.fd, "store/a", tree.fd, "store/b"), 0);
	assert_int_equal(store_get(store, "b", &arena, &m, &err), -EBADMSG);
	assert_string_equal(error_text(&err), "checkpoint 'b': its metadata is that of 'a'");
	assert_int_equal(err.reason, REASON_IMAGE_CORRUPT);
}

static void a_link_in_the_store_is_no_checkpoint(void **state)
{
	_cleanup_arena_ struct arena arena = ARENA_LIMIT(METADATA_MEMORY_MAX);
	struct store_pin pin = STORE_PIN_NULL;
	struct metadata m;

	(void)state;
	make_checkpoint("a");
	assert_int_equal(symlinkat("a", tree.fd, "store/link"), 0);
	assert_int_equal(store_get(store, "link", &arena, &m, &err), -EBADMSG);
	assert_int_equal(store_pin(store, "link", &pin, &err), -EBADMSG);
	assert_true(store_delete(store, "link", &err) < 0);
	assert_int_equal(count_entries("a"), 1);
}

static void checkpoints_are_listed_in_order(void **state)
{
	struct store_list l;

	(void)state;
	make_checkpoint("b");
	make_checkpoint("c");
	make_checkpoint("a");
	assert_int_equal(store_list(store, NULL, 100, &l, &err), 0);
	assert_int_equal(l.n_entries, 3);
	assert_string_equal(l.entries[0].ref, "a");
	assert_string_equal(l.entries[2].ref, "c");
	assert_int_equal(l.entries[1].metadata.manifest.files, 6);
	assert_false(l.more);
	store_list_done(&l);
	assert_int_equal(store_list(store, NULL, 2, &l, &err), 0);
	assert_int_equal(l.n_entries, 2);
	assert_true(l.more);
	store_list_done(&l);
	assert_int_equal(store_list(store, "b", 2, &l, &err), 0);
	assert_int_equal(l.n_entries, 1);
	assert_string_equal(l.entries[0].ref, "c");
	assert_false(l.more);
	store_list_done(&l);
}

static void garbage_is_not_listed_but_damage_is(void **state)
{
	struct store_work w;
	struct store_list l;

	(void)state;
	make_checkpoint("good");
	make_checkpoint("torn");
	tree_text(tree.fd, "store/torn/metadata.json", "{");
	assert_int_equal(store_begin(store, "unfinished", &w, &err), 0);
	assert_int_equal(mkdirat(tree.fd, "store/no-metadata", 0700), 0);
	tree_text(tree.fd, "store/file", "x");
	assert_int_equal(mkdirat(tree.fd, "store/.del-x-12345678", 0700), 0);
	assert_int_equal(store_list(store, NULL, 100, &l, &err), 0);
	assert_int_equal(l.n_entries, 3);
	assert_string_equal(l.entries[0].ref, "file");
	assert_true(l.entries[0].damaged);
	assert_string_equal(l.entries[1].ref, "good");
	assert_false(l.entries[1].damaged);
	assert_string_equal(l.entries[2].ref, "torn");
	assert_true(l.entries[2].damaged);
	assert_non_null(strstr(error_text(&l.entries[2].problem), "metadata.json: is not JSON"));
	store_list_done(&l);
	/* And it can be deleted. */
	assert_int_equal(store_delete(store, "torn", &err), 0);
	wait_swept();
	store_work_close(&w);
}

static void an_empty_store_has_an_empty_list(void **state)
{
	struct store_list l;

	(void)state;
	assert_int_equal(store_list(store, NULL, 10, &l, &err), 0);
	assert_int_equal(l.n_entries, 0);
	assert_false(l.more);
	store_list_done(&l);
}

static void the_space_is_that_of_the_file_system(void **state)
{
	struct store_space s;

	(void)state;
	assert_int_equal(store_space(store, &s, &err), 0);
	assert_true(s.total_bytes > 0 && s.free_bytes <= s.total_bytes);
	assert_true(s.free_files <= s.total_files);
}

/* All of it counts, whatever its name: until it is gone, it takes room. */
static void a_limit_is_the_space(void **state)
{
	enum { MIB = 1 << 20 };
	struct store_space s, then;
	struct store_work w;
	char *big = malloc(MIB);

	(void)state;
	assert_non_null(big);
	memset(big, 'x', MIB);
	assert_int_equal(store_set_limit(store, 8 * MIB, &err), 0);
	assert_int_equal(store_space(store, &s, &err), 0);
	assert_true(s.limited);
	assert_int_equal(s.total_bytes, 8 * MIB);
	assert_true(s.free_bytes > 7 * MIB && s.free_bytes <= 8 * MIB);
	/* one that is being made */
	assert_int_equal(store_begin(store, "a", &w, &err), 0);
	fill(&w);
	assert_int_equal(store_put(&w, "big", bytes_of(big, MIB), &err), 0);
	assert_int_equal(store_space(store, &then, &err), 0);
	assert_true(then.free_bytes <= s.free_bytes - MIB);
	/* one that is sealed */
	assert_int_equal(commit(&w), 0);
	store_work_close(&w);
	assert_int_equal(store_space(store, &then, &err), 0);
	assert_true(then.free_bytes <= s.free_bytes - MIB && then.free_bytes > 5 * MIB);
	/* one that is being removed: not before it is gone */
	assert_int_equal(store_delete(store, "a", &err), 0);
	assert_int_equal(count_entries(".del-a"), 1);
	assert_int_equal(store_space(store, &then, &err), 0);
	assert_true(then.free_bytes <= s.free_bytes - MIB);
	wait_swept();
	assert_int_equal(store_space(store, &then, &err), 0);
	assert_true(then.free_bytes > s.free_bytes - MIB / 2);
	/* more than there may be, as after the limit was lowered */
	assert_int_equal(store_set_limit(store, 1, &err), 0);
	assert_int_equal(store_space(store, &then, &err), 0);
	assert_int_equal(then.free_bytes, 0);
	/* more than the file system has */
	assert_int_equal(store_set_limit(store, UINT64_MAX, &err), 0);
	assert_int_equal(store_space(store, &then, &err), 0);
	assert_false(then.limited);
	assert_true(then.free_bytes <= then.total_bytes);
	free(big);
}

static uint64_t room_known(void)
{
	struct store_space s;

	assert_int_equal(store_space_known(store, &s, &err), 0);
	return s.free_bytes;
}

static uint64_t room(void)
{
	struct store_space s;

	assert_int_equal(store_space(store, &s, &err), 0);
	return s.free_bytes;
}

/* A file that takes room, by whatever path. */
static void put_big(const char *name)
{
	enum { SIZE = 256 << 10 };
	_cleanup_free_ char *big = malloc(SIZE);

	assert_non_null(big);
	memset(big, 'x', SIZE);
	assert_int_equal(file_write(tree.fd, name, big, SIZE, 0600, FILE_PLAIN), 0);
}

static void the_sum_is_kept(void **state)
{
	const uint64_t size = 256 << 10;
	uint64_t before, after;

	(void)state;
	make_checkpoint("a");
	assert_int_equal(store_set_limit(store, 64 << 20, &err), 0);
	before = room_known();
	/* Behind our back, into a sealed one: that is not read again. */
	put_big("store/a/criu/pages-9.img");
	assert_int_equal(room(), before);
	/* What is not sealed is read each time somebody wants to know, */
	assert_int_equal(mkdirat(tree.fd, "store/foreign", 0700), 0);
	put_big("store/foreign/one");
	assert_int_equal(room_known(), before);
	after = room();
	assert_true(after <= before - size && after > before - 2 * size);
	assert_int_equal(room_known(), after);
	put_big("store/foreign/two");
	assert_true(room() <= before - 2 * size);
	/* and so is another one by the name of one that was sealed. */
	assert_int_equal(renameat(tree.fd, "store/a", tree.fd, "store/b"), 0);
	put_big("store/b/file");
	assert_true(room() <= before - 4 * size);
}

static void the_sum_follows_what_the_store_does(void **state)
{
	const uint64_t size = 256 << 10;
	nsec_t end = time_now() + PATIENCE;
	struct store_work w;
	uint64_t before;

	(void)state;
	assert_int_equal(store_set_limit(store, 64 << 20, &err), 0);
	before = room_known();
	assert_int_equal(store_begin(store, "a", &w, &err), 0);
	fill(&w);
	put_big("store/.new-a/criu/pages-2.img");
	assert_int_equal(commit(&w), 0);
	store_work_close(&w);
	while (room_known() > before - size) {
		assert_true(time_now() < end);
		assert_int_equal(loop_round(t.loop, time_now() + 20 * NSEC_PER_MSEC), 0);
	}
	assert_int_equal(store_delete(store, "a", &err), 0);
	wait_swept();
	/* At once: "the room is free" was just said. */
	assert_true(room_known() > before - size);
}

/* What cannot be counted must not let the limit be passed. */
static void what_cannot_be_counted_is_the_limit_reached(void **state)
{
	enum { TOO_MANY = 65537 };
	struct store_space s;
	char name[64];
	int dir;

	(void)state;
	assert_int_equal(mkdirat(tree.fd, "store/many", 0700), 0);
	dir = openat(tree.fd, "store/many", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(dir >= 0);
	for (int i = 0; i < TOO_MANY; i++) {
		(void)snprintf(name, sizeof(name), "%d", i);
		assert_int_equal(mknodat(dir, name, S_IFREG | 0600, 0), 0);
	}
	assert_int_equal(store_space(store, &s, &err), 0); /* no limit, nothing to count */
	assert_int_equal(store_set_limit(store, 64 << 20, &err), -E2BIG);
	assert_int_equal(err.reason, REASON_STORE_FULL);
	err = ERROR_NULL;
	assert_int_equal(store_space(store, &s, &err), -E2BIG);
	assert_int_equal(err.reason, REASON_STORE_FULL);
	assert_int_equal(store_space_known(store, &s, &err), -E2BIG);
	assert_int_equal(unlinkat(dir, "7", 0), 0);
	assert_int_equal(store_space(store, &s, &err), 0);
	assert_true(s.limited);
	(void)close(dir);
}

static void a_reader_reads(void **state)
{
	_cleanup_arena_ struct arena arena = ARENA_LIMIT(METADATA_MEMORY_MAX);
	struct store_pin pin = STORE_PIN_NULL;
	struct store *reader;
	struct store_list l;
	struct metadata m;

	(void)state;
	make_checkpoint("a");
	assert_int_equal(store_open(path, STORE_READER, &t.env, &reader, &err), 0);
	assert_int_equal(store_list(reader, NULL, 10, &l, &err), 0);
	assert_int_equal(l.n_entries, 1);
	store_list_done(&l);
	assert_int_equal(store_get(reader, "a", &arena, &m, &err), 0);
	assert_int_equal(store_pin(reader, "a", &pin, &err), 0);
	assert_int_equal(store_delete(store, "a", &err), -EBUSY);
	store_unpin(&pin);
	store_close(reader);
}

/* -- logs ------------------------------------------------------------------------------------ */

static int keep_log(const char *text, size_t n, char kept[PATH_MAX])
{
	char from[PATH_MAX];

	assert_int_equal(path_printf(from, sizeof(from), "%s-log", path), 0);
	assert_int_equal(file_write(AT_FDCWD, from, text, n, 0600, FILE_PLAIN), 0);
	err = ERROR_NULL;
	return store_keep_log(store, "web", "dump", from, kept, &err);
}

static int count_logs(void)
{
	char logs[PATH_MAX];
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *e;
	int n = 0;

	assert_int_equal(path_printf(logs, sizeof(logs), "%s/.logs", path), 0);
	dir = opendir(logs);
	assert_non_null(dir);
	while ((e = readdir(dir)))
		n += e->d_name[0] != '.';
	return n;
}

static void the_end_of_a_log_is_kept(void **state)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT(STORE_LOG_TAIL + 1);
	size_t n = STORE_LOG_TAIL + 4096;
	char kept[PATH_MAX], *big = malloc(n);
	struct store_list l;
	struct stat st;

	(void)state;
	assert_non_null(big);
	memset(big, 'x', n);
	memcpy(big + n - 4, "end\n", 4);
	assert_int_equal(keep_log(big, n, kept), 0);
	free(big);
	assert_memory_equal(kept, path, strlen(path));
	assert_non_null(strstr(kept, "-web-dump.log"));
	assert_int_equal(stat(kept, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(st.st_size, STORE_LOG_TAIL);
	assert_int_equal(file_read(AT_FDCWD, kept, &text), 0);
	assert_string_equal(buf_str(&text) + STORE_LOG_TAIL - 4, "end\n");
	/* It is no checkpoint, and in nobody's way. */
	assert_int_equal(store_list(store, NULL, 10, &l, &err), 0);
	assert_int_equal(l.n_entries, 0);
	store_list_done(&l);
}

static void so_many_logs_are_kept(void **state)
{
	char kept[PATH_MAX];

	(void)state;
	for (int i = 0; i < STORE_LOGS_MAX + 3; i++) {
		assert_int_equal(keep_log("log\n", 4, kept), 0);
		assert_int_equal(access(kept, F_OK), 0);
		assert_int_equal(count_logs(), i < STORE_LOGS_MAX ? i + 1 : STORE_LOGS_MAX);
	}
}

/* What somebody else has put there, by names that come before all of ours. */
static void foreign_entries_do_not_end_the_keeping(void **state)
{
	char kept[PATH_MAX];

	(void)state;
	assert_int_equal(keep_log("log\n", 4, kept), 0);
	assert_int_equal(mkdirat(tree.fd, "store/.logs/0", 0700), 0);
	assert_int_equal(mkdirat(tree.fd, "store/.logs/0.log", 0700), 0);
	assert_int_equal(symlinkat("/etc/passwd", tree.fd, "store/.logs/1.log"), 0);
	tree_text(tree.fd, "store/.logs/2.txt", "x");
	for (int i = 0; i < STORE_LOGS_MAX + 3; i++) {
		assert_int_equal(keep_log("log\n", 4, kept), 0);
		assert_int_equal(access(kept, F_OK), 0);
	}
	assert_int_equal(count_logs(), STORE_LOGS_MAX + 4);
	assert_true(tree_has(tree.fd, "store/.logs/0.log"));
	assert_true(tree_has(tree.fd, "store/.logs/2.txt"));
}

static void what_is_no_log_is_not_kept(void **state)
{
	char from[PATH_MAX], kept[PATH_MAX];

	(void)state;
	assert_int_equal(keep_log("", 0, kept), -ENODATA);
	assert_int_equal(store_keep_log(store, "../x", "dump", "/proc/self/cmdline", kept, &err),
			 -EINVAL);
	assert_int_equal(store_keep_log(store, "web", "dump", "relative", kept, &err), -EINVAL);
	assert_int_equal(path_printf(from, sizeof(from), "%s-fifo", path), 0);
	assert_int_equal(mkfifo(from, 0600), 0);
	assert_int_equal(store_keep_log(store, "web", "dump", from, kept, &err), -EINVAL);
	assert_int_equal(unlink(from), 0);
	assert_int_equal(symlink("/etc/passwd", from), 0);
	assert_int_equal(store_keep_log(store, "web", "dump", from, kept, &err), -ELOOP);
	assert_int_equal(unlink(from), 0);
}

/* -- removing -------------------------------------------------------------------------------- */

static void many_are_removed_by_and_by(void **state)
{
	(void)state;
	make_checkpoint("a");
	make_checkpoint("b");
	assert_int_equal(store_delete(store, "a", &err), 0);
	assert_true(store_sweeping(store));
	assert_int_equal(store_delete(store, "b", &err), 0);
	while (count_entries(".del-"))
		wait_swept();
	while (store_sweeping(store))
		wait_swept();
	assert_int_equal(n_swept, 2);
}

static void removing_does_not_follow_links(void **state)
{
	struct store_work w;

	(void)state;
	assert_int_equal(mkdirat(tree.fd, "precious", 0700), 0);
	tree_text(tree.fd, "precious/file", "x");
	assert_int_equal(store_begin(store, "a", &w, &err), 0);
	assert_int_equal(symlinkat("../../precious", w.fd, "link"), 0);
	assert_int_equal(symlinkat("../../../precious/file", w.fd, "criu/link"), 0);
	assert_int_equal(linkat(tree.fd, "precious/file", w.fd, "hard", 0), 0);
	assert_int_equal(store_abort(&w, &err), 0);
	wait_swept();
	assert_int_equal(count_entries(".del-"), 0);
	assert_true(tree_has(tree.fd, "precious/file"));
}

static void a_sweep_that_cannot_start_is_told(void **state)
{
	(void)state;
	make_checkpoint("a");
	t.env.program = "/nonexistent/program";
	assert_int_equal(store_delete(store, "a", &err), 0);
	wait_swept();
	assert_int_equal(swept_r, -ENOENT);
	/* It is gone all the same, and its files go with the next one. */
	assert_int_equal(count_entries("a"), 0);
	t.env.program = NULL;
	{
		struct store_clean c = { 0 };

		assert_int_equal(store_clean(store, &c, &err), 0);
	}
	wait_swept();
	assert_int_equal(count_entries(".del-"), 0);
}

/* The second has to wait for the first, whose end is no news of the second. */
static void a_second_sweep_that_cannot_start_is_told_and_tried_again(void **state)
{
	(void)state;
	make_checkpoint("a");
	make_checkpoint("b");
	assert_int_equal(store_delete(store, "a", &err), 0);
	assert_int_equal(store_delete(store, "b", &err), 0);
	t.env.program = "/nonexistent/program";
	while (n_told < 2)
		wait_swept();
	assert_false(all_gone_told);
	assert_int_equal(swept_r, -ENOENT);
	t.env.program = NULL;
	swept = false;
	wait_swept(); /* nobody has asked for it */
	assert_int_equal(swept_r, 0);
	assert_int_equal(count_entries(".del-"), 0);
}

static bool keep_b(void *arg, const char *ref)
{
	(*(int *)arg)++;
	return strcmp(ref, "b") == 0;
}

static void what_crashes_left_is_cleaned_up_unless_in_use(void **state)
{
	struct store_work w;
	int asked = 0;
	struct store_clean c = { .keep = keep_b, .arg = &asked };

	(void)state;
	for (const char *ref = "ab"; *ref; ref++) {
		assert_int_equal(store_begin(store, (char[]){ *ref, 0 }, &w, &err), 0);
		fill(&w);
		store_work_close(&w);
	}
	assert_int_equal(store_begin(store, "used", &w, &err), 0); /* still open */
	assert_int_equal(mkdirat(tree.fd, "store/.new-", 0700), 0);
	tree_text(tree.fd, "store/.new-file", "");
	assert_int_equal(symlinkat("/tmp", tree.fd, "store/.new-link"), 0);
	assert_int_equal(mkdirat(tree.fd, "store/.del-old-12345678", 0700), 0);
	tree_text(tree.fd, "store/.del-old-12345678/file", "x");
	make_checkpoint("good");
	assert_int_equal(store_clean(store, &c, &err), 0);
	assert_int_equal(c.removed, 1);
	assert_int_equal(c.kept, 1);
	assert_int_equal(c.locked, 1);
	assert_int_equal(c.foreign, 3);
	assert_int_equal(c.young, 0);
	assert_int_equal(asked, 3);
	wait_swept();
	assert_int_equal(n_swept, 2);
	assert_int_equal(count_entries(".del-"), 0);
	assert_false(tree_has(tree.fd, "store/.new-a"));
	assert_true(tree_has(tree.fd, "store/.new-b/criu/pages-1.img"));
	assert_true(tree_has(tree.fd, "store/.new-used"));
	assert_true(tree_has(tree.fd, "store/good/metadata.json"));
	store_work_close(&w);
}

static void what_changed_lately_is_left_alone(void **state)
{
	const struct timespec hour_ago[2] = {
		{ .tv_sec = (time_t)(time_wall() / NSEC_PER_SEC) - 3600 },
		{ .tv_sec = (time_t)(time_wall() / NSEC_PER_SEC) - 3600 },
	};
	struct store_clean c = { .min_age = 60 * NSEC_PER_SEC };
	struct store_work w;

	(void)state;
	assert_int_equal(store_begin(store, "a", &w, &err), 0);
	fill(&w);
	assert_int_equal(futimens(w.fd, hour_ago), 0);
	store_work_close(&w);
	/* The times of what is inside, and those that cannot be set, tell. */
	assert_int_equal(store_clean(store, &c, &err), 0);
	assert_int_equal(c.young, 1);
	assert_int_equal(c.removed, 0);
	c.min_age = 1;
	assert_int_equal(store_clean(store, &c, &err), 0);
	assert_int_equal(c.removed, 1);
	wait_swept();
}

static void of_others_nothing_is_cleaned_up(void **state)
{
	struct store_clean c = { 0 };

	(void)state;
	assert_int_equal(mkdirat(tree.fd, "store/.new-a", 0700), 0);
	if (fchownat(tree.fd, "store/.new-a", 12345, -1, 0) < 0)
		skip(); /* not root */
	assert_int_equal(store_clean(store, &c, &err), 0);
	assert_int_equal(c.foreign, 1);
	assert_true(tree_has(tree.fd, "store/.new-a"));
}

/* -- image directories ----------------------------------------------------------------------- */

static void image_directories_anywhere(void **state)
{
	_cleanup_arena_ struct arena arena = ARENA_LIMIT(METADATA_MEMORY_MAX);
	struct metadata m = tree_metadata(NULL), got;
	_cleanup_close_ int fd = -1;

	(void)state;
	assert_int_equal(mkdirat(tree.fd, "ctrd-checkpoint123", 0700), 0);
	fd = openat(tree.fd, "ctrd-checkpoint123", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	tree_text(fd, "inventory.img", "i");
	tree_text(fd, "descriptors.json", "[]");
	assert_int_equal(image_get(fd, &arena, &got, &err), -ENOENT);
	assert_int_equal(err.reason, REASON_IMAGE_MISSING);
	assert_int_equal(image_commit(&t.env, fd, &m, 1, NSEC_NEVER, &t.bulk, test_loop_ops(),
				      &err), 0);
	assert_int_equal(test_loop_wait(&t), 0);
	assert_int_equal(t.bulk.result.files, 2);
	assert_int_equal(image_get(fd, &arena, &got, &err), 0);
	assert_string_equal(got.gpu.driver_version, "580.65.06");
	assert_int_equal(image_verify(&t.env, fd, 1, 0, NSEC_NEVER, &t.bulk, test_loop_ops(),
				      &err), 0);
	assert_int_equal(test_loop_wait(&t), 0);
	tree_text(fd, "kybernate.json", "{}");
	assert_int_equal(image_get(fd, &arena, &got, &err), -EBADMSG);
	assert_string_equal(error_text(&err), "kybernate.json: lacks the member 'sha256'");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(a_store_is_made_where_there_is_none),
		T(one_agent_at_a_time),
		T(a_directory_with_something_else_in_it_is_no_store),
		T(a_fresh_file_system_is_as_good_as_empty),
		T(another_version_of_store_is_refused),
		T(a_store_open_to_others_is_refused),
		T(a_store_of_another_user_is_refused),
		T(a_link_to_a_store_is_refused),
		T(paths_have_to_be_absolute_and_short),
		T(a_checkpoint_from_begin_to_end),
		T(refs_are_names),
		T(the_longest_ref_works),
		T(a_ref_is_claimed_once),
		T(thrown_away_the_ref_is_free_again),
		T(a_commit_that_failed_can_be_tried_again),
		T(a_commit_stopped_in_the_middle_leaves_no_checkpoint),
		T(metadata_that_cannot_be_written_is_refused_at_once),
		T(small_files_go_in_once_under_plain_names),
		T(one_that_was_begun_before_can_be_finished),
		T(names_are_made_up_that_are_free),
		T(the_files_of_a_checkpoint),
		T(what_is_in_use_is_not_deleted),
		T(a_lock_of_another_process_counts_too),
		T(what_is_being_made_is_no_checkpoint_to_delete),
		T(damage_is_found),
		T(a_renamed_checkpoint_is_not_taken_for_another),
		T(a_link_in_the_store_is_no_checkpoint),
		T(checkpoints_are_listed_in_order),
		T(garbage_is_not_listed_but_damage_is),
		T(an_empty_store_has_an_empty_list),
		T(the_space_is_that_of_the_file_system),
		T(a_limit_is_the_space),
		T(the_sum_is_kept),
		T(the_sum_follows_what_the_store_does),
		T(what_cannot_be_counted_is_the_limit_reached),
		T(a_reader_reads),
		T(the_end_of_a_log_is_kept),
		T(so_many_logs_are_kept),
		T(foreign_entries_do_not_end_the_keeping),
		T(what_is_no_log_is_not_kept),
		T(many_are_removed_by_and_by),
		T(removing_does_not_follow_links),
		T(a_sweep_that_cannot_start_is_told),
		T(a_second_sweep_that_cannot_start_is_told_and_tried_again),
		T(what_crashes_left_is_cleaned_up_unless_in_use),
		T(what_changed_lately_is_left_alone),
		T(of_others_nothing_is_cleaned_up),
		T(image_directories_anywhere),
	};
	int status;

	if (worker_role(argc, argv, &status))
		return status;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
