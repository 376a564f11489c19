/* SPDX-License-Identifier: Apache-2.0 */
#include "fakecuda/fakecuda.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fakecuda/state.h"
#include "proto/fg_wire.h"

/* A CUDA runtime is one a process, and its restore thread must find it: the one global. */
struct fc fc = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.io = PTHREAD_MUTEX_INITIALIZER,
	.conn = -1,
};

/* ---- the gate --------------------------------------------------------------------------- */

static void gate_enter(void)
{
	(void)pthread_mutex_lock(&fc.lock);
	while (fc.closed)
		(void)pthread_cond_wait(&fc.changed, &fc.lock);
	fc.active++;
	(void)pthread_mutex_unlock(&fc.lock);
}

static void gate_leave(void)
{
	(void)pthread_mutex_lock(&fc.lock);
	if (--fc.active == 0)
		(void)pthread_cond_broadcast(&fc.changed);
	(void)pthread_mutex_unlock(&fc.lock);
}

bool fc_gate_close(int64_t deadline)
{
	struct timespec t = { .tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000 };
	bool empty;
	int r = 0;

	(void)pthread_mutex_lock(&fc.lock);
	fc.closed = true;
	while (fc.active && r != ETIMEDOUT)
		r = deadline < 0 ? pthread_cond_wait(&fc.changed, &fc.lock)
				 : pthread_cond_timedwait(&fc.changed, &fc.lock, &t);
	empty = fc.active == 0;
	(void)pthread_mutex_unlock(&fc.lock);
	if (!empty)
		fc_gate_open();
	return empty;
}

void fc_gate_open(void)
{
	(void)pthread_mutex_lock(&fc.lock);
	fc.closed = false;
	(void)pthread_cond_broadcast(&fc.changed);
	(void)pthread_mutex_unlock(&fc.lock);
}

bool fc_ready(void)
{
	return fc.pid && fc.pid == getpid();
}

/* Every API call: false when this process has no CUDA. */
static bool begin(void)
{
	if (!fc_ready())
		return false;
	gate_enter();
	(void)pthread_mutex_lock(&fc.io);
	return true;
}

static int end(int code)
{
	(void)pthread_mutex_unlock(&fc.io);
	gate_leave();
	return code;
}

/* ---- requests --------------------------------------------------------------------------- */

int fc_ask(struct fg_msg *m, uint64_t *ret_value, int timeout_ms)
{
	uint8_t buf[FG_SMALL];
	struct fg_msg answer;
	int r;

	m->fd = -1;
	if (fc.conn < 0)
		return FG_UNKNOWN;
	r = fg_ask(fc.conn, &fc.seq, m, &answer, buf, sizeof(buf), timeout_ms);
	if (r == -ETIMEDOUT)
		return FG_NOT_READY;
	if (r < 0)
		return FG_UNKNOWN;
	if (answer.fd >= 0)
		(void)close(answer.fd);
	if (ret_value)
		*ret_value = answer.arg[1];
	return answer.type == FG_RESULT ? (int)answer.arg[0] : FG_UNKNOWN;
}

int fc_ask_alloc(unsigned int gpu_index, uint64_t bytes, uint64_t *address, unsigned int flags)
{
	struct fg_msg m = { .type = FG_ALLOC, .n = 4,
			    .arg = { gpu_index, bytes, *address, flags } };

	return fc_ask(&m, address, FG_FOREVER);
}

int fc_ask_map(uint64_t address)
{
	struct fg_msg m = { .type = FG_MAP, .n = 1, .arg = { address }, .fd = -1 };
	uint8_t buf[FG_SMALL];
	struct fg_msg answer;

	if (fc.conn < 0 ||
	    fg_ask(fc.conn, &fc.seq, &m, &answer, buf, sizeof(buf), FG_FOREVER) < 0 ||
	    answer.type != FG_RESULT)
		return -FG_UNKNOWN;
	return answer.fd >= 0 ? answer.fd : -(int)answer.arg[0];
}

/* ---- start ------------------------------------------------------------------------------ */

#define NODE_MAX 128

static bool has_node(const struct fc_gpu *gpu)
{
	char path[NODE_MAX];

	(void)snprintf(path, sizeof(path), "%s/nvidia%u", fc.dev, gpu->info.minor);
	return access(path, F_OK) == 0;
}

/* Is the GPU named in list, as "all", by its UUID or by its index? */
static bool listed(const char *list, const struct fg_gpu_info *info, unsigned int index)
{
	char uuid[FG_UUID_TEXT], number[12];

	fg_uuid_text(info->uuid, uuid);
	(void)snprintf(number, sizeof(number), "%u", index);
	while (*list) {
		size_t n = strcspn(list, ",");

		if ((n == 3 && strncmp(list, "all", n) == 0) ||
		    (n == strlen(uuid) && strncmp(list, uuid, n) == 0) ||
		    (n == strlen(number) && strncmp(list, number, n) == 0))
			return true;
		list += n + (list[n] == ',');
	}
	return false;
}

static int find_gpus(void)
{
	struct fg_msg m = { .type = FG_GPUS, .fd = -1 };
	const char *visible = getenv("NVIDIA_VISIBLE_DEVICES");
	struct fc_gpu all[FG_GPUS_MAX] = { 0 };
	uint8_t buf[FG_SMALL];
	struct fg_msg answer;
	size_t n;

	if (fg_ask(fc.conn, &fc.seq, &m, &answer, buf, sizeof(buf), FG_FOREVER) < 0)
		return FG_UNKNOWN;
	n = answer.len / sizeof(struct fg_gpu_info);
	if (n > FG_GPUS_MAX)
		return FG_UNKNOWN;
	for (unsigned int i = 0; i < n; i++) {
		memcpy(&all[i].info, (const uint8_t *)answer.data + i * sizeof(all[i].info),
		       sizeof(all[i].info));
		all[i].index = i;
		fc.has_nodes |= has_node(&all[i]);
	}
	for (unsigned int i = 0; i < n; i++) {
		bool seen = !visible || !*visible || listed(visible, &all[i].info, i);

		if (fc.has_nodes)
			seen = has_node(&all[i]);
		if (seen)
			fc.gpus[fc.n_gpus++] = all[i];
	}
	return fc.n_gpus ? FG_SUCCESS : FG_NO_DEVICE;
}

static void open_device(const char *name)
{
	char path[NODE_MAX];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", fc.dev, name);
	fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0)
		fc.devices[fc.n_devices++] = fd;
}

int fc_open_devices(bool again)
{
	char name[32];

	if (!fc.has_nodes)
		return FG_SUCCESS;
	for (unsigned int i = 0; i < fc.n_gpus; i++)
		if (again && !has_node(&fc.gpus[i]))
			return FG_NOT_SUPPORTED;
	open_device("nvidiactl");
	open_device("nvidia-uvm");
	for (unsigned int i = 0; i < fc.n_gpus; i++) {
		(void)snprintf(name, sizeof(name), "nvidia%u", fc.gpus[i].info.minor);
		open_device(name);
	}
	return FG_SUCCESS;
}

void fc_close_devices(void)
{
	while (fc.n_devices)
		(void)close(fc.devices[--fc.n_devices]);
}

/* Tells the daemon of the call, so that it can be logged, delayed and made to fail. */
static int announce(void)
{
	struct fg_msg call = { .type = FG_CALL, .n = 4, .arg = { FG_CALL_INIT }, .fd = -1 };
	struct fg_msg done = { .type = FG_END, .n = 2, .fd = -1 };
	uint8_t buf[FG_SMALL];
	struct fg_msg answer;

	if (fg_ask(fc.conn, &fc.seq, &call, &answer, buf, sizeof(buf), FG_FOREVER) < 0)
		return FG_UNKNOWN;
	if (answer.type == FG_CRASH)
		fg_crash();
	if (answer.type == FG_PROCEED) {
		done.seq = answer.seq;
		if (fg_send(fc.conn, &done) < 0 ||
		    fg_recv(fc.conn, &answer, buf, sizeof(buf), FG_FOREVER) < 0)
			return FG_UNKNOWN;
		if (answer.type == FG_CRASH)
			fg_crash();
	}
	return answer.type == FG_RESULT ? (int)answer.arg[0] : FG_UNKNOWN;
}

static int start(void)
{
	const char *dev = getenv("FAKEGPU_DEV");
	pthread_condattr_t attr;
	int code;

	dev = dev ? dev : "/dev";
	if (strlen(dev) >= sizeof(fc.dev))
		return FG_NO_DEVICE;
	(void)fg_socket_path(fc.socket);
	memcpy(fc.dev, dev, strlen(dev) + 1);
	fc.conn = fg_connect(fc.socket, FG_APP, NULL, NULL);
	if (fc.conn < 0)
		return FG_NO_DEVICE; /* as without /dev/nvidiactl */
	code = announce();
	if (code == FG_SUCCESS)
		code = find_gpus();
	if (code == FG_SUCCESS)
		code = fc_open_devices(false);
	if (code != FG_SUCCESS)
		return code;
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&fc.changed, &attr);
	(void)pthread_condattr_destroy(&attr);
	return fc_start_restorer();
}

static void forget(void)
{
	fc_close_devices();
	if (fc.conn >= 0)
		(void)close(fc.conn);
	fc.conn = -1;
	fc.n_gpus = fc.n_allocs = fc.active = fc.device = 0;
	fc.has_nodes = fc.closed = fc.doomed = false;
	fc.state = FG_RUNNING;
	memset(fc.gpus, 0, sizeof(fc.gpus));
}

int fc_init(void)
{
	int code = FG_SUCCESS;

	/* io is the parent's in a child that was forked in the middle of a call; CUDA forbids
	 * that use, too. */
	(void)pthread_mutex_lock(&fc.io);
	if (!fc_ready()) {
		if (fc.pid)
			forget(); /* a forked child begins anew */
		code = start();
		if (code == FG_SUCCESS)
			fc.pid = getpid();
		else
			forget();
	}
	(void)pthread_mutex_unlock(&fc.io);
	return code;
}

/* ---- the API ---------------------------------------------------------------------------- */

int fc_device_count(int *ret)
{
	if (!begin())
		return FG_NOT_INITIALIZED;
	*ret = (int)fc.n_gpus;
	return end(FG_SUCCESS);
}

int fc_device_uuid(int device, uint8_t *ret)
{
	if (!begin())
		return FG_NOT_INITIALIZED;
	if (device < 0 || (unsigned int)device >= fc.n_gpus)
		return end(FG_INVALID_DEVICE);
	memcpy(ret, fc.gpus[device].info.uuid, 16);
	return end(FG_SUCCESS);
}

int fc_set_device(int device)
{
	if (!begin())
		return FG_NOT_INITIALIZED;
	if (device < 0 || (unsigned int)device >= fc.n_gpus)
		return end(FG_INVALID_DEVICE);
	fc.device = (unsigned int)device;
	return end(FG_SUCCESS);
}

static int allocate(uint64_t *ret, uint64_t bytes, unsigned int flags)
{
	uint64_t address = 0;
	int code;

	if (fc.n_allocs == FC_ALLOCS_MAX)
		return FG_OUT_OF_MEMORY;
	code = fc_ask_alloc(fc.gpus[fc.device].index, bytes, &address, flags);
	if (code != FG_SUCCESS)
		return code;
	fc.allocs[fc.n_allocs++] = (struct fc_alloc){
		.address = address, .bytes = bytes, .gpu = fc.device, .flags = flags
	};
	*ret = address;
	return FG_SUCCESS;
}

/* A context has memory of its own. How much is the daemon's setting at this moment. */
static int make_context(void)
{
	struct fc_gpu *gpu = &fc.gpus[fc.device];
	struct fg_msg hello;
	int code = FG_SUCCESS;
	uint64_t address;
	int sock;

	if (gpu->context)
		return FG_SUCCESS;
	sock = fg_connect(fc.socket, FG_DRIVER, &hello, NULL);
	if (sock < 0)
		return FG_UNKNOWN;
	(void)close(sock);
	if (hello.arg[3])
		code = allocate(&address, hello.arg[3], FG_ALLOC_CONTEXT);
	gpu->context = code == FG_SUCCESS;
	return code;
}

static int allocate_with(uint64_t *ret, size_t bytes, unsigned int flags)
{
	int code;

	if (!begin())
		return FG_NOT_INITIALIZED;
	code = make_context();
	if (code == FG_SUCCESS)
		code = allocate(ret, bytes, flags);
	return end(code);
}

int fc_malloc(uint64_t *ret, size_t bytes)
{
	return allocate_with(ret, bytes, FG_ALLOC_PLAIN);
}

int fc_malloc_managed(uint64_t *ret, size_t bytes)
{
	return allocate_with(ret, bytes, FG_ALLOC_MANAGED);
}

int fc_free(uint64_t address)
{
	struct fg_msg m = { .type = FG_FREE, .n = 1, .arg = { address } };
	int code;

	if (!begin())
		return FG_NOT_INITIALIZED;
	code = fc_ask(&m, NULL, FG_FOREVER);
	for (unsigned int i = 0; code == FG_SUCCESS && i < fc.n_allocs; i++) {
		if (fc.allocs[i].address != address)
			continue;
		fc.allocs[i] = fc.allocs[--fc.n_allocs];
		break;
	}
	return end(code);
}

/* The allocation that holds all n bytes from address on, or NULL. */
static const struct fc_alloc *find(uint64_t address, size_t n)
{
	for (unsigned int i = 0; i < fc.n_allocs; i++) {
		const struct fc_alloc *a = &fc.allocs[i];

		if (address >= a->address && address - a->address <= a->bytes &&
		    n <= a->bytes - (address - a->address))
			return a;
	}
	return NULL;
}

/* As a synchronous copy of the default stream does, it waits for what was launched before. */
static int copy(uint64_t address, void *to, const void *from, size_t n)
{
	struct fg_msg sync = { .type = FG_SYNC };
	const struct fc_alloc *a = find(address, n);
	int code, fd;

	if (!a)
		return FG_INVALID_VALUE;
	code = fc_ask(&sync, NULL, FG_FOREVER);
	if (code != FG_SUCCESS)
		return code;
	fd = fc_ask_map(a->address);
	if (fd < 0)
		return -fd;
	for (size_t at = 0; at < n && code == FG_SUCCESS;) {
		off_t where = (off_t)(address - a->address + at);
		ssize_t got = to ? pread(fd, (char *)to + at, n - at, where)
				 : pwrite(fd, (const char *)from + at, n - at, where);

		if (got > 0)
			at += (size_t)got;
		else if (got == 0 || errno != EINTR)
			code = FG_UNKNOWN;
	}
	(void)close(fd);
	return code;
}

int fc_memcpy_from(void *to, uint64_t from, size_t n)
{
	return begin() ? end(copy(from, to, NULL, n)) : FG_NOT_INITIALIZED;
}

int fc_memcpy_to(uint64_t to, const void *from, size_t n)
{
	return begin() ? end(copy(to, NULL, from, n)) : FG_NOT_INITIALIZED;
}

static int launch(enum fg_kernel kernel, uint64_t address, uint64_t words, uint64_t a, uint64_t b,
		  uint64_t result)
{
	struct fg_msg m = {
		.type = FG_LAUNCH, .n = 6, .arg = { kernel, address, words, a, b, result }
	};

	return begin() ? end(fc_ask(&m, NULL, FG_FOREVER)) : FG_NOT_INITIALIZED;
}

int fc_launch_fill(uint64_t address, uint64_t words, uint64_t seed, uint64_t plus)
{
	return launch(FG_KERNEL_FILL, address, words, seed, plus, 0);
}

int fc_launch_add(uint64_t address, uint64_t words, uint64_t value)
{
	return launch(FG_KERNEL_ADD, address, words, value, 0, 0);
}

int fc_launch_checksum(uint64_t address, uint64_t words, uint64_t result)
{
	return launch(FG_KERNEL_CHECKSUM, address, words, 0, 0, result);
}

int fc_launch_verify(uint64_t address, uint64_t words, uint64_t seed, uint64_t plus,
		     uint64_t result)
{
	return launch(FG_KERNEL_VERIFY, address, words, seed, plus, result);
}

int fc_launch_sleep(uint64_t ms)
{
	return launch(FG_KERNEL_SLEEP, 0, 0, ms, 0, 0);
}

int fc_synchronize(void)
{
	struct fg_msg m = { .type = FG_SYNC };

	return begin() ? end(fc_ask(&m, NULL, FG_FOREVER)) : FG_NOT_INITIALIZED;
}

const char *fc_code_name(int code)
{
	switch (code) {
	case FG_SUCCESS:
		return "SUCCESS";
	case FG_INVALID_VALUE:
		return "INVALID_VALUE";
	case FG_OUT_OF_MEMORY:
		return "OUT_OF_MEMORY";
	case FG_NOT_INITIALIZED:
		return "NOT_INITIALIZED";
	case FG_NO_DEVICE:
		return "NO_DEVICE";
	case FG_INVALID_DEVICE:
		return "INVALID_DEVICE";
	case FG_ILLEGAL_ADDRESS:
		return "ILLEGAL_ADDRESS";
	default:
		return "UNKNOWN";
	}
}
