/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between a program and its helper process that calls mounts_look(), as JSON: the prefixes on the
 * helper's stdin, the records on its stdout.
 */
#ifndef KYB_OCI_MOUNTS_WIRE_H
#define KYB_OCI_MOUNTS_WIRE_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/mount_record.h"
#include "conf/settings.h"

/* Append to out. Return 0, -ENOMEM or -EMSGSIZE (out is full). */
int mounts_wire_put_prefixes(const struct setting_list *prefixes, struct buf *out);
int mounts_wire_put(const struct mount_records *records, struct buf *out);

/* Copies into mem, at most MOUNT_RECORDS_MAX mounts. Return 0 or negative with err. */
int mounts_wire_take_prefixes(struct bytes text, struct arena *mem, struct setting_list *ret,
			      struct error *err);
int mounts_wire_take(struct bytes text, struct arena *mem, struct mount_records *ret,
		     struct error *err);

#endif
