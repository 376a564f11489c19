/* SPDX-License-Identifier: Apache-2.0 */
/* Statistics of cgroup version 2: stats_read_v2() of stats.h. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/path.h"
#include "cgroup/stats_file.h"

/* A kernel can have the file and refuse to read it (psi=0): then there is no such part. */
static void read_psi(int dir, const char *file, struct buf *b, struct psi *ret)
{
	if (stats_text(dir, file, b) == 0)
		(void)parse_psi(buf_bytes(b), ret);
}

static void read_cpu(int dir, struct buf *b, struct stats_v2 *s)
{
#define KEY(field) { #field, offsetof(struct stats_v2, field) }
	static const struct parse_key keys[] = {
		KEY(usage_usec),   KEY(user_usec),	KEY(system_usec), KEY(nr_periods),
		KEY(nr_throttled), KEY(throttled_usec), KEY(nr_bursts),	  KEY(burst_usec),
	};
#undef KEY

	if (stats_text(dir, "cpu.stat", b) == 0)
		parse_pairs(buf_bytes(b), keys, ARRAY_SIZE(keys), s);
	read_psi(dir, "cpu.pressure", b, &s->cpu_psi);
}

static void read_memory(int dir, struct buf *b, struct stats_v2 *s)
{
#define KEY(field, key) { key, offsetof(struct stats_v2, field) },
	static const struct parse_key keys[] = { STATS_V2_MEMORY(KEY) };
#undef KEY

	if (stats_text(dir, "memory.stat", b) == 0)
		parse_pairs(buf_bytes(b), keys, ARRAY_SIZE(keys), s);
	(void)stats_u64(dir, "memory.current", UINT64_MAX, &s->usage);
	(void)stats_u64(dir, "memory.max", UINT64_MAX, &s->usage_limit);
	(void)stats_u64(dir, "memory.peak", UINT64_MAX, &s->max_usage);
	(void)stats_u64(dir, "memory.swap.current", UINT64_MAX, &s->swap_usage);
	(void)stats_u64(dir, "memory.swap.max", UINT64_MAX, &s->swap_limit);
	(void)stats_u64(dir, "memory.swap.peak", UINT64_MAX, &s->swap_max_usage);
	read_psi(dir, "memory.pressure", b, &s->memory_psi);
}

static void read_memory_events(int dir, struct buf *b, struct stats_v2 *s)
{
#define KEY(field) { #field, offsetof(struct stats_v2, field) }
	static const struct parse_key keys[] = {
		KEY(low), KEY(high), KEY(max), KEY(oom), KEY(oom_kill), KEY(oom_group_kill),
	};
#undef KEY

	if (stats_text(dir, "memory.events", b) < 0 || buf_len(b) == 0)
		return;
	s->has_memory_events = true;
	parse_pairs(buf_bytes(b), keys, ARRAY_SIZE(keys), s);
}

static int read_io(int dir, struct buf *b, struct arena *a, struct stats_v2 *s)
{
	int r = 0;

	if (stats_text(dir, "io.stat", b) == 0)
		r = parse_io(buf_bytes(b), STATS_LIST_MAX, a, &s->io, &s->n_io);
	read_psi(dir, "io.pressure", b, &s->io_psi);
	return r;
}

static int read_hugetlb(int dir, const struct cgroup *cg, struct buf *b, struct arena *a,
			struct stats_v2 *s)
{
	int r = stats_hugepages(cg->host, a, &s->hugetlb, &s->n_hugetlb);
	char name[64];

	for (size_t i = 0; r == 0 && i < s->n_hugetlb; i++) {
		struct stats_hugetlb *h = &s->hugetlb[i];

		if (PATH_PRINTF(name, "hugetlb.%s.current", h->pagesize) == 0)
			(void)stats_u64(dir, name, UINT64_MAX, &h->usage);
		if (PATH_PRINTF(name, "hugetlb.%s.max", h->pagesize) == 0)
			(void)stats_u64(dir, name, UINT64_MAX, &h->max);
		if (PATH_PRINTF(name, "hugetlb.%s.events", h->pagesize) == 0 &&
		    stats_text(dir, name, b) == 0)
			h->failcnt = parse_find(buf_bytes(b), "max");
	}
	return r;
}

int stats_read_v2(const struct cgroup *cg, struct arena *a, struct stats_v2 *ret,
		  struct error *err)
{
	_cleanup_close_ int dir = cgroup_dir(cg, (enum cgroup_controller)0);
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct stats_v2 s = { 0 };
	int r;

	if (dir == -ENOENT)
		return error_set(err, -ENOENT, "the cgroup does not exist");
	if (dir < 0)
		return error_sys(err, dir, "open the cgroup");
	(void)stats_u64(dir, "pids.current", UINT64_MAX, &s.pids_current);
	(void)stats_u64(dir, "pids.max", UINT64_MAX, &s.pids_limit);
	read_cpu(dir, &b, &s);
	read_memory(dir, &b, &s);
	read_memory_events(dir, &b, &s);
	r = read_io(dir, &b, a, &s);
	if (r == 0) {
		r = stats_rdma(dir, a, &s.rdma);
		r = r == -ENOMEM ? r : 0;
	}
	if (r == 0)
		r = read_hugetlb(dir, cg, &b, a, &s);
	if (r == 0 && !stats_alive(dir))
		r = -ENOENT;
	if (r < 0)
		return error_sys(err, r, "read the statistics of the cgroup");
	*ret = s;
	return 0;
}
