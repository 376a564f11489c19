/* SPDX-License-Identifier: Apache-2.0 */
#include "artifact/hashing.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "artifact/fail.h"
#include "artifact/protocol.h"
#include "base/cleanup.h"
#include "proc/spawn.h"

/* What is handed out at a time: long enough that handing out costs nothing, short enough that
 * helpers end together and progress is seen. */
#define UNIT_BYTES ((uint64_t)64 << 20)

/* A part of an item. */
struct unit {
	size_t item;
	size_t first_chunk;
	struct protocol_hash range;
};

struct helper {
	pid_t pid;
	int socket;
	bool busy;
	struct unit unit;
};

/* An item under way. */
struct opened {
	int fd;           /* -1 = not open (yet, or any more) */
	uint64_t handed;  /* bytes given to somebody */
	size_t left;      /* units not yet answered */
};

struct run {
	const struct hashing *h;
	int dirfd;
	struct hash_item *items;
	struct opened *opened;
	size_t n, at; /* at = the item from which the next unit comes */
	size_t bad;
	uint64_t done, total;
	struct digester *digester;
	struct helper *helpers;
	size_t n_helpers;
};

/* -- the files ------------------------------------------------------------------------------- */

static uint64_t unit_size(const struct hash_item *item)
{
	uint64_t n;

	if (item->chunk_size == 0)
		return UINT64_MAX;
	n = UNIT_BYTES / item->chunk_size;
	if (n > PROTOCOL_HASH_CHUNKS)
		n = PROTOCOL_HASH_CHUNKS;
	return item->chunk_size * (n ? n : 1);
}

static int prepare(struct run *run, struct arena *arena, struct error *err)
{
	for (size_t i = 0; i < run->n; i++) {
		struct hash_item *item = &run->items[i];

		run->total += item->file->size;
		if (!item->chunk_size)
			continue;
		assert(item->file->size > 0); /* else there is a digest, but no chunk to hold it */
		item->n_chunks = (size_t)digest_chunk_count(item->file->size, item->chunk_size);
		item->chunks = arena_alloc(arena, item->n_chunks * DIGEST_SIZE);
		if (!item->chunks)
			return fail_sys(err, -ENOMEM, "hash %s", item->file->path);
		if (!item->n_known)
			continue;
		assert(item->n_known < item->n_chunks); /* else no unit would end the item */
		memcpy(item->chunks, item->known, item->n_known * DIGEST_SIZE);
		run->opened[i].handed = item->n_known * item->chunk_size;
		run->done += run->opened[i].handed;
	}
	return 0;
}

/* The next unit, with its file open. Returns 0, 1 when all are handed out, or negative. */
static int next_unit(struct run *run, struct unit *ret, struct error *err)
{
	const struct hash_item *item;
	struct opened *o;
	uint64_t rest;
	int r;

	if (run->at == run->n)
		return 1;
	item = &run->items[run->at];
	o = &run->opened[run->at];
	if (o->fd < 0) {
		r = scan_open(run->dirfd, item->file, &o->fd, err);
		if (r < 0) {
			run->bad = run->at;
			return r;
		}
	}
	rest = item->file->size - o->handed;
	ret->item = run->at;
	ret->first_chunk = item->chunk_size ? (size_t)(o->handed / item->chunk_size) : 0;
	ret->range.offset = o->handed;
	ret->range.length = rest < unit_size(item) ? rest : unit_size(item);
	/* As a whole: one chunk of its length. */
	ret->range.chunk_size = item->chunk_size ? item->chunk_size : rest ? rest : 1;
	o->handed += ret->range.length;
	o->left++;
	if (o->handed == item->file->size)
		run->at++;
	return 0;
}

static int finish_item(struct run *run, size_t i, struct error *err)
{
	struct hash_item *item = &run->items[i];
	struct opened *o = &run->opened[i];
	int r = scan_recheck(o->fd, item->file, err);

	(void)close(o->fd);
	o->fd = -1;
	if (r == 0 && item->chunk_size) {
		r = digest_root(run->digester, item->chunks, item->n_chunks, &item->digest);
		if (r < 0)
			return fail_sys(err, r, "hash %s", item->file->path);
	}
	if (r < 0)
		run->bad = i;
	return r;
}

static int unit_failed(struct run *run, const struct unit *u, const struct protocol_hashed *got,
		       struct error *err)
{
	const char *path = run->items[u->item].file->path;

	run->bad = u->item;
	if (got->code == -ENODATA)
		return fail_corrupt(err, "%s: changed while it was read", path);
	return fail_sys(err, got->code, "%s: cannot be read at offset %llu", path,
			(unsigned long long)got->at);
}

static int unit_done(struct run *run, const struct unit *u, const struct protocol_hashed *got,
		     struct error *err)
{
	struct hash_item *item = &run->items[u->item];
	struct opened *o = &run->opened[u->item];

	if (got->code < 0)
		return unit_failed(run, u, got, err);
	if (item->chunk_size)
		memcpy(&item->chunks[u->first_chunk], got->digests, got->n * DIGEST_SIZE);
	else
		item->digest = got->digests[0];
	run->done += u->range.length;
	if (run->h->progress)
		run->h->progress(run->h, run->done, run->total);
	o->left--;
	if (o->left || o->handed < item->file->size)
		return 0;
	return finish_item(run, u->item, err);
}

/* -- the work itself ------------------------------------------------------------------------- */

static void hash_range(struct digester *digester, int fd, const struct protocol_hash *range,
		       struct protocol_hashed *ret)
{
	size_t n = protocol_hash_count(range);
	uint64_t offset = range->offset, rest = range->length;

	*ret = (struct protocol_hashed){ 0 };
	for (; ret->n < n; ret->n++) {
		uint64_t length = rest < range->chunk_size ? rest : range->chunk_size;

		ret->code = digester_range(digester, fd, offset, length, &ret->digests[ret->n],
					   &ret->at);
		if (ret->code < 0) {
			ret->n = 0;
			return;
		}
		offset += length;
		rest -= length;
	}
}

static int hash_alone(struct run *run, struct error *err)
{
	struct protocol_hashed got;
	struct unit u;
	int r;

	while ((r = next_unit(run, &u, err)) == 0) {
		hash_range(run->digester, run->opened[u.item].fd, &u.range, &got);
		r = unit_done(run, &u, &got, err);
		if (r < 0)
			return r;
	}
	return r < 0 ? r : 0;
}

/* -- helpers --------------------------------------------------------------------------------- */

static int send_request(int socket, int fd, const struct protocol_hash *range)
{
	uint8_t packet[PROTOCOL_HASH_REQUEST];
	union {
		struct cmsghdr align;
		char raw[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { packet, sizeof(packet) };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control.raw, .msg_controllen = sizeof(control.raw),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	protocol_put_hash(packet, range);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	/* One request at a time: the buffer always has room for it. */
	return sendmsg(socket, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* Returns 0, 1 at the end of the connection, or -errno. *ret_fd is the caller's to close. */
static int receive_request(int socket, struct protocol_hash *ret, int *ret_fd)
{
	uint8_t packet[PROTOCOL_HASH_REQUEST + 1];
	union {
		struct cmsghdr align;
		char raw[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { packet, sizeof(packet) };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control.raw, .msg_controllen = sizeof(control.raw),
	};
	struct cmsghdr *c;
	ssize_t n;
	int r;

	do
		n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n < 0 ? -errno : 1;
	c = CMSG_FIRSTHDR(&msg);
	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
	    c->cmsg_len != CMSG_LEN(sizeof(int)))
		return -EBADMSG;
	memcpy(ret_fd, CMSG_DATA(c), sizeof(*ret_fd));
	r = protocol_get_hash(bytes_of(packet, (size_t)n), ret);
	if (r < 0)
		(void)close(*ret_fd);
	return r;
}

int hash_helper(int socket)
{
	_cleanup_digester_ struct digester *digester = NULL;
	uint8_t packet[PROTOCOL_HASH_REPLY_MAX];
	struct protocol_hashed reply;
	struct protocol_hash range;
	int fd = -1, r;

	if (digester_new(&digester) < 0)
		return EXIT_FAILURE;
	while ((r = receive_request(socket, &range, &fd)) == 0) {
		hash_range(digester, fd, &range, &reply);
		(void)close(fd);
		if (send(socket, packet, protocol_put_hashed(packet, &reply), MSG_NOSIGNAL) < 0)
			return EXIT_FAILURE;
	}
	return r == 1 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int start_helper(struct run *run, struct helper *helper, struct error *err)
{
	const char *const argv[] = { run->h->program, "--store-hasher", NULL };
	struct spawn s = { .argv = argv, .die_with_parent = true };
	int sockets[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
		return fail_sys(err, errno, "start a hash helper");
	spawn_fd(&s, 2, 2);
	spawn_fd(&s, sockets[1], PROTOCOL_SOCKET_FD);
	r = spawn(&s, &helper->pid, err);
	(void)close(sockets[1]);
	if (r < 0) {
		(void)close(sockets[0]);
		if (err)
			err->reason = REASON_STORE_FAILED;
		return error_wrap(err, r, "start a hash helper");
	}
	helper->socket = sockets[0];
	return 0;
}

/* Helpers end when their socket is closed; those that failed us, or are still busy, at once. */
static void stop_helpers(struct run *run, bool failed)
{
	for (size_t i = 0; i < run->n_helpers; i++) {
		struct helper *helper = &run->helpers[i];

		(void)close(helper->socket);
		if (failed)
			(void)kill(helper->pid, SIGKILL);
		while (waitpid(helper->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
}

static int take_reply(struct run *run, struct helper *helper, struct error *err)
{
	uint8_t packet[PROTOCOL_HASH_REPLY_MAX + 1];
	struct protocol_hashed got;
	ssize_t n;

	do
		n = recv(helper->socket, packet, sizeof(packet), 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return fail_sys(err, errno, "hear a hash helper");
	if (n == 0)
		return fail_sys(err, -EPIPE, "a hash helper died");
	if (protocol_get_hashed(bytes_of(packet, (size_t)n),
				protocol_hash_count(&helper->unit.range), &got) < 0)
		return fail_sys(err, -EPROTO, "understand a hash helper");
	helper->busy = false;
	return unit_done(run, &helper->unit, &got, err);
}

static int give_work(struct run *run, struct helper *helper, struct error *err)
{
	int r = next_unit(run, &helper->unit, err);

	if (r != 0)
		return r;
	r = send_request(helper->socket, run->opened[helper->unit.item].fd, &helper->unit.range);
	if (r < 0)
		return fail_sys(err, r, "ask a hash helper");
	helper->busy = true;
	return 0;
}

/* Gives work to all that are idle. Returns how many then have some, or negative. */
static int feed(struct run *run, struct error *err)
{
	int busy = 0;

	for (size_t i = 0; i < run->n_helpers; i++) {
		int r = run->helpers[i].busy ? 0 : give_work(run, &run->helpers[i], err);

		if (r < 0)
			return r;
		busy += r == 0;
	}
	return busy;
}

static int hash_together(struct run *run, struct error *err)
{
	struct pollfd polls[PROTOCOL_WORKERS_MAX];
	int r;

	while ((r = feed(run, err)) > 0) {
		for (size_t i = 0; i < run->n_helpers; i++)
			polls[i] = (struct pollfd){
				run->helpers[i].busy ? run->helpers[i].socket : -1, POLLIN, 0,
			};
		/* No time-out: who started us has one, and kills us all at its end. */
		while (poll(polls, run->n_helpers, -1) < 0)
			if (errno != EINTR)
				return fail_sys(err, errno, "wait for the hash helpers");
		for (size_t i = 0; i < run->n_helpers; i++) {
			r = polls[i].revents ? take_reply(run, &run->helpers[i], err) : 0;
			if (r < 0)
				return r;
		}
	}
	return r;
}

static int hash_with_helpers(struct run *run, struct error *err)
{
	struct helper helpers[PROTOCOL_WORKERS_MAX] = { 0 };
	int r = 0;

	assert(run->h->workers <= PROTOCOL_WORKERS_MAX);
	run->helpers = helpers;
	while (r == 0 && run->n_helpers < run->h->workers) {
		r = start_helper(run, &helpers[run->n_helpers], err);
		if (r == 0)
			run->n_helpers++;
	}
	if (r == 0)
		r = hash_together(run, err);
	stop_helpers(run, r < 0);
	run->helpers = NULL;
	return r;
}

unsigned int hashing_workers(void)
{
	unsigned int n = 2;
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) == 0) {
		unsigned int cpus = (unsigned int)CPU_COUNT(&set);

		n = cpus > 4 ? cpus / 2 : cpus < 2 ? 1 : 2;
	}
	return n < PROTOCOL_WORKERS_MAX ? n : PROTOCOL_WORKERS_MAX;
}

int hash_items(const struct hashing *h, int dirfd, struct hash_item *items, size_t n,
	       struct arena *arena, size_t *ret_bad, struct error *err)
{
	struct run run = { .h = h, .dirfd = dirfd, .items = items, .n = n, .bad = n };
	int r;

	if (ret_bad)
		*ret_bad = n;
	run.opened = calloc(n ? n : 1, sizeof(*run.opened));
	if (!run.opened)
		return fail_sys(err, -ENOMEM, "hash the files");
	r = digester_new(&run.digester);
	if (r < 0)
		r = fail_sys(err, r, "hash the files");
	for (size_t i = 0; i < n; i++)
		run.opened[i].fd = -1;
	if (r == 0)
		r = prepare(&run, arena, err);
	/* Helpers cost a millisecond each: not for what is hashed in less. */
	if (r == 0)
		r = h->workers > 1 && run.total - run.done > UNIT_BYTES / 8 ? hash_with_helpers(&run, err)
								  : hash_alone(&run, err);
	for (size_t i = 0; i < n; i++)
		if (run.opened[i].fd >= 0)
			(void)close(run.opened[i].fd);
	if (r < 0 && ret_bad)
		*ret_bad = run.bad;
	digester_free(run.digester);
	free(run.opened);
	return r;
}
