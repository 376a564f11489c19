/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gRPC client as a program, for servers of other implementations.
 *
 *	grpc-echo-client [OPTIONS] SOCKET METHOD
 *
 *	-m TEXT    send this message (may be given several times)
 *	-z BYTES   send a message of that many bytes (likewise)
 *	-i FILE    send the content of this file as a message (likewise)
 *	-o FILE    write the messages received to this file, one after the other
 *	-n N       make the call N times, one after the other
 *	-t MS      with this deadline
 *	-f N=V     with this header field
 *	-p MS      pause for so long after each message received
 *	-c         cancel after the first message received
 *	-k         do not half-close
 *	-x BYTES   send and accept messages of at most so many bytes
 *	-w BYTES   the window of a stream
 *
 * Prints, for the last call: what was received, and how it ended.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "event/loop.h"
#include "rpc/grpc_client.h"
#include "tests/rpc/echo.h"

#define MESSAGES_MAX 64
#define FIELDS_MAX   8

struct client {
	struct loop *loop;
	struct grpc_client *grpc;
	struct grpc_stream *stream;
	const char *method;
	struct bytes messages[MESSAGES_MAX];
	size_t n_messages;
	struct grpc_field fields[FIELDS_MAX];
	size_t n_fields;
	size_t calls, left;
	nsec_t timeout, rest;
	bool cancel, keep;
	struct timer timer;
	/* Received. */
	size_t got, bytes, wrong;
	char *block;
	size_t n_block;
	FILE *out;
	nsec_t begin;
};

static const struct grpc_stream_ops ops;

static void call(struct client *c)
{
	nsec_t deadline = c->timeout ? time_add(time_now(), c->timeout) : NSEC_NEVER;
	int r;

	c->got = c->bytes = c->wrong = 0;
	r = grpc_stream_open(c->grpc, c->method, c->fields, c->n_fields, deadline, &ops, c,
			     &c->stream);
	for (size_t i = 0; r == 0 && i < c->n_messages; i++)
		r = grpc_stream_send(c->stream, c->messages[i]);
	if (r < 0)
		echo_die(c->method, r);
	if (!c->keep)
		grpc_stream_half_close(c->stream);
}

static void report(struct client *c, const struct grpc_status *status)
{
	(void)printf("calls=%zu messages=%zu bytes=%zu wrong=%zu code=%s us=%llu details=",
		     c->calls, c->got, c->bytes, c->wrong, rpc_code_name(status->code),
		     (unsigned long long)((time_now() - c->begin) / NSEC_PER_USEC));
	for (size_t i = 0; i < status->details.n; i++)
		(void)printf("%02x", status->details.p[i]);
	(void)printf(" text=%s\n", status->text);
	loop_stop(c->loop);
}

static void go_on(struct timer *t)
{
	struct client *c = container_of(t, struct client, timer);

	if (c->stream)
		grpc_stream_pause(c->stream, false);
}

/* A long message is a block, as echo_block() makes them. */
static void check(struct client *c, struct bytes msg)
{
	if (msg.n > c->n_block) {
		free(c->block);
		c->block = echo_block(msg.n);
		c->n_block = msg.n;
	}
	c->wrong += memcmp(c->block, msg.p, msg.n) != 0;
}

static void message(struct grpc_stream *stream, void *arg, struct bytes msg)
{
	struct client *c = arg;

	c->got++;
	c->bytes += msg.n;
	if (c->out && msg.n && fwrite(msg.p, msg.n, 1, c->out) != 1)
		echo_die("write", -errno);
	if (!c->out && msg.n > 251)
		check(c, msg);
	if (c->cancel) {
		grpc_stream_cancel(stream);
		c->stream = NULL;
		report(c, &(struct grpc_status){ RPC_CANCELED, "by us", { NULL, 0 } });
	} else if (c->rest) {
		grpc_stream_pause(stream, true);
		timer_set(c->loop, &c->timer, time_add(time_now(), c->rest), go_on);
	}
}

static void ended(struct grpc_stream *stream, void *arg, const struct grpc_status *status)
{
	struct client *c = arg;

	(void)stream;
	c->stream = NULL;
	if (--c->left && status->code == RPC_OK)
		call(c);
	else
		report(c, status);
}

static const struct grpc_stream_ops ops = { .message = message, .ended = ended };

static void add_message(struct client *c, const void *p, size_t n)
{
	char *copy = echo_block(n);

	if (c->n_messages == MESSAGES_MAX)
		echo_die("messages", -E2BIG);
	if (p && n)
		memcpy(copy, p, n);
	c->messages[c->n_messages++] = bytes_of(copy, n);
}

static void add_file(struct client *c, const char *path)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	int r = file_read(AT_FDCWD, path, &b);

	if (r < 0)
		echo_die(path, r);
	add_message(c, buf_bytes(&b).p, buf_len(&b));
}

static void add_field(struct client *c, char *text)
{
	char *equal = strchr(text, '=');

	if (!equal || c->n_fields == FIELDS_MAX)
		echo_die(text, -EINVAL);
	*equal = 0;
	c->fields[c->n_fields++] =
		(struct grpc_field){ text, bytes_of(equal + 1, strlen(equal + 1)) };
}

static void option(struct client *c, struct grpc_client_config *config, int o)
{
	switch (o) {
	case 'm':
		add_message(c, optarg, strlen(optarg));
		break;
	case 'z':
		add_message(c, NULL, echo_number(optarg));
		break;
	case 'i':
		add_file(c, optarg);
		break;
	case 'o':
		c->out = fopen(optarg, "we");
		if (!c->out)
			echo_die(optarg, -errno);
		break;
	case 'n':
		c->calls = echo_number(optarg);
		break;
	case 't':
		c->timeout = echo_number(optarg) * NSEC_PER_MSEC;
		break;
	case 'f':
		add_field(c, optarg);
		break;
	case 'p':
		c->rest = echo_number(optarg) * NSEC_PER_MSEC;
		break;
	case 'c':
		c->cancel = true;
		break;
	case 'k':
		c->keep = true;
		break;
	case 'x':
		config->max_message = config->max_send = echo_number(optarg);
		config->max_unsent = 4 * config->max_send;
		config->max_memory = 8 * config->max_send;
		break;
	case 'w':
		config->window = (uint32_t)echo_number(optarg);
		break;
	default:
		exit(1);
	}
}

int main(int argc, char **argv)
{
	struct client c = { .calls = 1 };
	struct grpc_client_config config = { 0 };
	int o, r;

	while ((o = getopt(argc, argv, "m:z:i:o:n:t:f:p:ckx:w:")) >= 0)
		option(&c, &config, o);
	if (argc - optind != 2)
		echo_die("usage: grpc-echo-client [OPTIONS] SOCKET METHOD", -EINVAL);
	c.method = argv[optind + 1];
	c.left = c.calls;
	c.begin = time_now();
	r = loop_new(&c.loop);
	if (r == 0)
		r = grpc_client_open(c.loop, argv[optind], &config, &c.grpc);
	if (r < 0)
		echo_die(argv[optind], r);
	call(&c);
	r = loop_run(c.loop);
	if (r < 0)
		echo_die("loop", r);
	timer_cancel(&c.timer);
	grpc_client_free(c.grpc);
	loop_free(c.loop);
	free(c.block);
	for (size_t i = 0; i < c.n_messages; i++)
		free((void *)(uintptr_t)c.messages[i].p);
	if (c.out && fclose(c.out) != 0)
		echo_die("write", -errno);
	return 0;
}
