/* SPDX-License-Identifier: Apache-2.0 */
#include "artifact/fail.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int fail_sys(struct error *err, int code, const char *fmt, ...)
{
	char text[512];
	enum reason reason;
	va_list ap;

	if (code > 0)
		code = -code;
	reason = code == -ENOSPC || code == -EDQUOT ? REASON_STORE_FULL : REASON_STORE_FAILED;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return error_reason(err, reason, code, "%s: %s", text, strerror(-code));
}

int fail_corrupt(struct error *err, const char *fmt, ...)
{
	char text[ERROR_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return error_reason(err, REASON_IMAGE_CORRUPT, -EBADMSG, "%s", text);
}
