/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lies where, and which files a manifest covers. Two kinds of directory have one:
 *
 * a checkpoint of the store
 *	metadata.json                what it is; names the digest of
 *	manifest.json                every other file: size, mode, digest
 *	criu/                        an image directory
 *	logs/, rootfs-diff.tar, ...
 *
 * an image directory, the store's or anybody's (containerd's importer allows no sub-directories
 * in it, so it is flat)
 *	kybernate.json               the GPU part; names the digest of
 *	kybernate-manifest.json      every covered file
 *	*.img, descriptors.json      covered
 *	dump.log, stats-dump, ...    not covered: CRIU writes them anew
 *
 * Both describe themselves by a small file, read often, that holds the digest of a large one,
 * read only to verify.
 */
#ifndef KYB_ARTIFACT_LAYOUT_H
#define KYB_ARTIFACT_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>

#define LAYOUT_CRIU "criu" /* the image directory of a checkpoint */
#define LAYOUT_LOGS "logs"

#define LAYOUT_NAME_MAX 128
#define LAYOUT_PATH_MAX (2 * LAYOUT_NAME_MAX + 2)

struct layout {
	const char *description; /* "metadata.json" */
	const char *manifest;
	bool flat;               /* no sub-directories; else one level of them */
};

extern const struct layout layout_checkpoint, layout_image;

/* How a file of a directory stands to its manifest. */
enum coverage {
	COVERED,   /* has to be in it, byte for byte */
	OWN,       /* the description, the manifest, or what a crash left of writing them */
	UNCOVERED, /* may be there or not, and be anything: logs and statistics of CRIU */
	TOLERATED, /* covered when it was there at the sealing; may have come later */
};

/* path is relative to the directory. */
enum coverage layout_coverage(const struct layout *layout, const char *path);

/*
 * A file name that a manifest may hold: 1 to LAYOUT_NAME_MAX of [A-Za-z0-9._-], not starting with
 * '.' or '-'. All names that CRIU and the runtimes use are of this form. Hence nothing hidden,
 * no option, no control character, no "..".
 */
bool layout_name_valid(const char *name);
/* NAME, or DIRECTORY/NAME unless flat. */
bool layout_path_valid(const struct layout *layout, const char *path);

/* Where the description and the manifest are written before they are renamed: ".NAME.tmp". */
#define LAYOUT_TMP_MAX (LAYOUT_NAME_MAX + 8)
const char *layout_tmp_name(const char *name, char *buf);

#endif
