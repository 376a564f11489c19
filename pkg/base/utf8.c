/* SPDX-License-Identifier: Apache-2.0 */
#include "base/utf8.h"

#include <stdbool.h>
#include <string.h>

size_t utf8_next(const unsigned char *s, size_t n, uint32_t *ret)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t len = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	uint32_t c = len == 1 ? s[0] : s[0] & (0x7fU >> len);

	if (len == 0 || len > n || s[0] > 0xf4)
		return 0;
	for (size_t i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3fU);
	}
	if (c < least[len] || (c >= 0xd800 && c <= 0xdfff) || c > 0x10ffff)
		return 0;
	*ret = c;
	return len;
}

/* The last bytes of a text that was too long: the beginning of a character. */
static bool cut_off(const unsigned char *s, size_t n)
{
	size_t len = s[0] < 0xc2 || s[0] > 0xf4 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;

	if (n >= len)
		return false;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return false;
	return true;
}

void utf8_mend(char *text)
{
	unsigned char *s = (unsigned char *)text;
	size_t n = strlen(text);
	uint32_t c;

	while (n > 0) {
		size_t len = utf8_next(s, n, &c);

		if (len == 0 && cut_off(s, n)) {
			*s = 0;
			return;
		}
		if (len == 0) {
			*s = '?';
			len = 1;
		}
		s += len;
		n -= len;
	}
}
