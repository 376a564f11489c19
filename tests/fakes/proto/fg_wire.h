/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's end of the protocol: blocking, one request at a time. Used by everybody but the
 * daemon. Needs nothing but the C library: it is linked into static workloads and into shared
 * libraries that foreign programs load. Survives EINTR (a checkpoint interrupts every wait), raises
 * no SIGPIPE.
 */
#ifndef FAKEGPU_WIRE_H
#define FAKEGPU_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "proto/fg_proto.h"

#define FG_FOREVER (-1)

/*
 * The daemon's socket: $FAKEGPU_SOCKET; else, in a shared library, "fakegpu.sock" in the folder that
 * the library was loaded from (a worker gets no environment of its parent's), if that exists; else
 * the default. buf holds FG_PATH_MAX bytes. Returns buf.
 */
const char *fg_socket_path(char *buf);

/* Connects and says HELLO. *hello, if not NULL, is the answer without its data; version, if not
 * NULL, takes the driver's version (32 bytes). Returns a descriptor or -errno. */
int fg_connect(const char *path, enum fg_role role, struct fg_msg *hello, char *version);

/* Sends all of m, m->fd too if it is one. Returns 0 or -errno. */
int fg_send(int sock, const struct fg_msg *m);

/*
 * Receives one message into buf (cap bytes, header included), which *ret borrows from; a
 * descriptor that came with it is the caller's. Returns 0, -ETIMEDOUT, -EPIPE (end of stream),
 * -EMSGSIZE, -EBADMSG or -errno.
 */
int fg_recv(int sock, struct fg_msg *ret, void *buf, size_t cap, int timeout_ms);

/*
 * Sends m with a new seq (kept in *seq) and receives the answer to it into *ret; answers to older
 * requests, given up by their caller, are thrown away. Returns as fg_recv() does.
 */
int fg_ask(int sock, uint64_t *seq, struct fg_msg *m, struct fg_msg *ret, void *buf, size_t cap,
	   int timeout_ms);

/* A buffer for answers without data, or with little. */
#define FG_SMALL (FG_HEAD_MAX + sizeof(struct fg_gpu_info) * FG_GPUS_MAX)

/* FG_CRASH: dies as of a driver's bug, past whatever handlers the program has. */
_Noreturn void fg_crash(void);

/* CLOCK_MONOTONIC, in milliseconds. */
int64_t fg_now_ms(void);

#endif
