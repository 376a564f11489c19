/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints the TOML document on stdin as JSON that keeps the types, or its error with exit status 1.
 * For test-toml-oracle.py only.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/fd.h"
#include "conf/json.h"
#include "conf/toml.h"

static json_t *value_of(const struct toml *node)
{
	char text[64];
	json_t *v;

	switch (node->type) {
	case TOML_STRING:
		return json_pack("{s:s}", "string", node->string);
	case TOML_INTEGER:
		(void)snprintf(text, sizeof(text), "%" PRId64, node->integer);
		return json_pack("{s:s}", "integer", text);
	case TOML_FLOAT:
		(void)snprintf(text, sizeof(text), "%a", node->real);
		return json_pack("{s:s}", "float", text);
	case TOML_BOOLEAN:
		return json_boolean(node->boolean);
	case TOML_ARRAY:
		v = json_array();
		toml_for_each(i, node)
			(void)json_array_append_new(v, value_of(i));
		return v;
	case TOML_TABLE:
		v = json_object();
		toml_for_each(i, node)
			(void)json_object_set_new(v, i->key, value_of(i));
		return json_pack("{s:o}", "table", v);
	}
	return NULL;
}

int main(void)
{
	_cleanup_toml_ struct toml_doc doc = { 0 };
	_cleanup_json_ json_t *v = NULL;
	struct error err = ERROR_NULL;

	if (toml_read(&doc, AT_FDCWD, "/dev/stdin", &err) < 0) {
		(void)fprintf(stderr, "%s\n", error_text(&err));
		return 1;
	}
	v = value_of(doc.root);
	return v && json_dumpf(v, stdout, 0) == 0 ? 0 : 2;
}
