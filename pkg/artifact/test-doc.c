/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "artifact/doc.h"
#include "tests/cmocka.h"

struct item {
	const char *name;
	uint64_t mode;
};

struct thing {
	const char *text, *foreign, *extra;
	uint64_t number;
	bool flag;
	struct digest hash;
	struct item one;
	const struct item *items;
	size_t n_items;
	const char *const *words;
	size_t n_words;
	const struct digest *hashes;
	size_t n_hashes;
};

static const struct doc_field item_fields[] = {
	DOC_FIELD(struct item, name, DOC_TEXT, 8),
	DOC_FIELD(struct item, mode, DOC_OCTAL, 0777),
};

static int check_item(const void *object, struct error *err)
{
	const struct item *i = object;

	return strcmp(i->name, "bad") ? 0 : error_set(err, -EBADMSG, "is named bad");
}

static const struct doc_shape item_shape = {
	sizeof(struct item), item_fields, ARRAY_SIZE(item_fields), check_item,
};

static const struct doc_field thing_fields[] = {
	DOC_FIELD(struct thing, text, DOC_TEXT, 16),
	DOC_FIELD(struct thing, foreign, DOC_TEXT, 8, .flags = DOC_OPTIONAL | DOC_FOREIGN),
	DOC_FIELD(struct thing, extra, DOC_TEXT, 8, .flags = DOC_OPTIONAL),
	DOC_FIELD(struct thing, number, DOC_NUMBER, 1000),
	DOC_FIELD(struct thing, flag, DOC_FLAG, 0),
	DOC_FIELD(struct thing, hash, DOC_DIGEST, 0, .flags = DOC_OPTIONAL),
	DOC_FIELD(struct thing, one, DOC_OBJECT, 0, .shape = &item_shape),
	DOC_ARRAY(struct thing, items, DOC_OBJECTS, 2, .shape = &item_shape),
	DOC_ARRAY(struct thing, words, DOC_TEXTS, 2, .text_max = 4),
	DOC_ARRAY(struct thing, hashes, DOC_DIGESTS, 2, .flags = DOC_OPTIONAL),
};

static const struct doc_shape thing_shape = {
	sizeof(struct thing), thing_fields, ARRAY_SIZE(thing_fields), NULL,
};

static const struct doc_format format = { "test/thing/v", 1, &thing_shape, false, 4096, 32 };
static const struct doc_format sealed = { "test/thing/v", 1, &thing_shape, true, 4096, 32 };

#define HASH "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define HEAD "{\"schema\":\"test/thing/v1\","
#define ONE  "\"one\":{\"name\":\"a\",\"mode\":\"0600\"}"
#define REST "\"flag\":true," ONE ",\"items\":[],\"words\":[]}"
#define GOOD HEAD "\"text\":\"x\",\"number\":7," REST

static struct arena arena;
static struct error err;
static struct thing thing;

static int read_it(const struct doc_format *f, const char *text)
{
	arena_done(&arena);
	arena = ARENA_LIMIT(8192);
	err = ERROR_NULL;
	return doc_read(f, bytes_of(text, strlen(text)), &thing, &arena, &err);
}

static void refused(const char *text, const char *why)
{
	size_t n = strlen(why);

	assert_int_equal(read_it(&format, text), -EBADMSG);
	/* Where JSON ends to be JSON is up to the library. */
	if (why[n - 1] == ' ' && strlen(err.text) > n)
		err.text[n] = 0;
	assert_string_equal(error_text(&err), why);
	assert_int_equal(err.code, -EBADMSG);
}

static int teardown(void **state)
{
	(void)state;
	arena_done(&arena);
	return 0;
}

static void a_document_is_read(void **state)
{
	(void)state;
	assert_int_equal(read_it(&format,
				 HEAD "\"text\":\"h\u00e9\",\"number\":1000,\"flag\":false,"
				 "\"foreign\":\"f\",\"hash\":\"" HASH "\"," ONE ","
				 "\"items\":[{\"name\":\"b\",\"mode\":\"0\"}],"
				 "\"words\":[\"p\",\"q\"],\"hashes\":[\"" HASH "\"]}"), 0);
	assert_string_equal(thing.text, "h\u00e9");
	assert_string_equal(thing.foreign, "f");
	assert_null(thing.extra);
	assert_int_equal(thing.number, 1000);
	assert_false(thing.flag);
	assert_int_equal(thing.hash.byte[0], 0xba);
	assert_int_equal(thing.one.mode, 0600);
	assert_int_equal(thing.n_items, 1);
	assert_string_equal(thing.items[0].name, "b");
	assert_int_equal(thing.n_words, 2);
	assert_string_equal(thing.words[1], "q");
	assert_int_equal(thing.n_hashes, 1);
	assert_memory_equal(&thing.hashes[0], &thing.hash, sizeof(thing.hash));
}

static void what_is_no_json_is_refused(void **state)
{
	(void)state;
	refused("", "is not JSON (line 1, column ");
	refused("{", "is not JSON (line 1, column ");
	refused("[]", "is not an object");
	refused("7", "is not JSON (line 1, column ");
	refused(GOOD "{}", "is not JSON (line 1, column ");
	refused("{\"schema\":\"test/thing/v1\",\"text\":\"\\u0000\"}",
		"is not JSON (line 1, column ");
}

static void another_schema_is_refused_by_name(void **state)
{
	(void)state;
	refused("{}", "does not say what it is: there is no text 'schema'");
	refused("{\"schema\":7}", "does not say what it is: there is no text 'schema'");
	refused("{\"schema\":\"other\\u001b/v1\"}",
		"is not a test/thing/v1: its schema is 'other?/v1'");
	refused("{\"schema\":\"test/thing/v\"}",
		"is not a test/thing/v1: its schema is 'test/thing/v'");
	refused("{\"schema\":\"test/thing/v2\",\"new\":1}",
		"has schema version 2, and this kybernate reads version 1 only: "
		"use the release that wrote it");
}

static void members_are_exactly_those_of_the_table(void **state)
{
	(void)state;
	refused(HEAD "\"text\":\"x\"," REST, "lacks the member 'number'");
	refused(HEAD "\"text\":\"x\",\"number\":7,\"more\\n\":1," REST,
		"has an unknown member 'more?'");
	refused(HEAD "\"text\":\"x\",\"text\":\"x\",\"number\":7," REST,
		"has a member twice (line 1)");
	refused(HEAD "\"text\":\"x\",\"number\":7,\"flag\":true,\"one\":{\"name\":\"a\","
		"\"mode\":\"0\",\"x\":1},\"items\":[],\"words\":[]}",
		"one: has an unknown member 'x'");
}

static void values_of_another_type_are_refused(void **state)
{
	(void)state;
	refused(HEAD "\"text\":1,\"number\":7," REST, "text: is not text");
	refused(HEAD "\"text\":null,\"number\":7," REST, "text: is not text");
	refused(HEAD "\"text\":\"x\",\"number\":\"7\"," REST, "number: is not a number from 0");
	refused(HEAD "\"text\":\"x\",\"number\":-1," REST, "number: is not a number from 0");
	refused(HEAD "\"text\":\"x\",\"number\":7.0," REST, "number: is not a number from 0");
	refused(HEAD "\"text\":\"x\",\"number\":7,\"flag\":0," ONE ",\"items\":[],\"words\":[]}",
		"flag: is neither true nor false");
	refused(HEAD "\"text\":\"x\",\"number\":7,\"flag\":true,\"one\":[],\"items\":[],"
		"\"words\":[]}", "one: is not an object");
	refused(HEAD "\"text\":\"x\",\"number\":7,\"flag\":true," ONE ",\"items\":{},"
		"\"words\":[]}", "items: is not an array");
	refused(HEAD "\"text\":\"x\",\"number\":7,\"hash\":\"BA\"," REST,
		"hash: is not a SHA-256 in lower-case hexadecimal");
	refused(HEAD "\"text\":\"x\",\"number\":7,\"flag\":true,\"one\":{\"name\":\"a\","
		"\"mode\":\"600\"},\"items\":[],\"words\":[]}",
		"one: mode: is not an octal number");
	refused(HEAD "\"text\":\"x\",\"number\":7,\"flag\":true,\"one\":{\"name\":\"a\","
		"\"mode\":\"0680\"},\"items\":[],\"words\":[]}",
		"one: mode: is not an octal number");
}

static void everything_is_bounded(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;

	(void)state;
	refused(HEAD "\"text\":\"12345678901234567\",\"number\":7," REST, "text: is too long");
	refused(HEAD "\"text\":\"\",\"number\":7," REST, "text: is empty");
	refused(HEAD "\"text\":\"x\",\"number\":1001," REST, "number: is over its maximum");
	refused(HEAD "\"text\":\"x\",\"number\":99999999999999999999," REST,
		"is not JSON (line 1, column ");
	refused(HEAD "\"text\":\"x\",\"number\":7,\"flag\":true," ONE ",\"items\":[],"
		"\"words\":[\"a\",\"b\",\"c\"]}", "words: has more than 2 elements");
	refused(HEAD "\"text\":\"x\",\"number\":7,\"flag\":true," ONE ",\"items\":[],"
		"\"words\":[\"a\",\"bcdef\"]}", "words: [1]: is too long");
	refused(HEAD "\"text\":\"x\",\"number\":7,\"flag\":true,\"one\":{\"name\":\"a\","
		"\"mode\":\"01000\"},\"items\":[],\"words\":[]}",
		"one: mode: is over its maximum");
	refused("[[[[[[[[[]]]]]]]]]", "is nested deeper than 8 levels");
	refused("[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]",
		"holds more than 32 values");
	assert_int_equal(buf_printf(&b, "\"%*s\"", 4096, ""), 0);
	refused(buf_str(&b), "is larger than 4096 bytes");
}

static void brackets_in_text_are_no_nesting(void **state)
{
	(void)state;
	assert_int_equal(read_it(&format, HEAD "\"text\":\"[[[[[[[[[[\\\"[{{{\",\"number\":7,"
				 REST), 0);
	assert_string_equal(thing.text, "[[[[[[[[[[\"[{{{");
}

static void text_with_control_characters_is_refused(void **state)
{
	(void)state;
	refused(HEAD "\"text\":\"a\\u001b[2J\",\"number\":7," REST,
		"text: holds a control character, or is not UTF-8");
	refused(HEAD "\"text\":\"a\\u007f\",\"number\":7," REST,
		"text: holds a control character, or is not UTF-8");
	refused(HEAD "\"text\":\"\xff\",\"number\":7," REST, "is not JSON (line 1, column ");
}

static void what_the_table_cannot_say_is_checked_too(void **state)
{
	(void)state;
	refused(HEAD "\"text\":\"x\",\"number\":7,\"flag\":true," ONE ",\"words\":[],"
		"\"items\":[{\"name\":\"bad\",\"mode\":\"0\"}]}", "items: [0]: is named bad");
}

static void a_small_arena_ends_it_cleanly(void **state)
{
	_cleanup_arena_ struct arena small = ARENA_LIMIT(1);

	(void)state;
	err = ERROR_NULL;
	assert_int_equal(doc_read(&format, bytes_of(GOOD, strlen(GOOD)), &thing, &small, &err),
			 -ENOMEM);
}

static const struct thing sample = {
	.text = "h\u00e9",
	.foreign = "a\tb\xff" "12345678",
	.number = 3,
	.flag = true,
	.one = { "a", 0640 },
	.items = (const struct item[]){ { "b", 0 } },
	.n_items = 1,
	.words = (const char *const[]){ "p", "q" },
	.n_words = 2,
};

static void what_is_written_can_be_read(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;

	(void)state;
	err = ERROR_NULL;
	assert_int_equal(doc_write(&format, &sample, &b, &err), 0);
	assert_int_equal(read_it(&format, buf_str(&b)), 0);
	assert_string_equal(thing.text, sample.text);
	assert_string_equal(thing.foreign, "a?b?1234"); /* made to fit */
	assert_true(thing.flag);
	assert_int_equal(thing.one.mode, 0640);
	assert_int_equal(thing.n_items, 1);
	assert_string_equal(thing.words[1], "q");
	assert_int_equal(thing.n_hashes, 0);
	assert_null(strstr(buf_str(&b), "extra"));
}

static void what_could_not_be_read_is_not_written(void **state)
{
	static const char *const words[] = { "a", "b", "c" };
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct thing t = sample;

	(void)state;
	t.number = 1001;
	assert_int_equal(doc_write(&format, &t, &b, &err), -EINVAL);
	assert_string_equal(error_text(&err), "cannot be written: number: is over its maximum");
	assert_int_equal(err.reason, REASON_INTERNAL);
	t = sample;
	t.text = "a\n";
	assert_int_equal(doc_write(&format, &t, &b, &err), -EINVAL);
	t.text = NULL;
	assert_int_equal(doc_write(&format, &t, &b, &err), -EINVAL);
	assert_string_equal(error_text(&err), "cannot be written: text: is missing");
	t = sample;
	t.words = words;
	t.n_words = 3;
	assert_int_equal(doc_write(&format, &t, &b, &err), -EINVAL);
	t = sample;
	t.one.name = "bad";
	assert_int_equal(doc_write(&format, &t, &b, &err), -EINVAL);
	assert_string_equal(error_text(&err), "cannot be written: one: is named bad");
	assert_int_equal(buf_len(&b), 0);
}

static void a_sealed_document_tells_a_change(void **state)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	char *at;

	(void)state;
	err = ERROR_NULL;
	assert_int_equal(doc_write(&sealed, &sample, &b, &err), 0);
	assert_int_equal(read_it(&sealed, buf_str(&b)), 0);
	at = strstr((char *)b.mem, "\"number\": 3");
	assert_non_null(at);
	at[10] = '4';
	assert_int_equal(read_it(&sealed, buf_str(&b)), -EBADMSG);
	assert_string_equal(error_text(&err), "was changed: its own sha256 does not fit");
	assert_int_equal(err.reason, REASON_IMAGE_CORRUPT);
	at[10] = '3';
	/* White space and the order of members may change. */
	at[9] = '\n';
	assert_int_equal(read_it(&sealed, buf_str(&b)), 0);
}

static void a_sealed_document_without_its_digest_is_refused(void **state)
{
	(void)state;
	assert_int_equal(read_it(&sealed, GOOD), -EBADMSG);
	assert_string_equal(error_text(&err), "lacks the member 'sha256'");
	assert_int_equal(read_it(&sealed, HEAD "\"sha256\":7}"), -EBADMSG);
	assert_string_equal(error_text(&err),
			    "sha256: is not a SHA-256 in lower-case hexadecimal");
}

/*
 * Computed with another implementation, so that the definition stays what the header says:
 * python3 -c 'import json,hashlib,sys; d=json.load(sys.stdin); d.pop("sha256", 0);
 * print(hashlib.sha256(json.dumps(d, sort_keys=True, separators=(",", ":"),
 * ensure_ascii=False).encode()).hexdigest())'
 */
static void the_digest_of_a_document_is_what_other_tools_compute(void **state)
{
	(void)state;
	assert_int_equal(read_it(&sealed,
		"{\"sha256\":\"9a822fa58f46b2dbf634a39b8f697881e3cf71e16e3d324c284ccb9a0195c949\","
		"\"schema\":\"test/thing/v1\", \"text\":\"h\u00e9/\\\"\", \"number\":7, " REST), 0);
}

static void unknown_text_is_made_fit(void **state)
{
	char buf[9];

	(void)state;
	assert_string_equal(doc_clean_text("", buf, sizeof(buf)), "");
	assert_string_equal(doc_clean_text("plain", buf, sizeof(buf)), "plain");
	assert_string_equal(doc_clean_text("a\x1b\n\x7f", buf, sizeof(buf)), "a???");
	assert_string_equal(doc_clean_text("\xc3\xa9\xff", buf, sizeof(buf)), "\xc3\xa9?");
	/* An overlong slash, a surrogate, a character beyond the last, one that is cut off. */
	assert_string_equal(doc_clean_text("\xc0\xaf", buf, sizeof(buf)), "??");
	assert_string_equal(doc_clean_text("\xed\xa0\x80", buf, sizeof(buf)), "???");
	assert_string_equal(doc_clean_text("\xf4\x90\x80\x80", buf, sizeof(buf)), "????");
	assert_string_equal(doc_clean_text("\xe2\x82", buf, sizeof(buf)), "??");
	/* Cut between characters. */
	assert_string_equal(doc_clean_text("1234567\xc3\xa9", buf, sizeof(buf)), "1234567");
	assert_string_equal(doc_clean_text("123456\xc3\xa9zzz", buf, sizeof(buf)),
			    "123456\xc3\xa9");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_document_is_read),
		cmocka_unit_test(what_is_no_json_is_refused),
		cmocka_unit_test(another_schema_is_refused_by_name),
		cmocka_unit_test(members_are_exactly_those_of_the_table),
		cmocka_unit_test(values_of_another_type_are_refused),
		cmocka_unit_test(everything_is_bounded),
		cmocka_unit_test(brackets_in_text_are_no_nesting),
		cmocka_unit_test(text_with_control_characters_is_refused),
		cmocka_unit_test(what_the_table_cannot_say_is_checked_too),
		cmocka_unit_test(a_small_arena_ends_it_cleanly),
		cmocka_unit_test(what_is_written_can_be_read),
		cmocka_unit_test(what_could_not_be_read_is_not_written),
		cmocka_unit_test(a_sealed_document_tells_a_change),
		cmocka_unit_test(a_sealed_document_without_its_digest_is_refused),
		cmocka_unit_test(the_digest_of_a_document_is_what_other_tools_compute),
		cmocka_unit_test(unknown_text_is_made_fit),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
