/* SPDX-License-Identifier: Apache-2.0 */
/* What the programs of this folder share. */
#ifndef KYB_TESTS_RPC_ECHO_H
#define KYB_TESTS_RPC_ECHO_H

#include <stddef.h>

/* A listening Unix socket at path (which must not exist), or -errno. */
int echo_listen(const char *path);

/* The number at text; the program ends when it is none. */
size_t echo_number(const char *text);

/* A block of n bytes, the i-th of them i % 251; the program ends when there is no memory. */
char *echo_block(size_t n);

/* Prints "what: strerror(-r)" and ends the program. */
void echo_die(const char *what, int r) __attribute__((noreturn));

#endif
