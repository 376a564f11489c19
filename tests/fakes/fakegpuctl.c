/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fakegpuctl: one request to the daemon, its JSON answer on stdout. Arguments become the members
 * of the request:
 *
 *	fakegpuctl fault call=lock count=1 hang=true
 *
 * Exit status: 0, 1 (the daemon refused; the answer holds "error"), 2 (usage, or no daemon).
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/num.h"
#include "proto/fg_wire.h"

static int usage(void)
{
	fputs("Usage: fakegpuctl [--socket PATH] COMMAND [NAME=VALUE]...\n"
	      "  status                          GPUs, memory, settings\n"
	      "  processes                       CUDA processes, their state and VRAM\n"
	      "  log [since=ID] [call=C] [pid=P] calls, with order and times\n"
	      "  fault call=C|any [pid=P] [skip=N] [count=N] [after=true]\n"
	      "        [delay_ms=N] [hang=true] [target_signal=N] [crash=true] [code=N]\n"
	      "        [value=N] [lie=noop|keep-connection|keep-device|half-restore|wrong-device]\n"
	      "  faults                          rules, their hits, calls that they hold\n"
	      "  release [rule=ID]               lets held calls go on\n"
	      "  clear [rule=ID]                 removes rules\n"
	      "  set name=NAME value=N [gpu=I]   a setting, or mig\n"
	      "  reserve [gpu=I] bytes=N         takes memory of a GPU away\n"
	      "  reset                           no rules, empty log, first settings\n",
	      stderr);
	return 2;
}

/* "true" and "false" are booleans, digits a number, the rest text. */
static json_t *value_of(const char *text)
{
	uint64_t n;

	if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)
		return json_boolean(*text == 't');
	if (num_parse(text, INT64_MAX, &n) == 0)
		return json_integer((json_int_t)n);
	return json_string(text);
}

static json_t *request_of(int argc, char **argv)
{
	json_t *request = json_object();
	int r = json_object_set_new(request, "cmd", json_string(argv[0]));

	for (int i = 1; r == 0 && i < argc; i++) {
		char *equals = strchr(argv[i], '=');

		if (!equals || equals == argv[i]) {
			r = -1;
			break;
		}
		*equals = '\0';
		r = json_object_set_new(request, argv[i], value_of(equals + 1));
	}
	if (r == 0)
		return request;
	json_decref(request);
	return NULL;
}

static int ask(const char *path, const char *text)
{
	struct fg_msg m = { .type = FG_CTL, .data = text, .len = strlen(text), .fd = -1 };
	_cleanup_free_ char *buf = malloc(FG_HEADER + FG_REPLY_MAX);
	_cleanup_close_ int sock = fg_connect(path, FG_CONTROL, NULL, NULL);
	struct fg_msg answer;
	uint64_t seq = 0;
	int r = sock;

	if (!buf || m.len > FG_REQUEST_MAX)
		r = -ENOMEM;
	if (r >= 0)
		r = fg_ask(sock, &seq, &m, &answer, buf, FG_HEADER + FG_REPLY_MAX, FG_FOREVER);
	if (r < 0) {
		(void)fprintf(stderr, "fakegpuctl: %s: %s\n", path, strerror(-r));
		return 2;
	}
	if (fwrite(answer.data, 1, answer.len, stdout) != answer.len || putchar('\n') == EOF ||
	    fflush(stdout) != 0)
		return 2;
	return answer.arg[0] ? 1 : 0;
}

int main(int argc, char **argv)
{
	char socket[FG_PATH_MAX];
	const char *path = fg_socket_path(socket);
	json_t *request;
	char *text;
	int r;

	if (argc > 2 && strcmp(argv[1], "--socket") == 0) {
		path = argv[2];
		argc -= 2;
		argv += 2;
	}
	if (argc < 2 || *argv[1] == '-')
		return usage();
	request = request_of(argc - 1, argv + 1);
	if (!request)
		return usage();
	text = json_dumps(request, JSON_COMPACT);
	json_decref(request);
	if (!text)
		return 2;
	r = ask(path, text);
	free(text);
	return r;
}
