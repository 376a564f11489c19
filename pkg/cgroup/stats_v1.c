/* SPDX-License-Identifier: Apache-2.0 */
/* Statistics of cgroup version 1: stats_read_v1() of stats.h. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/time.h"
#include "cgroup/stats_file.h"

/* What cpuacct.stat counts in; the same on every Linux that user space can tell. */
#define NSEC_PER_TICK (NSEC_PER_SEC / 100)

struct reader {
	const struct cgroup *cg;
	struct arena *a;
	struct stats_v1 *s;
	struct buf b;
	int dir;
};

static int read_cpu(struct reader *r)
{
	static const struct parse_key keys[] = {
		{ "nr_periods", offsetof(struct stats_v1, periods) },
		{ "nr_throttled", offsetof(struct stats_v1, throttled_periods) },
		{ "throttled_time", offsetof(struct stats_v1, throttled_time) },
	};

	if (stats_text(r->dir, "cpu.stat", &r->b) == 0)
		parse_pairs(buf_bytes(&r->b), keys, ARRAY_SIZE(keys), r->s);
	return 0;
}

static int read_cpuacct(struct reader *r)
{
	struct stats_v1 *s = r->s;
	int res;

	if (stats_text(r->dir, "cpuacct.stat", &r->b) == 0) {
		s->cpu_user = parse_find(buf_bytes(&r->b), "user") * NSEC_PER_TICK;
		s->cpu_kernel = parse_find(buf_bytes(&r->b), "system") * NSEC_PER_TICK;
	}
	(void)stats_u64(r->dir, "cpuacct.usage", 0, &s->cpu_total);
	if (stats_text(r->dir, "cpuacct.usage_percpu", &r->b) < 0)
		return 0;
	res = parse_numbers(buf_bytes(&r->b), STATS_LIST_MAX, r->a, &s->per_cpu, &s->n_per_cpu);
	return res == -ENOMEM ? res : 0;
}

static void read_entry(int dir, const char *module, struct stats_memory_entry *e)
{
	const struct {
		const char *name;
		uint64_t *v;
	} files[] = { { "limit_in_bytes", &e->limit },
		      { "usage_in_bytes", &e->usage },
		      { "max_usage_in_bytes", &e->max },
		      { "failcnt", &e->failcnt } };
	char name[64];

	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		if (PATH_PRINTF(name, "memory.%s%s", module, files[i].name) == 0)
			(void)stats_u64(dir, name, 0, files[i].v);
}

static int read_memory(struct reader *r)
{
#define KEY(field, key) { key, offsetof(struct stats_v1, field) },
	static const struct parse_key keys[] = { STATS_V1_MEMORY(KEY) };
#undef KEY
	static const struct parse_key oom[] = {
		{ "oom_kill_disable", offsetof(struct stats_v1, oom_kill_disable) },
		{ "under_oom", offsetof(struct stats_v1, under_oom) },
		{ "oom_kill", offsetof(struct stats_v1, oom_kill) },
	};
	struct stats_v1 *s = r->s;

	if (stats_text(r->dir, "memory.stat", &r->b) < 0)
		return 0;
	s->has_memory = true;
	parse_pairs(buf_bytes(&r->b), keys, ARRAY_SIZE(keys), s);
	if (stats_text(r->dir, "memory.oom_control", &r->b) == 0) {
		s->has_oom_control = true;
		parse_pairs(buf_bytes(&r->b), oom, ARRAY_SIZE(oom), s);
	}
	read_entry(r->dir, "", &s->memory);
	/* A kernel can be without any of these, and still have the next. */
	read_entry(r->dir, "memsw.", &s->swap);
	read_entry(r->dir, "kmem.", &s->kernel);
	read_entry(r->dir, "kmem.tcp.", &s->kernel_tcp);
	return 0;
}

static int read_pids(struct reader *r)
{
	struct stats_v1 *s = r->s;

	s->has_pids = stats_u64(r->dir, "pids.current", 0, &s->pids_current) == 0 &&
		      stats_u64(r->dir, "pids.max", 0, &s->pids_limit) == 0;
	return 0;
}

static int read_blkio_file(struct reader *r, struct bytes partitions, const char *file,
			   enum stats_blkio_file to)
{
	struct stats_blkio_list *list = &r->s->blkio[to];
	int res = stats_text(r->dir, file, &r->b);

	if (res < 0)
		return 0;
	res = parse_blkio(buf_bytes(&r->b), STATS_LIST_MAX, r->a, &list->entry, &list->n);
	for (size_t i = 0; res == 0 && i < list->n; i++) {
		struct blkio_entry *e = &list->entry[i];

		/* A device has several lines in a row, one for each operation. */
		if (i > 0 && e[-1].major == e->major && e[-1].minor == e->minor)
			e->device = e[-1].device;
		else
			e->device = parse_partition(partitions, e->major, e->minor, r->a);
	}
	return res;
}

/*
 * The CFQ scheduler's files where they have something to say; other schedulers, and all kernels
 * from 5.0 on, leave only what throttling counts.
 */
static int read_blkio(struct reader *r)
{
	static const char *const recursive[STATS_BLKIO_FILES] = {
		[STATS_BLKIO_SERVICE_BYTES] = "blkio.io_service_bytes_recursive",
		[STATS_BLKIO_SERVICED] = "blkio.io_serviced_recursive",
		[STATS_BLKIO_QUEUED] = "blkio.io_queued_recursive",
		[STATS_BLKIO_SERVICE_TIME] = "blkio.io_service_time_recursive",
		[STATS_BLKIO_WAIT_TIME] = "blkio.io_wait_time_recursive",
		[STATS_BLKIO_MERGED] = "blkio.io_merged_recursive",
		[STATS_BLKIO_TIME] = "blkio.time_recursive",
		[STATS_BLKIO_SECTORS] = "blkio.sectors_recursive",
	};
	_cleanup_buf_ struct buf partitions = BUF_NULL;
	char path[PATH_MAX];
	size_t n = 0;
	int res = 0;

	r->s->has_blkio = true;
	if (PATH_PRINTF(path, "%s/partitions", r->cg->host->proc) == 0)
		(void)stats_text(AT_FDCWD, path, &partitions);
	if (faccessat(r->dir, recursive[STATS_BLKIO_SERVICED], F_OK, 0) == 0) {
		for (unsigned int i = 0; i < STATS_BLKIO_FILES && res == 0; i++) {
			res = read_blkio_file(r, buf_bytes(&partitions), recursive[i],
					      (enum stats_blkio_file)i);
			n += r->s->blkio[i].n;
		}
	}
	if (res < 0 || n > 0)
		return res;
	res = read_blkio_file(r, buf_bytes(&partitions), "blkio.throttle.io_serviced",
			      STATS_BLKIO_SERVICED);
	if (res == 0)
		res = read_blkio_file(r, buf_bytes(&partitions), "blkio.throttle.io_service_bytes",
				      STATS_BLKIO_SERVICE_BYTES);
	return res;
}

static int read_rdma(struct reader *r)
{
	int res = stats_rdma(r->dir, r->a, &r->s->rdma);

	r->s->has_rdma = res == 0;
	return res == -ENOMEM ? res : 0;
}

static int read_hugetlb(struct reader *r)
{
	struct stats_v1 *s = r->s;
	int res = stats_hugepages(r->cg->host, r->a, &s->hugetlb, &s->n_hugetlb);
	char name[64];

	for (size_t i = 0; res == 0 && i < s->n_hugetlb; i++) {
		struct stats_hugetlb *h = &s->hugetlb[i];
		const struct {
			const char *name;
			uint64_t *v;
		} files[] = { { "usage_in_bytes", &h->usage },
			      { "max_usage_in_bytes", &h->max },
			      { "failcnt", &h->failcnt } };

		for (size_t k = 0; k < ARRAY_SIZE(files); k++)
			if (PATH_PRINTF(name, "hugetlb.%s.%s", h->pagesize, files[k].name) == 0)
				(void)stats_u64(r->dir, name, 0, files[k].v);
	}
	return res;
}

int stats_read_v1(const struct cgroup *cg, struct arena *a, struct stats_v1 *ret,
		  struct error *err)
{
	static const struct {
		enum cgroup_controller controller;
		int (*read)(struct reader *r);
	} parts[] = {
		{ CGROUP_CPU, read_cpu },	{ CGROUP_CPUACCT, read_cpuacct },
		{ CGROUP_MEMORY, read_memory }, { CGROUP_PIDS, read_pids },
		{ CGROUP_BLKIO, read_blkio },	{ CGROUP_RDMA, read_rdma },
		{ CGROUP_HUGETLB, read_hugetlb },
	};
	struct stats_v1 s = { 0 };
	struct reader r = { .cg = cg, .a = a, .s = &s };
	bool found = false;
	int res = 0;

	for (size_t i = 0; i < ARRAY_SIZE(parts) && res == 0; i++) {
		_cleanup_close_ int dir = cgroup_dir(cg, parts[i].controller);

		if (dir < 0)
			continue;
		found = true;
		r.dir = dir;
		res = parts[i].read(&r);
		if (res == 0 && !stats_alive(dir))
			res = -ENOENT;
	}
	buf_done(&r.b);
	if (res < 0)
		return error_sys(err, res, "read the statistics of the cgroup");
	/* Its tree without a controller, name=systemd, counts as well. */
	if (!found && !cgroup_exists(cg))
		return error_set(err, -ENOENT, "the cgroup does not exist");
	*ret = s;
	return 0;
}
