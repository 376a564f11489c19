/* SPDX-License-Identifier: Apache-2.0 */
/* help [VERB] */
#include "ctl.h"

static int run(struct ctl *ctl, const void *args, char *const *operands)
{
	_cleanup_text_ struct text t = TEXT_NULL;
	const struct verb *verb = operands[0] ? verb_find(operands[0]) : NULL;

	(void)args;
	if (operands[0] && !verb)
		return ctl_usage(ctl, "\"%s\" is not a verb", operands[0]);
	ctl_help(verb, &t);
	return ctl_print(ctl, &t);
}

const struct verb verb_help = {
	.name = "help",
	.operands = "[VERB]",
	.summary = "explain this program, or a verb",
	.about = "Explains this program, or one of its verbs.",
	.max_operands = 1,
	.run = run,
};
