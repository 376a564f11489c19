/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint CONTAINER: a running container into the agent's store. */
#include "base/cleanup.h"
#include "base/path.h"
#include "ctl.h"
#include "operation.h"

struct args {
	const char *ns, *ref;
	bool exit;
	nsec_t timeout;
	const char *container; /* the operand */
};

static const struct opt options[] = {
	OPERATION_NAMESPACE(struct args),
	{ "ref", 'r', "REF", "name of the checkpoint (default: the agent\nmakes one up)",
	  offsetof(struct args, ref), option_ref },
	{ "exit", 0, NULL, "end the container once its checkpoint is sealed",
	  offsetof(struct args, exit), option_switch },
	OPERATION_TIMEOUT(struct args),
};

static void done(const Kybernate__Agent__V1__OperationUpdate *last, const void *arg, bool quiet,
		 struct text *out)
{
	const struct args *args = arg;

	if (quiet) {
		text_escaped(out, last->checkpoint_ref);
		text_add(out, "\n");
		return;
	}
	text_add(out, "Checkpoint ");
	text_escaped(out, last->checkpoint_ref);
	text_printf(out, " of container %s is sealed", args->container);
	operation_took(out, ", after ", last);
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
	request.containerd_namespace = operation_text(args.ns);
	request.container_id = operands[0];
	request.checkpoint_ref = (char *)call.checkpoint_ref;
	request.exit = args.exit;
	request.timeout_ms = operation_ms(args.timeout);
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
