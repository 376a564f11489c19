/* SPDX-License-Identifier: Apache-2.0 */
#include "cgroup/stats_pb.h"

#include <errno.h>

#include "api/containerd/metrics.pb-c.h"
#include "base/cleanup.h"

#define ARENA_MAX ((size_t)4 << 20)

/* An array of n messages and the pointers to them, as protobuf-c has repeated fields. */
#define MESSAGES(a, n, type, init)                                                                 \
	({                                                                                         \
		type **list_ = arena_alloc(a, (n) * sizeof(*list_));                               \
		type *each_ = arena_alloc(a, (n) * sizeof(*each_));                                \
		for (size_t i_ = 0; list_ && each_ && i_ < (n); i_++) {                            \
			each_[i_] = (type)init;                                                    \
			list_[i_] = &each_[i_];                                                    \
		}                                                                                  \
		each_ ? list_ : NULL;                                                              \
	})

/* protobuf-c declares strings as non-const for history's sake and writes to none when packing. */
static char *text(const char *s)
{
	return (char *)(uintptr_t)s;
}

static int pack(const ProtobufCMessage *m, struct buf *out)
{
	size_t n = protobuf_c_message_get_packed_size(m);
	uint8_t *to = buf_reserve(out, n);

	if (!to)
		return -errno;
	buf_commit(out, protobuf_c_message_pack(m, to));
	return 0;
}

static int rdma_list(struct arena *a, const struct rdma_entry *from, size_t n,
		     Metrics__RdmaEntry ***ret)
{
	*ret = MESSAGES(a, n, Metrics__RdmaEntry, METRICS__RDMA_ENTRY__INIT);
	if (!*ret)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		(*ret)[i]->device = text(from[i].device);
		(*ret)[i]->hca_handles = from[i].hca_handles;
		(*ret)[i]->hca_objects = from[i].hca_objects;
	}
	return 0;
}

static int fill_rdma(struct arena *a, const struct stats_rdma *from, Metrics__Rdma *to)
{
	int r = rdma_list(a, from->current, from->n_current, &to->current);

	if (r == 0)
		r = rdma_list(a, from->limit, from->n_limit, &to->limit);
	to->n_current = from->n_current;
	to->n_limit = from->n_limit;
	return r;
}

static Metrics__MemoryEntryV1 entry(const struct stats_memory_entry *e)
{
	Metrics__MemoryEntryV1 m = METRICS__MEMORY_ENTRY_V1__INIT;

	m.limit = e->limit;
	m.usage = e->usage;
	m.max = e->max;
	m.failcnt = e->failcnt;
	return m;
}

static int blkio_list(struct arena *a, const struct stats_blkio_list *from,
		      Metrics__BlkioEntryV1 ***ret, size_t *ret_n)
{
	*ret_n = from->n;
	*ret = MESSAGES(a, from->n, Metrics__BlkioEntryV1, METRICS__BLKIO_ENTRY_V1__INIT);
	if (!*ret)
		return -ENOMEM;
	for (size_t i = 0; i < from->n; i++) {
		(*ret)[i]->op = text(from->entry[i].op);
		(*ret)[i]->device = text(from->entry[i].device);
		(*ret)[i]->major = from->entry[i].major;
		(*ret)[i]->minor = from->entry[i].minor;
		(*ret)[i]->value = from->entry[i].value;
	}
	return 0;
}

static int fill_blkio(struct arena *a, const struct stats_v1 *s, Metrics__BlkioV1 *to)
{
	const struct {
		Metrics__BlkioEntryV1 ***list;
		size_t *n;
	} fields[STATS_BLKIO_FILES] = {
#define FIELD(file, name) [file] = { &to->name, &to->n_##name }
		FIELD(STATS_BLKIO_SERVICE_BYTES, io_service_bytes_recursive),
		FIELD(STATS_BLKIO_SERVICED, io_serviced_recursive),
		FIELD(STATS_BLKIO_QUEUED, io_queued_recursive),
		FIELD(STATS_BLKIO_SERVICE_TIME, io_service_time_recursive),
		FIELD(STATS_BLKIO_WAIT_TIME, io_wait_time_recursive),
		FIELD(STATS_BLKIO_MERGED, io_merged_recursive),
		FIELD(STATS_BLKIO_TIME, io_time_recursive),
		FIELD(STATS_BLKIO_SECTORS, sectors_recursive),
#undef FIELD
	};
	int r = 0;

	for (size_t i = 0; i < STATS_BLKIO_FILES && r == 0; i++)
		r = blkio_list(a, &s->blkio[i], fields[i].list, fields[i].n);
	return r;
}

static int fill_hugetlb_v1(struct arena *a, const struct stats_v1 *s, Metrics__MetricsV1 *m)
{
	m->n_hugetlb = s->n_hugetlb;
	m->hugetlb = MESSAGES(a, s->n_hugetlb, Metrics__HugetlbV1, METRICS__HUGETLB_V1__INIT);
	if (!m->hugetlb)
		return -ENOMEM;
	for (size_t i = 0; i < s->n_hugetlb; i++) {
		m->hugetlb[i]->usage = s->hugetlb[i].usage;
		m->hugetlb[i]->max = s->hugetlb[i].max;
		m->hugetlb[i]->failcnt = s->hugetlb[i].failcnt;
		m->hugetlb[i]->pagesize = text(s->hugetlb[i].pagesize);
	}
	return 0;
}

int stats_pb_v1(const struct stats_v1 *s, struct arena *a, struct buf *out)
{
	Metrics__MetricsV1 m = METRICS__METRICS_V1__INIT;
	Metrics__Pids pids = METRICS__PIDS__INIT;
	Metrics__CpuV1 cpu = METRICS__CPU_V1__INIT;
	Metrics__CpuUsageV1 usage = METRICS__CPU_USAGE_V1__INIT;
	Metrics__ThrottleV1 throttling = METRICS__THROTTLE_V1__INIT;
	Metrics__MemoryV1 memory = METRICS__MEMORY_V1__INIT;
	Metrics__MemoryEntryV1 entries[] = { entry(&s->memory), entry(&s->swap), entry(&s->kernel),
					     entry(&s->kernel_tcp) };
	Metrics__BlkioV1 blkio = METRICS__BLKIO_V1__INIT;
	Metrics__Rdma rdma = METRICS__RDMA__INIT;
	Metrics__MemoryOomControlV1 oom = METRICS__MEMORY_OOM_CONTROL_V1__INIT;

	pids.current = s->pids_current;
	pids.limit = s->pids_limit;
	usage.total = s->cpu_total;
	usage.kernel = s->cpu_kernel;
	usage.user = s->cpu_user;
	usage.per_cpu = s->per_cpu;
	usage.n_per_cpu = s->n_per_cpu;
	throttling.periods = s->periods;
	throttling.throttled_periods = s->throttled_periods;
	throttling.throttled_time = s->throttled_time;
	cpu.usage = &usage;
	cpu.throttling = &throttling;
#define COPY(field, key) memory.field = s->field;
	STATS_V1_MEMORY(COPY)
#undef COPY
	memory.usage = &entries[0];
	memory.swap = &entries[1];
	memory.kernel = &entries[2];
	memory.kernel_tcp = &entries[3];
	oom.oom_kill_disable = s->oom_kill_disable;
	oom.under_oom = s->under_oom;
	oom.oom_kill = s->oom_kill;
	if (fill_blkio(a, s, &blkio) < 0 || fill_rdma(a, &s->rdma, &rdma) < 0 ||
	    fill_hugetlb_v1(a, s, &m) < 0)
		return -ENOMEM;
	m.pids = s->has_pids ? &pids : NULL;
	m.cpu = &cpu;
	m.memory = s->has_memory ? &memory : NULL;
	m.blkio = s->has_blkio ? &blkio : NULL;
	m.rdma = s->has_rdma ? &rdma : NULL;
	m.memory_oom_control = s->has_oom_control ? &oom : NULL;
	return pack(&m.base, out);
}

/* One pressure file: the message and its two halves. */
struct psi_messages {
	Metrics__Psi psi;
	Metrics__PsiData some, full;
};

static Metrics__PsiData psi_data(const struct psi_data *d)
{
	Metrics__PsiData m = METRICS__PSI_DATA__INIT;

	m.avg10 = d->avg10;
	m.avg60 = d->avg60;
	m.avg300 = d->avg300;
	m.total = d->total;
	return m;
}

static Metrics__Psi *fill_psi(struct psi_messages *to, const struct psi *from)
{
	if (!from->present)
		return NULL;
	to->psi = (Metrics__Psi)METRICS__PSI__INIT;
	to->some = psi_data(&from->some);
	to->full = psi_data(&from->full);
	to->psi.some = from->some.present ? &to->some : NULL;
	to->psi.full = from->full.present ? &to->full : NULL;
	return &to->psi;
}

static Metrics__MemoryV2 memory_v2(const struct stats_v2 *s)
{
	Metrics__MemoryV2 m = METRICS__MEMORY_V2__INIT;

#define COPY(field, key) m.field = s->field;
	STATS_V2_MEMORY(COPY)
#undef COPY
	m.usage = s->usage;
	m.usage_limit = s->usage_limit;
	m.swap_usage = s->swap_usage;
	m.swap_limit = s->swap_limit;
	m.max_usage = s->max_usage;
	m.swap_max_usage = s->swap_max_usage;
	return m;
}

static Metrics__CpuV2 cpu_v2(const struct stats_v2 *s)
{
	Metrics__CpuV2 m = METRICS__CPU_V2__INIT;

	m.usage_usec = s->usage_usec;
	m.user_usec = s->user_usec;
	m.system_usec = s->system_usec;
	m.nr_periods = s->nr_periods;
	m.nr_throttled = s->nr_throttled;
	m.throttled_usec = s->throttled_usec;
	m.nr_bursts = s->nr_bursts;
	m.burst_usec = s->burst_usec;
	return m;
}

static Metrics__MemoryEventsV2 events_v2(const struct stats_v2 *s)
{
	Metrics__MemoryEventsV2 m = METRICS__MEMORY_EVENTS_V2__INIT;

	m.low = s->low;
	m.high = s->high;
	m.max = s->max;
	m.oom = s->oom;
	m.oom_kill = s->oom_kill;
	m.oom_group_kill = s->oom_group_kill;
	return m;
}

static int fill_io(struct arena *a, const struct stats_v2 *s, Metrics__IoV2 *io)
{
	io->n_usage = s->n_io;
	io->usage = MESSAGES(a, s->n_io, Metrics__IoEntryV2, METRICS__IO_ENTRY_V2__INIT);
	if (!io->usage)
		return -ENOMEM;
	for (size_t i = 0; i < s->n_io; i++) {
		io->usage[i]->major = s->io[i].major;
		io->usage[i]->minor = s->io[i].minor;
		io->usage[i]->rbytes = s->io[i].rbytes;
		io->usage[i]->wbytes = s->io[i].wbytes;
		io->usage[i]->rios = s->io[i].rios;
		io->usage[i]->wios = s->io[i].wios;
	}
	return 0;
}

static int fill_hugetlb_v2(struct arena *a, const struct stats_v2 *s, Metrics__MetricsV2 *m)
{
	m->n_hugetlb = s->n_hugetlb;
	m->hugetlb = MESSAGES(a, s->n_hugetlb, Metrics__HugetlbV2, METRICS__HUGETLB_V2__INIT);
	if (!m->hugetlb)
		return -ENOMEM;
	for (size_t i = 0; i < s->n_hugetlb; i++) {
		m->hugetlb[i]->current = s->hugetlb[i].usage;
		m->hugetlb[i]->max = s->hugetlb[i].max;
		m->hugetlb[i]->failcnt = s->hugetlb[i].failcnt;
		m->hugetlb[i]->pagesize = text(s->hugetlb[i].pagesize);
	}
	return 0;
}

int stats_pb_v2(const struct stats_v2 *s, struct arena *a, struct buf *out)
{
	Metrics__MetricsV2 m = METRICS__METRICS_V2__INIT;
	Metrics__Pids pids = METRICS__PIDS__INIT;
	Metrics__CpuV2 cpu = cpu_v2(s);
	Metrics__MemoryV2 memory = memory_v2(s);
	Metrics__MemoryEventsV2 events = events_v2(s);
	Metrics__IoV2 io = METRICS__IO_V2__INIT;
	Metrics__Rdma rdma = METRICS__RDMA__INIT;
	struct psi_messages psi[3];

	pids.current = s->pids_current;
	pids.limit = s->pids_limit;
	cpu.psi = fill_psi(&psi[0], &s->cpu_psi);
	memory.psi = fill_psi(&psi[1], &s->memory_psi);
	io.psi = fill_psi(&psi[2], &s->io_psi);
	if (fill_io(a, s, &io) < 0 || fill_rdma(a, &s->rdma, &rdma) < 0 ||
	    fill_hugetlb_v2(a, s, &m) < 0)
		return -ENOMEM;
	m.pids = &pids;
	m.cpu = &cpu;
	m.memory = &memory;
	m.rdma = &rdma;
	m.io = &io;
	m.memory_events = s->has_memory_events ? &events : NULL;
	return pack(&m.base, out);
}

int stats_pb(const struct cgroup *cg, struct buf *out, const char **ret_type_url,
	     struct error *err)
{
	_cleanup_arena_ struct arena a = ARENA_LIMIT(ARENA_MAX);
	bool v2 = cg->host->mode == CGROUP_V2;
	struct stats_v1 v1_stats;
	struct stats_v2 v2_stats;
	int r;

	r = v2 ? stats_read_v2(cg, &a, &v2_stats, err) : stats_read_v1(cg, &a, &v1_stats, err);
	if (r < 0)
		return r;
	r = v2 ? stats_pb_v2(&v2_stats, &a, out) : stats_pb_v1(&v1_stats, &a, out);
	if (r < 0)
		return error_sys(err, r, "pack the statistics of the cgroup");
	*ret_type_url = v2 ? "io.containerd.cgroups.v2.Metrics" :
			     "io.containerd.cgroups.v1.Metrics";
	return 0;
}
