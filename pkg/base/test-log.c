/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "tests/cmocka.h"

static int fds[2];

static int setup(void **state)
{
	(void)state;
	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return -1;
	log_set_fd(fds[1]);
	log_set_level(LOG_INFO);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	log_set_fd(STDERR_FILENO);
	(void)close(fds[0]);
	(void)close(fds[1]);
	return 0;
}

/* What was logged since the last call, without the time in front; "" for nothing. */
static const char *logged(void)
{
	static char text[20000];
	ssize_t n = read(fds[0], text, sizeof(text) - 1);
	char *level;

	if (n < 0)
		n = 0;
	text[n] = 0;
	level = strstr(text, " level=");
	return level ? level + 1 : text;
}

static void a_line(void **state)
{
	char text[512] = "";
	regex_t re;

	(void)state;
	log_info("task started", F_STR("id", "web"), F_INT("pid", 4711), F_INT("n", -1));
	assert_true(read(fds[0], text, sizeof(text) - 1) > 0);
	assert_int_equal(regcomp(&re,
				 "^time=\"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\\.[0-9]{9}Z\" "
				 "level=info msg=\"task started\" id=web pid=4711 n=-1\n$",
				 REG_EXTENDED | REG_NOSUB), 0);
	assert_int_equal(regexec(&re, text, 0, NULL, 0), 0);
	regfree(&re);
}

static void no_fields(void **state)
{
	(void)state;
	log_error("alone");
	assert_string_equal(logged(), "level=error msg=\"alone\"\n");
}

static void quoting(void **state)
{
	struct error err = ERROR_NULL;

	(void)state;
	log_warning("a \"b\"", F_STR("k", "x y"));
	assert_string_equal(logged(), "level=warning msg=\"a \\\"b\\\"\" k=\"x y\"\n");
	/* A peer can neither begin a line of its own nor send control codes. */
	log_info("m", F_STR("k", "a\nlevel=error\r\x1b[31m\x7f\t\\"));
	assert_string_equal(logged(),
			    "level=info msg=\"m\" k=\"a\\nlevel=error\\x0d\\x1b[31m\\x7f\\t\\\\\"\n");
	log_info("m", F_STR("k", ""), F_STR("n", NULL), F_STR("p", "/a/b-c_d.e:f"));
	assert_string_equal(logged(), "level=info msg=\"m\" k=\"\" n=\"\" p=/a/b-c_d.e:f\n");
	log_info("m", F_STR("k", "a=b"));
	assert_string_equal(logged(), "level=info msg=\"m\" k=\"a=b\"\n");
	(void)error_set(&err, -EIO, "it broke");
	log_info("m", F_ERR(&err));
	assert_string_equal(logged(), "level=info msg=\"m\" error=\"it broke\"\n");
}

static void levels(void **state)
{
	enum log_level level;

	(void)state;
	log_debug("hidden");
	assert_string_equal(logged(), "");
	log_set_level(LOG_DEBUG);
	log_debug("shown");
	assert_string_equal(logged(), "level=debug msg=\"shown\"\n");
	log_set_level(LOG_ERROR);
	log_warning("hidden");
	assert_string_equal(logged(), "");
	assert_true(log_level_parse("warning", &level));
	assert_int_equal(level, LOG_WARNING);
	assert_false(log_level_parse("warn!", &level));
	log_set_fd(-1);
	log_error("nowhere");
	log_set_fd(fds[1]);
	assert_string_equal(logged(), "");
}

/* Whatever is logged: one line, ended by a newline, every quote closed. */
static void long_values(void **state)
{
	static char longer[LOG_VALUE_MAX * 3];
	const char *text;
	size_t quotes = 0;

	(void)state;
	memset(longer, 'x', sizeof(longer) - 1);
	log_info("m", F_STR("k", longer));
	text = logged();
	assert_int_equal(strlen(text),
			 strlen("level=info msg=\"m\" k=\"...\"\n") + LOG_VALUE_MAX);
	assert_non_null(strstr(text, "x...\"\n"));
	memset(longer, '\n', sizeof(longer) - 1);
	log_info("m", F_STR("a", longer), F_STR("b", longer), F_STR("c", longer),
		 F_STR("d", longer), F_STR("e", longer), F_STR("f", longer));
	text = logged();
	assert_true(strlen(text) < 8192);
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
	for (const char *s = text; *s; s++) {
		if (*s == '\\') {
			s++;
			assert_non_null(strchr("\"\\ntx", *s));
		} else if (*s == '"') {
			quotes++;
		}
	}
	assert_int_equal(quotes % 2, 0);
}

/* A reader that is gone or slow costs lines, nothing else: no signal, no wait, no errno. */
static void never_stalls(void **state)
{
	(void)state;
	errno = 0;
	for (int i = 0; i < 3000; i++)
		log_info("filling the pipe", F_INT("i", i));
	assert_int_equal(errno, 0);
	(void)close(fds[0]);
	(void)signal(SIGPIPE, SIG_IGN);
	log_info("nobody reads");
	assert_int_equal(errno, 0);
	fds[0] = -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_line, setup, teardown),
		cmocka_unit_test_setup_teardown(no_fields, setup, teardown),
		cmocka_unit_test_setup_teardown(quoting, setup, teardown),
		cmocka_unit_test_setup_teardown(levels, setup, teardown),
		cmocka_unit_test_setup_teardown(long_values, setup, teardown),
		cmocka_unit_test_setup_teardown(never_stalls, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
