/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a captured sample in a test: golden("config/cri-2.1.9-container.json"). */
#ifndef KYB_TESTS_GOLDEN_H
#define KYB_TESTS_GOLDEN_H

#include <fcntl.h>
#include <stdlib.h>

#include "base/fd.h"
#include "tests/cmocka.h"

/* The content; buf_done() it. The build sets KYB_GOLDEN to tests/golden. */
static inline struct buf golden(const char *name)
{
	_cleanup_close_ int dir = open(getenv("KYB_GOLDEN"), O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct buf b = BUF_NULL;

	assert_true(dir >= 0);
	assert_int_equal(file_read(dir, name, &b), 0);
	return b;
}

#endif
