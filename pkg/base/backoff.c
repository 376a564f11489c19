/* SPDX-License-Identifier: Apache-2.0 */
#include "base/backoff.h"

#include <stdint.h>
#include <sys/random.h>

nsec_t backoff_next(struct backoff *b)
{
	nsec_t pause = b->pause < b->max ? b->pause : b->max;
	uint32_t draw;

	b->pause = pause < b->max / 2 ? pause * 2 : b->max;
	/* Without entropy, early at boot: the whole pause. */
	if (getrandom(&draw, sizeof(draw), GRND_NONBLOCK) != (ssize_t)sizeof(draw))
		return pause;
	return pause / 2 + (nsec_t)((double)(pause - pause / 2) * ((double)draw / UINT32_MAX));
}
