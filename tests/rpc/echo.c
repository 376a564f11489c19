/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/rpc/echo.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/num.h"

void echo_die(const char *what, int r)
{
	(void)fprintf(stderr, "%s: %s\n", what, strerror(-r));
	exit(1);
}

int echo_listen(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	(void)strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 1024) < 0) {
		int r = -errno;

		(void)close(fd);
		return r;
	}
	return fd;
}

size_t echo_number(const char *text)
{
	uint64_t v;

	if (num_parse(text, SIZE_MAX, &v) < 0)
		echo_die(text, -EINVAL);
	return v;
}

char *echo_block(size_t n)
{
	char *block = malloc(n + 1);

	if (!block)
		echo_die("memory", -ENOMEM);
	for (size_t i = 0; i < n; i++)
		block[i] = (char)(i % 251);
	return block;
}
