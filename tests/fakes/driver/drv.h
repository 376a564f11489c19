/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One call of a driver library: announced to the daemon, which may want it to fail, then carried
 * out. Every call has a connection of its own, so that any number of threads may call at once and
 * a forked child shares nothing.
 */
#ifndef FAKEGPU_DRV_H
#define FAKEGPU_DRV_H

#include <stdint.h>
#include <sys/types.h>

#include "proto/fg_proto.h"

struct drv {
	int sock; /* -1 = over */
	uint64_t seq;
	uint64_t call_seq;
	uint64_t token;
	struct fg_msg hello;
	char version[32];
};

struct drv_call {
	enum fg_role role;
	enum fg_call call;
	int pid; /* as the caller gave it */
	int pidfd; /* of that process, borrowed; -1 = none */
	uint32_t timeout_ms;
	const void *pairs; /* UUID pairs, 32 bytes each */
	size_t n_pairs;
};

#define DRV_PROCEED   (-1)
#define DRV_NO_DAEMON (-2)

/* Connects. Returns 0 or DRV_NO_DAEMON; later calls on d then return that, too. */
int drv_open(struct drv *d, enum fg_role role);
/*
 * Announces the call. DRV_PROCEED: do it, then drv_end(), or drv_wait() if the target's restore
 * thread does it. Else the call is over, and this is its code, *ret_value its value.
 */
int drv_begin(struct drv *d, const struct drv_call *call, uint64_t *ret_value);
/* Both return the code that the caller is to be told, with *ret_value (may be NULL); d is closed. */
int drv_end(struct drv *d, int code, uint64_t value, uint64_t *ret_value);
int drv_wait(struct drv *d, uint64_t *ret_value);
/* A question in between: answer and data go to buf, as of fg_recv(). Returns 0 or DRV_NO_DAEMON. */
int drv_ask(struct drv *d, struct fg_msg *m, struct fg_msg *ret, void *buf, size_t cap);
void drv_close(struct drv *d);

#endif
