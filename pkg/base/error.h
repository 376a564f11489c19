/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors: a negative errno travels as the return value, everything a person or a peer needs
 * travels in a struct error on the caller's stack. The function that meets the failure sets it,
 * every level above adds its context with error_wrap(), the top logs it once or answers an RPC
 * with it. On success the struct is left untouched.
 *
 * The RPC code is set only where it is meant. Nothing maps errno to it: an ENOENT from a stray
 * open() must never reach containerd as "NotFound", which there means "this task is gone".
 */
#ifndef KYB_BASE_ERROR_H
#define KYB_BASE_ERROR_H

#include <stdarg.h>

#include "base/code.h"
#include "base/reason.h"

#define ERROR_TEXT_MAX 1024

struct error {
	int code;           /* negative errno; 0 = no error recorded */
	enum rpc_code rpc;  /* RPC_OK = not chosen; error_rpc_code() then says RPC_UNKNOWN */
	enum reason reason; /* REASON_NONE where no GPU operation is concerned */
	char text[ERROR_TEXT_MAX]; /* one line, no newline at its end; cut when too long; UTF-8 */
};

#define ERROR_NULL                                                                                 \
	(struct error)                                                                             \
	{                                                                                          \
		0                                                                                  \
	}

/* All setters accept err == NULL, replace what err held, and return code (made negative). */
int error_set(struct error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* "<fmt>: <strerror(code)>" */
int error_sys(struct error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
int error_rpc(struct error *err, enum rpc_code rpc, int code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
int error_reason(struct error *err, enum reason reason, int code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Puts "<fmt>: " in front of the text; keeps code, rpc and reason. Returns code. */
int error_wrap(struct error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The code for an RPC answer: err->rpc, or one that follows from err->reason, or RPC_UNKNOWN. */
enum rpc_code error_rpc_code(const struct error *err);

/* The text, or strerror() of the code when there is none. Never NULL. */
const char *error_text(const struct error *err);

#endif
