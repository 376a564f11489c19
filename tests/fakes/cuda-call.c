/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda-call LIBRARY: calls the checkpoint API of a libcuda.so.1, the emulated or a real one. Reads
 * calls from stdin, one a line, and answers each with "NAME MILLISECONDS [VALUE]":
 *
 *	init | version | count
 *	tid PID | state PID | lock PID [MS] | checkpoint PID | restore PID [OLD=NEW ...] | unlock PID
 *	entry SYMBOL VERSION
 *
 * A PID may be followed by "+N" (byte N of the argument structure is set to 1) or by "!" (the
 * pointer for the result is NULL). NAME is that of the CUresult without "CUDA_" and "ERROR_".
 */
#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver/cuda_abi.h"
#include "proto/fg_wire.h"

#define PAIRS_MAX 16

struct api {
	void *lib;
	fcu_result (*init)(unsigned int);
	fcu_result (*version)(int *);
	fcu_result (*count)(int *);
	fcu_result (*error_name)(fcu_result, const char **);
	fcu_result (*entry)(const char *, void **, int, uint64_t, int *);
	fcu_result (*tid)(int, int *);
	fcu_result (*state)(int, int *);
	fcu_result (*lock)(int, struct fcu_lock_args *);
	fcu_result (*checkpoint)(int, struct fcu_plain_args *);
	fcu_result (*restore)(int, struct fcu_restore_args *);
	fcu_result (*unlock)(int, struct fcu_plain_args *);
};

/* dlsym() returns void *, and ISO C has no cast from that to a function. */
#define LOAD(api, member, symbol)                                                                  \
	do {                                                                                       \
		void *p_ = dlsym((api)->lib, symbol);                                              \
		memcpy(&(api)->member, &p_, sizeof(p_));                                           \
	} while (0)

static bool load(struct api *a, const char *path)
{
	a->lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!a->lib) {
		(void)fprintf(stderr, "cuda-call: %s\n", dlerror());
		return false;
	}
	LOAD(a, init, "cuInit");
	LOAD(a, version, "cuDriverGetVersion");
	LOAD(a, count, "cuDeviceGetCount");
	LOAD(a, error_name, "cuGetErrorName");
	LOAD(a, entry, "cuGetProcAddress_v2");
	LOAD(a, tid, "cuCheckpointProcessGetRestoreThreadId");
	LOAD(a, state, "cuCheckpointProcessGetState");
	LOAD(a, lock, "cuCheckpointProcessLock");
	LOAD(a, checkpoint, "cuCheckpointProcessCheckpoint");
	LOAD(a, restore, "cuCheckpointProcessRestore");
	LOAD(a, unlock, "cuCheckpointProcessUnlock");
	return a->init && a->error_name;
}

static const char *name_of(const struct api *a, fcu_result r)
{
	const char *name;

	if (a->error_name(r, &name) != 0)
		return "?";
	name += strncmp(name, "CUDA_", 5) == 0 ? 5 : 0;
	return name + (strncmp(name, "ERROR_", 6) == 0 ? 6 : 0);
}

struct call {
	const char *word;
	int pid;
	long poke; /* byte to set, -1 = none */
	bool null;
	char *rest; /* further words, to be split */
};

static void poke(const struct call *c, void *args)
{
	if (c->poke >= 0 && c->poke < 64)
		((char *)args)[c->poke] = 1;
}

static int restore(const struct api *a, const struct call *c)
{
	struct fcu_gpu_pair pairs[PAIRS_MAX] = { 0 };
	struct fcu_restore_args args = { 0 };
	char *save = c->rest, *word;
	unsigned int n = 0;

	while ((word = strtok_r(NULL, " ", &save)) && n < PAIRS_MAX) {
		char *equals = strchr(word, '=');

		if (!equals)
			return -1;
		*equals = '\0';
		if (fg_uuid_parse(word, (uint8_t *)pairs[n].old_uuid.bytes) < 0 ||
		    fg_uuid_parse(equals + 1, (uint8_t *)pairs[n].new_uuid.bytes) < 0)
			return -1;
		n++;
	}
	if (n) {
		args.pairs = pairs;
		args.n_pairs = n;
	}
	poke(c, &args);
	return a->restore(c->pid, n || c->poke >= 0 ? &args : NULL);
}

static int process_call(const struct api *a, const struct call *c, int64_t *value)
{
	struct fcu_plain_args plain = { 0 };
	struct fcu_lock_args lock = { 0 };
	int out = -1, r = -1;

	poke(c, &plain);
	if (strcmp(c->word, "tid") == 0 && a->tid)
		r = a->tid(c->pid, c->null ? NULL : &out);
	else if (strcmp(c->word, "state") == 0 && a->state)
		r = a->state(c->pid, c->null ? NULL : &out);
	else if (strcmp(c->word, "checkpoint") == 0 && a->checkpoint)
		r = a->checkpoint(c->pid, c->poke >= 0 ? &plain : NULL);
	else if (strcmp(c->word, "unlock") == 0 && a->unlock)
		r = a->unlock(c->pid, c->poke >= 0 ? &plain : NULL);
	else if (strcmp(c->word, "restore") == 0 && a->restore)
		r = restore(a, c);
	else if (strcmp(c->word, "lock") == 0 && a->lock) {
		lock.timeout_ms = c->rest ? (unsigned int)strtoul(c->rest, NULL, 10) : 0;
		poke(c, &lock);
		r = a->lock(c->pid, lock.timeout_ms || c->poke >= 0 ? &lock : NULL);
	}
	*value = out;
	return r;
}

static int entry_call(const struct api *a, char *rest, int64_t *value)
{
	char *symbol = strtok_r(NULL, " ", &rest), *version = strtok_r(NULL, " ", &rest);
	void *function = NULL;
	int status = -1, r;

	if (!symbol || !version)
		return -1;
	r = a->entry(symbol, &function, (int)strtol(version, NULL, 10), 0, &status);
	*value = function ? 100 + status : status;
	return r;
}

static int run(const struct api *a, char *line, int64_t *value)
{
	struct call c = { .poke = -1 };
	int out = -1, r;
	char *end;

	c.word = strtok_r(line, " ", &c.rest);
	*value = -1;
	if (!c.word)
		return -1;
	if (strcmp(c.word, "init") == 0)
		return a->init(0);
	if (strcmp(c.word, "version") == 0 || strcmp(c.word, "count") == 0) {
		r = (*c.word == 'v' ? a->version : a->count)(&out);
		*value = out;
		return r;
	}
	if (strcmp(c.word, "entry") == 0)
		return entry_call(a, c.rest, value);
	end = strtok_r(NULL, " ", &c.rest);
	if (!end)
		return -1;
	c.pid = (int)strtol(end, &end, 10);
	if (*end == '+')
		c.poke = strtol(end + 1, NULL, 10);
	c.null = *end == '!';
	return process_call(a, &c, value);
}

int main(int argc, char **argv)
{
	struct api api = { 0 };
	char line[2048];

	if (argc != 2 || !load(&api, argv[1]))
		return 2;
	while (fgets(line, sizeof(line), stdin)) {
		int64_t start = fg_now_ms(), value;
		int r;

		line[strcspn(line, "\n")] = '\0';
		r = run(&api, line, &value);
		if (r < 0)
			(void)printf("BAD_REQUEST 0\n");
		else
			(void)printf("%s %" PRId64 " %" PRId64 "\n", name_of(&api, r),
				     fg_now_ms() - start, value);
		if (fflush(stdout) != 0)
			return 1;
	}
	return 0;
}
