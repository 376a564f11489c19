/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mount of a container as it was at its dump: what a restore has to know of those that do not
 * come out of config.json, and of those that may be missing from the new one. Written by the shim,
 * which sees the mounts, kept by the agent in kybernate.json, and handed back to the shim that
 * restores.
 */
#ifndef KYB_BASE_MOUNT_RECORD_H
#define KYB_BASE_MOUNT_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MOUNT_RECORDS_MAX 512

/* Text is printable ASCII without blanks: CRIU's configuration file takes no other. */
struct mount_record {
	const char *destination; /* in the container, absolute and free of links */
	const char *kind;	 /* MOUNT_DIRECTORY, MOUNT_FILE or MOUNT_NODE */
	const char *type;	 /* of the file system */
	const char *root;	 /* what of that file system is mounted */
	const char *source;	 /* the same on the host of then; NULL = not known */
	uint64_t size;		 /* of a regular file */
	bool external;		 /* CRIU has to be given it; else it makes it anew by itself */
	bool configured;	 /* by config.json, so that the OCI runtime gives it */
	bool in_root;		 /* its place is in the root file system, not in another mount */
};

#define MOUNT_DIRECTORY "directory"
#define MOUNT_FILE	"file" /* also a socket */
#define MOUNT_NODE	"node" /* a device */

struct mount_records {
	struct mount_record *items;
	size_t n;
};

#endif
