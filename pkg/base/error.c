/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

static int negative(int code)
{
	if (code == 0)
		return -EIO; /* a failure without a number is still a failure */
	return code < 0 ? code : -code;
}

/* Adds to a text of ERROR_TEXT_MAX bytes as much as fits. */
static void append(char *text, const char *s)
{
	size_t n = strlen(text), more = strlen(s);

	if (more > ERROR_TEXT_MAX - 1 - n)
		more = ERROR_TEXT_MAX - 1 - n;
	memcpy(text + n, s, more);
	text[n + more] = 0;
	utf8_mend(text);
}

__attribute__((format(printf, 5, 0)))
static int fill(struct error *err, enum rpc_code rpc, enum reason reason, int code,
		const char *fmt, va_list ap)
{
	char text[ERROR_TEXT_MAX]; /* what is printed may be the old text of err itself */

	code = negative(code);
	if (!err)
		return code;
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	err->code = code;
	err->rpc = rpc;
	err->reason = reason;
	utf8_mend(text); /* a runtime's or CRIU's words, or cut off */
	memcpy(err->text, text, strlen(text) + 1);
	return code;
}

int error_set(struct error *err, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	code = fill(err, RPC_OK, REASON_NONE, code, fmt, ap);
	va_end(ap);
	return code;
}

int error_sys(struct error *err, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	code = fill(err, RPC_OK, REASON_NONE, code, fmt, ap);
	va_end(ap);
	if (err) {
		append(err->text, ": ");
		append(err->text, strerror(-code));
	}
	return code;
}

int error_rpc(struct error *err, enum rpc_code rpc, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	code = fill(err, rpc, REASON_NONE, code, fmt, ap);
	va_end(ap);
	return code;
}

int error_reason(struct error *err, enum reason reason, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	code = fill(err, RPC_OK, reason, code, fmt, ap);
	va_end(ap);
	return code;
}

int error_wrap(struct error *err, int code, const char *fmt, ...)
{
	char text[ERROR_TEXT_MAX];
	va_list ap;

	code = negative(code);
	if (!err)
		return code;
	if (err->code == 0)
		err->code = code;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	append(text, ": ");
	append(text, error_text(err));
	memcpy(err->text, text, strlen(text) + 1);
	return code;
}

/* What a refused GPU operation looks like to a gRPC client that knows no reasons. */
static enum rpc_code code_of_reason(enum reason reason)
{
	switch (reason) {
	case REASON_NONE:
		return RPC_UNKNOWN;
	case REASON_AGENT_UNAVAILABLE:
	case REASON_WORKER_FAILED:
	case REASON_CONTAINERD_FAILED:
		return RPC_UNAVAILABLE;
	case REASON_LOCK_TIMEOUT:
	case REASON_TIMEOUT:
		return RPC_DEADLINE_EXCEEDED;
	case REASON_STORE_FULL:
	case REASON_VRAM_SHORT:
		return RPC_RESOURCE_EXHAUSTED;
	case REASON_IMAGE_MISSING:
	case REASON_CONTAINER_MISSING:
		return RPC_NOT_FOUND;
	case REASON_IMAGE_CORRUPT:
		return RPC_DATA_LOSS;
	case REASON_REF_INVALID:
	case REASON_CONFIG_INVALID:
		return RPC_INVALID_ARGUMENT;
	case REASON_REF_EXISTS:
		return RPC_ALREADY_EXISTS;
	case REASON_PERMISSION:
		return RPC_PERMISSION_DENIED;
	case REASON_BUSY:
	case REASON_CANCELED:
	case REASON_SHIM_GONE:
		return RPC_ABORTED;
	case REASON_INTERNAL:
		return RPC_INTERNAL;
	default:
		return RPC_FAILED_PRECONDITION;
	}
}

enum rpc_code error_rpc_code(const struct error *err)
{
	if (err->rpc != RPC_OK)
		return err->rpc;
	return code_of_reason(err->reason);
}

const char *error_text(const struct error *err)
{
	if (err->text[0])
		return err->text;
	return strerror(err->code < 0 ? -err->code : err->code);
}
