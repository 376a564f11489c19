/* SPDX-License-Identifier: Apache-2.0 */
/* CRIU's logs: however they are cut into pieces, the digest is the same, and it is plain text. */
#include <assert.h>
#include <string.h>

#include "oci/criu_log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void digest(const uint8_t *data, size_t n, enum criu_log_kind kind, size_t piece,
		   struct criu_digest *ret)
{
	struct criu_log log;

	criu_log_begin(&log, kind);
	for (size_t at = 0; at < n; at += piece)
		criu_log_feed(&log, bytes_of(data + at, n - at < piece ? n - at : piece));
	criu_log_end(&log, ret);
}

static void check_line(const struct criu_log_line *line)
{
	size_t len = strnlen(line->text, sizeof(line->text));

	assert(len < sizeof(line->text));
	for (size_t i = 0; i < len; i++)
		assert(line->text[i] >= ' ' && line->text[i] <= '~');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const enum criu_log_kind kinds[] = { CRIU_LOG_DUMP, CRIU_LOG_RESTORE };

	for (size_t i = 0; i < 2; i++) {
		struct error err = ERROR_NULL;
		struct criu_digest whole, cut;

		digest(data, n, kinds[i], n ? n : 1, &whole);
		digest(data, n, kinds[i], 7, &cut);
		assert(whole.reason == cut.reason && whole.n_lines == cut.n_lines);
		assert(whole.n_lines <= CRIU_LOG_LINES);
		assert(strcmp(whole.cause.text, cut.cause.text) == 0);
		assert(whole.reason != REASON_NONE);
		check_line(&whole.cause);
		for (unsigned int k = 0; k < whole.n_lines; k++) {
			check_line(&whole.lines[k]);
			assert(strcmp(whole.lines[k].text, cut.lines[k].text) == 0);
		}
		(void)criu_digest_error(&whole, "/log", &err);
		assert(err.text[0]);
	}
	return 0;
}
