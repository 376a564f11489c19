/* SPDX-License-Identifier: Apache-2.0 */
/* Is what passes by the content that the manifest says of a file? */
#ifndef KYB_PACK_FILECHECK_H
#define KYB_PACK_FILECHECK_H

#include <stddef.h>
#include <stdint.h>

#include "artifact/digest.h"
#include "artifact/manifest.h"
#include "base/error.h"

struct filecheck {
	struct digester *digester; /* borrowed */
	const struct manifest_file *want;
	uint64_t at;
};

/*
 * Begin, any number of add, end. Return 0; -EBADMSG with REASON_IMAGE_CORRUPT as soon as it cannot
 * be that content any more; or another -errno with REASON_STORE_FAILED.
 */
int filecheck_begin(struct filecheck *f, struct digester *digester,
		    const struct manifest_file *want, struct error *err);
int filecheck_add(struct filecheck *f, const void *p, size_t n, struct error *err);
int filecheck_end(struct filecheck *f, struct error *err);

#endif
