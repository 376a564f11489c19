/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/runtime_log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "conf/json.h"

/* So many lines that begin like an entry and are none, and the rest is not looked at. */
#define BROKEN_MAX  64
#define ENTRY_FLAGS (JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL)

off_t runtime_log_mark(int bundle_fd, const char *name)
{
	struct stat st;

	return fstatat(bundle_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? st.st_size : 0;
}

/* Goes to where the next entry begins: a '{' at the start of a line. */
static bool next_entry(struct bytes *in)
{
	struct bytes line;

	while (in->n > 0 && in->p[0] != '{')
		if (bytes_until(in, '\n', &line) == BYTES_MORE)
			return false;
	return in->n > 0;
}

static struct bytes trimmed(const char *s, size_t n)
{
	while (n > 0 && strchr(" \t\r\n", s[n - 1]) && s[n - 1])
		n--;
	while (n > 0 && strchr(" \t\r\n", *s) && *s) {
		s++;
		n--;
	}
	return bytes_of(s, n < RUNTIME_LOG_MESSAGE_MAX ? n : RUNTIME_LOG_MESSAGE_MAX);
}

/* Replaces what out got from an older entry, from byte start on. */
static int take_message(const json_t *entry, size_t start, struct buf *out)
{
	const char *level = "", *msg;
	struct bytes text;

	if (json_doc_string(JSON_DOC_AT(entry, "level"), &level) < 0 || strcmp(level, "error") != 0)
		return 0;
	if (json_doc_string(JSON_DOC_AT(entry, "msg"), &msg) != 0)
		return 0;
	text = trimmed(msg, strlen(msg));
	out->end = out->start + start;
	return buf_append(out, text.p, text.n);
}

int runtime_log_parse(struct bytes text, struct buf *out)
{
	size_t start = buf_len(out), broken = 0;
	bool any = false, empty = true;

	for (size_t i = 0; i < text.n && empty; i++)
		empty = strchr(" \t\r\n", text.p[i]) && text.p[i];
	while (next_entry(&text)) {
		_cleanup_json_ json_t *entry = NULL;
		json_error_t why;
		struct bytes skipped;
		int r;

		entry = json_loadb((const char *)text.p, text.n, ENTRY_FLAGS, &why);
		if (!entry) {
			/* Cut off, or no entry at all: go on behind its first line. */
			if (++broken > BROKEN_MAX ||
			    bytes_until(&text, '\n', &skipped) == BYTES_MORE)
				break;
			continue;
		}
		any = true;
		(void)bytes_take(&text, (size_t)why.position, &skipped);
		r = take_message(entry, start, out);
		if (r < 0)
			return r;
	}
	return any || empty ? 0 : -EBADMSG;
}

int runtime_log_last_error(int bundle_fd, const char *name, off_t mark, struct buf *out)
{
	_cleanup_close_ int fd = openat(bundle_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	_cleanup_buf_ struct buf text = BUF_LIMIT(RUNTIME_LOG_TAIL);
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if (mark > st.st_size)
		mark = 0; /* it was begun anew */
	if (st.st_size - mark > (off_t)RUNTIME_LOG_TAIL)
		mark = st.st_size - (off_t)RUNTIME_LOG_TAIL;
	while (buf_len(&text) < RUNTIME_LOG_TAIL) {
		size_t room = RUNTIME_LOG_TAIL - buf_len(&text);
		uint8_t *to = buf_reserve(&text, room < 4096 ? room : 4096);

		if (!to)
			return -errno;
		n = pread(fd, to, room < 4096 ? room : 4096, mark);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		buf_commit(&text, (size_t)n);
		mark += n;
	}
	return runtime_log_parse(buf_bytes(&text), out);
}

int runtime_log_failure(int bundle_fd, const char *name, off_t mark, const char *what,
			const char *how, struct error *err)
{
	_cleanup_buf_ struct buf message = BUF_LIMIT(2 * RUNTIME_LOG_MESSAGE_MAX);
	int r = runtime_log_last_error(bundle_fd, name, mark, &message);

	if (r < 0)
		return error_set(err, -EIO, "%s: unable to retrieve OCI runtime error (%s): %s",
				 what, strerror(-r), how);
	if (buf_len(&message) == 0)
		return error_set(err, -EIO, "%s: %s", what, how);
	return error_set(err, -EIO, "%s: %s", what, buf_str(&message));
}
