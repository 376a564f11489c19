/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/jobfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "base/path.h"
#include "proc/procfs.h"

static const char own_fd[] = "/proc/self/fd/";

int jobfile_named(pid_t pid)
{
	char path[PATH_MAX];
	int r = procfs_variable(pid, JOBFILE_VARIABLE, path, sizeof(path));

	if (r == -ENOENT)
		return 0;
	return r < 0 && r != -ENAMETOOLONG ? r : path[0] != 0;
}

/* Through /proc a file opens for us that the process itself may only have been given to read: none
 * but a memfd, or what else has no name any more and lives in memory. */
static int open_own_fd(pid_t pid, const char *number, int flags)
{
	_cleanup_close_ int fd = -1;
	char path[64];
	uint64_t n;
	struct statfs fs;
	struct stat st;
	int file;

	if (num_parse(number, INT_MAX, &n) < 0 ||
	    PATH_PRINTF(path, "/proc/%d/fd/%d", pid, (int)n) < 0)
		return -EBADMSG;
	fd = open(path, O_PATH | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_nlink != 0 || fs.f_type != TMPFS_MAGIC)
		return -EPERM;
	(void)PATH_PRINTF(path, "/proc/self/fd/%d", fd); /* this one, whatever it does meanwhile */
	file = open(path, flags | O_CLOEXEC | O_NONBLOCK);
	return file < 0 ? -errno : file;
}

static int open_named(pid_t pid, const char *name, int flags)
{
	_cleanup_close_ int root = -1, fd = -1;
	struct stat st, owner;
	char path[64];

	(void)PATH_PRINTF(path, "/proc/%d/root", pid);
	root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	while (*name == '/')
		name++;
	fd = path_open_beneath(root, name, flags | O_NONBLOCK);
	if (fd < 0)
		return fd;
	(void)PATH_PRINTF(path, "/proc/%d", pid);
	if (fstat(fd, &st) < 0 || stat(path, &owner) < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	if (!S_ISREG(st.st_mode) || st.st_nlink != 1 || st.st_uid != owner.st_uid)
		return -EPERM;
	return TAKE_FD(fd);
}

int jobfile_open(pid_t pid, int flags, struct error *err)
{
	char path[PATH_MAX];
	int r = procfs_variable(pid, JOBFILE_VARIABLE, path, sizeof(path));

	if (r == 0 && path[0] != '/')
		r = -EINVAL;
	if (r == 0)
		r = strncmp(path, own_fd, sizeof(own_fd) - 1) == 0
			    ? open_own_fd(pid, path + sizeof(own_fd) - 1, flags)
			    : open_named(pid, path, flags);
	if (r < 0)
		return error_reason(err, REASON_CUDA_QUERY_FAILED, r,
				    "the checkpoint job file of process %d cannot be opened: %s", pid,
				    r == -EPERM ? "it is neither a memfd nor a file of the process's "
						  "own user"
						: strerror(-r));
	return r;
}

/* --- into the image and back ---------------------------------------------------------------- */

struct seen {
	dev_t dev;
	ino_t ino;
};

/* The number of the file among those seen, from 1; *ret_new: it is the first of its processes. */
static int number_of(int fd, struct seen *seen, unsigned int *n, bool *ret_new)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	for (unsigned int i = 0; i < *n; i++)
		if (seen[i].dev == st.st_dev && seen[i].ino == st.st_ino) {
			*ret_new = false;
			return (int)i + 1;
		}
	seen[*n] = (struct seen){ st.st_dev, st.st_ino };
	*ret_new = true;
	return (int)++*n;
}

static int copy(int from, int to)
{
	_cleanup_buf_ struct buf b = BUF_LIMIT(JOBFILE_MAX);
	struct bytes left;
	off_t at = 0;

	for (;;) {
		uint8_t *p = buf_reserve(&b, (size_t)64 << 10);
		ssize_t n;

		if (!p)
			return -EFBIG;
		n = pread(from, p, (size_t)64 << 10, (off_t)buf_len(&b));
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		buf_commit(&b, (size_t)n);
	}
	if (ftruncate(to, (off_t)buf_len(&b)) < 0)
		return -errno;
	for (left = buf_bytes(&b); left.n;) {
		ssize_t n = pwrite(to, left.p, left.n, at);

		if (n < 0)
			return -errno;
		at += n;
		left = bytes_of(left.p + n, left.n - (size_t)n);
	}
	return 0;
}

static int open_image(const char *image_path, unsigned int number, int flags)
{
	_cleanup_close_ int dir =
		open(image_path, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	char name[64];
	int fd;

	if (dir < 0)
		return -errno;
	(void)PATH_PRINTF(name, JOBFILE_NAME, number);
	fd = openat(dir, name, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd < 0 ? -errno : fd;
}

static int save_one(pid_t pid, const char *image_path, struct seen *seen, unsigned int *n,
		    struct error *err)
{
	_cleanup_close_ int live = jobfile_open(pid, O_RDONLY, err), image = -1;
	bool first;
	int number, r = 0;

	if (live < 0)
		return live;
	number = number_of(live, seen, n, &first);
	if (number > 0 && first) {
		image = open_image(image_path, (unsigned int)number, O_CREAT | O_TRUNC | O_WRONLY);
		r = image < 0 ? image : copy(live, image);
	}
	if (number < 0 || r < 0)
		return error_reason(err, REASON_STORE_FAILED, number < 0 ? number : r,
				    "keep the checkpoint job file of process %d: %s", pid,
				    strerror(number < 0 ? -number : -r));
	return number;
}

int jobfile_save(struct gpu_group *g, const char *image_path, struct error *err)
{
	struct seen seen[GPU_GROUP_MAX];
	unsigned int n = 0;

	for (size_t i = 0; i < gpu_group_size(g); i++) {
		const struct gpu_member *m = gpu_group_member(g, i);
		int r;

		if (m->gone || !m->job)
			continue;
		r = save_one(m->pid, image_path, seen, &n, err);
		if (r < 0)
			return r;
		gpu_group_set_job(g, i, (unsigned int)r);
	}
	return 0;
}

static const struct gpu_member *find(const struct gpu_group *g, uint64_t ns_pid)
{
	for (size_t i = 0; i < gpu_group_size(g); i++) {
		const struct gpu_member *m = gpu_group_member(g, i);

		if (!m->gone && (uint64_t)m->ns_pid == ns_pid)
			return m;
	}
	return NULL;
}

static int restore_one(pid_t pid, unsigned int number, const char *image_path, struct seen *seen,
		       unsigned int *n, struct error *err)
{
	_cleanup_close_ int live = jobfile_open(pid, O_RDWR, err), image = -1;
	bool first;
	int r;

	if (live < 0) {
		if (err)
			err->reason = REASON_CUDA_RESTORE_FAILED;
		return live;
	}
	r = number_of(live, seen, n, &first);
	if (r < 0 || !first)
		return r < 0 ? error_sys(err, r, "the job file of process %d", pid) : 0;
	image = open_image(image_path, number, O_RDONLY);
	if (image < 0)
		return error_reason(err, REASON_IMAGE_CORRUPT, image,
				    "the checkpoint has no job file " JOBFILE_NAME, number);
	r = copy(image, live);
	if (r < 0)
		return error_reason(err, REASON_CUDA_RESTORE_FAILED, r,
				    "put the checkpoint job file of process %d back: %s", pid,
				    strerror(-r));
	return 0;
}

int jobfile_restore(const struct gpu_group *g, const struct metadata_gpu *gpu,
		    const char *image_path, struct error *err)
{
	struct seen seen[GPU_GROUP_MAX];
	unsigned int n = 0;
	int r = 0;

	for (size_t i = 0; i < gpu->n_processes && r == 0 && n < GPU_GROUP_MAX; i++) {
		const struct metadata_process *p = &gpu->processes[i];
		const struct gpu_member *m = p->job ? find(g, p->ns_pid) : NULL;

		if (m)
			r = restore_one(m->pid, (unsigned int)p->job, image_path, seen, &n, err);
	}
	return r;
}
