/* SPDX-License-Identifier: Apache-2.0 */
/* The OCI Process of an exec. What comes out must be as good an input as what went in. */
#include <assert.h>
#include <string.h>

#include "oci/process_spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_buf_ struct buf once = BUF_NULL, twice = BUF_NULL;
	struct error err = ERROR_NULL;

	if (process_spec_rewrite(bytes_of(data, n), true, &once, &err) < 0) {
		assert(err.text[0]);
		return 0;
	}
	assert(process_spec_rewrite(buf_bytes(&once), true, &twice, &err) == 0);
	assert(strcmp(buf_str(&once), buf_str(&twice)) == 0);
	return 0;
}
