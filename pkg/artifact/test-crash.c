/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The promise of the store: whatever happens, and at whatever moment, afterwards there is the whole
 * checkpoint or none. Tried at every single file-system call from the opening of an empty store to
 * the sealing of a checkpoint in it: the process is killed there, or the call fails. And the
 * order of the calls is checked for what a loss of power would leave.
 */
#include <errno.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "artifact/seal.h"
#include "artifact/store.h"
#include "artifact/sweep.h"
#include "artifact/test-loop.h"
#include "artifact/verify.h"
#include "artifact/worker.h"
#include "tests/sysfault.h"

#define CALLS_MAX 5000
#define NAME_ROOM 640

static struct tree tree;
static char path[128];
static const struct hashing alone = { .workers = 1 };

static int setup(void **state)
{
	(void)state;
	tree_make(&tree);
	(void)snprintf(path, sizeof(path), "%s/store", tree.path);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	tree_remove(&tree);
	return 0;
}

/* -- the child: an agent, and a CRIU ---------------------------------------------------------- */

enum outcome { SEALED, FAILED_WELL, FAILED_BADLY, DUMP_FAILED };

static enum reason expected; /* of a failure */

static int put(int dirfd, const char *name, const char *text)
{
	int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), r;

	if (fd < 0)
		return -1;
	r = fd_write_all(fd, text, strlen(text));
	(void)close(fd);
	return r;
}

static int dump(int work)
{
	if (put(work, "criu/inventory.img", "inventory") < 0 ||
	    put(work, "criu/core-1.img", "registers") < 0 ||
	    put(work, "criu/pages-1.img", "memory") < 0 || put(work, "logs/dump.log", "log") < 0)
		return -1;
	return 0;
}

static int judge(const struct error *err)
{
	return err->reason == expected && err->code < 0 && err->text[0] ? FAILED_WELL
									: FAILED_BADLY;
}

/* Is there only what was there before anything was begun? */
static bool is_clean(void)
{
	_cleanup_closedir_ DIR *dir = opendir(path);
	struct dirent *e;

	while (dir && (e = readdir(dir)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
		    strncmp(e->d_name, ".kybernate-store", 16) != 0)
			return false;
	return true;
}

static rlim_t few_files; /* descriptors that may be open; 0 = as many as usual */

static void limit_files(bool on)
{
	struct rlimit l;

	if (!few_files || getrlimit(RLIMIT_NOFILE, &l) < 0)
		return;
	l.rlim_cur = on ? few_files : l.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &l);
}

static int seal(int store_fd, struct store_work *w, struct error *err)
{
	struct metadata m = tree_metadata("a");
	struct metadata_manifest sealed;
	int r = store_put(w, "spec.json", bytes_of("{}", 2), err);

	if (r == 0)
		r = seal_checkpoint(store_fd, ".new-a", &m, &alone, &sealed, err);
	return r;
}

/* Returns an outcome. No assertions: this is another process than cmocka's. */
static int make_checkpoint(void *arg)
{
	struct bulk_env env = { .program = "/nonexistent" };
	struct error err = ERROR_NULL, ignored;
	int store_fd = -1, outcome = SEALED;
	struct store_work w = { .fd = -1 };
	struct reaper reaper;
	struct store *store;
	unsigned int n;

	(void)arg;
	reaper_init(&reaper);
	env.reaper = &reaper;
	if (loop_new(&env.loop) < 0)
		return FAILED_BADLY;
	limit_files(true);
	if (store_open(path, STORE_OWNER, &env, &store, &err) < 0 ||
	    store_begin(store, "a", &w, &err) < 0) {
		limit_files(false);
		return is_clean() ? judge(&err) : FAILED_BADLY;
	}
	store_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (store_fd < 0 || dump(w.fd) < 0)
		outcome = DUMP_FAILED;
	else if (seal(store_fd, &w, &err) < 0)
		outcome = judge(&err);
	if (outcome == SEALED)
		return outcome;
	/* Throwing it away needs no room, and leaves nothing. */
	limit_files(false);
	if (store_fd < 0)
		store_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (store_abort(&w, &ignored) < 0 || sweep_store(store_fd, &n, &ignored) < 0 || !is_clean())
		return FAILED_BADLY;
	return outcome;
}

/* Deletes it, and removes what is left of it, as the store worker would. */
static int delete_checkpoint(void *arg)
{
	struct bulk_env env = { .program = "/nonexistent" };
	struct error err = ERROR_NULL;
	struct reaper reaper;
	struct store *store;
	unsigned int n;
	int store_fd;

	(void)arg;
	reaper_init(&reaper);
	env.reaper = &reaper;
	if (loop_new(&env.loop) < 0)
		return FAILED_BADLY;
	store_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (store_open(path, STORE_OWNER, &env, &store, &err) < 0 ||
	    store_delete(store, "a", &err) < 0 || sweep_store(store_fd, &n, &err) < 0)
		return judge(&err);
	return SEALED;
}

static int verify_sealed(void *arg)
{
	struct error err = ERROR_NULL;
	struct metadata_manifest found;
	struct verify_damage damage;
	char name[160];
	int fd;

	(void)arg;
	(void)snprintf(name, sizeof(name), "%s/a", path);
	fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return DUMP_FAILED; /* not yet the code under test */
	if (verify_checkpoint(fd, "a", 0, &alone, &found, &damage, &err) < 0)
		return judge(&err);
	return SEALED;
}

/* -- the faults ------------------------------------------------------------------------------ */

struct fault {
	int (*run)(void *arg);
	unsigned int at, count;
	int what; /* SYSFAULT_KILL or -errno */
	int nr;   /* the call that it hit */
};

static int strike(void *arg, const struct sysfault_call *call)
{
	struct fault *f = arg;

	if (++f->count != f->at)
		return 0;
	f->nr = call->nr;
	return f->what;
}

/* Runs it with a fault; returns the status, or -1 when that cannot be done here. */
static int run_with(struct fault *f)
{
	const struct sysfault run = { .run = f->run, .decide = strike, .arg = f };
	int status, r;

	f->count = 0;
	f->nr = -1;
	r = sysfault_run(&run, &status);
	if (r < 0)
		print_message("no seccomp notifications here: %s\n", strerror(-r));
	return r < 0 ? -1 : status;
}

/* -- the next agent -------------------------------------------------------------------------- */

static bool swept;

static void on_swept(void *arg, unsigned int n, int r, const struct error *err)
{
	(void)arg;
	(void)n;
	(void)err;
	assert_int_equal(r, 0);
	swept = true;
}

static void check_names(bool there)
{
	_cleanup_closedir_ DIR *dir = opendir(path);
	struct dirent *e;

	assert_non_null(dir);
	while ((e = readdir(dir))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
		    strcmp(e->d_name, ".kybernate-store") == 0 ||
		    strcmp(e->d_name, ".kybernate-store.new") == 0)
			continue;
		if (!there || strcmp(e->d_name, "a") != 0)
			fail_msg("'%s' is left in the store", e->d_name);
	}
}

static void check_sound(const struct store *store)
{
	struct store_pin pin = STORE_PIN_NULL;
	struct metadata_manifest found;
	struct verify_damage damage;
	struct error err;

	assert_int_equal(store_pin(store, "a", &pin, &err), 0);
	assert_int_equal(verify_checkpoint(pin.fd, "a", 0, &alone, &found, &damage, &err), 0);
	assert_int_equal(found.files, 7);
	store_unpin(&pin);
}

/*
 * It opens the store, cleans up, and finds all of the checkpoint or nothing. Returns which.
 * Removing is the store worker's, unless that would take too long for many rounds.
 */
static bool start_again(bool with_worker)
{
	struct store_clean c = { 0 };
	struct store *store;
	struct store_list l;
	struct test_loop t;
	struct error err;
	unsigned int n;
	bool there;

	test_loop_open(&t);
	if (!with_worker)
		t.env.program = "/nonexistent";
	assert_int_equal(store_open(path, STORE_OWNER, &t.env, &store, &err), 0);
	if (with_worker)
		store_on_swept(store, on_swept, NULL);
	assert_int_equal(store_clean(store, &c, &err), 0);
	assert_int_equal(store_list(store, NULL, 10, &l, &err), 0);
	there = l.n_entries > 0;
	if (there) {
		assert_int_equal(l.n_entries, 1);
		assert_false(l.entries[0].damaged);
		check_sound(store);
	}
	store_list_done(&l);
	if (!with_worker) {
		int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		assert_int_equal(sweep_store(fd, &n, &err), 0);
		(void)close(fd);
	} else if (store_sweeping(store)) {
		test_loop_until(&t, &swept);
	}
	swept = false;
	check_names(there);
	store_close(store);
	test_loop_close(&t);
	return there;
}

/* -- tests ----------------------------------------------------------------------------------- */

static void killed_at_any_call_it_leaves_all_or_nothing(void **state)
{
	unsigned int killed = 0, there = 0;

	(void)state;
	for (struct fault f = { make_checkpoint, .at = 1, .what = SYSFAULT_KILL };
	     f.at < CALLS_MAX; f.at++) {
		int status = run_with(&f);

		if (status < 0)
			skip();
		if (WIFEXITED(status)) {
			assert_int_equal(WEXITSTATUS(status), SEALED);
			assert_true(start_again(true));
			break;
		}
		killed++;
		if (start_again(true))
			there++;
		assert_int_equal(path_remove_tree(AT_FDCWD, path), 0);
	}
	print_message("killed at %u calls, at %u of them the checkpoint was there\n", killed,
		      there);
	/* There is only one call after the rename: the fsync of the store's directory. */
	assert_true(killed > 100);
	assert_true(there >= 1 && there <= 2);
}

/* Makes one, with no fault. */
static void have_checkpoint(void)
{
	int status;
	pid_t pid;

	(void)fflush(NULL);
	pid = fork();
	if (pid == 0)
		_exit(make_checkpoint(NULL));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == SEALED);
}

static void killed_while_deleting_it_leaves_all_or_nothing(void **state)
{
	unsigned int killed = 0, there = 0;

	(void)state;
	for (struct fault f = { delete_checkpoint, .at = 1, .what = SYSFAULT_KILL };
	     f.at < CALLS_MAX; f.at++) {
		int status;

		have_checkpoint();
		status = run_with(&f);
		if (status < 0)
			skip();
		if (WIFEXITED(status)) {
			assert_int_equal(WEXITSTATUS(status), SEALED);
			assert_false(start_again(false));
			break;
		}
		killed++;
		if (start_again(false))
			there++;
		assert_int_equal(path_remove_tree(AT_FDCWD, path), 0);
	}
	print_message("killed at %u calls, before %u of them the checkpoint was there\n", killed,
		      there);
	assert_true(there > 10 && killed - there > 10);
}

static void a_failure_while_deleting_leaves_all_or_nothing(void **state)
{
	unsigned int failed = 0, there = 0;

	(void)state;
	expected = REASON_STORE_FAILED;
	for (struct fault f = { delete_checkpoint, .at = 1, .what = -EIO }; f.at < CALLS_MAX;
	     f.at++) {
		int status;

		have_checkpoint();
		status = run_with(&f);
		if (status < 0)
			skip();
		assert_true(WIFEXITED(status));
		if (f.nr < 0)
			break;
		if (WEXITSTATUS(status) == FAILED_BADLY)
			fail_msg("call %u (number %d) failed without its reason", f.at, f.nr);
		failed += WEXITSTATUS(status) == FAILED_WELL;
		there += start_again(false);
		assert_int_equal(path_remove_tree(AT_FDCWD, path), 0);
	}
	assert_true(failed > 20 && there > 10 && there < failed);
}

/* Out of descriptors is no damage; and an error is never taken for "all is well". */
static void a_verification_that_fails_says_nothing_of_the_checkpoint(void **state)
{
	unsigned int failed = 0;

	(void)state;
	expected = REASON_STORE_FAILED;
	have_checkpoint();
	for (struct fault f = { verify_sealed, .at = 1, .what = -EMFILE }; f.at < CALLS_MAX;
	     f.at++) {
		int status = run_with(&f);

		if (status < 0)
			skip();
		assert_true(WIFEXITED(status));
		if (f.nr < 0)
			break;
		if (WEXITSTATUS(status) == FAILED_BADLY || WEXITSTATUS(status) == SEALED)
			fail_msg("call %u (number %d) failed without its reason", f.at, f.nr);
		failed++;
	}
	assert_true(failed > 50);
}

/* A failing call is told and leaves nothing, except where it was about speed only. */
static void fail_every_call(int what, enum reason reason)
{
	unsigned int failed = 0;

	expected = reason;
	for (struct fault f = { make_checkpoint, .at = 1, .what = what }; f.at < CALLS_MAX;
	     f.at++) {
		int status = run_with(&f);

		if (status < 0)
			skip();
		assert_true(WIFEXITED(status));
		if (f.nr < 0)
			break; /* there were not that many */
		switch (WEXITSTATUS(status)) {
		case SEALED:
			assert_int_equal(f.nr, SYS_sync_file_range);
			assert_true(start_again(false));
			break;
		case FAILED_BADLY:
			fail_msg("call %u (number %d) failed without its reason", f.at, f.nr);
			break;
		default:
			failed++;
			assert_false(start_again(false));
			break;
		}
		assert_int_equal(path_remove_tree(AT_FDCWD, path), 0);
	}
	print_message("%u calls failed with %s\n", failed, strerror(-what));
	assert_true(failed > 100);
}

static void an_io_error_at_any_call_leaves_nothing(void **state)
{
	(void)state;
	fail_every_call(-EIO, REASON_STORE_FAILED);
}

static void a_full_disk_at_any_call_leaves_nothing(void **state)
{
	(void)state;
	fail_every_call(-ENOSPC, REASON_STORE_FULL);
}

static void no_more_descriptors_at_any_call_leaves_nothing(void **state)
{
	(void)state;
	fail_every_call(-EMFILE, REASON_STORE_FAILED);
}

/* -- loss of power --------------------------------------------------------------------------- */

/* What of the files below the store is on the disk, as far as POSIX promises: content and mode of
 * a file since its last fsync, names since the last fsync of their directory. */
struct node {
	char path[NAME_ROOM];
	bool dirty, gone;
};

struct disk {
	struct node nodes[256];
	size_t n;
	unsigned int published, described;
	char problem[NAME_ROOM + 100];
};

static struct node *find_node(struct disk *d, const char *name)
{
	for (size_t i = 0; i < d->n; i++)
		if (!d->nodes[i].gone && strcmp(d->nodes[i].path, name) == 0)
			return &d->nodes[i];
	if (d->n == ARRAY_SIZE(d->nodes) || strncmp(name, path, strlen(path)) != 0)
		return NULL;
	(void)snprintf(d->nodes[d->n].path, sizeof(d->nodes[d->n].path), "%s", name);
	return &d->nodes[d->n++];
}

static void set_dirty(struct disk *d, const char *name, bool dirty)
{
	struct node *node = find_node(d, name);

	if (node)
		node->dirty = dirty;
}

static void set_parent_dirty(struct disk *d, const char *name)
{
	char parent[NAME_ROOM];

	(void)snprintf(parent, sizeof(parent), "%.*s", (int)(strrchr(name, '/') - name), name);
	set_dirty(d, parent, true);
}

/* Everything below (and including) a directory has to be on the disk, except one name. */
static void check_clean(struct disk *d, const char *below, const char *except, const char *when)
{
	size_t n = strlen(below);

	for (size_t i = 0; i < d->n; i++) {
		const struct node *node = &d->nodes[i];

		if (node->gone || !node->dirty || strncmp(node->path, below, n) != 0 ||
		    (node->path[n] && node->path[n] != '/') ||
		    (except && strcmp(node->path, except) == 0))
			continue;
		(void)snprintf(d->problem, sizeof(d->problem), "%s is not on the disk when %s",
			       node->path, when);
	}
}

static void moved(struct disk *d, const char *from, const char *to)
{
	char work[160], final[160], named[200];
	struct node *node;

	(void)snprintf(work, sizeof(work), "%s/.new-a", path);
	(void)snprintf(final, sizeof(final), "%s/a", path);
	(void)snprintf(named, sizeof(named), "%s/metadata.json", work);
	if (strcmp(to, named) == 0) {
		/* But for the directory, which has just got the temporary file. */
		check_clean(d, work, work, "metadata.json gets its name");
		d->described++;
	}
	if (strcmp(from, work) == 0 && strcmp(to, final) == 0) {
		check_clean(d, work, NULL, "the checkpoint gets its name");
		d->published++;
	}
	node = find_node(d, to);
	if (node)
		node->gone = true;
	node = find_node(d, from);
	if (node)
		(void)snprintf(node->path, sizeof(node->path), "%s", to);
	set_parent_dirty(d, from);
	set_parent_dirty(d, to);
}

static void join(const struct sysfault_call *call, int dir, int name, char *buf, size_t size)
{
	char at[256], text[256];

	(void)sysfault_text(call, name, text, sizeof(text));
	if (text[0] == '/')
		(void)snprintf(buf, size, "%s", text);
	else
		(void)snprintf(buf, size, "%s/%s",
			       sysfault_fd_path(call, dir, at, sizeof(at)), text);
}

static int follow(void *arg, const struct sysfault_call *call)
{
	struct disk *d = arg;
	char one[NAME_ROOM], two[NAME_ROOM];

	switch (call->nr) {
	case SYS_openat:
		join(call, 0, 1, one, sizeof(one));
		if (call->args[2] & O_CREAT) {
			set_dirty(d, one, true);
			set_parent_dirty(d, one);
		}
		break;
	case SYS_mkdirat:
		join(call, 0, 1, one, sizeof(one));
		set_dirty(d, one, true);
		set_parent_dirty(d, one);
		break;
	case SYS_write:
	case SYS_pwrite64:
	case SYS_fchmod:
		set_dirty(d, sysfault_fd_path(call, 0, one, sizeof(one)), true);
		break;
	case SYS_fsync:
		set_dirty(d, sysfault_fd_path(call, 0, one, sizeof(one)), false);
		break;
	case SYS_renameat:
	case SYS_renameat2:
		join(call, 0, 1, one, sizeof(one));
		join(call, 2, 3, two, sizeof(two));
		moved(d, one, two);
		break;
	default:
		break;
	}
	return 0;
}

static void what_has_a_name_is_on_the_disk(void **state)
{
	static struct disk disk;
	const struct sysfault run = { .run = make_checkpoint, .decide = follow, .arg = &disk };
	int status;

	(void)state;
	if (sysfault_run(&run, &status) < 0)
		skip();
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), SEALED);
	assert_string_equal(disk.problem, "");
	assert_int_equal(disk.described, 1);
	assert_int_equal(disk.published, 1);
	/* Files of the dump, documents and directories: they were all seen. */
	assert_true(disk.n >= 12);
	/* And the name itself, before anybody is told. */
	check_clean(&disk, path, NULL, "it is over");
	assert_string_equal(disk.problem, "");
}

/* -- the real thing -------------------------------------------------------------------------- */

/* Runs it on a tmpfs of its own; returns the outcome, or -1 where mounting is not allowed. */
static int on_tmpfs(const char *options, bool read_only)
{
	pid_t pid;
	int status;

	assert_int_equal(mkdir(path, 0700), 0);
	(void)fflush(NULL);
	pid = fork();
	if (pid == 0) {
		if (unshare(CLONE_NEWNS) < 0 ||
		    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		    mount("tmpfs", path, "tmpfs", 0, options) < 0)
			_exit(100);
		if (read_only &&
		    mount("none", path, NULL, MS_REMOUNT | MS_RDONLY | MS_BIND, NULL) < 0)
			_exit(100);
		_exit(make_checkpoint(NULL));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(rmdir(path), 0); /* nothing was written below the mount */
	return WEXITSTATUS(status) == 100 ? -1 : WEXITSTATUS(status);
}

static void a_small_file_system_fills_up(void **state)
{
	bool full = false;

	(void)state;
	expected = REASON_STORE_FULL;
	/* From too small for the dump to large enough for all: in between the sealing fails. */
	for (int pages = 1; pages < 64; pages++) {
		char options[64];
		int outcome;

		(void)snprintf(options, sizeof(options), "mode=0700,size=%d", pages * 4096);
		outcome = on_tmpfs(options, false);
		if (outcome < 0)
			skip();
		assert_int_not_equal(outcome, FAILED_BADLY);
		full = full || outcome == FAILED_WELL;
		if (outcome == SEALED)
			break;
		assert_true(pages < 63);
	}
	assert_true(full);
}

static void a_file_system_runs_out_of_inodes(void **state)
{
	unsigned int full = 0;

	(void)state;
	expected = REASON_STORE_FULL;
	for (int inodes = 2; inodes < 64; inodes++) {
		char options[64];
		int outcome;

		(void)snprintf(options, sizeof(options), "mode=0700,nr_inodes=%d", inodes);
		outcome = on_tmpfs(options, false);
		if (outcome < 0)
			skip();
		assert_int_not_equal(outcome, FAILED_BADLY);
		full += outcome == FAILED_WELL;
		if (outcome == SEALED)
			break;
		assert_true(inodes < 63);
	}
	assert_true(full > 3);
}

static void a_read_only_file_system_is_told(void **state)
{
	int outcome;

	(void)state;
	expected = REASON_STORE_FAILED;
	outcome = on_tmpfs("mode=0700", true);
	if (outcome < 0)
		skip();
	assert_int_equal(outcome, FAILED_WELL);
}

static void few_descriptors_are_enough_or_told(void **state)
{
	unsigned int failed = 0;

	(void)state;
	expected = REASON_STORE_FAILED;
	for (rlim_t n = 3; n < 64; n++) {
		int status;
		pid_t pid;

		(void)fflush(NULL);
		pid = fork();
		if (pid == 0) {
			few_files = n;
			_exit(make_checkpoint(NULL));
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status));
		assert_int_not_equal(WEXITSTATUS(status), FAILED_BADLY);
		if (WEXITSTATUS(status) == SEALED)
			break;
		failed++;
		(void)path_remove_tree(AT_FDCWD, path);
		assert_true(n < 63);
	}
	assert_true(failed > 2);
	assert_true(start_again(false));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(killed_at_any_call_it_leaves_all_or_nothing),
		T(killed_while_deleting_it_leaves_all_or_nothing),
		T(a_failure_while_deleting_leaves_all_or_nothing),
		T(a_verification_that_fails_says_nothing_of_the_checkpoint),
		T(an_io_error_at_any_call_leaves_nothing),
		T(a_full_disk_at_any_call_leaves_nothing),
		T(no_more_descriptors_at_any_call_leaves_nothing),
		T(what_has_a_name_is_on_the_disk),
		T(a_small_file_system_fills_up),
		T(a_file_system_runs_out_of_inodes),
		T(a_read_only_file_system_is_told),
		T(few_descriptors_are_enough_or_told),
	};
	struct digester *digester;
	int status;

	if (worker_role(argc, argv, &status))
		return status;
	tree_in_memory();
	/* The crypto library reads its configuration once; those calls are not ours to break. */
	if (digester_new(&digester) < 0)
		return EXIT_FAILURE;
	digester_free(digester);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
