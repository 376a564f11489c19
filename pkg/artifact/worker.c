/* SPDX-License-Identifier: Apache-2.0 */
#include "artifact/worker.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ioprio.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "artifact/fail.h"
#include "artifact/hashing.h"
#include "artifact/protocol.h"
#include "artifact/seal.h"
#include "artifact/sweep.h"
#include "artifact/verify.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/time.h"

/* Often enough for a progress bar, and for its master to see that it lives. */
#define PROGRESS_EVERY (250 * NSEC_PER_MSEC)

/* Between two looks at what CRIU writes, when there was nothing new. */
#define FOLLOW_PAUSE_MS 20
#define FOLLOW_NICE     10

struct worker {
	struct hashing hashing;
	nsec_t reported;
};

static int send_all(const struct buf *b)
{
	return fd_write_all(PROTOCOL_SOCKET_FD, buf_bytes(b).p, buf_len(b));
}

static void report_progress(const struct hashing *h, uint64_t done, uint64_t total)
{
	struct worker *w = h->arg;
	_cleanup_buf_ struct buf b = BUF_NULL;
	nsec_t now = time_now();

	if (done < total && now - w->reported < PROGRESS_EVERY)
		return;
	w->reported = now;
	/* Nobody listens any more: then nobody wants the result either. */
	if (protocol_put_progress(&b, done, total) < 0 || send_all(&b) < 0)
		_exit(EXIT_FAILURE);
}

static void follow_until_readable(struct follow *f)
{
	struct pollfd p = { PROTOCOL_SOCKET_FD, POLLIN, 0 };
	int more = 1;

	while (poll(&p, 1, more > 0 ? 0 : FOLLOW_PAUSE_MS) == 0)
		more = follow_step(f);
}

/* The job: read until it is all there. followed: NULL, or what to do until then. */
static int receive_job(struct buf *in, struct follow *followed, struct protocol_job *ret)
{
	for (;;) {
		struct bytes b = buf_bytes(in);
		int r = protocol_get_job(&b, ret);
		uint8_t *to;
		ssize_t n;

		if (r == 0 && ret->op == PROTOCOL_FOLLOW)
			buf_consume(in, buf_len(in) - b.n); /* it has no description */
		if (r != BYTES_MORE)
			return r;
		to = buf_reserve(in, 65536);
		if (!to)
			return -errno;
		if (followed)
			follow_until_readable(followed);
		n = read(PROTOCOL_SOCKET_FD, to, 65536);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EPIPE;
		buf_commit(in, (size_t)n);
	}
}

static void set_result(struct protocol_result *ret, const struct metadata_manifest *m)
{
	ret->files = m->files;
	ret->bytes = m->bytes;
	ret->manifest = m->sha256;
}

static int do_seal(const struct worker *w, const struct protocol_job *job,
		   struct protocol_result *ret, struct error *err)
{
	_cleanup_arena_ struct arena arena = ARENA_LIMIT(METADATA_MEMORY_MAX);
	struct metadata_manifest sealed;
	struct metadata m;
	int r;

	if (job->op == PROTOCOL_SEAL) {
		r = metadata_read(job->description, &arena, &m, err);
		if (r == 0)
			r = seal_checkpoint(PROTOCOL_DIR_FD, job->name, &m, &w->hashing, &sealed,
					    err);
	} else {
		r = metadata_read_image(job->description, &arena, &m, err);
		if (r == 0)
			r = seal_image(PROTOCOL_DIR_FD, &m, &w->hashing, &sealed, err);
	}
	if (r == 0)
		set_result(ret, &sealed);
	return r;
}

static int do_verify(const struct worker *w, const struct protocol_job *job,
		     struct protocol_result *ret, struct error *err)
{
	struct verify_damage damage = { 0 };
	struct metadata_manifest verified;
	int r;

	if (job->op == PROTOCOL_VERIFY)
		r = verify_checkpoint(PROTOCOL_DIR_FD, job->name, job->max_bytes, &w->hashing,
				      &verified, &damage, err);
	else
		r = verify_image(PROTOCOL_DIR_FD, job->max_bytes, &w->hashing, &verified, &damage,
				 err);
	if (r == 0)
		set_result(ret, &verified);
	memcpy(ret->damaged, damage.path, sizeof(ret->damaged));
	ret->damaged_offset = damage.offset;
	ret->damaged_length = damage.length;
	return r;
}

static int do_sweep(struct protocol_result *ret, struct error *err)
{
	unsigned int n;
	int r = sweep_store(PROTOCOL_DIR_FD, &n, err);

	ret->files = n;
	return r;
}

/* Out of the way of the workloads. Best effort: it is about being polite. */
static void step_back(void)
{
	(void)setpriority(PRIO_PROCESS, 0, 10);
	(void)syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0,
		      IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0));
}

static void do_job(struct worker *w, const struct protocol_job *job, struct protocol_result *ret)
{
	struct error err = ERROR_NULL;
	int r;

	if (job->background)
		step_back();
	w->hashing.workers = job->workers;
	switch (job->op) {
	case PROTOCOL_SEAL:
	case PROTOCOL_SEAL_IMAGE:
		r = do_seal(w, job, ret, &err);
		break;
	case PROTOCOL_VERIFY:
	case PROTOCOL_VERIFY_IMAGE:
		r = do_verify(w, job, ret, &err);
		break;
	default:
		r = do_sweep(ret, &err);
		break;
	}
	if (r == 0)
		return;
	/* A failure without a reason is one of memory, or of a document of ours. */
	if (err.reason == REASON_NONE)
		err.reason = REASON_STORE_FAILED;
	err.code = r;
	ret->err = err;
}

/* What cannot be followed is hashed later. */
static struct follow *start_following(const struct protocol_job *job)
{
	_cleanup_close_ int work = -1, criu = -1;
	struct follow *f = NULL;

	if (*job->name) {
		work = path_open_beneath(PROTOCOL_DIR_FD, job->name, O_RDONLY | O_DIRECTORY);
		if (work >= 0)
			criu = path_open_beneath(work, LAYOUT_CRIU, O_RDONLY | O_DIRECTORY);
	}
	if (follow_new(*job->name ? criu : PROTOCOL_DIR_FD, job->max_bytes, &f) < 0)
		return NULL;
	return f;
}

static int serve(const char *program)
{
	struct worker w = { .hashing = { .program = program, .progress = report_progress } };
	_cleanup_buf_ struct buf in = BUF_LIMIT(PROTOCOL_JOB_MAX + 65536), out = BUF_NULL;
	_cleanup_follow_ struct follow *followed = NULL;
	struct protocol_result result = { 0 };
	struct protocol_job job;

	w.hashing.arg = &w;
	(void)prctl(PR_SET_NAME, "kyb-store");
	if (receive_job(&in, NULL, &job) < 0)
		return EXIT_FAILURE;
	if (job.op == PROTOCOL_FOLLOW) {
		/*
		 * CRIU goes first: the container stands still for as long as it works. Back again
		 * may need a capability; without, what is left to hash is hashed politely.
		 */
		(void)setpriority(PRIO_PROCESS, 0, FOLLOW_NICE);
		followed = start_following(&job);
		if (receive_job(&in, followed, &job) < 0 ||
		    (job.op != PROTOCOL_SEAL && job.op != PROTOCOL_SEAL_IMAGE))
			return EXIT_FAILURE;
		(void)setpriority(PRIO_PROCESS, 0, 0);
		w.hashing.followed = followed;
	}
	do_job(&w, &job, &result);
	if (protocol_put_result(&out, &result) < 0 || send_all(&out) < 0)
		return EXIT_FAILURE;
	return EXIT_SUCCESS;
}

bool worker_role(int argc, char *const *argv, int *ret_status)
{
	if (argc != 2)
		return false;
	if (strcmp(argv[1], "--store-worker") == 0) {
		*ret_status = serve(WORKER_PROGRAM);
		return true;
	}
	if (strcmp(argv[1], "--store-hasher") == 0) {
		(void)prctl(PR_SET_NAME, "kyb-hash");
		*ret_status = hash_helper(PROTOCOL_SOCKET_FD);
		return true;
	}
	return false;
}
