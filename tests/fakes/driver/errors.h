/* SPDX-License-Identifier: Apache-2.0 */
/* Names and texts of CUresult, as cuGetErrorName() and cuGetErrorString() tell them. */
#ifndef FAKEGPU_ERRORS_H
#define FAKEGPU_ERRORS_H

/* NULL for a number that is no CUresult. */
const char *cuda_error_name(int code);
const char *cuda_error_text(int code);

#endif
