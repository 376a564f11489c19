/* SPDX-License-Identifier: Apache-2.0 */
#include "isolate.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <pwd.h>
#include <seccomp.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/caps.h"
#include "base/cleanup.h"

#define FILES_MAX 64

/* Newer than Debian 12's headers: ABI 3 and 5. */
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14)
#endif
#ifndef LANDLOCK_ACCESS_FS_IOCTL_DEV
#define LANDLOCK_ACCESS_FS_IOCTL_DEV (1ULL << 15)
#endif

static const int read_all[] = { CAP_DAC_READ_SEARCH };

/*
 * All that packing and unpacking need. No exec, fork, socket, ptrace, mount, open_by_handle_at,
 * chmod, chown, link, symlink or mknod. Names that this libseccomp does not know are passed over.
 */
static const char *const allowed[] = {
	/* files */
	"close", "fadvise64", "fallocate", "fcntl", "fdatasync", "flock", "fstat", "fstatfs",
	"fsync", "getdents64", "lseek", "mkdirat", "newfstatat", "openat", "openat2",
	"pread64", "pwrite64", "read", "readv", "renameat", "renameat2", "statx", "unlinkat",
	"write", "writev",
	/* what is new in the store, and when to end */
	"inotify_add_watch", "inotify_init1", "poll", "ppoll", "rt_sigpending", "signalfd4",
	/* memory: what may be executed was mapped before, see below */
	"brk", "madvise", "mremap", "munmap",
	/* itself */
	"clock_gettime", "clock_nanosleep", "exit", "exit_group", "futex", "getegid",
	"geteuid", "getgid", "getpid", "getrandom", "gettid", "gettimeofday", "getuid",
	"restart_syscall", "rseq", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn",
	"sched_getaffinity", "sched_yield", "set_robust_list", "sigaltstack", "sysinfo",
	"tgkill", "uname",
};

/* -- the user ---------------------------------------------------------------------------------- */

static int become(uid_t uid, gid_t gid, bool keep)
{
	if (keep && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		return -errno;
	if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
		return -errno;
	return 0;
}

int isolate_user(const char *name, bool keep, struct error *err)
{
	const struct passwd *user;
	int r;

	if (!name) {
		if (geteuid() == 0 || getuid() == 0)
			return error_set(err, -EPERM, "is not to be run by root: name a user "
						      "(--user)");
		return 0;
	}
	errno = 0;
	user = getpwnam(name);
	if (!user)
		return errno ? error_sys(err, errno, "look up user '%s'", name)
			     : error_set(err, -ENOENT, "there is no user '%s'", name);
	if (user->pw_uid == 0)
		return error_set(err, -EPERM, "user '%s' is root", name);
	if (geteuid() == user->pw_uid)
		return 0;
	caps_bound(read_all, keep ? ARRAY_SIZE(read_all) : 0);
	r = become(user->pw_uid, user->pw_gid, keep);
	/* Takes up again what is kept: the store lies below directories of root's. */
	if (r == 0)
		r = caps_keep(read_all, keep ? ARRAY_SIZE(read_all) : 0);
	return r < 0 ? error_sys(err, r, "become user '%s'", name) : 0;
}

/* -- limits ------------------------------------------------------------------------------------ */

static int limit(int resource, rlim_t most)
{
	const struct rlimit l = { most, most };

	return setrlimit(resource, &l) < 0 ? -errno : 0;
}

static int set_limits(void)
{
	int r = limit(RLIMIT_CORE, 0);

	if (r == 0)
		r = limit(RLIMIT_NOFILE, FILES_MAX);
	return r < 0 ? r : limit(RLIMIT_NPROC, 0);
}

/* -- Landlock ---------------------------------------------------------------------------------- */

#define TO_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define TO_WRITE                                                                                   \
	(TO_READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG |                   \
	 LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |                            \
	 LANDLOCK_ACCESS_FS_REMOVE_DIR)

/* Everything that this kernel can forbid. */
static uint64_t handled(long abi)
{
	uint64_t all = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1; /* ABI 1 */

	if (abi >= 2)
		all |= LANDLOCK_ACCESS_FS_REFER;
	if (abi >= 3)
		all |= LANDLOCK_ACCESS_FS_TRUNCATE;
	if (abi >= 5)
		all |= LANDLOCK_ACCESS_FS_IOCTL_DEV;
	return all;
}

static int allow(int rules, int fd, uint64_t access)
{
	const struct landlock_path_beneath_attr rule = {
		.allowed_access = access, .parent_fd = fd,
	};

	if (fd < 0)
		return 0;
	return syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0
		       ? -errno
		       : 0;
}

static int confine(const struct isolate *i)
{
	struct landlock_ruleset_attr attr = { 0 };
	_cleanup_close_ int rules = -1;
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	int r;

	/* Not compiled in, or switched off: the rest has to do. */
	if (abi < 0)
		return errno == ENOSYS || errno == EOPNOTSUPP ? 0 : -errno;
	attr.handled_access_fs = handled(abi);
	rules = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	if (rules < 0)
		return -errno;
	r = allow(rules, i->readable, TO_READ);
	if (r == 0)
		r = allow(rules, i->writable, TO_WRITE);
	if (r == 0 && syscall(SYS_landlock_restrict_self, rules, 0) < 0)
		r = -errno;
	return r;
}

/* -- system calls ------------------------------------------------------------------------------ */

static int allow_call(scmp_filter_ctx ctx, const char *name)
{
	int number = seccomp_syscall_resolve_name(name);

	return number == __NR_SCMP_ERROR ? 0 : seccomp_rule_add(ctx, SCMP_ACT_ALLOW, number, 0);
}

/* mmap() and mprotect(), but not to get memory that can be executed. */
static int allow_data(scmp_filter_ctx ctx, const char *name)
{
	return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, seccomp_syscall_resolve_name(name), 1,
				SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
}

static int filter_system_calls(void)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int r = ctx ? 0 : -ENOMEM;

	for (size_t n = 0; r == 0 && n < ARRAY_SIZE(allowed); n++)
		r = allow_call(ctx, allowed[n]);
	if (r == 0)
		r = allow_data(ctx, "mmap");
	if (r == 0)
		r = allow_data(ctx, "mprotect");
	if (r == 0)
		r = seccomp_load(ctx);
	seccomp_release(ctx);
	return r;
}

int isolate(const struct isolate *i, struct error *err)
{
	int r = set_limits();

	(void)umask(077);
	if (r < 0)
		return error_sys(err, r, "set limits");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return error_sys(err, errno, "give up privileges");
	r = caps_keep(read_all, i->read_all ? ARRAY_SIZE(read_all) : 0);
	if (r < 0)
		return error_sys(err, r, "drop capabilities");
	r = confine(i);
	if (r < 0)
		return error_sys(err, r, "confine itself to its directories");
	r = filter_system_calls();
	return r < 0 ? error_sys(err, r, "filter system calls") : 0;
}
