/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a checkpoint is: metadata.json of the store, and kybernate.json, the part of it that
 * travels beside the CRIU images wherever containerd, ctr or kubelet takes them. One struct, two
 * documents; what only metadata.json has is marked (M).
 *
 * Text may be NULL where it is not known. Pointers are borrowed when writing, and lead into the
 * arena after reading.
 */
#ifndef KYB_ARTIFACT_METADATA_H
#define KYB_ARTIFACT_METADATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "artifact/digest.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/mount_record.h"

#define METADATA_PROCESSES_MAX 1024
#define METADATA_GPUS_MAX      32
#define METADATA_FLAGS_MAX     64
#define METADATA_PHASES_MAX    64
#define METADATA_TEXT_MAX      ((size_t)2 << 20)
/* What reading one may take in memory. */
#define METADATA_MEMORY_MAX    ((size_t)8 << 20)

struct metadata_container {
	const char *id;                   /* id_valid() */
	const char *containerd_namespace;
	const char *name;                 /* the CRI's */
	const char *image, *image_digest;
	const char *snapshotter;          /* (M) */
	const char *parent_chain_id;      /* (M) of the snapshot below the writable one */
	const char *runtime;              /* "runc", or a path */
	const char *runtime_type;         /* "io.containerd.kybernate.v1" */
};

struct metadata_pod {
	const char *uid, *name, *namespace, *sandbox_id;
};

/* One CUDA process, as it was at the checkpoint. */
struct metadata_process {
	uint64_t pid;    /* on the host */
	uint64_t ns_pid; /* in the container's pid namespace; the same after a restore */
	const char *name;
	uint64_t vram_bytes;
	const char *const *gpu_uuids; /* each is that of one of the devices */
	size_t n_gpu_uuids;
	uint64_t job; /* its checkpoint job's file is cuda-job-N.bin of the image; 0 = none */
};

struct metadata_device {
	const char *uuid; /* "GPU-..." */
	const char *chip; /* "NVIDIA H100 80GB HBM3" */
	uint64_t memory_bytes;
	const char *node; /* "/dev/nvidia0", in the container as on the host; NULL = not known */
};

struct metadata_gpu {
	const char *driver_version;
	const char *group, *seat, *seat_generation;
	const struct metadata_process *processes;
	size_t n_processes;
	const struct metadata_device *devices;
	size_t n_devices;
};

struct metadata_phase {
	const char *name; /* "vram_save" */
	uint64_t start_us;    /* since the operation began */
	uint64_t duration_us;
	uint64_t bytes;
};

/* What ties a description to the list of files. Filled in by the sealing. */
struct metadata_manifest {
	struct digest sha256; /* of the manifest's text */
	uint64_t files;
	uint64_t bytes; /* of all files in it together */
};

struct metadata {
	const char *ref;            /* (M) ref_valid() */
	const char *created_at;     /* RFC 3339, UTC */
	const char *kybernate_version;
	const char *criu_version;
	const char *const *runtime_flags; /* of the dump; a restore needs the same */
	size_t n_runtime_flags;
	bool exited;                /* the container was ended by the checkpoint */
	struct metadata_container container;
	struct metadata_pod pod;
	struct metadata_gpu gpu;
	const struct mount_record *mounts; /* beyond what config.json tells */
	size_t n_mounts;
	const struct metadata_phase *phases; /* (M) those that had ended when it was sealed */
	size_t n_phases;
	uint64_t duration_us;       /* (M) of the operation, up to the sealing */
	struct metadata_manifest manifest;
};

/*
 * Read and write metadata.json. A read returns 0, -EBADMSG with REASON_IMAGE_CORRUPT, or -ENOMEM;
 * a write 0, -EINVAL with REASON_INTERNAL (a value out of its bounds), or -ENOMEM.
 */
int metadata_read(struct bytes text, struct arena *arena, struct metadata *ret,
		  struct error *err);
int metadata_write(const struct metadata *m, struct buf *out, struct error *err);

/* The same for kybernate.json. What is marked (M) is not written, and NULL when read. */
int metadata_read_image(struct bytes text, struct arena *arena, struct metadata *ret,
			struct error *err);
int metadata_write_image(const struct metadata *m, struct buf *out, struct error *err);

/* The GPU memory of all processes together. */
uint64_t metadata_vram_bytes(const struct metadata *m);

#endif
