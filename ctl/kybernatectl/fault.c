/* SPDX-License-Identifier: Apache-2.0 */
#include "fault.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "doc.h"

#define MESSAGE_MAX     4096 /* bytes of a message that are shown */
#define DETAIL_LINE_MAX 1024

void fault_done(struct fault *f)
{
	arena_done(&f->mem);
}

static void reset(struct fault *f)
{
	arena_done(&f->mem);
	*f = FAULT_NULL;
}

static const char *keep(struct fault *f, const char *s)
{
	const char *copy = arena_strdup(&f->mem, s);

	return copy ? copy : "(too long to show)";
}

/* --- what it means -------------------------------------------------------------------------- */

/*
 * Reasons that say by themselves what kind of end it was. All others are refusals when they come
 * in preflight, where nothing has been touched yet, and failures after it.
 */
static const struct {
	enum reason reason;
	int exit;
} by_reason[] = {
	{ REASON_AGENT_UNAVAILABLE, CTL_UNREACHABLE },
	{ REASON_LOCK_TIMEOUT, CTL_TIMEOUT },
	{ REASON_TIMEOUT, CTL_TIMEOUT },
	{ REASON_IMAGE_MISSING, CTL_NOT_FOUND },
	{ REASON_CONTAINER_MISSING, CTL_NOT_FOUND },
	{ REASON_SEAT_MISMATCH, CTL_REFUSED },
	{ REASON_DRIVER_TOO_OLD, CTL_REFUSED },
	{ REASON_DRIVER_MISMATCH, CTL_REFUSED },
	{ REASON_MEM_LIMIT, CTL_REFUSED },
	{ REASON_UVM_IN_USE, CTL_REFUSED },
	{ REASON_MIG, CTL_REFUSED },
	{ REASON_IO_URING, CTL_REFUSED },
	{ REASON_LEFTOVER_DEVICE_FD, CTL_REFUSED },
	{ REASON_DRIVER_UNAVAILABLE, CTL_REFUSED },
	{ REASON_BUSY, CTL_REFUSED },
	{ REASON_REF_INVALID, CTL_REFUSED },
	{ REASON_REF_EXISTS, CTL_REFUSED },
	{ REASON_POD_MISMATCH, CTL_REFUSED },
	{ REASON_PERMISSION, CTL_REFUSED },
	{ REASON_CONFIG_INVALID, CTL_REFUSED },
	{ REASON_GPU_MISMATCH, CTL_REFUSED },
	{ REASON_NOT_GPU, CTL_REFUSED },
	{ REASON_MOUNT_MISMATCH, CTL_REFUSED },
};

static int exit_of_reason(int reason, int phase)
{
	for (size_t i = 0; i < ARRAY_SIZE(by_reason); i++)
		if ((int)by_reason[i].reason == reason)
			return by_reason[i].exit;
	return phase == KYBERNATE__AGENT__V1__PHASE__PHASE_PREFLIGHT ? CTL_REFUSED : CTL_FAILED;
}

static int exit_of_code(enum rpc_code code)
{
	switch (code) {
	case RPC_UNAVAILABLE:
		return CTL_UNREACHABLE;
	case RPC_NOT_FOUND:
		return CTL_NOT_FOUND;
	case RPC_DEADLINE_EXCEEDED:
		return CTL_TIMEOUT;
	case RPC_INVALID_ARGUMENT:
	case RPC_ALREADY_EXISTS:
	case RPC_PERMISSION_DENIED:
	case RPC_UNAUTHENTICATED:
	case RPC_FAILED_PRECONDITION:
	case RPC_UNIMPLEMENTED:
		return CTL_REFUSED;
	default:
		return CTL_FAILED;
	}
}

/* --- where it comes from -------------------------------------------------------------------- */

int fault_set(struct fault *f, int exit, enum reason reason, const char *fmt, ...)
{
	char *message = NULL;
	va_list ap;
	int n;

	reset(f);
	va_start(ap, fmt);
	n = vasprintf(&message, fmt, ap);
	va_end(ap);
	f->message = n < 0 ? "out of memory" : keep(f, message);
	if (n >= 0)
		free(message);
	f->exit = exit;
	f->reason = (int)reason;
	f->transient = reason_is_transient(reason);
	return exit;
}

/*
 * The agent begins the text of a status with the name of the reason: "LOCK_TIMEOUT: ...". Returns
 * what follows it, or text when it does not begin so.
 */
static const char *split_reason(const char *text, int *ret)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";
	size_t n = strspn(text, letters);
	char name[64];
	enum reason reason;

	if (n == 0 || n >= sizeof(name) || (text[n] && text[n] != ':'))
		return text;
	memcpy(name, text, n);
	name[n] = 0;
	reason = reason_from_name(name);
	if (reason == REASON_NONE)
		return text;
	*ret = (int)reason;
	text += n + (text[n] == ':');
	return text + strspn(text, " ");
}

int fault_from_status(struct fault *f, const struct grpc_status *status)
{
	const char *message;

	reset(f);
	message = split_reason(status->text, &f->reason);
	/* Our own client's word for a connection that cannot be made or that broke. */
	if (f->reason == REASON_NONE && status->code == RPC_UNAVAILABLE)
		f->reason = REASON_AGENT_UNAVAILABLE;
	if (f->reason == REASON_NONE) {
		f->code = rpc_code_name(status->code);
		f->exit = exit_of_code(status->code);
		f->transient = status->code == RPC_DEADLINE_EXCEEDED;
	} else {
		f->exit = exit_of_reason(f->reason, 0);
		f->transient = reason_is_transient((enum reason)f->reason);
	}
	if (!*message && f->reason != REASON_NONE)
		message = reason_meaning((enum reason)f->reason);
	f->message = keep(f, *message ? message : "the agent gave no message");
	return f->exit;
}

int fault_from_error(struct fault *f, Kybernate__Agent__V1__Status status,
		     const Kybernate__Agent__V1__Error *e)
{
	reset(f);
	f->degraded = status == KYBERNATE__AGENT__V1__STATUS__STATUS_DEGRADED;
	f->message = "the agent gave no message";
	if (e) {
		f->reason = (int)e->reason;
		f->phase = (int)e->phase;
		f->transient = e->transient;
		f->message = *e->message ? keep(f, e->message)
					 : reason_meaning((enum reason)f->reason);
		for (size_t i = 0; i < e->n_detail && f->n_detail < FAULT_DETAIL_MAX; i++)
			f->detail[f->n_detail++] = keep(f, e->detail[i]);
	}
	f->exit = f->degraded ? CTL_DEGRADED : exit_of_reason(f->reason, f->phase);
	return f->exit;
}

int fault_hint(struct fault *f, const char *hint)
{
	f->hint = hint;
	return f->exit;
}

/* --- what is said --------------------------------------------------------------------------- */

const char *fault_advice(const struct fault *f)
{
	char name[DOC_NAME_MAX];

	if (f->hint)
		return f->hint;
	/* A reason that this version does not know has no advice here. */
	(void)doc_enum_name(&kybernate__agent__v1__reason__descriptor, f->reason, name);
	if (f->reason == REASON_NONE || reason_from_name(name) == REASON_NONE)
		return NULL;
	return reason_advice((enum reason)f->reason);
}

/* "LOCK_TIMEOUT", the gRPC code's name, or NULL. */
static const char *cause(const struct fault *f, char *buf)
{
	if (f->reason != REASON_NONE)
		return doc_enum_name(&kybernate__agent__v1__reason__descriptor, f->reason, buf);
	return f->code;
}

void fault_print(const struct fault *f, const char *what, bool colour, struct text *out)
{
	enum style style = f->degraded ? STYLE_WARN : STYLE_BAD;
	const char *name, *advice = fault_advice(f);
	char buf[DOC_NAME_MAX];

	text_printf(out, "kybernatectl: %s ", what);
	screen_style(colour, style, out);
	text_add(out, f->degraded ? "degraded" : f->exit > CTL_SIGNAL ? "interrupted" : "failed");
	screen_unstyle(colour, style, out);
	if (f->phase)
		text_printf(out, " in phase %s",
			    doc_enum_name(&kybernate__agent__v1__phase__descriptor, f->phase, buf));
	name = cause(f, buf);
	if (name)
		text_printf(out, ": %s", name);
	text_add(out, ": ");
	text_escaped_n(out, f->message, MESSAGE_MAX);
	text_add(out, "\n");
	for (size_t i = 0; i < f->n_detail; i++) {
		text_add(out, "    ");
		text_escaped_n(out, f->detail[i], DETAIL_LINE_MAX);
		text_add(out, "\n");
	}
	if (advice)
		text_printf(out, "hint: %s\n", advice);
}

static json_t *detail_doc(const struct fault *f)
{
	json_t *list = json_array();

	for (size_t i = 0; list && i < f->n_detail; i++) {
		if (json_array_append_new(list, doc_string(f->detail[i])) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

json_t *fault_doc(const struct fault *f)
{
	const char *advice = fault_advice(f), *name;
	char reason[DOC_NAME_MAX], phase[DOC_NAME_MAX];

	name = cause(f, reason);
	return json_pack("{s:s, s:s, s:o, s:o, s:b, s:s?, s:i}",
			 "reason", name ? name : "NONE",
			 "phase", doc_enum_name(&kybernate__agent__v1__phase__descriptor,
						f->phase, phase),
			 "message", doc_string(f->message), "detail", detail_doc(f),
			 "transient", (int)f->transient, "hint", advice, "exit_status", f->exit);
}
