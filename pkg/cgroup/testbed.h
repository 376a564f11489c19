/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of this layer: folders that look like cgroups, and real cgroups with processes in
 * them, of whatever version this machine has. Everything is removed by bed_close(), or at the
 * latest by bed_sweep() at the end of the program.
 */
#ifndef KYB_CGROUP_TESTBED_H
#define KYB_CGROUP_TESTBED_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "cgroup/cgroup.h"
#include "tests/cmocka.h"

#define BED_CHILDREN_MAX 64
#define BED_TOPS_MAX     256

/* What bed_sweep() has to look after when a test fails in the middle. */
static struct {
	char tops[BED_TOPS_MAX][64];
	unsigned int n_tops, n_names;
} bed_made;

struct bed {
	struct cgroup_host host;
	struct cgroup cg;
	char top[64];  /* a folder of our own, or "" */
	char name[64]; /* the real cgroup's path, or "" */
	pid_t child[BED_CHILDREN_MAX];
	unsigned int n_children;
};

static inline void bed_file(const struct bed *b, const char *name, const char *text)
{
	char path[PATH_MAX], *slash;

	assert_int_equal(PATH_PRINTF(path, "%s/%s", b->top, name), 0);
	slash = strrchr(path, '/');
	*slash = 0;
	assert_int_equal(path_mkdirs(path, 0755), 0);
	*slash = '/';
	assert_int_equal(file_write(AT_FDCWD, path, text, strlen(text), 0644, FILE_PLAIN), 0);
}

static inline void bed_file_is(const struct bed *b, const char *name, const char *want)
{
	_cleanup_buf_ struct buf text = BUF_NULL;
	char path[PATH_MAX];

	assert_int_equal(PATH_PRINTF(path, "%s/%s", b->top, name), 0);
	assert_int_equal(file_read(AT_FDCWD, path, &text), 0);
	assert_string_equal(buf_str(&text), want);
}

/* A folder of files: top/cgroup is the root, top/proc is /proc, top/huge the sizes of pages. */
static inline void bed_fake(struct bed *b, enum cgroup_mode mode, const char *mountinfo)
{
	static char root[128], proc[128], huge[128];

	*b = (struct bed){ .top = "/tmp/test-cgroup.XXXXXX" };
	assert_non_null(mkdtemp(b->top));
	assert_true(bed_made.n_tops < BED_TOPS_MAX);
	memcpy(bed_made.tops[bed_made.n_tops++], b->top, sizeof(b->top));
	assert_int_equal(PATH_PRINTF(root, "%s/cgroup", b->top), 0);
	assert_int_equal(PATH_PRINTF(proc, "%s/proc", b->top), 0);
	assert_int_equal(PATH_PRINTF(huge, "%s/huge", b->top), 0);
	assert_int_equal(mkdir(root, 0755), 0);
	/* Mount points in the text are written from the root on: "@/memory". */
	if (mountinfo) {
		_cleanup_buf_ struct buf text = BUF_NULL;

		for (const char *at = mountinfo; *at; at++)
			assert_int_equal(*at == '@' ? buf_append_str(&text, root) :
						      buf_append_u8(&text, (uint8_t)*at), 0);
		bed_file(b, "proc/self/mountinfo", buf_str(&text));
	}
	assert_int_equal(cgroup_host_open(&b->host, mode, root, proc, NULL), 0);
	b->host.hugepages = huge;
}

static inline void bed_member(struct bed *b, const char *membership)
{
	assert_int_equal(cgroup_open(&b->cg, &b->host, bytes_of(membership, strlen(membership)),
				     NULL), 0);
}

/* Calls fn for the folder of the real cgroup in every tree. */
static inline void bed_each_dir(struct bed *b, void (*fn)(const char *dir))
{
	char dir[PATH_MAX];

	for (unsigned int c = 0; c < CGROUP_CONTROLLERS; c++) {
		const char *mount = b->host.mode == CGROUP_V2 ? b->host.root :
								b->host.mounts[c].point;

		if (!mount || (b->host.mode == CGROUP_V2 && c > 0))
			continue;
		assert_int_equal(PATH_PRINTF(dir, "%s%s", mount, b->name), 0);
		fn(dir);
	}
}

static inline void bed_mkdir(const char *dir)
{
	_cleanup_buf_ struct buf all = BUF_NULL;
	char path[PATH_MAX];
	const char *const copied[] = { "cpuset.cpus", "cpuset.mems" };

	assert_int_equal(path_mkdirs(dir, 0755), 0);
	/* A new cpuset of version 1 takes no process before it has processors and memory. */
	for (size_t i = 0; strstr(dir, "/cpuset/") && i < ARRAY_SIZE(copied); i++) {
		buf_clear(&all);
		assert_int_equal(PATH_PRINTF(path, "%s/cpuset/%s", CGROUP_ROOT, copied[i]), 0);
		assert_int_equal(file_read(AT_FDCWD, path, &all), 0);
		assert_int_equal(PATH_PRINTF(path, "%s/%s", dir, copied[i]), 0);
		assert_int_equal(file_put(AT_FDCWD, path, buf_str(&all)), 0);
	}
}

static inline void bed_rmdir(const char *dir)
{
	for (int i = 0; rmdir(dir) < 0 && errno == EBUSY && i < 300; i++)
		(void)usleep(10000);
}

/* The mount point of version 2 may be the tree beside version 1, with the freezer alone. */
static inline const char *bed_root(enum cgroup_mode mode)
{
	return mode == CGROUP_V2 && cgroup_mode_at(CGROUP_ROOT) != CGROUP_V2 ?
		       CGROUP_ROOT "/unified" : CGROUP_ROOT;
}

/* Can a test have a real cgroup of that version, with that controller (NULL = any)? */
static inline bool bed_can(enum cgroup_mode mode, const char *controller)
{
	_cleanup_buf_ struct buf all = BUF_NULL;
	char path[PATH_MAX];

	if (geteuid() != 0 || cgroup_mode_at(bed_root(mode)) != mode)
		return false;
	if (!controller)
		return true;
	if (mode == CGROUP_V1)
		return PATH_PRINTF(path, "%s/%s", CGROUP_ROOT, controller) == 0 &&
		       access(path, F_OK) == 0;
	return PATH_PRINTF(path, "%s/cgroup.controllers", bed_root(mode)) == 0 &&
	       file_read(AT_FDCWD, path, &all) == 0 && strstr(buf_str(&all), controller);
}

/* The first line of a test, before it holds anything that skip() would leak. */
#define BED_NEEDS(mode, controller)                                                                \
	do {                                                                                       \
		if (!bed_can(mode, controller))                                                    \
			skip();                                                                    \
	} while (0)

static inline void bed_real(struct bed *b, enum cgroup_mode mode)
{
	const char *root = bed_root(mode);

	*b = (struct bed){ 0 };
	assert_int_equal(cgroup_host_open(&b->host, mode, root, "/proc", NULL), 0);
	(void)snprintf(b->name, sizeof(b->name), "/kyb-test-%d-%u", getpid(),
		       bed_made.n_names++);
	bed_each_dir(b, bed_mkdir);
}

/* Has it got the file? (A controller can be missing.) */
static inline bool bed_has(struct bed *b, const char *file)
{
	bool v2 = b->host.mode == CGROUP_V2;
	char path[PATH_MAX];

	for (unsigned int c = 0; c < (v2 ? 1 : CGROUP_CONTROLLERS); c++) {
		const char *mount = v2 ? b->host.root : b->host.mounts[c].point;

		if (mount && PATH_PRINTF(path, "%s%s/%s", mount, b->name, file) == 0 &&
		    access(path, F_OK) == 0)
			return true;
	}
	return false;
}

static inline void bed_write(struct bed *b, const char *file, const char *text)
{
	char path[PATH_MAX];
	int r = -ENOENT;

	for (unsigned int c = 0; c < CGROUP_CONTROLLERS && r == -ENOENT; c++) {
		if (cgroup_path(&b->cg, (enum cgroup_controller)c, path, sizeof(path)) < 0)
			continue;
		assert_true(strlen(path) + strlen(file) + 2 < sizeof(path));
		(void)strcat(strcat(path, "/"), file);
		r = file_put(AT_FDCWD, path, text);
	}
	if (r < 0)
		fail_msg("cannot write %s to %s: %d", text, file, r);
}

/* Puts the calling process into the cgroup; below = "" or "/sub" of it. */
static inline int bed_enter(const struct bed *b, const char *below)
{
	bool v2 = b->host.mode == CGROUP_V2;
	char path[PATH_MAX];

	for (unsigned int c = 0; c < (v2 ? 1 : CGROUP_CONTROLLERS); c++) {
		const char *mount = v2 ? b->host.root : b->host.mounts[c].point;

		if (mount && (PATH_PRINTF(path, "%s%s%s/cgroup.procs", mount, b->name, below) < 0 ||
			      file_put(AT_FDCWD, path, "0") < 0))
			return -1;
	}
	return 0;
}

/*
 * A process in it (below = "") or in a cgroup of it ("/sub"), which runs fn, or waits for its
 * end when fn is NULL. It ends with the test.
 */
static inline pid_t bed_child(struct bed *b, const char *below, void (*fn)(void))
{
	int p[2];
	char c;
	pid_t pid;

	assert_true(b->n_children < BED_CHILDREN_MAX);
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (bed_enter(b, below) < 0 || write(p[1], "x", 1) != 1)
			_exit(99);
		(void)close(p[1]);
		if (fn)
			fn();
		for (;;)
			(void)pause();
	}
	(void)close(p[1]);
	assert_int_equal(read(p[0], &c, 1), 1);
	(void)close(p[0]);
	b->child[b->n_children++] = pid;
	return pid;
}

static inline void bed_end_children(struct bed *b)
{
	for (unsigned int i = 0; i < b->n_children; i++) {
		(void)kill(b->child[i], SIGKILL);
		(void)waitpid(b->child[i], NULL, 0);
	}
	b->n_children = 0;
}

static inline void bed_thaw(const char *dir)
{
	char path[PATH_MAX];

	if (PATH_PRINTF(path, "%s/freezer.state", dir) == 0)
		(void)file_put(AT_FDCWD, path, "THAWED");
	if (PATH_PRINTF(path, "%s/cgroup.freeze", dir) == 0)
		(void)file_put(AT_FDCWD, path, "0");
}

static inline void bed_close(struct bed *b)
{
	if (b->name[0])
		bed_each_dir(b, bed_thaw);
	bed_end_children(b);
	if (b->name[0])
		bed_each_dir(b, bed_rmdir);
	cgroup_close(&b->cg);
	cgroup_host_close(&b->host);
	if (b->top[0])
		(void)path_remove_tree(AT_FDCWD, b->top);
}

/* Kills whoever is in the cgroups that a failed test has left, and removes them. */
static inline void bed_sweep_dir(const char *dir)
{
	_cleanup_buf_ struct buf procs = BUF_NULL;
	static const char *const below[] = { "sub", "a.scope", "b.scope" };
	char path[PATH_MAX];

	if (access(dir, F_OK) < 0)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(below); i++)
		if (PATH_PRINTF(path, "%s/%s", dir, below[i]) == 0)
			bed_sweep_dir(path);
	bed_thaw(dir);
	if (PATH_PRINTF(path, "%s/cgroup.procs", dir) == 0 &&
	    file_read(AT_FDCWD, path, &procs) == 0)
		for (const char *at = buf_str(&procs); *at; at += strcspn(at, "\n") + 1)
			(void)kill(atoi(at), SIGKILL);
	for (int i = 0; rmdir(dir) < 0 && errno == EBUSY && i < 300; i++) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		(void)usleep(10000);
	}
}

/* For cmocka's group teardown. */
static inline int bed_sweep(void **state)
{
	static const enum cgroup_mode modes[] = { CGROUP_V1, CGROUP_V2 };

	(void)state;
	for (unsigned int i = 0; i < bed_made.n_tops; i++)
		(void)path_remove_tree(AT_FDCWD, bed_made.tops[i]);
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		struct bed b = { 0 };
		const char *root = bed_root(modes[i]);

		if (cgroup_mode_at(root) != modes[i] ||
		    cgroup_host_open(&b.host, modes[i], root, "/proc", NULL) < 0)
			continue;
		for (unsigned int k = 0; k < bed_made.n_names; k++) {
			(void)snprintf(b.name, sizeof(b.name), "/kyb-test-%d-%u", getpid(), k);
			bed_each_dir(&b, bed_sweep_dir);
		}
		cgroup_host_close(&b.host);
	}
	return 0;
}

#endif
