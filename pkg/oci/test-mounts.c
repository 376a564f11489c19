/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In a mount namespace of its own: a "container" is a folder with mounts in it, seen through a
 * mount table that is written by the test. Needs root; skipped without.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "oci/mounts.h"
#include "oci/mounts_wire.h"
#include "tests/cmocka.h"

static char top[] = "/tmp/kyb-mounts.XXXXXX";
static char driver[PATH_MAX];
static const char *prefix[1] = { driver };
static const struct setting_list prefixes = { prefix, 1 };

static const char *in(const char *name)
{
	static char path[64][PATH_MAX]; /* as many as a test has in use at the same time */
	static unsigned int next;
	char *p = path[next++ % 64];

	assert_int_equal(path_printf(p, PATH_MAX, "%s/%s", top, name), 0);
	return p;
}

static void put(const char *name, const char *text)
{
	assert_int_equal(file_write(AT_FDCWD, in(name), text, strlen(text), 0644, FILE_PLAIN), 0);
}

static void folder(const char *name)
{
	assert_int_equal(path_mkdirs(in(name), 0755), 0);
}

static int bundle(void)
{
	int fd = open(in("bundle"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

/* "8:1" of what name lies on. */
static const char *device(const char *name)
{
	static char text[32];
	struct stat st;

	assert_int_equal(stat(in(name), &st), 0);
	(void)snprintf(text, sizeof(text), "%u:%u", major(st.st_dev), minor(st.st_dev));
	return text;
}

static const struct mount_record *find(const struct mount_records *r, const char *destination)
{
	for (size_t i = 0; i < r->n; i++)
		if (strcmp(r->items[i].destination, destination) == 0)
			return &r->items[i];
	return NULL;
}

/* host/ is a tmpfs, mounted there on the host; root/ is the container, on another. */
static int setup(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(top));
	assert_int_equal(PATH_PRINTF(driver, "%s", in("host/driver")), 0);
	folder("host");
	folder("root");
	folder("bundle");
	assert_int_equal(mount("t", in("host"), "tmpfs", 0, NULL), 0);
	assert_int_equal(mount("t", in("root"), "tmpfs", 0, NULL), 0);
	folder("host/driver/firmware");
	put("host/driver/libcuda.so.1", "library");
	put("host/other", "other");
	folder("root/usr/lib/firmware");
	folder("root/dev");
	assert_int_equal(symlink("usr/lib", in("root/lib")), 0);
	assert_int_equal(symlink("loop", in("root/loop")), 0);
	put("root/usr/lib/libcuda.so.1", "");
	put("root/usr/lib/other", "");
	assert_int_equal(mount(in("host/driver/libcuda.so.1"), in("root/usr/lib/libcuda.so.1"),
			       NULL, MS_BIND, NULL),
			 0);
	assert_int_equal(
		mount(in("host/driver/firmware"), in("root/usr/lib/firmware"), NULL, MS_BIND, NULL),
		0);
	assert_int_equal(mount(in("host/other"), in("root/usr/lib/other"), NULL, MS_BIND, NULL), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (const char *const *p =
		     (const char *const[]){ "root/usr/lib/other", "root/usr/lib/firmware",
					    "root/usr/lib/libcuda.so.1", "root", "host", NULL };
	     *p; p++)
		assert_int_equal(umount2(in(*p), MNT_DETACH), 0);
	return path_remove_tree(AT_FDCWD, top);
}

static void write_tables(void)
{
	char root[32], host[32], text[16384], deep[PATH_MAX + 100];

	(void)snprintf(root, sizeof(root), "%s", device("root"));
	(void)snprintf(host, sizeof(host), "%s", device("host"));
	(void)snprintf(text, sizeof(text),
		       "1 0 0:1 / / rw - rootfs rootfs rw\n"
		       "10 1 %s / / rw - tmpfs t rw\n"
		       "11 10 %s /driver/libcuda.so.1 /usr/lib/libcuda.so.1 ro - tmpfs t rw\n"
		       "12 10 %s /driver/firmware /usr/lib/firmware ro - tmpfs t rw\n"
		       "13 10 %s /other /usr/lib/other ro - tmpfs t rw\n"
		       "14 10 0:7777 / /dev rw - tmpfs t rw\n"
		       "15 14 0:7777 /null /dev/null rw - tmpfs t rw\n"
		       "16 10 0:29 / /sys/fs/cgroup ro - cgroup2 c rw\n"
		       "17 10 %s /driver/odd\\040name /usr/lib/odd\\040name ro - tmpfs t rw\n"
		       "18 10 %s /gone /usr/lib/gone ro - tmpfs t rw\n",
		       root, host, host, host, host, host);
	put("own", text);
	/* Somebody's on the node, deeper than any system call can name; and one with a NUL. */
	memset(deep, 'd', sizeof(deep) - 1);
	deep[sizeof(deep) - 1] = 0;
	(void)snprintf(text, sizeof(text),
		       "1 0 0:1 / / rw - ext4 e rw\n"
		       "3 1 0:9 / /%s rw - tmpfs t rw\n"
		       "4 1 0:9 / /a\\000b rw - tmpfs t rw\n"
		       "2 1 %s / %s rw - tmpfs t rw\n",
		       deep, host, in("host"));
	put("hosts", text);
}

static void look(const char *config, struct arena *mem, struct mount_records *ret)
{
	_cleanup_close_ int fd = bundle();
	_cleanup_buf_ struct buf wire = BUF_LIMIT(1 << 20);
	struct mount_records found;
	const struct mounts_dump where = { .bundle = fd,
					   .root = in("root"),
					   .mountinfo = in("own"),
					   .host_mountinfo = in("hosts"),
					   .prefixes = &prefixes };
	struct error err = ERROR_NULL;

	put("bundle/config.json", config);
	assert_int_equal(mounts_look(&where, mem, &found, &err), 0);
	/* As it comes out of a helper. */
	assert_int_equal(mounts_wire_put(&found, &wire), 0);
	assert_int_equal(mounts_wire_take(buf_bytes(&wire), mem, ret, &err), 0);
	assert_int_equal(ret->n, found.n);
}

static void of_a_hook(void **state)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(1 << 20);
	struct mount_records r;
	struct mount_maps maps;
	const struct mount_record *m;
	struct error err = ERROR_NULL;

	(void)state;
	write_tables();
	look("{\"mounts\":[{\"destination\":\"/dev\",\"type\":\"tmpfs\"}]}", &mem, &r);
	assert_int_equal(r.n, 2);
	m = find(&r, "/usr/lib/libcuda.so.1");
	assert_non_null(m);
	assert_string_equal(m->source, in("host/driver/libcuda.so.1"));
	assert_string_equal(m->kind, MOUNT_FILE);
	assert_string_equal(m->root, "/driver/libcuda.so.1");
	assert_true(m->external && !m->configured && m->in_root && m->size == strlen("library"));
	assert_string_equal(find(&r, "/usr/lib/firmware")->kind, MOUNT_DIRECTORY);
	assert_int_equal(mounts_verify(in("own"), &r, &err), 0);
	assert_true(mounts_verify(in("hosts"), &r, &err) < 0);
	assert_int_equal(err.reason, REASON_MOUNT_MISMATCH);
	assert_int_equal(mounts_declare(&r, &mem, &maps), 0);
	assert_int_equal(maps.n, 2);
	assert_string_equal(maps.items[0].source, maps.items[0].destination);
}

/*
 * Through a link, without "bind" as its type; what is masked is the runtime's. Names that lead
 * nowhere are nobody's.
 */
static void of_the_configuration(void **state)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(1 << 20);
	struct mount_records r;
	struct mount_maps maps;

	(void)state;
	write_tables();
	look("{\"mounts\":[{\"destination\":\"/dev\",\"type\":\"tmpfs\"},"
	     "{\"destination\":\"/lib/libcuda.so.1\",\"options\":[\"rbind\",\"ro\"]}],"
	     "\"linux\":{\"maskedPaths\":[\"/loop\",\"/loop/x\",\"/usr/lib/other/x\",\"/none/x\","
	     "\"/usr/lib/firmware\"]}}",
	     &mem, &r);
	assert_int_equal(r.n, 1);
	assert_string_equal(r.items[0].destination, "/usr/lib/libcuda.so.1");
	assert_true(r.items[0].configured && r.items[0].external);
	assert_int_equal(mounts_declare(&r, &mem, &maps), 0);
	assert_int_equal(maps.n, 0);
}

static int map(const char *config, struct mount_record m, struct mount_maps *ret, struct arena *mem,
	       struct error *err)
{
	_cleanup_close_ int fd = bundle();
	const struct mounts_restore where = { fd, in("new"), &prefixes };
	const struct mount_records then = { &m, 1 };

	*err = ERROR_NULL;
	put("bundle/config.json", config);
	return mounts_map(&where, &then, mem, ret, err);
}

static void mapped(void **state)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(1 << 20);
	struct mount_record m = { .destination = "/usr/lib/libcuda.so.1",
				  .kind = MOUNT_FILE,
				  .source = in("host/driver/libcuda.so.1"),
				  .size = strlen("library"),
				  .external = true,
				  .in_root = true };
	struct mount_maps maps;
	struct error err;
	struct stat st;

	(void)state;
	folder("new");
	assert_int_equal(map("{}", m, &maps, &mem, &err), 0);
	assert_int_equal(maps.n, 1);
	assert_string_equal(maps.items[0].source, m.source);
	assert_int_equal(stat(in("new/usr/lib/libcuda.so.1"), &st), 0);
	assert_true(S_ISREG(st.st_mode) && st.st_size == 0);
	/* It is there: nothing to be made. The runtime makes it: nothing to be said. */
	assert_int_equal(map("{}", m, &maps, &mem, &err), 0);
	assert_int_equal(
		map("{\"mounts\":[{\"destination\":\"/usr/lib/libcuda.so.1\",\"type\":\"bind\"}"
		    "]}",
		    m, &maps, &mem, &err),
		0);
	assert_int_equal(maps.n, 0);
	/* CRIU makes it: the place only. */
	m.external = false;
	m.destination = "/run/nvidia-ctk-hook1";
	m.kind = MOUNT_DIRECTORY;
	assert_int_equal(map("{}", m, &maps, &mem, &err), 0);
	assert_int_equal(maps.n, 0);
	assert_int_equal(stat(in("new/run/nvidia-ctk-hook1"), &st), 0);
	assert_true(S_ISDIR(st.st_mode));
	assert_int_equal(path_remove_tree(AT_FDCWD, in("new")), 0);
}

static void refused(void **state)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(1 << 20);
	const struct mount_record good = { .destination = "/usr/lib/libcuda.so.1",
					   .kind = MOUNT_FILE,
					   .source = in("host/driver/libcuda.so.1"),
					   .size = strlen("library"),
					   .external = true,
					   .in_root = true };
	struct mount_record m = good;
	struct mount_maps maps;
	struct error err;
	struct stat st;

	(void)state;
	folder("new");
	m.size++;
	assert_true(map("{}", m, &maps, &mem, &err) < 0);
	assert_int_equal(err.reason, REASON_MOUNT_MISMATCH);
	m = good;
	m.kind = MOUNT_DIRECTORY;
	assert_true(map("{}", m, &maps, &mem, &err) < 0);
	m = good;
	m.source = NULL;
	assert_true(map("{}", m, &maps, &mem, &err) < 0);
	/* Out of what is allowed, by a link. */
	assert_int_equal(symlink("../other", in("host/driver/link")), 0);
	m.source = in("host/driver/link");
	assert_true(map("{}", m, &maps, &mem, &err) < 0);
	assert_non_null(strstr(err.text, "gpu.mount_prefixes"));
	/* Nothing is looked up of it, so that nothing is told about it either. */
	for (const char *const *p = (const char *const[]){ "host/none", "host/other",
							   "host/driver/../none",
							   "host/driver/..", NULL };
	     *p; p++) {
		m.source = in(*p);
		assert_true(map("{}", m, &maps, &mem, &err) < 0);
		assert_non_null(strstr(err.text, "gpu.mount_prefixes"));
	}
	m.source = in("host/driver/..none");
	assert_true(map("{}", m, &maps, &mem, &err) < 0);
	assert_non_null(strstr(err.text, "there is none"));
	m.source = in("host/driver/none");
	assert_true(map("{}", m, &maps, &mem, &err) < 0);
	assert_int_equal(err.reason, REASON_MOUNT_MISMATCH);
	/* Nothing was made for any of them. */
	assert_int_equal(stat(in("new/usr"), &st), -1);
	/* No place is made through a link of the user's. */
	assert_int_equal(symlink(in("bundle"), in("new/usr")), 0);
	assert_true(map("{}", good, &maps, &mem, &err) < 0);
	assert_int_equal(err.reason, REASON_MOUNT_MISMATCH);
	assert_int_equal(stat(in("bundle/lib"), &st), -1);
	/* What stands in the place already is of another kind. */
	assert_int_equal(unlink(in("new/usr")), 0);
	folder("new/usr/lib/libcuda.so.1");
	assert_int_equal(map("{}", good, &maps, &mem, &err), -EISDIR);
	assert_int_equal(err.reason, REASON_MOUNT_MISMATCH);
	m = good;
	m.external = false;
	m.kind = MOUNT_DIRECTORY;
	m.destination = "/file";
	put("new/file", "");
	assert_int_equal(map("{}", m, &maps, &mem, &err), -ENOTDIR);
	assert_int_equal(err.reason, REASON_MOUNT_MISMATCH);
	m = good;
	m.destination = "/x]:/etc\nexternal mnt[y";
	assert_true(map("{}", m, &maps, &mem, &err) < 0);
	assert_int_equal(err.reason, REASON_IMAGE_CORRUPT);
}

static void taken(const char *text, bool good)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(1 << 20);
	struct mount_records r;
	struct error err = ERROR_NULL;

	assert_int_equal(mounts_wire_take(bytes_of(text, strlen(text)), &mem, &r, &err) == 0, good);
	assert_int_equal(err.code != 0, !good);
}

/* A helper that was cut off, or is another program's. */
static void a_helpers_answer(void **state)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(1 << 20);
	_cleanup_buf_ struct buf wire = BUF_LIMIT(1 << 20), many = BUF_LIMIT(1 << 20);
	struct setting_list list;
	struct error err = ERROR_NULL;

	(void)state;
	taken("[]", true);
	taken("", false);
	taken("{}", false);
	taken("[{}]", false);
	taken("[1]", false);
#define MOUNT(kind, size)                                                                          \
	"{\"destination\":\"/a\",\"kind\":\"" kind "\",\"type\":\"t\",\"root\":\"/\",\"size\":" size     \
	",\"external\":true,\"configured\":false,\"in_root\":true}"
	taken("[" MOUNT("file", "1") "]", true);
	taken("[" MOUNT("file", "1"), false);
	taken("[" MOUNT("file", "-1") "]", false);
	taken("[" MOUNT("other", "1") "]", false);
	for (size_t i = 0; i <= MOUNT_RECORDS_MAX; i++)
		assert_int_equal(buf_printf(&many, "%s" MOUNT("file", "1"), i ? "," : "["), 0);
	assert_int_equal(buf_append_str(&many, "]"), 0);
	taken(buf_str(&many), false);
	assert_int_equal(mounts_wire_put_prefixes(&prefixes, &wire), 0);
	assert_int_equal(mounts_wire_take_prefixes(buf_bytes(&wire), &mem, &list, &err), 0);
	assert_int_equal(list.n, 1);
	assert_string_equal(list.items[0], driver);
	assert_int_equal(mounts_wire_take_prefixes(bytes_of("[1]", 3), &mem, &list, &err), -EBADMSG);
	assert_int_equal(mounts_wire_take_prefixes(bytes_of("{}", 2), &mem, &list, &err), -EBADMSG);
}

#define T(test) cmocka_unit_test(test)

int main(void)
{
	const struct CMUnitTest tests[] = { T(of_a_hook), T(of_the_configuration), T(mapped),
					    T(refused), T(a_helpers_answer) };

	if (unshare(CLONE_NEWNS) < 0 || mount("", "/", "", MS_REC | MS_PRIVATE, NULL) < 0) {
		(void)fprintf(stderr, "cannot make a mount namespace: skipped\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
