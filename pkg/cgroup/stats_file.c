/* SPDX-License-Identifier: Apache-2.0 */
#include "cgroup/stats_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"

#define HUGEPAGE_SIZES_MAX 16

int stats_text(int dir, const char *file, struct buf *out)
{
	buf_clear(out);
	out->max = STATS_FILE_MAX;
	return file_read(dir, file, out);
}

int stats_u64(int dir, const char *file, uint64_t max, uint64_t *ret)
{
	_cleanup_close_ int fd = openat(dir, file, O_RDONLY | O_CLOEXEC);
	char text[64];
	ssize_t n;
	int r;

	*ret = 0;
	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof(text)); /* a kernel file of one number: one read */
	if (n < 0)
		return -errno;
	r = parse_value(bytes_of(text, (size_t)n), max, ret);
	if (r < 0)
		*ret = 0;
	return r;
}

bool stats_alive(int dir)
{
	return faccessat(dir, "cgroup.procs", F_OK, 0) == 0;
}

int stats_rdma(int dir, struct arena *a, struct stats_rdma *ret)
{
	_cleanup_buf_ struct buf b = BUF_NULL;
	struct stats_rdma s = { 0 };
	int r = stats_text(dir, "rdma.current", &b);

	if (r == 0)
		r = parse_rdma(buf_bytes(&b), STATS_LIST_MAX, a, &s.current, &s.n_current);
	if (r == 0)
		r = stats_text(dir, "rdma.max", &b);
	if (r == 0)
		r = parse_rdma(buf_bytes(&b), STATS_LIST_MAX, a, &s.limit, &s.n_limit);
	if (r == 0)
		*ret = s;
	return r;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct stats_hugetlb *)a)->pagesize,
		      ((const struct stats_hugetlb *)b)->pagesize);
}

int stats_hugepages(const struct cgroup_host *host, struct arena *a, struct stats_hugetlb **ret,
		    size_t *ret_n)
{
	_cleanup_closedir_ DIR *dir = opendir(host->hugepages);
	struct stats_hugetlb *list;
	struct dirent *e;
	size_t n = 0;
	char size[32];

	*ret_n = 0;
	if (!dir)
		return 0; /* a kernel without them */
	list = arena_alloc(a, HUGEPAGE_SIZES_MAX * sizeof(*list));
	if (!list)
		return -ENOMEM;
	while (n < HUGEPAGE_SIZES_MAX && (e = readdir(dir))) {
		if (parse_hugepage_size(e->d_name, size, sizeof(size)) < 0)
			continue;
		list[n].pagesize = arena_strdup(a, size);
		if (!list[n++].pagesize)
			return -ENOMEM;
	}
	qsort(list, n, sizeof(*list), by_name);
	*ret = list;
	*ret_n = n;
	return 0;
}
