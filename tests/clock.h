/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time that a test can move on, so that a deadline of minutes is met in no time. What waits in the
 * kernel waits as long as ever: move the clock, then run a round of the loop.
 *
 * Add tests/clock.c to the test's sources and clock_args to its link arguments.
 */
#ifndef KYB_TESTS_CLOCK_H
#define KYB_TESTS_CLOCK_H

#include "base/time.h"

void clock_advance(nsec_t by);

#endif
