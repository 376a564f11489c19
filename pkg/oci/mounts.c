/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mountinfo.h"
#include "base/path.h"
#include "oci/mounts_config.h"

#define TABLE_MAX    8192 /* mounts; the kernel's own limit for a namespace is 100,000 */
#define TABLE_MEMORY ((size_t)16 << 20)

/* --- mount tables --------------------------------------------------------------------------- */

struct entry {
	uint64_t id, parent;
	const char *dev, *root, *point, *type;
};

struct table {
	struct arena *mem;
	struct entry *items;
	size_t n, max;
};

static int count(void *arg, const struct mountinfo *m)
{
	(void)m;
	(*(size_t *)arg)++;
	return 0;
}

static int text(struct arena *mem, struct bytes field, const char **ret)
{
	char buf[PATH_MAX];
	int r = mountinfo_unescape(field, buf, sizeof(buf));

	if (r < 0)
		return r;
	*ret = arena_strdup(mem, buf);
	return *ret ? 0 : -ENOMEM;
}

/*
 * What grows after it was counted is not ours to wait for. A name that is longer than any call
 * takes is passed over: it is none that could be given to CRIU, and may be anybody's on the node.
 */
static int take(void *arg, const struct mountinfo *m)
{
	struct table *t = arg;
	struct entry *e = &t->items[t->n];
	int r;

	if (t->n == t->max)
		return 0;
	*e = (struct entry){ .id = m->id, .parent = m->parent };
	r = text(t->mem, m->dev, &e->dev);
	if (r == 0)
		r = text(t->mem, m->root, &e->root);
	if (r == 0)
		r = text(t->mem, m->point, &e->point);
	if (r == 0)
		r = text(t->mem, m->type, &e->type);
	if (r == -ENAMETOOLONG || r == -EBADMSG)
		return 0;
	if (r == 0)
		t->n++;
	return r;
}

static int table_read(const char *file, struct arena *mem, struct table *ret, struct error *err)
{
	size_t n = 0;
	int r = mountinfo_each(file, count, &n);

	if (r == 0 && n > TABLE_MAX)
		r = -E2BIG;
	if (r == 0) {
		*ret = (struct table){ mem, arena_alloc(mem, (n + 1) * sizeof(*ret->items)), 0, n };
		r = ret->items ? mountinfo_each(file, take, ret) : -ENOMEM;
	}
	return r < 0 ? error_sys(err, r, "%s", file) : 0;
}

/* Is path root or something below it? */
static bool covers(const char *root, const char *path)
{
	size_t n = strcmp(root, "/") == 0 ? 0 : strlen(root);

	return strncmp(root, path, n) == 0 && (path[n] == '/' || path[n] == 0);
}

static const struct entry *root_of(const struct table *t)
{
	const struct entry *root = NULL;

	for (size_t i = 0; i < t->n; i++)
		if (strcmp(t->items[i].point, "/") == 0)
			root = &t->items[i];
	return root;
}

/* --- the host's side ------------------------------------------------------------------------ */

/* The host's name of the file that st is of: where the file system is mounted on the host, and from
 * there on. One that is allowed, where it has several names. */
static const char *host_source(const struct table *host, const struct entry *e,
			       const struct stat *st, const struct setting_list *prefixes,
			       struct arena *mem)
{
	for (size_t i = 0; i < host->n; i++) {
		const struct entry *h = &host->items[i];
		char path[PATH_MAX];
		struct stat found;

		if (strcmp(h->dev, e->dev) != 0 || !covers(h->root, e->root) ||
		    PATH_JOIN(path, h->point,
			      strcmp(h->root, "/") == 0 ? e->root : e->root + strlen(h->root)) < 0)
			continue;
		if (mounts_allowed(path, prefixes) && stat(path, &found) == 0 &&
		    found.st_dev == st->st_dev && found.st_ino == st->st_ino)
			return arena_strdup(mem, path);
	}
	return NULL;
}

/* --- the container's side ------------------------------------------------------------------- */

struct look {
	const struct mounts_dump *where;
	struct table own, host;
	struct mounts_config config;
	const struct entry *top;
	int root;
	struct arena *mem; /* of what is recorded */
	struct mount_records *ret;
};

/* Made anew by CRIU when it is mounted whole; the rest it takes for somebody else's. */
static bool is_fresh(const char *type)
{
	static const char *const known[] = { "tmpfs",	"proc",	    "sysfs",	   "devpts",
					     "mqueue",	"devtmpfs", "binfmt_misc", "securityfs",
					     "debugfs", "tracefs",  "fusectl",	   "overlay" };

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strcmp(type, known[i]) == 0)
			return true;
	return false;
}

/* Can CRIU make it by itself: anew, or out of another mount that it makes? */
static bool is_native(const struct look *l, const struct entry *e)
{
	if (strcmp(e->root, "/") == 0)
		return is_fresh(e->type);
	for (size_t i = 0; i < l->own.n; i++) {
		const struct entry *t = &l->own.items[i];

		if (t != e && strcmp(t->dev, e->dev) == 0 && covers(t->root, e->root) &&
		    (t == l->top || (strcmp(t->root, "/") == 0 && is_fresh(t->type))))
			return true;
	}
	return false;
}

static bool is_recorded(const struct look *l, const char *point)
{
	for (size_t i = 0; i < l->ret->n; i++)
		if (strcmp(l->ret->items[i].destination, point) == 0)
			return true;
	return false;
}

static int keep(struct look *l, struct mount_record m)
{
	if (l->ret->n == MOUNT_RECORDS_MAX)
		return 0; /* CRIU says which one is missing */
	m.destination = arena_strdup(l->mem, m.destination);
	m.type = arena_strdup(l->mem, m.type);
	m.root = arena_strdup(l->mem, m.root);
	if (!m.destination || !m.type || !m.root)
		return -ENOMEM;
	l->ret->items[l->ret->n++] = m;
	return 0;
}

static int look_at(struct look *l, const struct entry *e)
{
	enum mounted_by how = mounts_config_find(&l->config, e->point);
	struct mount_record m = { .destination = e->point,
				  .type = e->type,
				  .root = e->root,
				  .external = how == MOUNTED_BIND || !is_native(l, e),
				  .configured = how == MOUNTED_BIND,
				  .in_root = e->parent == l->top->id };
	_cleanup_close_ int fd = -1;
	struct stat st;

	if (how == MOUNTED_FRESH || how == MOUNTED_FIXED || strcmp(e->point, "/") == 0 ||
	    strncmp(e->type, "cgroup", 6) == 0 || !mounts_plain(e->point) ||
	    !mounts_plain(e->root) || !mounts_plain(e->type) || is_recorded(l, e->point))
		return 0;
	fd = path_open_beneath(l->root, e->point + 1, O_PATH | O_NOFOLLOW);
	if (fd < 0 || fstat(fd, &st) < 0)
		return 0; /* under another mount, or gone */
	m.kind = S_ISDIR(st.st_mode)			      ? MOUNT_DIRECTORY
		 : S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode) ? MOUNT_NODE
							      : MOUNT_FILE;
	m.size = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
	if (m.external)
		m.source = host_source(&l->host, e, &st, l->where->prefixes, l->mem);
	if (m.source && !mounts_plain(m.source))
		m.source = NULL;
	/* What only needs its place needs it in the root file system; CRIU brings the others' back.
	 */
	if (!m.configured && (m.external ? !m.source : !m.in_root))
		return 0;
	return keep(l, m);
}

int mounts_look(const struct mounts_dump *where, struct arena *mem, struct mount_records *ret,
		struct error *err)
{
	_cleanup_arena_ struct arena own = ARENA_LIMIT(TABLE_MEMORY);
	_cleanup_close_ int root = open(where->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct look l = { .where = where, .root = root, .mem = mem, .ret = ret };
	int r;

	*ret = (struct mount_records){ .items = arena_alloc(mem, MOUNT_RECORDS_MAX *
									 sizeof(*ret->items)) };
	if (!ret->items)
		return error_set(err, -ENOMEM, "out of memory");
	if (root < 0)
		return error_sys(err, errno, "%s", where->root);
	r = table_read(where->mountinfo, &own, &l.own, err);
	if (r == 0)
		r = table_read(where->host_mountinfo, &own, &l.host, err);
	if (r == 0)
		r = mounts_config_read(where->bundle, root, &own, &l.config, err);
	if (r < 0)
		return r;
	l.top = root_of(&l.own);
	for (size_t i = 0; l.top && i < l.own.n && r == 0; i++)
		r = look_at(&l, &l.own.items[i]);
	return r < 0 ? error_set(err, r, "the container's mounts: out of memory") : 0;
}

int mounts_declare(const struct mount_records *records, struct arena *mem, struct mount_maps *ret)
{
	*ret = (struct mount_maps){ .items = arena_alloc(mem,
							 (records->n + 1) * sizeof(*ret->items)) };
	if (!ret->items)
		return -ENOMEM;
	for (size_t i = 0; i < records->n; i++) {
		const struct mount_record *m = &records->items[i];

		if (m->external && !m->configured)
			ret->items[ret->n++] = (struct mount_map){ m->destination, m->destination };
	}
	return 0;
}
