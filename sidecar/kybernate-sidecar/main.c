/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kybernate-sidecar: packs sealed checkpoints, and unpacks them again. What it does is in pkg/pack;
 * this is arguments, privileges, and one line about the result.
 *
 * Exit status: 0 done, 1 a failure that was logged, 2 wrong usage.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "artifact/digest.h"
#include "artifact/store.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/num.h"
#include "isolate.h"
#include "pack/pack.h"
#include "pack/unpack.h"
#include "serve.h"

#define STORE "/var/lib/kybernate/store"
#define PAUSE (10 * NSEC_PER_SEC)

struct options {
	const char *store, *out, *user;
	bool force;
	uint64_t max_bytes;
};

static int usage(FILE *to, int status)
{
	(void)fprintf(
		to, "usage: kybernate-sidecar [--user NAME] VERB\n"
		    "\n"
		    "  pack [--store DIR] [--force] REF FILE   a checkpoint becomes one file\n"
		    "  unpack [--max-size BYTES] FILE DIR      and a directory again\n"
		    "  serve [--store DIR] --out DIR           packs what gets sealed, as REF.tar\n"
		    "  --help, --version\n"
		    "\n"
		    "See kybernate-sidecar(8).\n");
	return status;
}

/* -- being stopped ----------------------------------------------------------------------------- */

static bool stopped(void *arg)
{
	const sigset_t *ends = arg;
	sigset_t pending;

	if (sigpending(&pending) < 0)
		return false;
	for (int signo = 1; signo < NSIG; signo++)
		if (sigismember(ends, signo) == 1 && sigismember(&pending, signo) == 1)
			return true;
	return false;
}

static int block_ends(sigset_t *ret, struct error *err)
{
	(void)sigemptyset(ret);
	(void)sigaddset(ret, SIGTERM);
	(void)sigaddset(ret, SIGINT);
	(void)sigaddset(ret, SIGHUP);
	return sigprocmask(SIG_BLOCK, ret, NULL) < 0 ? error_sys(err, errno, "block signals") : 0;
}

/* -- directories ------------------------------------------------------------------------------- */

/* The directory of a path that is to come into being, and the name in it, which leads into path. */
static int open_parent(const char *path, const char **ret_name, struct error *err)
{
	const char *slash = strrchr(path, '/');
	char parent[PATH_MAX];
	int fd;

	if (PATH_PRINTF(parent, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".") <
	    0)
		return error_set(err, -ENAMETOOLONG, "%s: is too long", path);
	fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return error_sys(err, errno, "open %s", parent);
	*ret_name = slash ? slash + 1 : path;
	return fd;
}

static int open_dir(const char *path, int flags, struct error *err)
{
	int fd = open(path, O_DIRECTORY | O_CLOEXEC | flags);

	return fd < 0 ? error_sys(err, errno, "open %s", path) : fd;
}

/* -- results ----------------------------------------------------------------------------------- */

static void report(const char *ref, const char *file, uint64_t files, uint64_t bytes,
		   uint64_t archive_bytes, nsec_t took, const struct digest *image)
{
	char hex[DIGEST_HEX_MAX];
	json_t *line = json_pack("{s:s, s:s, s:I, s:I, s:I, s:f, s:s+}", "ref", ref, "file", file,
				 "files", (json_int_t)files, "bytes", (json_int_t)bytes,
				 "archive_bytes", (json_int_t)archive_bytes, "seconds",
				 (double)(took / NSEC_PER_MSEC) / 1e3, "image", "sha256:",
				 digest_hex(image, hex));

	/* A name that is no UTF-8 has no line; the exit status says the same. */
	if (line && json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6)) == 0)
		(void)putchar('\n');
	(void)fflush(stdout);
	json_decref(line);
}

static void packed(const char *ref, const char *file, const struct pack_result *p, nsec_t took)
{
	report(ref, file, p->files, p->bytes, p->archive_bytes, took, &p->image);
}

/* -- the verbs --------------------------------------------------------------------------------- */

/*
 * Libraries read files when they are used first (OpenSSL its configuration, jansson its seed): they
 * do so before nothing can be opened any more.
 */
static int warm_up(struct error *err)
{
	_cleanup_digester_ struct digester *d = NULL;
	int r = digester_new(&d);

	json_object_seed(0);
	return r < 0 ? error_sys(err, r, "load the crypto library") : 0;
}

static int confine(const struct isolate *i, struct error *err)
{
	int r = warm_up(err);

	return r < 0 ? r : isolate(i, err);
}

static int open_store_confined(const struct options *o, int out, struct store **ret,
			       struct error *err)
{
	_cleanup_close_ int readable = open_dir(o->store, O_PATH | O_NOFOLLOW, err);
	int r;

	if (readable < 0)
		return readable;
	r = confine(&(struct isolate){.read_all = true, .readable = readable, .writable = out},
		    err);
	return r < 0 ? r : store_open(o->store, STORE_READER, NULL, ret, err);
}

static int do_pack(const struct options *o, char **args, sigset_t *ends, struct error *err)
{
	const struct pack_options options = { .force = o->force, .stopped = stopped, .arg = ends };
	nsec_t start = time_now();
	struct store *store = NULL;
	struct pack_result result;
	const char *name;
	_cleanup_close_ int out = open_parent(args[1], &name, err);
	int r = out < 0 ? out : open_store_confined(o, out, &store, err);

	if (r == 0)
		r = pack_checkpoint(store, args[0], out, name, &options, &result, err);
	if (r == 0)
		packed(args[0], args[1], &result, time_now() - start);
	store_close(store);
	return r;
}

static int do_unpack(const struct options *o, char **args, sigset_t *ends, struct error *err)
{
	const struct unpack_options options = { .max_bytes = o->max_bytes, .stopped = stopped,
						.arg = ends };
	/* Not a FIFO that waits for its other end. */
	_cleanup_close_ int fd = open(args[0], O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	nsec_t start = time_now();
	struct unpack_result result;
	_cleanup_close_ int out = -1;
	const char *name;
	int r;

	if (fd < 0)
		return error_sys(err, errno, "open %s", args[0]);
	out = open_parent(args[1], &name, err);
	if (out < 0)
		return out;
	r = confine(&(struct isolate){ .readable = -1, .writable = out }, err);
	if (r == 0)
		r = unpack_checkpoint(fd, out, name, &options, &result, err);
	if (r < 0)
		return r;
	report(result.ref, args[1], result.files, result.bytes, (uint64_t)lseek(fd, 0, SEEK_END),
	       time_now() - start, &result.image);
	return 0;
}

static int do_serve(const struct options *o, char **args, sigset_t *ends, struct error *err)
{
	_cleanup_close_ int out = open_dir(o->out, O_RDONLY, err);
	struct store *store = NULL;
	int r = out < 0 ? out : open_store_confined(o, out, &store, err);

	(void)args;
	if (r == 0)
		r = serve(&(struct serve_config){ .store = store, .out = out, .ends = ends,
						  .stopped = stopped, .arg = ends, .packed = packed,
						  .pause = PAUSE }, err);
	store_close(store);
	return r;
}

static const struct verb {
	const char *name;
	int n_args;
	bool reads_store;
	int (*run)(const struct options *o, char **args, sigset_t *ends, struct error *err);
} verbs[] = {
	{ "pack", 2, true, do_pack },
	{ "unpack", 2, false, do_unpack },
	{ "serve", 0, true, do_serve },
};

static int run(const struct verb *v, const struct options *o, char **args)
{
	struct error err = ERROR_NULL;
	sigset_t ends;
	int r = close_range(3, ~0U, 0) < 0 ? error_sys(&err, errno, "close descriptors") : 0;

	if (r == 0)
		r = block_ends(&ends, &err);
	if (r == 0)
		r = isolate_user(o->user, v->reads_store, &err);
	if (r == 0)
		r = v->run(o, args, &ends, &err);
	if (r < 0)
		log_error("sidecar failed", F_STR("op", v->name),
			  F_STR("reason", reason_name(err.reason)), F_ERR(&err));
	return r < 0 ? 1 : 0;
}

/* Returns an exit status, or -1 to go on. */
static int parse(int argc, char **argv, struct options *o)
{
	static const struct option known[] = { { "store", required_argument, NULL, 's' },
					       { "out", required_argument, NULL, 'o' },
					       { "user", required_argument, NULL, 'u' },
					       { "max-size", required_argument, NULL, 'm' },
					       { "force", no_argument, NULL, 'f' },
					       { "version", no_argument, NULL, 'v' },
					       { "help", no_argument, NULL, 'h' },
					       { 0 } };
	int opt;

	while ((opt = getopt_long(argc, argv, "hv", known, NULL)) != -1) {
		if (opt == 's')
			o->store = optarg;
		else if (opt == 'o')
			o->out = optarg;
		else if (opt == 'u')
			o->user = optarg;
		else if (opt == 'f')
			o->force = true;
		else if (opt == 'm' && num_parse(optarg, UINT64_MAX, &o->max_bytes) == 0)
			continue;
		else if (opt == 'h')
			return usage(stdout, 0);
		else if (opt == 'v')
			return printf("kybernate-sidecar %s\n", KYB_VERSION) < 0;
		else
			return usage(stderr, 2);
	}
	return -1;
}

int main(int argc, char **argv)
{
	struct options o = { .store = STORE };
	int status = parse(argc, argv, &o), n = argc - optind - 1;

	if (status >= 0)
		return status;
	for (size_t i = 0; n >= 0 && i < ARRAY_SIZE(verbs); i++)
		if (strcmp(argv[optind], verbs[i].name) == 0)
			return n != verbs[i].n_args || (verbs[i].run == do_serve) != (o.out != NULL)
				       ? usage(stderr, 2)
				       : run(&verbs[i], &o, argv + optind + 1);
	return usage(stderr, 2);
}
