/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "oci/runtime_log.h"
#include "tests/golden.h"

static const char *last_of(const char *text, struct buf *out)
{
	buf_clear(out);
	assert_int_equal(runtime_log_parse(bytes_of(text, strlen(text)), out), 0);
	return buf_str(out);
}

static void real_logs_are_understood(void **state)
{
	static const struct {
		const char *file, *message;
	} cases[] = {
		{ "runc-1.1.5-missing-binary",
		  "runc create failed: unable to start container process: exec: \"nope\": "
		  "executable file not found in $PATH" },
		{ "runc-1.3.6-not-executable",
		  "runc create failed: unable to start container process: error during container "
		  "init: exec: \"/bin/noexec\": permission denied" },
		{ "runc-1.1.5-kill-stopped", "container not running" },
		{ "runc-1.1.5-pause-twice", "container not running" },
		{ "runc-1.1.5-restore-empty",
		  "open /run/gold/img2/descriptors.json: no such file or directory" },
		{ "runc-1.1.5-restore-cgroup-noise", "read unixpacket @->@: EOF" },
		{ "crun-1.8.1-missing-binary",
		  "executable file `nope` not found in $PATH: No such file or directory" },
		{ "crun-1.8.1-kill-stopped", "kill container: No such process" },
		/* crun from about 1.15 on writes an entry over several lines. */
		{ "crun-1.28-missing-binary",
		  "executable file `nope` not found in $PATH: No such file or directory" },
		{ "crun-1.28-pause-twice", "container `nosuch` does not exist: open "
					   "`/run/gold/root/nosuch/status`: No such file or "
					   "directory" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_buf_ struct buf out = BUF_NULL, text = BUF_NULL;
		char name[80];

		(void)snprintf(name, sizeof(name), "runtime-log/%s.json", cases[i].file);
		text = golden(name);
		assert_int_equal(runtime_log_parse(buf_bytes(&text), &out), 0);
		assert_string_equal(buf_str(&out), cases[i].message);
	}
}

static void the_last_error_counts(void **state)
{
	_cleanup_buf_ struct buf out = BUF_NULL;

	(void)state;
	assert_string_equal(last_of("", &out), "");
	assert_string_equal(last_of("\n \n", &out), "");
	assert_string_equal(last_of("{\"level\":\"warning\",\"msg\":\"w\"}\n", &out), "");
	assert_string_equal(last_of("{\"level\":\"error\",\"msg\":\" one\\n\"}\n"
				    "{\"level\":\"error\",\"msg\":\"two \"}\n"
				    "{\"level\":\"info\",\"msg\":\"three\"}\n",
				    &out),
			    "two");
	assert_string_equal(last_of("{\"level\":\"error\",\"msg\":\"a\"}{\"level\":\"error\","
				    "\"msg\":\"b\"}",
				    &out),
			    "b");
	assert_string_equal(last_of("{\"level\":\"error\",\"msg\":7}\n", &out), "");
}

static void broken_entries_are_passed_over(void **state)
{
	_cleanup_buf_ struct buf out = BUF_NULL;

	(void)state;
	assert_string_equal(
		last_of("not json\n{\"level\":\"error\",\"msg\":\"a\"}\n{\"level\":\"err", &out),
		"a");
	assert_string_equal(
		last_of("g\":\"cut\"}\n{\"broken\n{\"level\":\"error\",\"msg\":\"b\"}\n", &out),
		"b");
	buf_clear(&out);
	assert_int_equal(runtime_log_parse(bytes_of("runtime crashed\n", 16), &out), -EBADMSG);
	assert_int_equal(runtime_log_parse(bytes_of("{\"level\":", 9), &out), -EBADMSG);
	assert_int_equal(buf_len(&out), 0);
}

static void what_was_there_before_is_kept(void **state)
{
	_cleanup_buf_ struct buf out = BUF_NULL;
	static const char text[] = "{\"level\":\"error\",\"msg\":\"long\"}\n"
				   "{\"level\":\"error\",\"msg\":\"b\"}\n";

	(void)state;
	assert_int_equal(buf_append_str(&out, "x: "), 0);
	assert_int_equal(runtime_log_parse(bytes_of(text, sizeof(text) - 1), &out), 0);
	assert_string_equal(buf_str(&out), "x: b");
}

struct folder {
	char path[40];
	int fd;
};

static int make_folder(void **state)
{
	static struct folder f;

	(void)snprintf(f.path, sizeof(f.path), "/tmp/runtime-log-test-XXXXXX");
	assert_non_null(mkdtemp(f.path));
	f.fd = open(f.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*state = &f;
	return f.fd < 0;
}

static int remove_folder(void **state)
{
	struct folder *f = *state;

	(void)unlinkat(f->fd, "log.json", 0);
	(void)close(f->fd);
	return rmdir(f->path);
}

static void append(struct folder *f, const char *text)
{
	int fd = openat(f->fd, "log.json", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	assert_int_equal(fd_write_all(fd, text, strlen(text)), 0);
	assert_int_equal(close(fd), 0);
}

#define HOW "runc did not terminate successfully: exit status 1"

static const char *failure(struct folder *f, off_t mark, struct error *err)
{
	assert_int_equal(
		runtime_log_failure(f->fd, "log.json", mark, "OCI runtime create failed", HOW, err),
		-EIO);
	assert_int_equal(error_rpc_code(err), RPC_UNKNOWN);
	return error_text(err);
}

static void an_older_entry_is_not_blamed(void **state)
{
	struct folder *f = *state;
	struct error err = ERROR_NULL;
	off_t mark;

	assert_int_equal(runtime_log_mark(f->fd, "log.json"), 0);
	assert_string_equal(failure(f, 0, &err),
			    "OCI runtime create failed: unable to retrieve OCI runtime error "
			    "(No such file or directory): " HOW);
	append(f, "{\"level\":\"error\",\"msg\":\"old\"}\n");
	assert_string_equal(failure(f, 0, &err), "OCI runtime create failed: old");
	mark = runtime_log_mark(f->fd, "log.json");
	assert_int_equal(mark, 30);
	assert_string_equal(failure(f, mark, &err), "OCI runtime create failed: " HOW);
	append(f, "{\"level\":\"error\",\"msg\":\"new\"}\n");
	assert_string_equal(failure(f, mark, &err), "OCI runtime create failed: new");
	/* Begun anew by somebody: then all of it counts. */
	assert_int_equal(file_write(f->fd, "log.json", "{\"level\":\"error\",\"msg\":\"x\"}", 27,
				    0600, FILE_PLAIN),
			 0);
	assert_string_equal(failure(f, mark, &err), "OCI runtime create failed: x");
	append(f, "\nSegmentation fault\n");
	assert_string_equal(failure(f, 28, &err),
			    "OCI runtime create failed: unable to retrieve OCI runtime error "
			    "(Bad message): " HOW);
}

static void only_the_end_of_a_long_log_is_read(void **state)
{
	struct folder *f = *state;
	_cleanup_buf_ struct buf text = BUF_NULL;
	struct error err = ERROR_NULL;

	assert_int_equal(buf_append_str(&text, "{\"level\":\"error\",\"msg\":\"first\"}\n"), 0);
	while (buf_len(&text) < RUNTIME_LOG_TAIL + 100)
		assert_int_equal(buf_append_str(&text, "{\"level\":\"debug\",\"msg\":\"d\"}\n"), 0);
	append(f, buf_str(&text));
	assert_string_equal(failure(f, 0, &err), "OCI runtime create failed: " HOW);
	append(f, "{\"level\":\"error\",\"msg\":\"last\"}\n");
	assert_string_equal(failure(f, 0, &err), "OCI runtime create failed: last");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(real_logs_are_understood),
		cmocka_unit_test(the_last_error_counts),
		cmocka_unit_test(broken_entries_are_passed_over),
		cmocka_unit_test(what_was_there_before_is_kept),
		cmocka_unit_test_setup_teardown(an_older_entry_is_not_blamed, make_folder,
						remove_folder),
		cmocka_unit_test_setup_teardown(only_the_end_of_a_long_log_is_read, make_folder,
						remove_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
