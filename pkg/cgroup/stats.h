/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a container uses, as containerd reports it: field for field what its cgroups library
 * yields (containerd/cgroups repo, cgroup1/ and cgroup2/), in the same units. A file that is
 * missing - a kernel without swap accounting, a controller that is switched off - leaves zeros.
 *
 * Works for as long as the cgroup exists, also when nobody is left in it. Lists and strings are
 * in the arena given; each reader makes some 30 open/read/close, about a third of a millisecond.
 */
#ifndef KYB_CGROUP_STATS_H
#define KYB_CGROUP_STATS_H

#include "base/arena.h"
#include "base/error.h"
#include "cgroup/cgroup.h"
#include "cgroup/parse.h"

/* X(field, key in memory.stat). Field names are those of MemoryV1 in api/containerd. */
#define STATS_V1_MEMORY(X)                                                                         \
	X(cache, "cache")                                                                          \
	X(rss, "rss")                                                                              \
	X(rss_huge, "rss_huge")                                                                    \
	X(mapped_file, "mapped_file")                                                              \
	X(dirty, "dirty")                                                                          \
	X(writeback, "writeback")                                                                  \
	X(pg_pg_in, "pgpgin")                                                                      \
	X(pg_pg_out, "pgpgout")                                                                    \
	X(pg_fault, "pgfault")                                                                     \
	X(pg_maj_fault, "pgmajfault")                                                              \
	X(inactive_anon, "inactive_anon")                                                          \
	X(active_anon, "active_anon")                                                              \
	X(inactive_file, "inactive_file")                                                          \
	X(active_file, "active_file")                                                              \
	X(unevictable, "unevictable")                                                              \
	X(hierarchical_memory_limit, "hierarchical_memory_limit")                                  \
	X(hierarchical_swap_limit, "hierarchical_memsw_limit")                                     \
	X(total_cache, "total_cache")                                                              \
	X(total_rss, "total_rss")                                                                  \
	X(total_rss_huge, "total_rss_huge")                                                        \
	X(total_mapped_file, "total_mapped_file")                                                  \
	X(total_dirty, "total_dirty")                                                              \
	X(total_writeback, "total_writeback")                                                      \
	X(total_pg_pg_in, "total_pgpgin")                                                          \
	X(total_pg_pg_out, "total_pgpgout")                                                        \
	X(total_pg_fault, "total_pgfault")                                                         \
	X(total_pg_maj_fault, "total_pgmajfault")                                                  \
	X(total_inactive_anon, "total_inactive_anon")                                              \
	X(total_active_anon, "total_active_anon")                                                  \
	X(total_inactive_file, "total_inactive_file")                                              \
	X(total_active_file, "total_active_file")                                                  \
	X(total_unevictable, "total_unevictable")

/* As above, for MemoryV2. */
#define STATS_V2_MEMORY(X)                                                                         \
	X(anon, "anon")                                                                            \
	X(file, "file")                                                                            \
	X(kernel_stack, "kernel_stack")                                                            \
	X(sock, "sock")                                                                            \
	X(shmem, "shmem")                                                                          \
	X(file_mapped, "file_mapped")                                                              \
	X(file_dirty, "file_dirty")                                                                \
	X(file_writeback, "file_writeback")                                                        \
	X(anon_thp, "anon_thp")                                                                    \
	X(inactive_anon, "inactive_anon")                                                          \
	X(active_anon, "active_anon")                                                              \
	X(inactive_file, "inactive_file")                                                          \
	X(active_file, "active_file")                                                              \
	X(unevictable, "unevictable")                                                              \
	X(slab_reclaimable, "slab_reclaimable")                                                    \
	X(slab_unreclaimable, "slab_unreclaimable")                                                \
	X(slab, "slab")                                                                            \
	X(workingset_refault, "workingset_refault")                                                \
	X(workingset_activate, "workingset_activate")                                              \
	X(workingset_nodereclaim, "workingset_nodereclaim")                                        \
	X(pgscan, "pgscan")                                                                        \
	X(pgsteal, "pgsteal")                                                                      \
	X(pgfault, "pgfault")                                                                      \
	X(pgmajfault, "pgmajfault")                                                                \
	X(pgrefill, "pgrefill")                                                                    \
	X(pgactivate, "pgactivate")                                                                \
	X(pgdeactivate, "pgdeactivate")                                                            \
	X(pglazyfree, "pglazyfree")                                                                \
	X(pglazyfreed, "pglazyfreed")                                                              \
	X(thp_fault_alloc, "thp_fault_alloc")                                                      \
	X(thp_collapse_alloc, "thp_collapse_alloc")

#define STATS_FIELD(field, key) uint64_t field;

struct stats_hugetlb {
	const char *pagesize; /* "2MB" */
	uint64_t usage, max, failcnt; /* bytes; version 1: max is the highest usage so far */
};

struct stats_rdma {
	struct rdma_entry *current, *limit;
	size_t n_current, n_limit;
};

struct stats_blkio_list {
	struct blkio_entry *entry;
	size_t n;
};

/* The files of blkio, in the order of the message's fields. */
enum stats_blkio_file {
	STATS_BLKIO_SERVICE_BYTES,
	STATS_BLKIO_SERVICED,
	STATS_BLKIO_QUEUED,
	STATS_BLKIO_SERVICE_TIME,
	STATS_BLKIO_WAIT_TIME,
	STATS_BLKIO_MERGED,
	STATS_BLKIO_TIME,
	STATS_BLKIO_SECTORS,
	STATS_BLKIO_FILES
};

struct stats_memory_entry {
	uint64_t limit, usage, max, failcnt;
};

/* has_*: whether containerd's message has that part. */
struct stats_v1 {
	struct stats_hugetlb *hugetlb;
	size_t n_hugetlb;

	bool has_pids;
	uint64_t pids_current, pids_limit; /* no limit: 0 */

	uint64_t cpu_total, cpu_kernel, cpu_user; /* ns */
	uint64_t *per_cpu;                        /* ns */
	size_t n_per_cpu;
	uint64_t periods, throttled_periods, throttled_time; /* the last in ns */

	bool has_memory;
	STATS_V1_MEMORY(STATS_FIELD)
	struct stats_memory_entry memory, swap, kernel, kernel_tcp;

	bool has_blkio;
	struct stats_blkio_list blkio[STATS_BLKIO_FILES];

	bool has_rdma;
	struct stats_rdma rdma;

	bool has_oom_control;
	uint64_t oom_kill_disable, under_oom, oom_kill;
};

struct stats_v2 {
	uint64_t pids_current, pids_limit; /* no limit: UINT64_MAX, here and below */

	uint64_t usage_usec, user_usec, system_usec;
	uint64_t nr_periods, nr_throttled, throttled_usec, nr_bursts, burst_usec;
	struct psi cpu_psi;

	STATS_V2_MEMORY(STATS_FIELD)
	uint64_t usage, usage_limit, max_usage;
	uint64_t swap_usage, swap_limit, swap_max_usage;
	struct psi memory_psi;

	bool has_memory_events;
	uint64_t low, high, max, oom, oom_kill, oom_group_kill;

	struct io_entry *io;
	size_t n_io;
	struct psi io_psi;

	struct stats_rdma rdma;
	struct stats_hugetlb *hugetlb;
	size_t n_hugetlb;
};

/*
 * Each reads a cgroup of its version. Returns 0, -ENOENT (the cgroup is gone, or there never was
 * one) or -ENOMEM (over the arena's limit; 1 MiB is ample). err never becomes RPC_NOT_FOUND by
 * itself: that is for the caller to choose.
 */
int stats_read_v1(const struct cgroup *cg, struct arena *a, struct stats_v1 *ret,
		  struct error *err);
int stats_read_v2(const struct cgroup *cg, struct arena *a, struct stats_v2 *ret,
		  struct error *err);

#endif
