/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "oci/bootstrap.h"
#include "tests/golden.h"

static int parse(const char *name, const char *id, const char *namespace, struct bootstrap *ret,
		 struct error *err)
{
	_cleanup_buf_ struct buf raw = golden(name);

	return bootstrap_parse(buf_bytes(&raw), id, namespace, ret, err);
}

static void nothing_means_no_options(void **state)
{
	struct bootstrap b;

	(void)state;
	assert_int_equal(bootstrap_parse((struct bytes){ 0 }, "web", "k8s.io", &b, NULL), 0);
	assert_false(b.params);
	assert_string_equal(b.id, "");
	assert_string_equal(b.options.binary_name, "");
	bootstrap_done(&b);
}

static void an_any_is_taken_for_options(void **state)
{
	struct bootstrap b;

	(void)state;
	assert_int_equal(parse("start/1.7.24-cri-options.bin", "web", "k8s.io", &b, NULL), 0);
	assert_false(b.params);
	assert_int_equal(b.log_level, LOG_INFO);
	assert_string_equal(b.socket_dir, "");
	assert_string_equal(b.options.binary_name, "crun");
	assert_true(b.options.systemd_cgroup);
	bootstrap_done(&b);
	assert_int_equal(parse("start/2.1.9-cri-runtime-path.bin", NULL, NULL, &b, NULL), 0);
	assert_false(b.params);
	assert_string_equal(b.options.root, "/run/kyb");
	bootstrap_done(&b);
}

static void parameters_are_taken_when_the_ids_agree(void **state)
{
	struct bootstrap b;

	(void)state;
	assert_int_equal(parse("start/2.3.4-bootstrap.bin", "web", "k8s.io", &b, NULL), 0);
	assert_true(b.params);
	assert_string_equal(b.id, "web");
	assert_string_equal(b.namespace, "k8s.io");
	assert_int_equal(b.log_level, LOG_DEBUG); /* -4, in ten bytes */
	assert_string_equal(b.ttrpc_address, "/run/containerd/containerd.sock.ttrpc");
	assert_string_equal(b.grpc_address, "/run/containerd/containerd.sock");
	assert_string_equal(b.socket_dir, "/run/containerd/s");
	assert_string_equal(b.options.binary_name, "crun");
	assert_int_equal(b.options.io_uid, 1000);
	bootstrap_done(&b);
	/* The command line may one day name no ids. */
	assert_int_equal(parse("start/2.3.4-bootstrap-bare.bin", NULL, NULL, &b, NULL), 0);
	assert_true(b.params);
	assert_string_equal(b.id, "web");
	assert_string_equal(b.options.binary_name, "");
	bootstrap_done(&b);
}

static void parameters_for_somebody_else_are_refused(void **state)
{
	struct error err = ERROR_NULL;
	struct bootstrap b;

	(void)state;
	assert_int_equal(parse("start/2.3.4-bootstrap.bin", "db", "k8s.io", &b, &err), -EINVAL);
	assert_string_equal(error_text(&err),
			    "runtime options of the type \"web\" are not understood");
	assert_int_equal(parse("start/2.3.4-bootstrap.bin", "web", "default", &b, &err), -EINVAL);
}

/* An Any whose type is what the container is called, and whose value is the namespace. */
static void an_any_that_names_the_ids_is_a_bootstrap(void **state)
{
	static const char raw[] = "\x0a\x1a"
				  "containerd.runc.v1.Options"
				  "\x12\x02\x48\x01";
	struct bytes input = bytes_of(raw, sizeof(raw) - 1);
	struct bootstrap b;

	(void)state;
	assert_int_equal(bootstrap_parse(input, "containerd.runc.v1.Options", "\x48\x01", &b, NULL),
			 0);
	assert_true(b.params);
	bootstrap_done(&b);
	assert_int_equal(bootstrap_parse(input, "web", "k8s.io", &b, NULL), 0);
	assert_false(b.params);
	assert_true(b.options.systemd_cgroup);
	bootstrap_done(&b);
}

static void garbage_is_refused(void **state)
{
	struct error err = ERROR_NULL;
	struct bootstrap b;

	(void)state;
	assert_int_equal(bootstrap_parse(bytes_of("\xff\xff\xff", 3), "web", "k8s.io", &b, &err),
			 -EINVAL);
	assert_string_equal(error_text(&err),
			    "the input of start is neither BootstrapParams nor an Any");
	assert_int_equal(
		bootstrap_parse(bytes_of("x", BOOTSTRAP_MAX + 1), "web", "k8s.io", &b, &err),
		-EINVAL);
}

static void reading_has_a_limit_and_a_deadline(void **state)
{
	_cleanup_buf_ struct buf in = BUF_LIMIT(8), small = BUF_LIMIT(4);
	int p[2];

	(void)state;
	assert_int_equal(pipe(p), 0);
	assert_int_equal(write(p[1], "hello", 5), 5);
	assert_int_equal(bootstrap_read(p[0], time_now() + 20 * NSEC_PER_MSEC, &in, NULL),
			 -ETIMEDOUT);
	assert_int_equal(write(p[1], "!", 1), 1);
	assert_int_equal(close(p[1]), 0);
	assert_int_equal(bootstrap_read(p[0], time_now() + NSEC_PER_SEC, &in, NULL), 0);
	assert_string_equal(buf_str(&in), "hello!");
	assert_int_equal(close(p[0]), 0);
	p[0] = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	assert_int_equal(bootstrap_read(p[0], time_now() + NSEC_PER_SEC, &small, NULL), -EFBIG);
	assert_int_equal(close(p[0]), 0);
	p[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_int_equal(bootstrap_read(p[0], time_now() + NSEC_PER_SEC, &small, NULL), 0);
	assert_int_equal(buf_len(&small), 0);
	assert_int_equal(close(p[0]), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_means_no_options),
		cmocka_unit_test(an_any_is_taken_for_options),
		cmocka_unit_test(parameters_are_taken_when_the_ids_agree),
		cmocka_unit_test(parameters_for_somebody_else_are_refused),
		cmocka_unit_test(an_any_that_names_the_ids_is_a_bootstrap),
		cmocka_unit_test(garbage_is_refused),
		cmocka_unit_test(reading_has_a_limit_and_a_deadline),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
