/* SPDX-License-Identifier: Apache-2.0 */
#include "mnt/mnt.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/path.h"
#include "base/userns.h"
#include "mnt/helper.h"
#include "mnt/idmap.h"
#include "mnt/loopdev.h"
#include "mnt/lowerdirs.h"
#include "mnt/options.h"

#define HELPER_LIMIT (5 * NSEC_PER_SEC)

/* One mount under way. */
struct work {
	const struct mnt *m;
	const char *target; /* absolute, resolved */
	struct mnt_options o;
	struct buf data; /* for mount(2) */
	struct buf lower;
	char base[PATH_MAX]; /* what relative layers are relative to; "" = they are not */
	char temp[256];      /* where idmapped layers are mounted meanwhile; "" = nowhere */
	unsigned int stacked; /* mounts that lie on target because of us */
};

/*
 * mount(2) with another current folder. vfork() copies no page tables, however large we are, and
 * the child shares our memory but not our current folder: nothing of this is visible outside. All
 * signals are blocked around it, since no handler may run in the child while it borrows our
 * memory. (fsconfig(2) could name the layers one by one, but only recent kernels can, so this is
 * needed anyhow; and what mountinfo then shows is what it shows under containerd's own shim.)
 */
static __attribute__((noinline)) int mount_from(const char *dir, const char *source,
						const char *target, const char *type,
						unsigned long flags, const char *data)
{
	volatile int r = 0;
	sigset_t all, old;
	pid_t pid;

	sigfillset(&all);
	(void)sigprocmask(SIG_BLOCK, &all, &old);
	pid = vfork();
	if (pid == 0) {
		if (chdir(dir) < 0 || mount(source, target, type, flags, data) < 0)
			r = -errno;
		_exit(0);
	}
	if (pid < 0)
		r = -errno;
	else
		/* It has ended already: vfork() returns after that. */
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
	(void)sigprocmask(SIG_SETMASK, &old, NULL);
	return r;
}

/* Room for the data in mount(2): a page, less the NUL. */
static size_t data_max(void)
{
	return (size_t)sysconf(_SC_PAGESIZE) - 1;
}

/*
 * Writes the data of the mount. Layers are written absolute when that fits, else relative to
 * their common parent.
 */
static int write_data(struct work *w, struct error *err)
{
	const char *lowerdir = buf_len(&w->lower) ? buf_str(&w->lower) : w->o.lowerdir;
	_cleanup_buf_ struct buf shorter = BUF_NULL;
	struct lowerdirs *l;
	int r;

	r = mnt_options_data(&w->o, lowerdir, &w->data);
	if (r < 0)
		return error_sys(err, r, "mount options");
	if (buf_len(&w->data) <= data_max())
		return 0;
	if (strcmp(w->m->type, "overlay") != 0 || !lowerdir)
		return error_set(err, -E2BIG, "mount options of %zu bytes, at most %zu fit",
				 buf_len(&w->data), data_max());
	l = malloc(sizeof(*l));
	if (!l)
		return error_set(err, -ENOMEM, "mount options: out of memory");
	r = lowerdirs_parse(lowerdir, l);
	if (r == 0)
		r = lowerdirs_parent(l, w->base, sizeof(w->base));
	if (r == 0)
		r = lowerdirs_write(l, strlen(w->base), "", &shorter);
	free(l);
	if (r == 0) {
		buf_clear(&w->data);
		r = mnt_options_data(&w->o, buf_str(&shorter), &w->data);
	}
	if (r == 0 && buf_len(&w->data) > data_max())
		r = -E2BIG;
	if (r == -ENOENT) /* no common parent */
		r = -E2BIG;
	if (r < 0)
		return error_sys(err, r, "overlay: the layers' names do not fit into a page, and "
					 "cannot be written shorter");
	return 0;
}

static int make_temp(struct work *w, struct error *err)
{
	const char *tmp = getenv("TMPDIR");
	int r = PATH_PRINTF(w->temp, "%s/ovl-idmapped.XXXXXX", tmp ? tmp : "/tmp");

	if (r == 0 && !mkdtemp(w->temp))
		r = -errno;
	if (r == 0)
		return 0;
	w->temp[0] = 0;
	return error_sys(err, r, "make a folder for idmapped layers");
}

/*
 * An overlay is idmapped through its layers: their common parent is mounted a second time, with
 * mapped owners and read-only, for as long as it takes to mount the overlay, which keeps private
 * clones of what it needs.
 */
static int map_layers(struct work *w, int userns_fd, struct error *err)
{
	struct lowerdirs *l = NULL;
	char parent[PATH_MAX];
	int r;

	if (!w->o.lowerdir)
		return error_set(err, -EINVAL, "idmapped overlay without lowerdir");
	l = malloc(sizeof(*l));
	if (!l)
		return error_set(err, -ENOMEM, "idmapped overlay: out of memory");
	r = lowerdirs_parse(w->o.lowerdir, l);
	if (r == 0)
		r = lowerdirs_parent(l, parent, sizeof(parent));
	if (r < 0)
		r = error_sys(err, r, "idmapped overlay: common parent of %.200s", w->o.lowerdir);
	if (r == 0)
		r = make_temp(w, err);
	if (r == 0)
		r = idmap_clone(parent, w->temp, userns_fd, true, err);
	if (r == 0 && lowerdirs_write(l, strlen(parent) - 1, w->temp, &w->lower) < 0)
		r = error_set(err, -ENOMEM, "idmapped overlay: out of memory");
	free(l);
	return r;
}

static void drop_layers(struct work *w)
{
	if (!w->temp[0])
		return;
	/* Detached: an open file of another process must not keep it here. */
	(void)umount2(w->temp, MNT_DETACH | UMOUNT_NOFOLLOW);
	(void)rmdir(w->temp);
	w->temp[0] = 0;
}

static int mount_data(struct work *w, struct error *err)
{
	_cleanup_close_ int loop_fd = -1;
	const char *source = w->m->source;
	struct loopdev dev = { .readonly = (w->o.flags & MS_RDONLY) != 0,
			       .direct_io = w->o.direct_io };
	int r;

	/* A remount that changes no data has its one call further down (moby issue 34077). */
	if ((w->o.flags & MS_REMOUNT) && buf_len(&w->data) == 0)
		return 0;
	if (w->o.loop) {
		loop_fd = loopdev_attach(&dev, source, err);
		if (loop_fd < 0)
			return error_wrap(err, loop_fd, "mount %s on %s", source, w->target);
		source = dev.path;
	}
	if (w->base[0])
		r = mount_from(w->base, source, w->target, w->m->type, w->o.flags,
			       buf_str(&w->data));
	else
		r = mount(source, w->target, w->m->type, w->o.flags, buf_str(&w->data)) < 0 ?
			    -errno : 0;
	if (r < 0) {
		(void)error_sys(err, r, "mount %s on %s", source, w->target);
		return error_wrap(err, r, "type %s, flags 0x%lx, options %.500s", w->m->type,
				  w->o.flags, buf_str(&w->data));
	}
	if (!(w->o.flags & MS_REMOUNT))
		w->stacked++;
	return 0;
}

/*
 * In a user namespace the flags that a mount has from outside are locked, and a remount that
 * leaves one out is refused (moby, daemon/oci_linux.go; fs/namespace.c, mnt_flags locks).
 */
static unsigned long locked_flags(const char *target)
{
	static const struct {
		unsigned long st, ms;
	} flags[] = { { ST_RDONLY, MS_RDONLY },	    { ST_NODEV, MS_NODEV },
		      { ST_NOEXEC, MS_NOEXEC },	    { ST_NOSUID, MS_NOSUID },
		      { ST_NOATIME, MS_NOATIME },   { ST_RELATIME, MS_RELATIME },
		      { ST_NODIRATIME, MS_NODIRATIME } };
	struct statvfs st;
	unsigned long found = 0;

	if (!userns_inside("/proc") || statvfs(target, &st) < 0)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (st.f_flag & flags[i].st)
			found |= flags[i].ms;
	return found;
}

/* What mount(2) does in calls of their own. */
static int adjust(struct work *w, struct error *err)
{
	const unsigned long bind_ro = MS_BIND | MS_RDONLY;

	if (w->o.propagation && mount("", w->target, "", w->o.propagation, NULL) < 0)
		return error_sys(err, errno, "set the propagation of %s", w->target);
	/* A bind takes no flags when it is made. */
	if ((w->o.flags & bind_ro) == bind_ro &&
	    mount("", w->target, "", w->o.flags | locked_flags(w->target) | MS_REMOUNT, NULL) < 0)
		return error_sys(err, errno, "make %s read-only", w->target);
	return 0;
}

static int mount_parsed(struct work *w, struct error *err)
{
	bool overlay = strcmp(w->m->type, "overlay") == 0;
	_cleanup_close_ int userns_fd = -1;
	int r = 0;

	if (w->o.uidmap) {
		userns_fd = idmap_userns(w->o.uidmap, w->o.gidmap, err);
		if (userns_fd < 0)
			return userns_fd;
	}
	if (w->o.uidmap && overlay)
		r = map_layers(w, userns_fd, err);
	if (r == 0)
		r = write_data(w, err);
	if (r == 0)
		r = mount_data(w, err);
	drop_layers(w);
	if (r == 0)
		r = adjust(w, err);
	if (r == 0 && w->o.uidmap && !overlay) {
		r = idmap_clone(w->target, w->target, userns_fd, false, err);
		if (r == 0)
			w->stacked++;
	}
	return r;
}

/* "fuse3.fuse-overlayfs" is for "mount.fuse3 SOURCE TARGET -o OPTION... -t fuse-overlayfs". */
static int mount_fuse(struct work *w, const char *helper, const char *type, struct error *err)
{
	size_t n = 0;
	const char **argv;
	int r;

	if (w->m->n_options > MNT_OPTIONS_MAX)
		return error_set(err, -E2BIG, "%zu mount options", w->m->n_options);
	argv = calloc(2 * w->m->n_options + 6, sizeof(*argv));
	if (!argv)
		return error_set(err, -ENOMEM, "start %s: out of memory", helper);
	argv[n++] = helper;
	argv[n++] = w->m->source;
	argv[n++] = w->target;
	for (size_t i = 0; i < w->m->n_options; i++) {
		argv[n++] = "-o";
		argv[n++] = w->m->options[i];
	}
	argv[n++] = "-t";
	argv[n++] = type;
	r = helper_run(argv, HELPER_LIMIT, err);
	free(argv);
	if (r < 0)
		return error_wrap(err, r, "mount %s on %s", w->m->source, w->target);
	w->stacked++;
	return 0;
}

static int mount_one(struct work *w, struct error *err)
{
	int r;

	if (strncmp(w->m->type, "fuse.", 5) == 0)
		return mount_fuse(w, "mount.fuse", w->m->type + 5, err);
	if (strncmp(w->m->type, "fuse3.", 6) == 0)
		return mount_fuse(w, "mount.fuse3", w->m->type + 6, err);
	r = mnt_options_parse(w->m->options, w->m->n_options, &w->o, err);
	if (r == 0)
		r = mount_parsed(w, err);
	mnt_options_done(&w->o);
	buf_done(&w->data);
	buf_done(&w->lower);
	return r;
}

/* The target as the path that the kernel knows, symbolic links resolved within root. */
static int resolve(const char *root, const char *target, char *buf, size_t size, struct error *err)
{
	struct open_how how = { .flags = O_PATH | O_CLOEXEC,
				.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
	_cleanup_close_ int at = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_close_ int fd = -1;
	char link[64];
	ssize_t n;

	if (at < 0)
		return error_sys(err, errno, "open %s", root);
	if (!target || !target[0])
		target = ".";
	fd = (int)syscall(SYS_openat2, at, target, &how, sizeof(how));
	if (fd < 0)
		return error_sys(err, errno, "mount target %s in %s", target, root);
	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, buf, size - 1);
	if (n < 0 || (size_t)n >= size - 1 || buf[0] != '/')
		return error_sys(err, n < 0 ? errno : ENAMETOOLONG, "path of %s in %s", target,
				 root);
	buf[n] = 0;
	return 0;
}

/* What a mount has put where. */
struct made {
	char *target;
	unsigned int stacked;
};

static void undo(const struct made *made, size_t n)
{
	/* What was mounted last lies on top: of its own target, and perhaps of one before. */
	while (n-- > 0)
		for (unsigned int i = 0; i < made[n].stacked; i++)
			if (umount2(made[n].target, UMOUNT_NOFOLLOW) < 0)
				/* Nobody had a reason to be in there yet; whoever is keeps it alone. */
				(void)umount2(made[n].target, MNT_DETACH | UMOUNT_NOFOLLOW);
}

static int mount_into(const struct mnt *m, const char *root, struct made *made, struct error *err)
{
	struct work w = { .m = m };
	char target[PATH_MAX];
	int r = resolve(root, m->target, target, sizeof(target), err);

	if (r < 0)
		return r;
	made->target = strdup(target);
	if (!made->target)
		return error_set(err, -ENOMEM, "mount: out of memory");
	w.target = made->target;
	r = mount_one(&w, err);
	made->stacked = w.stacked; /* also of a failed one, half done */
	return r;
}

int mnt_all(const struct mnt *mounts, size_t n, const char *root, struct error *err)
{
	struct made *made;
	int r = 0;

	if (n > MNT_MAX)
		return error_set(err, -E2BIG, "%zu mounts, at most %d are allowed", n, MNT_MAX);
	if (root[0] != '/')
		return error_set(err, -EINVAL, "mount below %s: not an absolute path", root);
	made = calloc(n + 1, sizeof(*made));
	if (!made)
		return error_set(err, -ENOMEM, "mount: out of memory");
	for (size_t i = 0; i < n && r == 0; i++)
		r = mount_into(&mounts[i], root, &made[i], err);
	if (r < 0)
		undo(made, n);
	for (size_t i = 0; i < n; i++)
		free(made[i].target);
	free(made);
	return r;
}
