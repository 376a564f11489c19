/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/vram.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/session.h"

/* One slice of making or giving back pages: about a millisecond. */
#define SLICE ((uint64_t)4 << 20)

#define ALLOCATIONS_MAX 4096 /* a connection */

static uint64_t slice(const struct vram *v)
{
	uint64_t left = v->bytes - v->progress;

	return left < SLICE ? left : SLICE;
}

static void made(struct vram *v)
{
	work_stop(&v->work);
	v->ready = true;
	session_result(v->owner, v->seq, FG_SUCCESS, v->address);
}

/* The pages exist afterwards but are not cleared: the kernel does that when one is first looked
 * at, so that a page which is overwritten whole is touched once. */
static void make_pages(struct work *w)
{
	struct vram *v = container_of(w, struct vram, work);
	int r;

	do
		r = fallocate(v->fd, 0, (off_t)v->progress, (off_t)slice(v));
	while (r < 0 && errno == EINTR);
	if (r < 0) { /* the host is out of memory */
		session_result(v->owner, v->seq, FG_OUT_OF_MEMORY, 0);
		vram_release(v);
		return;
	}
	v->progress += slice(v);
	if (v->progress == v->bytes)
		made(v);
}

/* Out of the pool: the pages exist, but hold somebody else's data. */
static void clear_pages(struct work *w)
{
	struct vram *v = container_of(w, struct vram, work);
	uint64_t n = slice(v);

	vram_populate(v, v->progress + n);
	memset(v->map + v->progress, 0, n);
	v->progress += n;
	if (v->progress == v->bytes)
		made(v);
}

/* Punching holes and not just close(): a client may hold a descriptor, and VRAM that was freed is
 * gone all the same. */
static void give_back_pages(struct work *w)
{
	struct vram *v = container_of(w, struct vram, work);
	uint64_t n = slice(v);

	if (v->map)
		(void)munmap(v->map + v->progress, n);
	(void)fallocate(v->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)v->progress,
			(off_t)n);
	v->progress += n;
	if (v->progress < v->bytes)
		return;
	work_stop(w);
	(void)close(v->fd);
	free(v);
}

static int open_memfd(uint64_t bytes)
{
	int fd = memfd_create("fakegpu-vram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r;

	if (fd < 0)
		return -errno;
	/* The daemon maps what clients hold too: nobody may take the pages away from under it. */
	if (ftruncate(fd, (off_t)bytes) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	return fd;
}

static struct vram *new_memory(struct server *srv, uint64_t bytes)
{
	struct vram *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	*v = (struct vram){
		.srv = srv, .bytes = bytes, .fd = open_memfd(bytes), .work.step = make_pages
	};
	if (v->fd < 0) {
		free(v);
		return NULL;
	}
	list_init(&v->node);
	list_init(&v->work.node);
	return v;
}

static struct vram *from_pool(struct server *srv, uint64_t bytes)
{
	struct vram *v;

	list_for_each(v, &srv->pool, node) {
		if (v->bytes != bytes || vram_map(v) < 0)
			continue;
		list_remove(&v->node);
		srv->pooled -= bytes;
		v->progress = 0;
		v->work.step = clear_pages;
		return v;
	}
	return NULL;
}

/* Would [address, address + bytes) lie over another allocation of owner? */
static bool overlaps(struct session *owner, uint64_t address, uint64_t bytes)
{
	struct vram *v;

	list_for_each(v, &owner->vram, node)
		if (address < v->address + v->bytes && v->address < address + bytes)
			return true;
	return false;
}

/* A process that was restored here brings addresses from another daemon with it. */
static uint64_t choose_address(struct session *owner, uint64_t bytes)
{
	struct server *srv = owner->srv;
	uint64_t address;

	do {
		address = srv->next_address;
		srv->next_address += bytes + VRAM_GRAIN; /* a gap finds overruns */
	} while (overlaps(owner, address, bytes));
	return address;
}

enum fg_code vram_alloc(struct session *owner, struct gpu *gpu, uint64_t bytes, uint64_t address,
			unsigned int flags, uint64_t seq)
{
	struct server *srv = owner->srv;
	struct vram *v;

	if (!bytes || bytes > gpu->info.total || list_count(&owner->vram) >= ALLOCATIONS_MAX)
		return bytes ? FG_OUT_OF_MEMORY : FG_INVALID_VALUE;
	bytes = (bytes + VRAM_GRAIN - 1) / VRAM_GRAIN * VRAM_GRAIN;
	if (bytes > gpu_free(gpu))
		return FG_OUT_OF_MEMORY;
	if (!address)
		address = choose_address(owner, bytes);
	else if (address % VRAM_GRAIN || address > UINT64_MAX / 2 ||
		 overlaps(owner, address, bytes))
		return FG_INVALID_VALUE;
	v = from_pool(srv, bytes);
	if (!v)
		v = new_memory(srv, bytes);
	if (!v)
		return FG_OUT_OF_MEMORY;
	v->owner = owner;
	v->gpu = gpu;
	v->address = address;
	v->flags = flags;
	v->seq = seq;
	list_append(&owner->vram, &v->node);
	gpu->info.used += bytes;
	work_start(srv, &v->work);
	return FG_SUCCESS;
}

struct vram *vram_find(struct session *owner, uint64_t address, uint64_t n)
{
	struct vram *v;

	list_for_each(v, &owner->vram, node)
		if (v->ready && address >= v->address && address - v->address < v->bytes &&
		    n <= v->bytes - (address - v->address))
			return v;
	return NULL;
}

static void give_back(struct vram *v)
{
	v->progress = 0;
	v->work.step = give_back_pages;
	work_start(v->srv, &v->work);
}

void vram_release(struct vram *v)
{
	struct server *srv = v->srv;
	bool whole = v->progress == v->bytes; /* not given up in its making */

	list_remove(&v->node);
	v->gpu->info.used -= v->bytes;
	v->owner = NULL;
	v->ready = false;
	if (whole && v->bytes <= srv->settings.pool &&
	    srv->pooled <= srv->settings.pool - v->bytes) {
		list_append(&srv->pool, &v->node);
		srv->pooled += v->bytes;
	} else {
		give_back(v);
	}
}

void vram_drain_pool(struct server *srv, uint64_t max)
{
	while (srv->pooled > max) {
		struct vram *v = list_first(&srv->pool, struct vram, node);

		list_remove(&v->node);
		srv->pooled -= v->bytes;
		give_back(v);
	}
}

int vram_map(struct vram *v)
{
	void *map;

	if (v->map)
		return 0;
	map = mmap(NULL, v->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	v->map = map;
	return 0;
}

void vram_populate(struct vram *v, size_t end)
{
	if (end <= v->populated)
		return;
	/* A failure only means that pages come by faults, one by one. */
	(void)madvise(v->map + v->populated, end - v->populated, MADV_POPULATE_WRITE);
	v->populated = end;
}
