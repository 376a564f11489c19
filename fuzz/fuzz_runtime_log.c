/* SPDX-License-Identifier: Apache-2.0 */
/* log.json of an OCI runtime. */
#include <assert.h>
#include <errno.h>

#include "oci/runtime_log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_buf_ struct buf out = BUF_LIMIT(RUNTIME_LOG_MESSAGE_MAX);
	int r = runtime_log_parse(bytes_of(data, n), &out);

	assert(r == 0 || r == -EBADMSG);
	assert(buf_len(&out) <= RUNTIME_LOG_MESSAGE_MAX);
	return 0;
}
