/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bugs and traits of NVIDIA's driver that this project has to know of, with what is done about
 * each: for docs/drivers.md, and for telling people what their branch is known for.
 */
#ifndef KYB_GPU_ISSUE_H
#define KYB_GPU_ISSUE_H

#include <stdbool.h>
#include <stddef.h>

struct gpu_issue {
	const char *source;       /* where it is reported */
	unsigned int first, last; /* driver branches; first 0 = all, last 0 = no end is known */
	const char *what, *guard; /* what happens; what we do so that it does not */
};

const struct gpu_issue *gpu_issues(size_t *ret_n);
/* Does it concern this branch? */
bool gpu_issue_concerns(const struct gpu_issue *issue, unsigned int branch);

#endif
