/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of one request: many small allocations, freed at once, with a hard maximum so that a
 * peer cannot make one request cost more. Bounded memory is also what keeps decoders honest: they
 * fail cleanly at the limit.
 */
#ifndef KYB_BASE_ARENA_H
#define KYB_BASE_ARENA_H

#include <stddef.h>

#include "base/cleanup.h"

struct arena_chunk;

struct arena {
	struct arena_chunk *chunks;
	size_t used; /* bytes handed out, padding included */
	size_t max;  /* of these; the process pays at most twice that, and a chunk */
};

#define ARENA_LIMIT(n)                                                                             \
	(struct arena)                                                                             \
	{                                                                                          \
		.max = (n)                                                                         \
	}

/* Zeroed memory aligned for any type, or NULL (out of memory or over the maximum). */
void *arena_alloc(struct arena *a, size_t n);
char *arena_strdup(struct arena *a, const char *s);
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Frees everything; the arena can be used again. */
void arena_done(struct arena *a);

#define _cleanup_arena_ _cleanup_(arena_done)

#endif
