/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "tests/cmocka.h"
#include "wire/grpc_frame.h"

static const uint8_t hello[] = { 0, 0, 0, 0, 5, 'h', 'e', 'l', 'l', 'o' };

static void assert_bytes(struct bytes b, const char *text)
{
	assert_int_equal(b.n, strlen(text));
	assert_memory_equal(b.p, text, b.n);
}

static void a_head_is_five_bytes_big_endian(void **state)
{
	static const uint8_t want[] = { 0, 0x01, 0x02, 0x03, 0x04 };
	uint8_t head[GRPC_FRAME_HEAD];

	(void)state;
	grpc_frame_head(head, 0x01020304);
	assert_memory_equal(head, want, sizeof(want));
}

static void take_wants_a_whole_message(void **state)
{
	struct bytes in, msg;

	(void)state;
	for (size_t n = 0; n < sizeof(hello); n++) {
		in = bytes_of(hello, n);
		assert_int_equal(grpc_frame_take(&in, 5, &msg), BYTES_MORE);
		assert_int_equal(in.n, n);
	}
	in = bytes_of(hello, sizeof(hello));
	assert_int_equal(grpc_frame_take(&in, 5, &msg), 0);
	assert_bytes(msg, "hello");
	assert_int_equal(in.n, 0);
}

static void a_bad_head_is_refused_before_its_message_comes(void **state)
{
	static const uint8_t compressed[] = { 1, 0, 0, 0, 1 }, flag[] = { 2 },
			     huge[] = { 0, 0xff, 0xff, 0xff, 0xff };
	struct bytes in, msg;

	(void)state;
	in = bytes_of(compressed, 1);
	assert_int_equal(grpc_frame_take(&in, 100, &msg), -ENOTSUP);
	in = bytes_of(flag, sizeof(flag));
	assert_int_equal(grpc_frame_take(&in, 100, &msg), -EBADMSG);
	in = bytes_of(huge, sizeof(huge));
	assert_int_equal(grpc_frame_take(&in, 100, &msg), -EMSGSIZE);
	in = bytes_of(hello, sizeof(hello));
	assert_int_equal(grpc_frame_take(&in, 4, &msg), -EMSGSIZE);
}

static void the_reader_hands_whole_messages_out_without_a_copy(void **state)
{
	struct grpc_reader r = GRPC_READER(100);
	struct bytes in = bytes_of(hello, sizeof(hello)), msg;

	(void)state;
	assert_int_equal(grpc_reader_next(&r, &in, &msg), 0);
	assert_ptr_equal(msg.p, hello + GRPC_FRAME_HEAD);
	assert_int_equal(grpc_reader_next(&r, &in, &msg), BYTES_MORE);
	assert_null(r.part.mem);
	grpc_reader_done(&r);
}

/* Four messages, one of them empty, cut into pieces of every length. */
static void the_reader_puts_pieces_together(void **state)
{
	static const char *const texts[] = { "hello", "", "a", "0123456789012345678901234567890" };
	_cleanup_buf_ struct buf all = BUF_NULL;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		uint8_t head[GRPC_FRAME_HEAD];

		grpc_frame_head(head, (uint32_t)strlen(texts[i]));
		assert_int_equal(buf_append(&all, head, sizeof(head)), 0);
		assert_int_equal(buf_append_str(&all, texts[i]), 0);
	}
	for (size_t step = 1; step <= buf_len(&all); step++) {
		struct grpc_reader r = GRPC_READER(31);
		struct bytes rest = buf_bytes(&all), piece, msg;
		size_t got = 0;

		while (rest.n) {
			_cleanup_free_ uint8_t *copy = NULL;

			/* In memory of its own, so that ASan sees a reach beyond the piece. */
			assert_int_equal(bytes_take(&rest, step < rest.n ? step : rest.n, &piece),
					 0);
			copy = malloc(piece.n);
			assert_non_null(copy);
			memcpy(copy, piece.p, piece.n);
			piece.p = copy;
			while (grpc_reader_next(&r, &piece, &msg) == 0)
				assert_bytes(msg, texts[got++]);
			assert_int_equal(piece.n, 0);
		}
		assert_int_equal(got, ARRAY_SIZE(texts));
		assert_false(grpc_reader_partial(&r));
		assert_null(r.part.mem); /* nothing is held between messages */
		grpc_reader_done(&r);
	}
}

static void the_reader_refuses_what_take_refuses_in_pieces_too(void **state)
{
	static const uint8_t compressed[] = { 1, 0, 0, 0, 0 }, big[] = { 0, 0, 0, 0, 6 };
	struct grpc_reader r = GRPC_READER(5);
	struct bytes in = bytes_of(compressed, 1), msg;

	(void)state;
	assert_int_equal(grpc_reader_next(&r, &in, &msg), -ENOTSUP);
	grpc_reader_done(&r);
	in = bytes_of(big, 3);
	assert_int_equal(grpc_reader_next(&r, &in, &msg), BYTES_MORE);
	assert_true(grpc_reader_partial(&r));
	in = bytes_of(big + 3, 2);
	assert_int_equal(grpc_reader_next(&r, &in, &msg), -EMSGSIZE);
	grpc_reader_done(&r);
}

static void memory_grows_with_what_has_come_not_with_what_is_announced(void **state)
{
	static const uint8_t announce[] = { 0, 0x7f, 0xff, 0xff, 0xff, 'x' };
	struct grpc_reader r = GRPC_READER(UINT32_MAX);
	struct bytes in = bytes_of(announce, sizeof(announce)), msg;

	(void)state;
	assert_int_equal(grpc_reader_next(&r, &in, &msg), BYTES_MORE);
	assert_in_range(r.part.cap, 1, 4096);
	grpc_reader_done(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_head_is_five_bytes_big_endian),
		cmocka_unit_test(take_wants_a_whole_message),
		cmocka_unit_test(a_bad_head_is_refused_before_its_message_comes),
		cmocka_unit_test(the_reader_hands_whole_messages_out_without_a_copy),
		cmocka_unit_test(the_reader_puts_pieces_together),
		cmocka_unit_test(the_reader_refuses_what_take_refuses_in_pieces_too),
		cmocka_unit_test(memory_grows_with_what_has_come_not_with_what_is_announced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
