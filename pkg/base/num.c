/* SPDX-License-Identifier: Apache-2.0 */
#include "base/num.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/cleanup.h"

int num_parse_n(const char *s, size_t n, uint64_t max, uint64_t *ret)
{
	bool over = false;
	uint64_t v = 0;

	if (n == 0)
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9')
			return -EINVAL;
		over = over || __builtin_mul_overflow(v, 10, &v) ||
		       __builtin_add_overflow(v, (uint64_t)(s[i] - '0'), &v);
	}
	if (over || v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

int num_parse(const char *s, uint64_t max, uint64_t *ret)
{
	return num_parse_n(s, strlen(s), max, ret);
}

int num_parse_duration(const char *s, nsec_t *ret)
{
	static const struct {
		const char *name;
		nsec_t unit;
	} units[] = { { "ms", NSEC_PER_MSEC },
		      { "us", NSEC_PER_USEC },
		      { "s", NSEC_PER_SEC },
		      { "m", 60 * NSEC_PER_SEC },
		      { "h", 3600 * NSEC_PER_SEC } };
	nsec_t sum = 0, part;

	if (strcmp(s, "0") == 0) {
		*ret = 0;
		return 0;
	}
	if (!*s)
		return -EINVAL;
	while (*s) {
		size_t digits = strspn(s, "0123456789"), letters, i;
		uint64_t v;
		int r = num_parse_n(s, digits, UINT64_MAX, &v);

		if (r < 0)
			return r;
		s += digits;
		letters = strcspn(s, "0123456789");
		for (i = 0; i < ARRAY_SIZE(units); i++)
			if (strlen(units[i].name) == letters &&
			    strncmp(units[i].name, s, letters) == 0)
				break;
		if (i == ARRAY_SIZE(units))
			return -EINVAL;
		if (__builtin_mul_overflow(v, units[i].unit, &part) ||
		    __builtin_add_overflow(sum, part, &sum))
			return -ERANGE;
		s += letters;
	}
	*ret = sum;
	return 0;
}
