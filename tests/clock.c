/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/clock.h"

nsec_t __real_time_now(void);
nsec_t __wrap_time_now(void);

static nsec_t ahead;

void clock_advance(nsec_t by)
{
	ahead += by;
}

/* What the linker puts in the place of time_now(): --wrap=time_now. */
nsec_t __wrap_time_now(void)
{
	return __real_time_now() + ahead;
}
