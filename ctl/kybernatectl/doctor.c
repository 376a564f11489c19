/* SPDX-License-Identifier: Apache-2.0 */
/* doctor [CONTAINER]: is everything there that a checkpoint needs? */
#include <stdlib.h>
#include <string.h>

#include "api/agent/v1/agent.pb-c.h"
#include "base/cleanup.h"
#include "base/path.h"
#include "ctl.h"
#include "doc.h"
#include "socket.h"

typedef Kybernate__Agent__V1__DoctorCheck pb_check;
typedef Kybernate__Agent__V1__DoctorReply pb_doctor;

struct args {
	const char *ns;
};

static const struct opt options[] = {
	{ "namespace", 'n', "NS", "the container's namespace at containerd\n(default: k8s.io)",
	  offsetof(struct args, ns), option_id },
};

static const struct client_method method = {
	CLIENT_METHOD("Doctor"), &kybernate__agent__v1__doctor_reply__descriptor
};

static void print_check(const pb_check *c, bool colour, struct text *out)
{
	enum style style = c->ok ? STYLE_GOOD : STYLE_BAD;
	const char *advice = *c->advice ? c->advice : reason_advice((enum reason)c->reason);
	char name[DOC_NAME_MAX];

	screen_style(colour, style, out);
	text_add(out, c->ok ? "ok    " : "FAIL  ");
	screen_unstyle(colour, style, out);
	text_escaped(out, c->name);
	if (!c->ok && c->reason)
		text_printf(out, ": %s",
			    doc_enum_name(&kybernate__agent__v1__reason__descriptor,
					  (int)c->reason, name));
	if (*c->found) {
		text_add(out, ": ");
		text_escaped(out, c->found);
	}
	text_add(out, "\n");
	if (!c->ok && (c->reason || *c->advice)) {
		text_add(out, "      hint: ");
		text_escaped(out, advice);
		text_add(out, "\n");
	}
}

static int print_text(const struct ctl *ctl, const pb_doctor *d)
{
	_cleanup_text_ struct text t = TEXT_NULL;

	for (size_t i = 0; i < d->n_checks; i++)
		if (!ctl->quiet || !d->checks[i]->ok)
			print_check(d->checks[i], ctl->out.colour, &t);
	return ctl_print(ctl, &t);
}

/* The check that only we can make: whether the agent answers. Text lives as long as fault. */
static void check_agent(const char *socket, const struct fault *fault, pb_check *ret)
{
	kybernate__agent__v1__doctor_check__init(ret);
	ret->name = (char *)"agent";
	ret->ok = fault->exit == CTL_OK;
	ret->found = (char *)(ret->ok ? socket : fault->message);
	ret->reason = (Kybernate__Agent__V1__Reason)fault->reason;
	ret->advice = (char *)(!ret->ok && fault_advice(fault) ? fault_advice(fault) : "");
}

/* The agent's checks, with ours in front. reply may be NULL. */
static int report(const struct ctl *ctl, const pb_doctor *reply, const struct fault *fault)
{
	pb_doctor all = KYBERNATE__AGENT__V1__DOCTOR_REPLY__INIT;
	size_t n = reply ? reply->n_checks : 0;
	_cleanup_free_ pb_check **checks = calloc(n + 1, sizeof(*checks));
	pb_check agent;
	int exit;

	if (!checks)
		return ctl_print_doc(ctl, NULL);
	check_agent(socket_path(ctl->socket), fault, &agent);
	checks[0] = &agent;
	if (n)
		memcpy(checks + 1, reply->checks, n * sizeof(*checks));
	all.checks = checks;
	all.n_checks = n + 1;
	all.ok = reply && reply->ok;
	exit = ctl_json(ctl) ? ctl_print_doc(ctl, doc_message(&all.base)) : print_text(ctl, &all);
	if (!reply)
		return fault->exit;
	return exit == CTL_OK && !reply->ok ? CTL_FAILED : exit;
}

static int run(struct ctl *ctl, const void *given, char *const *operands)
{
	Kybernate__Agent__V1__DoctorRequest request = KYBERNATE__AGENT__V1__DOCTOR_REQUEST__INIT;
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(CLIENT_MEMORY_MAX);
	_cleanup_fault_ struct fault fault = FAULT_NULL;
	const struct args *args = given;
	const pb_doctor *reply;

	if (operands[0] && !id_valid(operands[0]))
		return ctl_usage(ctl, "\"%s\" is no container id", operands[0]);
	request.containerd_namespace = (char *)(args->ns ? args->ns : "");
	request.container_id = operands[0] ? operands[0] : request.container_id;
	reply = ctl_ask(ctl, &method, &request.base, CLIENT_ANSWER_TIME, &mem, &fault);
	/* No way to the agent is a finding; that it could not answer is not. */
	if (!reply && fault.reason != REASON_AGENT_UNAVAILABLE && fault.reason != REASON_PERMISSION)
		return ctl_fail(ctl, &fault);
	return report(ctl, reply, &fault);
}

const struct verb verb_doctor = {
	.name = "doctor",
	.operands = "[CONTAINER]",
	.summary = "check the node, or a container, for what checkpoints need",
	.about = "Checks what a checkpoint needs, and says what to do where something is missing:\n"
		 "of the node (agent, driver, CRIU, store), and with the id of a container also\n"
		 "of that. Nothing is changed. The exit status is 0 only when all is well. With\n"
		 "--quiet, only what is not.",
	.options = options,
	.n_options = ARRAY_SIZE(options),
	.args_size = sizeof(struct args),
	.max_operands = 1,
	.run = run,
};
