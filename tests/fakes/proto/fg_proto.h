/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What travels between the emulated GPU's daemon and everybody else: workloads (fakecuda), the
 * driver libraries (libcuda.so.1, libnvidia-ml.so.1) and fakegpuctl. README.md, "Protocol", tells
 * the conversations; this header has the numbers.
 *
 * A message on the stream socket is a header of 16 bytes, then n arguments of 8 bytes, then data:
 *
 *	u32 length of arguments and data | u16 type | u16 n | u64 seq | n * u64 | data
 *
 * all little-endian. An answer carries the seq of what it answers. Descriptors (SCM_RIGHTS)
 * travel with the first byte of their message, one at most.
 */
#ifndef FAKEGPU_PROTO_H
#define FAKEGPU_PROTO_H

#include <stddef.h>
#include <stdint.h>

#define FG_SOCKET_ENV     "FAKEGPU_SOCKET"
#define FG_SOCKET_DEFAULT "/run/fakegpu/gpu.sock"

/*
 * How an outsider reaches the restore thread of a process that holds no connection: by its name
 * below /proc/PID/task, with this signal. The thread has it blocked and waits for it in
 * sigwaitinfo(), which CRIU can dump. Not SIGRTMIN + n: that macro is a function call of the C
 * library, and both sides must agree whichever library they were linked with.
 */
#define FG_THREAD_NAME "cuda-fake-rt"
#define FG_SIGNAL      50

#define FG_VERSION     1
#define FG_HEADER      ((size_t)16)
#define FG_ARGS_MAX    12
#define FG_REQUEST_MAX ((size_t)64 << 10) /* most bytes behind a header, to the daemon */
#define FG_REPLY_MAX   ((size_t)16 << 20) /* ... and from it */
#define FG_GPUS_MAX    16
#define FG_PAIRS_MAX   64
#define FG_PATH_MAX    108 /* sun_path */

enum fg_type {
	FG_HELLO = 1, /* role, version, tid -> RESULT: 0, branch, CUDA version, context bytes,
		       * persistence, code for "no CUDA here"; data: the driver's version */
	FG_RESULT,    /* code, values ...; data */

	/* Role APP: an application's (or a driver library's) own use of the GPU. */
	FG_GPUS,   /* -> RESULT: 0, count; data: struct fg_gpu_info[count]. Any role. */
	FG_ALLOC,  /* gpu, bytes, address or 0, enum fg_alloc flags -> RESULT: code, address */
	FG_FREE,   /* address -> RESULT: code, once all work before it has ended */
	FG_LAUNCH, /* enum fg_kernel, address, words, a, b, result address -> RESULT at once */
	FG_SYNC,   /* -> RESULT once all work has ended */
	FG_MAP,    /* address -> RESULT: code, bytes, with the memfd */
	FG_DETACH, /* all VRAM of this connection is freed -> RESULT */

	/* Role RESTORE: the restore thread, for the length of one request. */
	FG_TAKE,    /* token that came with the signal -> REQUEST or NONE */
	FG_REQUEST, /* from the daemon: call, time-out in ms, enum fg_lie; data: UUID pairs */
	FG_NONE,    /* from the daemon: nobody wants that any more */
	FG_DONE,    /* code, state -> ACK, or REVOKED: nobody waits for it, a lock is undone */
	FG_ACK,
	FG_REVOKED,

	/* Roles DRIVER, NVML and, for cuInit, APP: one call of the library. */
	FG_CALL,    /* call, pid as given, caller has CUDA, time-out in ms; data: UUID pairs;
		     * descriptor: a pidfd of the target -> PROCEED, CRASH, or RESULT */
	FG_PROCEED, /* token. Do it now: signal the restore thread with the token, or do your own
		     * part and say END */
	FG_CRASH,   /* the fault wanted: die */
	FG_END,     /* code, value -> RESULT: code, value */
	FG_PROCS,   /* gpu -> RESULT: 0, count; data: struct fg_proc_info[count]. NVML. */

	/* Role CTL. */
	FG_CTL, /* data: a JSON object -> RESULT: 0 or 1; data: JSON */

	FG_TYPE_END
};

enum fg_role { FG_ROLE_NONE, FG_APP, FG_RESTORER, FG_DRIVER, FG_NVML, FG_CONTROL };

/* X(symbol, name in rules, logs and JSON) */
#define FG_CALL_TABLE(X)                                                                           \
	X(FG_CALL_INIT, "cuInit")                                                                  \
	X(FG_CALL_TID, "get_restore_tid")                                                          \
	X(FG_CALL_STATE, "get_state")                                                              \
	X(FG_CALL_LOCK, "lock")                                                                    \
	X(FG_CALL_CHECKPOINT, "checkpoint")                                                        \
	X(FG_CALL_RESTORE, "restore")                                                              \
	X(FG_CALL_UNLOCK, "unlock")                                                                \
	X(FG_CALL_DEVICE_COUNT, "device_count")                                                    \
	X(FG_CALL_NVML_INIT, "nvml_init")                                                          \
	X(FG_CALL_NVML_COUNT, "nvml_device_count")                                                 \
	X(FG_CALL_NVML_HANDLE, "nvml_handle")                                                      \
	X(FG_CALL_NVML_MEMORY, "nvml_memory")                                                      \
	X(FG_CALL_NVML_PROCESSES, "nvml_processes")                                                \
	X(FG_CALL_NVML_MIG, "nvml_mig")                                                            \
	X(FG_CALL_NVML_PERSISTENCE, "nvml_persistence")                                            \
	X(FG_CALL_NVML_VERSION, "nvml_driver_version")

enum fg_call {
#define X(symbol, name) symbol,
	FG_CALL_TABLE(X)
#undef X
	FG_CALLS
};

enum fg_kernel {
	FG_KERNEL_FILL,     /* word[i] = fg_pattern(a, i) + b */
	FG_KERNEL_ADD,      /* word[i] += a */
	FG_KERNEL_CHECKSUM, /* result[0] = sum of word[i], result[1] = sum of (2i + 1) * word[i] */
	FG_KERNEL_VERIFY,   /* result[0] = how many word[i] != fg_pattern(a, i) + b,
			     * result[1] = the first such i, or the number of words */
	FG_KERNEL_SLEEP,    /* a milliseconds */
	FG_KERNELS
};

enum fg_alloc {
	FG_ALLOC_PLAIN = 0,
	FG_ALLOC_MANAGED = 1, /* UVM: the driver cannot checkpoint it */
	FG_ALLOC_CONTEXT = 2, /* what a context itself costs */
};

/* What a restore thread is told to do wrong. */
enum fg_lie {
	FG_LIE_NOTHING = 0,
	FG_LIE_KEEP_CONNECTION = 1, /* checkpoint: copy, but keep connection, devices and VRAM */
	FG_LIE_KEEP_DEVICE = 2,     /* checkpoint: keep the /dev/nvidia* descriptors */
	FG_LIE_HALF_RESTORE = 4,    /* restore: the second half of every allocation stays empty */
	FG_LIE_WRONG_DEVICE = 8,    /* restore: onto the next GPU */
};

/* CUprocessState; the driver's own numbers. */
enum fg_state { FG_RUNNING, FG_LOCKED, FG_CHECKPOINTED, FG_FAILED };

/* CUresult; the driver's own numbers, as far as the emulation uses them. */
enum fg_code {
	FG_SUCCESS = 0,
	FG_INVALID_VALUE = 1,
	FG_OUT_OF_MEMORY = 2,
	FG_NOT_INITIALIZED = 3,
	FG_NO_DEVICE = 100,
	FG_INVALID_DEVICE = 101,
	FG_OPERATING_SYSTEM = 304,
	FG_ILLEGAL_STATE = 401,
	FG_NOT_FOUND = 500,
	FG_NOT_READY = 600,
	FG_ILLEGAL_ADDRESS = 700,
	FG_NOT_SUPPORTED = 801,
	FG_UNKNOWN = 999,
};

/* Little-endian machines only, as the emulation is for x86-64 and arm64. */
struct fg_gpu_info {
	uint8_t uuid[16];
	uint64_t total, used; /* bytes */
	uint32_t minor;       /* N of /dev/nvidiaN */
	uint32_t mig;         /* 0 or 1 */
	uint32_t persistence; /* 0 or 1 */
	uint32_t pad;
	char name[64];
};
_Static_assert(sizeof(struct fg_gpu_info) == 112, "part of the protocol");

struct fg_proc_info {
	uint64_t pid; /* as the daemon sees it */
	uint64_t bytes;
};

struct fg_msg {
	uint16_t type;
	uint16_t n; /* arguments */
	uint64_t seq;
	uint64_t arg[FG_ARGS_MAX]; /* those beyond n are 0 */
	const void *data;          /* borrowed */
	size_t len;
	int fd; /* a descriptor that travels with it, -1 = none */
};

/*
 * Takes one message from the n bytes at p; at most max bytes may follow a header. *ret borrows
 * from p, its fd is -1; *ret_used is its length. Returns 0, FG_MORE (too few bytes yet) or
 * -EBADMSG.
 */
#define FG_MORE 1
int fg_decode(const uint8_t *p, size_t n, size_t max, struct fg_msg *ret, size_t *ret_used);
/* Writes header and arguments of m (not its data) to p, which has room for FG_HEAD_MAX. Returns
 * their length. */
#define FG_HEAD_MAX (FG_HEADER + FG_ARGS_MAX * 8)
size_t fg_encode_head(const struct fg_msg *m, uint8_t *p);

const char *fg_call_name(enum fg_call call);
/* The call of that name, or FG_CALLS. */
enum fg_call fg_call_of(const char *name);
/* "RUNNING" and so on, "?" for another number. */
const char *fg_state_name(int state);

/* The pattern that memory is filled with; both sides compute it, each for itself. */
static inline uint64_t fg_pattern(uint64_t seed, uint64_t i)
{
	uint64_t x = (i + seed) * 0x9e3779b97f4a7c15u;

	x ^= x >> 32;
	return x * 0xd6e8feb86659fd93u;
}

#define FG_UUID_TEXT 41 /* "GPU-8-4-4-4-12" and NUL */
void fg_uuid_text(const uint8_t *uuid, char *buf);
/* Reads "GPU-...", 0 or -EINVAL. */
int fg_uuid_parse(const char *text, uint8_t *ret);

#endif
