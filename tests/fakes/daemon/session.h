/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection: bytes in, messages dispatched by role and type, answers and descriptors out. All
 * it may hold is bounded; a client that breaks the protocol or does not read is cut off.
 */
#ifndef FAKEGPUD_SESSION_H
#define FAKEGPUD_SESSION_H

#include "base/buf.h"
#include "daemon/call.h"
#include "daemon/kernel.h"
#include "daemon/process.h"
#include "daemon/server.h"

struct session {
	struct server *srv;
	struct list node;
	struct source src;
	enum fg_role role; /* FG_ROLE_NONE until HELLO */
	pid_t pid;         /* of the peer, as we see it */
	pid_t tid;         /* as the peer sees it */
	struct process *process; /* roles APP and RESTORER; NULL once it is dead */
	struct buf in;
	int in_fd; /* came with bytes not yet decoded, -1 = none */
	struct list out; /* struct answer */
	size_t out_bytes;
	bool ended;
	struct job end;

	struct list vram; /* APP */
	struct stream stream;
	struct call call;     /* DRIVER, NVML and APP: the call under way */
	struct call *serving; /* RESTORER: whose call it executes; NULL once nobody waits */
	enum fg_call serves;  /* RESTORER: what that call is */
	bool served;          /* RESTORER: and it said DONE */
};

/* Accepts connections on srv->listener. */
void session_accept(struct source *listener, uint32_t events);

/* m->fd is sent too, and stays the caller's. After the end nothing is sent. */
void session_send(struct session *s, const struct fg_msg *m);
/* A RESULT of code and one value. */
void session_result(struct session *s, uint64_t seq, uint64_t code, uint64_t value);

/* Closes and frees it at the end of this round; its VRAM is released now. */
void session_end(struct session *s);

/* VRAM of the session on gpu, or on all for NULL. */
uint64_t session_vram(const struct session *s, const struct gpu *gpu);

#endif
