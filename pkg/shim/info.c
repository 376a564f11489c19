/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `-info`: containerd 2.x asks every runtime handler at its start. Has to be quick, and to accept
 * whatever options come: an error here would cost the node a handler.
 */
#include "shim/bootstrap.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "api/containerd/options.pb-c.h"
#include "base/fd.h"
#include "base/log.h"
#include "event/signals.h"
#include "oci/bootstrap.h"
#include "proc/command.h"
#include "rpc/pb.h"

#define INPUT_MAX    (5 * NSEC_PER_SEC)
#define FEATURES_MAX (2 * NSEC_PER_SEC)
#define FEATURES_TYPE                                                                              \
	"types.containerd.io/opencontainers/runtime-spec/1/features/Features"

struct probe {
	struct loop *loop;
	struct reaper reaper;
	struct signals signals;
	struct command cmd;
};

static void caught(struct signals *s, int signo)
{
	(void)signo;
	reaper_sweep(&container_of(s, struct probe, signals)->reaper);
}

static void ended(struct command *cmd)
{
	loop_stop(container_of(cmd, struct probe, cmd)->loop);
}

/* What `runc features` prints, appended to out; nothing from a runtime that has no such command. */
static int features(const char *runtime, struct buf *out)
{
	static const int signos[] = { SIGCHLD, 0 };
	const char *argv[] = { runtime, "features", NULL };
	struct spawn s = { .argv = argv, .die_with_parent = true };
	struct probe p = { .loop = NULL };
	struct error err = ERROR_NULL;
	int r;

	reaper_init(&p.reaper);
	r = loop_new(&p.loop);
	if (r == 0)
		r = signals_open(p.loop, &p.signals, signos, caught);
	if (r == 0)
		r = command_start(&p.cmd, p.loop, &p.reaper, &s, COMMAND_CAPTURE_STDOUT, NULL,
				  time_now() + FEATURES_MAX, ended, &err);
	if (r == 0)
		r = loop_run(p.loop);
	if (r == 0)
		r = command_result(&p.cmd, runtime, &err);
	if (r == 0 && buf_str(&p.cmd.out)[0] == '{')
		r = buf_append(out, buf_bytes(&p.cmd.out).p, buf_len(&p.cmd.out));
	command_release(&p.cmd);
	signals_close(&p.signals);
	loop_free(p.loop);
	return r;
}

int bootstrap_info(struct error *err)
{
	_cleanup_buf_ struct buf raw = BUF_LIMIT(BOOTSTRAP_MAX), json = BUF_NULL, out = BUF_NULL;
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(2 * BOOTSTRAP_MAX);
	Options__RuntimeInfo info = OPTIONS__RUNTIME_INFO__INIT;
	Options__RuntimeVersion version = OPTIONS__RUNTIME_VERSION__INIT;
	Ctd__Any any = CTD__ANY__INIT;
	struct bootstrap input = { 0 };
	struct error ignored = ERROR_NULL;
	const char *runtime = "runc";
	int r;

	if (bootstrap_read(STDIN_FILENO, time_add(time_now(), INPUT_MAX), &raw, &ignored) == 0 &&
	    bootstrap_parse(buf_bytes(&raw), NULL, NULL, &input, &ignored) == 0 &&
	    *input.options.binary_name)
		runtime = input.options.binary_name;
	/* The options as they came, whatever they are. */
	info.options = pb_unpack(&ctd__any__descriptor, buf_bytes(&raw), &mem);
	if (info.options && !*info.options->type_url)
		info.options = NULL;
	info.name = (char *)"io.containerd.kybernate.v1";
	version.version = (char *)KYB_VERSION;
	info.version = &version;
	if (features(runtime, &json) == 0 && buf_len(&json)) {
		any.type_url = (char *)FEATURES_TYPE;
		any.value.data = (uint8_t *)buf_bytes(&json).p;
		any.value.len = buf_len(&json);
		info.features = &any;
	}
	r = pb_pack(&info.base, &out);
	if (r == 0)
		r = fd_write_all(STDOUT_FILENO, buf_bytes(&out).p, buf_len(&out));
	bootstrap_done(&input);
	return r < 0 ? error_sys(err, r, "write the answer of -info") : 0;
}
