/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VRAM: memfds that belong to a connection and are charged to the daemon's memory cgroup, never
 * to the workload's - as a GPU's memory is nobody's host memory. That is why the daemon
 * allocates every page (fallocate) before a client may copy into the memfd: pages are charged to
 * whoever makes them exist.
 */
#ifndef FAKEGPUD_VRAM_H
#define FAKEGPUD_VRAM_H

#include "daemon/server.h"

struct session;

struct vram {
	struct list node; /* in its session's, newest last; or in the pool */
	struct server *srv;
	struct session *owner;
	struct gpu *gpu;
	uint64_t address, bytes;
	unsigned int flags; /* enum fg_alloc */
	int fd;
	uint8_t *map;      /* all of it, made for the first kernel; NULL = not yet */
	size_t populated;  /* bytes from the start whose pages are mapped */
	bool ready;        /* false while it comes and goes: then nobody finds it */
	uint64_t seq;      /* of the request that waits for it */
	uint64_t progress; /* bytes made, then bytes given back */
	struct work work;
};

#define VRAM_GRAIN ((uint64_t)4096)

/*
 * Begins an allocation for owner, charged to gpu at once. address 0 = choose one. The answer
 * (session_result() to seq: code, address) comes when the pages exist. Returns FG_SUCCESS or the
 * code to answer with.
 */
enum fg_code vram_alloc(struct session *owner, struct gpu *gpu, uint64_t bytes, uint64_t address,
			unsigned int flags, uint64_t seq);
/* The allocation of owner that holds the n bytes from address on, or NULL. */
struct vram *vram_find(struct session *owner, uint64_t address, uint64_t n);
/* Takes it from its owner; the GPU has the room at once, the host's pages go bit by bit - or into
 * the pool, while that has room: pages that exist are many times faster than fresh ones. */
void vram_release(struct vram *v);
/* Gives pages of the pool back until it holds at most max bytes. */
void vram_drain_pool(struct server *srv, uint64_t max);
/* Maps it for kernels. Returns 0 or -errno. */
int vram_map(struct vram *v);
/* Makes sure that the bytes up to end are mapped, many pages at a time. */
void vram_populate(struct vram *v, size_t end);

#endif
