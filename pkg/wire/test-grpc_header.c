/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "tests/cmocka.h"
#include "wire/grpc_header.h"

static struct bytes text_of(const char *s)
{
	return bytes_of(s, strlen(s));
}

static void timeouts_are_read_strictly(void **state)
{
	static const char *const bad[] = { "",    "1",   "S",     "1s",   "-1S", "+1S", " 1S",
					   "1 S", "1.5S", "1SS", "123456789S", "0x1S", "1S " };
	static const struct {
		const char *text;
		nsec_t want;
	} good[] = {
		{ "1n", 1 },
		{ "250u", 250 * NSEC_PER_USEC },
		{ "99999999m", 99999999 * NSEC_PER_MSEC },
		{ "00000001S", NSEC_PER_SEC },
		{ "2M", 120 * NSEC_PER_SEC },
		{ "1H", 3600 * NSEC_PER_SEC },
		{ "0S", 0 },
		{ "99999999H", NSEC_NEVER },
	};
	nsec_t got;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(grpc_timeout_parse(text_of(bad[i]), &got), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(grpc_timeout_parse(text_of(good[i].text), &got), 0);
		assert_true(got == good[i].want);
	}
}

static void timeouts_are_written_rounded_up(void **state)
{
	static const struct {
		nsec_t left;
		const char *want;
	} cases[] = {
		{ 0, "0n" },
		{ 99999999, "99999999n" },
		{ 100000000, "100000u" },
		{ 100000001, "100001u" },
		{ 3 * NSEC_PER_SEC, "3000000u" },
		{ 36000 * NSEC_PER_SEC, "36000000m" },
		{ UINT64_MAX - 1, "5124096H" },
	};
	char text[GRPC_TIMEOUT_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		nsec_t back;

		grpc_timeout_format(cases[i].left, text);
		assert_string_equal(text, cases[i].want);
		assert_int_equal(grpc_timeout_parse(text_of(text), &back), 0);
		assert_true(back >= cases[i].left);
	}
}

static void content_types_of_protobuf_messages_are_accepted(void **state)
{
	(void)state;
	assert_true(grpc_content_type_ok(text_of("application/grpc")));
	assert_true(grpc_content_type_ok(text_of("application/grpc+proto")));
	assert_true(grpc_content_type_ok(text_of("application/grpc;charset=utf-8")));
	assert_false(grpc_content_type_ok(text_of("application/grpc+json")));
	assert_false(grpc_content_type_ok(text_of("application/grpc-web")));
	assert_false(grpc_content_type_ok(text_of("application/json")));
	assert_false(grpc_content_type_ok(text_of("")));
}

static void messages_are_percent_encoded(void **state)
{
	_cleanup_buf_ struct buf out = BUF_NULL;

	(void)state;
	assert_int_equal(grpc_percent_encode(text_of("50% \xc3\xbc\n~"), &out), 0);
	assert_string_equal(buf_str(&out), "50%25 %C3%BC%0A~");
	buf_clear(&out);
	assert_int_equal(grpc_percent_encode(text_of(" a b "), &out), 0);
	assert_string_equal(buf_str(&out), "%20a b%20"); /* HTTP would strip them */
}

static void decoding_keeps_what_is_no_escape(void **state)
{
	static const struct {
		const char *text, *want;
	} cases[] = {
		{ "50%25 %C3%bc%0A~", "50% \xc3\xbc\n~" },
		{ "%", "%" },
		{ "%4", "%4" },
		{ "%zz%41", "%zzA" },
		{ "a%00b", "a?b" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_buf_ struct buf out = BUF_NULL;

		assert_int_equal(grpc_percent_decode(text_of(cases[i].text), &out), 0);
		assert_string_equal(buf_str(&out), cases[i].want);
	}
}

static void base64_of_rfc4648(void **state)
{
	static const char *const cases[][3] = {
		{ "", "", "" },
		{ "f", "Zg", "Zg==" },
		{ "fo", "Zm8", "Zm8=" },
		{ "foo", "Zm9v", "Zm9v" },
		{ "foob", "Zm9vYg", "Zm9vYg==" },
		{ "fooba", "Zm9vYmE", "Zm9vYmE=" },
		{ "\xfb\xff\xfe", "+//+", "+//+" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_buf_ struct buf text = BUF_NULL, raw = BUF_NULL, padded = BUF_NULL;

		assert_int_equal(grpc_base64_encode(text_of(cases[i][0]), &text), 0);
		assert_string_equal(buf_str(&text), cases[i][1]);
		assert_int_equal(grpc_base64_decode(buf_bytes(&text), &raw), 0);
		assert_string_equal(buf_str(&raw), cases[i][0]);
		assert_int_equal(grpc_base64_decode(text_of(cases[i][2]), &padded), 0);
		assert_string_equal(buf_str(&padded), cases[i][0]);
	}
}

static void what_is_no_base64_is_refused(void **state)
{
	static const char *const bad[] = { "A",	   "AAAAA", "A===", "AA=",
					   "AA=A", "A-_A",  "AA A", "====" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_buf_ struct buf raw = BUF_NULL;

		assert_int_equal(grpc_base64_decode(text_of(bad[i]), &raw), -EINVAL);
	}
}

static void a_status_is_0_to_16(void **state)
{
	(void)state;
	assert_int_equal(grpc_status_parse(text_of("0")), RPC_OK);
	assert_int_equal(grpc_status_parse(text_of("16")), RPC_UNAUTHENTICATED);
	assert_int_equal(grpc_status_parse(text_of("17")), RPC_UNKNOWN);
	assert_int_equal(grpc_status_parse(text_of("")), RPC_UNKNOWN);
	assert_int_equal(grpc_status_parse(text_of("x")), RPC_UNKNOWN);
}

static void names_and_values_of_metadata(void **state)
{
	(void)state;
	assert_true(grpc_metadata_name_ok("containerd-namespace"));
	assert_true(grpc_metadata_name_ok("trace.v1_x-bin"));
	assert_false(grpc_metadata_name_ok(""));
	assert_false(grpc_metadata_name_ok(":path"));
	assert_false(grpc_metadata_name_ok("Upper"));
	assert_false(grpc_metadata_name_ok("a b"));
	assert_false(grpc_metadata_name_ok("grpc-timeout"));
	assert_false(grpc_metadata_name_ok("te"));
	assert_true(grpc_metadata_is_bin(text_of("x-bin")));
	assert_false(grpc_metadata_is_bin(text_of("-bin")));
	assert_false(grpc_metadata_is_bin(text_of("bin")));
	assert_true(grpc_metadata_value_ok(text_of("k8s.io")));
	assert_true(grpc_metadata_value_ok(text_of("")));
	assert_false(grpc_metadata_value_ok(text_of(" x")));
	assert_false(grpc_metadata_value_ok(text_of("x ")));
	assert_false(grpc_metadata_value_ok(text_of("x\ny")));
	assert_false(grpc_metadata_value_ok(text_of("\xc3\xbc")));
}

static void other_codes_become_status_codes(void **state)
{
	(void)state;
	assert_int_equal(grpc_code_of_http_status(404), RPC_UNIMPLEMENTED);
	assert_int_equal(grpc_code_of_http_status(503), RPC_UNAVAILABLE);
	assert_int_equal(grpc_code_of_http_status(200), RPC_UNKNOWN);
	assert_int_equal(grpc_code_of_h2_error(0), RPC_INTERNAL);
	assert_int_equal(grpc_code_of_h2_error(7), RPC_UNAVAILABLE);
	assert_int_equal(grpc_code_of_h2_error(8), RPC_CANCELED);
	assert_int_equal(grpc_code_of_h2_error(11), RPC_RESOURCE_EXHAUSTED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(timeouts_are_read_strictly),
		cmocka_unit_test(timeouts_are_written_rounded_up),
		cmocka_unit_test(content_types_of_protobuf_messages_are_accepted),
		cmocka_unit_test(messages_are_percent_encoded),
		cmocka_unit_test(decoding_keeps_what_is_no_escape),
		cmocka_unit_test(base64_of_rfc4648),
		cmocka_unit_test(what_is_no_base64_is_refused),
		cmocka_unit_test(a_status_is_0_to_16),
		cmocka_unit_test(names_and_values_of_metadata),
		cmocka_unit_test(other_codes_become_status_codes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
