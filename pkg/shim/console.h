/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The console socket: where the OCI runtime sends a terminal's master. Source: runc
 * docs/terminals.md; one connection, one SCM_RIGHTS message that carries the terminal's name.
 */
#ifndef KYB_SHIM_CONSOLE_H
#define KYB_SHIM_CONSOLE_H

#include "base/error.h"
#include "event/loop.h"

struct console {
	struct loop *loop; /* NULL = not listening */
	struct source listener, peer;
	char dir[40];
	char path[56];
	int master; /* -1 until it has come; ours */
	int failed; /* -errno: something came that is no terminal */
	struct timer late; /* it had come before console_wait() */
	void (*done)(struct console *c); /* master or failed is set; NULL = nobody waits yet */
};

/* Listens in a fresh directory (XDG_RUNTIME_DIR or /tmp). Returns 0 or negative with err. */
int console_listen(struct console *c, struct loop *loop, struct error *err);

/* Calls done() from the loop as soon as there is a master, or something that is none. */
void console_wait(struct console *c, void (*done)(struct console *c));

/* Removes socket and directory, closes a master that nobody took (with TAKE_FD(c->master)). */
void console_close(struct console *c);

#endif
