/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/worker-private.h"

void worker_config_done(struct gpu_worker_config *c)
{
	if (c->env)
		for (size_t i = 0; c->env[i]; i++)
			free((void *)(uintptr_t)c->env[i]);
	free((void *)(uintptr_t)c->env);
	free((void *)(uintptr_t)c->program);
	free((void *)(uintptr_t)c->libcuda);
	free((void *)(uintptr_t)c->libnvml);
}

static int copy_string(const char *from, const char **ret)
{
	*ret = from ? strdup(from) : NULL;
	return from && !*ret ? -ENOMEM : 0;
}

int worker_config_copy(struct gpu_worker_config *c, const struct gpu_worker_config *from)
{
	const char **env;
	size_t n = 0;
	int r;

	*c = *from;
	if (c->backoff_min == 0)
		c->backoff_min = NSEC_PER_MSEC; /* never without a pause */
	c->program = c->libcuda = c->libnvml = NULL;
	c->env = NULL;
	r = copy_string(from->program, &c->program);
	if (r == 0)
		r = copy_string(from->libcuda, &c->libcuda);
	if (r == 0)
		r = copy_string(from->libnvml, &c->libnvml);
	if (r < 0 || !from->env)
		return r;
	while (from->env[n])
		n++;
	env = calloc(n + 1, sizeof(*env));
	if (!env)
		return -ENOMEM;
	c->env = env;
	for (size_t i = 0; r == 0 && i < n; i++)
		r = copy_string(from->env[i], &env[i]);
	return r;
}
