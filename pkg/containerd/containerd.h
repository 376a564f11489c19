/* SPDX-License-Identifier: Apache-2.0 */
/*
 * containerd's own gRPC API, as far as the agent needs it: what is done to a container is done
 * through it, so that containerd's view stays true.
 */
#ifndef KYB_CONTAINERD_CONTAINERD_H
#define KYB_CONTAINERD_CONTAINERD_H

#include <protobuf-c/protobuf-c.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "event/loop.h"
#include "rpc/grpc_client.h"

#define CTD_CONTAINERS "/containerd.services.containers.v1.Containers/"
#define CTD_TASKS      "/containerd.services.tasks.v1.Tasks/"
#define CTD_SNAPSHOTS  "/containerd.services.snapshots.v1.Snapshots/"
#define CTD_DIFF       "/containerd.services.diff.v1.Diff/"
#define CTD_CONTENT    "/containerd.services.content.v1.Content/"
#define CTD_VERSION    "/containerd.services.version.v1.Version/"
#define CTD_LEASES     "/containerd.services.leases.v1.Leases/"

struct containerd;

/* path: containerd's socket. Nothing is connected yet. Returns 0, -ENOMEM or -ENAMETOOLONG. */
int containerd_new(struct containerd **ret, struct loop *loop, const char *path);
/* Not from inside a callback; calls are forgotten. NULL is fine. */
void containerd_free(struct containerd *c);

/* A unary call. Zero-initialise it once; embedded by its owner. */
struct containerd_call {
	struct grpc_stream *stream; /* NULL = not under way */
	const char *method;
	const ProtobufCMessageDescriptor *type;
	struct arena arena;
	/*
	 * r = 0 and reply, a message of the type asked for that stays until the call is used
	 * again or containerd_call_done(); or negative with err: REASON_CONTAINERD_FAILED, or of
	 * CTD_TASKS the reason that the shim gave ("REASON: message", see reason_in_text());
	 * err->rpc is containerd's own code.
	 */
	void (*done)(struct containerd_call *call, int r, const void *reply,
		     const struct error *err);
};

/*
 * Calls method (one of the prefixes above and its name) in namespace ns. lease: what the call
 * makes becomes part of it, so that it is not collected; NULL = none. done() is called once,
 * from the loop, unless the call is canceled. Returns 0, or negative with err; then done() is not
 * called.
 */
int containerd_call(struct containerd *c, struct containerd_call *call, const char *ns,
		    const char *lease, const char *method, const ProtobufCMessage *request,
		    const ProtobufCMessageDescriptor *reply_type, nsec_t deadline,
		    void (*done)(struct containerd_call *call, int r, const void *reply,
				 const struct error *err),
		    struct error *err);
/* Forgets the call and frees the reply. Harmless when there is none. */
void containerd_call_done(struct containerd_call *call);

/* --- content: bytes in and out of containerd's content store -------------------------------- */

/*
 * Carries the content of a digest into a pipe (fd, given away), or a pipe's bytes into new
 * content; never blocks. Zero-initialise it once.
 */
struct containerd_copy {
	struct containerd *c;
	struct grpc_stream *stream; /* NULL = not under way */
	struct loop *loop;
	struct source src;
	struct buf held; /* read from one side, not yet taken by the other */
	int64_t offset;       /* bytes carried so far */
	int64_t acknowledged; /* of a write: how many containerd says it has */
	bool ended, committing;
	char digest[80]; /* out, after a write: "sha256:..." */
	struct error err;
	struct job job;
	void (*done)(struct containerd_copy *copy, int r, const struct error *err);
};

int containerd_read(struct containerd *c, struct containerd_copy *copy, struct loop *loop,
		    const char *ns, const char *digest, int fd, nsec_t deadline,
		    void (*done)(struct containerd_copy *copy, int r, const struct error *err),
		    struct error *err);
/*
 * ref: a name for the upload, unique in the namespace. lease: of which the content becomes part,
 * so that it is not collected.
 */
int containerd_write(struct containerd *c, struct containerd_copy *copy, struct loop *loop,
		     const char *ns, const char *lease, const char *ref, int fd, nsec_t deadline,
		     void (*done)(struct containerd_copy *copy, int r, const struct error *err),
		     struct error *err);
/* Gives up; done() is not called. Harmless when not under way. */
void containerd_copy_cancel(struct containerd_copy *copy);

#endif
