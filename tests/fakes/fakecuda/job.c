/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of a checkpoint job, as far as its users can tell: it changes with each checkpoint and
 * each restore, and a restore needs it as it was after the checkpoint. What NVIDIA's has in it is
 * not known; this one has a token for each process that is checkpointed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fakecuda/state.h"

#define SLOTS_MAX 512
/* Long enough for calls that are made at the same time to meet. */
#define CALL_US 2000

struct slot {
	int32_t pid; /* 0 = free */
	uint32_t zero;
	uint64_t token;
};

int fc_job_enter(int *ret_fd)
{
	const char *path = getenv("CUDA_CHECKPOINT_JOB_FILE");
	int fd;

	*ret_fd = -1;
	if (!path || !*path)
		return FG_SUCCESS;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return FG_OPERATING_SYSTEM;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		(void)close(fd);
		return FG_ILLEGAL_STATE;
	}
	(void)usleep(CALL_US);
	*ret_fd = fd;
	return FG_SUCCESS;
}

void fc_job_leave(int fd)
{
	if (fd >= 0)
		(void)close(fd);
}

/* This process's slot, or a free one; -1 when there is none. */
static off_t find(int fd, struct slot *ret)
{
	off_t free_at = -1;

	for (off_t at = 0; at < (off_t)(SLOTS_MAX * sizeof(*ret)); at += (off_t)sizeof(*ret)) {
		struct slot s = { 0 };
		ssize_t n = pread(fd, &s, sizeof(s), at);

		if (n == (ssize_t)sizeof(s) && s.pid == (int32_t)fc.pid) {
			*ret = s;
			return at;
		}
		if (free_at < 0 && (n != (ssize_t)sizeof(s) || s.pid == 0))
			free_at = at;
		if (n != (ssize_t)sizeof(s))
			break;
	}
	*ret = (struct slot){ 0 };
	return free_at;
}

static int put(int fd, const struct slot *s, off_t at)
{
	return at >= 0 && pwrite(fd, s, sizeof(*s), at) == (ssize_t)sizeof(*s) ? FG_SUCCESS
									     : FG_OPERATING_SYSTEM;
}

int fc_job_saved(int fd)
{
	struct slot s;
	off_t at;

	if (fd < 0)
		return FG_SUCCESS;
	at = find(fd, &s);
	if (getrandom(&fc.job_token, sizeof(fc.job_token), 0) != sizeof(fc.job_token))
		return FG_OPERATING_SYSTEM;
	s = (struct slot){ .pid = (int32_t)fc.pid, .token = fc.job_token };
	return put(fd, &s, at);
}

int fc_job_check(int fd)
{
	struct slot s;

	if (fd < 0)
		return FG_SUCCESS;
	(void)find(fd, &s);
	return s.pid && s.token == fc.job_token ? FG_SUCCESS : FG_INVALID_VALUE;
}

int fc_job_restored(int fd)
{
	struct slot s;
	off_t at = fd >= 0 ? find(fd, &s) : -1;

	if (fd < 0)
		return FG_SUCCESS;
	s = (struct slot){ 0 };
	return put(fd, &s, at);
}
