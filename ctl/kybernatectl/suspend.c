/* SPDX-License-Identifier: Apache-2.0 */
/* suspend CONTAINER and resume CONTAINER: GPU memory to host memory, and back. */
#include "base/cleanup.h"
#include "base/path.h"
#include "ctl.h"
#include "human.h"
#include "operation.h"

struct args {
	const char *ns;
	nsec_t timeout;
	const char *container; /* the operand */
};

static const struct opt options[] = {
	OPERATION_NAMESPACE(struct args),
	OPERATION_TIMEOUT(struct args),
};

static uint64_t bytes_of_phase(const Kybernate__Agent__V1__OperationUpdate *last,
			       Kybernate__Agent__V1__Phase phase)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < last->n_timeline; i++)
		if (last->timeline[i]->phase == phase)
			sum += last->timeline[i]->bytes;
	return sum;
}

static void print_done(const Kybernate__Agent__V1__OperationUpdate *last, const char *container,
		       const char *what, uint64_t bytes, const char *state, struct text *out)
{
	char buf[HUMAN_MAX];

	text_printf(out, "Container %s %s", container, what);
	operation_took(out, ", after ", last);
	if (bytes)
		text_printf(out, "; %s of GPU memory %s", human_size(bytes, buf), state);
	text_add(out, ".\n");
}

static void suspended(const Kybernate__Agent__V1__OperationUpdate *last, const void *arg, bool quiet,
		      struct text *out)
{
	const struct args *args = arg;

	if (!quiet)
		print_done(last, args->container, "is suspended",
			   bytes_of_phase(last, KYBERNATE__AGENT__V1__PHASE__PHASE_VRAM_SAVE),
			   "wait in host memory", out);
}

static void resumed(const Kybernate__Agent__V1__OperationUpdate *last, const void *arg, bool quiet,
		    struct text *out)
{
	const struct args *args = arg;

	if (!quiet)
		print_done(last, args->container, "runs again",
			   bytes_of_phase(last, KYBERNATE__AGENT__V1__PHASE__PHASE_UNLOCK),
			   "are back", out);
}

/* request is filled in by the caller, for the two messages are of different types. */
static int run(struct ctl *ctl, const struct args *given, char *container,
	       struct operation_call call)
{
	struct args args = *given;

	if (!id_valid(container))
		return ctl_usage(ctl, "\"%s\" is no container id", container);
	args.container = container;
	call.timeout = args.timeout;
	call.subject = call.container_id = container;
	call.checkpoint_ref = "";
	call.arg = &args;
	return operation_run(ctl, &call);
}

static int run_suspend(struct ctl *ctl, const void *given, char *const *operands)
{
	Kybernate__Agent__V1__SuspendContainerRequest request =
		KYBERNATE__AGENT__V1__SUSPEND_CONTAINER_REQUEST__INIT;
	const struct args *args = given;

	request.containerd_namespace = operation_text(args->ns);
	request.container_id = operands[0];
	request.timeout_ms = operation_ms(args->timeout);
	return run(ctl, args, operands[0],
		   (struct operation_call){ .method = CLIENT_METHOD("SuspendContainer"),
					    .request = &request.base,
					    .done = suspended,
					    .kept = "the container runs on" });
}

static int run_resume(struct ctl *ctl, const void *given, char *const *operands)
{
	Kybernate__Agent__V1__ResumeContainerRequest request =
		KYBERNATE__AGENT__V1__RESUME_CONTAINER_REQUEST__INIT;
	const struct args *args = given;

	request.containerd_namespace = operation_text(args->ns);
	request.container_id = operands[0];
	request.timeout_ms = operation_ms(args->timeout);
	return run(ctl, args, operands[0],
		   (struct operation_call){ .method = CLIENT_METHOD("ResumeContainer"),
					    .request = &request.base,
					    .done = resumed,
					    .kept = "the container stays suspended" });
}

const struct verb verb_suspend = {
	.name = "suspend",
	.operands = "CONTAINER",
	.summary = "pause a container and free its GPU memory",
	.about = "Moves the GPU memory of the container with this id to host memory and pauses it.\n"
		 "Its GPU is free until it is resumed; the memory counts against the container's\n"
		 "memory limit. A container that cannot be suspended runs on.",
	.options = options,
	.n_options = ARRAY_SIZE(options),
	.args_size = sizeof(struct args),
	.min_operands = 1,
	.max_operands = 1,
	.run = run_suspend,
};

const struct verb verb_resume = {
	.name = "resume",
	.operands = "CONTAINER",
	.summary = "bring a suspended container back onto its GPU",
	.about = "Moves the GPU memory of a suspended container back and lets it run. Where its\n"
		 "GPU has no room the container stays suspended, nothing is lost, and the same can\n"
		 "be tried later. A container that was paused without its GPU memory runs on, too.",
	.options = options,
	.n_options = ARRAY_SIZE(options),
	.args_size = sizeof(struct args),
	.min_operands = 1,
	.max_operands = 1,
	.run = run_resume,
};
