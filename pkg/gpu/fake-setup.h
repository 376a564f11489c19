/* SPDX-License-Identifier: Apache-2.0 */
/* For tests: the shared page of the scripted driver. */
#ifndef KYB_GPU_FAKE_SETUP_H
#define KYB_GPU_FAKE_SETUP_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gpu/fake-cuda.h"
#include "tests/cmocka.h"

struct fake_file {
	struct fake_cuda *cuda;
	char path[64];
	char env[96]; /* "KYB_FAKE_CUDA=<path>" */
};

/* A driver of CUDA 13.0 with two GPUs, no processes, that does what it is asked. */
static inline void fake_reset(struct fake_cuda *fake)
{
	memset(fake, 0, sizeof(*fake));
	fake->cuda_version = CUDA_VERSION_GPU_PAIRS;
	fake->n_gpus = 2;
	for (int i = 0; i < FAKE_GPUS_MAX; i++) {
		memset(fake->gpus[i].bytes, 0xa0 + i, sizeof(fake->gpus[i].bytes));
		fake->free_bytes[i] = (uint64_t)(70 - i) << 30;
	}
	for (int op = 0; op <= GPU_OP_LAST; op++)
		fake->scripts[op].code = -1;
}

static inline void fake_open(struct fake_file *f)
{
	int fd;

	(void)snprintf(f->path, sizeof(f->path), "/tmp/kyb-fake-cuda-XXXXXX");
	fd = mkostemp(f->path, O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, sizeof(*f->cuda)), 0);
	f->cuda = mmap(NULL, sizeof(*f->cuda), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(f->cuda != MAP_FAILED);
	(void)close(fd);
	(void)snprintf(f->env, sizeof(f->env), FAKE_CUDA_ENV "=%s", f->path);
	assert_int_equal(setenv(FAKE_CUDA_ENV, f->path, 1), 0);
	fake_reset(f->cuda);
}

static inline void fake_close(struct fake_file *f)
{
	(void)munmap(f->cuda, sizeof(*f->cuda));
	(void)unlink(f->path);
}

/* Makes pid a CUDA process, RUNNING. */
static inline struct fake_process *fake_add(struct fake_cuda *fake, pid_t pid)
{
	for (int i = 0; i < FAKE_PROCESSES_MAX; i++) {
		struct fake_process *p = &fake->processes[i];

		if (p->pid)
			continue;
		*p = (struct fake_process){ .pid = pid };
		p->script.code = -1;
		return p;
	}
	fail_msg("too many fake processes");
	return NULL;
}

#endif
