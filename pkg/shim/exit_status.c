/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/exit_status.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/num.h"
#include "base/path.h"

void exit_status_write(const char *bundle, const struct exit_status *st)
{
	char path[PATH_MAX], line[80];
	int r, n;

	n = snprintf(line, sizeof(line), "%d %u %" PRIu64 "\n", st->pid, st->status,
		     st->exited_at);
	r = PATH_PRINTF(path, "%s/" EXIT_STATUS_FILE, bundle);
	if (r == 0)
		r = file_write(AT_FDCWD, path, line, (size_t)n, 0600, FILE_PLAIN);
	if (r < 0)
		log_warning("the exit status could not be kept", F_STR("bundle", bundle),
			    F_STR("error", strerror(-r)));
}

static bool parse(const char *line, struct exit_status *ret)
{
	static const uint64_t max[3] = { INT_MAX, UINT_MAX, UINT64_MAX };
	uint64_t v[3];

	for (int i = 0; i < 3; i++) {
		size_t n = strcspn(line, " ");

		if (num_parse_n(line, n, max[i], &v[i]) < 0 || (line[n] == 0) != (i == 2))
			return false;
		line += n + (i < 2);
	}
	*ret = (struct exit_status){ (pid_t)v[0], (unsigned int)v[1], v[2] };
	return true;
}

void exit_status_settle(const char *bundle)
{
	char from[PATH_MAX], to[PATH_MAX];

	/* Without a file (a restore that was never started, a full disk) `delete` does it all again. */
	if (PATH_PRINTF(from, "%s/" EXIT_STATUS_FILE, bundle) == 0 &&
	    PATH_PRINTF(to, "%s/" EXIT_STATUS_SETTLED, bundle) == 0)
		(void)rename(from, to);
}

bool exit_status_settled(int bundle_fd, struct exit_status *ret)
{
	char line[80];

	return file_read_line(bundle_fd, EXIT_STATUS_SETTLED, line, sizeof(line)) == 0 &&
	       parse(line, ret);
}

void exit_status_forget(int bundle_fd)
{
	(void)unlinkat(bundle_fd, EXIT_STATUS_FILE, 0);
	(void)unlinkat(bundle_fd, EXIT_STATUS_SETTLED, 0);
}

void exit_status_read(int bundle_fd, struct exit_status *ret)
{
	char line[80];
	uint64_t pid;

	if (file_read_line(bundle_fd, EXIT_STATUS_FILE, line, sizeof(line)) == 0 && parse(line, ret))
		return;
	*ret = (struct exit_status){ .status = 137, .exited_at = time_wall() };
	if (file_read_line(bundle_fd, "init.pid", line, sizeof(line)) == 0 &&
	    num_parse(line, INT_MAX, &pid) == 0)
		ret->pid = (pid_t)pid;
}
