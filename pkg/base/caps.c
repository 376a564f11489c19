/* SPDX-License-Identifier: Apache-2.0 */
#include "base/caps.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

struct set {
	uint32_t bits[2];
};

static struct set set_of(const int *kept, size_t n)
{
	struct set set = { 0 };

	for (size_t i = 0; i < n; i++)
		set.bits[CAP_TO_INDEX(kept[i])] |= CAP_TO_MASK(kept[i]);
	return set;
}

void caps_bound(const int *kept, size_t n)
{
	struct set keep = set_of(kept, n);

	for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
		if (!(keep.bits[CAP_TO_INDEX(cap)] & CAP_TO_MASK(cap)))
			(void)prctl(PR_CAPBSET_DROP, cap);
}

int caps_keep(const int *kept, size_t n)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];
	struct set keep = set_of(kept, n);

	caps_bound(kept, n);
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (syscall(SYS_capget, &head, data) < 0)
		return -errno;
	for (int i = 0; i < 2; i++) {
		data[i].permitted &= keep.bits[i];
		data[i].effective = data[i].permitted;
		data[i].inheritable = 0;
	}
	return syscall(SYS_capset, &head, data) < 0 ? -errno : 0;
}
