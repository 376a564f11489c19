/* SPDX-License-Identifier: Apache-2.0 */
/* version: of this program and of the agent. */
#include "api/agent/v1/agent.pb-c.h"
#include "base/cleanup.h"
#include "ctl.h"
#include "doc.h"

struct args {
	bool client;
};

static const struct opt options[] = {
	{ "client", 0, NULL, "of this program only; do not ask the agent",
	  offsetof(struct args, client), option_switch },
};

static const struct client_method method = {
	CLIENT_METHOD("Status"), &kybernate__agent__v1__status_reply__descriptor
};

static json_t *version_doc(const char *version)
{
	return version ? json_pack("{s:o}", "version", doc_string(version)) : json_null();
}

static int print_doc(const struct ctl *ctl, const char *agent, const struct fault *fault)
{
	json_t *error = fault->exit == CTL_OK ? json_null() : fault_doc(fault);

	return ctl_print_doc(ctl, json_pack("{s:o, s:o, s:o}", "client", version_doc(KYB_VERSION),
					    "agent", version_doc(agent), "error", error));
}

static int print_text(const struct ctl *ctl, const char *agent)
{
	_cleanup_text_ struct text t = TEXT_NULL;

	text_add(&t, ctl->quiet ? KYB_VERSION "\n" : "kybernatectl     " KYB_VERSION "\n");
	if (agent && !ctl->quiet) {
		text_add(&t, "kybernate-agent  ");
		text_escaped(&t, agent);
		text_add(&t, "\n");
	}
	return ctl_print(ctl, &t);
}

static int run(struct ctl *ctl, const void *given, char *const *operands)
{
	Kybernate__Agent__V1__StatusRequest request = KYBERNATE__AGENT__V1__STATUS_REQUEST__INIT;
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(CLIENT_MEMORY_MAX);
	_cleanup_fault_ struct fault fault = FAULT_NULL;
	const struct args *args = given;
	const Kybernate__Agent__V1__StatusReply *reply = NULL;
	const char *agent;
	int exit;

	(void)operands;
	if (!args->client)
		reply = ctl_ask(ctl, &method, &request.base, CLIENT_ANSWER_TIME, &mem, &fault);
	agent = reply ? reply->agent_version : NULL;
	exit = ctl_json(ctl) ? print_doc(ctl, agent, &fault) : print_text(ctl, agent);
	return fault.exit == CTL_OK ? exit : ctl_complain(ctl, &fault);
}

const struct verb verb_version = {
	.name = "version",
	.operands = "",
	.summary = "print the versions of this program and of the agent",
	.about = "Prints the versions of this program and of the agent.",
	.options = options,
	.n_options = ARRAY_SIZE(options),
	.args_size = sizeof(struct args),
	.run = run,
};
