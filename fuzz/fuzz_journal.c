/* SPDX-License-Identifier: Apache-2.0 */
/* A record of the journal, as a crash or a person may have left it. */
#include <assert.h>
#include <stdint.h>

#include "base/path.h"
#include "checkpoint/journal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(JOURNAL_MEMORY_MAX);
	struct journal_record rec;
	struct error err = ERROR_NULL;

	if (journal_parse(bytes_of(data, n), &rec, &mem, &err) < 0) {
		assert(err.code < 0 && err.text[0]);
		return 0;
	}
	assert(id_valid(rec.ns) && id_valid(rec.container_id) && rec.boot && rec.phase);
	assert(rec.n_processes <= JOURNAL_PROCESSES_MAX && rec.n_devices <= JOURNAL_DEVICES_MAX);
	return 0;
}
