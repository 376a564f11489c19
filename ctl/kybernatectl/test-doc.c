/* SPDX-License-Identifier: Apache-2.0 */
#include "api/agent/v1/agent.pb-c.h"
#include "base/arena.h"
#include "base/cleanup.h"
#include "conf/json.h"
#include "doc.h"
#include "rpc/pb.h"
#include "tests/cmocka.h"

/*
 * Every message that the agent can send, with a value in every field: so that a field of a type
 * which doc.c does not know is noticed when it is added to agent.proto, not by a user.
 */
static void fill(ProtobufCMessage *m, struct arena *mem, unsigned int depth);

static void fill_value(const ProtobufCFieldDescriptor *field, void *p, struct arena *mem,
		       unsigned int depth)
{
	ProtobufCMessage *sub;

	switch (field->type) {
	case PROTOBUF_C_TYPE_STRING:
		*(char **)p = arena_strdup(mem, "text");
		break;
	case PROTOBUF_C_TYPE_MESSAGE:
		sub = arena_alloc(mem,
				  ((const ProtobufCMessageDescriptor *)field->descriptor)
					  ->sizeof_message);
		assert_non_null(sub);
		protobuf_c_message_init(field->descriptor, sub);
		fill(sub, mem, depth + 1);
		*(ProtobufCMessage **)p = sub;
		break;
	case PROTOBUF_C_TYPE_BYTES:
		*(ProtobufCBinaryData *)p = (ProtobufCBinaryData){ 3, (uint8_t *)"\0a\xff" };
		break;
	case PROTOBUF_C_TYPE_UINT64:
		*(uint64_t *)p = UINT64_C(1) << 40;
		break;
	default:
		*(int *)p = 1;
	}
}

static void fill(ProtobufCMessage *m, struct arena *mem, unsigned int depth)
{
	assert_true(depth < 8);
	for (unsigned int i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &m->descriptor->fields[i];
		char *base = (char *)m;
		void *values;

		if (field->label != PROTOBUF_C_LABEL_REPEATED) {
			fill_value(field, base + field->offset, mem, depth);
			continue;
		}
		values = arena_alloc(mem, sizeof(uint64_t));
		assert_non_null(values);
		fill_value(field, values, mem, depth);
		*(size_t *)(void *)(base + field->quantifier_offset) = 1;
		*(void **)(void *)(base + field->offset) = values;
	}
}

static void every_message(void **state)
{
	const ProtobufCServiceDescriptor *service = &kybernate__agent__v1__node_agent__descriptor;

	(void)state;
	for (unsigned int i = 0; i < service->n_methods; i++) {
		_cleanup_arena_ struct arena mem = ARENA_LIMIT((size_t)1 << 20);
		const ProtobufCMessageDescriptor *type = service->methods[i].output;
		ProtobufCMessage *m = arena_alloc(&mem, type->sizeof_message);
		_cleanup_json_ json_t *doc = NULL;

		assert_non_null(m);
		protobuf_c_message_init(type, m);
		fill(m, &mem, 0);
		doc = doc_message(m);
		if (!doc)
			fail_msg("%s has a field that doc.c cannot show", type->name);
		assert_int_equal(json_object_size(doc), type->n_fields);
	}
}

static void names(void **state)
{
	const ProtobufCEnumDescriptor *reasons = &kybernate__agent__v1__reason__descriptor;
	const ProtobufCEnumDescriptor *phases = &kybernate__agent__v1__phase__descriptor;
	char buf[DOC_NAME_MAX];

	(void)state;
	assert_string_equal(doc_enum_name(reasons, 5, buf), "LOCK_TIMEOUT");
	assert_string_equal(doc_enum_name(reasons, 9999, buf), "REASON_9999");
	assert_string_equal(doc_enum_name(phases, 4, buf), "vram_save");
	assert_string_equal(doc_enum_name(phases, 0, buf), "none");
	assert_string_equal(doc_enum_name(phases, -1, buf), "phase_-1");
}

static void written(void **state)
{
	_cleanup_text_ struct text t = TEXT_NULL;

	(void)state;
	doc_write(json_pack("{s:o, s:[i]}", "a", doc_string("\x7fx\033\xc2\x9b\x7f\xff"), "b", 1),
		  false, &t);
	assert_string_equal(text_str(&t),
			    "{\"a\":\"\\u007fx\\u001B\\u009B\\u007f\\uFFFD\",\"b\":[1]}\n");
	text_clear(&t);
	doc_write(json_pack("{s:i}", "a", 1), true, &t);
	assert_string_equal(text_str(&t), "{\n  \"a\": 1\n}\n");
	doc_write(NULL, true, &t);
	assert_true(t.failed < 0);
}

static void bytes(void **state)
{
	Kybernate__Agent__V1__SuspendReply m = KYBERNATE__AGENT__V1__SUSPEND_REPLY__INIT;
	_cleanup_json_ json_t *doc = NULL;

	(void)state;
	m.held = (ProtobufCBinaryData){ 3, (uint8_t *)"\0a\xff" };
	doc = doc_message(&m.base);
	assert_string_equal(json_string_value(json_object_get(doc, "held")), "0061ff");
}

static void large_numbers(void **state)
{
	Kybernate__Agent__V1__StatusReply m = KYBERNATE__AGENT__V1__STATUS_REPLY__INIT;
	_cleanup_json_ json_t *doc = NULL;

	(void)state;
	m.store_free_bytes = UINT64_MAX;
	m.worker_pid = UINT32_MAX;
	doc = doc_message(&m.base);
	assert_true(json_number_value(json_object_get(doc, "store_free_bytes")) > 1.8e19);
	assert_true(json_integer_value(json_object_get(doc, "worker_pid")) == UINT32_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_message), cmocka_unit_test(names),
		cmocka_unit_test(written),       cmocka_unit_test(large_numbers),
		cmocka_unit_test(bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
