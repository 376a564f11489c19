/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UTF-8, for text that is not ours: names of processes, words of runtimes and of CRIU. The strings
 * of proto3 and of JSON must be well-formed; a peer refuses the whole message for one that is not
 * (protobuf.dev, "Language Guide (proto 3)", Scalar Value Types).
 */
#ifndef KYB_BASE_UTF8_H
#define KYB_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/*
 * The next character of s (n bytes, n > 0). Returns its length, or 0 when it is not UTF-8 as
 * RFC 3629 defines it: no overlong forms, no surrogates, nothing above U+10FFFF.
 */
size_t utf8_next(const unsigned char *s, size_t n, uint32_t *ret);

/* Makes text well-formed: a character that was cut off at the end goes, other bytes that are none
 * become '?'. It never gets longer. */
void utf8_mend(char *text);

#endif
