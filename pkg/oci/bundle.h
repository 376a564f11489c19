/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a shim needs to know of a bundle's config.json, and nothing else of it: who the container
 * is, how it is cut off from its surroundings, and whether it has a GPU. A spec of megabytes leaves
 * a kilobyte or two behind. The environment of the workload is looked at for four names only;
 * nothing else of it is ever kept.
 * Sources: opencontainers/runtime-spec config.md and config-linux.md; containerd
 * internal/cri/annotations, cmd/containerd-shim-runc-v2/manager/manager_linux.go (group labels).
 */
#ifndef KYB_OCI_BUNDLE_H
#define KYB_OCI_BUNDLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"
#include "conf/settings.h"

/* containerd's gRPC messages, which bring the spec, end at 16 MiB. */
#define BUNDLE_CONFIG_MAX     ((size_t)16 << 20)

/*
 * X(ID, name behind "kybernate.io/", allowed values, what it does). Each may carry the name of one
 * container of the pod behind a dot ("kybernate.io/restore-from.trainer"), which then wins over the
 * plain one. docs/annotations.md is generated from this table.
 */
#define KYB_ANNOTATION_PREFIX "kybernate.io/"
#define KYB_ANNOTATIONS(X)                                                                         \
	X(GPU_GROUP, "gpu-group", "a name, equal to `KYB_GPU_GROUP`",                              \
	  "The group of GPUs that the container belongs to.")                                      \
	X(GPU_SEAT, "gpu-seat", "a name, equal to `KYB_GPU_SEAT`",                                 \
	  "The container's seat in its group.")                                                    \
	X(RESTORE_FROM, "restore-from", "a checkpoint reference",                                  \
	  "Create the container from this checkpoint of the node's store instead of starting it "  \
	  "afresh. If it cannot be restored, the container fails; it never starts cold.")          \
	X(PAUSE, "pause", "`freeze` (default), `suspend`",                                         \
	  "`suspend`: the Task API's Pause moves GPU memory to host memory and releases the GPU "  \
	  "before the container is frozen; Resume brings it back.")                                \
	X(ON_STOP, "on-stop", "`signal` (default), `checkpoint`",                                  \
	  "`checkpoint`: the first SIGTERM to the container becomes a checkpoint with exit, "      \
	  "inside "                                                                                \
	  "the pod's grace period. If that fails, the signal is delivered as usual.")

/* X(ID, name, what it is) */
#define KYB_ENVIRONMENT(X)                                                                         \
	X(GPU_GROUP, "KYB_GPU_GROUP", "The group of GPUs, as the device plugin assigned it.")      \
	X(GPU_SEAT, "KYB_GPU_SEAT", "The seat in that group, as the device plugin assigned it.")   \
	X(SEAT_GENERATION, "KYB_SEAT_GEN",                                                         \
	  "How often the seat has been assigned; passed on to the agent.")                         \
	X(VISIBLE_DEVICES, "NVIDIA_VISIBLE_DEVICES",                                               \
	  "GPUs by index or UUID, or `all`. Empty, `void` and `none` mean no GPU.")

enum kyb_annotation {
#define X(id, name, values, doc) ANNOTATION_##id,
	KYB_ANNOTATIONS(X)
#undef X
		ANNOTATION_COUNT
};

enum kyb_env {
#define X(id, name, doc) ENV_##id,
	KYB_ENVIRONMENT(X)
#undef X
		ENV_COUNT
};

struct bundle_strings {
	const char **items;
	size_t n;
};

/* A line of a user namespace's mapping. */
struct id_map {
	uint32_t inside, outside, count;
};

struct bundle_id_maps {
	struct id_map *items;
	size_t n;
};

/* Of a device node in the spec; known = false for a bind mount. */
struct bundle_node {
	uint32_t major, minor;
	bool known;
};

/* Strings are NULL where the spec does not have them. */
struct bundle {
	struct arena mem;
	const char *group; /* what a shim is shared by: its label, else the CRI sandbox */
	const char *sandbox_id, *container_name, *pod_uid, *pod_name, *pod_namespace;
	bool is_sandbox; /* the CRI's pause container: annotations of the pod do not concern it */
	bool terminal;
	const char *rootfs; /* as in the spec: relative to the bundle, or absolute */
	bool rootfs_readonly;
	const char *cgroups_path; /* as in the spec; its form depends on the cgroup driver */
	const char *systemd_subgroup; /* annotation run.oci.systemd.subgroup, which is crun's */
	bool own_pid_namespace;   /* else shared with the host, the pod or another container */
	bool user_namespace;
	struct bundle_id_maps uid_maps, gid_maps;
	int64_t memory_limit;              /* bytes; 0 = none */
	bool gpu;                          /* the spec gives the container a GPU */
	struct bundle_strings gpu_devices; /* paths of its GPU devices, as the spec has them */
	struct bundle_node *gpu_nodes;     /* as many */
	const char *env[ENV_COUNT];
	const char *annotation[ANNOTATION_COUNT];
	/* Keys that begin as ours but are none of ours, at most BUNDLE_UNKNOWN_MAX: worth a
	 * warning. */
	struct bundle_strings unknown;
};

#define BUNDLE_UNKNOWN_MAX 8

/*
 * Reads config.json in the directory bundle_fd. gpu_prefixes: paths that begin so are GPU devices
 * (shim_settings, gpu.device_prefixes). Returns 0; -EBADMSG: not a spec; -EFBIG, -ENOENT and other
 * -errno; -E2BIG: what is to be kept is absurdly large. Free with bundle_done() after success.
 *
 * What annotations and environment say is not judged here, so that `start` and `delete` work for
 * every container: see bundle_intent() and bundle_seat().
 */
int bundle_read(int bundle_fd, const struct setting_list *gpu_prefixes, struct bundle *ret,
		struct error *err);
/* The same from the text of a config.json. */
int bundle_parse(struct bytes text, const struct setting_list *gpu_prefixes, struct bundle *ret,
		 struct error *err);
/* Harmless on a zeroed bundle. */
void bundle_done(struct bundle *b);

/* What the pod's annotations ask for; pointers into the bundle. */
struct bundle_intent {
	const char *restore_from; /* a valid reference, or NULL */
	bool suspend_on_pause;
	bool checkpoint_on_stop;
};

/* Call this in Create. Returns 0, or -EINVAL with REASON_CONFIG_INVALID or REASON_REF_INVALID. */
int bundle_intent(const struct bundle *b, struct bundle_intent *ret, struct error *err);

/* Who the container is to the node's GPUs; "" where neither environment nor annotation say. */
struct bundle_seat {
	const char *group, *seat;
};

/*
 * Environment (the device plugin's word) and annotation (the user's) must agree where there are
 * both. Call this before a GPU operation. Returns 0, or -EPERM with REASON_SEAT_MISMATCH.
 */
int bundle_seat(const struct bundle *b, struct bundle_seat *ret, struct error *err);

/* NVIDIA_VISIBLE_DEVICES, split at its commas, in mem; none where it names no GPU. 0 or -ENOMEM. */
int bundle_visible_devices(const struct bundle *b, struct arena *mem, struct bundle_strings *ret);

#endif
