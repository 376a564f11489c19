/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the files of a cgroup for stats_v1.c and stats_v2.c. Private to this layer. */
#ifndef KYB_CGROUP_STATS_FILE_H
#define KYB_CGROUP_STATS_FILE_H

#include "base/buf.h"
#include "cgroup/stats.h"

#define STATS_FILE_MAX ((size_t)512 << 10)
#define STATS_LIST_MAX 8192 /* devices times operations, processors */

/* A text file, replacing what out holds. Returns 0 or -errno. */
int stats_text(int dir, const char *file, struct buf *out);

/* One number. Returns 0 or -errno; on failure *ret is 0. */
int stats_u64(int dir, const char *file, uint64_t max, uint64_t *ret);

/*
 * Is the cgroup that dir was opened for still there? Asked after reading: zeros for files that
 * vanished under our hands would look like counters that were reset.
 */
bool stats_alive(int dir);

/* Both rdma files. Returns 0, -ENOMEM or -errno when one cannot be read. */
int stats_rdma(int dir, struct arena *a, struct stats_rdma *ret);

/*
 * The sizes of huge pages that this machine knows ("1GB", "2MB", ...), with pagesize set.
 * Returns 0 or -ENOMEM.
 */
int stats_hugepages(const struct cgroup_host *host, struct arena *a, struct stats_hugetlb **ret,
		    size_t *ret_n);

#endif
