/* SPDX-License-Identifier: Apache-2.0 */
#include "isolate.h"

#include <errno.h>
#include <linux/capability.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/caps.h"
#include "base/cleanup.h"

/* Why each: agent/kybernate-cuda-worker/isolate.c. */
static const int kept[] = { CAP_SYS_PTRACE, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH,
			    CAP_KILL,       CAP_SYS_ADMIN,    CAP_SETPCAP };

/*
 * What is forbidden, not what is allowed: the driver's library runs below it, and what that calls
 * is its own affair. Names that this kernel or libseccomp does not know are passed over.
 */
static const char *const forbidden[] = {
	/* mounts and roots: CRIU's and the runtimes' are the shim's children */
	"chroot", "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr",
	"move_mount", "open_tree", "pivot_root", "umount", "umount2",
	/* namespaces */
	"setns", "unshare",
	/* the kernel itself */
	"bpf", "delete_module", "finit_module", "init_module", "kexec_file_load", "kexec_load",
	"reboot", "syslog",
	/* clocks */
	"adjtimex", "clock_adjtime", "clock_adjtime64", "clock_settime", "clock_settime64",
	"settimeofday", "stime",
	/* hardware */
	"ioperm", "iopl", "modify_ldt", "vm86", "vm86old",
	/* what whole machines have one of */
	"acct", "add_key", "keyctl", "quotactl", "quotactl_fd", "request_key", "setdomainname",
	"sethostname", "swapoff", "swapon", "vhangup",
	/* files by handle, past the folders above them */
	"open_by_handle_at",
	/* what nobody needs any more */
	"_sysctl", "nfsservctl", "sysfs", "uselib", "ustat",
};

static int filter_system_calls(void)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
	int r = ctx ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(forbidden); i++) {
		int number = seccomp_syscall_resolve_name(forbidden[i]);

		if (number != __NR_SCMP_ERROR)
			r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), number, 0);
	}
	if (r == 0)
		r = seccomp_load(ctx);
	seccomp_release(ctx);
	return r;
}

static int set_limits(void)
{
	const struct rlimit none = { 0, 0 };
	struct rlimit files;

	if (setrlimit(RLIMIT_CORE, &none) < 0 || getrlimit(RLIMIT_NOFILE, &files) < 0)
		return -errno;
	files.rlim_cur = files.rlim_max;
	return setrlimit(RLIMIT_NOFILE, &files) < 0 ? -errno : 0;
}

int isolate(struct error *err)
{
	int r = set_limits();

	(void)umask(077);
	if (r < 0)
		return error_sys(err, r, "set limits");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_sys(err, errno, "set no_new_privs");
	r = caps_keep(kept, ARRAY_SIZE(kept));
	if (r < 0)
		return error_sys(err, r, "drop capabilities");
	r = filter_system_calls();
	return r < 0 ? error_sys(err, r, "filter system calls") : 0;
}
