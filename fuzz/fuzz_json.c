/* SPDX-License-Identifier: Apache-2.0 */
/* JSON: what is read and can be written reads back as the same. */
#include <assert.h>

#include "conf/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_json_ json_t *first = NULL, *again = NULL;
	_cleanup_buf_ struct buf out = BUF_NULL;
	struct error err = ERROR_NULL;
	const char *s;
	uint64_t u;
	int64_t i;
	bool b;

	if (json_doc_parse(bytes_of(data, n), &first, &err) < 0) {
		assert(err.text[0] && err.code < 0);
		return 0;
	}
	(void)json_doc_string(JSON_DOC_AT(first, "a", "b"), &s);
	(void)json_doc_bool(JSON_DOC_AT(first, "a"), &b);
	(void)json_doc_int(first, &i);
	(void)json_doc_uint(JSON_DOC_AT(first, "a"), UINT32_MAX, &u);
	if (json_doc_write(first, JSON_DOC_PRETTY, &out) < 0)
		return 0;
	assert(json_doc_parse(buf_bytes(&out), &again, NULL) == 0);
	assert(json_equal(first, again));
	return 0;
}
