/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What agent and CUDA worker say to each other: one packet a message on a SOCK_SEQPACKET
 * socketpair, every message of a kind of one fixed size, so that a packet is whole or wrong and
 * nothing has to be reassembled. Both run on one machine and are installed together: the packets
 * are these structs in the machine's own byte order, without padding.
 *
 * The agent asks, each request with an id of its own; the worker answers each exactly once, in
 * whatever order the driver's calls end. The agent has at most GPU_CALLS_MAX requests open. The
 * first request is HELLO; before its answer the worker answers nothing else but PING.
 *
 * struct gpu_packet stays as it is in all versions, so that two that differ can say so.
 */
#ifndef KYB_GPU_PROTOCOL_H
#define KYB_GPU_PROTOCOL_H

#include <stdbool.h>

#include "base/bytes.h"
#include "gpu/cuda_abi.h"

#define GPU_PROTOCOL_MAGIC   0x5950474bU /* "KGPY" */
#define GPU_PROTOCOL_VERSION 1

#define GPU_WORKER_FD 3 /* the worker's end of the socketpair */

#define GPU_CALLS_MAX     1024 /* requests open at a time, and the bound of the worker's pool */
#define GPU_DEVICES_MAX   32   /* GPUs of one machine */
#define GPU_PROCESSES_MAX 512  /* processes with GPU memory that MEMORY reports */
#define GPU_BYTES_UNKNOWN UINT64_MAX
#define GPU_NUMBER_UNKNOWN (-1)

enum gpu_op {
	GPU_OP_HELLO = 1,  /* opens driver and NVML, once; struct gpu_hello */
	GPU_OP_PING = 2,   /* answered by the worker's main thread: it lives */
	GPU_OP_PROBE = 3,  /* is pid a CUDA process? tid = its restore thread, 0 = it is none */
	GPU_OP_STATE = 4,  /* state */
	GPU_OP_LOCK = 5,   /* within timeout_ms */
	GPU_OP_CHECKPOINT = 6,
	GPU_OP_RESTORE = 7, /* with pairs */
	GPU_OP_UNLOCK = 8,
	GPU_OP_MEMORY = 9, /* struct gpu_memory */
	/* Drops the request `target` if the driver has not been called for it. No answer of its
	 * own; the request dropped is answered GPU_STATUS_CANCELED. */
	GPU_OP_CANCEL = 10,
};
#define GPU_OP_LAST GPU_OP_CANCEL

enum gpu_status {
	GPU_STATUS_OK = 0,           /* the driver did it */
	GPU_STATUS_DRIVER = 1,       /* the driver refused: code and name */
	GPU_STATUS_GONE = 2,         /* there is no such process (any more) */
	GPU_STATUS_NOT_LEADER = 3,   /* the number is that of a thread, not of a process */
	GPU_STATUS_REUSED = 4,       /* another process has that number now: start_time differs */
	GPU_STATUS_UNAVAILABLE = 5,  /* no libcuda, or it cannot be initialised: text */
	GPU_STATUS_TOO_OLD = 6,      /* it has no checkpoint API: text */
	GPU_STATUS_NO_PAIRS = 7,     /* pairs were given to a driver that cannot take them */
	GPU_STATUS_CANCELED = 8,
	GPU_STATUS_BUSY = 9,         /* too many requests open, or out of memory or threads */
	GPU_STATUS_VERSION = 10,     /* the worker speaks another version: that of the packet */
	GPU_STATUS_FAILED = 11,      /* the worker could not do its own part: text */
};
#define GPU_STATUS_LAST GPU_STATUS_FAILED

/* How every packet begins. */
struct gpu_packet {
	uint32_t magic;
	uint16_t version;
	uint16_t op; /* enum gpu_op; a reply repeats that of its request */
	uint64_t id;
};

struct gpu_request {
	struct gpu_packet head;
	int32_t pid;         /* 0 where no process is concerned */
	uint32_t timeout_ms; /* LOCK: at least 1 */
	/* When the process started, in clock ticks since boot (procfs_start_time()), so that a
	 * reused pid is not taken for it; 0 = not known, not checked. */
	uint64_t start_time;
	uint64_t target; /* CANCEL: the id of a request */
	uint32_t n_pairs;
	uint32_t reserved;
	struct cuda_gpu_pair pairs[GPU_DEVICES_MAX];
};

#define GPU_NAME_MAX 64
#define GPU_TEXT_MAX 256

struct gpu_reply {
	struct gpu_packet head;
	uint32_t status;  /* enum gpu_status */
	int32_t code;     /* CUresult of the last driver call; 0 where none was made */
	uint32_t state;   /* STATE: CUprocessState, unchecked: newer drivers know more */
	int32_t tid;      /* PROBE */
	uint64_t took_ns; /* in the driver, or in NVML */
	uint32_t running; /* driver calls under way, this one not counted */
	uint32_t queued;  /* requests that wait for a thread or for their process */
	uint32_t gone;    /* 1: the process has exited, seen after the driver's error */
	uint32_t reserved;
	char name[GPU_NAME_MAX]; /* of code, as the driver names it */
	char text[GPU_TEXT_MAX]; /* one line for a person; "" where there is nothing to say */
};

enum gpu_device_flags {
	GPU_DEVICE_CUDA = 1 << 0,              /* the CUDA driver lists it */
	GPU_DEVICE_NVML = 1 << 1,              /* NVML lists it */
	GPU_DEVICE_MIG_KNOWN = 1 << 2,         /* NVML says whether MIG is on, */
	GPU_DEVICE_MIG = 1 << 3,               /* and it is */
	GPU_DEVICE_PERSISTENCE_KNOWN = 1 << 4, /* the same for persistence mode */
	GPU_DEVICE_PERSISTENCE = 1 << 5,
	GPU_DEVICE_PROCESSES_CUT = 1 << 6, /* not all of its processes are reported */
};
#define GPU_DEVICE_FLAGS_ALL 0x7f

struct gpu_device {
	struct cuda_uuid uuid;
	int32_t cuda_index; /* of cuDeviceGet() in PCI order, or GPU_NUMBER_UNKNOWN */
	int32_t nvml_index; /* as nvidia-smi numbers them */
	int32_t minor;      /* /dev/nvidiaN */
	uint32_t flags;     /* enum gpu_device_flags */
	uint64_t total, free, used; /* bytes, or GPU_BYTES_UNKNOWN */
	char name[96];
};

struct gpu_process {
	int32_t pid;
	uint32_t device; /* index into devices */
	uint64_t bytes;  /* or GPU_BYTES_UNKNOWN */
};

/* What NVML says now; without NVML the devices that CUDA lists, sizes unknown. */
struct gpu_memory {
	uint32_t n_devices, n_processes;
	struct gpu_device devices[GPU_DEVICES_MAX];
	struct gpu_process processes[GPU_PROCESSES_MAX];
};

/* Who the worker is. With status UNAVAILABLE or TOO_OLD too: whatever could be found out. */
struct gpu_hello {
	int32_t worker_pid;
	int32_t cuda_version;    /* cuDriverGetVersion(), 0 = unknown */
	uint32_t caps;           /* enum gpu_cap */
	uint32_t nvml;           /* 1: NVML is there */
	uint64_t open_ns;        /* what opening took, cuInit() for the most part */
	char driver_version[32]; /* "580.159.04": of the kernel module; "" = unknown */
	char library[256];       /* the libcuda in use, symlinks resolved: that has its version */
	char nvml_text[GPU_TEXT_MAX]; /* why there is no NVML */
	struct gpu_memory memory;
};

struct gpu_hello_reply {
	struct gpu_reply reply;
	struct gpu_hello hello;
};

struct gpu_memory_reply {
	struct gpu_reply reply;
	struct gpu_memory memory;
};

/* Any reply; the longest packet there is. */
union gpu_any_reply {
	struct gpu_packet head;
	struct gpu_reply reply;
	struct gpu_hello_reply hello;
	struct gpu_memory_reply memory;
};

static_assert(sizeof(struct gpu_packet) == 16, "no padding");
static_assert(sizeof(struct gpu_request) == 48 + 32 * GPU_DEVICES_MAX, "no padding");
static_assert(sizeof(struct gpu_reply) == 56 + GPU_NAME_MAX + GPU_TEXT_MAX, "no padding");
static_assert(sizeof(struct gpu_device) == 152, "no padding");
static_assert(sizeof(struct gpu_process) == 16, "no padding");
static_assert(sizeof(struct gpu_memory) == 8 + 152 * GPU_DEVICES_MAX + 16 * GPU_PROCESSES_MAX,
	      "no padding");
static_assert(sizeof(struct gpu_hello) ==
		      24 + 32 + 256 + GPU_TEXT_MAX + sizeof(struct gpu_memory),
	      "no padding");

/* "lock" and so on, "?" for a number outside the enum. Never NULL. */
const char *gpu_op_name(unsigned int op);
/* Does the request concern one process? */
bool gpu_op_has_pid(unsigned int op);
/* "RUNNING" and so on, "?" for a number that is none of CUprocessState. Never NULL. */
const char *gpu_state_name(unsigned int state);

/*
 * Puts a text into an array of a packet: cut to fit, control bytes replaced, the rest zero.
 */
void gpu_text_set(char *array, size_t size, const char *text);
#define GPU_TEXT_SET(array, text) gpu_text_set(array, sizeof(array), text)

/* A device of which nothing is known. */
void gpu_device_init(struct gpu_device *dev);
/* An empty request or reply with its head filled. */
void gpu_request_init(struct gpu_request *req, enum gpu_op op, uint64_t id);
void gpu_reply_init(struct gpu_reply *reply, unsigned int op, uint64_t id);
/* The size of a reply to op. */
size_t gpu_reply_size(unsigned int op);

/*
 * Reads a packet, all of it checked: size, magic, version, numbers within their bounds, texts
 * ended, words that must be zero. Returns 0, -EBADMSG, or -EPROTONOSUPPORT when it is one of ours
 * but of another version: then the head (of *ret) is filled and nothing else.
 */
int gpu_request_parse(struct bytes packet, struct gpu_request *ret);
int gpu_reply_parse(struct bytes packet, union gpu_any_reply *ret);

#endif
