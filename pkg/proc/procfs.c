/* SPDX-License-Identifier: Apache-2.0 */
#include "proc/procfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/membership.h"
#include "base/num.h"
#include "base/path.h"
#include "base/utf8.h"

#define PROC_FILE_MAX ((size_t)64 << 10)
/* The kernel takes 128 KiB a string, and a quarter of the stack limit for all of them. */
#define ENVIRONMENT_MAX ((size_t)8 << 20)

static int read_of(pid_t pid, const char *file, struct buf *out)
{
	char path[64];
	int r;

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	r = file_read(AT_FDCWD, path, out);
	return r == -ENOENT ? -ESRCH : r;
}

int procfs_parse_stat(struct bytes text, uint64_t *ret_start_time)
{
	struct bytes field;
	size_t end = text.n;

	/* The last ')' closes comm; after it the fields are plain numbers. */
	while (end > 0 && text.p[end - 1] != ')')
		end--;
	if (end == 0 || text.n - end < 2)
		return -EBADMSG;
	text = bytes_of(text.p + end + 1, text.n - end - 1);
	/* Field 3 (state) comes first here; starttime is field 22. proc(5). */
	for (int i = 3; i <= 22; i++)
		if (bytes_until(&text, ' ', &field))
			return -EBADMSG;
	return num_parse_n((const char *)field.p, field.n, UINT64_MAX, ret_start_time) < 0
		       ? -EBADMSG
		       : 0;
}

int procfs_start_time(pid_t pid, uint64_t *ret)
{
	_cleanup_buf_ struct buf b = BUF_LIMIT(PROC_FILE_MAX);
	int r = read_of(pid, "stat", &b);

	return r < 0 ? r : procfs_parse_stat(buf_bytes(&b), ret);
}

bool procfs_zombie(pid_t pid)
{
	_cleanup_buf_ struct buf b = BUF_LIMIT(PROC_FILE_MAX);
	const char *end;

	if (read_of(pid, "stat", &b) < 0)
		return false;
	end = strrchr(buf_str(&b), ')'); /* as above */
	return end && (strncmp(end, ") Z", 3) == 0 || strncmp(end, ") X", 3) == 0);
}

int procfs_parse_cgroup(struct bytes text, const char *controller, char *buf, size_t size)
{
	struct membership m;
	int r;

	while ((r = membership_next(&text, &m)) > 0)
		if (membership_controls(&m, controller))
			return membership_path(&m, buf, size);
	return r < 0 ? r : -ENOENT;
}

int procfs_name(pid_t pid, char *buf, size_t size)
{
	_cleanup_buf_ struct buf b = BUF_LIMIT(PROC_FILE_MAX);
	int r = read_of(pid, "comm", &b);
	size_t n;

	if (r < 0)
		return r;
	n = strcspn(buf_str(&b), "\n");
	if (n >= size)
		n = size - 1;
	memcpy(buf, buf_str(&b), n);
	buf[n] = 0;
	utf8_mend(buf); /* the kernel cuts names off at 15 bytes, and takes any (prctl(2)) */
	return 0;
}

int procfs_runs(pid_t pid, const char *program)
{
	_cleanup_buf_ struct buf b = BUF_LIMIT(PROC_FILE_MAX);
	int r = read_of(pid, "cmdline", &b);
	const char *arg, *end, *slash;

	if (r < 0)
		return r;
	/* Arguments end with a NUL each, and a buffer with one more. */
	arg = buf_str(&b);
	for (end = arg + buf_len(&b); arg < end; arg += strlen(arg) + 1) {
		slash = strrchr(arg, '/');
		if (strcmp(slash ? slash + 1 : arg, program) == 0)
			return 1;
	}
	return 0;
}

int procfs_parse_ns_pid(struct bytes text, pid_t *ret)
{
	struct bytes line, word;
	uint64_t pid;

	/* "NSpid:\t4711\t17\t1": from the outermost namespace to its own. proc(5). */
	while (bytes_until(&text, '\n', &line) == 0) {
		if (line.n < 7 || memcmp(line.p, "NSpid:\t", 7) != 0)
			continue;
		while (bytes_until(&line, '\t', &word) == 0)
			;
		if (num_parse_n((const char *)line.p, line.n, INT_MAX, &pid) < 0 || pid == 0)
			return -EBADMSG;
		*ret = (pid_t)pid;
		return 0;
	}
	return -ENOENT;
}

int procfs_ns_pid(pid_t pid, pid_t *ret)
{
	_cleanup_buf_ struct buf b = BUF_LIMIT(PROC_FILE_MAX);
	int r = read_of(pid, "status", &b);

	return r < 0 ? r : procfs_parse_ns_pid(buf_bytes(&b), ret);
}

/* A pid in the content of /proc/PID/status; key is "Name:\t". */
static int parse_pid(struct bytes text, const char *key, pid_t *ret)
{
	const size_t n = strlen(key);
	struct bytes line;
	uint64_t pid;

	while (bytes_until(&text, '\n', &line) == 0) {
		if (line.n < n || memcmp(line.p, key, n) != 0)
			continue;
		if (num_parse_n((const char *)line.p + n, line.n - n, INT_MAX, &pid) < 0)
			return -EBADMSG;
		*ret = (pid_t)pid;
		return 0;
	}
	return -ENOENT;
}

int procfs_parse_tracer(struct bytes text, pid_t *ret)
{
	return parse_pid(text, "TracerPid:\t", ret);
}

int procfs_parent(pid_t pid, pid_t *ret)
{
	_cleanup_buf_ struct buf b = BUF_LIMIT(PROC_FILE_MAX);
	int r = read_of(pid, "status", &b);

	return r < 0 ? r : parse_pid(buf_bytes(&b), "PPid:\t", ret);
}

int procfs_tracer(pid_t pid, pid_t *ret)
{
	_cleanup_buf_ struct buf b = BUF_LIMIT(PROC_FILE_MAX);
	int r = read_of(pid, "status", &b);

	return r < 0 ? r : procfs_parse_tracer(buf_bytes(&b), ret);
}

int procfs_cgroup(pid_t pid, const char *controller, char *buf, size_t size)
{
	_cleanup_buf_ struct buf b = BUF_LIMIT(PROC_FILE_MAX);
	int r = read_of(pid, "cgroup", &b);

	return r < 0 ? r : procfs_parse_cgroup(buf_bytes(&b), controller, buf, size);
}

int procfs_each_fd(pid_t pid, int (*each)(void *arg, int fd, const char *target), void *arg)
{
	_cleanup_closedir_ DIR *dir = NULL;
	char path[64], target[PATH_MAX];
	struct dirent *e;
	uint64_t fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? -ESRCH : -errno;
	while ((e = readdir(dir))) {
		ssize_t n;
		int r;

		if (num_parse(e->d_name, INT_MAX, &fd) < 0)
			continue;
		n = readlinkat(dirfd(dir), e->d_name, target, sizeof(target) - 1);
		if (n < 0)
			continue; /* closed in the meantime */
		target[n] = 0;
		r = each(arg, (int)fd, target);
		if (r)
			return r;
	}
	return 0;
}

int procfs_maps_file(pid_t pid, const char *prefix)
{
	_cleanup_fclose_ FILE *f = NULL;
	_cleanup_free_ char *line = NULL;
	size_t size = 0;
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	f = fopen(path, "re");
	if (!f)
		return errno == ENOENT ? -ESRCH : -errno;
	while (getline(&line, &size, f) > 0) {
		const char *name = strchr(line, '/'); /* paths are absolute */

		if (name && strncmp(name, prefix, strlen(prefix)) == 0)
			return 1;
	}
	return ferror(f) ? -errno : 0; /* -ESRCH: it went away meanwhile */
}

static int find_variable(struct bytes environment, const char *name, char *buf, size_t size)
{
	size_t n = strlen(name);
	struct bytes one;

	while (bytes_until(&environment, 0, &one) == 0) {
		if (one.n <= n || memcmp(one.p, name, n) != 0 || one.p[n] != '=')
			continue;
		if (one.n - n > size)
			return -ENAMETOOLONG;
		memcpy(buf, one.p + n + 1, one.n - n - 1);
		buf[one.n - n - 1] = 0;
		return 0;
	}
	return -ENOENT;
}

int procfs_open(pid_t pid, uint64_t start_time)
{
	_cleanup_buf_ struct buf b = BUF_LIMIT(PROC_FILE_MAX);
	_cleanup_close_ int fd = -1;
	char path[64];
	uint64_t started;
	int r;

	(void)snprintf(path, sizeof(path), "/proc/%d", pid);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	r = file_read(fd, "stat", &b);
	if (r == 0)
		r = procfs_parse_stat(buf_bytes(&b), &started);
	if (r < 0)
		return r == -ENOENT ? -ESRCH : r;
	return started == start_time ? TAKE_FD(fd) : -ESRCH;
}

int procfs_variable(int process, const char *name, char *buf, size_t size)
{
	_cleanup_buf_ struct buf b = BUF_LIMIT(ENVIRONMENT_MAX);
	int r = file_read(process, "environ", &b);

	if (r == -ENOENT) /* it is the file that is not there; the variable has its own */
		r = -ESRCH;
	if (r == 0)
		r = find_variable(buf_bytes(&b), name, buf, size);
	if (buf_len(&b))
		explicit_bzero((void *)(uintptr_t)buf_bytes(&b).p, buf_len(&b));
	return r;
}
