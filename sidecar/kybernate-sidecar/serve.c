/* SPDX-License-Identifier: Apache-2.0 */
#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

#define PAGE     64   /* checkpoints that are looked at in one go */
#define MOST     4096 /* that are remembered: more than a store has */
#define FILE_MAX (REF_MAX + sizeof(".tar"))

/* What is known of a checkpoint. */
struct known {
	char ref[REF_MAX + 1];
	bool settled;       /* packed, or given up */
	bool seen;          /* in the look that is under way */
	unsigned int tries;
	nsec_t next;        /* not before */
};

struct serving {
	const struct serve_config *config;
	struct known *known;
	size_t n;
	bool stopped;
};

static struct known *find(struct serving *s, const char *ref)
{
	for (size_t i = 0; i < s->n; i++)
		if (strcmp(s->known[i].ref, ref) == 0)
			return &s->known[i];
	if (s->n == MOST)
		return NULL;
	s->known[s->n] = (struct known){ 0 };
	(void)snprintf(s->known[s->n].ref, sizeof(s->known[s->n].ref), "%s", ref);
	return &s->known[s->n++];
}

/* Of those that are gone nothing need be known: another one may come by that name. */
static void forget_unseen(struct serving *s)
{
	size_t kept = 0;

	for (size_t i = 0; i < s->n; i++)
		if (s->known[i].seen)
			s->known[kept++] = s->known[i];
	s->n = kept;
}

static void failed(const struct serving *s, struct known *k, int r, const struct error *err)
{
	k->tries++;
	k->settled = r == -EBADMSG || k->tries == SERVE_TRIES;
	k->next = time_add(time_now(), s->config->pause << (k->tries - 1));
	log_error(k->settled ? "checkpoint not packed" : "checkpoint not packed, to be tried again",
		  F_STR("ref", k->ref), F_INT("tries", k->tries),
		  F_STR("reason", reason_name(err->reason)), F_ERR(err));
}

static void pack_one(struct serving *s, struct known *k, const char *file)
{
	const struct pack_options options = {.stopped = s->config->stopped, .arg = s->config->arg};
	struct error err = ERROR_NULL;
	struct pack_result result;
	nsec_t start = time_now();
	int r = pack_checkpoint(s->config->store, k->ref, s->config->out, file, &options, &result,
				&err);

	if (r == 0) {
		k->settled = true;
		s->config->packed(k->ref, file, &result, time_now() - start);
	} else if (r == -ECANCELED) {
		s->stopped = true;
	} else if (r == -ENOENT || r == -EBUSY) {
		/* It is being deleted: gone in the next look, or still there. */
		k->next = time_add(time_now(), s->config->pause);
	} else {
		failed(s, k, r, &err);
	}
}

static void consider(struct serving *s, const struct store_entry *e)
{
	struct known *k = find(s, e->ref);
	char file[FILE_MAX];
	struct stat st;

	if (!k)
		return;
	k->seen = true;
	if (k->settled || time_now() < k->next)
		return;
	(void)snprintf(file, sizeof(file), "%s.tar", e->ref);
	if (fstatat(s->config->out, file, &st, AT_SYMLINK_NOFOLLOW) == 0)
		k->settled = true;
	else if (e->damaged)
		failed(s, k, -EBADMSG, &e->problem);
	else
		pack_one(s, k, file);
}

/* All of the store, a page at a time. Returns 0 or negative. */
static int look(struct serving *s, struct error *err)
{
	char after[REF_MAX + 1] = "";
	bool more = true;
	int r = 0;

	for (size_t i = 0; i < s->n; i++)
		s->known[i].seen = false;
	while (more && !s->stopped) {
		struct store_list list = { 0 };

		r = store_list(s->config->store, *after ? after : NULL, PAGE, &list, err);
		if (r < 0)
			return r;
		for (size_t i = 0; i < list.n_entries && !s->stopped; i++)
			consider(s, &list.entries[i]);
		more = list.more && list.n_entries;
		if (more)
			(void)snprintf(after, sizeof(after), "%s",
				       list.entries[list.n_entries - 1].ref);
		store_list_done(&list);
		s->stopped |= s->config->stopped(s->config->arg);
	}
	if (!s->stopped)
		forget_unseen(s);
	return 0;
}

/* Until the first one is to be tried again, in ms; -1 = none is. */
static int wait_time(const struct serving *s)
{
	nsec_t now = time_now(), first = NSEC_NEVER;

	for (size_t i = 0; i < s->n; i++)
		if (!s->known[i].settled && s->known[i].next < first)
			first = s->known[i].next;
	if (first == NSEC_NEVER)
		return -1;
	return first <= now ? 0 : (int)((first - now) / NSEC_PER_MSEC) + 1;
}

/* Whatever was seen: all is looked at anew. Returns false when the store is gone. */
static bool drain(int fd)
{
	union {
		struct inotify_event align;
		char bytes[16 * (sizeof(struct inotify_event) + NAME_MAX + 1)];
	} buffer;
	bool there = true;
	ssize_t n;

	while ((n = read(fd, &buffer, sizeof(buffer))) > 0) {
		const char *p = buffer.bytes;

		while (p < buffer.bytes + n) {
			const struct inotify_event *e = (const void *)p;

			there &= !(e->mask & (IN_IGNORED | IN_UNMOUNT | IN_MOVE_SELF));
			p += sizeof(*e) + e->len;
		}
	}
	return there;
}

static int run(struct serving *s, int watch, int signals, struct error *err)
{
	struct pollfd polls[] = { { watch, POLLIN, 0 }, { signals, POLLIN, 0 } };

	for (;;) {
		int r = look(s, err);

		if (r < 0 || s->stopped)
			return r;
		while (poll(polls, ARRAY_SIZE(polls), wait_time(s)) < 0)
			if (errno != EINTR)
				return error_sys(err, errno, "wait for checkpoints");
		if (polls[1].revents)
			return 0;
		if (polls[0].revents && !drain(watch))
			return error_set(err, -ENOENT, "the store %s is gone",
					 store_path(s->config->store));
	}
}

int serve(const struct serve_config *config, struct error *err)
{
	/* A checkpoint gets its name by a rename: that is when it is whole. */
	const uint32_t events = IN_MOVED_TO | IN_MOVE_SELF | IN_DELETE_SELF | IN_ONLYDIR;
	_cleanup_close_ int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	_cleanup_close_ int signals = signalfd(-1, config->ends, SFD_CLOEXEC | SFD_NONBLOCK);
	struct serving s = { .config = config };
	int r;

	if (watch < 0 || signals < 0)
		return error_sys(err, errno, "wait for checkpoints");
	if (inotify_add_watch(watch, store_path(config->store), events) < 0)
		return error_sys(err, errno, "watch the store %s", store_path(config->store));
	r = pack_clean(config->out, err);
	if (r < 0)
		return r;
	s.known = calloc(MOST, sizeof(*s.known));
	if (!s.known)
		return error_sys(err, -ENOMEM, "serve");
	r = run(&s, watch, signals, err);
	free(s.known);
	return r;
}
