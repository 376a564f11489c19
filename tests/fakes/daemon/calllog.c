/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/calllog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int calllog_init(struct calllog *log)
{
	*log = (struct calllog){ .ring = calloc(CALLLOG_MAX, sizeof(*log->ring)) };
	return log->ring ? 0 : -ENOMEM;
}

void calllog_done(struct calllog *log)
{
	free(log->ring);
	log->ring = NULL;
}

/* Ids go on: an answer to a call from before must not find another call's entry. */
void calllog_clear(struct calllog *log)
{
	memset(log->ring, 0, CALLLOG_MAX * sizeof(*log->ring));
}

struct calllog_moment calllog_now(struct calllog *log)
{
	return (struct calllog_moment){ .tick = ++log->tick, .time = time_now() };
}

struct calllog_entry *calllog_add(struct calllog *log)
{
	uint64_t id = ++log->last;
	struct calllog_entry *e = &log->ring[id % CALLLOG_MAX];

	*e = (struct calllog_entry){
		.id = id,
		.begin = calllog_now(log),
		.code = CALLLOG_UNDER_WAY,
		.real_code = CALLLOG_UNDER_WAY,
	};
	return e;
}

struct calllog_entry *calllog_get(const struct calllog *log, uint64_t id)
{
	struct calllog_entry *e = &log->ring[id % CALLLOG_MAX];

	return id && e->id == id ? e : NULL;
}
