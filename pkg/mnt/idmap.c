/* SPDX-License-Identifier: Apache-2.0 */
#include "mnt/idmap.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/num.h"

static int parse_number(struct bytes field, uint64_t *ret)
{
	return num_parse_n((const char *)field.p, field.n, UINT32_MAX, ret);
}

static int parse_line(struct bytes line, struct buf *out)
{
	uint64_t container, host, size;
	struct bytes first, second;
	int r;

	if (bytes_until(&line, ':', &first) || bytes_until(&line, ':', &second))
		return -EINVAL;
	r = parse_number(first, &container);
	if (r == 0)
		r = parse_number(second, &host);
	if (r == 0)
		r = parse_number(line, &size);
	if (r < 0)
		return r;
	return buf_printf(out, "%llu %llu %llu\n", (unsigned long long)container,
			  (unsigned long long)host, (unsigned long long)size);
}

int idmap_parse(const char *text, struct buf *out)
{
	struct bytes rest = bytes_of(text, strlen(text)), line;
	int r = 0;

	for (int n = 0; r == 0; n++) {
		bool last = bytes_until(&rest, ',', &line) != 0;

		if (n == IDMAP_LINES_MAX)
			return -EINVAL;
		r = parse_line(last ? rest : line, out);
		if (last)
			break;
	}
	return r;
}

static int write_map(pid_t pid, const char *file, const char *map)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	return file_put(AT_FDCWD, path, map); /* the kernel takes one write() */
}

/* A process of its own user namespace that does nothing. No exec, so nothing can fail in it. */
static pid_t start_holder(void)
{
	pid_t parent = getpid();
	long pid = syscall(SYS_clone, (unsigned long)(CLONE_NEWUSER | SIGCHLD), NULL, NULL, NULL,
			   NULL);

	if (pid != 0)
		return pid < 0 ? -errno : (pid_t)pid;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (getppid() == parent) /* else it died before that took effect */
		(void)pause();
	_exit(0);
}

int idmap_userns(const char *uidmap, const char *gidmap, struct error *err)
{
	_cleanup_buf_ struct buf uids = BUF_LIMIT(16384), gids = BUF_LIMIT(16384);
	char path[64];
	pid_t pid;
	int r, fd;

	r = idmap_parse(uidmap, &uids);
	if (r < 0)
		return error_sys(err, r, "mount option uidmap=%s", uidmap);
	r = idmap_parse(gidmap, &gids);
	if (r < 0)
		return error_sys(err, r, "mount option gidmap=%s", gidmap);
	pid = start_holder();
	if (pid < 0)
		return error_sys(err, pid, "make a user namespace for an idmapped mount");
	r = write_map(pid, "uid_map", buf_str(&uids));
	if (r == 0)
		r = write_map(pid, "gid_map", buf_str(&gids));
	(void)snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
	fd = r < 0 ? r : open(path, O_RDONLY | O_CLOEXEC);
	if (r == 0 && fd < 0)
		fd = -errno;
	(void)kill(pid, SIGKILL);
	/* It runs nothing and holds nothing: this is short. */
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	if (fd < 0)
		return error_sys(err, fd, "map the ids of a user namespace (uidmap=%s, gidmap=%s)",
				 uidmap, gidmap);
	return fd;
}

int idmap_clone(const char *source, const char *target, int userns_fd, bool readonly,
		struct error *err)
{
	struct mount_attr attr = {
		.attr_set = MOUNT_ATTR_IDMAP | (readonly ? MOUNT_ATTR_RDONLY : 0),
		.propagation = MS_PRIVATE,
		.userns_fd = (__u64)userns_fd,
	};
	_cleanup_close_ int tree = open_tree(AT_FDCWD, source,
					     OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);

	if (tree < 0)
		return error_sys(err, errno, "clone the mounts of %s", source);
	if (mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof(attr)) < 0)
		return error_sys(err, errno, "map the ids of %s", source);
	if (move_mount(tree, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return error_sys(err, errno, "mount %s, idmapped, on %s", source, target);
	return 0;
}
