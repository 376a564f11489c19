/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/fg_proto.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static uint64_t get(const uint8_t *p, unsigned int bytes)
{
	uint64_t v = 0;

	for (unsigned int i = 0; i < bytes; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

static uint8_t *put(uint8_t *p, uint64_t v, unsigned int bytes)
{
	for (unsigned int i = 0; i < bytes; i++)
		*p++ = (uint8_t)(v >> (8 * i));
	return p;
}

int fg_decode(const uint8_t *p, size_t n, size_t max, struct fg_msg *ret, size_t *ret_used)
{
	struct fg_msg m = { .fd = -1 };
	size_t len;

	if (n < FG_HEADER)
		return FG_MORE;
	len = get(p, 4);
	m.type = (uint16_t)get(p + 4, 2);
	m.n = (uint16_t)get(p + 6, 2);
	m.seq = get(p + 8, 8);
	if (len > max || m.n > FG_ARGS_MAX || (size_t)m.n * 8 > len || !m.type ||
	    m.type >= FG_TYPE_END)
		return -EBADMSG;
	if (n - FG_HEADER < len)
		return FG_MORE;
	for (unsigned int i = 0; i < m.n; i++)
		m.arg[i] = get(p + FG_HEADER + (size_t)i * 8, 8);
	m.data = p + FG_HEADER + (size_t)m.n * 8;
	m.len = len - (size_t)m.n * 8;
	*ret = m;
	*ret_used = FG_HEADER + len;
	return 0;
}

size_t fg_encode_head(const struct fg_msg *m, uint8_t *p)
{
	uint8_t *at = put(p, (uint64_t)m->n * 8 + m->len, 4);

	at = put(at, m->type, 2);
	at = put(at, m->n, 2);
	at = put(at, m->seq, 8);
	for (unsigned int i = 0; i < m->n; i++)
		at = put(at, m->arg[i], 8);
	return (size_t)(at - p);
}

static const char *const call_names[FG_CALLS] = {
#define X(symbol, name) [symbol] = (name),
	FG_CALL_TABLE(X)
#undef X
};

const char *fg_call_name(enum fg_call call)
{
	return (unsigned int)call < FG_CALLS ? call_names[call] : "?";
}

enum fg_call fg_call_of(const char *name)
{
	for (unsigned int i = 0; i < FG_CALLS; i++)
		if (strcmp(call_names[i], name) == 0)
			return (enum fg_call)i;
	return FG_CALLS;
}

const char *fg_state_name(int state)
{
	static const char *const names[] = {
		[FG_RUNNING] = "RUNNING",
		[FG_LOCKED] = "LOCKED",
		[FG_CHECKPOINTED] = "CHECKPOINTED",
		[FG_FAILED] = "FAILED",
	};

	return state >= FG_RUNNING && state <= FG_FAILED ? names[state] : "?";
}

/* A '-' follows the 4th, 6th, 8th and 10th byte. */
static int dash_after(unsigned int byte)
{
	return byte == 3 || byte == 5 || byte == 7 || byte == 9;
}

void fg_uuid_text(const uint8_t *uuid, char *buf)
{
	static const char hex[] = "0123456789abcdef";
	char *at = buf;

	memcpy(at, "GPU-", 4);
	at += 4;
	for (unsigned int i = 0; i < 16; i++) {
		*at++ = hex[uuid[i] >> 4];
		*at++ = hex[uuid[i] & 15];
		if (dash_after(i))
			*at++ = '-';
	}
	*at = '\0';
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int fg_uuid_parse(const char *text, uint8_t *ret)
{
	uint8_t uuid[16];

	if (strncmp(text, "GPU-", 4) != 0)
		return -EINVAL;
	text += 4;
	for (unsigned int i = 0; i < 16; i++) {
		int high = hex_digit(text[0]);
		int low = high < 0 ? -1 : hex_digit(text[1]);

		if (low < 0)
			return -EINVAL;
		uuid[i] = (uint8_t)(high << 4 | low);
		text += 2;
		if (dash_after(i) && *text++ != '-')
			return -EINVAL;
	}
	if (*text)
		return -EINVAL;
	memcpy(ret, uuid, sizeof(uuid));
	return 0;
}
