/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/bootstrap.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "api/containerd/options.pb-c.h"
#include "base/path.h"
#include "oci/unpack.h"

#define UNPACK_MEM_MAX (4 * BOOTSTRAP_MAX)
#define STRINGS_MAX    ((size_t)64 << 10)
#define READ_STEP      4096

/* Waits until fd can be read. Returns 0, -ETIMEDOUT or -errno. */
static int readable(int fd, nsec_t deadline)
{
	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		nsec_t now = time_now(), left = deadline > now ? deadline - now : 0;
		int ms = left / NSEC_PER_MSEC >= INT32_MAX ? INT32_MAX
							   : (int)(left / NSEC_PER_MSEC);
		int r = poll(&p, 1, ms);

		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return -errno;
		if (time_now() >= deadline)
			return -ETIMEDOUT;
	}
}

int bootstrap_read(int fd, nsec_t deadline, struct buf *out, struct error *err)
{
	for (;;) {
		int r = readable(fd, deadline);
		uint8_t step[READ_STEP];
		ssize_t n;

		if (r < 0)
			return error_sys(err, r, "read the bootstrap parameters");
		n = read(fd, step, sizeof(step));
		if (n == 0)
			return 0;
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		r = n < 0 ? -errno : buf_append(out, step, (size_t)n);
		if (r < 0)
			return error_sys(err, r == -EMSGSIZE ? -EFBIG : r,
					 "read the bootstrap parameters");
	}
}

static bool same_id(const char *given, const char *named)
{
	return named ? strcmp(given, named) == 0 : id_valid(given);
}

/* containerd's levels are logrus's in steps of four; between two, the less important one. */
static enum log_level level_of(int32_t level)
{
	if (level < 0)
		return LOG_DEBUG;
	if (level < 4)
		return LOG_INFO;
	return level < 8 ? LOG_WARNING : LOG_ERROR;
}

static int from_any(struct bytes input, struct bootstrap *b, struct error *err)
{
	_cleanup_arena_ struct arena scratch = ARENA_LIMIT(UNPACK_MEM_MAX);
	const Ctd__Any *any = unpack(&ctd__any__descriptor, input, &scratch);

	if (!any)
		return error_set(err, -EINVAL,
				 "the input of start is neither BootstrapParams nor an Any");
	return runtime_options_parse(any->type_url, bytes_of(any->value.data, any->value.len),
				     &b->options, err);
}

static int keep_strings(const Options__BootstrapParams *p, struct bootstrap *b)
{
	const struct {
		const char *from;
		const char **to;
	} strings[] = {
		{ p->instance_id, &b->id },
		{ p->namespace_, &b->namespace },
		{ p->containerd_ttrpc_address, &b->ttrpc_address },
		{ p->containerd_grpc_address, &b->grpc_address },
		{ p->socket_dir, &b->socket_dir },
	};

	for (size_t i = 0; i < ARRAY_SIZE(strings); i++) {
		*strings[i].to = arena_strdup(&b->mem, strings[i].from);
		if (!*strings[i].to)
			return -ENOMEM;
	}
	return 0;
}

/* The first extension that holds runtime options; others are for others. */
static int from_params(const Options__BootstrapParams *p, struct bootstrap *b, struct error *err)
{
	int r = keep_strings(p, b);

	if (r < 0)
		return error_sys(err, r, "read the bootstrap parameters");
	b->params = true;
	b->log_level = level_of(p->log_level);
	for (size_t i = 0; i < p->n_extensions; i++) {
		const Ctd__Any *any = p->extensions[i]->value;

		if (any && runtime_options_type(any->type_url))
			return runtime_options_parse(any->type_url,
						     bytes_of(any->value.data, any->value.len),
						     &b->options, err);
	}
	return 0;
}

int bootstrap_parse(struct bytes input, const char *id, const char *namespace,
		    struct bootstrap *ret, struct error *err)
{
	_cleanup_arena_ struct arena scratch = ARENA_LIMIT(UNPACK_MEM_MAX);
	struct bootstrap b = { .mem = ARENA_LIMIT(STRINGS_MAX),
			       .id = "",
			       .namespace = "",
			       .log_level = LOG_INFO,
			       .ttrpc_address = "",
			       .grpc_address = "",
			       .socket_dir = "" };
	const Options__BootstrapParams *p;
	int r = 0;

	runtime_options_init(&b.options);
	if (input.n > BOOTSTRAP_MAX)
		return error_set(err, -EINVAL, "the input of start is too large");
	p = input.n ? unpack(&options__bootstrap_params__descriptor, input, &scratch) : NULL;
	if (p && same_id(p->instance_id, id) && same_id(p->namespace_, namespace))
		r = from_params(p, &b, err);
	else if (input.n)
		r = from_any(input, &b, err);
	if (r < 0)
		bootstrap_done(&b);
	else
		*ret = b;
	return r;
}

void bootstrap_done(struct bootstrap *b)
{
	runtime_options_done(&b->options);
	arena_done(&b->mem);
}
