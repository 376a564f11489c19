/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/kernel.h"

#include <stdlib.h>

#include "daemon/session.h"

#define QUEUE_MAX   1024
#define SLICE_WORDS ((uint64_t)128 << 10) /* 1 MiB: a fraction of a millisecond */
#define SLEEP_MAX   ((uint64_t)3600 * 1000)

#define KERNEL_FENCE FG_KERNELS /* not in the protocol: SYNC and FREE */

struct kernel {
	struct list node;
	unsigned int op;
	struct vram *mem;     /* borrowed; a FREE waits in the same queue */
	uint64_t first, words; /* in mem */
	uint64_t at;          /* words done */
	uint64_t a, b;
	struct vram *result;
	uint64_t result_first; /* word in result */
	uint64_t sum[2];
	uint64_t seq; /* of a fence */
};

static void run_slice(struct work *w);

void stream_init(struct stream *st)
{
	*st = (struct stream){ .work.step = run_slice };
	list_init(&st->queue);
	list_init(&st->work.node);
}

static void drop(struct stream *st, struct kernel *k)
{
	list_remove(&k->node);
	st->n--;
	free(k);
}

void stream_cancel(struct stream *st)
{
	struct kernel *k;

	work_stop(&st->work);
	timer_cancel(&st->sleep);
	while ((k = list_first(&st->queue, struct kernel, node)))
		drop(st, k);
}

static void fill(struct kernel *k, uint64_t *p, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		p[i] = fg_pattern(k->a, k->at + i) + k->b;
}

static void add(struct kernel *k, uint64_t *p, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		p[i] += k->a;
}

static void checksum(struct kernel *k, uint64_t *p, uint64_t n)
{
	uint64_t sum = 0, weighted = 0, weight = 2 * k->at + 1;

	for (uint64_t i = 0; i < n; i++) {
		sum += p[i];
		weighted += (weight + 2 * i) * p[i];
	}
	k->sum[0] += sum;
	k->sum[1] += weighted;
}

static void verify(struct kernel *k, uint64_t *p, uint64_t n)
{
	if (k->at == 0)
		k->sum[1] = k->words;
	for (uint64_t i = 0; i < n; i++) {
		if (p[i] == fg_pattern(k->a, k->at + i) + k->b)
			continue;
		if (k->sum[0]++ == 0)
			k->sum[1] = k->at + i;
	}
}

static void (*const ops[FG_KERNELS])(struct kernel *k, uint64_t *p, uint64_t n) = {
	[FG_KERNEL_FILL] = fill,
	[FG_KERNEL_ADD] = add,
	[FG_KERNEL_CHECKSUM] = checksum,
	[FG_KERNEL_VERIFY] = verify,
};

static uint64_t *words_of(struct vram *v, uint64_t first)
{
	return (uint64_t *)(void *)(v->map + first * 8);
}

static void woken(struct timer *t)
{
	struct stream *st = container_of(t, struct stream, sleep);
	struct session *s = container_of(st, struct session, stream);

	drop(st, list_first(&st->queue, struct kernel, node));
	if (st->n)
		work_start(s->srv, &st->work);
}

/* Telling it can end the session, and its stream with it: that comes last. */
static void end_fence(struct session *s, struct kernel *k)
{
	struct stream *st = &s->stream;
	uint64_t seq = k->seq;

	if (k->mem)
		vram_release(k->mem);
	drop(st, k);
	if (!st->n)
		work_stop(&st->work);
	session_result(s, seq, FG_SUCCESS, 0);
}

static void run_slice(struct work *w)
{
	struct stream *st = container_of(w, struct stream, work);
	struct session *s = container_of(st, struct session, stream);
	struct kernel *k = list_first(&st->queue, struct kernel, node);
	uint64_t left, n, first;

	if (k->op == FG_KERNEL_SLEEP) { /* takes time, but nobody else's */
		work_stop(w);
		timer_set(s->srv->loop, &st->sleep, time_add(time_now(), k->a * NSEC_PER_MSEC),
			  woken);
		return;
	}
	if (k->op == KERNEL_FENCE) {
		end_fence(s, k);
		return;
	}
	left = k->words - k->at;
	n = left < SLICE_WORDS ? left : SLICE_WORDS;
	first = k->first + k->at;
	vram_populate(k->mem, (size_t)(first + n) * 8);
	ops[k->op](k, words_of(k->mem, first), n);
	k->at += n;
	if (k->at < k->words)
		return;
	if (k->result) {
		words_of(k->result, k->result_first)[0] = k->sum[0];
		words_of(k->result, k->result_first)[1] = k->sum[1];
	}
	drop(st, k);
	if (!st->n)
		work_stop(w);
}

static struct kernel *append(struct session *s, unsigned int op)
{
	struct kernel *k = s->stream.n < QUEUE_MAX ? calloc(1, sizeof(*k)) : NULL;

	if (!k)
		return NULL;
	k->op = op;
	list_append(&s->stream.queue, &k->node);
	s->stream.n++;
	if (!s->stream.sleep.loop)
		work_start(s->srv, &s->stream.work);
	return k;
}

enum fg_code kernel_launch(struct session *s, const struct fg_msg *m)
{
	uint64_t op = m->arg[0], address = m->arg[1], words = m->arg[2], to = m->arg[5];
	struct vram *mem = NULL, *result = NULL;
	struct kernel *k;

	if (op >= FG_KERNELS || (op == FG_KERNEL_SLEEP && m->arg[3] > SLEEP_MAX))
		return FG_INVALID_VALUE;
	if (op != FG_KERNEL_SLEEP) {
		if (!words || words > UINT64_MAX / 8 || address % 8 || to % 8)
			return FG_INVALID_VALUE;
		mem = vram_find(s, address, words * 8);
		result = to ? vram_find(s, to, 16) : NULL;
		if (!mem || (to && !result))
			return FG_ILLEGAL_ADDRESS;
		if (vram_map(mem) < 0 || (result && vram_map(result) < 0))
			return FG_OUT_OF_MEMORY;
	}
	k = append(s, (unsigned int)op);
	if (!k)
		return FG_OUT_OF_MEMORY;
	k->words = words;
	k->a = m->arg[3];
	k->b = m->arg[4];
	if (mem) {
		k->mem = mem;
		k->first = (address - mem->address) / 8;
	}
	if (result) {
		k->result = result;
		k->result_first = (to - result->address) / 8;
	}
	return FG_SUCCESS;
}

enum fg_code kernel_fence(struct session *s, struct vram *v, uint64_t seq)
{
	struct kernel *k = append(s, KERNEL_FENCE);

	if (!k)
		return FG_OUT_OF_MEMORY;
	k->seq = seq;
	k->mem = v;
	if (v)
		v->ready = false; /* nobody can launch onto it any more */
	return FG_SUCCESS;
}
