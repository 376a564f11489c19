/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mounts of a container that its dump and restore need help with.
 *
 * The OCI runtime tells CRIU of the bind mounts in config.json, and of nothing else. What a hook
 * has mounted - NVIDIA's toolkit mounts the driver's libraries, its firmware, device nodes and
 * parts of /proc/driver/nvidia so, one by one - CRIU finds in the container's mount table and
 * cannot explain: "doesn't have a proper root mount" at the dump, "No mapping for" at the restore.
 * Here they are found, recorded, and mapped to what stands in their place where the container is
 * restored. Sources: CRIU repo, criu/mount.c (validate_mounts(), try_resolve_ext_mount()); runc
 * repo, libcontainer/criu_linux.go (addCriuDumpMount(), addMaskPaths(),
 * prepareCriuRestoreMounts()).
 */
#ifndef KYB_OCI_MOUNTS_H
#define KYB_OCI_MOUNTS_H

#include "base/arena.h"
#include "base/error.h"
#include "base/mount_record.h"
#include "conf/settings.h"

/* What the runtimes give CRIU for each mount, "--external mnt[destination]:source". */
struct mount_map {
	const char *destination, *source;
};

struct mount_maps {
	struct mount_map *items;
	size_t n;
};

struct mounts_dump {
	int bundle;		    /* its directory, with the config.json of now */
	const char *root;	    /* of the container: "/proc/PID/root" */
	const char *mountinfo;	    /* "/proc/PID/mountinfo" */
	const char *host_mountinfo; /* "/proc/self/mountinfo" */
	/* A mount whose source on the host does not begin so is none of ours. */
	const struct setting_list *prefixes;
};

/*
 * What is to be recorded, in mem. Blocks as long as a file system among the container's mounts does
 * not answer, which the container can cause, and no signal may end it: to be called in a helper
 * process (mounts_wire.h). Those that are external and not configured have to be given to
 * CRIU (mounts_declare()). Returns 0 or negative with err.
 */
int mounts_look(const struct mounts_dump *where, struct arena *mem, struct mount_records *ret,
		struct error *err);

/* For the dump: each is named by its destination, as the OCI runtimes do. Returns 0 or -ENOMEM. */
int mounts_declare(const struct mount_records *records, struct arena *mem, struct mount_maps *ret);

struct mounts_restore {
	int bundle;	    /* of the new container */
	const char *rootfs; /* of the new container, mounted */
	const struct setting_list *prefixes;
};

/*
 * For the restore: where each of then comes from here, but for those that the new config.json has,
 * which the OCI runtime gives. First everything is looked at, then the places that are missing in
 * the root file system are made. Returns 0 or negative with err (MOUNT_MISMATCH).
 */
int mounts_map(const struct mounts_restore *where, const struct mount_records *then,
	       struct arena *mem, struct mount_maps *ret, struct error *err);

/*
 * Is there a mount in each place where there was one? mountinfo: of the restored container. Returns 0
 * or negative with err (MOUNT_MISMATCH).
 */
int mounts_verify(const char *mountinfo, const struct mount_records *then, struct error *err);

#endif
