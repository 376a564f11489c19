/* SPDX-License-Identifier: Apache-2.0 */
/* restore REF: a new container from a checkpoint. */
#include <string.h>

#include "base/cleanup.h"
#include "base/path.h"
#include "ctl.h"
#include "operation.h"

struct args {
	const char *ns, *id, *out, *err;
	nsec_t timeout;
	const char *ref; /* the operand */
};

/* A container's output goes where containerd's shim can take it: a FIFO, or one of its URIs. */
static int set_stream(const char *text, void *field, struct error *err)
{
	static const char *const starts[] = { "/", "fifo:///", "file:///", "binary:///" };

	for (size_t i = 0; i < ARRAY_SIZE(starts); i++)
		if (strncmp(text, starts[i], strlen(starts[i])) == 0)
			return option_text(text, field, err);
	return error_set(err, -1, "\"%.160s\" is neither the absolute path of a FIFO nor a file:// "
				  "or binary:// URI", text);
}

static const struct opt options[] = {
	{ "namespace", 'n', "NS", "the namespace of the new container\n"
				  "(default: that of the checkpoint)",
	  offsetof(struct args, ns), option_id },
	{ "id", 0, "ID", "of the new container (default: the agent\nchooses)",
	  offsetof(struct args, id), option_id },
	{ "stdout", 0, "URI", "where its output goes: the path of a FIFO,\n"
			      "file:///PATH or binary:///PATH (default: nowhere)",
	  offsetof(struct args, out), set_stream },
	{ "stderr", 0, "URI", "the same for its error output",
	  offsetof(struct args, err), set_stream },
	OPERATION_TIMEOUT(struct args),
};

static void done(const Kybernate__Agent__V1__OperationUpdate *last, const void *arg, bool quiet,
		 struct text *out)
{
	const struct args *args = arg;

	if (quiet) {
		text_escaped(out, last->container_id);
		text_add(out, "\n");
		return;
	}
	text_add(out, "Container ");
	text_escaped(out, last->container_id);
	text_printf(out, " runs (pid %u), restored from checkpoint %s", last->task_pid, args->ref);
	operation_took(out, " in ", last);
	text_add(out, ".\n");
}

static int run(struct ctl *ctl, const void *given, char *const *operands)
{
	Kybernate__Agent__V1__RestoreContainerRequest request =
		KYBERNATE__AGENT__V1__RESTORE_CONTAINER_REQUEST__INIT;
	struct args args = *(const struct args *)given;
	struct operation_call call = { .method = CLIENT_METHOD("RestoreContainer"),
				       .request = &request.base,
				       .timeout = args.timeout,
				       .subject = operands[0],
				       .container_id = operation_text(args.id),
				       .checkpoint_ref = operands[0],
				       .done = done,
				       .arg = &args,
				       .kept = "no container was begun" };

	args.ref = operands[0];
	if (!ref_valid(args.ref))
		return ctl_usage(ctl, "\"%s\" is no name for a checkpoint", args.ref);
	request.checkpoint_ref = operands[0];
	request.containerd_namespace = operation_text(args.ns);
	request.container_id = operation_text(args.id);
	request.stdout = operation_text(args.out);
	request.stderr = operation_text(args.err);
	request.timeout_ms = operation_ms(args.timeout);
	return operation_run(ctl, &call);
}

const struct verb verb_restore = {
	.name = "restore",
	.operands = "REF",
	.summary = "start a new container from a checkpoint",
	.about = "Makes a new container at containerd from a checkpoint of the agent's store, and\n"
		 "restores its processes and their GPU memory. When that fails, no container is\n"
		 "left behind. Ctrl-C cancels.",
	.options = options,
	.n_options = ARRAY_SIZE(options),
	.args_size = sizeof(struct args),
	.min_operands = 1,
	.max_operands = 1,
	.run = run,
};
