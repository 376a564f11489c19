/* SPDX-License-Identifier: Apache-2.0 */
#include "doc.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "conf/json.h"

const char *doc_enum_name(const ProtobufCEnumDescriptor *type, int value, char *buf)
{
	const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(type, value);
	size_t prefix = strlen(type->short_name);
	bool upper = strcmp(type->short_name, "Reason") == 0;

	if (v && strncasecmp(v->name, type->short_name, prefix) == 0 && v->name[prefix] == '_')
		(void)snprintf(buf, DOC_NAME_MAX, "%s", v->name + prefix + 1);
	else
		(void)snprintf(buf, DOC_NAME_MAX, "%s_%d", type->short_name, value);
	for (char *c = buf; *c; c++)
		*c = (char)(upper ? toupper((unsigned char)*c) : tolower((unsigned char)*c));
	return buf;
}

json_t *doc_string(const char *s)
{
	_cleanup_text_ struct text t = TEXT_NULL;

	text_as_utf8(&t, s);
	return t.failed ? NULL : json_string(text_str(&t));
}

/* Beyond 2^63 jansson has floating point only; nothing that the agent counts is that large. */
static json_t *number(uint64_t v)
{
	return v <= INT64_MAX ? json_integer((json_int_t)v) : json_real((double)v);
}

/* What is not text: two hex digits a byte. */
static json_t *binary(const ProtobufCBinaryData *b)
{
	_cleanup_text_ struct text t = TEXT_NULL;

	for (size_t i = 0; i < b->len; i++)
		text_printf(&t, "%02x", b->data[i]);
	return t.failed ? NULL : json_string(text_str(&t));
}

/* One value of this field; p points to it. */
static json_t *value_of(const ProtobufCFieldDescriptor *field, const void *p)
{
	char name[DOC_NAME_MAX];

	switch (field->type) {
	case PROTOBUF_C_TYPE_INT32:
		return json_integer(*(const int32_t *)p);
	case PROTOBUF_C_TYPE_INT64:
		return json_integer(*(const int64_t *)p);
	case PROTOBUF_C_TYPE_UINT32:
		return json_integer(*(const uint32_t *)p);
	case PROTOBUF_C_TYPE_UINT64:
		return number(*(const uint64_t *)p);
	case PROTOBUF_C_TYPE_BOOL:
		return json_boolean(*(const protobuf_c_boolean *)p);
	case PROTOBUF_C_TYPE_ENUM:
		return json_string(doc_enum_name(field->descriptor, *(const int *)p, name));
	case PROTOBUF_C_TYPE_STRING:
		return doc_string(*(const char *const *)p);
	case PROTOBUF_C_TYPE_MESSAGE:
		return *(const ProtobufCMessage *const *)p
			       ? doc_message(*(const ProtobufCMessage *const *)p)
			       : json_null();
	case PROTOBUF_C_TYPE_BYTES:
		return binary(p);
	default:
		return NULL; /* test-doc.c sees to it that no message has a field of another type */
	}
}

/* How far apart the values of a repeated field are. */
static size_t stride(ProtobufCType type)
{
	switch (type) {
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(void *);
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_UINT64:
		return sizeof(uint64_t);
	default:
		return sizeof(int);
	}
}

static json_t *list_of(const ProtobufCFieldDescriptor *field, const char *m)
{
	size_t n = *(const size_t *)(const void *)(m + field->quantifier_offset);
	const char *values = *(const char *const *)(const void *)(m + field->offset);
	_cleanup_json_ json_t *list = json_array();

	for (size_t i = 0; list && i < n; i++)
		if (json_array_append_new(list, value_of(field,
							 values + i * stride(field->type))) < 0)
			return NULL;
	return TAKE_PTR(list);
}

json_t *doc_message(const ProtobufCMessage *m)
{
	_cleanup_json_ json_t *doc = json_object();

	for (unsigned int i = 0; doc && i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &m->descriptor->fields[i];
		const char *base = (const char *)m;
		json_t *v = field->label == PROTOBUF_C_LABEL_REPEATED
				    ? list_of(field, base)
				    : value_of(field, base + field->offset);

		if (json_object_set_new(doc, field->name, v) < 0)
			return NULL;
	}
	return TAKE_PTR(doc);
}

/* DEL is the one control character that jansson lets through. It occurs in strings only. */
static int add_piece(const char *p, size_t n, void *arg)
{
	struct text *out = arg;
	const char *del;

	while ((del = memchr(p, 0x7f, n))) {
		text_add_n(out, p, (size_t)(del - p));
		text_add(out, "\\u007f");
		n -= (size_t)(del - p) + 1;
		p = del + 1;
	}
	text_add_n(out, p, n);
	return out->failed ? -1 : 0;
}

void doc_write(json_t *doc, bool pretty, struct text *out)
{
	_cleanup_json_ json_t *owned = doc;
	size_t flags = JSON_ENSURE_ASCII | (pretty ? JSON_INDENT(2) : JSON_COMPACT);

	if ((!owned || json_dump_callback(owned, add_piece, out, flags) < 0) && !out->failed)
		out->failed = -ENOMEM;
	text_add(out, "\n");
}
