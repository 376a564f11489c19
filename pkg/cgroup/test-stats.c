/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/mman.h>

#include "api/containerd/metrics.pb-c.h"
#include "cgroup/stats_pb.h"
#include "cgroup/testbed.h"

static const char v1_mounts[] = "1 1 0:1 / @/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
				"2 1 0:2 / @/memory rw - cgroup cgroup rw,memory\n"
				"3 1 0:3 / @/pids rw - cgroup cgroup rw,pids\n"
				"4 1 0:4 / @/blkio rw - cgroup cgroup rw,blkio\n"
				"5 1 0:5 / @/rdma rw - cgroup cgroup rw,rdma\n"
				"6 1 0:6 / @/hugetlb rw - cgroup cgroup rw,hugetlb\n";

#define V1_MEMBER "1:cpu,cpuacct:/c\n2:memory:/c\n3:pids:/c\n4:blkio:/c\n5:rdma:/c\n6:hugetlb:/c\n"

/* The keys of memory.stat in the order of the message's fields 1 to 32: MemoryStat of
 * containerd/cgroups, cgroup1/stats/metrics.proto, with parseStats of cgroup1/memory.go. */
static const char *const v1_memory[] = {
	"cache", "rss", "rss_huge", "mapped_file", "dirty", "writeback", "pgpgin", "pgpgout",
	"pgfault", "pgmajfault", "inactive_anon", "active_anon", "inactive_file", "active_file",
	"unevictable", "hierarchical_memory_limit", "hierarchical_memsw_limit", "total_cache",
	"total_rss", "total_rss_huge", "total_mapped_file", "total_dirty", "total_writeback",
	"total_pgpgin", "total_pgpgout", "total_pgfault", "total_pgmajfault",
	"total_inactive_anon", "total_active_anon", "total_inactive_file", "total_active_file",
	"total_unevictable",
};

/* Likewise cgroup2/stats/metrics.proto and readMemoryStats of cgroup2/manager.go, 1 to 31. */
static const char *const v2_memory[] = {
	"anon", "file", "kernel_stack", "slab", "sock", "shmem", "file_mapped", "file_dirty",
	"file_writeback", "anon_thp", "inactive_anon", "active_anon", "inactive_file",
	"active_file", "unevictable", "slab_reclaimable", "slab_unreclaimable", "pgfault",
	"pgmajfault", "workingset_refault", "workingset_activate", "workingset_nodereclaim",
	"pgrefill", "pgscan", "pgsteal", "pgactivate", "pgdeactivate", "pglazyfree",
	"pglazyfreed", "thp_fault_alloc", "thp_collapse_alloc",
};

/* memory.stat with 1000 + N for the key of field N, in the reverse order for good measure. */
static void memory_stat(const struct bed *b, const char *name, const char *const *keys, size_t n)
{
	_cleanup_buf_ struct buf text = BUF_NULL;

	for (size_t i = n; i-- > 0;)
		assert_int_equal(buf_printf(&text, "%s %zu\nnew_in_some_kernel 5\n", keys[i],
					    1001 + i), 0);
	bed_file(b, name, buf_str(&text));
}

/* The fields of these numbers of a message hold what memory_stat() wrote. */
static void memory_fields(const ProtobufCMessage *m, unsigned int n)
{
	unsigned int seen = 0;

	for (unsigned int i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
		uint64_t v;

		if (f->id > n)
			continue;
		memcpy(&v, (const char *)m + f->offset, sizeof(v));
		if (v != 1000 + f->id)
			fail_msg("field %u (%s) is %llu", f->id, f->name, (unsigned long long)v);
		seen++;
	}
	assert_int_equal(seen, n);
}

static void pack(struct bed *b, struct buf *out, const char *want_url)
{
	struct error err = ERROR_NULL;
	const char *url;

	if (stats_pb(&b->cg, out, &url, &err) < 0)
		fail_msg("%s", error_text(&err));
	assert_string_equal(url, want_url);
}

static Metrics__MetricsV1 *unpack_v1(struct bed *b)
{
	_cleanup_buf_ struct buf raw = BUF_NULL;
	Metrics__MetricsV1 *m;

	pack(b, &raw, "io.containerd.cgroups.v1.Metrics");
	m = metrics__metrics_v1__unpack(NULL, buf_len(&raw), buf_bytes(&raw).p);
	assert_non_null(m);
	return m;
}

static Metrics__MetricsV2 *unpack_v2(struct bed *b)
{
	_cleanup_buf_ struct buf raw = BUF_NULL;
	Metrics__MetricsV2 *m;

	pack(b, &raw, "io.containerd.cgroups.v2.Metrics");
	m = metrics__metrics_v2__unpack(NULL, buf_len(&raw), buf_bytes(&raw).p);
	assert_non_null(m);
	return m;
}

static void fake_v1(struct bed *b)
{
	static const char *const groups[] = { "cpu,cpuacct", "memory", "pids", "blkio", "rdma",
					      "hugetlb" };
	char name[64];

	bed_fake(b, CGROUP_V1, v1_mounts);
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
		(void)snprintf(name, sizeof(name), "cgroup/%s/c/cgroup.procs", groups[i]);
		bed_file(b, name, "");
	}
	bed_file(b, "huge/hugepages-2048kB/nr", "");
	bed_file(b, "huge/hugepages-1048576kB/nr", "");
	bed_member(b, V1_MEMBER);
}

static void v1_cpu(void **state)
{
	Metrics__MetricsV1 *m;
	struct bed b;

	(void)state;
	fake_v1(&b);
	bed_file(&b, "cgroup/cpu,cpuacct/c/cpu.stat",
		 "nr_periods 5\nnr_throttled 6\nthrottled_time 7\nnr_bursts 8\n");
	bed_file(&b, "cgroup/cpu,cpuacct/c/cpuacct.stat", "user 123\nsystem 4\n");
	bed_file(&b, "cgroup/cpu,cpuacct/c/cpuacct.usage", "987654321\n");
	bed_file(&b, "cgroup/cpu,cpuacct/c/cpuacct.usage_percpu", "11 22 0 \n");
	m = unpack_v1(&b);
	assert_true(m->cpu->usage->total == 987654321);
	assert_true(m->cpu->usage->user == 1230000000); /* ticks of 10 ms, in ns */
	assert_true(m->cpu->usage->kernel == 40000000);
	assert_int_equal(m->cpu->usage->n_per_cpu, 3);
	assert_true(m->cpu->usage->per_cpu[1] == 22);
	assert_true(m->cpu->throttling->periods == 5 && m->cpu->throttling->throttled_periods == 6);
	assert_true(m->cpu->throttling->throttled_time == 7);
	metrics__metrics_v1__free_unpacked(m, NULL);
	bed_close(&b);
}

static void v1_memory_fields(void **state)
{
	static const char *const modules[] = { "", "memsw.", "kmem.", "kmem.tcp." };
	Metrics__MetricsV1 *m;
	char name[128], text[32];
	struct bed b;

	(void)state;
	fake_v1(&b);
	memory_stat(&b, "cgroup/memory/c/memory.stat", v1_memory, ARRAY_SIZE(v1_memory));
	bed_file(&b, "cgroup/memory/c/memory.oom_control",
		 "oom_kill_disable 1\nunder_oom 2\noom_kill 3\n");
	for (int i = 0; i < 4; i++) {
		static const char *const files[] = { "limit_in_bytes", "usage_in_bytes",
						     "max_usage_in_bytes", "failcnt" };

		for (int k = 0; k < 4; k++) {
			(void)snprintf(name, sizeof(name), "cgroup/memory/c/memory.%s%s",
				       modules[i], files[k]);
			(void)snprintf(text, sizeof(text), "%d\n", 10 * i + k);
			bed_file(&b, name, text);
		}
	}
	m = unpack_v1(&b);
	memory_fields(&m->memory->base, 32);
	assert_true(m->memory->usage->limit == 0 && m->memory->usage->usage == 1 &&
		    m->memory->usage->max == 2 && m->memory->usage->failcnt == 3);
	assert_true(m->memory->swap->limit == 10 && m->memory->swap->failcnt == 13);
	assert_true(m->memory->kernel->usage == 21 && m->memory->kernel_tcp->max == 32);
	assert_true(m->memory_oom_control->oom_kill_disable == 1 &&
		    m->memory_oom_control->under_oom == 2 && m->memory_oom_control->oom_kill == 3);
	metrics__metrics_v1__free_unpacked(m, NULL);
	bed_close(&b);
}

static void v1_blkio(void **state)
{
	static const char partitions[] = "major minor  #blocks  name\n\n 254  0  100 vda\n";
	Metrics__MetricsV1 *m;
	struct bed b;

	(void)state;
	fake_v1(&b);
	bed_file(&b, "proc/partitions", partitions);
	/* A kernel without CFQ: what throttling counts. */
	bed_file(&b, "cgroup/blkio/c/blkio.throttle.io_serviced",
		 "254:0 Read 3\n254:0 Write 4\n9:9 Read 5\nTotal 12\n");
	bed_file(&b, "cgroup/blkio/c/blkio.throttle.io_service_bytes", "254:0 Read 4096\nTotal 4096\n");
	m = unpack_v1(&b);
	assert_int_equal(m->blkio->n_io_serviced_recursive, 3);
	assert_string_equal(m->blkio->io_serviced_recursive[1]->op, "Write");
	assert_string_equal(m->blkio->io_serviced_recursive[1]->device, "/dev/vda");
	assert_true(m->blkio->io_serviced_recursive[1]->value == 4);
	assert_string_equal(m->blkio->io_serviced_recursive[2]->device, "");
	assert_true(m->blkio->io_service_bytes_recursive[0]->value == 4096);
	metrics__metrics_v1__free_unpacked(m, NULL);
	/* CFQ there, but without a word: the same. */
	bed_file(&b, "cgroup/blkio/c/blkio.io_serviced_recursive", "Total 0\n");
	m = unpack_v1(&b);
	assert_int_equal(m->blkio->n_io_serviced_recursive, 3);
	metrics__metrics_v1__free_unpacked(m, NULL);
	/* CFQ with something to say: only that. */
	bed_file(&b, "cgroup/blkio/c/blkio.sectors_recursive", "254:0 88\n");
	bed_file(&b, "cgroup/blkio/c/blkio.time_recursive", "254:0 99\n");
	m = unpack_v1(&b);
	assert_int_equal(m->blkio->n_io_serviced_recursive, 0);
	assert_int_equal(m->blkio->n_io_service_bytes_recursive, 0);
	assert_true(m->blkio->sectors_recursive[0]->value == 88);
	assert_string_equal(m->blkio->sectors_recursive[0]->op, "");
	assert_true(m->blkio->io_time_recursive[0]->value == 99);
	metrics__metrics_v1__free_unpacked(m, NULL);
	bed_close(&b);
}

static void v1_others(void **state)
{
	Metrics__MetricsV1 *m;
	struct bed b;

	(void)state;
	fake_v1(&b);
	bed_file(&b, "cgroup/pids/c/pids.current", "17\n");
	bed_file(&b, "cgroup/pids/c/pids.max", "max\n");
	bed_file(&b, "cgroup/rdma/c/rdma.current", "mlx5_0 hca_handle=2 hca_object=3\n");
	bed_file(&b, "cgroup/rdma/c/rdma.max", "mlx5_0 hca_handle=max hca_object=9\n");
	bed_file(&b, "cgroup/hugetlb/c/hugetlb.2MB.usage_in_bytes", "2097152\n");
	bed_file(&b, "cgroup/hugetlb/c/hugetlb.2MB.max_usage_in_bytes", "4194304\n");
	bed_file(&b, "cgroup/hugetlb/c/hugetlb.2MB.failcnt", "1\n");
	m = unpack_v1(&b);
	assert_true(m->pids->current == 17 && m->pids->limit == 0); /* 0 in version 1 */
	assert_string_equal(m->rdma->current[0]->device, "mlx5_0");
	assert_true(m->rdma->current[0]->hca_objects == 3);
	assert_true(m->rdma->limit[0]->hca_handles == UINT32_MAX);
	assert_int_equal(m->n_hugetlb, 2);
	assert_string_equal(m->hugetlb[0]->pagesize, "1GB");
	assert_string_equal(m->hugetlb[1]->pagesize, "2MB");
	assert_true(m->hugetlb[1]->usage == 2097152 && m->hugetlb[1]->max == 4194304 &&
		    m->hugetlb[1]->failcnt == 1);
	metrics__metrics_v1__free_unpacked(m, NULL);
	bed_close(&b);
}

/* Missing files are zeros, missing controllers are left out as containerd does. */
static void v1_missing(void **state)
{
	Metrics__MetricsV1 *m;
	struct bed b;

	(void)state;
	fake_v1(&b);
	m = unpack_v1(&b);
	assert_non_null(m->cpu->usage);
	assert_non_null(m->cpu->throttling);
	assert_true(m->cpu->usage->total == 0);
	assert_null(m->pids);
	assert_null(m->memory);
	assert_null(m->memory_oom_control);
	assert_null(m->rdma);
	assert_non_null(m->blkio);
	metrics__metrics_v1__free_unpacked(m, NULL);
	bed_file(&b, "cgroup/memory/c/memory.stat", "rss 1\n"); /* no swap accounting */
	bed_file(&b, "cgroup/memory/c/memory.kmem.usage_in_bytes", "9\n");
	m = unpack_v1(&b);
	assert_true(m->memory->rss == 1 && m->memory->swap->usage == 0);
	assert_true(m->memory->kernel->usage == 9);
	metrics__metrics_v1__free_unpacked(m, NULL);
	bed_close(&b);
}

static void v1_gone(void **state)
{
	_cleanup_buf_ struct buf raw = BUF_NULL;
	struct error err = ERROR_NULL;
	const char *url = NULL;
	struct bed b;

	(void)state;
	bed_fake(&b, CGROUP_V1, v1_mounts);
	bed_member(&b, V1_MEMBER);
	assert_int_equal(stats_pb(&b.cg, &raw, &url, &err), -ENOENT);
	assert_int_equal(err.rpc, RPC_OK); /* never NOT_FOUND by accident */
	assert_null(url);
	assert_int_equal(buf_len(&raw), 0);
	bed_file(&b, "cgroup/memory/c/memory.stat", "rss 1\n"); /* vanishes while it is read */
	assert_int_equal(stats_pb(&b.cg, &raw, &url, &err), -ENOENT);
	bed_close(&b);
}

static void fake_v2(struct bed *b)
{
	bed_fake(b, CGROUP_V2, NULL);
	bed_file(b, "cgroup/c/cgroup.procs", "");
	bed_file(b, "huge/hugepages-2048kB/nr", "");
	bed_member(b, "0::/c\n");
}

static void v2_all(void **state)
{
	static const char *const files[][2] = {
		{ "pids.current", "17\n" },
		{ "pids.max", "max\n" },
		{ "cpu.stat", "usage_usec 1\nuser_usec 2\nsystem_usec 3\nnice_usec 99\n"
			      "core_sched.force_idle_usec 98\nnr_periods 4\nnr_throttled 5\n"
			      "throttled_usec 6\nnr_bursts 7\nburst_usec 8\n" },
		{ "cpu.pressure", "some avg10=0.22 avg60=0.17 avg300=1.11 total=58761459\n"
				  "full avg10=0.23 avg60=0.16 avg300=1.08 total=58464525\n" },
		{ "memory.current", "4096\n" },
		{ "memory.max", "max\n" },
		{ "memory.peak", "8192\n" },
		{ "memory.swap.current", "5\n" },
		{ "memory.swap.max", "6\n" },
		{ "memory.swap.peak", "7\n" },
		{ "memory.pressure", "some avg10=1.00 avg60=0.00 avg300=0.00 total=3\n" },
		{ "memory.events", "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n" },
		{ "io.stat", "8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n" },
		{ "io.pressure", "some avg10=2.00 avg60=0.00 avg300=0.00 total=4\n" },
		{ "rdma.current", "mlx5_0 hca_handle=2 hca_object=3\n" },
		{ "rdma.max", "mlx5_0 hca_handle=max hca_object=max\n" },
		{ "hugetlb.2MB.current", "2097152\n" },
		{ "hugetlb.2MB.max", "max\n" },
		{ "hugetlb.2MB.events", "max 9\n" },
	};
	Metrics__MetricsV2 *m;
	char name[64];
	struct bed b;

	(void)state;
	fake_v2(&b);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		(void)snprintf(name, sizeof(name), "cgroup/c/%s", files[i][0]);
		bed_file(&b, name, files[i][1]);
	}
	memory_stat(&b, "cgroup/c/memory.stat", v2_memory, ARRAY_SIZE(v2_memory));
	m = unpack_v2(&b);
	assert_true(m->pids->current == 17 && m->pids->limit == UINT64_MAX);
	assert_true(m->cpu->usage_usec == 1 && m->cpu->user_usec == 2 && m->cpu->system_usec == 3 &&
		    m->cpu->nr_periods == 4 && m->cpu->nr_throttled == 5 &&
		    m->cpu->throttled_usec == 6 && m->cpu->nr_bursts == 7 &&
		    m->cpu->burst_usec == 8);
	assert_true(m->cpu->psi->some->avg10 == 0.22 && m->cpu->psi->full->avg300 == 1.08 &&
		    m->cpu->psi->full->total == 58464525);
	memory_fields(&m->memory->base, 31);
	assert_true(m->memory->usage == 4096 && m->memory->usage_limit == UINT64_MAX &&
		    m->memory->max_usage == 8192 && m->memory->swap_usage == 5 &&
		    m->memory->swap_limit == 6 && m->memory->swap_max_usage == 7);
	assert_true(m->memory->psi->some->avg10 == 1.0 && m->memory->psi->full == NULL);
	assert_true(m->memory_events->low == 1 && m->memory_events->high == 2 &&
		    m->memory_events->max == 3 && m->memory_events->oom == 4 &&
		    m->memory_events->oom_kill == 5 && m->memory_events->oom_group_kill == 6);
	assert_int_equal(m->io->n_usage, 1);
	assert_true(m->io->usage[0]->major == 8 && m->io->usage[0]->minor == 16 &&
		    m->io->usage[0]->rbytes == 1 && m->io->usage[0]->wbytes == 2 &&
		    m->io->usage[0]->rios == 3 && m->io->usage[0]->wios == 4);
	assert_true(m->io->psi->some->total == 4);
	assert_true(m->rdma->current[0]->hca_handles == 2 &&
		    m->rdma->limit[0]->hca_objects == UINT32_MAX);
	assert_int_equal(m->n_hugetlb, 1);
	assert_true(m->hugetlb[0]->current == 2097152 && m->hugetlb[0]->max == UINT64_MAX &&
		    m->hugetlb[0]->failcnt == 9);
	assert_string_equal(m->hugetlb[0]->pagesize, "2MB");
	metrics__metrics_v2__free_unpacked(m, NULL);
	bed_close(&b);
}

static void v2_missing(void **state)
{
	_cleanup_buf_ struct buf raw = BUF_NULL;
	struct error err = ERROR_NULL;
	Metrics__MetricsV2 *m;
	const char *url;
	struct bed b;

	(void)state;
	fake_v2(&b);
	m = unpack_v2(&b);
	assert_true(m->pids->current == 0 && m->pids->limit == 0);
	assert_true(m->cpu->usage_usec == 0 && !m->cpu->psi);
	assert_true(m->memory->usage == 0 && !m->memory->psi);
	assert_null(m->memory_events);
	assert_non_null(m->rdma);
	assert_int_equal(m->io->n_usage, 0);
	assert_int_equal(m->n_hugetlb, 1);
	metrics__metrics_v2__free_unpacked(m, NULL);
	bed_close(&b);

	bed_fake(&b, CGROUP_V2, NULL);
	bed_member(&b, "0::/c\n");
	assert_int_equal(stats_pb(&b.cg, &raw, &url, &err), -ENOENT);
	bed_close(&b);
}

/* A cgroup of a machine with very many disks still has an answer, or a clean failure. */
static void bounded(void **state)
{
	_cleanup_buf_ struct buf text = BUF_NULL, small = BUF_LIMIT(10);
	_cleanup_arena_ struct arena tight = ARENA_LIMIT(1000);
	struct stats_v2 s;
	const char *url;
	struct bed b;

	(void)state;
	fake_v2(&b);
	for (int i = 0; i < 5000; i++)
		assert_int_equal(buf_printf(&text, "8:%d rbytes=%d wbytes=1 rios=1 wios=1\n", i,
					    i), 0);
	bed_file(&b, "cgroup/c/io.stat", buf_str(&text));
	{
		Metrics__MetricsV2 *m = unpack_v2(&b);

		assert_int_equal(m->io->n_usage, 5000);
		assert_true(m->io->usage[4999]->rbytes == 4999);
		metrics__metrics_v2__free_unpacked(m, NULL);
	}
	assert_int_equal(stats_read_v2(&b.cg, &tight, &s, NULL), -ENOMEM);
	assert_int_equal(stats_pb(&b.cg, &small, &url, NULL), -EMSGSIZE);
	bed_close(&b);
}

static void work(void)
{
	char *p = mmap(NULL, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		_exit(98);
	memset(p, 1, 8 << 20);
	for (volatile unsigned long i = 0; i < 200000000UL; i++)
		;
}

/* The kernel's own files: what must be there is, and all works after the exit. */
static void real_v1(void **state)
{
	Metrics__MetricsV1 *m;
	struct bed b;
	pid_t pid;

	(void)state;
	BED_NEEDS(CGROUP_V1, "memory");
	bed_real(&b, CGROUP_V1);
	pid = bed_child(&b, "", work);
	assert_int_equal(cgroup_open_pid(&b.cg, &b.host, pid, NULL), 0);
	m = unpack_v1(&b);
	assert_non_null(m->pids);
	assert_true(m->pids->current == 1);
	assert_true(m->memory->usage->limit > 0 && m->memory->usage->usage > 0);
	metrics__metrics_v1__free_unpacked(m, NULL);
	(void)usleep(200000);
	bed_end_children(&b);
	m = unpack_v1(&b);
	assert_true(m->pids->current == 0);
	assert_true(m->cpu->usage->total > 1000000);
	assert_true(m->memory->usage->max > 0);
	assert_true(m->memory->total_pg_fault > 0);
	assert_non_null(m->memory_oom_control);
	assert_true(m->memory_oom_control->oom_kill == 0);
	metrics__metrics_v1__free_unpacked(m, NULL);
	bed_close(&b);
}

static void real_v2(void **state)
{
	Metrics__MetricsV2 *m;
	struct bed b;
	pid_t pid;

	(void)state;
	BED_NEEDS(CGROUP_V2, NULL);
	bed_real(&b, CGROUP_V2);
	pid = bed_child(&b, "", work);
	assert_int_equal(cgroup_open_pid(&b.cg, &b.host, pid, NULL), 0);
	(void)usleep(200000);
	m = unpack_v2(&b);
	assert_true(m->cpu->usage_usec > 1000); /* counted without any controller */
	if (bed_has(&b, "memory.current")) {
		assert_true(m->memory->usage > 0 && m->memory->usage_limit == UINT64_MAX);
		assert_non_null(m->memory_events);
		assert_true(m->memory->pgfault > 0);
		print_message("with controllers: usage %llu, pids %llu\n",
			      (unsigned long long)m->memory->usage,
			      (unsigned long long)m->pids->current);
	}
	metrics__metrics_v2__free_unpacked(m, NULL);
	bed_end_children(&b);
	m = unpack_v2(&b);
	assert_true(m->cpu->usage_usec > 1000);
	metrics__metrics_v2__free_unpacked(m, NULL);
	bed_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(v1_cpu),	cmocka_unit_test(v1_memory_fields),
		cmocka_unit_test(v1_blkio),	cmocka_unit_test(v1_others),
		cmocka_unit_test(v1_missing),	cmocka_unit_test(v1_gone),
		cmocka_unit_test(v2_all),	cmocka_unit_test(v2_missing),
		cmocka_unit_test(bounded),	cmocka_unit_test(real_v1),
		cmocka_unit_test(real_v2),
	};

	return cmocka_run_group_tests(tests, NULL, bed_sweep);
}
