/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the emulated GPU computes: one stream of work a connection, in order, the streams of all
 * connections in turns of one slice.
 */
#ifndef FAKEGPUD_KERNEL_H
#define FAKEGPUD_KERNEL_H

#include "daemon/vram.h"

struct stream {
	struct list queue; /* struct kernel, the running one first */
	unsigned int n;
	struct work work;
	struct timer sleep;
};

void stream_init(struct stream *st);
/* Drops all work, answers nobody. */
void stream_cancel(struct stream *st);

/* FG_LAUNCH's arguments. Returns the code to answer with. */
enum fg_code kernel_launch(struct session *s, const struct fg_msg *m);
/* Answers seq once all work before it has ended; frees v, if not NULL, then. Returns FG_SUCCESS or
 * the code to answer with at once. */
enum fg_code kernel_fence(struct session *s, struct vram *v, uint64_t seq);

#endif
