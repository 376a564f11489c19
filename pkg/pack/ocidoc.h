/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The documents of an archive: those that make it an OCI image (image-spec 1.1: image-layout,
 * image index, image manifest, image configuration), and those that readers of checkpoints expect
 * in its layer. An image here has one manifest and one layer.
 */
#ifndef KYB_PACK_OCIDOC_H
#define KYB_PACK_OCIDOC_H

#include <stdint.h>

#include "artifact/digest.h"
#include "artifact/metadata.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/error.h"

#define OCIDOC_LAYOUT   "oci-layout"
#define OCIDOC_INDEX    "index.json"
#define OCIDOC_BLOBS    "blobs/sha256/"
#define OCIDOC_NAME_MAX (sizeof(OCIDOC_BLOBS) + DIGEST_HEX_MAX)
/* Of each document. */
#define OCIDOC_TEXT_MAX ((size_t)256 << 10)

/* What a descriptor says of a blob. */
struct ocidoc_blob {
	struct digest digest;
	uint64_t size;
};

/* The name of a blob in the archive; ret holds OCIDOC_NAME_MAX bytes and is returned. */
const char *ocidoc_blob_name(const struct digest *d, char *ret);

/*
 * Writers append to out, which is empty. Return 0, or -ENOMEM with err. The annotations of the
 * manifest are those of checkpointctl's lib/annotations.go; containerd recognises a checkpoint by
 * the container's name in them.
 */
int ocidoc_write_layout(struct buf *out, struct error *err);
int ocidoc_write_index(const struct metadata *m, const struct ocidoc_blob *manifest,
		       struct buf *out, struct error *err);
int ocidoc_write_manifest(const struct metadata *m, const struct ocidoc_blob *config,
			  const struct ocidoc_blob *layer, struct buf *out, struct error *err);
/* diff: the digest of the layer before it was compressed. */
int ocidoc_write_config(const struct metadata *m, const struct digest *diff, struct buf *out,
			struct error *err);
/* config.dump and status.dump, as far as metadata.json knows what belongs into them. */
int ocidoc_write_config_dump(const struct metadata *m, struct buf *out, struct error *err);
int ocidoc_write_status_dump(const struct metadata *m, struct buf *out, struct error *err);

/*
 * Readers take what the writers write, with or without other members. Return 0; -EBADMSG with
 * REASON_IMAGE_CORRUPT; or -ENOMEM.
 */
int ocidoc_read_layout(struct bytes text, struct error *err);
int ocidoc_read_index(struct bytes text, struct ocidoc_blob *ret_manifest, struct error *err);
int ocidoc_read_manifest(struct bytes text, struct ocidoc_blob *ret_config,
			 struct ocidoc_blob *ret_layer, struct error *err);
int ocidoc_read_config(struct bytes text, struct digest *ret_diff, struct error *err);

#endif
