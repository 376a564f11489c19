/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/criu.h"

#include "proc/procfs.h"

static pid_t criu_of(pid_t pid)
{
	pid_t tracer;

	if (procfs_tracer(pid, &tracer) < 0 || tracer == 0)
		return 0; /* nobody, or it is gone */
	return procfs_runs(tracer, "criu") == 1 ? tracer : 0;
}

pid_t criu_tracer(const struct cgroup *cg)
{
	struct cgroup_pids pids;
	pid_t tracer = 0;

	if (!cg->host || cgroup_pids(cg, &pids, NULL) < 0)
		return 0;
	for (size_t i = 0; !tracer && i < pids.n; i++)
		tracer = criu_of(pids.pid[i]);
	cgroup_pids_free(&pids);
	return tracer;
}
