/* SPDX-License-Identifier: Apache-2.0 */
/* Prints a table of docs/drivers.md: "branches" or "issues". For tools/generated-docs. */
#include <stdio.h>
#include <string.h>

#include "gpu/capability.h"
#include "gpu/issue.h"

static void print_branches(void)
{
	const struct gpu_branch *branches;
	size_t n;

	branches = gpu_branches(&n);
	(void)printf("| driver | CUDA |");
	for (uint32_t cap = 1; cap & GPU_CAP_ALL; cap <<= 1)
		(void)printf(" %s |", gpu_cap_title((enum gpu_cap)cap));
	(void)printf(" adds | still lacks |\n| --- | --- |");
	for (uint32_t cap = 1; cap & GPU_CAP_ALL; cap <<= 1)
		(void)printf(" --- |");
	(void)printf(" --- | --- |\n");
	for (size_t i = 0; i < n; i++) {
		const struct gpu_branch *b = &branches[i];

		(void)printf("| %u | %d.%d |", b->branch, b->cuda_version / 1000,
			     b->cuda_version % 1000 / 10);
		for (uint32_t cap = 1; cap & GPU_CAP_ALL; cap <<= 1)
			(void)printf(" %s |", b->caps & cap ? "yes" : "-");
		(void)printf(" %s | %s |\n", b->adds, b->lacks);
	}
}

static void print_issues(void)
{
	const struct gpu_issue *issues;
	size_t n;

	issues = gpu_issues(&n);
	(void)printf("| source | driver | what happens | what we do |\n");
	(void)printf("| --- | --- | --- | --- |\n");
	for (size_t i = 0; i < n; i++) {
		char range[32] = "all";

		if (issues[i].last)
			(void)snprintf(range, sizeof(range), "%u to %u", issues[i].first,
				       issues[i].last);
		else if (issues[i].first)
			(void)snprintf(range, sizeof(range), "from %u", issues[i].first);
		(void)printf("| %s | %s | %s | %s |\n", issues[i].source, range, issues[i].what,
			     issues[i].guard);
	}
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "branches") == 0)
		print_branches();
	else if (argc == 2 && strcmp(argv[1], "issues") == 0)
		print_issues();
	else
		return 2;
	return fflush(stdout) == 0 ? 0 : 1;
}
