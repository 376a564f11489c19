/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Structured log lines, logfmt as logrus writes it:
 *   time="2026-11-23T15:22:01.123456789Z" level=info msg="task started" id=web pid=4711
 * containerd copies a shim's lines verbatim into its own log (its log FIFO in the bundle).
 *
 * The message is constant, data goes into fields. Values are quoted and escaped where needed,
 * and cut at LOG_VALUE_MAX. Never log the environment, the arguments or the memory of a workload.
 * A line is written with one write() and dropped when it would block: logging never stalls and
 * never fails. Libraries log at debug at most; programs log once an event.
 */
#ifndef KYB_BASE_LOG_H
#define KYB_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define LOG_VALUE_MAX 1024

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };

struct log_field {
	const char *key; /* NULL ends the list */
	enum { LOG_FIELD_STR, LOG_FIELD_INT } type;
	const char *str;
	int64_t num;
};

#define F_STR(k, v)                                                                                \
	(struct log_field)                                                                         \
	{                                                                                          \
		.key = (k), .type = LOG_FIELD_STR, .str = (v)                                      \
	}
#define F_INT(k, v)                                                                                \
	(struct log_field)                                                                         \
	{                                                                                          \
		.key = (k), .type = LOG_FIELD_INT, .num = (int64_t)(v)                             \
	}
/* The text of a struct error, as the field "error". */
#define F_ERR(e) F_STR("error", error_text(e))

#define log_write(level, ...) log_write_(level, __VA_ARGS__, (struct log_field){ 0 })
#define log_write_(level, msg, ...)                                                                \
	log_fields(level, msg, (const struct log_field[]){ __VA_ARGS__ })

#define log_debug(...)   log_write(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)    log_write(LOG_INFO, __VA_ARGS__)
#define log_warning(...) log_write(LOG_WARNING, __VA_ARGS__)
#define log_error(...)   log_write(LOG_ERROR, __VA_ARGS__)

void log_fields(enum log_level level, const char *msg, const struct log_field *fields);

/* Lines below level are dropped (default LOG_INFO). */
void log_set_level(enum log_level level);
bool log_level_parse(const char *name, enum log_level *ret);
/* Where lines go (default 2). The descriptor is borrowed; -1 = nowhere. */
void log_set_fd(int fd);

#endif
