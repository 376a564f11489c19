/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "conf/agent_settings.h"
#include "conf/shim_settings.h"
#include "tests/cmocka.h"

static struct bytes text(const char *s)
{
	return bytes_of(s, strlen(s));
}

static void shim_refuses(const char *toml, const char *why)
{
	struct shim_settings s = { 0 };
	struct error err = ERROR_NULL;

	assert_int_equal(shim_settings_parse(text(toml), &s, &err), -EINVAL);
	assert_string_equal(error_text(&err), why);
	assert_null(s.mem.chunks);
}

static void agent_refuses(const char *toml, const char *why)
{
	struct agent_settings s = { 0 };
	struct error err = ERROR_NULL;

	assert_int_equal(agent_settings_parse(text(toml), &s, &err), -EINVAL);
	assert_string_equal(error_text(&err), why);
	assert_int_equal(err.reason, REASON_CONFIG_INVALID);
	assert_null(s.mem.chunks);
}

static void an_empty_file_means_the_defaults(void **state)
{
	struct agent_settings a;
	struct shim_settings s;

	(void)state;
	assert_int_equal(shim_settings_parse(text(""), &s, NULL), 0);
	assert_string_equal(s.agent_socket, "/run/kybernate/agent.sock");
	assert_int_equal(s.log_level, LOG_INFO);
	assert_true(s.timeouts.quiesce == 10 * NSEC_PER_SEC);
	assert_true(s.timeouts.operation == 1800 * NSEC_PER_SEC);
	assert_false(s.checkpoint.tcp_established);
	assert_false(s.checkpoint.ext_unix_sk);
	assert_true(s.checkpoint.file_locks);
	assert_int_equal(s.gpu.device_prefixes.n, 1);
	assert_string_equal(s.gpu.device_prefixes.items[0], "/dev/nvidia");
	shim_settings_done(&s);
	assert_int_equal(agent_settings_parse(text(""), &a, NULL), 0);
	assert_string_equal(a.socket, "/run/kybernate/agent.sock");
	assert_int_equal(a.allowed_uids.n, 1);
	assert_int_equal(a.allowed_uids.items[0], 0);
	assert_int_equal(a.limits.criu, 2);
	assert_true(a.limits.store_size == 0);
	assert_int_equal(a.n_groups, 0);
	assert_null(agent_settings_group(&a, "g"));
	agent_settings_done(&a);
}

static void a_file_changes_what_it_names(void **state)
{
	struct shim_settings s;

	(void)state;
	assert_int_equal(shim_settings_parse(text("agent_socket = '/run/k.sock'\n"
						  "log_level = 'debug'\n"
						  "timeouts.criu_dump = '1h30m'\n"
						  "[checkpoint]\ntcp_established = true\n"
						  "[gpu]\ndevice_prefixes = ['/dev/nvidia', "
						  "'/dev/dri']\n"),
					     &s, NULL),
			 0);
	assert_string_equal(s.agent_socket, "/run/k.sock");
	assert_int_equal(s.log_level, LOG_DEBUG);
	assert_true(s.timeouts.criu_dump == 5400 * NSEC_PER_SEC);
	assert_true(s.timeouts.quiesce == 10 * NSEC_PER_SEC);
	assert_true(s.checkpoint.tcp_established);
	assert_int_equal(s.gpu.device_prefixes.n, 2);
	assert_true(setting_list_has(&s.gpu.device_prefixes, "/dev/dri"));
	assert_false(setting_list_has(&s.gpu.device_prefixes, "/dev"));
	shim_settings_done(&s);
}

static void unknown_keys_are_errors(void **state)
{
	(void)state;
	shim_refuses("agent_socket = '/a'\nagent_sokcet = '/b'\n",
		     "line 2: unknown key 'agent_sokcet'");
	shim_refuses("[timeouts]\nlock = '1s'\n", "line 2: unknown key 'timeouts.lock'");
	shim_refuses("[timeout]\nquiesce = '1s'\n", "line 1: unknown key 'timeout'");
	shim_refuses("'timeouts.quiesce' = '1s'\n", "line 1: unknown key 'timeouts.quiesce'");
	shim_refuses("timeouts.quiesce.x = '1s'\n",
		     "line 1: 'timeouts.quiesce' must be a duration from \"1ms\" to \"24h\", "
		     "not a table");
	shim_refuses("timeouts = 1\n", "line 1: 'timeouts' must be a table, not an integer");
	shim_refuses("group = 1\n", "line 1: unknown key 'group'");
	shim_refuses("x\n", "line 1, column 2: expected '=' after the key");
	agent_refuses("[[group]]\nname='g'\nseats=['0']\ngpu_uuids=['GPU-1']\n"
		      "device_paths=['/dev/nvidia0']\ngpus=1\n",
		      "[[group]]: line 6: unknown key 'gpus'");
}

static void values_are_checked(void **state)
{
	(void)state;
	shim_refuses("agent_socket = 'agent.sock'\n",
		     "line 1: 'agent_socket' must be an absolute path, not \"agent.sock\"");
	shim_refuses("log_level = 'verbose'\n",
		     "line 1: 'log_level' must be \"debug\", \"info\", \"warning\" or \"error\", "
		     "not \"verbose\"");
	shim_refuses("[timeouts]\nexit = 30\n",
		     "line 2: 'timeouts.exit' must be a duration from \"1ms\" to \"24h\", not 30");
	shim_refuses("timeouts.exit = '0'\n",
		     "line 1: 'timeouts.exit' must be a duration from \"1ms\" to \"24h\", "
		     "not \"0\"");
	shim_refuses("timeouts.exit = '25h'\n",
		     "line 1: 'timeouts.exit' must be a duration from \"1ms\" to \"24h\", "
		     "not \"25h\"");
	shim_refuses("checkpoint.file_locks = 'yes'\n",
		     "line 1: 'checkpoint.file_locks' must be true or false, not \"yes\"");
	shim_refuses("gpu.device_prefixes = []\n",
		     "line 1: 'gpu.device_prefixes' must be a list, and not empty, not an array");
	shim_refuses("gpu.device_prefixes = ['/']\n",
		     "line 1: 'gpu.device_prefixes' must be a list of absolute paths, not \"/\"");
	agent_refuses("limits.criu = 0\n",
		      "line 1: 'limits.criu' must be an integer from 1, not 0");
	agent_refuses("allowed_uids = [-1]\n",
		      "line 1: 'allowed_uids' must be a list of user ids, not -1");
	agent_refuses("allowed_uids = [4294967295]\n",
		      "line 1: 'allowed_uids' must be a list of user ids, not 4294967295");
	agent_refuses("libcuda = ''\n",
		      "line 1: 'libcuda' must be a string, and not empty, not \"\"");
}

static void sizes_have_units(void **state)
{
	static const struct {
		const char *toml;
		uint64_t bytes;
	} good[] = {
		{ "limits.store_size = 4096", 4096 },
		{ "limits.store_size = '17B'", 17 },
		{ "limits.store_size = '3KiB'", 3072 },
		{ "limits.store_size = '500GiB'", 500ULL << 30 },
		{ "limits.store_size = '2TiB'", 2ULL << 40 },
	};
	static const char *const bad[] = { "'1GB'", "'GiB'", "''", "-1", "1.5", "'8388608TiB'" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct agent_settings s;

		assert_int_equal(agent_settings_parse(text(good[i].toml), &s, NULL), 0);
		assert_true(s.limits.store_size == good[i].bytes);
		agent_settings_done(&s);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct agent_settings s;
		char toml[64];

		(void)snprintf(toml, sizeof(toml), "limits.store_size = %s", bad[i]);
		assert_int_equal(agent_settings_parse(text(toml), &s, NULL), -EINVAL);
	}
}

#define GROUP(name, seats, gpus, devices)                                                          \
	"[[group]]\nname = '" name "'\nseats = [" seats "]\ngpu_uuids = [" gpus                    \
	"]\ndevice_paths = [" devices "]\n"

static void groups_are_read(void **state)
{
	const struct agent_group *g;
	struct agent_settings s;

	(void)state;
	assert_int_equal(
		agent_settings_parse(text(GROUP("a", "'0','1'", "'GPU-1','GPU-2'",
						"'/dev/nvidia0','/dev/nvidia1'")
						  GROUP("b", "'0'", "'GPU-3'", "'/dev/nvidia2'")),
				     &s, NULL),
		0);
	assert_int_equal(s.n_groups, 2);
	g = agent_settings_group(&s, "a");
	assert_non_null(g);
	assert_true(setting_list_has(&g->seats, "1"));
	assert_false(setting_list_has(&g->seats, "2"));
	assert_true(setting_list_has(&g->gpu_uuids, "GPU-2"));
	assert_false(setting_list_has(&g->gpu_uuids, "GPU-3"));
	assert_non_null(agent_settings_group(&s, "b"));
	assert_null(agent_settings_group(&s, "c"));
	agent_settings_done(&s);
}

static void groups_do_not_overlap(void **state)
{
	(void)state;
	agent_refuses(GROUP("a", "'0'", "'G1'", "'/d0'") GROUP("a", "'0'", "'G2'", "'/d1'"),
		      "[[group]]: line 6: there are two groups of the name 'a'");
	agent_refuses(GROUP("a", "'0'", "'G1'", "'/d0'") GROUP("b", "'0'", "'G1'", "'/d1'"),
		      "[[group]]: line 6: the GPU 'G1' is in two groups");
	agent_refuses(GROUP("a", "'0'", "'G1'", "'/d0'") GROUP("b", "'0'", "'G2'", "'/d0'"),
		      "[[group]]: line 6: the device '/d0' is in two groups");
	agent_refuses(GROUP("a", "'0','0'", "'G1'", "'/d0'"),
		      "[[group]]: line 3: 'seats' names '0' twice");
	agent_refuses(GROUP("a b", "'0'", "'G1'", "'/d0'"),
		      "[[group]]: line 2: 'name' must be a name, not \"a b\"");
	agent_refuses("[[group]]\nname = 'a'\n", "[[group]]: line 1: the key 'seats' is missing");
	agent_refuses("[group]\nname = 'a'\n", "line 1: write [[group]], once for each group");
	agent_refuses("group = [1]\n", "line 1: write [[group]], once for each group");
}

static void names_are_plain(void **state)
{
	char longest[SETTING_NAME_MAX + 2];

	(void)state;
	assert_true(setting_name_valid("GPU-8f1c5a4e-6f0e-4b8a-9d1e-0123456789ab::3"));
	assert_true(setting_name_valid("rack_1/node.2@a"));
	assert_false(setting_name_valid(""));
	assert_false(setting_name_valid("a b"));
	assert_false(setting_name_valid("a\n"));
	assert_false(setting_name_valid("\"a\""));
	memset(longest, 'a', sizeof(longest));
	longest[SETTING_NAME_MAX + 1] = 0;
	assert_false(setting_name_valid(longest));
	longest[SETTING_NAME_MAX] = 0;
	assert_true(setting_name_valid(longest));
}

static void only_the_default_file_may_be_missing(void **state)
{
	char dir[] = "/tmp/settings-test-XXXXXX", path[64], want[160];
	struct error err = ERROR_NULL;
	struct shim_settings s;
	struct agent_settings a;

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/shim.toml", dir);
	assert_int_equal(shim_settings_load(path, &s, &err), -ENOENT);
	(void)snprintf(want, sizeof(want), "read %s: No such file or directory", path);
	assert_string_equal(error_text(&err), want);
	assert_int_equal(err.reason, REASON_CONFIG_INVALID);
	assert_int_equal(agent_settings_load(path, &a, &err), -ENOENT);
	assert_int_equal(file_write(AT_FDCWD, path, "\na = 1\n", 7, 0600, FILE_PLAIN), 0);
	assert_int_equal(shim_settings_load(path, &s, &err), -EINVAL);
	(void)snprintf(want, sizeof(want), "%s: line 2: unknown key 'a'", path);
	assert_string_equal(error_text(&err), want);
	assert_int_equal(file_write(AT_FDCWD, path, "log_level='error'", 17, 0600, FILE_PLAIN), 0);
	assert_int_equal(shim_settings_load(path, &s, &err), 0);
	assert_int_equal(s.log_level, LOG_ERROR);
	shim_settings_done(&s);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(dir), 0);
	/* The machine that runs this test may have a default file; then it must be a good one. */
	if (access(SHIM_SETTINGS_FILE, F_OK) < 0) {
		assert_int_equal(shim_settings_load(NULL, &s, &err), 0);
		shim_settings_done(&s);
		assert_int_equal(shim_settings_load("", &s, &err), 0);
		shim_settings_done(&s);
	}
}

/* The first example behind a heading of docs/configuration.md. */
static struct bytes example(const struct buf *page, const char *heading)
{
	static const char begin[] = "```toml\n";
	const char *at = strstr(buf_str(page), heading), *end;

	assert_non_null(at);
	at = strstr(at, begin);
	assert_non_null(at);
	at += sizeof(begin) - 1;
	end = strstr(at, "```");
	assert_non_null(end);
	return bytes_of(at, (size_t)(end - at));
}

static void the_examples_of_the_documentation_are_valid(void **state)
{
	_cleanup_buf_ struct buf page = BUF_NULL;
	struct agent_settings a;
	struct shim_settings s;

	(void)state;
	assert_int_equal(file_read(AT_FDCWD, getenv("KYB_CONFIGURATION_PAGE"), &page), 0);
	assert_int_equal(shim_settings_parse(example(&page, "\n## shim.toml\n"), &s, NULL), 0);
	assert_true(s.checkpoint.tcp_established);
	shim_settings_done(&s);
	assert_int_equal(agent_settings_parse(example(&page, "\n## agent.toml\n"), &a, NULL), 0);
	assert_int_equal(a.n_groups, 1);
	agent_settings_done(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_file_means_the_defaults),
		cmocka_unit_test(a_file_changes_what_it_names),
		cmocka_unit_test(unknown_keys_are_errors),
		cmocka_unit_test(values_are_checked),
		cmocka_unit_test(sizes_have_units),
		cmocka_unit_test(groups_are_read),
		cmocka_unit_test(groups_do_not_overlap),
		cmocka_unit_test(names_are_plain),
		cmocka_unit_test(only_the_default_file_may_be_missing),
		cmocka_unit_test(the_examples_of_the_documentation_are_valid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
