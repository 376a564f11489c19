/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "proto/fg_proto.h"
#include "tests/cmocka.h"

static size_t encode(const struct fg_msg *m, uint8_t *p)
{
	size_t n = fg_encode_head(m, p);

	if (m->len)
		memcpy(p + n, m->data, m->len);
	return n + m->len;
}

static void a_message_comes_back_as_it_went(void **state)
{
	const struct fg_msg m = { .type = FG_ALLOC, .n = 3, .seq = 0x1122334455667788,
				  .arg = { 1, UINT64_MAX, 3 }, .data = "text", .len = 4, .fd = 7 };
	uint8_t bytes[256];
	struct fg_msg got;
	size_t n = encode(&m, bytes), used;

	(void)state;
	assert_int_equal(n, 16 + 24 + 4);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(fg_decode(bytes, i, 1000, &got, &used), FG_MORE);
	assert_int_equal(fg_decode(bytes, sizeof(bytes), 1000, &got, &used), 0);
	assert_int_equal(used, n);
	assert_int_equal(got.type, FG_ALLOC);
	assert_int_equal(got.n, 3);
	assert_int_equal(got.seq, m.seq);
	assert_memory_equal(got.arg, m.arg, sizeof(m.arg));
	assert_int_equal(got.len, 4);
	assert_memory_equal(got.data, "text", 4);
	assert_int_equal(got.fd, -1); /* a descriptor is not in the bytes */
}

static void what_is_out_of_bounds_is_refused(void **state)
{
	const struct fg_msg m = { .type = FG_SYNC, .n = 1, .fd = -1 };
	uint8_t bytes[256] = { 0 };
	struct fg_msg got;
	size_t used;

	(void)state;
	/* At once: a length that is refused is not waited for. */
	(void)encode(&m, bytes);
	bytes[2] = 1;
	assert_int_equal(fg_decode(bytes, 16, 1000, &got, &used), -EBADMSG);
	(void)encode(&m, bytes);
	assert_int_equal(fg_decode(bytes, 256, 7, &got, &used), -EBADMSG);
	bytes[6] = FG_ARGS_MAX + 1;
	assert_int_equal(fg_decode(bytes, 256, 1000, &got, &used), -EBADMSG);
	(void)encode(&m, bytes);
	bytes[6] = 2; /* two arguments in eight bytes */
	assert_int_equal(fg_decode(bytes, 256, 1000, &got, &used), -EBADMSG);
	(void)encode(&m, bytes);
	bytes[4] = 0;
	assert_int_equal(fg_decode(bytes, 256, 1000, &got, &used), -EBADMSG);
	bytes[4] = FG_TYPE_END;
	assert_int_equal(fg_decode(bytes, 256, 1000, &got, &used), -EBADMSG);
}

static void uuids_have_a_text(void **state)
{
	static const char text[] = "GPU-01234567-89ab-cdef-0123-456789abcdef";
	uint8_t uuid[16];
	char buf[FG_UUID_TEXT];

	(void)state;
	assert_int_equal(fg_uuid_parse(text, uuid), 0);
	assert_int_equal(uuid[0], 0x01);
	assert_int_equal(uuid[15], 0xef);
	fg_uuid_text(uuid, buf);
	assert_string_equal(buf, text);
	assert_int_equal(fg_uuid_parse("GPU-01234567-89AB-CDEF-0123-456789ABCDEF", uuid), 0);
	assert_int_equal(fg_uuid_parse("01234567-89ab-cdef-0123-456789abcdef", uuid), -EINVAL);
	assert_int_equal(fg_uuid_parse("GPU-01234567-89ab-cdef-0123-456789abcde", uuid), -EINVAL);
	assert_int_equal(fg_uuid_parse("GPU-01234567-89ab-cdef-0123-456789abcdef0", uuid), -EINVAL);
	assert_int_equal(fg_uuid_parse("GPU-0123456789abcdef0123456789abcdef", uuid), -EINVAL);
	assert_int_equal(fg_uuid_parse("GPU-", uuid), -EINVAL);
}

static void calls_have_names(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < FG_CALLS; i++)
		assert_int_equal(fg_call_of(fg_call_name((enum fg_call)i)), i);
	assert_int_equal(fg_call_of("no such call"), FG_CALLS);
	assert_string_equal(fg_call_name(FG_CALLS), "?");
	assert_string_equal(fg_state_name(FG_CHECKPOINTED), "CHECKPOINTED");
	assert_string_equal(fg_state_name(-1), "?");
}

/* gpu-counter computes the checksum of step n from that of step 0 and this sum. */
static void the_weights_add_up_to_a_square(void **state)
{
	uint64_t sum = 0;

	(void)state;
	for (uint64_t i = 0; i < 1000; i++)
		sum += 2 * i + 1;
	assert_int_equal(sum, 1000 * 1000);
	assert_int_not_equal(fg_pattern(1, 0), fg_pattern(2, 0));
	assert_int_not_equal(fg_pattern(1, 5), fg_pattern(1, 6));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_message_comes_back_as_it_went),
		cmocka_unit_test(what_is_out_of_bounds_is_refused),
		cmocka_unit_test(uuids_have_a_text),
		cmocka_unit_test(calls_have_names),
		cmocka_unit_test(the_weights_add_up_to_a_square),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
