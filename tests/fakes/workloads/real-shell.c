/* SPDX-License-Identifier: Apache-2.0 */
/*
 * real-shell: gpu-shell's commands on a real GPU, through the system's libcuda.so.1, so that
 * oracle.py can put the same questions to both drivers. "uuid" tells the first device's.
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "proto/fg_proto.h"

#define ALLOCS_MAX 256

/* CUdeviceptr; names and signatures as in cuda.h. */
typedef unsigned long long device_ptr;

struct cuda {
	void *lib;
	int (*init)(unsigned int);
	int (*error_name)(int, const char **);
	int (*retain)(void **, int);
	int (*set_current)(void *);
	int (*load)(void **, const void *);
	int (*get_function)(void **, void *, const char *);
	int (*alloc)(device_ptr *, size_t);
	int (*alloc_managed)(device_ptr *, size_t, unsigned int);
	int (*free)(device_ptr);
	int (*set)(device_ptr, unsigned int, size_t);
	int (*from)(void *, device_ptr, size_t);
	int (*launch)(void *, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int,
		      unsigned int, unsigned int, void *, void **, void **);
	int (*sync)(void);
	int (*uuid)(uint8_t *, int);
	void *spin; /* the function */
	struct {
		device_ptr address;
		size_t bytes;
	} allocs[ALLOCS_MAX];
	unsigned int n;
};

/* Runs for that many nanoseconds. */
static const char ptx[] = ".version 7.0\n.target sm_70\n.address_size 64\n"
			  ".visible .entry spin(.param .u64 ns)\n{\n"
			  ".reg .u64 %r<5>; .reg .pred %p1;\n"
			  "ld.param.u64 %r1, [ns];\nmov.u64 %r2, %globaltimer;\n"
			  "again: mov.u64 %r3, %globaltimer;\nsub.u64 %r4, %r3, %r2;\n"
			  "setp.lt.u64 %p1, %r4, %r1;\n@%p1 bra again;\nret;\n}\n";

static bool load(struct cuda *cu)
{
	struct {
		void *member;
		const char *symbol;
	} const table[] = {
		{ &cu->init, "cuInit" },
		{ &cu->error_name, "cuGetErrorName" },
		{ &cu->retain, "cuDevicePrimaryCtxRetain" },
		{ &cu->set_current, "cuCtxSetCurrent" },
		{ &cu->load, "cuModuleLoadData" },
		{ &cu->get_function, "cuModuleGetFunction" },
		{ &cu->alloc, "cuMemAlloc_v2" },
		{ &cu->alloc_managed, "cuMemAllocManaged" },
		{ &cu->free, "cuMemFree_v2" },
		{ &cu->set, "cuMemsetD32_v2" },
		{ &cu->from, "cuMemcpyDtoH_v2" },
		{ &cu->launch, "cuLaunchKernel" },
		{ &cu->sync, "cuCtxSynchronize" },
		{ &cu->uuid, "cuDeviceGetUuid_v2" },
	};

	cu->lib = dlopen("libcuda.so.1", RTLD_NOW);
	for (size_t i = 0; cu->lib && i < sizeof(table) / sizeof(table[0]); i++) {
		void *p = dlsym(cu->lib, table[i].symbol);

		if (!p)
			return false;
		memcpy(table[i].member, &p, sizeof(p));
	}
	return cu->lib != NULL;
}

static int start(struct cuda *cu)
{
	void *context, *module;
	int r = cu->init(0);

	if (r == 0)
		r = cu->retain(&context, 0);
	if (r == 0)
		r = cu->set_current(context);
	if (r == 0)
		r = cu->load(&module, ptx);
	return r ? r : cu->get_function(&cu->spin, module, "spin");
}

static int allocate(struct cuda *cu, size_t mib, bool managed)
{
	device_ptr p;
	int r;

	if (cu->n == ALLOCS_MAX)
		return FG_OUT_OF_MEMORY;
	r = managed ? cu->alloc_managed(&p, mib << 20, 1) : cu->alloc(&p, mib << 20);
	if (r)
		return r;
	cu->allocs[cu->n].address = p;
	cu->allocs[cu->n].bytes = mib << 20;
	cu->n++;
	return managed ? 0 : cu->set(p, cu->n, (mib << 20) / 4);
}

static int check(struct cuda *cu, long long *bad)
{
	int r = 0;

	*bad = 0;
	for (unsigned int i = 0; i < cu->n; i++) {
		unsigned int *words = malloc(cu->allocs[i].bytes);

		if (!words)
			return FG_OUT_OF_MEMORY;
		r = cu->from(words, cu->allocs[i].address, cu->allocs[i].bytes);
		for (size_t k = 0; r == 0 && k < cu->allocs[i].bytes / 4; k++)
			*bad += words[k] != i + 1;
		free(words);
		if (r)
			break;
	}
	return r;
}

static int spin(struct cuda *cu, uint64_t ms)
{
	uint64_t ns = ms * 1000000;
	void *arguments[] = { &ns };

	return cu->launch(cu->spin, 1, 1, 1, 1, 1, 1, 0, NULL, arguments, NULL);
}

static int api(struct cuda *cu)
{
	device_ptr p;
	int r = cu->alloc(&p, 4096);

	return r ? r : cu->free(p);
}

static pid_t idle_child(void)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		(void)pause();
}

static int run(struct cuda *cu, const char *word, uint64_t n, char *text, size_t size)
{
	long long value = 0;
	uint8_t uuid[16];
	int r = FG_INVALID_VALUE;

	*text = '\0';
	if (strcmp(word, "init") == 0)
		return start(cu);
	if (strcmp(word, "alloc") == 0 || strcmp(word, "managed") == 0)
		return allocate(cu, n, *word == 'm');
	if (strcmp(word, "kernel") == 0)
		return spin(cu, n);
	if (strcmp(word, "sync") == 0)
		return cu->sync();
	if (strcmp(word, "api") == 0)
		return api(cu);
	if (strcmp(word, "uuid") == 0) {
		r = cu->uuid(uuid, 0);
		if (size >= FG_UUID_TEXT)
			fg_uuid_text(uuid, text);
		return r;
	}
	if (strcmp(word, "check") == 0) {
		r = check(cu, &value);
	} else if (strcmp(word, "fork") == 0) {
		value = idle_child();
		r = 0;
	}
	(void)snprintf(text, size, "%lld", value);
	return r;
}

int main(void)
{
	struct cuda cu = { .n = 0 };
	char line[256], text[64];
	const char *name;

	if (!load(&cu)) {
		(void)fprintf(stderr, "real-shell: no usable libcuda.so.1\n");
		return EXIT_FAILURE;
	}
	while (fgets(line, sizeof(line), stdin)) {
		const char *word = strtok(line, " \n"), *argument = strtok(NULL, " \n");
		int r;

		if (!word || strcmp(word, "quit") == 0)
			break;
		r = run(&cu, word, argument ? strtoull(argument, NULL, 10) : 0, text,
			sizeof(text));
		if (r == 0)
			(void)printf("ok%s%s\n", *text ? " " : "", text);
		else
			(void)printf("error %s\n",
				     cu.error_name(r, &name) == 0 ? name : "UNKNOWN");
		(void)fflush(stdout);
	}
	return EXIT_SUCCESS;
}
