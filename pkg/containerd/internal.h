/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of this layer. */
#ifndef KYB_CONTAINERD_INTERNAL_H
#define KYB_CONTAINERD_INTERNAL_H

#include <string.h>

#include "containerd/containerd.h"

struct containerd {
	struct grpc_client *client;
};

#define CONTAINERD_NAMESPACE(ns)                                                                   \
	{                                                                                          \
		"containerd-namespace", bytes_of(ns, strlen(ns))                                   \
	}

#define CONTAINERD_LEASE(id)                                                                       \
	{                                                                                          \
		"containerd-lease", bytes_of(id, strlen(id))                                       \
	}

/* Fills err from an answer that is not OK; returns its code. */
int containerd_error(const struct grpc_status *status, const char *what, struct error *err);
/* "Checkpoint" of a method's path. */
const char *containerd_short_name(const char *method);

#endif
