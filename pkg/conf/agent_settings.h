/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's settings: agent.toml. For people: docs/configuration.md, generated from these
 * tables. */
#ifndef KYB_CONF_AGENT_SETTINGS_H
#define KYB_CONF_AGENT_SETTINGS_H

#include "conf/settings.h"

#define AGENT_SETTINGS_ENV  "KYBERNATE_AGENT_CONFIG"
#define AGENT_SETTINGS_FILE "/etc/kybernate/agent.toml"

/* X(type, member = key, default, documentation) */
#define AGENT_SETTINGS(X)                                                                          \
	X(PATH, socket, "\"/run/kybernate/agent.sock\"", "The socket that the agent listens on.")  \
	X(PATH, store, "\"/var/lib/kybernate/store\"", "Where checkpoints are kept.")              \
	X(PATH, journal, "\"/run/kybernate/journal\"",                                             \
	  "What is being done to which container, for the case that the agent dies. Best on a "    \
	  "tmpfs: it is written before each step, and is worth nothing after a reboot.")           \
	X(PATH, containerd, "\"/run/containerd/containerd.sock\"",                                 \
	  "containerd's gRPC socket, for the verbs of `kybernatectl`.")                            \
	X(PATH, kubelet, "\"/var/lib/kubelet/pod-resources/kubelet.sock\"",                        \
	  "kubelet's pod-resources socket: where it exists, what kubelet says of a pod's GPUs has " \
	  "to agree.")                                                                             \
	X(PATH, worker, "\"/usr/libexec/kybernate/kybernate-cuda-worker\"",                        \
	  "The program that talks to the driver.")                                                 \
	X(STRING, libcuda, "\"libcuda.so.1\"",                                                     \
	  "What the worker loads: a name for the dynamic loader, or an absolute path.")            \
	X(UIDS, allowed_uids, "[0]", "Only processes of these users are answered.")                \
	X(LEVEL, log_level, "\"info\"", "The least important lines that are logged.")              \
	X(COUNT, limits.connections, "1024", "Clients at a time: a shim with an operation, a tool.")  \
	X(COUNT, limits.operations, "512", "Checkpoints, restores and suspends at a time.")        \
	X(COUNT, limits.criu, "2", "CRIU dumps and restores at a time on this node.")              \
	X(SIZE, limits.store_size, "0",                                                            \
	  "Most bytes that the store may hold; 0: as much as its file system has room for.")       \
	X(DURATION, timeouts.preflight, "\"10s\"",                                                 \
	  "Checks before anything is touched. Up to half of it a CUDA worker that is being "       \
	  "replaced is waited for.")                                                               \
	X(DURATION, timeouts.quiesce, "\"15s\"",                                                   \
	  "The shim thaws, drains and syncs the container. More than `timeouts.quiesce` of the "   \
	  "shim.")                                                                                 \
	X(DURATION, timeouts.lock, "\"30s\"",                                                      \
	  "Until all CUDA processes of a container are locked; kernels that run must end in it.")  \
	X(DURATION, timeouts.vram_save, "\"5m\"", "GPU memory to host memory, all processes.")     \
	X(DURATION, timeouts.criu_dump, "\"20m\"",                                                 \
	  "CRIU's dump, its wait for a free slot included. More than `timeouts.criu_dump` of the " \
	  "shim.")                                                                                 \
	X(DURATION, timeouts.rootfs, "\"10m\"",                                                    \
	  "The container's changed files, saved or put back.")                                     \
	X(DURATION, timeouts.seal, "\"15m\"", "Hashing and writing back a checkpoint.")            \
	X(DURATION, timeouts.vram_restore, "\"5m\"", "Host memory to GPU memory, all processes.")  \
	X(DURATION, timeouts.unlock, "\"30s\"", "Until all CUDA processes run again.")             \
	X(DURATION, timeouts.exit, "\"1m\"",                                                       \
	  "The shim ends the container after a checkpoint with exit.")                             \
	X(DURATION, timeouts.criu_restore, "\"20m\"",                                              \
	  "CRIU's restore, its wait for a free slot included.")                                    \
	X(DURATION, timeouts.verify, "\"15m\"", "Hashing a checkpoint before a restore.")          \
	X(DURATION, timeouts.create, "\"2m\"", "A new container at containerd, for a restore.")    \
	X(DURATION, timeouts.shim_return, "\"5s\"",                                                \
	  "After a restart of the agent in the middle of an operation: how long its shim may take " \
	  "to come back before the operation is undone without it.")                               \
	X(DURATION, timeouts.operation, "\"30m\"",                                                 \
	  "A whole operation, where the caller set no deadline.")

/* One [[group]]: GPUs that belong together, and the seats on them. */
#define AGENT_GROUP_SETTINGS(X)                                                                    \
	X(NAME, name, NULL, "The group's name, as in `KYB_GPU_GROUP`.")                            \
	X(NAMES, seats, NULL, "The seats that the group owns, as in `KYB_GPU_SEAT`.")              \
	X(NAMES, gpu_uuids, NULL,                                                                  \
	  "The group's GPUs, as `nvidia-smi -L` prints them. A GPU belongs to one group only.")    \
	X(PATHS, device_paths, NULL,                                                               \
	  "The device nodes of these GPUs; control devices such as `/dev/nvidiactl` need not be "  \
	  "named.")

struct agent_group {
	const char *name;
	struct setting_list seats, gpu_uuids, device_paths;
};

struct agent_settings {
	struct arena mem;
	const char *socket, *store, *journal, *containerd, *kubelet, *worker, *libcuda;
	struct setting_uids allowed_uids;
	enum log_level log_level;
	struct {
		uint32_t connections, operations, criu;
		uint64_t store_size; /* bytes; 0 = no limit */
	} limits;
	struct {
		nsec_t preflight, quiesce, lock, vram_save, criu_dump, rootfs, seal, vram_restore,
			unlock, exit, criu_restore, verify, create, shim_return, operation;
	} timeouts;
	struct agent_group *groups;
	size_t n_groups;
};

/* As their counterparts of shim_settings.h; named: the value of AGENT_SETTINGS_ENV, or NULL. */
int agent_settings_load(const char *named, struct agent_settings *ret, struct error *err);
int agent_settings_parse(struct bytes text, struct agent_settings *ret, struct error *err);
void agent_settings_done(struct agent_settings *s);

/* The group of that name, or NULL. */
const struct agent_group *agent_settings_group(const struct agent_settings *s, const char *name);

#endif
