/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/criu_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define READ_STEP 16384
#define HAS_MAX   3
#define SHOWN_LINES 3 /* of an error that is not known */

/*
 * What is known of CRIU's failures: a line with all of these words means this. The first line of
 * the log that matches anything tells the cause, and of two rows that match it, the upper one.
 * A row without a reason of its own has advice only.
 */
struct cause {
	const char *has[HAS_MAX];
	enum reason reason;
	const char *advice; /* NULL: that of the reason */
	bool passes;
};

/* clang-format off */
static const struct cause dump_errors[] = {
	/* What a GPU workload leaves behind. */
	{ { "[io_uring]" }, REASON_IO_URING, NULL },
	/* From Linux 6.7 on an io_uring cannot be passed over a socket, as CRIU does to look at it;
	 * nothing else makes this call fail so (kernel: scm_fp_copy()). */
	{ { "send_fds failed (-22)" }, REASON_IO_URING, NULL },
	{ { "of that type [", "(chr 195:" }, REASON_LEFTOVER_DEVICE_FD,
	  "a process holds an NVIDIA device (character device 195) after the CUDA checkpoint: "
	  "NVML with a driver before 570, a profiler, or a child that forked and did not exec" },
	{ { "of that type [", "(chr " }, REASON_LEFTOVER_DEVICE_FD,
	  "a process holds the character device with the major and minor number in the "
	  "brackets" },
	{ { "of that type [", "/dev/" }, REASON_LEFTOVER_DEVICE_FD, NULL },
	{ { "Unknown shit", "/dev/" }, REASON_LEFTOVER_DEVICE_FD, NULL },
	{ { "non-regular mapping" }, REASON_LEFTOVER_DEVICE_FD,
	  "a process maps the memory of a device" },
	/* What the options decide. */
	{ { "Connected TCP socket" }, REASON_NONE,
	  "the container has an open TCP connection: close it, or set "
	  "checkpoint.tcp_established in shim.toml if the container will get its address back" },
	/* Of TCP (sk-inet.c) or a Unix socket (sk-unix.c), until accept() or the end of it. */
	{ { "In-flight connection" }, REASON_NONE,
	  "a connection was just being made: retry", true },
	{ { "in-flight socket" }, REASON_NONE,
	  "a connection was just being made: retry", true },
	{ { "External socket is used" }, REASON_NONE,
	  "a Unix socket is connected to a process outside of the container: close it, or set "
	  "checkpoint.ext_unix_sk in shim.toml" },
	{ { "unix: Dangling connection" }, REASON_NONE,
	  "a Unix socket is connected to a process outside of the container and of its "
	  "network namespace, which CRIU cannot dump: close it before the checkpoint" },
	{ { "dump half of stream unix connection" }, REASON_NONE,
	  "a Unix socket is connected to a process outside of the container: close it, or set "
	  "checkpoint.ext_unix_sk in shim.toml" },
	{ { "Some file locks are hold" }, REASON_NONE,
	  "a process holds a file lock: set checkpoint.file_locks in shim.toml" },
	{ { "dump ghost file", "increase limit" }, REASON_NONE,
	  "a deleted file that is still open is larger than CRIU's limit: write 'ghost-limit "
	  "1G' to CRIU's configuration (of runc: /etc/criu/runc.conf)" },
	{ { "create link remap for" }, REASON_NONE,
	  "an open file was deleted under the name it was opened by: write 'link-remap' to "
	  "CRIU's configuration (of runc: /etc/criu/runc.conf)" },
	{ { "shell-job" }, REASON_NONE,
	  "the container uses a terminal that belongs to a session outside of it: set the "
	  "checkpoint option 'terminal'" },
	/* What cannot be dumped. */
	{ { "of that type [", "anon_inode:" }, REASON_NONE,
	  "a process holds the kernel object in the brackets, which CRIU cannot dump: close "
	  "it before the checkpoint (perf events and userfaultfd are profilers' and "
	  "debuggers')" },
	{ { "lookup mount=", "for fd=" }, REASON_NONE,
	  "a descriptor leads to a file outside of the container: use pipes, FIFOs or "
	  "/dev/null for its standard streams, and no files of the host" },
	{ { "have a proper root mount" }, REASON_NONE,
	  "a mount was made in the container behind the OCI runtime's back (a hook): name where it "
	  "comes from in gpu.mount_prefixes of shim.toml, or use CDI to inject devices, so that "
	  "mounts are part of the spec" },
	{ { "autodetected external mount" }, REASON_NONE,
	  "a mount was made in the container behind the OCI runtime's back (a hook): use CDI "
	  "to inject devices, so that mounts are part of the spec" },
	{ { "unreachable sharing" }, REASON_NONE,
	  "a mount of the container propagates from the host: mount it 'rprivate'" },
	{ { "Unsupported socket" }, REASON_NONE,
	  "a process holds a socket of a kind that CRIU cannot dump: close it before the "
	  "checkpoint" },
	{ { "sockets: Can't get", "Operation not supported" }, REASON_NONE,
	  "this CRIU is older than the kernel: install CRIU 4.2 or newer" },
	{ { "SysVIPC shmem", "live in IPC ns" }, REASON_NONE,
	  "the container shares the host's IPC namespace (hostIPC), which CRIU cannot dump" },
	{ { "dump nested" }, REASON_NONE,
	  "a process made a namespace of its own inside of the container, which CRIU cannot "
	  "dump" },
	{ { "Nested mount namespaces" }, REASON_NONE,
	  "a process made a namespace of its own inside of the container, which CRIU cannot "
	  "dump" },
	{ { "Locking network failed" }, REASON_NONE,
	  "CRIU could not lock the network by iptables (the lines above in its log say why: a "
	  "missing extension, or a kernel without it): install iptables, or write 'network-lock "
	  "nftables' to CRIU's configuration (of runc: /etc/criu/runc.conf)" },
	{ { "Unable to freeze cgroup" }, REASON_TIMEOUT,
	  "a process cannot be frozen, most often one that waits for a disk, a network file "
	  "system or a driver: look for state D" },
	{ { "Timeout reached. Try to interrupt" }, REASON_TIMEOUT,
	  "a process could not be stopped in CRIU's time-out: it is traced by a debugger or "
	  "profiler, or waits in a driver (state D)" },
};

static const struct cause restore_errors[] = {
	/* The checkpoint itself. */
	{ { "agic doesn't match" }, REASON_IMAGE_CORRUPT, NULL },
	{ { "Unexpected EOF" }, REASON_IMAGE_CORRUPT, NULL },
	{ { "Reached EOF unexpectedly" }, REASON_IMAGE_CORRUPT, NULL },
	{ { "image file was truncated" }, REASON_IMAGE_CORRUPT, NULL },
	{ { "orrupted" }, REASON_IMAGE_CORRUPT, NULL },
	{ { "Not supported images version" }, REASON_NONE,
	  "the checkpoint was made by a CRIU of another version: restore with that one, or "
	  "newer" },
	/* What must be as it was. */
	{ { "on restore", "nvidia" }, REASON_DRIVER_MISMATCH, NULL },
	{ { "on restore", "libcuda" }, REASON_DRIVER_MISMATCH, NULL },
	{ { "File ", " has bad ", "nvidia" }, REASON_DRIVER_MISMATCH, NULL },
	{ { "File ", " has bad ", "libcuda" }, REASON_DRIVER_MISMATCH, NULL },
	{ { "File ", " has bad " }, REASON_ROOTFS_FAILED,
	  "the file differs from the one that was open at the checkpoint: use the same image "
	  "and the same changed files" },
	{ { "Can't open file", "on restore" }, REASON_ROOTFS_FAILED,
	  "the file was open at the checkpoint and is missing here: use the same image, the "
	  "same changed files and the same volumes" },
	{ { "No mapping for", "mountpoint" }, REASON_NONE,
	  "the container had a mount that the new one lacks: give the pod the same volumes, "
	  "devices and runtime hooks as at the checkpoint" },
	{ { "Can't fork for", "File exists" }, REASON_NONE,
	  "a process id of the checkpoint is in use: restore into a pid namespace of its own" },
	{ { "do not match expected" }, REASON_NONE,
	  "a process id of the checkpoint is in use: restore into a pid namespace of its own" },
	{ { "unix: Can't bind", "Address already in use" }, REASON_NONE,
	  "a Unix socket's abstract name is in use in this network namespace (every CUDA process "
	  "has one): another container of the same checkpoint lives, or the original; restore "
	  "into a network namespace of its own, as pods have" },
	{ { "bind inet socket", "Cannot assign requested address" }, REASON_NONE,
	  "a socket was bound to an address that the new container does not have: a pod gets "
	  "a new one, so let the server listen on 0.0.0.0" },
	{ { "bind inet socket", "Address already in use" }, REASON_NONE,
	  "a port of the container is in use, in its network namespace or that of the host" },
	{ { "Connected TCP socket in image" }, REASON_NONE,
	  "the checkpoint holds a TCP connection: set checkpoint.tcp_established in shim.toml" },
	{ { "External socket found in image" }, REASON_NONE,
	  "the checkpoint holds a Unix socket connected to outside: set "
	  "checkpoint.ext_unix_sk in shim.toml" },
	{ { "unix:", "Peer", "unresolved" }, REASON_NONE,
	  "the checkpoint holds a Unix socket connected to outside: set "
	  "checkpoint.ext_unix_sk in shim.toml" },
	{ { "capabilities do not match run time" }, REASON_NONE,
	  "this node's processor lacks features of the one the checkpoint was made on" },
	{ { "CPU xsave", "mismatch" }, REASON_NONE,
	  "this node's processor lacks features of the one the checkpoint was made on" },
	{ { "killed by signal 9" }, REASON_NONE,
	  "a process was killed while it was restored, most often by the container's memory "
	  "limit, which must hold all it had at the checkpoint" },
};

/* In dumps and restores alike. */
static const struct cause all_errors[] = {
	{ { "cuda_plugin" }, REASON_NONE,
	  "CRIU's own CUDA plugin acted as well: remove it, or point CRIU's libdir at an "
	  "empty folder in /etc/criu/runc.conf" },
	{ { "No space left on device" }, REASON_STORE_FULL, NULL },
	{ { "Disk quota exceeded" }, REASON_STORE_FULL, NULL },
	{ { "Cannot allocate memory" }, REASON_NONE,
	  "the node, or the cgroup that CRIU runs in, is out of memory" },
};

/* Looked for in every line, not only in errors: here CRIU says no more before it dies or loops. */
static const struct cause restore_lines[] = {
	{ { "No inventory.img image" }, REASON_IMAGE_CORRUPT, NULL },
	{ { "No pstree.img image" }, REASON_IMAGE_CORRUPT, NULL },
	/* Short pages: CRIU 4.1 reads on for ever and logs each try. */
	{ { "`- returned 0" }, REASON_IMAGE_CORRUPT, NULL },
};
/* clang-format on */

/* Errors that CRIU reports and goes on from; they would only lead people astray. */
static const char *const harmless[] = {
	"Can't setup RLIMIT_NOFILE for self",
	"cgroupd: recv req error", /* ends every failed restore of 4.x */
	"tun: Unable to create tun", /* is there TUN? tried at every start */
	"exited, status=", /* of a helper; who needed it says so in its own line */
};

static bool is_harmless(const char *line)
{
	for (size_t i = 0; i < ARRAY_SIZE(harmless); i++)
		if (strstr(line, harmless[i]))
			return true;
	return false;
}

static const struct cause *find_cause(const struct cause *rows, size_t n, const char *line)
{
	for (size_t i = 0; i < n; i++) {
		size_t k = 0;

		while (k < HAS_MAX && rows[i].has[k] && strstr(line, rows[i].has[k]))
			k++;
		if (k == HAS_MAX || !rows[i].has[k])
			return &rows[i];
	}
	return NULL;
}

static const struct cause *cause_of(enum criu_log_kind kind, const char *line, bool error)
{
	const struct cause *c = NULL;

	if (kind == CRIU_LOG_RESTORE)
		c = find_cause(restore_lines, ARRAY_SIZE(restore_lines), line);
	if (c || !error)
		return c;
	if (kind == CRIU_LOG_DUMP)
		c = find_cause(dump_errors, ARRAY_SIZE(dump_errors), line);
	else
		c = find_cause(restore_errors, ARRAY_SIZE(restore_errors), line);
	return c ? c : find_cause(all_errors, ARRAY_SIZE(all_errors), line);
}

/* Paths and names in a log are the workload's: nothing but printable ASCII leaves this file. */
static void set_line(struct criu_log_line *to, const char *text)
{
	size_t n = 0;

	for (; text[n] && n + 1 < sizeof(to->text); n++)
		to->text[n] = text[n] >= ' ' && text[n] <= '~' ? text[n] : '?';
	to->text[n] = 0;
}

static void add_line(struct criu_digest *d, const char *text)
{
	if (d->n_lines == CRIU_LOG_LINES) {
		memmove(&d->lines[0], &d->lines[1], sizeof(d->lines) - sizeof(d->lines[0]));
		d->n_lines--;
	}
	set_line(&d->lines[d->n_lines++], text);
}

static void set_cause(struct criu_log *log, const struct cause *c, const char *text)
{
	struct criu_digest *d = &log->digest;

	set_line(&d->cause, text);
	d->advice = c->advice;
	d->passes = c->passes;
	if (c->reason != REASON_NONE)
		d->reason = c->reason;
	/* Which device is mapped stands in the line before, in that of the mapping. */
	if (strstr(text, "non-regular mapping") && log->mapping[0]) {
		add_line(d, log->mapping);
		if (strstr(log->mapping, "/dev/nvidia-uvm")) {
			d->reason = REASON_UVM_IN_USE;
			d->advice = NULL;
		}
	}
	if (!d->advice)
		d->advice = reason_advice(d->reason);
}

static void take_line(struct criu_log *log)
{
	struct criu_digest *d = &log->digest;
	const char *error, *mapping, *text;

	log->line[log->n] = 0;
	log->n = 0;
	error = strstr(log->line, "Error (");
	mapping = strstr(log->line, "smaps entry: ");
	if (mapping)
		(void)snprintf(log->mapping, sizeof(log->mapping), "%s", mapping);
	if (error && is_harmless(error))
		return;
	text = strstr(log->line, ") "); /* behind the time */
	text = error ? error : log->line[0] == '(' && text ? text + 2 : log->line;
	if (!d->cause.text[0]) {
		const struct cause *c = cause_of(d->kind, text, error != NULL);

		if (c)
			set_cause(log, c, text);
	}
	if (error)
		add_line(d, error);
}

void criu_log_begin(struct criu_log *log, enum criu_log_kind kind)
{
	*log = (struct criu_log){
		.digest = { .kind = kind,
			    .reason = kind == CRIU_LOG_DUMP ? REASON_CRIU_DUMP_FAILED
							    : REASON_CRIU_RESTORE_FAILED },
	};
}

void criu_log_feed(struct criu_log *log, struct bytes piece)
{
	for (size_t i = 0; i < piece.n; i++) {
		if (piece.p[i] == '\n')
			take_line(log);
		else if (log->n + 1 < sizeof(log->line))
			log->line[log->n++] = piece.p[i] ? (char)piece.p[i] : '?';
	}
}

void criu_log_end(struct criu_log *log, struct criu_digest *ret)
{
	if (log->n)
		take_line(log);
	*ret = log->digest;
}

static int read_tail(int fd, struct criu_log *log)
{
	uint8_t piece[READ_STEP];
	struct stat st;
	off_t at;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	at = st.st_size > (off_t)CRIU_LOG_TAIL ? st.st_size - (off_t)CRIU_LOG_TAIL : 0;
	/* CRIU may still write: not beyond what was there. */
	while (at < st.st_size) {
		ssize_t n = pread(fd, piece, sizeof(piece), at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		criu_log_feed(log, bytes_of(piece, (size_t)n));
		at += n;
	}
	return 0;
}

int criu_log_read(int dirfd, const char *path, enum criu_log_kind kind, struct criu_digest *ret)
{
	_cleanup_close_ int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct criu_log log;
	int r = fd < 0 ? -errno : 0;

	criu_log_begin(&log, kind);
	if (r == 0)
		r = read_tail(fd, &log);
	if (r < 0)
		criu_log_begin(&log, kind);
	criu_log_end(&log, ret);
	return r;
}

/* What it died of is said last, but for the very last line, which says that it died. */
static void last_lines(const struct criu_digest *d, char *buf, size_t size)
{
	unsigned int end = d->n_lines;
	size_t n = 0;

	if (!end) {
		(void)snprintf(buf, size, "%s",
			       "its log ends without an error: it was killed, or crashed");
		return;
	}
	if (end > 1 && strstr(d->lines[end - 1].text, "ing FAILED."))
		end--;
	buf[0] = 0;
	for (unsigned int i = end > SHOWN_LINES ? end - SHOWN_LINES : 0; i < end; i++) {
		int r = snprintf(buf + n, size - n, "%s%s", n ? " | " : "", d->lines[i].text);

		if (r < 0 || (size_t)r >= size - n)
			return;
		n += (size_t)r;
	}
}

int criu_digest_error(const struct criu_digest *d, const char *path, struct error *err)
{
	const char *what = d->kind == CRIU_LOG_DUMP ? "dump" : "restore";
	char line[3 * sizeof(d->cause.text)];

	if (d->cause.text[0])
		(void)snprintf(line, sizeof(line), "%s", d->cause.text);
	else
		last_lines(d, line, sizeof(line));
	return error_reason(err, d->reason, -EIO, "CRIU could not %s the container: %s%s%s; see %s",
			    what, line, d->advice ? "; " : "", d->advice ? d->advice : "", path);
}
