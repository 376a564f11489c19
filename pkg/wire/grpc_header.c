/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/grpc_header.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/num.h"

#define TIMEOUT_DIGITS 8
#define TIMEOUT_VALUE_MAX 99999999U

static const struct unit {
	char name;
	nsec_t nsec;
} units[] = {
	{ 'n', 1 },
	{ 'u', NSEC_PER_USEC },
	{ 'm', NSEC_PER_MSEC },
	{ 'S', NSEC_PER_SEC },
	{ 'M', 60 * NSEC_PER_SEC },
	{ 'H', 3600 * NSEC_PER_SEC },
};

static bool starts_with(struct bytes b, const char *s)
{
	return b.n >= strlen(s) && memcmp(b.p, s, strlen(s)) == 0;
}

int grpc_timeout_parse(struct bytes text, nsec_t *ret)
{
	uint64_t value;

	if (text.n < 2 || text.n > TIMEOUT_DIGITS + 1)
		return -EINVAL;
	if (num_parse_n((const char *)text.p, text.n - 1, TIMEOUT_VALUE_MAX, &value) < 0)
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++)
		if (text.p[text.n - 1] == (uint8_t)units[i].name) {
			if (__builtin_mul_overflow(value, units[i].nsec, ret))
				*ret = NSEC_NEVER; /* 99999999H are 11,000 years */
			return 0;
		}
	return -EINVAL;
}

void grpc_timeout_format(nsec_t left, char text[GRPC_TIMEOUT_MAX])
{
	const struct unit *u = units;
	nsec_t value = left;

	while (value > TIMEOUT_VALUE_MAX && u + 1 < units + ARRAY_SIZE(units)) {
		u++;
		value = left / u->nsec + (left % u->nsec != 0);
	}
	if (value > TIMEOUT_VALUE_MAX)
		value = TIMEOUT_VALUE_MAX;
	(void)snprintf(text, GRPC_TIMEOUT_MAX, "%u%c", (unsigned int)value, u->name);
}

bool grpc_content_type_ok(struct bytes text)
{
	static const char plain[] = "application/grpc", proto[] = "application/grpc+proto";

	if (starts_with(text, proto))
		text = (struct bytes){ text.p + strlen(proto), text.n - strlen(proto) };
	else if (starts_with(text, plain))
		text = (struct bytes){ text.p + strlen(plain), text.n - strlen(plain) };
	else
		return false;
	return text.n == 0 || text.p[0] == ';';
}

int grpc_percent_encode(struct bytes text, struct buf *out)
{
	size_t n = text.n;
	uint8_t c;
	int r = 0;

	while (r == 0 && bytes_u8(&text, &c) == 0) {
		/* HTTP strips spaces at either end of a value. */
		bool outer = text.n == 0 || text.n == n - 1;

		if (c >= 0x20 && c <= 0x7e && c != '%' && !(c == ' ' && outer))
			r = buf_append_u8(out, c);
		else
			r = buf_printf(out, "%%%02X", c);
	}
	return r;
}

static int hex_digit(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* Takes "XX" off text; -1, and nothing taken, when it is not there. */
static int take_hex(struct bytes *text)
{
	struct bytes b = *text;
	uint8_t high, low;

	if (bytes_u8(&b, &high) || bytes_u8(&b, &low) || hex_digit(high) < 0 || hex_digit(low) < 0)
		return -1;
	*text = b;
	return hex_digit(high) << 4 | hex_digit(low);
}

int grpc_percent_decode(struct bytes text, struct buf *out)
{
	uint8_t c;
	int r = 0;

	while (r == 0 && bytes_u8(&text, &c) == 0) {
		int v = c == '%' ? take_hex(&text) : -1;

		if (v >= 0)
			c = (uint8_t)v;
		/* It is used as a string: one that ends early would hide what follows. */
		r = buf_append_u8(out, c ? c : '?');
	}
	return r;
}

static const char base64_digits[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int grpc_base64_encode(struct bytes raw, struct buf *out)
{
	uint32_t bits = 0;
	unsigned int have = 0;
	uint8_t c;
	int r = 0;

	while (r == 0 && bytes_u8(&raw, &c) == 0) {
		bits = bits << 8 | c;
		for (have += 8; r == 0 && have >= 6; have -= 6)
			r = buf_append_u8(out, (uint8_t)base64_digits[bits >> (have - 6) & 63]);
	}
	if (r == 0 && have)
		r = buf_append_u8(out, (uint8_t)base64_digits[bits << (6 - have) & 63]);
	return r;
}

int grpc_base64_decode(struct bytes text, struct buf *out)
{
	uint32_t bits = 0;
	unsigned int have = 0;
	size_t pad = 0;
	uint8_t c;
	int r = 0;

	if (text.n % 4 == 0)
		for (; pad < 2 && text.n && text.p[text.n - 1] == '='; pad++)
			text.n--;
	if (text.n % 4 == 1)
		return -EINVAL;
	while (r == 0 && bytes_u8(&text, &c) == 0) {
		const char *digit = c ? strchr(base64_digits, c) : NULL;

		if (!digit)
			return -EINVAL;
		bits = bits << 6 | (uint32_t)(digit - base64_digits);
		have += 6;
		if (have >= 8) {
			have -= 8;
			r = buf_append_u8(out, (uint8_t)(bits >> have));
		}
	}
	return r;
}

enum rpc_code grpc_status_parse(struct bytes text)
{
	uint64_t v;

	if (num_parse_n((const char *)text.p, text.n, RPC_UNAUTHENTICATED, &v) < 0)
		return RPC_UNKNOWN;
	return (enum rpc_code)v;
}

enum rpc_code grpc_code_of_http_status(unsigned int status)
{
	switch (status) {
	case 400:
	case 431:
		return RPC_INTERNAL;
	case 401:
		return RPC_UNAUTHENTICATED;
	case 403:
		return RPC_PERMISSION_DENIED;
	case 404:
		return RPC_UNIMPLEMENTED;
	case 429:
	case 502:
	case 503:
	case 504:
		return RPC_UNAVAILABLE;
	default:
		return RPC_UNKNOWN;
	}
}

enum rpc_code grpc_code_of_h2_error(uint32_t error)
{
	switch (error) {
	case 0x7: /* REFUSED_STREAM */
		return RPC_UNAVAILABLE;
	case 0x8: /* CANCEL */
		return RPC_CANCELED;
	case 0xb: /* ENHANCE_YOUR_CALM */
		return RPC_RESOURCE_EXHAUSTED;
	case 0xc: /* INADEQUATE_SECURITY */
		return RPC_PERMISSION_DENIED;
	default:
		return RPC_INTERNAL;
	}
}

bool grpc_metadata_name_ok(const char *name)
{
	static const char *const own[] = { "te", "content-type", "user-agent", "connection", "host",
					   "content-length", "transfer-encoding", "upgrade",
					   "keep-alive", "proxy-connection" };

	if (!*name || strncmp(name, "grpc-", 5) == 0)
		return false;
	if (name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-.")])
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		if (strcmp(name, own[i]) == 0)
			return false;
	return true;
}

bool grpc_metadata_is_bin(struct bytes name)
{
	return name.n > 4 && bytes_is((struct bytes){ name.p + name.n - 4, 4 }, "-bin");
}

bool grpc_metadata_value_ok(struct bytes value)
{
	for (size_t i = 0; i < value.n; i++)
		if (value.p[i] < 0x20 || value.p[i] > 0x7e)
			return false;
	return value.n == 0 || (value.p[0] != ' ' && value.p[value.n - 1] != ' ');
}
