/* SPDX-License-Identifier: Apache-2.0 */
/* Each in a child of its own. Needs root: others have nothing to give up. */
#include "base/caps.h"

#include <linux/capability.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/cmocka.h"

static int in_a_child(int (*fn)(void))
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(fn());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static bool has(int cap)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	(void)syscall(SYS_capget, &head, data);
	return data[CAP_TO_INDEX(cap)].effective & CAP_TO_MASK(cap);
}

static int keep_two(void)
{
	static const int kept[] = { CAP_KILL, CAP_BPF };

	if (caps_keep(kept, 2) < 0)
		return 1;
	/* One of each of the two words. */
	if (!has(CAP_KILL) || !has(CAP_BPF) || has(CAP_SYS_ADMIN) || has(CAP_PERFMON))
		return 2;
	if (!prctl(PR_CAPBSET_READ, CAP_KILL) || prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN))
		return 3;
	return 0;
}

static int keep_none(void)
{
	if (caps_keep(NULL, 0) < 0)
		return 1;
	for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
		if (has(cap) || prctl(PR_CAPBSET_READ, cap) > 0)
			return 2;
	/* Once more, without CAP_SETPCAP. */
	return caps_keep(NULL, 0) < 0 ? 3 : 0;
}

static int bound_only(void)
{
	caps_bound(NULL, 0);
	return has(CAP_KILL) && !prctl(PR_CAPBSET_READ, CAP_KILL) ? 0 : 1;
}

static void what_is_not_kept_is_gone(void **state)
{
	(void)state;
	if (!has(CAP_SETPCAP) || !has(CAP_BPF))
		skip();
	assert_int_equal(in_a_child(keep_two), 0);
	assert_int_equal(in_a_child(keep_none), 0);
	assert_int_equal(in_a_child(bound_only), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_not_kept_is_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
