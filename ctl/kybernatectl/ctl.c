/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "doc.h"

const void *ctl_ask(const struct ctl *ctl, const struct client_method *method,
		    const ProtobufCMessage *request, nsec_t time, struct arena *mem,
		    struct fault *f)
{
	return client_ask(ctl->socket, method, request, time, mem, f);
}

/* Nobody is left to be told when this cannot be written either. */
static void say(const struct ctl *ctl, struct text *t)
{
	(void)screen_write(&ctl->err, t, -1);
}

int ctl_print(const struct ctl *ctl, struct text *t)
{
	_cleanup_text_ struct text message = TEXT_NULL;
	int r = screen_write(&ctl->out, t, -1);

	if (r == 0)
		return CTL_OK;
	text_printf(&message, "kybernatectl: cannot write to standard output: %s\n", strerror(-r));
	say(ctl, &message);
	return CTL_FAILED;
}

int ctl_print_doc(const struct ctl *ctl, json_t *doc)
{
	_cleanup_text_ struct text t = TEXT_NULL;

	doc_write(doc, ctl->output == OUTPUT_JSON, &t);
	return ctl_print(ctl, &t);
}

int ctl_complain(const struct ctl *ctl, const struct fault *f)
{
	_cleanup_text_ struct text t = TEXT_NULL;

	fault_print(f, ctl->what, ctl->err.colour, &t);
	say(ctl, &t);
	return f->exit;
}

int ctl_fail(const struct ctl *ctl, const struct fault *f)
{
	if (ctl_json(ctl))
		(void)ctl_print_doc(ctl, json_pack("{s:o}", "error", fault_doc(f)));
	return ctl_complain(ctl, f);
}

int ctl_usage(const struct ctl *ctl, const char *fmt, ...)
{
	_cleanup_text_ struct text t = TEXT_NULL;
	char message[ERROR_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	text_printf(&t, "kybernatectl%s%s: ", ctl->what ? " " : "", ctl->what ? ctl->what : "");
	text_escaped(&t, message);
	text_printf(&t, "\nTry 'kybernatectl help%s%s'.\n", ctl->what ? " " : "",
		    ctl->what ? ctl->what : "");
	say(ctl, &t);
	return CTL_USAGE;
}
