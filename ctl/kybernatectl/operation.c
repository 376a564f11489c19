/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In order: the stream of updates; its end; Ctrl-C; what is said when all is over. Writing to a
 * slow terminal or pipe may block here: there is nobody else to serve, and screen_write() lets
 * signals through.
 */
#include "operation.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "doc.h"
#include "human.h"
#include "progress.h"
#include "rpc/pb.h"

typedef Kybernate__Agent__V1__OperationUpdate pb_update;
typedef Kybernate__Agent__V1__PhaseTime pb_phase_time;

/* The call's end follows the verdict at once; an agent that forgets it is not waited for. */
#define LINGER (2 * NSEC_PER_SEC)
/* After --timeout the agent still has to undo, which may mean to move all GPU memory back. */
#define TIMEOUT_GRACE (600 * NSEC_PER_SEC)
/* After Ctrl-C: how often and how long the agent is asked whether it has undone it. */
#define WATCH_INTERVAL (300 * NSEC_PER_MSEC)
#define WATCH_TIME     (10 * NSEC_PER_SEC)
/* It may take a moment from one half of the undoing to the other. */
#define WATCH_ABSENT 3

static const char hint_status[] = "watch it with: kybernatectl status";

struct operation {
	struct ctl *ctl;
	const struct operation_call *call;
	struct client client;
	struct grpc_stream *stream; /* NULL: not open, or over */
	struct progress progress;
	struct timer redraw, linger;
	struct arena mem;       /* of last */
	const pb_update *last;  /* NULL: none has come */
	struct fault *fault;
	int exit;               /* once it is known */
	bool quiet;             /* no progress: asked for, or nobody reads it any more */
	bool verdict;           /* last is the agent's final word */
	int output_error;       /* -errno: a line of -o jsonl could not be written */
	/* After Ctrl-C. */
	bool leaving;
	nsec_t leave_by;
	unsigned int absent;    /* times in a row that the agent's status lacked it */
	struct timer ask;
	struct grpc_stream *asking;
};

/* --- showing -------------------------------------------------------------------------------- */

static size_t columns(const struct operation *op)
{
	return op->progress.live ? screen_columns(&op->ctl->err) : 0;
}

static void show(struct operation *op, struct text *t)
{
	int r = screen_write(&op->ctl->err, t, op->client.signals.src.fd);

	/* The work is worth more than the view of it. */
	if (r < 0 && r != -EINTR)
		op->quiet = true;
}

static void redraw(struct timer *timer)
{
	struct operation *op = container_of(timer, struct operation, redraw);
	_cleanup_text_ struct text t = TEXT_NULL;
	nsec_t now = loop_now(op->client.loop);

	progress_tick(&op->progress, now, columns(op), &t);
	show(op, &t);
	if (!op->quiet)
		timer_set(op->client.loop, timer, time_add(now, PROGRESS_INTERVAL), redraw);
}

static void show_update(struct operation *op)
{
	_cleanup_text_ struct text t = TEXT_NULL;
	nsec_t now = loop_now(op->client.loop);

	/* A verdict may name any phase; it is the end of the present one. */
	if (op->quiet || (op->verdict && (int)op->last->phase != op->progress.phase))
		return;
	progress_update(&op->progress, now, columns(op), op->last, &t);
	show(op, &t);
	if (op->progress.live && !op->redraw.loop)
		timer_set(op->client.loop, &op->redraw, time_add(now, PROGRESS_INTERVAL), redraw);
}

/* how: NULL when the last phase has ended as it should. */
static void end_progress(struct operation *op, const char *how)
{
	_cleanup_text_ struct text t = TEXT_NULL;

	timer_cancel(&op->redraw);
	if (op->quiet)
		return;
	progress_end(&op->progress, loop_now(op->client.loop), how, &t);
	show(op, &t);
}

/* What has come last, as a document; what went wrong is in it. */
static json_t *last_doc(const struct operation *op)
{
	static const pb_update nothing = KYBERNATE__AGENT__V1__OPERATION_UPDATE__INIT;
	json_t *doc = doc_message(op->last ? &op->last->base : &nothing.base);

	if (doc && op->fault->exit != CTL_OK &&
	    json_object_set_new(doc, "error", fault_doc(op->fault)) < 0) {
		json_decref(doc);
		return NULL;
	}
	return doc;
}

static void write_line(struct operation *op)
{
	_cleanup_text_ struct text t = TEXT_NULL;
	int r;

	doc_write(last_doc(op), false, &t);
	r = screen_write(&op->ctl->out, &t, op->client.signals.src.fd);
	if (r < 0 && r != -EINTR && op->output_error == 0)
		op->output_error = r;
}

/* --- the stream ----------------------------------------------------------------------------- */

static void over(struct operation *op, int exit)
{
	op->exit = exit;
	if (op->stream)
		grpc_stream_cancel(op->stream);
	op->stream = NULL;
	loop_stop(op->client.loop);
}

static void lingered(struct timer *t)
{
	struct operation *op = container_of(t, struct operation, linger);

	over(op, op->fault->exit);
}

static bool is_verdict(const pb_update *u)
{
	return u->status == KYBERNATE__AGENT__V1__STATUS__STATUS_OK ||
	       u->status == KYBERNATE__AGENT__V1__STATUS__STATUS_FAILED ||
	       u->status == KYBERNATE__AGENT__V1__STATUS__STATUS_DEGRADED;
}

static void take_verdict(struct operation *op)
{
	op->verdict = true;
	if (op->last->status != KYBERNATE__AGENT__V1__STATUS__STATUS_OK)
		(void)fault_from_error(op->fault, op->last->status, op->last->error);
	timer_set(op->client.loop, &op->linger, time_add(loop_now(op->client.loop), LINGER),
		  lingered);
}

static void on_message(struct grpc_stream *stream, void *arg, struct bytes msg)
{
	struct operation *op = arg;
	struct arena mem = ARENA_LIMIT(CLIENT_MEMORY_MAX);
	const pb_update *u;

	(void)stream;
	if (op->verdict)
		return; /* it has had its last word */
	u = pb_unpack(&kybernate__agent__v1__operation_update__descriptor, msg, &mem);
	if (!u) {
		arena_done(&mem);
		over(op, client_bad_answer(op->fault));
		return;
	}
	arena_done(&op->mem);
	op->mem = mem;
	op->last = u;
	if (is_verdict(u))
		take_verdict(op);
	show_update(op);
	/* The last line is written when it is known how the call ended. */
	if (op->ctl->output == OUTPUT_JSONL && !op->verdict)
		write_line(op);
}

/* The connection broke in the middle: whose workload it is wants to know where it stands. */
static int lost(struct operation *op, const struct grpc_status *status)
{
	(void)fault_set(op->fault, CTL_UNREACHABLE, REASON_AGENT_UNAVAILABLE,
			"the connection to the agent was lost: %s", status->text);
	return fault_hint(op->fault, "nothing is lost: the agent undoes or finishes the operation "
				     "as soon as it is back; kybernatectl status");
}

static void on_ended(struct grpc_stream *stream, void *arg, const struct grpc_status *status)
{
	struct operation *op = arg;

	(void)stream;
	op->stream = NULL;
	if (op->verdict) {
		over(op, op->fault->exit); /* the last word, whatever the status says after it */
	} else if (status->code == RPC_OK) {
		(void)fault_set(op->fault, CTL_FAILED, REASON_NONE,
				"the agent ended the call without saying how the operation went");
		over(op, fault_hint(op->fault, hint_status));
	} else {
		(void)fault_from_status(op->fault, status);
		if (op->last && op->fault->reason == REASON_AGENT_UNAVAILABLE)
			(void)lost(op, status);
		op->fault->phase = op->last ? (int)op->last->phase : 0;
		over(op, op->fault->exit);
	}
}

static const struct grpc_stream_ops stream_ops = { .message = on_message, .ended = on_ended };

/* --- Ctrl-C --------------------------------------------------------------------------------- */

static void ask(struct timer *t);

static void left(struct operation *op, const char *outcome)
{
	if (op->asking)
		grpc_stream_cancel(op->asking);
	op->asking = NULL;
	timer_cancel(&op->ask);
	(void)fault_set(op->fault, CTL_SIGNAL + op->client.signo, REASON_CANCELED, "%s", outcome);
	over(op, fault_hint(op->fault, hint_status));
}

static bool listed(const struct operation *op, const Kybernate__Agent__V1__StatusReply *reply)
{
	const struct operation_call *call = op->call;

	for (size_t i = 0; i < reply->n_operations; i++) {
		const Kybernate__Agent__V1__Operation *o = reply->operations[i];

		if (*call->container_id && strcmp(o->container_id, call->container_id) == 0)
			return true;
		if (*call->checkpoint_ref && strcmp(o->checkpoint_ref, call->checkpoint_ref) == 0)
			return true;
	}
	return false;
}

static void told(void *arg, const struct grpc_status *status, struct bytes reply)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(CLIENT_MEMORY_MAX);
	const Kybernate__Agent__V1__StatusReply *m = NULL;
	struct operation *op = arg;

	op->asking = NULL;
	if (status->code == RPC_OK)
		m = pb_unpack(&kybernate__agent__v1__status_reply__descriptor, reply, &mem);
	if (!m) {
		left(op, "stopped; the agent undoes it, but does not answer any more");
		return;
	}
	op->absent = listed(op, m) ? 0 : op->absent + 1;
	/* Not "undone": it may have been done before it could be stopped. */
	if (op->absent == WATCH_ABSENT)
		left(op, "stopped; the agent has nothing under way for it any more");
	else
		timer_set(op->client.loop, &op->ask,
			  time_add(loop_now(op->client.loop), WATCH_INTERVAL), ask);
}

static void ask(struct timer *t)
{
	static const Kybernate__Agent__V1__StatusRequest request =
		KYBERNATE__AGENT__V1__STATUS_REQUEST__INIT;
	struct operation *op = container_of(t, struct operation, ask);
	_cleanup_buf_ struct buf packed = BUF_NULL;
	int r = -ETIMEDOUT;

	if (loop_now(op->client.loop) < op->leave_by)
		r = pb_pack(&request.base, &packed);
	if (r == 0)
		r = grpc_unary(op->client.grpc, CLIENT_METHOD("Status"), NULL, 0,
			       buf_bytes(&packed), op->leave_by, told, op, &op->asking);
	if (r < 0)
		left(op, "stopped; the agent still undoes it");
}

static void interrupted(struct client *c, void *arg)
{
	_cleanup_text_ struct text t = TEXT_NULL;
	struct operation *op = arg;

	if (op->leaving || op->verdict || !op->stream) {
		if (op->leaving)
			left(op, "stopped; the agent undoes it");
		return; /* it is over, its end is being shown */
	}
	op->leaving = true;
	end_progress(op, "interrupted");
	grpc_stream_cancel(op->stream);
	op->stream = NULL;
	text_printf(&t, "kybernatectl: the agent undoes the %s of ", op->ctl->what);
	text_escaped(&t, op->call->subject);
	text_add(&t, "; once more (Ctrl-C) leaves without waiting for it\n");
	show(op, &t);
	op->leave_by = time_add(loop_now(c->loop), WATCH_TIME);
	timer_set(c->loop, &op->ask, time_add(loop_now(c->loop), WATCH_INTERVAL), ask);
}

/* --- the end -------------------------------------------------------------------------------- */

static const char *how_it_ended(const struct operation *op)
{
	switch (op->exit) {
	case CTL_OK:
		return NULL;
	case CTL_TIMEOUT:
		return "out of time";
	case CTL_UNREACHABLE:
		return "lost";
	default:
		return "stopped";
	}
}

/* crictl and nerdctl cut ids to 12 or 13 digits when they list containers. */
static bool looks_cut(const char *id)
{
	size_t n = strspn(id, "0123456789abcdef");

	return !id[n] && (n == 12 || n == 13);
}

static void improve_hint(struct operation *op)
{
	if (op->fault->reason == REASON_CONTAINER_MISSING && looks_cut(op->call->container_id))
		(void)fault_hint(op->fault, "give the whole id, as crictl ps --no-trunc prints it");
}

static int print_timeline(const struct operation *op)
{
	_cleanup_text_ struct text t = TEXT_NULL;
	size_t n = op->verdict ? op->last->n_timeline : 0;

	if (op->ctl->quiet || n == 0)
		return CTL_OK;
	progress_timeline(op->last->timeline, n, op->fault->phase, op->ctl->out.colour, &t);
	return ctl_print(op->ctl, &t);
}

static void print_kept(const struct operation *op)
{
	_cleanup_text_ struct text t = TEXT_NULL;

	if (op->fault->degraded)
		text_add(&t, "The workload is held in host memory, nothing is lost, and the agent "
			     "goes on trying to bring its GPU memory back.\n");
	else if (op->verdict && op->fault->phase == KYBERNATE__AGENT__V1__PHASE__PHASE_PREFLIGHT)
		text_add(&t, "Nothing was touched.\n");
	else if (op->verdict)
		text_printf(&t, "Undone: %s.\n", op->call->kept);
	(void)screen_write(&op->ctl->err, &t, -1);
}

static int finish_text(const struct operation *op)
{
	_cleanup_text_ struct text t = TEXT_NULL;
	int exit = print_timeline(op);

	if (op->exit != CTL_OK) {
		exit = ctl_complain(op->ctl, op->fault);
		print_kept(op);
		return exit;
	}
	op->call->done(op->last, op->call->arg, op->ctl->quiet, &t);
	return exit == CTL_OK ? ctl_print(op->ctl, &t) : exit;
}

static int finish_json(const struct operation *op)
{
	int exit = ctl_print_doc(op->ctl, last_doc(op));

	if (op->exit != CTL_OK)
		return ctl_complain(op->ctl, op->fault);
	return op->output_error ? CTL_FAILED : exit;
}

static int start(struct operation *op)
{
	const struct operation_call *call = op->call;
	_cleanup_buf_ struct buf packed = BUF_NULL;
	nsec_t longest = call->timeout ? call->timeout + TIMEOUT_GRACE : CLIENT_OPERATION_TIME;
	int r = pb_pack(call->request, &packed);

	if (r == 0)
		r = grpc_stream_open(op->client.grpc, call->method, NULL, 0,
				     time_add(time_now(), longest), &stream_ops, op, &op->stream);
	if (r == 0)
		r = grpc_stream_send(op->stream, buf_bytes(&packed));
	if (r < 0)
		return fault_set(op->fault, CTL_FAILED, REASON_NONE, "cannot send the request: %s",
				 strerror(-r));
	grpc_stream_half_close(op->stream);
	return CTL_OK;
}

static int run(struct operation *op)
{
	int r;

	op->exit = start(op);
	if (op->exit != CTL_OK)
		return op->exit;
	r = loop_run(op->client.loop);
	if (r < 0)
		op->exit = fault_set(op->fault, CTL_FAILED, REASON_NONE, "event loop: %s",
				     strerror(-r));
	if (!op->leaving)
		end_progress(op, op->verdict ? NULL : how_it_ended(op));
	timer_cancel(&op->linger);
	timer_cancel(&op->ask);
	return op->exit;
}

char *operation_text(const char *s)
{
	return (char *)(s ? s : "");
}

uint64_t operation_ms(nsec_t timeout)
{
	return (uint64_t)(timeout / NSEC_PER_MSEC);
}

void operation_took(struct text *out, const char *before,
		    const Kybernate__Agent__V1__OperationUpdate *last)
{
	char took[HUMAN_MAX];

	if (last->n_timeline)
		text_printf(out, "%s%s", before,
			    human_duration(progress_total(last->timeline, last->n_timeline), took));
}

int operation_run(struct ctl *ctl, const struct operation_call *call)
{
	_cleanup_fault_ struct fault fault = FAULT_NULL;
	struct operation op = { .ctl = ctl,
				.call = call,
				.fault = &fault,
				.mem = ARENA_LIMIT(CLIENT_MEMORY_MAX),
				.quiet = ctl->quiet || ctl_json(ctl) };
	int exit;

	progress_init(&op.progress, &ctl->err);
	op.exit = client_open(&op.client, ctl->socket, &fault);
	if (op.exit == CTL_OK) {
		op.client.interrupted = interrupted;
		op.client.arg = &op;
		(void)run(&op);
		client_close(&op.client);
	}
	improve_hint(&op);
	exit = ctl_json(ctl) ? finish_json(&op) : finish_text(&op);
	arena_done(&op.mem);
	return exit;
}
