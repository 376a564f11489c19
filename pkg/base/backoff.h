/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pauses between attempts: each about twice the one before, up to a maximum, each drawn at random
 * from the upper half of its length, so that many who failed together do not come back together.
 */
#ifndef KYB_BASE_BACKOFF_H
#define KYB_BASE_BACKOFF_H

#include "base/time.h"

struct backoff {
	nsec_t pause; /* the next one, before the draw */
	nsec_t max;
};

#define BACKOFF(first_, max_)                                                                      \
	(struct backoff)                                                                           \
	{                                                                                          \
		.pause = (first_), .max = (max_)                                                   \
	}

/* How long to wait before the next attempt: between half of the pause and all of it, in ns. */
nsec_t backoff_next(struct backoff *b);

#endif
