/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "artifact/digest.h"
#include "base/fd.h"
#include "base/path.h"
#include "tests/cmocka.h"

struct bed {
	char dir[64], path[96];
	struct journal j;
	unsigned int n, n_torn;
	char seen[256];           /* ids of what was replayed */
	struct journal_record last;
	uint64_t last_pid, last_vram, last_job;
	bool last_apart;
	char last_uuid[64], last_cgroup[64];
};

static int setup(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));
	struct error err = ERROR_NULL;

	assert_non_null(b);
	(void)strcpy(b->dir, "/tmp/kjournal.XXXXXX");
	assert_non_null(mkdtemp(b->dir));
	(void)snprintf(b->path, sizeof(b->path), "%s/j", b->dir);
	b->j = JOURNAL_NULL;
	assert_int_equal(journal_open(&b->j, b->path, &err), 0);
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bed *b = *state;

	journal_close(&b->j);
	assert_int_equal(path_remove_tree(AT_FDCWD, b->dir), 0);
	free(b);
	return 0;
}

static void seen(void *data, const struct journal_record *rec)
{
	struct bed *b = data;

	if (rec->torn) {
		assert_string_equal(rec->ns, "k8s.io");
		assert_memory_equal(rec->container_id, "c", 1);
		assert_null(rec->boot);
		b->n_torn++;
		return;
	}
	b->n++;
	(void)snprintf(b->seen + strlen(b->seen), sizeof(b->seen) - strlen(b->seen), "%s ",
		       rec->container_id);
	b->last = *rec;
	if (rec->n_processes) {
		b->last_pid = rec->processes[0].pid;
		b->last_vram = rec->processes[0].vram_bytes;
		b->last_job = rec->processes[0].job;
		b->last_apart = rec->processes[0].apart;
	}
	if (rec->n_devices)
		(void)snprintf(b->last_uuid, sizeof(b->last_uuid), "%s", rec->devices[0].uuid);
	if (rec->n_cgroups)
		(void)snprintf(b->last_cgroup, sizeof(b->last_cgroup), "%s", rec->cgroups[0]);
}

static void replay(struct bed *b)
{
	struct error err = ERROR_NULL;

	b->n = b->n_torn = 0;
	b->seen[0] = 0;
	assert_int_equal(journal_replay(&b->j, seen, b, &err), 0);
}

static struct journal_record record(const char *id)
{
	return (struct journal_record){ .kind = "checkpoint",
					.phase = "lock",
					.ns = "k8s.io",
					.container_id = id,
					.task_pid = 4711,
					.dumping = true };
}

static void put(struct bed *b, const char *id)
{
	struct journal_record rec = record(id);
	struct error err = ERROR_NULL;

	assert_int_equal(journal_write(&b->j, &rec, &err), 0);
}

static bool exists(const struct bed *b, const char *name)
{
	return faccessat(b->j.fd, name, F_OK, 0) == 0;
}

static void what_was_written_is_replayed(void **state)
{
	static const struct journal_process processes[] = {
		{ .pid = 5,
		  .start_time = 77,
		  .vram_bytes = 1 << 20,
		  .devices = 3,
		  .job = 2,
		  .apart = true },
	};
	static const struct journal_device devices[] = { { .uuid = "GPU-1", .chip = "H100" } };
	static const char *const cgroups[] = { "4:freezer:/a/b", "0::/" };
	struct bed *b = *state;
	struct journal_record rec = record("c1");
	struct error err = ERROR_NULL;

	rec.processes = processes;
	rec.n_processes = 1;
	rec.devices = devices;
	rec.n_devices = 1;
	rec.cgroups = cgroups;
	rec.n_cgroups = 2;
	rec.settled = true;
	assert_int_equal(journal_write(&b->j, &rec, &err), 0);
	replay(b);
	assert_string_equal(b->seen, "c1 ");
	assert_int_equal(b->last.task_pid, 4711);
	assert_true(b->last.dumping);
	assert_false(b->last.sealed);
	assert_true(b->last.settled);
	assert_int_equal(b->last_pid, 5);
	assert_int_equal(b->last_vram, 1 << 20);
	assert_int_equal(b->last_job, 2);
	assert_true(b->last_apart);
	assert_string_equal(b->last_uuid, "GPU-1");
	assert_string_equal(b->last_cgroup, "4:freezer:/a/b");
}

static void one_record_a_container(void **state)
{
	struct bed *b = *state;
	struct error err = ERROR_NULL;

	put(b, "c1");
	put(b, "c1");
	/* Names that could be taken for the journal's own. */
	put(b, "c1.new");
	put(b, "c1.bad");
	replay(b);
	assert_int_equal(b->n, 3);
	assert_int_equal(journal_remove(&b->j, "k8s.io", "c1", &err), 0);
	assert_int_equal(journal_remove(&b->j, "k8s.io", "c1", &err), 0);
	replay(b);
	assert_int_equal(b->n, 2);
}

static void names_that_are_paths_are_refused(void **state)
{
	static const char *const names[] = { "", "..", "../x", "a/b", "a,b", ".x" };
	struct bed *b = *state;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct journal_record rec = record(names[i]);
		struct error err = ERROR_NULL;

		assert_int_equal(journal_write(&b->j, &rec, &err), -EINVAL);
		assert_int_equal(journal_remove(&b->j, "k8s.io", names[i], &err), -EINVAL);
	}
}

static void another_boot_is_forgotten(void **state)
{
	struct bed *b = *state;
	char now[sizeof(b->j.boot)];

	(void)strcpy(now, b->j.boot);
	(void)strcpy(b->j.boot, "00000000-0000-0000-0000-000000000000");
	put(b, "c1");
	(void)strcpy(b->j.boot, now);
	replay(b);
	assert_int_equal(b->n, 0);
	assert_false(exists(b, "k8s.io,c1,op"));
}

static void what_cannot_be_read_is_set_aside(void **state)
{
	struct bed *b = *state;
	_cleanup_buf_ struct buf text = BUF_LIMIT(1 << 20);
	uint8_t *at;

	put(b, "c1");
	put(b, "c2");
	assert_int_equal(file_read(b->j.fd, "k8s.io,c1,op", &text), 0);
	/* A flipped bit; half a file; another container's; a link; a FIFO that would block. */
	at = memmem(buf_bytes(&text).p, buf_len(&text), "4711", 4);
	assert_non_null(at);
	at[0] = '5';
	assert_int_equal(file_write(b->j.fd, "k8s.io,c1,op", buf_bytes(&text).p, buf_len(&text),
				    0600, FILE_PLAIN), 0);
	assert_int_equal(file_write(b->j.fd, "k8s.io,c3,op", "{", 1, 0600, FILE_PLAIN), 0);
	assert_int_equal(linkat(b->j.fd, "k8s.io,c2,op", b->j.fd, "k8s.io,c4,op", 0), 0);
	assert_int_equal(symlinkat("k8s.io,c2,op", b->j.fd, "k8s.io,c5,op"), 0);
	assert_int_equal(mkfifoat(b->j.fd, "k8s.io,c6,op", 0600), 0);
	/* Names that are no container's. */
	assert_int_equal(file_write(b->j.fd, "c7", "{", 1, 0600, FILE_PLAIN), 0);
	assert_int_equal(file_write(b->j.fd, "k8s.io,c8,op,", "{", 1, 0600, FILE_PLAIN), 0);
	assert_int_equal(file_write(b->j.fd, ",c9,op", "{", 1, 0600, FILE_PLAIN), 0);
	replay(b);
	assert_string_equal(b->seen, "c2 ");
	assert_int_equal(b->n_torn, 5); /* whose they were, all but c2 */
	assert_true(exists(b, "k8s.io,c1,op.bad"));
	assert_true(exists(b, "k8s.io,c3,op.bad"));
	assert_true(exists(b, "k8s.io,c4,op.bad"));
	assert_true(exists(b, "k8s.io,c6,op.bad"));
	replay(b); /* and not looked at again */
	assert_string_equal(b->seen, "c2 ");
	assert_int_equal(b->n_torn, 0);
}

static void half_written_ones_go(void **state)
{
	struct bed *b = *state;

	put(b, "c1");
	assert_int_equal(file_write(b->j.fd, "k8s.io,c1,op.new", "{", 1, 0600, FILE_PLAIN), 0);
	replay(b);
	assert_string_equal(b->seen, "c1 ");
	assert_false(exists(b, "k8s.io,c1,op.new"));
}

static void a_folder_open_to_others_is_refused(void **state)
{
	struct bed *b = *state;
	struct journal j = JOURNAL_NULL;
	struct error err = ERROR_NULL;

	assert_int_equal(chmod(b->path, 0755), 0);
	assert_int_equal(journal_open(&j, b->path, &err), -EPERM);
	assert_int_equal(err.reason, REASON_STORE_FAILED);
	journal_close(&j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(what_was_written_is_replayed),
		T(one_record_a_container),
		T(names_that_are_paths_are_refused),
		T(another_boot_is_forgotten),
		T(what_cannot_be_read_is_set_aside),
		T(half_written_ones_go),
		T(a_folder_open_to_others_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
