/* SPDX-License-Identifier: Apache-2.0 */
#include "isolate.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/caps.h"
#include "base/cleanup.h"

/*
 * How the driver reaches its target is its secret; known is that it goes through /proc/PID
 * (cuda-checkpoint #41), that a caller of the same user needs nothing at all (CRIU #3089), and
 * that CAP_SYS_PTRACE does for others (cuda-checkpoint #58). Kept, until a real GPU shows which
 * of them can go:
 *	SYS_PTRACE	the kernel's check in front of /proc/PID/fd, mem and the like
 *	DAC_OVERRIDE,
 *	DAC_READ_SEARCH	the same files belong to the target's user, with modes such as 0500
 *	KILL		in case it signals the target's restore thread
 *	SYS_ADMIN	NVIDIA's kernel driver asks for it where it wants an administrator
 *			(NV_IS_SUSER() in its nv-linux.h)
 * Gone are, among others, MKNOD and SYS_MODULE: nvidia-modprobe cannot make device nodes or load
 * modules from here. That is the node's business, and is said when it was forgotten.
 */
static const int kept[] = { CAP_SYS_PTRACE, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_KILL,
			    CAP_SYS_ADMIN };

/*
 * The driver's behaviour must not hang on the agent's surroundings: devices in PCI order as
 * everybody else numbers them, no JIT compiler loaded (we launch nothing).
 */
static int set_environment(void)
{
	if (setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 1) < 0 ||
	    setenv("CUDA_FORCE_PRELOAD_LIBRARIES", "0", 1) < 0 ||
	    setenv("CUDA_DISABLE_JIT", "1", 1) < 0)
		return -errno;
	/* A GPU that is hidden here cannot be restored onto (cuda-python PR 1983). */
	if (unsetenv("CUDA_VISIBLE_DEVICES") < 0)
		return -errno;
	return 0;
}

static int die_with(int parent)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return -errno;
	/* It may have died before the prctl(); then we are somebody else's child by now. */
	return parent && getppid() != parent ? -ESRCH : 0;
}

static int close_others(int fd)
{
	struct sockaddr_storage peer;
	socklen_t n = sizeof(int);
	int type;

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) < 0)
		return -errno;
	n = sizeof(peer);
	if (type != SOCK_SEQPACKET || getpeername(fd, (struct sockaddr *)&peer, &n) < 0 ||
	    peer.ss_family != AF_UNIX)
		return -EPROTOTYPE;
	/* The driver may run helpers of its own (nvidia-modprobe). */
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return -errno;
	if (fd > 3 && close_range(3, (unsigned int)fd - 1, 0) < 0)
		return -errno;
	return close_range((unsigned int)fd + 1, ~0U, 0) < 0 ? -errno : 0;
}

/* A process each with a pidfd and whatever the driver opens: more than the customary 1024. */
static void raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit); /* the soft limit up to the hard one: allowed */
}

int isolate(int fd, int parent, struct error *err)
{
	int r = die_with(parent);

	if (r < 0)
		return error_sys(err, r, "follow the agent's life");
	r = close_others(fd);
	if (r < 0)
		return error_sys(err, r, "descriptor %d is not the agent's socket", fd);
	(void)umask(077);
	raise_file_limit();
	/* A write to the socket of an agent that died is an error, not a signal. */
	if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		return error_sys(err, errno, "ignore SIGPIPE");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_sys(err, errno, "set no_new_privs");
	r = caps_keep(kept, ARRAY_SIZE(kept));
	if (r < 0)
		return error_sys(err, r, "drop capabilities");
	r = set_environment();
	return r < 0 ? error_sys(err, r, "set the environment") : 0;
}
