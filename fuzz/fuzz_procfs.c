/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/PID/stat, /proc/PID/status and /proc/PID/cgroup: a process chooses its name, so the text is foreign. */
#include <assert.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/membership.h"
#include "proc/procfs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const char *const controllers[] = { "", "cpu", "memory", "name=systemd" };
	struct bytes text = bytes_of(data, n);
	struct membership m;
	uint64_t start;
	char path[64];
	pid_t pid;

	if (procfs_parse_ns_pid(text, &pid) == 0)
		assert(pid > 0);
	(void)procfs_parse_stat(text, &start);
	for (size_t i = 0; i < ARRAY_SIZE(controllers); i++)
		if (procfs_parse_cgroup(text, controllers[i], path, sizeof(path)) == 0)
			assert(path[0] == '/' && strlen(path) < sizeof(path));
	while (membership_next(&text, &m) > 0) {
		assert(text.n < n);
		n = text.n;
	}
	assert(text.n == 0);
	return 0;
}
