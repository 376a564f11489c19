/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda-threads LIBRARY ROUNDS PID...: a thread for each process, all in one process as in a worker
 * that serves several requests at once; each takes its process through lock, checkpoint, restore
 * and unlock, and reads its state after every step.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver/cuda_abi.h"
#include "proto/fg_proto.h"

#define THREADS_MAX 64

struct api {
	fcu_result (*init)(unsigned int);
	fcu_result (*tid)(int, int *);
	fcu_result (*state)(int, int *);
	fcu_result (*lock)(int, struct fcu_lock_args *);
	fcu_result (*checkpoint)(int, struct fcu_plain_args *);
	fcu_result (*restore)(int, struct fcu_restore_args *);
	fcu_result (*unlock)(int, struct fcu_plain_args *);
};

struct thread {
	const struct api *api;
	pthread_t id;
	int pid;
	long rounds;
	const char *failed; /* the step, NULL = none */
	int code;
};

static bool is_in(struct thread *t, int state)
{
	int now = -1;

	t->code = t->api->state(t->pid, &now);
	if (t->code == 0 && now != state)
		t->code = -1 - now;
	return t->code == 0;
}

static const char *round_of(struct thread *t)
{
	const struct api *a = t->api;
	int tid = 0;

	if ((t->code = a->tid(t->pid, &tid)) != 0 || tid <= 0)
		return "tid";
	if ((t->code = a->lock(t->pid, NULL)) != 0 || !is_in(t, FG_LOCKED))
		return "lock";
	if ((t->code = a->checkpoint(t->pid, NULL)) != 0 || !is_in(t, FG_CHECKPOINTED))
		return "checkpoint";
	if ((t->code = a->restore(t->pid, NULL)) != 0 || !is_in(t, FG_LOCKED))
		return "restore";
	if ((t->code = a->unlock(t->pid, NULL)) != 0 || !is_in(t, FG_RUNNING))
		return "unlock";
	return NULL;
}

static void *run(void *arg)
{
	struct thread *t = arg;

	for (long i = 0; i < t->rounds && !t->failed; i++)
		t->failed = round_of(t);
	return NULL;
}

static bool load(struct api *a, const char *path)
{
	struct {
		void *member;
		const char *symbol;
	} const table[] = {
		{ &a->init, "cuInit" },
		{ &a->tid, "cuCheckpointProcessGetRestoreThreadId" },
		{ &a->state, "cuCheckpointProcessGetState" },
		{ &a->lock, "cuCheckpointProcessLock" },
		{ &a->checkpoint, "cuCheckpointProcessCheckpoint" },
		{ &a->restore, "cuCheckpointProcessRestore" },
		{ &a->unlock, "cuCheckpointProcessUnlock" },
	};
	void *lib = dlopen(path, RTLD_NOW);

	for (size_t i = 0; lib && i < sizeof(table) / sizeof(table[0]); i++) {
		void *p = dlsym(lib, table[i].symbol);

		if (!p)
			return false;
		memcpy(table[i].member, &p, sizeof(p));
	}
	return lib != NULL;
}

int main(int argc, char **argv)
{
	struct thread threads[THREADS_MAX] = { 0 };
	struct api api;
	int n = argc - 3, failed = 0;

	if (n < 1 || n > THREADS_MAX || !load(&api, argv[1]) || api.init(0) != 0)
		return 2;
	for (int i = 0; i < n; i++) {
		threads[i].api = &api;
		threads[i].rounds = strtol(argv[2], NULL, 10);
		threads[i].pid = (int)strtol(argv[3 + i], NULL, 10);
		if (pthread_create(&threads[i].id, NULL, run, &threads[i]) != 0)
			return 2;
	}
	for (int i = 0; i < n; i++) {
		(void)pthread_join(threads[i].id, NULL);
		if (!threads[i].failed)
			continue;
		failed++;
		(void)fprintf(stderr, "pid %d: %s: %d\n", threads[i].pid, threads[i].failed,
			      threads[i].code);
	}
	return failed ? 1 : 0;
}
