/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The restore thread. As in the real driver, what is asked of a process - lock, checkpoint,
 * restore, unlock, even its state - is executed here, in the process itself: a process that cannot
 * run cannot answer, and state that CRIU dumped comes back with the process.
 *
 * Between requests it sits in sigwaitinfo() and holds nothing. A request announces itself by a
 * signal that carries a token; with it the request is fetched from the daemon, over a connection
 * that is closed before the caller is told the result, so that CRIU can start at once.
 */
#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "fakecuda/state.h"
#include "proto/fg_wire.h"

/* One read() or write(): big enough not to matter, small enough to be stopped soon. */
#define COPY_STEP ((size_t)16 << 20)

struct request {
	enum fg_call call;
	int timeout_ms;
	uint64_t lies; /* enum fg_lie */
	const uint8_t *pairs;
	size_t n_pairs;
};

/* ---- lock and unlock ---------------------------------------------------------------------- */

static int lock_process(const struct request *q)
{
	int64_t deadline = q->timeout_ms ? fg_now_ms() + q->timeout_ms : -1, left = -1;
	struct fg_msg sync = { .type = FG_SYNC };
	int code;

	if (fc.state != FG_RUNNING)
		return FG_ILLEGAL_STATE;
	if (!fc_gate_close(deadline))
		return FG_NOT_READY;
	if (deadline >= 0) {
		left = deadline - fg_now_ms();
		left = left < 0 ? 0 : left;
	}
	code = fc_ask(&sync, NULL, (int)left);
	if (code != FG_SUCCESS) {
		fc_gate_open();
		return code;
	}
	fc.state = FG_LOCKED;
	return FG_SUCCESS;
}

static int unlock_process(void)
{
	if (fc.state != FG_LOCKED)
		return FG_ILLEGAL_STATE;
	fc.state = FG_RUNNING;
	fc_gate_open();
	return FG_SUCCESS;
}

/* ---- checkpoint --------------------------------------------------------------------------- */

static void drop_copies(void)
{
	for (unsigned int i = 0; i < fc.n_allocs; i++) {
		if (fc.allocs[i].copy)
			(void)munmap(fc.allocs[i].copy, fc.allocs[i].bytes);
		fc.allocs[i].copy = NULL;
	}
}

/* All n bytes between p and the memfd of an allocation. */
static int transfer(uint64_t address, char *p, size_t n, bool to_vram)
{
	int fd = fc_ask_map(address), code = FG_SUCCESS;

	if (fd < 0)
		return -fd;
	for (size_t at = 0; at < n;) {
		size_t step = n - at < COPY_STEP ? n - at : COPY_STEP;
		ssize_t got = to_vram ? pwrite(fd, p + at, step, (off_t)at)
				      : pread(fd, p + at, step, (off_t)at);

		if (got > 0) {
			at += (size_t)got;
		} else if (got == 0 || errno != EINTR) {
			code = FG_OPERATING_SYSTEM;
			break;
		}
	}
	(void)close(fd);
	return code;
}

/*
 * read() puts the bytes into fresh anonymous pages: each is touched once, and charged to this
 * process's memory cgroup. Mapped writable by nobody else, it is what CRIU dumps like any heap.
 */
static int save(struct fc_alloc *a)
{
	void *p = mmap(NULL, a->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return FG_OUT_OF_MEMORY;
	(void)madvise(p, a->bytes, MADV_HUGEPAGE); /* fewer faults; works without */
	a->copy = p;
	return transfer(a->address, p, a->bytes, false);
}

/* What the driver refuses to save. */
static bool can_checkpoint(void)
{
	struct fg_msg m = { .type = FG_GPUS, .fd = -1 };
	struct fg_gpu_info info;
	uint8_t buf[FG_SMALL];
	struct fg_msg answer;

	for (unsigned int i = 0; i < fc.n_allocs; i++)
		if (fc.allocs[i].flags & FG_ALLOC_MANAGED)
			return false;
	if (fg_ask(fc.conn, &fc.seq, &m, &answer, buf, sizeof(buf), FG_FOREVER) < 0)
		return false;
	for (unsigned int i = 0; i < fc.n_allocs; i++) {
		size_t at = fc.gpus[fc.allocs[i].gpu].index * sizeof(info);

		if (at + sizeof(info) > answer.len)
			return false;
		memcpy(&info, (const uint8_t *)answer.data + at, sizeof(info));
		if (info.mig)
			return false;
	}
	return true;
}

static void disconnect(void)
{
	struct fg_msg m = { .type = FG_DETACH };

	/* The answer tells that the VRAM is free for others: not left to the end of the
	 * connection, which a forked child may hold open. */
	if (fc.conn >= 0) {
		(void)fc_ask(&m, NULL, FG_FOREVER);
		(void)close(fc.conn);
	}
	fc.conn = -1;
}

static int checkpoint_process(const struct request *q)
{
	int code = FG_SUCCESS;

	if (fc.state != FG_LOCKED)
		return FG_ILLEGAL_STATE;
	if (!can_checkpoint())
		return FG_NOT_SUPPORTED;
	for (unsigned int i = 0; i < fc.n_allocs && code == FG_SUCCESS; i++)
		code = save(&fc.allocs[i]);
	if (code != FG_SUCCESS) {
		drop_copies();
		return code;
	}
	if (!(q->lies & FG_LIE_KEEP_CONNECTION)) {
		disconnect();
		if (!(q->lies & FG_LIE_KEEP_DEVICE))
			fc_close_devices();
	}
	fc.state = FG_CHECKPOINTED;
	return FG_SUCCESS;
}

/* ---- restore ------------------------------------------------------------------------------ */

static const uint8_t *new_uuid(const struct request *q, const uint8_t *old)
{
	for (size_t i = 0; i < q->n_pairs; i++)
		if (memcmp(q->pairs + i * 32, old, 16) == 0)
			return q->pairs + i * 32 + 16;
	return q->n_pairs ? NULL : old;
}

/* Which GPU each of the process's is to be now. The pairs must name every GPU of the process and
 * no other one, and no target twice. */
static int map_gpus(const struct request *q, struct fc_gpu *ret)
{
	struct fg_msg m = { .type = FG_GPUS, .fd = -1 };
	uint8_t buf[FG_SMALL];
	struct fg_msg answer;
	size_t n;

	if (q->n_pairs && q->n_pairs != fc.n_gpus)
		return FG_INVALID_VALUE;
	if (fg_ask(fc.conn, &fc.seq, &m, &answer, buf, sizeof(buf), FG_FOREVER) < 0)
		return FG_OPERATING_SYSTEM;
	n = answer.len / sizeof(struct fg_gpu_info);
	for (unsigned int i = 0; i < fc.n_gpus; i++) {
		const uint8_t *uuid = new_uuid(q, fc.gpus[i].info.uuid);
		struct fg_gpu_info info = { 0 };
		size_t at = 0;

		for (; uuid && at < n; at++) {
			memcpy(&info, (const uint8_t *)answer.data + at * sizeof(info),
			       sizeof(info));
			if (memcmp(info.uuid, uuid, 16) == 0)
				break;
		}
		if (!uuid || at == n || strcmp(info.name, fc.gpus[i].info.name) != 0)
			return FG_INVALID_VALUE;
		for (unsigned int other = 0; other < i; other++)
			if (ret[other].index == at)
				return FG_INVALID_VALUE;
		ret[i] = (struct fc_gpu){
			.info = info, .index = (unsigned int)at, .context = fc.gpus[i].context
		};
	}
	for (unsigned int i = 0; i < fc.n_gpus && q->lies & FG_LIE_WRONG_DEVICE; i++)
		ret[i].index = (unsigned int)((ret[i].index + 1) % n);
	return FG_SUCCESS;
}

static int allocate_all(void)
{
	int code = FG_SUCCESS;

	for (unsigned int i = 0; i < fc.n_allocs && code == FG_SUCCESS; i++) {
		struct fc_alloc *a = &fc.allocs[i];
		uint64_t address = a->address;

		code = fc_ask_alloc(fc.gpus[a->gpu].index, a->bytes, &address, a->flags);
	}
	return code;
}

static int copy_all(const struct request *q)
{
	int code = FG_SUCCESS;

	for (unsigned int i = 0; i < fc.n_allocs && code == FG_SUCCESS; i++) {
		struct fc_alloc *a = &fc.allocs[i];
		size_t n = q->lies & FG_LIE_HALF_RESTORE ? a->bytes / 2 : a->bytes;

		code = transfer(a->address, a->copy, n, true);
	}
	return code;
}

static int bring_back(const struct request *q)
{
	struct fc_gpu gpus[FG_GPUS_MAX] = { 0 }, before[FG_GPUS_MAX];
	int code = map_gpus(q, gpus);

	if (code != FG_SUCCESS)
		return code;
	memcpy(before, fc.gpus, sizeof(before));
	memcpy(fc.gpus, gpus, sizeof(gpus));
	code = fc_open_devices(true);
	if (code == FG_SUCCESS) {
		code = allocate_all();
		/* NVIDIA/cuda-checkpoint issue 44: the first time is the last. */
		fc.doomed = code == FG_OUT_OF_MEMORY;
	}
	if (code == FG_SUCCESS)
		code = copy_all(q);
	if (code != FG_SUCCESS) {
		memcpy(fc.gpus, before, sizeof(before));
		fc_close_devices();
	}
	return code;
}

static int restore_process(const struct request *q)
{
	int code;

	if (fc.state != FG_CHECKPOINTED)
		return FG_ILLEGAL_STATE;
	if (fc.doomed)
		return FG_OPERATING_SYSTEM;
	disconnect(); /* a connection kept by a lying checkpoint */
	fc_close_devices();
	fc.conn = fg_connect(fc.socket, FG_APP, NULL, NULL);
	if (fc.conn < 0) {
		fc.conn = -1;
		return FG_OPERATING_SYSTEM;
	}
	code = bring_back(q);
	if (code != FG_SUCCESS) {
		disconnect();
		return code;
	}
	drop_copies();
	fc.state = FG_LOCKED;
	return FG_SUCCESS;
}

/* ---- the thread --------------------------------------------------------------------------- */

static int checkpoint_in_job(const struct request *q, int job)
{
	int code = checkpoint_process(q);

	return code == FG_SUCCESS ? fc_job_saved(job) : code;
}

static int restore_in_job(const struct request *q, int job)
{
	int code = fc.state == FG_CHECKPOINTED ? fc_job_check(job) : FG_SUCCESS;

	if (code == FG_SUCCESS)
		code = restore_process(q);
	return code == FG_SUCCESS ? fc_job_restored(job) : code;
}

static int execute_in_job(const struct request *q, int job)
{
	switch (q->call) {
	case FG_CALL_STATE:
		return FG_SUCCESS;
	case FG_CALL_LOCK:
		return lock_process(q);
	case FG_CALL_CHECKPOINT:
		return checkpoint_in_job(q, job);
	case FG_CALL_RESTORE:
		return restore_in_job(q, job);
	case FG_CALL_UNLOCK:
		return unlock_process();
	default:
		return FG_UNKNOWN;
	}
}

static int execute(const struct request *q)
{
	int job, code = fc_job_enter(&job);

	if (code == FG_SUCCESS)
		code = execute_in_job(q, job);
	fc_job_leave(job);
	return code;
}

static void serve(uint64_t token)
{
	struct fg_msg take = { .type = FG_TAKE, .n = 1, .arg = { token }, .fd = -1 };
	struct fg_msg done = { .type = FG_DONE, .n = 2, .fd = -1 };
	uint8_t buf[FG_HEAD_MAX + FG_PAIRS_MAX * 32], small[FG_SMALL];
	struct fg_msg m, answer = { 0 };
	struct request q;
	uint64_t seq = 0;
	int sock, r;

	sock = fg_connect(fc.socket, FG_RESTORER, NULL, NULL);
	if (sock < 0)
		return;
	r = fg_ask(sock, &seq, &take, &m, buf, sizeof(buf), FG_FOREVER);
	if (r == 0 && m.type == FG_REQUEST) {
		q = (struct request){
			.call = (enum fg_call)m.arg[0],
			.timeout_ms = m.arg[1] > INT32_MAX ? INT32_MAX : (int)m.arg[1],
			.lies = m.arg[2],
			.pairs = m.data,
			.n_pairs = m.len / 32,
		};
		done.arg[0] = (uint64_t)execute(&q);
		done.arg[1] = fc.state;
		r = fg_ask(sock, &seq, &done, &answer, small, sizeof(small), FG_FOREVER);
		/* A lock whose caller is gone would stay for ever: the driver takes it back. */
		if (q.call == FG_CALL_LOCK && done.arg[0] == FG_SUCCESS &&
		    (r < 0 || answer.type != FG_ACK))
			(void)unlock_process();
	}
	(void)close(sock);
}

static void *restorer(void *arg)
{
	sigset_t set;

	/* Named only now, with the signal blocked already: who finds the name may signal. */
	(void)prctl(PR_SET_NAME, FG_THREAD_NAME);
	(void)sem_post(arg);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, FG_SIGNAL);
	for (;;) {
		siginfo_t info;

		/* EINTR comes from a freezer, a tracer, or CRIU's restore. */
		if (sigwaitinfo(&set, &info) == FG_SIGNAL)
			serve((uint64_t)(uintptr_t)info.si_value.sival_ptr);
	}
	return NULL;
}

int fc_start_restorer(void)
{
	pthread_attr_t attr;
	sigset_t all, old;
	pthread_t thread;
	sem_t named;
	int r;

	(void)sem_init(&named, 0, 0);
	(void)sigfillset(&all);
	(void)pthread_attr_init(&attr);
	(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&thread, &attr, restorer, &named);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	(void)pthread_attr_destroy(&attr);
	/* Once cuInit has returned, the process can be found. */
	while (r == 0 && sem_wait(&named) < 0)
		;
	(void)sem_destroy(&named);
	return r == 0 ? FG_SUCCESS : FG_OUT_OF_MEMORY;
}
