/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/fault.h"

#include <stdlib.h>

bool fault_match(struct list *rules, enum fg_call call, pid_t pid, bool after, struct plan *ret)
{
	struct rule *r;

	*ret = (struct plan){ 0 };
	list_for_each(r, rules, node) {
		if ((r->call != FG_CALLS && r->call != call) || (r->pid && r->pid != pid) ||
		    r->after != after)
			continue;
		if (r->skip) {
			r->skip--;
			continue;
		}
		if (r->count && r->hits >= r->count)
			continue;
		r->hits++;
		*ret = r->plan;
		ret->rule = r->id;
		return true;
	}
	return false;
}

/* Removes the rule of that id, or all for 0. */
void fault_clear(struct list *rules, uint64_t id)
{
	struct rule *r, *next;

	list_for_each_safe(r, next, rules, node) {
		if (id && r->id != id)
			continue;
		list_remove(&r->node);
		free(r);
	}
}
