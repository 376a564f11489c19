/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcuda.so.1 of the emulated driver, the application's side: as much of it as tests/gpu and
 * real-shell use, so that the workload of a real GPU runs here, too. A module is not looked at: its
 * functions are known by name, and are those that the daemon computes. All streams are one; copies
 * and sets are done when the call returns, kernels later.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "driver/cuda_abi.h"
#include "fakecuda/fakecuda.h"

#define OPS_MAX   64 /* of a graph */
#define ARGS_MAX  4
#define SET_BYTES ((size_t)1 << 20)

struct fcu_function {
	const char *name;
	enum fg_kernel kernel;
	unsigned int n_args; /* each of 64 bits */
};

enum op_kind { OP_KERNEL, OP_SET32, OP_TO_HOST, OP_TO_DEVICE };

struct op {
	enum op_kind kind;
	const struct fcu_function *function;
	uint64_t args[ARGS_MAX]; /* of a kernel; of the others: address, number, value */
	void *to;
	const void *from;
};

struct fcu_graph {
	struct op ops[OPS_MAX];
	unsigned int n;
};

struct fcu_stream {
	struct fcu_graph *capture;
};

struct fcu_event {
	double ms;
};

static const struct fcu_function functions[] = {
	{ "fill", FG_KERNEL_FILL, 4 },
	{ "add", FG_KERNEL_ADD, 3 },
	{ "checksum", FG_KERNEL_CHECKSUM, 3 },
	{ "spin", FG_KERNEL_SLEEP, 1 },
};

/* ---- contexts, modules ---------------------------------------------------------------------- */

fcu_result cuDevicePrimaryCtxRetain(void **context, fcu_device device)
{
	int n = 0, code = fc_device_count(&n);

	if (code != FG_SUCCESS)
		return code;
	if (!context)
		return FG_INVALID_VALUE;
	if (device < 0 || device >= n)
		return FG_INVALID_DEVICE;
	*context = (void *)((uintptr_t)device + 1);
	return FG_SUCCESS;
}

fcu_result cuCtxSetCurrent(void *context)
{
	return context ? fc_set_device((int)((uintptr_t)context - 1)) : FG_SUCCESS;
}

fcu_result cuCtxSynchronize(void)
{
	return fc_synchronize();
}

fcu_result cuModuleLoadData(void **module, const void *image)
{
	static char any;

	if (!fc_ready())
		return FG_NOT_INITIALIZED;
	if (!module || !image)
		return FG_INVALID_VALUE;
	*module = &any;
	return FG_SUCCESS;
}

fcu_result cuModuleGetFunction(struct fcu_function **function, void *module, const char *name)
{
	if (!function || !module || !name)
		return FG_INVALID_VALUE;
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		if (strcmp(functions[i].name, name) != 0)
			continue;
		*function = (struct fcu_function *)(uintptr_t)&functions[i];
		return FG_SUCCESS;
	}
	return FG_NOT_FOUND;
}

/* ---- memory --------------------------------------------------------------------------------- */

fcu_result cuMemAlloc_v2(uint64_t *address, size_t n)
{
	return address && n ? fc_malloc(address, n) : FG_INVALID_VALUE;
}

fcu_result cuMemAllocManaged(uint64_t *address, size_t n, unsigned int flags)
{
	(void)flags; /* attached globally or to the host: nobody else is here */
	return address && n ? fc_malloc_managed(address, n) : FG_INVALID_VALUE;
}

fcu_result cuMemFree_v2(uint64_t address)
{
	return fc_free(address);
}

/* Host memory is pinned for the GPU's sake; this GPU does not read it. */
fcu_result cuMemHostAlloc(void **ret, size_t n, unsigned int flags)
{
	(void)flags;
	if (!fc_ready())
		return FG_NOT_INITIALIZED;
	if (!ret || !n)
		return FG_INVALID_VALUE;
	*ret = aligned_alloc(4096, (n + 4095) & ~(size_t)4095);
	return *ret ? FG_SUCCESS : FG_OUT_OF_MEMORY;
}

fcu_result cuMemFreeHost(void *p)
{
	free(p);
	return FG_SUCCESS;
}

static int set32(uint64_t address, uint64_t n, unsigned int value)
{
	size_t chunk = n * 4 < SET_BYTES ? (size_t)n * 4 : SET_BYTES;
	unsigned int *words = malloc(chunk ? chunk : 1);
	int code = words ? FG_SUCCESS : FG_OUT_OF_MEMORY;

	for (size_t i = 0; words && i < chunk / 4; i++)
		words[i] = value;
	for (uint64_t at = 0; at < n * 4 && code == FG_SUCCESS; at += chunk) {
		uint64_t left = n * 4 - at;

		code = fc_memcpy_to(address + at, words, left < chunk ? (size_t)left : chunk);
	}
	free(words);
	return code;
}

/* ---- work ----------------------------------------------------------------------------------- */

static int launch(const struct op *op)
{
	const uint64_t *a = op->args;

	switch (op->function->kernel) {
	case FG_KERNEL_FILL:
		return fc_launch_fill(a[0], a[1], a[2], a[3]);
	case FG_KERNEL_ADD:
		return fc_launch_add(a[0], a[1], a[2]);
	case FG_KERNEL_CHECKSUM: /* the real one adds to its result, which was zeroed for it */
		return fc_launch_checksum(a[0], a[1], a[2]);
	case FG_KERNEL_SLEEP:
		return fc_launch_sleep(a[0] / 1000000);
	default:
		return FG_NOT_SUPPORTED;
	}
}

static int execute(const struct op *op)
{
	switch (op->kind) {
	case OP_KERNEL:
		return launch(op);
	case OP_SET32:
		return set32(op->args[0], op->args[1], (unsigned int)op->args[2]);
	case OP_TO_HOST:
		return fc_memcpy_from(op->to, op->args[0], op->args[1]);
	case OP_TO_DEVICE:
		return fc_memcpy_to(op->args[0], op->from, op->args[1]);
	}
	return FG_NOT_SUPPORTED;
}

/* Into the graph that is being captured, or now. */
static int submit(struct fcu_stream *stream, const struct op *op)
{
	struct fcu_graph *graph = stream ? stream->capture : NULL;

	if (!fc_ready())
		return FG_NOT_INITIALIZED;
	if (!graph)
		return execute(op);
	if (graph->n == OPS_MAX)
		return FG_OUT_OF_MEMORY;
	graph->ops[graph->n++] = *op;
	return FG_SUCCESS;
}

fcu_result cuLaunchKernel(struct fcu_function *function, unsigned int gx, unsigned int gy,
			  unsigned int gz, unsigned int bx, unsigned int by, unsigned int bz,
			  unsigned int shared, struct fcu_stream *stream, void **args, void **extra)
{
	struct op op = { .kind = OP_KERNEL, .function = function };

	(void)shared;
	if (!function || !gx || !gy || !gz || !bx || !by || !bz || !args || extra)
		return FG_INVALID_VALUE;
	for (unsigned int i = 0; i < function->n_args; i++)
		memcpy(&op.args[i], args[i], sizeof(op.args[i]));
	return submit(stream, &op);
}

fcu_result cuMemsetD32Async(uint64_t address, unsigned int value, size_t n,
			    struct fcu_stream *stream)
{
	struct op op = { .kind = OP_SET32, .args = { address, n, value } };

	return submit(stream, &op);
}

fcu_result cuMemsetD32_v2(uint64_t address, unsigned int value, size_t n)
{
	return cuMemsetD32Async(address, value, n, NULL);
}

fcu_result cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t n, struct fcu_stream *stream)
{
	struct op op = { .kind = OP_TO_HOST, .args = { from, n }, .to = to };

	return submit(stream, &op);
}

fcu_result cuMemcpyDtoH_v2(void *to, uint64_t from, size_t n)
{
	return cuMemcpyDtoHAsync_v2(to, from, n, NULL);
}

fcu_result cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t n, struct fcu_stream *stream)
{
	struct op op = { .kind = OP_TO_DEVICE, .args = { to, n }, .from = from };

	return submit(stream, &op);
}

/* ---- streams, graphs, events ---------------------------------------------------------------- */

static int new_object(void **ret, size_t size)
{
	if (!fc_ready())
		return FG_NOT_INITIALIZED;
	if (!ret)
		return FG_INVALID_VALUE;
	*ret = calloc(1, size);
	return *ret ? FG_SUCCESS : FG_OUT_OF_MEMORY;
}

fcu_result cuStreamCreate(struct fcu_stream **ret, unsigned int flags)
{
	void *p = NULL;
	int code = new_object(ret ? &p : NULL, sizeof(**ret));

	(void)flags;
	if (code == FG_SUCCESS)
		*ret = p;
	return code;
}

fcu_result cuStreamSynchronize(struct fcu_stream *stream)
{
	(void)stream;
	return fc_synchronize();
}

fcu_result cuStreamBeginCapture_v2(struct fcu_stream *stream, int mode)
{
	void *graph = NULL;
	int code;

	(void)mode;
	if (!stream || stream->capture)
		return FG_INVALID_VALUE;
	code = new_object(&graph, sizeof(*stream->capture));
	stream->capture = graph;
	return code;
}

fcu_result cuStreamEndCapture(struct fcu_stream *stream, struct fcu_graph **graph)
{
	if (!stream || !stream->capture || !graph)
		return FG_INVALID_VALUE;
	*graph = stream->capture;
	stream->capture = NULL;
	return FG_SUCCESS;
}

fcu_result cuGraphInstantiateWithFlags(struct fcu_graph **exec, struct fcu_graph *graph,
				       uint64_t flags)
{
	void *p = NULL;
	int code;

	if (!exec || !graph || flags)
		return FG_INVALID_VALUE;
	code = new_object(&p, sizeof(**exec));
	if (code != FG_SUCCESS)
		return code;
	memcpy(p, graph, sizeof(*graph));
	*exec = p;
	return FG_SUCCESS;
}

fcu_result cuGraphLaunch(struct fcu_graph *exec, struct fcu_stream *stream)
{
	int code = exec && stream && !stream->capture ? FG_SUCCESS : FG_INVALID_VALUE;

	for (unsigned int i = 0; code == FG_SUCCESS && i < exec->n; i++)
		code = execute(&exec->ops[i]);
	return code;
}

static double now_ms(void)
{
	struct timespec t = { 0 };

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

fcu_result cuEventCreate(struct fcu_event **ret, unsigned int flags)
{
	void *p = NULL;
	int code = new_object(ret ? &p : NULL, sizeof(**ret));

	(void)flags;
	if (code == FG_SUCCESS)
		*ret = p;
	return code;
}

fcu_result cuEventRecord(struct fcu_event *event, struct fcu_stream *stream)
{
	(void)stream;
	if (!event)
		return FG_INVALID_VALUE;
	event->ms = now_ms();
	return FG_SUCCESS;
}

/* What was launched before the event is done by then, and that is the event's time. */
fcu_result cuEventSynchronize(struct fcu_event *event)
{
	int code = event ? fc_synchronize() : FG_INVALID_VALUE;

	if (code == FG_SUCCESS)
		event->ms = now_ms();
	return code;
}

fcu_result cuEventElapsedTime(float *ms, struct fcu_event *from, struct fcu_event *to)
{
	if (!ms || !from || !to)
		return FG_INVALID_VALUE;
	*ms = (float)(to->ms - from->ms);
	return FG_SUCCESS;
}
