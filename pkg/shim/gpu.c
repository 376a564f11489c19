/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/gpu.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "oci/criu_log.h"

#define COPY_MAX ((size_t)8 << 20)
#define LAST_WORD (30 * NSEC_PER_SEC)

int gpu_request(const struct container *c, enum agent_kind kind, struct arena *mem,
		struct agent_request *req, struct error *err)
{
	const struct bundle *b = &c->bundle;
	struct bundle_strings visible;
	struct bundle_seat seat;
	int r = bundle_seat(b, &seat, err);

	if (r < 0)
		return r;
	r = bundle_visible_devices(b, mem, &visible);
	if (r < 0)
		return error_set(err, r, "no memory for the list of visible devices");
	*req = (struct agent_request){
		.kind = kind,
		.container_id = c->id,
		.ns = c->shim->ns,
		.bundle = c->path,
		.pod_uid = b->pod_uid,
		.pod_name = b->pod_name,
		.pod_namespace = b->pod_namespace,
		.sandbox_id = b->sandbox_id,
		.container_name = b->container_name,
		.gpu_group = seat.group,
		.gpu_seat = seat.seat,
		.seat_generation = b->env[ENV_SEAT_GENERATION],
		.group_annotation = b->annotation[ANNOTATION_GPU_GROUP],
		.seat_annotation = b->annotation[ANNOTATION_GPU_SEAT],
		.visible_devices = visible.items,
		.n_visible_devices = visible.n,
		.device_paths = b->gpu_devices.items,
		.n_device_paths = b->gpu_devices.n,
		.runtime = c->rt.binary,
		.task_pid = c->init.pid,
		.gpu = b->gpu,
	};
	return 0;
}

uint64_t gpu_timeout_ms(const struct ttrpc_call *call)
{
	nsec_t deadline = call ? ttrpc_call_deadline(call) : NSEC_NEVER, now = time_now();

	if (deadline == NSEC_NEVER)
		return 0;
	return deadline > now + NSEC_PER_MSEC ? (deadline - now) / NSEC_PER_MSEC : 1;
}

nsec_t gpu_stream_deadline(const struct container *c, const struct ttrpc_call *call)
{
	nsec_t limit = time_add(time_now(), c->shim->settings.timeouts.operation);
	nsec_t deadline = call ? ttrpc_call_deadline(call) : NSEC_NEVER;

	/* What the agent undoes after the deadline must still reach us as orders. */
	return time_add(deadline < limit ? deadline : limit,
			c->shim->settings.timeouts.cuda_restore + LAST_WORD);
}

bool gpu_restores(const struct container *c)
{
	char path[PATH_MAX];

	if (c->bundle.gpu || c->intent.restore_from)
		return true;
	return c->checkpoint && PATH_PRINTF(path, "%s/kybernate.json", c->checkpoint) == 0 &&
	       access(path, F_OK) == 0;
}

/* --- flags ---------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	size_t dump, restore; /* offsets of the two bools */
} flag_table[] = {
#define F(name, member)                                                                            \
	{                                                                                          \
		name, offsetof(struct runtime_checkpoint, member),                                 \
			offsetof(struct runtime_restore, member)                                   \
	}
	F("tcp-established", tcp_established),
	F("ext-unix-sk", ext_unix_sk),
	F("shell-job", shell_job),
	F("file-locks", file_locks),
#undef F
};

size_t gpu_flags_name(const struct runtime_checkpoint *args, const char *flags[GPU_FLAGS_MAX])
{
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(flag_table); i++)
		if (*(const bool *)((const char *)args + flag_table[i].dump))
			flags[n++] = flag_table[i].name;
	return n;
}

void gpu_flags_apply(char *const *flags, size_t n, struct runtime_restore *args)
{
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < ARRAY_SIZE(flag_table); k++)
			if (strcmp(flags[i], flag_table[k].name) == 0)
				*(bool *)((char *)args + flag_table[k].restore) = true;
}

/* --- the store ------------------------------------------------------------------------------- */

int gpu_hold_images(const char *image_path, struct error *err)
{
	_cleanup_close_ int fd = -1, dir = open(image_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int r = 0;

	if (dir >= 0)
		fd = openat(dir, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || flock(fd, LOCK_SH | LOCK_NB) < 0)
		r = -errno;
	if (r < 0)
		return error_reason(err, REASON_IMAGE_MISSING, r, "hold the checkpoint of %s: %s",
				    image_path, strerror(-r));
	return TAKE_FD(fd);
}

void gpu_let_go(int *hold)
{
	if (!*hold)
		return;
	(void)flock(*hold, LOCK_UN); /* it fails for what is no open file only */
	(void)close(*hold);
	*hold = 0;
}

/* --- logs ----------------------------------------------------------------------------------- */

static void copy_log(const struct container *c, const char *from, const char *to)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT(COPY_MAX);
	int r = file_read(AT_FDCWD, from, &text);

	if (r == 0)
		r = file_write(AT_FDCWD, to, buf_bytes(&text).p, buf_len(&text), 0600, FILE_PLAIN);
	if (r < 0)
		log_warning("CRIU's log could not be kept", F_STR("container", c->id),
			    F_STR("log", from), F_STR("err", strerror(-r)));
}

bool gpu_criu_failure(const struct container *c, const char *work_path, bool dump,
		      struct gpu_failure *ret, struct error *err)
{
	const char *name = dump ? "dump.log" : "restore.log";
	struct error found = ERROR_NULL;
	char log[PATH_MAX], copy[PATH_MAX];
	struct criu_digest digest;

	if (ret)
		*ret = (struct gpu_failure){ .log_path = "" };
	if (PATH_PRINTF(log, "%s/%s", work_path, name) < 0 ||
	    PATH_PRINTF(copy, "%s/criu-%s", c->path, name) < 0)
		return false;
	if (criu_log_read(AT_FDCWD, log, dump ? CRIU_LOG_DUMP : CRIU_LOG_RESTORE, &digest) < 0)
		return false; /* CRIU did not get as far as to write one: what we have says why */
	copy_log(c, log, copy);
	(void)criu_digest_error(&digest, copy, &found);
	for (unsigned int i = 0; i < digest.n_lines; i++)
		log_warning("criu", F_STR("container", c->id), F_STR("line", digest.lines[i].text));
	if (err->reason == REASON_NONE || err->reason == REASON_RUNTIME_FAILED)
		*err = found;
	if (ret) {
		ret->digest = digest;
		(void)PATH_PRINTF(ret->log_path, "%s", log); /* both PATH_MAX */
	}
	return digest.passes;
}

_Static_assert(CRIU_LOG_LINES <= AGENT_DETAIL_MAX, "every line of a digest has its place");

struct agent_detail gpu_failure_detail(const struct gpu_failure *f)
{
	struct agent_detail d = { .log_path = *f->log_path ? f->log_path : NULL };

	for (unsigned int i = 0; i < f->digest.n_lines; i++)
		d.lines[d.n_lines++] = f->digest.lines[i].text;
	return d;
}

void gpu_keep_dump_log(const struct container *c, const char *work_path, const char *image_path)
{
	char log[PATH_MAX], copy[PATH_MAX];

	if (PATH_PRINTF(log, "%s/dump.log", work_path) < 0 ||
	    PATH_PRINTF(copy, "%s/dump.log", image_path) < 0)
		return;
	if (access(log, F_OK) == 0 && access(copy, F_OK) < 0)
		copy_log(c, log, copy);
}
