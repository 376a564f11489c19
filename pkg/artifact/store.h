/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checkpoints of a node. Layout and rules for people: docs/store.md.
 *
 *	STORE/.kybernate-store   says that this is a store, and of which version; one agent locks it
 *	STORE/REF/               a checkpoint (layout.h)
 *	STORE/.new-REF/          one that is being made. Making this directory is what claims a ref
 *	STORE/.del-REF-XXXXXXXX/ one that is being removed
 *	STORE/.logs/             CRIU's logs of dumps and restores that failed
 *
 * A checkpoint comes into being and goes by one rename(). Whatever takes long happens in a child
 * process (bulk.h); the calls here look at names and read small files, nothing more.
 *
 * Who uses a checkpoint's files holds a shared flock() on its directory, the sidecar as well as the
 * agent; who removes it needs an exclusive one. The lock goes when its holder goes.
 */
#ifndef KYB_ARTIFACT_STORE_H
#define KYB_ARTIFACT_STORE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "artifact/bulk.h"
#include "artifact/manifest.h"
#include "artifact/metadata.h"
#include "base/error.h"
#include "base/path.h"

#define STORE_SMALL_FILE_MAX ((size_t)16 << 20)

struct store;

/* Everything here returns 0 or -errno with err and a reason: STORE_FAILED unless said otherwise. */

enum store_access {
	STORE_OWNER,  /* the agent: creates it where it is missing; one at a time */
	STORE_READER, /* get, list, pin and verify only */
};

/*
 * Opens the store at path (absolute, no symbolic link itself). It has to belong to the caller (a
 * reader's may be root's: one with CAP_DAC_READ_SEARCH can open it), be closed to everybody else (0700), and have no directory above it that others could swap. A
 * directory that is neither empty nor marked as a store is refused: a slip in the configuration
 * must not cost anybody his files. env is borrowed. Free with store_close().
 */
int store_open(const char *path, enum store_access access, const struct bulk_env *env,
	       struct store **ret, struct error *err);
/* Stops removing what is being removed; the next store_clean() goes on. */
void store_close(struct store *s);

const char *store_path(const struct store *s);

/* -- making ---------------------------------------------------------------------------------- */

/*
 * A checkpoint being made. The directories are empty, mode 0700, and to be filled by whoever the
 * paths are handed to; criu/ takes no sub-directories.
 */
struct store_work {
	struct store *store;
	int fd; /* of the work directory; holds the shared lock */
	char ref[REF_MAX + 1];
	char path[PATH_MAX], criu_path[PATH_MAX], logs_path[PATH_MAX]; /* absolute */
};

/*
 * A ref that is free: "HINT-20261123T152201Z-1a2b". hint may be any text, or NULL; what a ref
 * cannot hold is replaced. ret holds REF_MAX + 1 bytes.
 */
int store_new_ref(const struct store *s, const char *hint, char *ret, struct error *err);

/*
 * Begins a checkpoint. -EINVAL with REASON_REF_INVALID; -EEXIST with REASON_REF_EXISTS when there
 * is one of that name, or one being made; REASON_STORE_FULL. End it with store_commit() and
 * store_work_close(), or with store_abort().
 */
int store_begin(struct store *s, const char *ref, struct store_work *ret, struct error *err);

/*
 * Goes on with one that an agent before us began (the dump may have outlived it). -ENOENT with
 * REASON_IMAGE_MISSING when there is none.
 */
int store_resume(struct store *s, const char *ref, struct store_work *ret, struct error *err);

/* Writes a small file beside criu/, mode 0600: spec.json for instance. Not there before. */
int store_put(const struct store_work *w, const char *name, struct bytes content,
	      struct error *err);

/*
 * Begins to hash, in the background, what is being written to criu/, of which there will be about
 * expected bytes; store_commit() with the same b then goes on from there. Nothing is lost when it
 * fails, or ends before by itself: ops->done() tells, always of a failure. To be ended by
 * bulk_release() when what is written will not be sealed, or will be written anew.
 */
int store_follow(const struct store_work *w, uint64_t expected, struct bulk *b,
		 const struct bulk_ops *ops, struct error *err);

/*
 * Seals it, in the background: b->ops->done() follows. m->ref is set to the work's. Nothing may
 * write to the directory any more. After a success the files lie in STORE/REF; after a failure
 * nothing is sealed and the work directory stays: commit again, or store_abort().
 */
int store_commit(const struct store_work *w, const struct metadata *m, unsigned int workers,
		 nsec_t deadline, struct bulk *b, const struct bulk_ops *ops, struct error *err);

/* Lets go of the work directory, which stays as it is. Harmless when closed. */
void store_work_close(struct store_work *w);

/*
 * Throws it away: the ref is free at once, the files go in the background. Not while a commit
 * runs. When it cannot be thrown away it stays, for store_clean(), and err says why.
 */
int store_abort(struct store_work *w, struct error *err);

/* -- using ----------------------------------------------------------------------------------- */

/*
 * metadata.json of a checkpoint; *ret leads into arena. -EINVAL with REASON_REF_INVALID, -ENOENT
 * with REASON_IMAGE_MISSING, -EBADMSG with REASON_IMAGE_CORRUPT.
 */
int store_get(const struct store *s, const char *ref, struct arena *arena, struct metadata *ret,
	      struct error *err);

/*
 * The files of a checkpoint whose metadata store_get() gave; *ret leads into arena
 * (MANIFEST_MEMORY_MAX). Reads up to 16 MiB, which takes some 20 ms for a thousand files or a hundred
 * GiB: for a person's request, not for every checkpoint of a list. -EBADMSG with
 * REASON_IMAGE_CORRUPT.
 */
int store_get_files(const struct store *s, const struct metadata *m, struct arena *arena,
		    struct manifest *ret, struct error *err);

/* A checkpoint that cannot be deleted while this is open. */
struct store_pin {
	int fd; /* of its directory; holds the shared lock. -1 = none */
	char ref[REF_MAX + 1];
	char path[PATH_MAX], criu_path[PATH_MAX];
};

#define STORE_PIN_NULL                                                                             \
	(struct store_pin)                                                                         \
	{                                                                                          \
		.fd = -1                                                                           \
	}

/* Errors as store_get(). Does not look inside. */
int store_pin(const struct store *s, const char *ref, struct store_pin *ret, struct error *err);
/* Harmless when there is none. */
void store_unpin(struct store_pin *p);

/*
 * Verifies a pinned checkpoint, in the background. max_bytes: refuse what is bigger, 0 = no limit.
 * The pin has to stay until done().
 */
int store_verify(const struct store *s, const struct store_pin *p, unsigned int workers,
		 bool background, uint64_t max_bytes, nsec_t deadline, struct bulk *b,
		 const struct bulk_ops *ops, struct error *err);

struct store_entry {
	char ref[REF_MAX + 1];
	bool damaged;             /* metadata.json cannot be read: problem says why */
	struct error problem;
	struct metadata metadata; /* when it is not damaged; leads into arena */
	struct arena arena;
};

struct store_list {
	struct store_entry *entries; /* sorted by ref */
	size_t n_entries;
	bool more; /* there are more after the last one */
};

/*
 * Up to max checkpoints whose refs come after `after` (NULL = from the first). What is no
 * checkpoint is passed over; one whose metadata is damaged is listed, so that it can be seen and
 * deleted. Free with store_list_done().
 */
int store_list(const struct store *s, const char *after, size_t max, struct store_list *ret,
	       struct error *err);
void store_list_done(struct store_list *l);

/* -- logs ------------------------------------------------------------------------------------ */

#define STORE_LOGS_MAX 32                /* the newest ones are kept, */
#define STORE_LOG_TAIL ((size_t)1 << 20) /* and of each the end */

/*
 * Keeps the end of a log that is about to go, of a container by that id: STORE/.logs/STAMP-ID-KIND.log,
 * with the absolute path in ret (PATH_MAX). The oldest ones go for it. from is absolute; only a
 * regular file is read, and no symbolic link followed. Blocks for that megabyte, in the page cache: it
 * is not synced. -ENODATA when the log is empty.
 */
int store_keep_log(struct store *s, const char *id, const char *kind, const char *from, char *ret,
		   struct error *err);

/*
 * The most bytes that the store may hold: checkpoints, those being made, and what is being removed
 * until it is gone. 0, as at first: what its file system has room for. Only store_space() heeds it.
 *
 * Counts what is there: with a limit, this blocks for all the files of the store, some milliseconds
 * for a thousand, and more on a cold disk. Fails as store_space() does, with the limit set.
 */
int store_set_limit(struct store *s, uint64_t bytes, struct error *err);

struct store_space {
	uint64_t total_bytes, free_bytes; /* free for us */
	uint64_t total_files, free_files; /* 0 and 0 where the file system has no such limit */
	bool limited; /* the bytes are those of the limit, which is tighter than the file system */
};

/*
 * With a limit it counts what is being made or removed, file by file; sealed checkpoints are
 * remembered. -E2BIG with REASON_STORE_FULL when a directory has too many entries to count: then
 * nobody knows what the limit leaves, and it has to be taken as reached.
 */
int store_space(struct store *s, struct store_space *ret, struct error *err);
/*
 * The same as it was found last, without looking at files: by store_space(), a second after a commit
 * began or a log was kept, or when something had been removed. For what is asked often.
 */
int store_space_known(const struct store *s, struct store_space *ret, struct error *err);

/* -- removing -------------------------------------------------------------------------------- */

/*
 * Deletes a checkpoint, damaged or not: gone for everybody when this returns, its files follow in
 * the background. -EINVAL with REASON_REF_INVALID; -ENOENT with REASON_IMAGE_MISSING; -EBUSY with
 * REASON_BUSY while somebody uses it.
 */
int store_delete(struct store *s, const char *ref, struct error *err);

/*
 * Told, from the loop, when what was to be removed is gone (r = 0; n directories), or could not be:
 * that is tried again by and by, and told each time. Of what came while that was being removed r = 0
 * says nothing: see store_sweeping(). Optional.
 */
void store_on_swept(struct store *s,
		    void (*swept)(void *arg, unsigned int n, int r, const struct error *err),
		    void *arg);
/* Is something being removed, or is it still to be told that it could not be? */
bool store_sweeping(const struct store *s);

struct store_clean {
	/*
	 * A work directory that nobody holds a lock on is left alone when anything in it changed
	 * within this time: CRIU may still be writing there, for a shim that outlived its agent.
	 */
	nsec_t min_age;
	/* Optional: is this ref known to be in use, from a journal for instance? */
	bool (*keep)(void *arg, const char *ref);
	void *arg;
	/* Filled in: work directories */
	unsigned int removed, locked, kept, young, foreign;
};

/*
 * Removes what crashes have left: work directories of ours that are in nobody's use, and what was
 * being removed. To be called at start, and now and then. The files go in the background.
 */
int store_clean(struct store *s, struct store_clean *c, struct error *err);

/* -- image directories anywhere -------------------------------------------------------------- */

/* As store_follow(), before image_commit() in the same directory. */
int image_follow(const struct bulk_env *env, int dirfd, uint64_t expected, struct bulk *b,
		 const struct bulk_ops *ops, struct error *err);

/*
 * Seals and verifies, in the background, the CRIU images in a directory that is not the store's:
 * the one that containerd names in a Checkpoint, or has unpacked for a Create. dirfd is borrowed
 * for the call only.
 */
int image_commit(const struct bulk_env *env, int dirfd, const struct metadata *m,
		 unsigned int workers, nsec_t deadline, struct bulk *b,
		 const struct bulk_ops *ops, struct error *err);
int image_verify(const struct bulk_env *env, int dirfd, unsigned int workers, uint64_t max_bytes,
		 nsec_t deadline, struct bulk *b, const struct bulk_ops *ops, struct error *err);
/* kybernate.json of such a directory; errors as store_get(). */
int image_get(int dirfd, struct arena *arena, struct metadata *ret, struct error *err);

#endif
