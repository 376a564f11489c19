/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/drv.h"

#include <unistd.h>

#include "proto/fg_wire.h"

int drv_open(struct drv *d, enum fg_role role)
{
	char path[FG_PATH_MAX];

	*d = (struct drv){ .sock = -1 };
	d->sock = fg_connect(fg_socket_path(path), role, &d->hello, d->version);
	if (d->sock >= 0)
		return 0;
	d->sock = -1;
	return DRV_NO_DAEMON;
}

void drv_close(struct drv *d)
{
	if (d->sock >= 0)
		(void)close(d->sock);
	d->sock = -1;
}

/* Takes the answer that ends the call. */
static int over(struct drv *d, const struct fg_msg *answer, uint64_t *ret_value)
{
	if (answer->type == FG_CRASH)
		fg_crash();
	drv_close(d);
	if (answer->type != FG_RESULT)
		return DRV_NO_DAEMON;
	if (ret_value)
		*ret_value = answer->arg[1];
	return (int)answer->arg[0];
}

int drv_begin(struct drv *d, const struct drv_call *call, uint64_t *ret_value)
{
	struct fg_msg m = {
		.type = FG_CALL,
		.n = 4,
		.arg = { call->call, (uint64_t)(int64_t)call->pid, 0, call->timeout_ms },
		.data = call->pairs,
		.len = call->n_pairs * 32,
		.fd = call->pidfd,
	};
	uint8_t buf[FG_SMALL];
	struct fg_msg answer;

	if (d->sock < 0)
		return DRV_NO_DAEMON;
	if (fg_ask(d->sock, &d->seq, &m, &answer, buf, sizeof(buf), FG_FOREVER) < 0) {
		drv_close(d);
		return DRV_NO_DAEMON;
	}
	if (answer.type != FG_PROCEED)
		return over(d, &answer, ret_value);
	d->call_seq = m.seq;
	d->token = answer.arg[0];
	return DRV_PROCEED;
}

int drv_wait(struct drv *d, uint64_t *ret_value)
{
	uint8_t buf[FG_SMALL];
	struct fg_msg answer;

	if (d->sock < 0 || fg_recv(d->sock, &answer, buf, sizeof(buf), FG_FOREVER) < 0) {
		drv_close(d);
		return DRV_NO_DAEMON;
	}
	return over(d, &answer, ret_value);
}

int drv_end(struct drv *d, int code, uint64_t value, uint64_t *ret_value)
{
	struct fg_msg m = { .type = FG_END,
			    .n = 2,
			    .seq = d->call_seq,
			    .arg = { (uint64_t)code, value },
			    .fd = -1 };

	if (d->sock < 0 || fg_send(d->sock, &m) < 0) {
		drv_close(d);
		return DRV_NO_DAEMON;
	}
	return drv_wait(d, ret_value);
}

int drv_ask(struct drv *d, struct fg_msg *m, struct fg_msg *ret, void *buf, size_t cap)
{
	if (d->sock >= 0 && fg_ask(d->sock, &d->seq, m, ret, buf, cap, FG_FOREVER) == 0)
		return 0;
	drv_close(d);
	return DRV_NO_DAEMON;
}
