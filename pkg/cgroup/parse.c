/* SPDX-License-Identifier: Apache-2.0 */
#include "cgroup/parse.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"

static bool blank(uint8_t c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Takes the next word off the front. False when there is none. */
static bool next_word(struct bytes *text, struct bytes *ret)
{
	size_t n = 0;

	while (text->n && blank(text->p[0]))
		*text = bytes_of(text->p + 1, text->n - 1);
	while (n < text->n && !blank(text->p[n]))
		n++;
	if (n == 0)
		return false;
	*ret = bytes_of(text->p, n);
	*text = bytes_of(text->p + n, text->n - n);
	return true;
}

static bool next_line(struct bytes *text, struct bytes *ret)
{
	if (text->n == 0)
		return false;
	if (bytes_until(text, '\n', ret)) {
		*ret = *text;
		*text = bytes_of(NULL, 0);
	}
	return true;
}

static bool is(struct bytes word, const char *s)
{
	return word.n == strlen(s) && memcmp(word.p, s, word.n) == 0;
}

static int number(struct bytes word, uint64_t max, uint64_t *ret)
{
	return num_parse_n((const char *)word.p, word.n, max, ret);
}

/* A number as containerd's cgroups library reads it: below zero is zero. */
static int value(struct bytes word, uint64_t *ret)
{
	uint64_t v;

	if (word.n < 2 || word.p[0] != '-')
		return number(word, UINT64_MAX, ret);
	if (number(bytes_of(word.p + 1, word.n - 1), UINT64_MAX, &v) == -EINVAL)
		return -EINVAL;
	*ret = 0;
	return 0;
}

int parse_value(struct bytes text, uint64_t max, uint64_t *ret)
{
	struct bytes word, more;

	if (!next_word(&text, &word) || next_word(&text, &more))
		return -EINVAL;
	if (is(word, "max")) {
		*ret = max;
		return 0;
	}
	return value(word, ret);
}

int parse_pair(struct bytes *text, struct bytes *ret_key, uint64_t *ret_value)
{
	struct bytes line, key, word, more;

	while (next_line(text, &line)) {
		if (!next_word(&line, &key) || !next_word(&line, &word) || next_word(&line, &more) ||
		    value(word, ret_value) < 0)
			continue;
		*ret_key = key;
		return 1;
	}
	return 0;
}

uint64_t parse_find(struct bytes text, const char *key)
{
	struct bytes found;
	uint64_t v;

	while (parse_pair(&text, &found, &v))
		if (is(found, key))
			return v;
	return 0;
}

void parse_pairs(struct bytes text, const struct parse_key *keys, size_t n_keys, void *to)
{
	struct bytes key;
	size_t at = 0;
	uint64_t v;

	while (parse_pair(&text, &key, &v)) {
		/* The kernel keeps the order of its table, and so does ours: start where we are. */
		for (size_t i = 0; i < n_keys; i++) {
			size_t k = (at + i) % n_keys;

			if (!is(key, keys[k].name))
				continue;
			memcpy((char *)to + keys[k].offset, &v, sizeof(v));
			at = k + 1;
			break;
		}
	}
}

/* Lines, an upper bound of the entries in a text. */
static size_t count_lines(struct bytes text, size_t max)
{
	struct bytes line;
	size_t n = 0;

	while (n < max && next_line(&text, &line))
		n++;
	return n;
}

int parse_numbers(struct bytes text, size_t max, struct arena *a, uint64_t **ret, size_t *ret_n)
{
	struct bytes rest = text, word;
	uint64_t *list;
	size_t n = 0;

	while (n <= max && next_word(&rest, &word))
		n++;
	if (n > max)
		return -EBADMSG;
	list = arena_alloc(a, n * sizeof(*list));
	if (!list)
		return -ENOMEM;
	for (size_t i = 0; next_word(&text, &word); i++)
		if (number(word, UINT64_MAX, &list[i]) < 0)
			return -EBADMSG;
	*ret = list;
	*ret_n = n;
	return 0;
}

static bool device_number(struct bytes word, uint64_t *major, uint64_t *minor)
{
	struct bytes first;

	return bytes_until(&word, ':', &first) == 0 && number(first, UINT32_MAX, major) == 0 &&
	       number(word, UINT32_MAX, minor) == 0;
}

/*
 * A word as a string behind a prefix. In a message it must be UTF-8, or Go drops the message
 * whole: what is not plain ASCII becomes a question mark.
 */
static const char *keep(struct arena *a, const char *prefix, struct bytes word)
{
	size_t skip = strlen(prefix);
	char *s = arena_alloc(a, skip + word.n + 1);

	if (!s)
		return NULL;
	memcpy(s, prefix, skip);
	for (size_t i = 0; i < word.n; i++)
		s[skip + i] = word.p[i] > ' ' && word.p[i] < 0x7f ? (char)word.p[i] : '?';
	return s;
}

int parse_blkio(struct bytes text, size_t max, struct arena *a, struct blkio_entry **ret,
		size_t *ret_n)
{
	size_t n = 0, most = count_lines(text, max);
	struct blkio_entry *list = arena_alloc(a, most * sizeof(*list));
	struct bytes line, dev, op, v;

	if (!list)
		return -ENOMEM;
	while (n < most && next_line(&text, &line)) {
		struct blkio_entry *e = &list[n];

		/* "Total 0" ends most files. */
		if (!next_word(&line, &dev) || !device_number(dev, &e->major, &e->minor) ||
		    !next_word(&line, &op))
			continue;
		if (!next_word(&line, &v)) {
			v = op;
			op = bytes_of("", 0);
		}
		if (number(v, UINT64_MAX, &e->value) < 0)
			continue;
		e->op = keep(a, "", op);
		e->device = "";
		if (!e->op)
			return -ENOMEM;
		n++;
	}
	*ret = list;
	*ret_n = n;
	return 0;
}

/* Splits "KEY=REST". */
static bool assignment(struct bytes word, struct bytes *ret_key, struct bytes *ret_rest)
{
	if (bytes_until(&word, '=', ret_key))
		return false;
	*ret_rest = word;
	return true;
}

static void io_value(struct io_entry *e, struct bytes key, struct bytes rest)
{
	uint64_t v;

	if (number(rest, UINT64_MAX, &v) < 0)
		return;
	if (is(key, "rbytes"))
		e->rbytes = v;
	else if (is(key, "wbytes"))
		e->wbytes = v;
	else if (is(key, "rios"))
		e->rios = v;
	else if (is(key, "wios"))
		e->wios = v;
}

int parse_io(struct bytes text, size_t max, struct arena *a, struct io_entry **ret, size_t *ret_n)
{
	size_t n = 0, most = count_lines(text, max);
	struct io_entry *list = arena_alloc(a, most * sizeof(*list));
	struct bytes line, word, key, rest;

	if (!list)
		return -ENOMEM;
	while (n < most && next_line(&text, &line)) {
		struct io_entry e = { 0 };

		if (!next_word(&line, &word) || !device_number(word, &e.major, &e.minor))
			continue;
		while (next_word(&line, &word))
			if (assignment(word, &key, &rest))
				io_value(&e, key, rest);
		list[n++] = e;
	}
	*ret = list;
	*ret_n = n;
	return 0;
}

static void rdma_value(struct rdma_entry *e, struct bytes word)
{
	struct bytes key, rest;
	uint64_t v;

	if (!assignment(word, &key, &rest))
		return;
	if (is(rest, "max"))
		v = UINT32_MAX;
	else if (number(rest, UINT32_MAX, &v) < 0)
		return;
	if (is(key, "hca_handle"))
		e->hca_handles = (uint32_t)v;
	else if (is(key, "hca_object"))
		e->hca_objects = (uint32_t)v;
}

int parse_rdma(struct bytes text, size_t max, struct arena *a, struct rdma_entry **ret,
	       size_t *ret_n)
{
	size_t n = 0, most = count_lines(text, max);
	struct rdma_entry *list = arena_alloc(a, most * sizeof(*list));
	struct bytes line, device, first, second, more;

	if (!list)
		return -ENOMEM;
	while (n < most && next_line(&text, &line)) {
		struct rdma_entry e = { 0 };

		if (!next_word(&line, &device) || !next_word(&line, &first) ||
		    !next_word(&line, &second) || next_word(&line, &more))
			continue;
		rdma_value(&e, first);
		rdma_value(&e, second);
		e.device = keep(a, "", device);
		if (!e.device)
			return -ENOMEM;
		list[n++] = e;
	}
	*ret = list;
	*ret_n = n;
	return 0;
}

/* "12.34", nothing else: no exponent, no locale. */
static int percentage(struct bytes word, double *ret)
{
	struct bytes whole;
	uint64_t a, b = 0, scale = 1;

	if (bytes_until(&word, '.', &whole)) {
		whole = word;
		word = bytes_of(NULL, 0);
	} else if (word.n == 0 || word.n > 6) {
		return -EINVAL;
	}
	if (number(whole, UINT32_MAX, &a) < 0 || (word.n && number(word, 999999, &b) < 0))
		return -EINVAL;
	for (size_t i = 0; i < word.n; i++)
		scale *= 10;
	/* One division, so that the result is the double nearest to what was written. */
	*ret = (double)(a * scale + b) / (double)scale;
	return 0;
}

static int psi_line(struct bytes line, struct psi_data *ret)
{
	struct psi_data d = { .present = true };
	struct bytes word, key, rest;

	while (next_word(&line, &word)) {
		int r = 0;

		if (!assignment(word, &key, &rest))
			return -EBADMSG;
		if (is(key, "avg10"))
			r = percentage(rest, &d.avg10);
		else if (is(key, "avg60"))
			r = percentage(rest, &d.avg60);
		else if (is(key, "avg300"))
			r = percentage(rest, &d.avg300);
		else if (is(key, "total"))
			r = number(rest, UINT64_MAX, &d.total);
		if (r < 0)
			return -EBADMSG;
	}
	*ret = d;
	return 0;
}

int parse_psi(struct bytes text, struct psi *ret)
{
	struct psi p = { .present = true };
	struct bytes line, word;
	int r = 0;

	while (r == 0 && next_line(&text, &line)) {
		if (!next_word(&line, &word))
			continue;
		if (is(word, "some"))
			r = psi_line(line, &p.some);
		else if (is(word, "full"))
			r = psi_line(line, &p.full);
	}
	if (r == 0)
		*ret = p;
	return r;
}

const char *parse_partition(struct bytes partitions, uint64_t major, uint64_t minor,
			    struct arena *a)
{
	struct bytes line, first, second, blocks, name;
	const char *path;
	uint64_t x, y;

	/* "major minor #blocks name", an empty line, then the devices; the first hit counts. */
	while (next_line(&partitions, &line)) {
		if (!next_word(&line, &first) || !next_word(&line, &second) ||
		    !next_word(&line, &blocks) || !next_word(&line, &name))
			continue;
		if (number(first, UINT32_MAX, &x) < 0 || number(second, UINT32_MAX, &y) < 0 ||
		    x != major || y != minor)
			continue;
		path = keep(a, "/dev/", name);
		return path ? path : "";
	}
	return "";
}

int parse_hugepage_size(const char *folder, char *buf, size_t size)
{
	static const char prefix[] = "hugepages-";
	uint64_t kb;
	size_t n;
	int len;

	if (strncmp(folder, prefix, strlen(prefix)) != 0)
		return -EINVAL;
	folder += strlen(prefix);
	n = strspn(folder, "0123456789");
	if (strcmp(folder + n, "kB") != 0 || num_parse_n(folder, n, UINT32_MAX, &kb) < 0 || !kb)
		return -EINVAL;
	/* As the kernel's mem_fmt() in mm/hugetlb_cgroup.c. */
	if (kb >= 1 << 20)
		len = snprintf(buf, size, "%lluGB", (unsigned long long)kb >> 20);
	else if (kb >= 1 << 10)
		len = snprintf(buf, size, "%lluMB", (unsigned long long)kb >> 10);
	else
		len = snprintf(buf, size, "%lluKB", (unsigned long long)kb);
	return len < 0 || (size_t)len >= size ? -EINVAL : 0;
}
