/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "rpc/pb.h"
#include "socket.h"

#define SIGNALS_MAX 3

int client_bad_answer(struct fault *f)
{
	(void)fault_set(f, CTL_FAILED, REASON_NONE, "the agent's answer cannot be understood");
	return fault_hint(f, "compare the versions of both sides: kybernatectl version");
}

/* --- opening -------------------------------------------------------------------------------- */

static void caught(struct signals *s, int signo)
{
	struct client *c = container_of(s, struct client, signals);

	if (!c->signo)
		c->signo = signo;
	if (c->interrupted)
		c->interrupted(c, c->arg);
	else
		loop_stop(c->loop);
}

/* For the client: the connection that client_open() has made, or another one. */
static int make_connection(void *arg)
{
	_cleanup_fault_ struct fault ignored = FAULT_NULL;
	struct client *c = arg;

	if (c->fd < 0 && socket_connect(c->path, &c->fd, &ignored) != CTL_OK)
		return -ECONNREFUSED;
	return c->fd < 0 ? -EAGAIN : TAKE_FD(c->fd);
}

/*
 * Which signals to take. Those that our parent had us ignore (nohup, or a shell's "&") stay
 * ignored; a signalfd would report them all the same, since a blocked signal is never dropped.
 */
static void pick_signals(int *ret)
{
	static const int wanted[SIGNALS_MAX] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction old;
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
		if (sigaction(wanted[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			ret[n++] = wanted[i];
	ret[n] = 0;
}

static int start(struct client *c, struct fault *f)
{
	int signals[SIGNALS_MAX + 1];
	const struct grpc_client_config config = { .max_message = CLIENT_MESSAGE_MAX,
						   .max_memory = 2 * CLIENT_MESSAGE_MAX,
						   .window = 1 << 20,
						   .connect = make_connection,
						   .connect_arg = c };
	int r = loop_new(&c->loop);

	pick_signals(signals);
	if (r == 0)
		r = signals_open(c->loop, &c->signals, signals, caught);
	if (r == 0)
		r = grpc_client_open(c->loop, c->path, &config, &c->grpc);
	return r == 0 ? CTL_OK
		      : fault_set(f, CTL_FAILED, REASON_NONE, "cannot set up the call: %s",
				  strerror(-r));
}

int client_open(struct client *c, const char *address, struct fault *f)
{
	const char *path = socket_path(address);
	int exit;

	*c = (struct client){ .path = path, .fd = -1 };
	exit = socket_connect(path, &c->fd, f);
	if (exit != CTL_OK)
		return exit;
	(void)sigprocmask(SIG_SETMASK, NULL, &c->mask);
	(void)sigaction(SIGPIPE, NULL, &c->sigpipe);
	exit = start(c, f);
	if (exit != CTL_OK)
		client_close(c);
	return exit;
}

void client_close(struct client *c)
{
	if (!c->loop)
		return;
	grpc_client_free(c->grpc);
	signals_close(&c->signals);
	loop_free(c->loop);
	cleanup_close_p(&c->fd);
	(void)sigprocmask(SIG_SETMASK, &c->mask, NULL);
	(void)sigaction(SIGPIPE, &c->sigpipe, NULL);
	*c = (struct client){ .fd = -1 };
}

/* --- one call ------------------------------------------------------------------------------- */

struct call {
	struct client *client;
	const struct client_method *method;
	struct arena *mem;
	struct fault *fault;
	const void *reply;
	bool done;
};

static void answered(void *arg, const struct grpc_status *status, struct bytes reply)
{
	struct call *call = arg;

	call->done = true;
	if (status->code != RPC_OK)
		(void)fault_from_status(call->fault, status);
	else if (!(call->reply = pb_unpack(call->method->reply, reply, call->mem)))
		(void)client_bad_answer(call->fault);
	loop_stop(call->client->loop);
}

const void *client_call(struct client *c, const struct client_method *method,
			const ProtobufCMessage *request, nsec_t deadline, struct arena *mem,
			struct fault *f)
{
	struct call call = { .client = c, .method = method, .mem = mem, .fault = f };
	_cleanup_buf_ struct buf packed = BUF_NULL;
	struct grpc_stream *stream = NULL;
	int r = pb_pack(request, &packed);

	if (r == 0)
		r = grpc_unary(c->grpc, method->path, NULL, 0, buf_bytes(&packed), deadline,
			       answered, &call, &stream);
	if (r < 0) {
		(void)fault_set(f, CTL_FAILED, REASON_NONE, "cannot send the request: %s",
				strerror(-r));
		return NULL;
	}
	r = loop_run(c->loop);
	if (call.done)
		return call.reply;
	grpc_stream_cancel(stream);
	if (r < 0)
		(void)fault_set(f, CTL_FAILED, REASON_NONE, "event loop: %s", strerror(-r));
	else
		(void)fault_set(f, CTL_SIGNAL + c->signo, REASON_CANCELED, "%s",
				strsignal(c->signo));
	return NULL;
}

const void *client_ask(const char *address, const struct client_method *method,
		       const ProtobufCMessage *request, nsec_t time, struct arena *mem,
		       struct fault *f)
{
	_cleanup_client_ struct client c = { .fd = -1 };

	if (client_open(&c, address, f) != CTL_OK)
		return NULL;
	return client_call(&c, method, request, time_add(time_now(), time), mem, f);
}
