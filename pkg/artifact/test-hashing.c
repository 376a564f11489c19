/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "artifact/hashing.h"
#include "artifact/manifest.h"
#include "artifact/protocol.h"
#include "artifact/test-tree.h"
#include "artifact/worker.h"

#define MIB ((uint64_t)1 << 20)

static struct tree tree;
static struct error err;
static struct scan scan;
static struct arena arena;
static uint64_t last_done, last_total;

static int setup(void **state)
{
	(void)state;
	err = ERROR_NULL;
	tree_make(&tree);
	arena = ARENA_LIMIT(64 * MIB);
	scan = SCAN_NULL;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	arena_done(&arena);
	scan_done(&scan);
	tree_remove(&tree);
	return 0;
}

/* A file with something in it at every megabyte. */
static void make_file(const char *name, uint64_t size)
{
	tree_sparse(tree.fd, name, size);
	for (uint64_t at = 0; at < size; at += MIB)
		tree_poke(tree.fd, name, at, (uint8_t)(at / MIB + 1));
}

static void progress(const struct hashing *h, uint64_t done, uint64_t total)
{
	(void)h;
	assert_true(done >= last_done && done <= total);
	last_done = done;
	last_total = total;
}

static int hash_all(unsigned int workers, const char *program, struct hash_item *items)
{
	const struct hashing h = { .workers = workers, .program = program, .progress = progress };

	last_done = last_total = 0;
	if (!scan.n_files)
		assert_int_equal(scan_dir(tree.fd, &layout_image, &scan, &err), 0);
	for (size_t i = 0; i < scan.n_files; i++) {
		uint64_t chunk = items[i].chunk_size;

		items[i] = (struct hash_item){ .file = &scan.files[i], .chunk_size = chunk };
	}
	return hash_items(&h, tree.fd, items, scan.n_files, &arena, NULL, &err);
}

/* The root of a file, computed the simple way. */
static struct digest simple(const char *name, uint64_t size, uint64_t chunk_size)
{
	_cleanup_digester_ struct digester *digester = NULL;
	_cleanup_close_ int fd = openat(tree.fd, name, O_RDONLY | O_CLOEXEC);
	struct digest chunks[256], root;
	size_t n = 0;

	assert_int_equal(digester_new(&digester), 0);
	if (!chunk_size) {
		assert_int_equal(digester_range(digester, fd, 0, size, &root, NULL), 0);
		return root;
	}
	for (uint64_t at = 0; at < size; at += chunk_size)
		assert_int_equal(digester_range(digester, fd, at, size - at < chunk_size
								      ? size - at : chunk_size,
						&chunks[n++], NULL), 0);
	assert_int_equal(digest_root(digester, chunks, n, &root), 0);
	return root;
}

static void check_all(unsigned int workers)
{
	/* Sorted: big.img, empty.img, fine.img, small.img */
	struct hash_item items[4] = {
		{ .chunk_size = 4 * MIB }, { .chunk_size = 0 }, { .chunk_size = 65536 },
		{ .chunk_size = 0 },
	};
	struct digest want;

	make_file("big.img", 133 * MIB + 1);
	make_file("fine.img", 10 * MIB + 7);
	make_file("small.img", 5000);
	make_file("empty.img", 0);
	assert_int_equal(hash_all(workers, WORKER_PROGRAM, items), 0);
	assert_int_equal(last_done, 143 * MIB + 5008);
	assert_int_equal(last_total, last_done);
	want = simple("big.img", 133 * MIB + 1, 4 * MIB);
	assert_memory_equal(&items[0].digest, &want, sizeof(want));
	assert_int_equal(items[0].n_chunks, 34);
	want = simple("empty.img", 0, 0);
	assert_memory_equal(&items[1].digest, &want, sizeof(want));
	/* More chunks than one reply of a helper holds. */
	want = simple("fine.img", 10 * MIB + 7, 65536);
	assert_memory_equal(&items[2].digest, &want, sizeof(want));
	want = simple("small.img", 5000, 0);
	assert_memory_equal(&items[3].digest, &want, sizeof(want));
}

static void alone_it_is_right(void **state)
{
	(void)state;
	check_all(1);
}

static void with_helpers_it_is_the_same(void **state)
{
	(void)state;
	check_all(3);
}

static void nothing_is_left_running(void **state)
{
	(void)state;
	check_all(2);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

static void no_file_is_no_work(void **state)
{
	const struct hashing h = { .workers = 2, .program = "/none" };

	(void)state;
	assert_int_equal(hash_items(&h, tree.fd, NULL, 0, &arena, NULL, &err), 0);
}

static void a_helper_that_cannot_be_started_is_an_error(void **state)
{
	struct hash_item items[1] = { { .chunk_size = 4 * MIB } };

	(void)state;
	make_file("big.img", 64 * MIB);
	assert_int_equal(hash_all(2, "/nonexistent/program", items), -ENOENT);
	assert_int_equal(err.reason, REASON_STORE_FAILED);
	assert_non_null(strstr(error_text(&err), "start a hash helper: "));
}

static void a_helper_that_dies_is_an_error(void **state)
{
	struct hash_item items[1] = { { .chunk_size = 4 * MIB } };

	(void)state;
	make_file("big.img", 64 * MIB);
	assert_true(hash_all(2, "/bin/false", items) < 0);
	assert_int_equal(err.reason, REASON_STORE_FAILED);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static void shrink(const struct hashing *h, uint64_t done, uint64_t total)
{
	(void)h;
	(void)total;
	if (done)
		assert_int_equal(truncate(h->arg, (off_t)MIB), 0);
}

static void a_file_that_shrinks_is_told(void **state)
{
	char path[128];
	const struct hashing h = { .workers = 1, .progress = shrink, .arg = path };
	struct hash_item item = { .chunk_size = 4 * MIB };
	size_t bad;

	(void)state;
	make_file("big.img", 200 * MIB);
	(void)snprintf(path, sizeof(path), "%s/big.img", tree.path);
	assert_int_equal(scan_dir(tree.fd, &layout_image, &scan, &err), 0);
	item.file = &scan.files[0];
	assert_int_equal(hash_items(&h, tree.fd, &item, 1, &arena, &bad, &err), -EBADMSG);
	assert_string_equal(error_text(&err), "big.img: changed while it was read");
	assert_int_equal(bad, 0);
}

/* -- a helper by itself ---------------------------------------------------------------------- */

struct helper_test {
	int socket;
	pid_t pid;
};

static struct helper_test start_helper(void)
{
	int sockets[2];
	struct helper_test t;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
	t.pid = fork();
	if (t.pid == 0) {
		(void)close(sockets[0]);
		_exit(hash_helper(sockets[1]));
	}
	(void)close(sockets[1]);
	t.socket = sockets[0];
	return t;
}

static int end_helper(struct helper_test *t)
{
	int status;

	(void)close(t->socket);
	assert_int_equal(waitpid(t->pid, &status, 0), t->pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void a_helper_ends_with_its_socket(void **state)
{
	struct helper_test t = start_helper();

	(void)state;
	assert_int_equal(end_helper(&t), EXIT_SUCCESS);
}

static void a_helper_refuses_what_is_no_request(void **state)
{
	struct helper_test t = start_helper();

	(void)state;
	assert_int_equal(send(t.socket, "x", 1, 0), 1); /* and no descriptor */
	assert_int_equal(end_helper(&t), EXIT_FAILURE);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* As many as the CPUs allow that this process may use, and no more than there may be. */
static void as_many_as_cpus_allow(void **state)
{
	cpu_set_t all, one;

	(void)state;
	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	assert_true(hashing_workers() >= 1 && hashing_workers() <= PROTOCOL_WORKERS_MAX);
	CPU_ZERO(&one);
	for (size_t i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
		if (CPU_ISSET(i, &all))
			CPU_SET(i, &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	assert_int_equal(hashing_workers(), 1);
	assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(as_many_as_cpus_allow),
		T(alone_it_is_right),
		T(with_helpers_it_is_the_same),
		T(nothing_is_left_running),
		T(no_file_is_no_work),
		T(a_helper_that_cannot_be_started_is_an_error),
		T(a_helper_that_dies_is_an_error),
		T(a_file_that_shrinks_is_told),
		T(a_helper_ends_with_its_socket),
		T(a_helper_refuses_what_is_no_request),
	};
	int status;

	if (worker_role(argc, argv, &status))
		return status;
	tree_in_memory();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
