/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What containerd writes to the stdin of `start`. Until 2.2: the runtime options as an Any, or
 * nothing. From 2.3 on: BootstrapParams, which hold the options in an extension. An Any decodes as
 * BootstrapParams as well (both begin with two length-delimited fields), so what came is told by
 * the ids that the command line names too.
 * Sources: containerd 2.3 pkg/shim/compat.go, api/runtime/bootstrap/v1/bootstrap.proto.
 */
#ifndef KYB_OCI_BOOTSTRAP_H
#define KYB_OCI_BOOTSTRAP_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/time.h"
#include "oci/options.h"

#define BOOTSTRAP_MAX ((size_t)10 << 20)

struct bootstrap {
	struct arena mem;
	/* BootstrapParams came: `start` must answer with a BootstrapResult. Without, the members up
	 * to options are "" and LOG_INFO. */
	bool params;
	const char *id, *namespace;
	enum log_level log_level;
	const char *ttrpc_address, *grpc_address;
	const char *socket_dir; /* where the socket goes; "" = the default */
	struct runtime_options options;
};

/*
 * Reads fd to its end into out (which should be BUF_LIMIT(BOOTSTRAP_MAX)). Waits until deadline,
 * absolute. Returns 0, -EFBIG, -ETIMEDOUT or -errno.
 */
int bootstrap_read(int fd, nsec_t deadline, struct buf *out, struct error *err);

/*
 * id and namespace are those of the command line; NULL where it names none, then only
 * BootstrapParams whose ids are well-formed are taken for such. Returns 0, -EINVAL (neither the one
 * nor the other, or options that are not understood) or -ENOMEM; as runtime_options_parse()
 * otherwise. Free with bootstrap_done() after success.
 */
int bootstrap_parse(struct bytes input, const char *id, const char *namespace,
		    struct bootstrap *ret, struct error *err);
void bootstrap_done(struct bootstrap *b);

#endif
