/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/time.h"

/* The one process-wide state this project allows itself: where log lines go. */
static struct {
	int fd;
	enum log_level level;
} sink = { .fd = STDERR_FILENO, .level = LOG_INFO };

static const char *const level_names[] = { "debug", "info", "warning", "error" };

/* A line on its way out; fields that do not fit are cut at their end or left out. */
struct line {
	char text[8192];
	size_t n;
};

static size_t room(const struct line *l)
{
	return sizeof(l->text) - 1 - l->n; /* the newline always fits */
}

static void put(struct line *l, const char *s, size_t n)
{
	if (n > room(l))
		n = room(l);
	memcpy(l->text + l->n, s, n);
	l->n += n;
}

static bool plain(const char *s)
{
	static const char ok[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				 "0123456789-._/@^+:,";

	return *s && strspn(s, ok) == strlen(s);
}

static void put_quoted(struct line *l, const char *s)
{
	char esc[8];
	size_t n = 0;

	put(l, "\"", 1);
	/* Stops early enough for a whole escape and for the end of the value. */
	for (; *s && n < LOG_VALUE_MAX && room(l) >= sizeof(esc) + strlen("...\""); s++, n++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			(void)snprintf(esc, sizeof(esc), "\\%c", c);
		else if (c == '\n')
			(void)snprintf(esc, sizeof(esc), "\\n");
		else if (c == '\t')
			(void)snprintf(esc, sizeof(esc), "\\t");
		else if (c < 0x20 || c == 0x7f)
			(void)snprintf(esc, sizeof(esc), "\\x%02x", c);
		else
			(void)snprintf(esc, sizeof(esc), "%c", c);
		put(l, esc, strlen(esc));
	}
	if (*s)
		put(l, "...", 3);
	put(l, "\"", 1);
}

static void put_value(struct line *l, const char *s)
{
	if (plain(s) && strlen(s) < LOG_VALUE_MAX && strlen(s) <= room(l))
		put(l, s, strlen(s));
	else
		put_quoted(l, s);
}

void log_fields(enum log_level level, const char *msg, const struct log_field *fields)
{
	struct line l = { .n = 0 };
	char stamp[TIME_RFC3339_MAX], num[24];
	int saved = errno;

	if (level < sink.level || sink.fd < 0)
		return;
	put(&l, "time=\"", 6);
	(void)time_rfc3339(time_wall(), stamp);
	put(&l, stamp, strlen(stamp));
	put(&l, "\" level=", 8);
	put(&l, level_names[level], strlen(level_names[level]));
	put(&l, " msg=", 5);
	put_quoted(&l, msg);
	for (; fields->key; fields++) {
		if (room(&l) < strlen(fields->key) + 2 + sizeof(num))
			break; /* half a field would be a lie */
		put(&l, " ", 1);
		put(&l, fields->key, strlen(fields->key));
		put(&l, "=", 1);
		if (fields->type == LOG_FIELD_STR) {
			put_value(&l, fields->str ? fields->str : "");
		} else {
			(void)snprintf(num, sizeof(num), "%" PRId64, fields->num);
			put(&l, num, strlen(num));
		}
	}
	l.text[l.n++] = '\n';
	/* EAGAIN (a full FIFO) and EPIPE (its reader gone) drop the line on purpose. */
	if (write(sink.fd, l.text, l.n) < 0)
		errno = saved;
	errno = saved;
}

void log_set_level(enum log_level level)
{
	sink.level = level;
}

bool log_level_parse(const char *name, enum log_level *ret)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(level_names); i++) {
		if (strcmp(name, level_names[i]) == 0) {
			*ret = (enum log_level)i;
			return true;
		}
	}
	return false;
}

void log_set_fd(int fd)
{
	sink.fd = fd;
}
