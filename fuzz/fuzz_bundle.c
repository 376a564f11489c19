/* SPDX-License-Identifier: Apache-2.0 */
/* config.json, and what is concluded from it. */
#include <assert.h>
#include <string.h>

#include "base/path.h"
#include "oci/bundle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const char *prefix[] = { "/dev/nvidia" };
	const struct setting_list prefixes = { prefix, 1 };
	_cleanup_arena_ struct arena mem = ARENA_LIMIT((size_t)1 << 20);
	struct error err = ERROR_NULL;
	struct bundle_strings visible;
	struct bundle_intent intent;
	struct bundle_seat seat;
	struct bundle b;

	if (bundle_parse(bytes_of(data, n), &prefixes, &b, &err) < 0) {
		assert(err.text[0] && err.code < 0);
		return 0;
	}
	assert(b.gpu || b.gpu_devices.n == 0);
	assert(b.memory_limit >= 0 && b.unknown.n <= BUNDLE_UNKNOWN_MAX);
	if (bundle_intent(&b, &intent, &err) == 0)
		assert(!intent.restore_from || ref_valid(intent.restore_from));
	else
		assert(!b.is_sandbox && err.reason != REASON_NONE);
	if (bundle_seat(&b, &seat, &err) == 0)
		assert(!seat.group[0] || setting_name_valid(seat.group));
	else
		assert(err.reason == REASON_SEAT_MISMATCH);
	assert(bundle_visible_devices(&b, &mem, &visible) <= 0);
	bundle_done(&b);
	return 0;
}
