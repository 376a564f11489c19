/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "artifact/doc.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"

#define TEXT_MAX    ((size_t)1 << 20) /* of a record */
#define WORD_MAX    128
#define LINE_MAX_   4096
#define PID_LIMIT   ((uint64_t)1 << 31)
#define RECORDS_MAX 65536
#define NAME_MAX_   (2 * ID_MAX + 8)
#define BOOT_ID     "/proc/sys/kernel/random/boot_id"

/* --- the document --------------------------------------------------------------------------- */

#define SHAPE(type, fields, check) { sizeof(type), fields, ARRAY_SIZE(fields), check }
#define OPTIONAL                   .flags = DOC_OPTIONAL

static const struct doc_field process_fields[] = {
	DOC_FIELD(struct journal_process, pid, DOC_NUMBER, PID_LIMIT),
	DOC_FIELD(struct journal_process, start_time, DOC_NUMBER, DOC_NUMBER_MAX),
	DOC_FIELD(struct journal_process, ns_pid, DOC_NUMBER, PID_LIMIT, OPTIONAL),
	DOC_FIELD(struct journal_process, vram_bytes, DOC_NUMBER, DOC_NUMBER_MAX, OPTIONAL),
	DOC_FIELD(struct journal_process, devices, DOC_NUMBER, DOC_NUMBER_MAX, OPTIONAL),
	DOC_FIELD(struct journal_process, job, DOC_NUMBER, JOURNAL_PROCESSES_MAX, OPTIONAL),
	DOC_FIELD(struct journal_process, apart, DOC_FLAG, 0, OPTIONAL),
};
static const struct doc_shape process_shape = SHAPE(struct journal_process, process_fields, NULL);

static const struct doc_field device_fields[] = {
	DOC_FIELD(struct journal_device, uuid, DOC_TEXT, WORD_MAX),
	DOC_FIELD(struct journal_device, chip, DOC_TEXT, WORD_MAX,
		  .flags = DOC_OPTIONAL | DOC_FOREIGN),
	DOC_FIELD(struct journal_device, memory_bytes, DOC_NUMBER, DOC_NUMBER_MAX, OPTIONAL),
};
static const struct doc_shape device_shape = SHAPE(struct journal_device, device_fields, NULL);

#define F(member, kind, max, ...) DOC_FIELD(struct journal_record, member, kind, max, __VA_ARGS__)
#define A(member, kind, max, ...) DOC_ARRAY(struct journal_record, member, kind, max, __VA_ARGS__)

static const struct doc_field record_fields[] = {
	F(kind, DOC_TEXT, WORD_MAX),
	F(phase, DOC_TEXT, WORD_MAX),
	F(ns, DOC_TEXT, ID_MAX),
	F(container_id, DOC_TEXT, ID_MAX),
	F(pod_uid, DOC_TEXT, LINE_MAX_, .flags = DOC_OPTIONAL | DOC_FOREIGN),
	F(ref, DOC_TEXT, REF_MAX, OPTIONAL),
	F(boot, DOC_TEXT, WORD_MAX),
	F(task_pid, DOC_NUMBER, PID_LIMIT, OPTIONAL),
	F(task_start, DOC_NUMBER, DOC_NUMBER_MAX, OPTIONAL),
	F(shim_pid, DOC_NUMBER, PID_LIMIT, OPTIONAL),
	F(shim_start, DOC_NUMBER, DOC_NUMBER_MAX, OPTIONAL),
	A(cgroups, DOC_TEXTS, JOURNAL_CGROUPS_MAX, .flags = DOC_OPTIONAL, .text_max = LINE_MAX_),
	F(exit, DOC_FLAG, 0, OPTIONAL),
	F(paused, DOC_FLAG, 0, OPTIONAL),
	F(gpu, DOC_FLAG, 0, OPTIONAL),
	F(held, DOC_FLAG, 0, OPTIONAL),
	F(undoing, DOC_FLAG, 0, OPTIONAL),
	F(dumping, DOC_FLAG, 0, OPTIONAL),
	F(criu_done, DOC_FLAG, 0, OPTIONAL),
	F(settled, DOC_FLAG, 0, OPTIONAL),
	F(sealed, DOC_FLAG, 0, OPTIONAL),
	F(degraded, DOC_FLAG, 0, OPTIONAL),
	A(processes, DOC_OBJECTS, JOURNAL_PROCESSES_MAX, .flags = DOC_OPTIONAL,
	  .shape = &process_shape),
	A(devices, DOC_OBJECTS, JOURNAL_DEVICES_MAX, .flags = DOC_OPTIONAL,
	  .shape = &device_shape),
};
#undef F
#undef A

static int check_record(const void *object, struct error *err)
{
	const struct journal_record *rec = object;

	if (id_valid(rec->ns) && id_valid(rec->container_id) && (!rec->ref || ref_valid(rec->ref)))
		return 0;
	return error_reason(err, REASON_IMAGE_CORRUPT, -EBADMSG,
			    "the names are none that a container or checkpoint can have");
}

static const struct doc_shape record_shape =
	SHAPE(struct journal_record, record_fields, check_record);

static const struct doc_format record_format = {
	.family = "kybernate.io/journal/v",
	.version = 1,
	.shape = &record_shape,
	.sealed = true,
	.text_max = TEXT_MAX,
	.values_max = JOURNAL_PROCESSES_MAX * 10 + JOURNAL_DEVICES_MAX * 4 + 256,
};

int journal_parse(struct bytes text, struct journal_record *ret, struct arena *mem,
		  struct error *err)
{
	return doc_read(&record_format, text, ret, mem, err);
}

/* --- the folder ----------------------------------------------------------------------------- */

static int fail(struct error *err, int code, const char *what)
{
	if (code > 0)
		code = -code;
	return error_reason(err,
			    code == -ENOSPC || code == -EDQUOT ? REASON_STORE_FULL
							       : REASON_STORE_FAILED,
			    code, "the journal: %s: %s", what, strerror(-code));
}

int journal_open(struct journal *ret, const char *path, struct error *err)
{
	struct journal j = JOURNAL_NULL;
	struct stat st;
	int r = path_mkdirs(path, 0700);

	if (r < 0)
		return fail(err, r, path);
	j.fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (j.fd < 0)
		return fail(err, errno, path);
	r = file_read_line(AT_FDCWD, BOOT_ID, j.boot, sizeof(j.boot));
	if (r == 0 && !j.boot[0])
		r = -EBADMSG;
	if (r < 0) {
		(void)close(j.fd);
		return fail(err, r, BOOT_ID);
	}
	if (fstat(j.fd, &st) < 0)
		r = fail(err, errno, path);
	else if (st.st_uid != geteuid() || (st.st_mode & 077))
		r = error_reason(err, REASON_STORE_FAILED, -EPERM,
				 "the journal %s has to belong to the agent's user and be closed to "
				 "all others (0700)", path);
	if (r < 0)
		journal_close(&j);
	else
		*ret = j;
	return r;
}

void journal_close(struct journal *j)
{
	if (journal_kept(j))
		(void)close(j->fd);
	*j = JOURNAL_NULL;
}

/* No id holds a comma: two containers never share a name, nor one with another's ".new". */
static int name_of(const char *ns, const char *id, char buf[NAME_MAX_], struct error *err)
{
	if (!id_valid(ns) || !id_valid(id))
		return fail(err, -EINVAL, "not a container's name");
	(void)snprintf(buf, NAME_MAX_, "%s,%s,op", ns, id);
	return 0;
}

int journal_write(struct journal *j, struct journal_record *rec, struct error *err)
{
	_cleanup_buf_ struct buf text = BUF_LIMIT(TEXT_MAX);
	char name[NAME_MAX_];
	int r = name_of(rec->ns, rec->container_id, name, err);

	if (r < 0)
		return r;
	rec->boot = j->boot;
	r = doc_write(&record_format, rec, &text, err);
	if (r < 0)
		return error_wrap(err, r, "the journal");
	r = file_write(j->fd, name, buf_bytes(&text).p, buf_len(&text), 0600, FILE_SYNC);
	return r < 0 ? fail(err, r, "write") : 0;
}

int journal_remove(struct journal *j, const char *ns, const char *container_id, struct error *err)
{
	char name[NAME_MAX_];
	int r = name_of(ns, container_id, name, err);

	if (r < 0)
		return r;
	if (unlinkat(j->fd, name, 0) < 0)
		return errno == ENOENT ? 0 : fail(err, errno, "remove");
	/* Not synced: a record that comes back is about processes that are well. */
	return 0;
}

/* --- replay --------------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), k = strlen(end);

	return n >= k && strcmp(s + n - k, end) == 0;
}

static void set_aside(const struct journal *j, const char *name, const struct error *why)
{
	char bad[NAME_MAX + 1];

	log_error("a record of the journal cannot be read", F_STR("name", name), F_ERR(why));
	if (path_printf(bad, sizeof(bad), "%s.bad", name) < 0 ||
	    renameat(j->fd, name, j->fd, bad) < 0)
		(void)unlinkat(j->fd, name, 0);
}

/* The name says whose it was. */
static void replay_torn(const char *name,
			void (*each)(void *data, const struct journal_record *rec), void *data)
{
	struct journal_record rec = { .kind = "checkpoint", .phase = "unknown", .torn = true };
	char ns[ID_MAX + 1], id[ID_MAX + 1], own[NAME_MAX_];
	const char *comma = strchr(name, ',');
	int n = comma ? snprintf(ns, sizeof(ns), "%.*s", (int)(comma - name), name) : -1;

	if (n < 0 || (size_t)n >= sizeof(ns))
		return;
	n = snprintf(id, sizeof(id), "%.*s", (int)strcspn(comma + 1, ","), comma + 1);
	if (n < 0 || (size_t)n >= sizeof(id) || name_of(ns, id, own, NULL) < 0 ||
	    strcmp(own, name) != 0)
		return;
	rec.ns = ns;
	rec.container_id = id;
	each(data, &rec);
}

static void replay_one(struct journal *j, const char *name,
		       void (*each)(void *data, const struct journal_record *rec), void *data)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(JOURNAL_MEMORY_MAX);
	_cleanup_buf_ struct buf text = BUF_LIMIT(TEXT_MAX);
	_cleanup_close_ int fd = path_open_beneath(j->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
	struct journal_record rec;
	struct error err = ERROR_NULL;
	struct stat st;
	char own[NAME_MAX_], self[64];
	int r = fd < 0 ? fd : fstat(fd, &st) < 0 ? -errno : S_ISREG(st.st_mode) ? 0 : -EBADMSG;

	(void)snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	if (r == 0)
		r = file_read(AT_FDCWD, self, &text);
	if (r < 0)
		(void)fail(&err, r, "read");
	else
		r = journal_parse(buf_bytes(&text), &rec, &mem, &err);
	if (r == 0)
		r = name_of(rec.ns, rec.container_id, own, &err);
	if (r == 0 && strcmp(own, name) != 0)
		r = fail(&err, -EBADMSG, "the record is of another name");
	if (r < 0) {
		set_aside(j, name, &err);
		replay_torn(name, each, data);
	} else if (strcmp(rec.boot, j->boot) != 0) {
		(void)unlinkat(j->fd, name, 0); /* its processes have gone with the machine */
	} else {
		each(data, &rec);
	}
}

int journal_replay(struct journal *j,
		   void (*each)(void *data, const struct journal_record *rec), void *data,
		   struct error *err)
{
	int fd = openat(j->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_closedir_ DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	unsigned int n = 0;
	struct dirent *e;

	if (!dir) {
		int r = fail(err, errno, "list");

		if (fd >= 0)
			(void)close(fd);
		return r;
	}
	while ((errno = 0, e = readdir(dir)) && n++ < RECORDS_MAX) {
		if (e->d_name[0] == '.' || ends_with(e->d_name, ".bad"))
			continue;
		if (ends_with(e->d_name, ".new"))
			(void)unlinkat(j->fd, e->d_name, 0);
		else
			replay_one(j, e->d_name, each, data);
	}
	return errno ? fail(err, errno, "list") : 0;
}
