/* SPDX-License-Identifier: Apache-2.0 */
#include "pack/part.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define SUFFIX ".part"
#define DIGITS 8

int part_name(const char *name, char *ret)
{
	uint32_t v;
	int n;

	if (!*name || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return -EINVAL;
	if (getrandom(&v, sizeof(v), 0) != sizeof(v))
		return -EIO;
	n = snprintf(ret, PART_NAME_MAX, ".%s.%08x" SUFFIX, name, v);
	return n < 0 || n >= PART_NAME_MAX ? -ENAMETOOLONG : 0;
}

bool part_is(const char *name)
{
	size_t n = strlen(name), tail = strlen(SUFFIX) + DIGITS + 1;

	return name[0] == '.' && n > tail + 1 && strcmp(name + n - strlen(SUFFIX), SUFFIX) == 0 &&
	       name[n - tail] == '.' &&
	       strspn(name + n - tail + 1, "0123456789abcdef") == DIGITS;
}
