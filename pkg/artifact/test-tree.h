/* SPDX-License-Identifier: Apache-2.0 */
/* Directories with files in them, for the tests of this layer. */
#ifndef KYB_ARTIFACT_TEST_TREE_H
#define KYB_ARTIFACT_TEST_TREE_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "artifact/metadata.h"
#include "base/fd.h"
#include "base/path.h"
#include "tests/cmocka.h"

/* A directory of its own, and an open descriptor of it. */
struct tree {
	char path[64];
	int fd;
};

/* For tests that are not about the disk: thousands of files, or of fsync(). */
static inline void tree_in_memory(void)
{
	if (access("/dev/shm", W_OK) == 0)
		(void)setenv("TMPDIR", "/dev/shm", 0);
}

static inline void tree_make(struct tree *t)
{
	const char *base = getenv("TMPDIR");

	(void)snprintf(t->path, sizeof(t->path), "%.40s/kyb-store-XXXXXX", base ? base : "/tmp");
	assert_non_null(mkdtemp(t->path));
	t->fd = open(t->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(t->fd >= 0);
}

static inline void tree_remove(struct tree *t)
{
	(void)close(t->fd);
	assert_int_equal(path_remove_tree(AT_FDCWD, t->path), 0);
}

static inline void tree_write(int dirfd, const char *path, const void *p, size_t n)
{
	int fd = openat(dirfd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(fd_write_all(fd, p, n), 0);
	assert_int_equal(close(fd), 0);
}

static inline void tree_text(int dirfd, const char *path, const char *text)
{
	tree_write(dirfd, path, text, strlen(text));
}

/* A file of that size without taking the room: all zero. */
static inline void tree_sparse(int dirfd, const char *path, uint64_t size)
{
	int fd = openat(dirfd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	assert_int_equal(close(fd), 0);
}

/* Changes one byte. */
static inline void tree_poke(int dirfd, const char *path, uint64_t offset, uint8_t value)
{
	int fd = openat(dirfd, path, O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, &value, 1, (off_t)offset), 1);
	assert_int_equal(close(fd), 0);
}

static inline bool tree_has(int dirfd, const char *path)
{
	struct stat st;

	return fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* A work directory as a checkpoint leaves it, by that name. */
static inline void tree_work(int dirfd, const char *name)
{
	int work;

	assert_int_equal(mkdirat(dirfd, name, 0700), 0);
	work = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(work >= 0);
	assert_int_equal(mkdirat(work, "criu", 0700), 0);
	assert_int_equal(mkdirat(work, "logs", 0700), 0);
	tree_text(work, "criu/core-1.img", "registers");
	tree_text(work, "criu/pages-1.img", "memory of the process");
	tree_text(work, "criu/inventory.img", "");
	tree_text(work, "criu/descriptors.json", "[\"pipe:[1]\"]");
	tree_text(work, "criu/stats-dump", "1 second");
	tree_text(work, "spec.json", "{}");
	tree_text(work, "logs/dump.log", "(00.001) Dumping finished successfully\n");
	assert_int_equal(close(work), 0);
}

static inline struct metadata tree_metadata(const char *ref)
{
	static const char *const uuids[] = { "GPU-1" };
	static const struct metadata_process process = {
		.pid = 4711, .ns_pid = 1, .name = "python3", .vram_bytes = 1 << 20,
		.gpu_uuids = uuids, .n_gpu_uuids = 1,
	};
	static const struct metadata_device device = { "GPU-1", "NVIDIA H100", 1 << 30 };

	return (struct metadata){
		.ref = ref,
		.created_at = "2026-11-23T15:22:01Z",
		.kybernate_version = "0.1.0",
		.container = { .id = "c1", .containerd_namespace = "k8s.io" },
		.gpu = {
			.driver_version = "580.65.06",
			.processes = &process, .n_processes = 1,
			.devices = &device, .n_devices = 1,
		},
	};
}

#endif
