/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of a checkpoint are called in an archive. The names are those by which containerd,
 * CRI-O and checkpointctl know the parts of a checkpoint (checkpointctl's lib/metadata.go):
 *
 *	metadata.json, manifest.json   first: what follows is judged by them
 *	checkpoint/                    criu/
 *	rootfs-diff.tar                rootfs-diff.tar.zst, compressed still: readers look into it
 *	spec.dump                      spec.json
 *	dump.log, stats-dump           logs/dump.log, logs/stats-dump
 *	config.dump, status.dump       made for these readers, not part of the checkpoint
 *
 * Everything else keeps its name.
 */
#ifndef KYB_PACK_MEMBER_H
#define KYB_PACK_MEMBER_H

#include <stdbool.h>
#include <stddef.h>

/* So that one tar header of 512 bytes holds it, and there is no second way to say a name. */
#define MEMBER_NAME_MAX 99

#define MEMBER_IMAGES "checkpoint/"
#define MEMBER_CONFIG "config.dump"
#define MEMBER_STATUS "status.dump"

/*
 * The name in the archive of a file that has that path in a checkpoint. ret holds
 * MEMBER_NAME_MAX + 1 bytes. Returns 0; -ENAMETOOLONG; or -EEXIST when it would take the place of
 * another one.
 */
int member_name(const char *path, char *ret);

/* Is it one of those that are made for other readers? */
bool member_is_extra(const char *name);

#endif
