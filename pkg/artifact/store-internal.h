/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the store share among themselves. */
#ifndef KYB_ARTIFACT_STORE_INTERNAL_H
#define KYB_ARTIFACT_STORE_INTERNAL_H

#include <sys/types.h>
#include <time.h>

#include "artifact/store.h"
#include "artifact/sweep.h"

#define STORE_WORK_PREFIX ".new-"
#define STORE_NAME_MAX    PROTOCOL_NAME_MAX

/* Directory entries that are looked at in one go; a store has a few hundred. */
#define STORE_ENTRIES_MAX 65536

/* A sealed checkpoint, whose size does not change any more. */
struct store_sealed {
	ino_t ino;
	struct timespec changed; /* its directory, when it was counted */
	uint64_t bytes;
};

/* What the last look has found; nothing without a limit. */
struct store_used {
	uint64_t bytes;
	struct error err;            /* code 0 = all of it was counted */
	struct store_sealed *sealed; /* sorted by inode */
	size_t n, cap;
};

struct store {
	char path[PATH_MAX];
	int fd, lock_fd;
	enum store_access access;
	const struct bulk_env *env;
	uint64_t limit; /* of store_space(); 0 = none */
	struct store_used used;
	struct timer look;
	/* Removing what was renamed away: one child at a time takes all there is. */
	struct bulk sweep;
	bool sweep_again;
	struct job sweep_failed;  /* tells of a child that could not be started */
	struct error sweep_error;
	struct timer sweep_retry; /* after one that failed, */
	nsec_t sweep_wait;        /* so long; 0 = the last one did not fail */
	void (*swept)(void *arg, unsigned int n, int r, const struct error *err);
	void *swept_arg;
};

/* -EINVAL with REASON_REF_INVALID. */
int store_check_ref(const char *ref, struct error *err);
/* -ENOENT with REASON_IMAGE_MISSING. */
int store_missing(const char *ref, struct error *err);

/* Opens a directory of the store by name. Returns a descriptor or -errno. */
int store_open_dir(const struct store *s, const char *name);
/* Is that descriptor what the name stands for now? 1, 0 or -errno. */
int store_is_named(const struct store *s, const char *name, int fd);
/* flock() without waiting: LOCK_SH or LOCK_EX. -EWOULDBLOCK when somebody else has it. */
int store_lock(int fd, int operation);

/* Eight random hexadecimal digits and a NUL. Returns 0 or -errno. */
int store_random(char ret[9]);
/* Renames a directory away, so that the next sweep removes it. Returns 0 or -errno. */
int store_discard(struct store *s, const char *name, const char *ref);
/* Removes what was renamed away, in the background. */
void store_sweep(struct store *s);

/* Counts what the store holds, where there is a limit: now, or soon. */
void store_look(struct store *s);
void store_look_later(struct store *s);
void store_forget_used(struct store *s);

#endif
