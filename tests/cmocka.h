/* SPDX-License-Identifier: Apache-2.0 */
/* cmocka wants these four in front of it. */
#ifndef KYB_TESTS_CMOCKA_H
#define KYB_TESTS_CMOCKA_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#endif
