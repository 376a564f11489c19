/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint CONTAINER: a running container into the agent's store. */
#include "base/cleanup.h"
#include "base/path.h"
#include "ctl.h"
#include "human.h"
#include "operation.h"
#include "progress.h"

struct args {
	const char *ns, *ref;
	bool exit;
	nsec_t timeout;
	const char *container; /* the operand */
};

static const struct opt options[] = {
	{ "namespace", 'n', "NS", "the container's namespace at containerd\n(default: k8s.io)",
	  offsetof(struct args, ns), option_id },
	{ "ref", 'r', "REF", "name of the checkpoint (default: the agent\nmakes one up)",
	  offsetof(struct args, ref), option_ref },
	{ "exit", 0, NULL, "end the container once its checkpoint is sealed",
	  offsetof(struct args, exit), option_switch },
	{ "timeout", 't', "TIME", "of the whole, such as 90s or 5m (default and\n"
				  "maximum: the agent's timeouts.operation)",
	  offsetof(struct args, timeout), option_duration },
};

static void done(const Kybernate__Agent__V1__OperationUpdate *last, const void *arg, bool quiet,
		 struct text *out)
{
	const struct args *args = arg;
	char took[HUMAN_MAX];

	if (quiet) {
		text_escaped(out, last->checkpoint_ref);
		text_add(out, "\n");
		return;
	}
	text_add(out, "Checkpoint ");
	text_escaped(out, last->checkpoint_ref);
	text_printf(out, " of container %s is sealed", args->container);
	if (last->n_timeline)
		text_printf(out, ", after %s",
			    human_duration(progress_total(last->timeline, last->n_timeline), took));
	text_add(out, args->exit ? "; the container was ended.\n" : "; the container runs on.\n");
}

static int run(struct ctl *ctl, const void *given, char *const *operands)
{
	Kybernate__Agent__V1__CreateCheckpointRequest request =
		KYBERNATE__AGENT__V1__CREATE_CHECKPOINT_REQUEST__INIT;
	struct args args = *(const struct args *)given;
	struct operation_call call = { .method = CLIENT_METHOD("CreateCheckpoint"),
				       .request = &request.base,
				       .timeout = args.timeout,
				       .subject = operands[0],
				       .container_id = operands[0],
				       .checkpoint_ref = args.ref ? args.ref : "",
				       .done = done,
				       .arg = &args,
				       .kept = "the container runs on" };

	args.container = operands[0];
	if (!id_valid(args.container))
		return ctl_usage(ctl, "\"%s\" is no container id", args.container);
	request.containerd_namespace = (char *)(args.ns ? args.ns : "");
	request.container_id = operands[0];
	request.checkpoint_ref = (char *)call.checkpoint_ref;
	request.exit = args.exit;
	request.timeout_ms = args.timeout / NSEC_PER_MSEC;
	return operation_run(ctl, &call);
}

const struct verb verb_checkpoint = {
	.name = "checkpoint",
	.operands = "CONTAINER",
	.summary = "save a running container with its GPU memory",
	.about = "Saves the container with this id (processes, GPU memory, changed files) as a\n"
		 "checkpoint in the agent's store. It runs on afterwards, and also when the\n"
		 "checkpoint fails. Ctrl-C cancels: the agent then undoes what it has done.",
	.options = options,
	.n_options = ARRAY_SIZE(options),
	.args_size = sizeof(struct args),
	.min_operands = 1,
	.max_operands = 1,
	.run = run,
};
