/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Real mounts, in a mount namespace of the test's own: nothing of it is visible outside, and all
 * is gone when the test ends, however it ends. Needs root; skipped without.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/loop.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/mountinfo.h"
#include "base/path.h"
#include "mnt/helper.h"
#include "mnt/loopdev.h"
#include "mnt/mnt.h"
#include "tests/cmocka.h"

static char top[] = "/tmp/test-mnt.XXXXXX"; /* a tmpfs of the test's own */
static struct arena names = ARENA_LIMIT(8 << 20);

#define OPTIONS(...)                                                                               \
	.options = (const char *const[]){ __VA_ARGS__ },                                           \
	.n_options = sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *)

/* Lives until the test ends. */
static const char *in_top(const char *name)
{
	const char *path = arena_printf(&names, "%s/%s", top, name);

	assert_non_null(path);
	return path;
}

static const char *folder(const char *name)
{
	const char *path = in_top(name);

	assert_int_equal(path_mkdirs(path, 0755), 0);
	return path;
}

static void write_file(const char *name, const char *text)
{
	assert_int_equal(file_write(AT_FDCWD, in_top(name), text, strlen(text), 0644, FILE_PLAIN),
			 0);
}

static void file_holds(const char *name, const char *want)
{
	char text[64] = "";

	assert_int_equal(file_read_line(AT_FDCWD, in_top(name), text, sizeof(text)), 0);
	assert_string_equal(text, want);
}

static int count_one(void *arg, const struct mountinfo *m)
{
	char path[PATH_MAX];
	int *n = arg;

	assert_int_equal(mountinfo_unescape(m->point, path, sizeof(path)), 0);
	if (strncmp(path, top, strlen(top)) == 0 && path[strlen(top)] == '/')
		++*n;
	return 0;
}

/* Mounts below top. */
static int mounts(void)
{
	int n = 0;

	assert_int_equal(mountinfo_each("/proc/self/mountinfo", count_one, &n), 0);
	return n;
}

static void do_all(const struct mnt *m, size_t n, const char *root)
{
	struct error err = ERROR_NULL;

	if (mnt_all(m, n, root, &err) < 0)
		fail_msg("%s", error_text(&err));
	assert_int_equal(err.code, 0);
}

static void undo_all(const char *path)
{
	struct error err = ERROR_NULL;

	if (mnt_unmount_all(path, 0, &err) < 0)
		fail_msg("%s", error_text(&err));
	assert_int_equal(err.code, 0); /* untouched on success */
}

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(top))
		return -1;
	if (mount("test", top, "tmpfs", 0, "mode=755") < 0)
		return -1;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return umount2(top, MNT_DETACH) < 0 || rmdir(top) < 0;
}

static int clean(void **state)
{
	(void)state;
	arena_done(&names);
	return mounts() == 0 ? 0 : -1;
}

static void bind_and_tmpfs(void **state)
{
	const struct mnt m[] = {
		{ .type = "bind", .source = folder("b/src"), OPTIONS("rbind", "rw") },
		{ .type = "tmpfs", .source = "tmpfs", .target = "sub", OPTIONS("size=64k") },
	};
	const char *root = folder("b/root");

	(void)state;
	(void)folder("b/src/sub");
	write_file("b/src/file", "here");
	do_all(m, 2, root);
	assert_int_equal(mounts(), 2);
	file_holds("b/root/file", "here");
	write_file("b/root/sub/on-tmpfs", "x");
	assert_int_equal(access(in_top("b/src/sub/on-tmpfs"), F_OK), -1);
	undo_all(root);
	assert_int_equal(mounts(), 0);
	do_all(m, 0, root);
	assert_int_equal(mounts(), 0);
}

static void bind_read_only(void **state)
{
	const struct mnt m = { .type = "bind", .source = folder("ro/src"),
			       OPTIONS("bind", "ro", "nosuid") };
	const char *root = folder("ro/root");

	(void)state;
	do_all(&m, 1, root);
	assert_int_equal(open(in_top("ro/root/new"), O_CREAT | O_WRONLY, 0600), -1);
	assert_int_equal(errno, EROFS);
	write_file("ro/src/new", "the source stays writable");
	undo_all(root);
}

/* All or nothing, whichever mount fails, and also when one fails half way. */
static void undone(void **state)
{
	const char *root = folder("u/root");
	struct mnt m[] = {
		{ .type = "tmpfs", .source = "one" },
		{ .type = "bind", .source = folder("u/src"), OPTIONS("bind") },
		{ .type = "tmpfs", .source = "two", .target = "sub" },
		{ .type = "tmpfs", .source = "three", OPTIONS("no-such-option") },
	};
	struct error err = ERROR_NULL;

	(void)state;
	(void)folder("u/src/sub");
	assert_int_equal(mnt_all(m, 4, root, &err), -EINVAL);
	assert_non_null(strstr(err.text, "no-such-option"));
	assert_int_equal(mounts(), 0);
	m[3] = (struct mnt){ .type = "tmpfs", .source = "t", .target = "missing" };
	assert_int_equal(mnt_all(m, 4, root, &err), -ENOENT);
	assert_int_equal(mounts(), 0);
	/* The mount itself works, setting its owners does not: tmpfs lies there by then. */
	m[3] = (struct mnt){ .type = "proc", .source = "p",
			     OPTIONS("uidmap=0:1000:1", "gidmap=0:1000:1") };
	assert_true(mnt_all(m, 4, root, &err) < 0);
	assert_int_equal(mounts(), 0);
	m[3] = (struct mnt){ .type = "tmpfs", .source = "x", OPTIONS("X-containerd.mkfs") };
	assert_int_equal(mnt_all(m, 4, root, &err), -EINVAL);
	assert_int_equal(mounts(), 0);
	assert_int_equal(mnt_all(m, MNT_MAX + 1, root, &err), -E2BIG);
	assert_int_equal(mnt_all(m, 1, "relative", &err), -EINVAL);
	assert_int_equal(mnt_all(m, 1, in_top("none"), &err), -ENOENT);
	assert_int_equal(mnt_all(m, 4, root, NULL), -EINVAL);
	assert_int_equal(mounts(), 0);
}

/* Somebody looks into a mount that is to be undone: it goes all the same. */
static void undone_while_busy(void **state)
{
	const struct mnt m[] = {
		{ .type = "bind", .source = folder("ub/src"), OPTIONS("bind") },
		{ .type = "fuse3.test", .source = "s" }, /* opens the mount, then fails */
	};
	_cleanup_free_ char *path = strdup(getenv("PATH"));
	char pid[32];

	(void)state;
	(void)folder("ub/bin");
	write_file("ub/bin/mount.fuse3", "#!/bin/sh\nsleep 600 <$2/file >/dev/null 2>&1 &\n"
					 "echo $! >$2/pid\nexit 1\n");
	write_file("ub/src/file", "x");
	assert_int_equal(chmod(in_top("ub/bin/mount.fuse3"), 0755), 0);
	(void)setenv("PATH", in_top("ub/bin:/usr/bin:/bin"), 1);
	assert_int_equal(mnt_all(m, 2, folder("ub/root"), NULL), -EIO);
	(void)setenv("PATH", path, 1);
	assert_int_equal(mounts(), 0);
	assert_int_equal(file_read_line(AT_FDCWD, in_top("ub/src/pid"), pid, sizeof(pid)), 0);
	assert_true(atoi(pid) > 1);
	(void)kill(atoi(pid), SIGKILL);
}

/* A target is resolved inside of the root, whatever the image has put in the way. */
static void targets_stay_inside(void **state)
{
	const char *root = folder("t/root");
	struct mnt m = { .type = "tmpfs", .source = "t" };
	static const char *const ways[] = { "link", "rel", "/link", "../../outside", "up",
					    "./outside//" };

	(void)state;
	(void)folder("t/outside");
	(void)folder("t/root/outside");
	assert_int_equal(symlink("/outside", in_top("t/root/link")), 0);
	assert_int_equal(symlink("outside", in_top("t/root/rel")), 0);
	assert_int_equal(symlink("../../../../../outside", in_top("t/root/up")), 0);
	assert_int_equal(symlink("/proc/self/root/tmp", in_top("t/root/magic")), 0);
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		m.target = ways[i];
		if (strcmp(ways[i], "../../outside") == 0)
			(void)folder("outside");
		do_all(&m, 1, root);
		assert_int_equal(mounts(), 1);
		write_file("t/root/outside/mark", "inside");
		assert_int_equal(access(in_top("t/outside/mark"), F_OK), -1);
		undo_all(in_top("t/root/outside"));
		assert_int_equal(access(in_top("t/root/outside/mark"), F_OK), -1);
	}
	m.target = "magic";
	assert_true(mnt_all(&m, 1, root, NULL) < 0);
	assert_int_equal(mounts(), 0);
}

static int shared_one(void *arg, const struct mountinfo *m)
{
	(void)arg;
	/* The view of the type field lies behind the optional fields of the same line. */
	return m->point.n == strlen(in_top("p/root")) &&
	       memcmp(m->point.p, in_top("p/root"), m->point.n) == 0 &&
	       memmem(m->point.p, (size_t)(m->type.p - m->point.p), " shared:", 8);
}

static void propagation(void **state)
{
	const char *root = folder("p/root");
	struct mnt m = { .type = "bind", .source = folder("p/src"), OPTIONS("rbind", "rshared") };

	(void)state;
	do_all(&m, 1, root);
	assert_int_equal(mountinfo_each("/proc/self/mountinfo", shared_one, NULL), 1);
	undo_all(root);
	m = (struct mnt){ .type = "bind", .source = m.source, OPTIONS("rbind", "rprivate", "ro") };
	do_all(&m, 1, root);
	assert_int_equal(mountinfo_each("/proc/self/mountinfo", shared_one, NULL), 0);
	assert_int_equal(open(in_top("p/root/new"), O_CREAT | O_WRONLY, 0600), -1);
	undo_all(root);
}

static void remount(void **state)
{
	const char *root = folder("rm/root");
	const struct mnt m[] = {
		{ .type = "tmpfs", .source = "t", OPTIONS("size=64k") },
		{ .type = "tmpfs", .source = "t", OPTIONS("remount", "size=128k", "ro") },
	};

	(void)state;
	do_all(m, 2, root);
	assert_int_equal(mounts(), 1);
	assert_int_equal(open(in_top("rm/root/new"), O_CREAT | O_WRONLY, 0600), -1);
	undo_all(root);
}

/*
 * An overlay of n layers under names as long as containerd's. Every layer has a file of its own,
 * and all have one of the same name: the first layer's must show.
 */
static void overlay_of(unsigned int n, int want, size_t longer)
{
	static const char store[] = "var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/"
				    "snapshots";
	_cleanup_buf_ struct buf lower = BUF_NULL, upper = BUF_NULL, work = BUF_NULL;
	const char *root = folder("o/root");
	char before[PATH_MAX], after[PATH_MAX], name[PATH_MAX];
	struct error err = ERROR_NULL;
	struct mnt m = { .type = "overlay", .source = "overlay" };
	const char *options[3];
	int r;

	assert_int_equal(buf_append_str(&lower, "lowerdir="), 0);
	for (unsigned int i = n; i-- > 0;) {
		assert_int_equal(PATH_PRINTF(name, "%s/%0*u/fs", store, (int)longer, 1000 + i), 0);
		(void)folder(name);
		assert_int_equal(buf_printf(&lower, "%s%s", in_top(name), i ? ":" : ""), 0);
		assert_int_equal(PATH_PRINTF(after, "%s/own-%u", name, i), 0);
		write_file(after, "x");
		assert_int_equal(PATH_PRINTF(before, "%u", i), 0);
		assert_int_equal(PATH_PRINTF(after, "%s/same", name), 0);
		write_file(after, before);
	}
	assert_int_equal(buf_printf(&upper, "upperdir=%s", folder("o/store/upper")), 0);
	assert_int_equal(buf_printf(&work, "workdir=%s", folder("o/store/work")), 0);
	options[0] = buf_str(&work);
	options[1] = buf_str(&upper);
	options[2] = buf_str(&lower);
	m.options = options;
	m.n_options = 3;
	assert_non_null(getcwd(before, sizeof(before)));
	r = mnt_all(&m, 1, root, &err);
	assert_non_null(getcwd(after, sizeof(after)));
	assert_string_equal(before, after);
	if (r != want)
		fail_msg("%u layers: %d (%s) instead of %d", n, r, err.text, want);
	assert_int_equal(mounts(), want == 0);
	if (want < 0)
		return;
	for (unsigned int i = 0; i < n; i++) {
		assert_int_equal(PATH_PRINTF(name, "o/root/own-%u", i), 0);
		file_holds(name, "x");
	}
	assert_int_equal(PATH_PRINTF(name, "%u", n - 1), 0);
	file_holds("o/root/same", name);
	write_file("o/root/new", "x");
	undo_all(root);
	file_holds("o/store/upper/new", "x");
}

static void overlay(void **state)
{
	(void)state;
	overlay_of(1, 0, 1);
	overlay_of(3, 0, 1);
}

/* From where the options fill a page: relative names. */
static void overlay_of_many_layers(void **state)
{
	(void)state;
	for (unsigned int n = 30; n <= 60; n += 3) /* across the limit, wherever it is */
		overlay_of(n, 0, 1);
	overlay_of(130, 0, 1);
	overlay_of(400, 0, 1);
}

static void overlay_of_too_many_layers(void **state)
{
	char longer[5000];
	struct mnt too_long = { .type = "tmpfs", .source = "t" };
	const char *option = longer;
	struct error err = ERROR_NULL;

	(void)state;
	overlay_of(30, -E2BIG, 150); /* relative names do not help */
	memset(longer, 'x', sizeof(longer));
	longer[sizeof(longer) - 1] = 0;
	too_long.options = &option;
	too_long.n_options = 1;
	assert_int_equal(mnt_all(&too_long, 1, folder("root"), &err), -E2BIG);
	longer[4096] = 0; /* one more than the kernel would see: cut without a word */
	assert_int_equal(mnt_all(&too_long, 1, folder("root"), &err), -E2BIG);
}

static bool make_image(void)
{
	_cleanup_free_ char *command = NULL;

	(void)folder("l");
	assert_true(asprintf(&command,
			     "truncate -s 4M %s && mke2fs -q -t ext4 -O ^has_journal %s "
			     "2>/dev/null", in_top("l/image"), in_top("l/image")) > 0);
	return system(command) == 0;
}

static int loop_source(void *arg, const struct mountinfo *m)
{
	if (m->source.n < 32 && m->source.n > 9 && memcmp(m->source.p, "/dev/loop", 9) == 0 &&
	    m->point.n == strlen(in_top("l/root")) &&
	    memcmp(m->point.p, in_top("l/root"), m->point.n) == 0) {
		memcpy(arg, m->source.p, m->source.n);
		return 1;
	}
	return 0;
}

/* Is the device still bound to our image? */
static bool loop_bound(const char *dev)
{
	char path[128], file[PATH_MAX] = "";

	assert_int_equal(PATH_PRINTF(path, "/sys/block/%s/loop/backing_file", dev + 5), 0);
	return file_read_line(AT_FDCWD, path, file, sizeof(file)) == 0 &&
	       strcmp(file, in_top("l/image")) == 0;
}

static void loop_mount(const char *mode)
{
	const char *root = folder("l/root");
	struct mnt m = { .type = "ext4", .source = in_top("l/image"),
			 OPTIONS("loop", mode, "direct-io") };
	char dev[32] = "";

	do_all(&m, 1, root);
	assert_int_equal(mountinfo_each("/proc/self/mountinfo", loop_source, dev), 1);
	assert_true(loop_bound(dev));
	if (strcmp(mode, "ro") == 0) {
		assert_int_equal(open(in_top("l/root/new"), O_CREAT | O_WRONLY, 0600), -1);
		assert_int_equal(errno, EROFS);
		file_holds("l/root/file", "kept");
	} else {
		write_file("l/root/file", "kept");
	}
	undo_all(root);
	/* The device frees itself, a moment later. */
	for (int i = 0; loop_bound(dev) && i < 500; i++)
		(void)usleep(10000);
	assert_false(loop_bound(dev));
}

static void loop_device(void **state)
{
	struct mnt bad = { .type = "xfs", .source = in_top("l/image"), OPTIONS("loop", "ro") };
	struct mnt none = { .type = "ext4", .source = in_top("l/none"), OPTIONS("loop") };
	struct error err = ERROR_NULL;

	(void)state;
	if (!make_image() || access("/dev/loop-control", R_OK) < 0)
		skip();
	loop_mount("rw");
	loop_mount("ro");
	assert_true(mnt_all(&bad, 1, folder("l/root"), &err) < 0);
	assert_int_equal(mnt_all(&none, 1, folder("l/root"), &err), -ENOENT);
	assert_non_null(strstr(err.text, "l/none"));
	assert_int_equal(mounts(), 0);
}

/* From here on ioctl(LOOP_CONFIGURE) fails as it does before Linux 5.8. */
static void forget_loop_configure(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, LOOP_CONFIGURE, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { .len = ARRAY_SIZE(code), .filter = code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0)
		_exit(77);
}

static void loop_device_of_old(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	if (!make_image() || access("/dev/loop-control", R_OK) < 0)
		skip();
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct loopdev dev = { .direct_io = true };
		struct error err = ERROR_NULL;
		int fd;

		forget_loop_configure();
		fd = loopdev_attach(&dev, in_top("l/image"), &err);
		if (fd < 0)
			(void)fprintf(stderr, "%s\n", err.text);
		_exit(fd < 0 || !loop_bound(dev.path));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void owner_is(const char *name, unsigned int uid, unsigned int gid)
{
	struct stat st;

	assert_int_equal(stat(in_top(name), &st), 0);
	assert_int_equal(st.st_uid, uid);
	assert_int_equal(st.st_gid, gid);
}

static void idmapped(void **state)
{
	const char *root = folder("i/root");
	const struct mnt m = { .type = "bind", .source = folder("i/src"),
			       OPTIONS("bind", "uidmap=0:100000:65536", "gidmap=0:200000:65536") };
	const struct mnt ro = { .type = "bind", .source = m.source,
				OPTIONS("bind", "ro", "uidmap=0:100000:65536",
					"gidmap=0:200000:65536") };
	struct error err = ERROR_NULL;

	(void)state;
	write_file("i/src/file", "x");
	assert_int_equal(chown(in_top("i/src/file"), 5, 6), 0);
	if (mnt_all(&m, 1, root, &err) < 0) {
		print_message("%s\n", err.text);
		skip();
	}
	owner_is("i/root/file", 100005, 200006);
	owner_is("i/src/file", 5, 6);
	undo_all(root);
	assert_int_equal(mounts(), 0);
	do_all(&ro, 1, root);
	owner_is("i/root/file", 100005, 200006);
	assert_int_equal(open(in_top("i/root/new"), O_CREAT | O_WRONLY, 0600), -1);
	undo_all(root);
}

static void idmapped_overlay(void **state)
{
	_cleanup_free_ char *lower = NULL, *upper = NULL, *work = NULL;
	const char *root = folder("io/root"), *options[5];
	struct mnt m = { .type = "overlay", .source = "overlay", .options = options,
			 .n_options = 5 };
	struct error err = ERROR_NULL;

	(void)state;
	(void)folder("io/s/1/fs");
	(void)folder("io/s/2/fs");
	write_file("io/s/1/fs/low", "1");
	write_file("io/s/2/fs/high", "2");
	assert_int_equal(chown(in_top("io/s/1/fs/low"), 7, 8), 0);
	assert_true(asprintf(&lower, "lowerdir=%s:%s", in_top("io/s/2/fs"), in_top("io/s/1/fs")) >
		    0);
	assert_true(asprintf(&upper, "upperdir=%s", folder("io/s/3/fs")) > 0);
	assert_true(asprintf(&work, "workdir=%s", folder("io/s/3/work")) > 0);
	options[0] = lower;
	options[1] = upper;
	options[2] = work;
	options[3] = "uidmap=0:100000:65536";
	options[4] = "gidmap=0:200000:65536";
	(void)setenv("TMPDIR", folder("io/tmp"), 1);
	if (mnt_all(&m, 1, root, &err) < 0) {
		print_message("%s\n", err.text);
		skip();
	}
	assert_int_equal(mounts(), 1); /* that of the layers is gone, */
	assert_int_equal(rmdir(in_top("io/tmp")), 0); /* and its folder */
	(void)unsetenv("TMPDIR");
	owner_is("io/root/low", 100007, 200008);
	owner_is("io/root/high", 100000, 200000);
	owner_is("io/s/1/fs/low", 7, 8);
	undo_all(root);
	/* A mapping for which there is no folder, or no parent. */
	(void)setenv("TMPDIR", in_top("io/none"), 1);
	assert_int_equal(mnt_all(&m, 1, root, &err), -ENOENT);
	(void)unsetenv("TMPDIR");
	options[0] = "lowerdir=/";
	assert_true(mnt_all(&m, 1, root, &err) < 0);
	assert_int_equal(mounts(), 0);
}

static void fuse_helper(void **state)
{
	const char *root = folder("f/root");
	_cleanup_free_ char *path = strdup(getenv("PATH")), *want = NULL;
	const struct mnt m = { .type = "fuse3.fuse-overlayfs", .source = "overlay",
			       OPTIONS("lowerdir=/a:/b", "ro") };
	const struct mnt old = { .type = "fuse.sshfs", .source = "host:/" };
	char argv[512];
	struct error err = ERROR_NULL;

	(void)state;
	(void)folder("f/bin");
	write_file("f/bin/mount.fuse3", "#!/bin/sh\necho \"$@\" >${0%/*}/argv\n"
					"exec mount -t tmpfs fake \"$2\"\n");
	write_file("f/bin/mount.fuse", "#!/bin/sh\necho no such host; echo more >&2; exit 32\n");
	assert_int_equal(chmod(in_top("f/bin/mount.fuse3"), 0755), 0);
	assert_int_equal(chmod(in_top("f/bin/mount.fuse"), 0755), 0);
	(void)setenv("PATH", in_top("f/bin:/usr/bin:/bin:/sbin"), 1);
	do_all(&m, 1, root);
	assert_int_equal(mounts(), 1);
	assert_true(asprintf(&want, "overlay %s -o lowerdir=/a:/b -o ro -t fuse-overlayfs",
			     root) > 0);
	assert_int_equal(file_read_line(AT_FDCWD, in_top("f/bin/argv"), argv, sizeof(argv)), 0);
	assert_string_equal(argv, want);
	undo_all(root);
	assert_int_equal(mnt_all(&old, 1, root, &err), -EIO);
	assert_non_null(strstr(err.text, "mount.fuse failed with status 32: no such host"));
	assert_null(strchr(err.text, '\n'));
	(void)setenv("PATH", "/nonexistent", 1);
	assert_int_equal(mnt_all(&old, 1, root, &err), -ENOENT);
	(void)setenv("PATH", path, 1);
	assert_int_equal(mounts(), 0);
}

static void helpers_are_bounded(void **state)
{
	static const char *const hangs[] = { "sleep", "600", NULL };
	static const char *const talks[] = { "sh", "-c", "head -c 300000 /dev/zero; exit 1",
					     NULL };
	static const char *const leaves[] = { "sh", "-c", "sleep 600 & exit 0", NULL };
	static const char *const dies[] = { "sh", "-c", "kill -9 $$", NULL };
	struct error err = ERROR_NULL;
	nsec_t start = time_now();

	(void)state;
	assert_int_equal(helper_run(hangs, 100 * NSEC_PER_MSEC, &err), -ETIMEDOUT);
	assert_int_equal(helper_run(talks, 5 * NSEC_PER_SEC, &err), -EIO);
	assert_int_equal(helper_run(dies, 5 * NSEC_PER_SEC, &err), -EIO);
	assert_string_equal(err.text, "sh was killed by signal 9");
	err = ERROR_NULL;
	assert_int_equal(helper_run(leaves, 5 * NSEC_PER_SEC, &err), 0);
	assert_int_equal(err.code, 0);
	assert_true(time_now() - start < 5 * NSEC_PER_SEC);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* all have been reaped */
	assert_int_equal(errno, ECHILD);
}

/* Stacked, nested, hidden under another, with blanks in their names. */
static void unmount_everything(void **state)
{
	const char *root = folder("e/a b\\");

	(void)state;
	for (int i = 0; i < 3; i++) {
		assert_int_equal(mount("t", root, "tmpfs", 0, NULL), 0);
		(void)folder("e/a b\\/in\tner/x");
		assert_int_equal(mount("t", in_top("e/a b\\/in\tner"), "tmpfs", 0, NULL), 0);
		assert_int_equal(mount("t", in_top("e/a b\\/in\tner"), "tmpfs", 0, NULL), 0);
	}
	assert_int_equal(mount("t", folder("e/a b\\2"), "tmpfs", 0, NULL), 0); /* a neighbour */
	assert_int_equal(mounts(), 10);
	undo_all(root);
	assert_int_equal(mounts(), 1);
	undo_all(root);
	undo_all(in_top("e/none"));
	undo_all(in_top("e"));
	assert_int_equal(mounts(), 0);
	assert_int_equal(mnt_unmount_all("/", 0, NULL), -EINVAL);
	assert_int_equal(mnt_unmount_all("//", 0, NULL), -EINVAL);
	assert_int_equal(mnt_unmount_all("/tmp/..", 0, NULL), -EINVAL);
}

static void unmount_through_a_link(void **state)
{
	(void)state;
	assert_int_equal(mount("t", folder("ln/real"), "tmpfs", 0, NULL), 0);
	assert_int_equal(symlink("real", in_top("ln/link")), 0);
	undo_all(in_top("ln/link"));
	assert_int_equal(mounts(), 0);
}

static void busy(void **state)
{
	const char *root = folder("busy");
	struct error err = ERROR_NULL;
	int status, p[2];
	char byte;
	pid_t pid;

	(void)state;
	assert_int_equal(mount("t", root, "tmpfs", 0, NULL), 0);
	assert_int_equal(mount("t", folder("busy/below"), "tmpfs", 0, NULL), 0);
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (chdir(root) < 0 || write(p[1], "x", 1) != 1)
			_exit(1);
		(void)usleep(300000);
		_exit(0);
	}
	assert_int_equal(read(p[0], &byte, 1), 1);
	(void)close(p[0]);
	(void)close(p[1]);
	assert_int_equal(mnt_unmount_all(root, 0, &err), -EBUSY); /* at once */
	assert_non_null(strstr(err.text, root));
	assert_int_equal(mounts(), 1); /* what could go has gone */
	assert_int_equal(mnt_unmount_all(root, 20 * NSEC_PER_MSEC, &err), -EBUSY);
	assert_int_equal(mnt_unmount_all(root, 10 * NSEC_PER_SEC, &err), 0);
	assert_int_equal(mounts(), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* A FUSE server that answers nothing: statfs(2) on it would never return. */
static void a_hanging_fuse_server(void **state)
{
	_cleanup_close_ int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	const char *root = folder("fuse");
	char options[128];

	(void)state;
	if (fd < 0)
		skip();
	(void)snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
	if (mount("hangs", root, "fuse.hangs", MS_NOSUID | MS_NODEV, options) < 0)
		skip();
	assert_int_equal(mounts(), 1);
	(void)alarm(10);
	undo_all(root);
	(void)alarm(0);
	assert_int_equal(mounts(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_teardown(fn, clean)
		T(bind_and_tmpfs),
		T(bind_read_only),
		T(undone),
		T(undone_while_busy),
		T(targets_stay_inside),
		T(propagation),
		T(remount),
		T(overlay),
		T(overlay_of_many_layers),
		T(overlay_of_too_many_layers),
		T(loop_device),
		T(loop_device_of_old),
		T(idmapped),
		T(idmapped_overlay),
		T(fuse_helper),
		T(helpers_are_bounded),
		T(unmount_everything),
		T(unmount_through_a_link),
		T(busy),
		T(a_hanging_fuse_server),
	};

	if (unshare(CLONE_NEWNS) < 0 || mount("", "/", "", MS_REC | MS_PRIVATE, NULL) < 0) {
		(void)fprintf(stderr, "cannot make a mount namespace: skipped\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
