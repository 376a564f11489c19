/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/uuid.h"

#include <errno.h>
#include <string.h>

static const char digits[] = "0123456789abcdef";

/* Is there a '-' in front of byte i of the text form? 8-4-4-4-12 digits, two a byte. */
static int dash_before(size_t i)
{
	return i == 4 || i == 6 || i == 8 || i == 10;
}

const char *gpu_uuid_format(const struct cuda_uuid *uuid, char buf[GPU_UUID_TEXT_MAX])
{
	char *to = buf;

	memcpy(to, "GPU-", 4);
	to += 4;
	for (size_t i = 0; i < sizeof(uuid->bytes); i++) {
		if (dash_before(i))
			*to++ = '-';
		*to++ = digits[uuid->bytes[i] >> 4];
		*to++ = digits[uuid->bytes[i] & 15];
	}
	*to = 0;
	return buf;
}

static int hex(char c)
{
	const char *at;

	if (c >= 'A' && c <= 'F')
		c = (char)(c - 'A' + 'a');
	at = c ? strchr(digits, c) : NULL;
	return at ? (int)(at - digits) : -1;
}

int gpu_uuid_parse(const char *text, struct cuda_uuid *ret)
{
	struct cuda_uuid uuid;

	if (strncmp(text, "GPU-", 4) != 0 && strncmp(text, "MIG-", 4) != 0)
		return -EINVAL;
	text += 4;
	for (size_t i = 0; i < sizeof(uuid.bytes); i++) {
		int high, low;

		if (dash_before(i) && *text++ != '-')
			return -EINVAL;
		high = hex(text[0]);
		low = high < 0 ? -1 : hex(text[1]); /* not past the end of a short text */
		if (low < 0)
			return -EINVAL;
		uuid.bytes[i] = (uint8_t)(high << 4 | low);
		text += 2;
	}
	if (*text)
		return -EINVAL;
	*ret = uuid;
	return 0;
}
