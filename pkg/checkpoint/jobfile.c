/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/jobfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mountinfo.h"
#include "base/num.h"
#include "base/path.h"
#include "proc/procfs.h"

#define FDINFO_MAX ((size_t)64 << 10)
#define BLOCK	   ((size_t)64 << 10)

static const char own_fd[] = "/proc/self/fd/";

int jobfile_named(pid_t pid, uint64_t start_time)
{
	_cleanup_close_ int process = procfs_open(pid, start_time);
	char path[PATH_MAX];
	int r = process < 0 ? process
			    : procfs_variable(process, JOBFILE_VARIABLE, path, sizeof(path));

	if (r == -ENOENT)
		return 0;
	return r < 0 && r != -ENAMETOOLONG ? r : path[0] != 0;
}

/* --- mounts --------------------------------------------------------------------------------- */

/* Of an open file, out of "fdinfo/N", which asks no file system. */
static int mount_id(int dirfd, const char *fdinfo, uint64_t *ret)
{
	static const char key[] = "mnt_id:\t";
	_cleanup_buf_ struct buf b = BUF_LIMIT(FDINFO_MAX);
	int r = file_read(dirfd, fdinfo, &b);
	struct bytes text, line;

	if (r < 0)
		return r;
	for (text = buf_bytes(&b); bytes_until(&text, '\n', &line) == 0;)
		if (line.n >= sizeof(key) && memcmp(line.p, key, sizeof(key) - 1) == 0)
			return num_parse_n((const char *)line.p + sizeof(key) - 1,
					   line.n - sizeof(key) + 1, UINT64_MAX, ret);
	return -EBADMSG;
}

static int own_mount_id(int fd, uint64_t *ret)
{
	char path[64];

	(void)PATH_PRINTF(path, "/proc/self/fdinfo/%d", fd);
	return mount_id(AT_FDCWD, path, ret);
}

/* Those that no server or program outside the kernel can keep waiting. */
static bool local(struct bytes type)
{
	static const char *const types[] = { "tmpfs", "overlay", "ext4", "xfs", "btrfs" };

	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (type.n == strlen(types[i]) && memcmp(type.p, types[i], type.n) == 0)
			return true;
	return false;
}

static int each_mount(int process, int (*each)(void *arg, const struct mountinfo *m), void *arg)
{
	char file[64];

	(void)PATH_PRINTF(file, "/proc/self/fd/%d/mountinfo", process);
	return mountinfo_each(file, each, arg);
}

enum mount_kind { MOUNT_UNLISTED, MOUNT_TMPFS, MOUNT_LOCAL, MOUNT_OTHER };

static int if_it(void *arg, const struct mountinfo *m)
{
	const uint64_t *id = arg;

	if (m->id != *id)
		return 0;
	if (!local(m->type))
		return MOUNT_OTHER;
	return m->type.p[0] == 't' ? MOUNT_TMPFS : MOUNT_LOCAL;
}

/* enum mount_kind or -errno */
static int kind_of(int process, uint64_t id)
{
	return each_mount(process, if_it, &id);
}

static int refuse_other(void *arg, const struct mountinfo *m)
{
	const char *path = arg;
	char point[PATH_MAX];
	size_t n;
	int r = local(m->type) ? 0 : mountinfo_unescape(m->point, point, sizeof(point));

	if (r < 0 || local(m->type))
		return r == -ENAMETOOLONG ? 0 : r; /* longer than any path */
	n = strcmp(point, "/") == 0 ? 0 : strlen(point);
	return strncmp(point, path, n) == 0 && (path[n] == '/' || !path[n]) ? -EPERM : 0;
}

/* --- where it is ---------------------------------------------------------------------------- */

/* This one, whatever has its name by now. */
static int reopen(int fd, int flags)
{
	char path[64];
	int file;

	(void)PATH_PRINTF(path, "/proc/self/fd/%d", fd);
	file = open(path, flags | O_CLOEXEC | O_NONBLOCK);
	return file < 0 ? -errno : file;
}

/* Memfds are on a mount of the kernel's own, which is in nobody's list. */
static bool on_memfd_device(const struct statx *st)
{
	_cleanup_close_ int fd = memfd_create("device", MFD_CLOEXEC);
	struct stat own;

	return fd >= 0 && fstat(fd, &own) == 0 &&
	       makedev(st->stx_dev_major, st->stx_dev_minor) == own.st_dev;
}

/* Through /proc a file opens for us that the process itself may only have been given to read: none
 * but a memfd, or what else has no name any more and lives in memory. */
static int open_own_fd(int process, const char *number, int flags)
{
	_cleanup_close_ int fd = -1;
	char path[64];
	struct statx st;
	uint64_t n, id;
	int r;

	if (num_parse(number, INT_MAX, &n) < 0 || PATH_PRINTF(path, "fdinfo/%d", (int)n) < 0)
		return -EBADMSG;
	r = mount_id(process, path, &id);
	if (r == 0)
		r = kind_of(process, id); /* NFS would be asked even by O_PATH */
	if (r < 0 || (r != MOUNT_TMPFS && r != MOUNT_UNLISTED))
		return r < 0 ? r : -EPERM;
	(void)PATH_PRINTF(path, "fd/%d", (int)n);
	fd = openat(process, path, O_PATH | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = own_mount_id(fd, &id);
	if (r == 0)
		r = kind_of(process, id);
	if (r < 0)
		return r;
	/* What is known of it, without asking a FUSE server whose mount nobody lists either. */
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_NLINK, &st) < 0)
		return -errno;
	if (r != MOUNT_TMPFS && (r != MOUNT_UNLISTED || !on_memfd_device(&st)))
		return -EPERM;
	return S_ISREG(st.stx_mode) && st.stx_nlink == 0 ? reopen(fd, flags) : -EPERM;
}

/* Is what was opened (O_PATH) on a mount where one may go on? *last is the mount before. */
static int check_mount(int process, int fd, uint64_t *last)
{
	uint64_t id;
	int r = own_mount_id(fd, &id);

	if (r < 0 || id == *last)
		return r;
	*last = id;
	r = kind_of(process, id);
	return r < 0 ? r : r == MOUNT_TMPFS || r == MOUNT_LOCAL ? 0 : -EPERM;
}

/*
 * O_PATH to a file of the process's. Name by name: the first look at a mount is ours, not that of a
 * lookup in it, and who mounts something over the way meanwhile gains nothing.
 */
static int walk(int process, const char *path)
{
	_cleanup_close_ int at = openat(process, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
	char name[NAME_MAX + 1];
	uint64_t mount = UINT64_MAX;

	if (at < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	for (;;) {
		int next, r = check_mount(process, at, &mount);
		size_t n;

		if (r < 0)
			return r;
		path += strspn(path, "/");
		if (!*path)
			return TAKE_FD(at);
		n = strcspn(path, "/");
		if (n > NAME_MAX)
			return -ENAMETOOLONG;
		memcpy(name, path, n);
		name[n] = 0;
		path += n;
		next = path_open_beneath(at, name, O_PATH);
		if (next < 0)
			return next;
		(void)close(at);
		at = next;
	}
}

/* Nothing is opened but a plain file, and no file system asked that may not answer. */
static int open_named(int process, const char *name, int flags)
{
	_cleanup_close_ int fd = -1;
	struct stat st, owner;
	char path[PATH_MAX];
	int r = PATH_JOIN(path, name);

	if (r == 0)
		r = each_mount(process, refuse_other, path);
	if (r < 0)
		return r;
	fd = walk(process, path);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0 || fstat(process, &owner) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_nlink != 1 || st.st_uid != owner.st_uid)
		return -EPERM;
	return reopen(fd, flags);
}

static int open_of(int process, int flags)
{
	char path[PATH_MAX];
	int r = procfs_variable(process, JOBFILE_VARIABLE, path, sizeof(path));

	if (r < 0)
		return r;
	if (path[0] != '/')
		return -EINVAL;
	return strncmp(path, own_fd, sizeof(own_fd) - 1) == 0
		       ? open_own_fd(process, path + sizeof(own_fd) - 1, flags)
		       : open_named(process, path, flags);
}

int jobfile_open(pid_t pid, uint64_t start_time, int flags, struct error *err)
{
	_cleanup_close_ int process = procfs_open(pid, start_time);
	int r = process < 0 ? process : open_of(process, flags);

	if (r < 0)
		return error_reason(err, REASON_CUDA_QUERY_FAILED, r,
				    "the checkpoint job file of process %d cannot be opened: %s", pid,
				    r == -EPERM ? "it is neither a memfd nor a plain file of the "
						  "process's own user, with one name, on tmpfs, "
						  "overlay, ext4, xfs or btrfs all the way: start "
						  "the job with such a one"
						: strerror(-r));
	return r;
}

/* --- into the image and back ---------------------------------------------------------------- */

struct files {
	struct {
		dev_t dev;
		ino_t ino;
	} seen[GPU_GROUP_MAX];
	unsigned int n;
	uint64_t bytes; /* of all, JOBFILE_MAX at most */
};

/* The number of the file among those seen, from 1; *ret_new: it is the first of its processes. */
static int number_of(int fd, struct files *files, bool *ret_new, uint64_t *ret_size)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	*ret_size = (uint64_t)st.st_size;
	*ret_new = false;
	for (unsigned int i = 0; i < files->n; i++)
		if (files->seen[i].dev == st.st_dev && files->seen[i].ino == st.st_ino)
			return (int)i + 1;
	files->seen[files->n].dev = st.st_dev;
	files->seen[files->n].ino = st.st_ino;
	*ret_new = true;
	return (int)++files->n;
}

/* May the process be passed over: is it gone? */
static bool gone(const struct gpu_member *m)
{
	_cleanup_close_ int process = procfs_open(m->pid, m->start_time);

	return process == -ESRCH || procfs_zombie(m->pid);
}

int jobfile_check(const struct gpu_group *g, struct error *err)
{
	struct files files = { .n = 0 };

	for (size_t i = 0; i < gpu_group_size(g); i++) {
		const struct gpu_member *m = gpu_group_member(g, i);
		_cleanup_close_ int fd = -1;
		uint64_t size;
		bool first;
		int r;

		if (m->gone || !m->job)
			continue;
		fd = jobfile_open(m->pid, m->start_time, O_RDWR, err);
		if (fd < 0 && gone(m))
			continue;
		if (fd < 0)
			return fd;
		r = number_of(fd, &files, &first, &size);
		if (r < 0)
			return error_sys(err, r, "the job file of process %d", m->pid);
		if (!first)
			continue;
		if (size > JOBFILE_MAX - files.bytes)
			return error_reason(err, REASON_CUDA_QUERY_FAILED, -EFBIG,
					    "the checkpoint job file of process %d is too large: all "
					    "of a container may have %zu MiB together",
					    m->pid, JOBFILE_MAX >> 20);
		files.bytes += size;
	}
	return 0;
}

static int write_block(int to, const uint8_t *p, size_t n, off_t at)
{
	while (n) {
		ssize_t done = pwrite(to, p, n, at);

		if (done <= 0)
			return done < 0 ? -errno : -EIO;
		p += done;
		at += done;
		n -= (size_t)done;
	}
	return 0;
}

/* They may grow while they are read. */
static int copy(int from, int to, struct files *files)
{
	_cleanup_free_ uint8_t *block = malloc(BLOCK);
	off_t at = 0;

	if (!block)
		return -ENOMEM;
	for (;;) {
		ssize_t n = pread(from, block, BLOCK, at);
		int r;

		if (n < 0)
			return -errno;
		if (n == 0)
			return ftruncate(to, at) < 0 ? -errno : 0;
		if ((size_t)n > JOBFILE_MAX - files->bytes)
			return -EFBIG;
		files->bytes += (size_t)n;
		r = write_block(to, block, (size_t)n, at);
		if (r < 0)
			return r;
		at += n;
	}
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

static int save_one(const struct gpu_member *m, const char *image_path, struct files *files,
		    struct error *err)
{
	_cleanup_close_ int live = jobfile_open(m->pid, m->start_time, O_RDONLY, err), image = -1;
	uint64_t size;
	bool first;
	int number, r = 0;

	if (live < 0)
		return live;
	number = number_of(live, files, &first, &size);
	if (number > 0 && first) {
		image = open_image(image_path, (unsigned int)number, O_CREAT | O_TRUNC | O_WRONLY);
		r = image < 0 ? image : copy(live, image, files);
	}
	if (number < 0 || r < 0)
		return error_reason(err, REASON_STORE_FAILED, number < 0 ? number : r,
				    "keep the checkpoint job file of process %d: %s", m->pid,
				    strerror(number < 0 ? -number : -r));
	return number;
}

int jobfile_save(struct gpu_group *g, const char *image_path, struct error *err)
{
	struct files files = { .n = 0 };

	for (size_t i = 0; i < gpu_group_size(g); i++) {
		const struct gpu_member *m = gpu_group_member(g, i);
		int r;

		if (m->gone || !m->job)
			continue;
		r = save_one(m, image_path, &files, err);
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

static int restore_one(const struct gpu_member *m, unsigned int number, const char *image_path,
		       struct files *files, struct error *err)
{
	_cleanup_close_ int live = jobfile_open(m->pid, m->start_time, O_RDWR, err), image = -1;
	uint64_t size;
	bool first;
	int r;

	if (live < 0) {
		if (err)
			err->reason = REASON_CUDA_RESTORE_FAILED;
		return live;
	}
	r = number_of(live, files, &first, &size);
	if (r < 0 || !first)
		return r < 0 ? error_sys(err, r, "the job file of process %d", m->pid) : 0;
	image = open_image(image_path, number, O_RDONLY);
	if (image < 0)
		return error_reason(err, REASON_IMAGE_CORRUPT, image,
				    "the checkpoint has no job file " JOBFILE_NAME, number);
	r = copy(image, live, files);
	if (r < 0)
		return error_reason(err, REASON_CUDA_RESTORE_FAILED, r,
				    "put the checkpoint job file of process %d back: %s", m->pid,
				    strerror(-r));
	return 0;
}

int jobfile_restore(const struct gpu_group *g, const struct metadata_gpu *gpu,
		    const char *image_path, struct error *err)
{
	struct files files = { .n = 0 };
	int r = 0;

	for (size_t i = 0; i < gpu->n_processes && r == 0 && files.n < GPU_GROUP_MAX; i++) {
		const struct metadata_process *p = &gpu->processes[i];
		const struct gpu_member *m = p->job ? find(g, p->ns_pid) : NULL;

		if (m)
			r = restore_one(m, (unsigned int)p->job, image_path, &files, err);
	}
	return r;
}
