/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stable reason codes: why a GPU operation was refused or failed. One list for gRPC, logs,
 * metrics and events. The numbers are those of enum Reason in api/agent/v1/agent.proto (a unit
 * test compares them) and never change; docs/reason-codes.md is generated from this table.
 */
#ifndef KYB_BASE_REASON_H
#define KYB_BASE_REASON_H

#include <stdbool.h>

/* X(name, number, transient, what it means, what to do about it) */
#define REASON_TABLE(X)                                                                            \
	X(NONE, 0, false, "no reason given", "see the message")                                    \
	X(AGENT_UNAVAILABLE, 1, true,                                                              \
	  "the node agent did not answer on its socket",                                           \
	  "start kybernate-agent on this node and check that agent_socket names its socket")       \
	X(SEAT_MISMATCH, 2, false,                                                                 \
	  "GPU group or seat of the request do not agree with the container or the node",          \
	  "compare KYB_GPU_GROUP, KYB_GPU_SEAT and the kybernate.io annotations of the pod")       \
	X(DRIVER_TOO_OLD, 3, false,                                                                \
	  "the NVIDIA driver has no checkpoint API",                                               \
	  "install driver branch 570 or newer on this node")                                       \
	X(DRIVER_MISMATCH, 4, false,                                                               \
	  "the checkpoint was made under another driver version",                                  \
	  "restore on a node that runs the driver version named in the message")                   \
	X(LOCK_TIMEOUT, 5, true,                                                                   \
	  "a CUDA process could not be locked in time",                                            \
	  "a kernel runs for longer than the lock time-out: raise timeouts.lock or retry")         \
	X(VRAM_SHORT, 6, true,                                                                     \
	  "too little free GPU memory to restore into",                                            \
	  "free GPU memory on this node, or restore elsewhere")                                    \
	X(MEM_LIMIT, 7, false,                                                                     \
	  "the container's memory limit leaves no room for the GPU memory",                        \
	  "raise the memory limit to at least RSS plus the GPU memory in use")                     \
	X(UVM_IN_USE, 8, false,                                                                    \
	  "a process uses CUDA managed memory, which the driver cannot checkpoint",                \
	  "run the workload without managed (UVM) memory")                                         \
	X(MIG, 9, false,                                                                           \
	  "the GPU is partitioned by MIG, which the driver cannot checkpoint",                     \
	  "run the workload on a whole GPU")                                                       \
	X(IO_URING, 10, false,                                                                     \
	  "a process holds an io_uring, which CRIU cannot dump",                                   \
	  "switch io_uring off in the workload (for Node.js: UV_USE_IO_URING=0)")                  \
	X(LEFTOVER_DEVICE_FD, 11, false,                                                           \
	  "a process holds a device that stays open over a CUDA checkpoint",                       \
	  "close the descriptor named in the message before the checkpoint")                       \
	X(CRIU_DUMP_FAILED, 12, false,                                                             \
	  "CRIU could not dump the container; it runs on",                                         \
	  "read the CRIU lines in the message, then the log named there")                          \
	X(CRIU_RESTORE_FAILED, 13, false,                                                          \
	  "CRIU could not restore the container",                                                  \
	  "read the CRIU lines in the message, then the log named there")                          \
	X(IMAGE_CORRUPT, 14, false,                                                                \
	  "the checkpoint is damaged or was changed",                                              \
	  "restore another checkpoint and delete this one")                                        \
	X(IMAGE_MISSING, 15, false,                                                                \
	  "there is no such checkpoint in the store",                                              \
	  "list the checkpoints with: kybernatectl list")                                          \
	X(STORE_FULL, 16, true,                                                                    \
	  "the checkpoint store has no room",                                                      \
	  "delete checkpoints or enlarge the store")                                               \
	X(TIMEOUT, 17, true,                                                                       \
	  "a phase did not end in its time",                                                       \
	  "the message names the phase: raise its time-out, or retry")                             \
	X(CUDA_LOCK_FAILED, 18, true,                                                              \
	  "the driver refused to lock a CUDA process",                                             \
	  "the message names the process and the driver's error")                                  \
	X(CUDA_SAVE_FAILED, 19, false,                                                             \
	  "the driver could not move GPU memory to the host; it was rolled back",                  \
	  "the message names the process and the driver's error")                                  \
	X(CUDA_RESTORE_FAILED, 20, true,                                                           \
	  "the driver could not bring GPU memory back",                                            \
	  "the message names the process; kybernatectl status tells whether it is tried again")    \
	X(CUDA_STATE_LOST, 21, false,                                                              \
	  "the driver reports that a process's GPU state cannot be recovered",                     \
	  "restore the container from its last checkpoint")                                        \
	X(CUDA_STATE_WRONG, 22, false,                                                             \
	  "a process is not in the state that the driver reported",                                \
	  "report the driver version: the operation was undone")                                   \
	X(WORKER_FAILED, 23, true,                                                                 \
	  "the CUDA worker died or hung and was replaced",                                         \
	  "retry; if it comes again, read the agent's log")                                        \
	X(DRIVER_UNAVAILABLE, 24, false,                                                           \
	  "libcuda.so.1 cannot be loaded or initialised on this node",                             \
	  "check the driver installation: kybernatectl doctor")                                    \
	X(BUSY, 25, true,                                                                          \
	  "another operation runs on this container",                                              \
	  "wait for it to end, then retry")                                                        \
	X(REF_INVALID, 26, false,                                                                  \
	  "the checkpoint reference is not a valid name",                                          \
	  "a reference is a name in the store: letters, digits, '.', '_' and '-', at most 128")    \
	X(REF_EXISTS, 27, false,                                                                   \
	  "a checkpoint of that name exists",                                                      \
	  "choose another name, or delete that checkpoint first")                                  \
	X(STORE_FAILED, 28, false,                                                                 \
	  "the checkpoint store cannot be read or written",                                        \
	  "check the store's file system and the agent's log")                                     \
	X(POD_MISMATCH, 29, false,                                                                 \
	  "the process does not belong to the pod named",                                          \
	  "name the container's own pod")                                                          \
	X(CONTAINER_MISSING, 30, false,                                                            \
	  "there is no such container or it does not run",                                         \
	  "check the id and the containerd namespace")                                             \
	X(CONTAINERD_FAILED, 31, true,                                                             \
	  "containerd refused a call or cannot be reached",                                        \
	  "the message holds containerd's answer")                                                 \
	X(RUNTIME_FAILED, 32, false,                                                               \
	  "the OCI runtime refused a command",                                                     \
	  "the message holds the runtime's answer")                                                \
	X(PERMISSION, 33, false,                                                                   \
	  "the caller may not do this",                                                            \
	  "call as the user the agent runs as")                                                    \
	X(CANCELED, 34, true,                                                                      \
	  "the caller ended the operation; it was undone",                                         \
	  "retry when ready")                                                                      \
	X(CONFIG_INVALID, 35, false,                                                               \
	  "a setting or annotation has a value that is not allowed",                               \
	  "correct the setting named in the message")                                              \
	X(GPU_MISMATCH, 36, false,                                                                 \
	  "the GPUs here do not fit those of the checkpoint",                                      \
	  "restore onto as many GPUs of the same chip")                                            \
	X(ROOTFS_FAILED, 37, false,                                                                \
	  "the container's changed files could not be saved or put back",                          \
	  "the message names the file and the cause")                                              \
	X(SHIM_GONE, 38, true,                                                                     \
	  "the shim left in the middle of the operation; the GPU side was undone",                 \
	  "check the shim's and containerd's log")                                                 \
	X(NOT_GPU, 39, false,                                                                      \
	  "the container has no GPU, so there is no GPU operation to do",                          \
	  "use the container runtime's plain checkpoint")                                          \
	X(INTERNAL, 40, false, "a bug in kybernate", "please report it with the agent's log")      \
	X(CUDA_QUERY_FAILED, 41, true,                                                             \
	  "the driver did not tell the CUDA state of a process",                                   \
	  "the message names the process and the driver's error")                                  \
	X(MOUNT_MISMATCH, 42, false,                                                               \
	  "a mount that the container had at its checkpoint has no counterpart here",              \
	  "install the same driver and toolkit here, or give the new container the mount named in " \
	  "the message")

enum reason {
#define X(name, number, transient, what, todo) REASON_##name = (number),
	REASON_TABLE(X)
#undef X
};

#define REASON_NAME_MAX 32 /* with the NUL */

/* "LOCK_TIMEOUT" and so on; "REASON_?" for a number not in the table. Never NULL. */
const char *reason_name(enum reason reason);
/* One sentence each, without a full stop: what it means, what to do. Never NULL. */
const char *reason_meaning(enum reason reason);
const char *reason_advice(enum reason reason);
/* May the same call succeed later without anybody changing anything? Decides retries. */
bool reason_is_transient(enum reason reason);
/* The reason named name, or REASON_NONE. */
enum reason reason_from_name(const char *name);
/*
 * The first "NAME: " in a text, NAME being a reason other than NONE, at its beginning or behind
 * another ": ": the form in which a reason crosses an API that knows texts only, with whatever was
 * put in front of it on the way ("failed to create shim task: SEAT_MISMATCH: ..."). Returns what
 * follows it, in text, and sets *ret; NULL when there is none.
 */
const char *reason_in_text(const char *text, enum reason *ret);

#endif
