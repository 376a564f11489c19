/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options that reach a shim as google.protobuf.Any: of a runtime (with Create, and on the stdin
 * of `start`) and of a checkpoint. Which message comes depends on the runtime's name and on
 * containerd's release; all of them end in the two structs below.
 *
 * Sources: containerd api/types/runc/options/oci.proto, api/types/runtimeoptions/v1/api.proto,
 * runtime/linux/runctypes/runc.proto (1.6); who sends which: internal/cri/config/config.go
 * (GenerateRuntimeOptions), cmd/ctr/commands/run/run_unix.go.
 */
#ifndef KYB_OCI_OPTIONS_H
#define KYB_OCI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"

/*
 * X(type, member, key in TOML and of the Go struct); the member's name is the key in JSON and in
 * the proto. Strings are "" when not set.
 */
#define RUNTIME_OPTIONS(X)                                                                         \
	X(BOOL, no_pivot_root, "NoPivotRoot")                                                      \
	X(BOOL, no_new_keyring, "NoNewKeyring")                                                    \
	X(STRING, shim_cgroup, "ShimCgroup")                                                       \
	X(UINT, io_uid, "IoUid")                                                                   \
	X(UINT, io_gid, "IoGid")                                                                   \
	X(STRING, binary_name, "BinaryName") /* the OCI runtime */                                 \
	X(STRING, root, "Root")                                                                    \
	X(STRING, criu_path, "CriuPath") /* until containerd 1.7 */                                \
	X(BOOL, systemd_cgroup, "SystemdCgroup")                                                   \
	X(STRING, criu_image_path, "CriuImagePath")                                                \
	X(STRING, criu_work_path, "CriuWorkPath")

struct runtime_options {
	struct arena mem;
#define RUNTIME_OPTION_BOOL   bool
#define RUNTIME_OPTION_UINT   uint32_t
#define RUNTIME_OPTION_STRING const char *
#define X(type, member, key)  RUNTIME_OPTION_##type member;
	RUNTIME_OPTIONS(X)
#undef X
	/* Keys of the TOML that we do not know, "A, B", worth a warning; NULL = none. */
	const char *unknown;
};

/*
 * type_url may begin with "type.googleapis.com/"; "" with an empty value means that the client set
 * no options. Files named by the options (runtimeoptions' config_path) are read here. Returns 0;
 * -EINVAL: a type or content that is not understood (RPC_INVALID_ARGUMENT); -ENOMEM or -errno of
 * the file. Free with runtime_options_done() after success.
 */
int runtime_options_parse(const char *type_url, struct bytes value, struct runtime_options *ret,
			  struct error *err);
/* Is this one of the types that runtime_options_parse() understands? */
bool runtime_options_type(const char *type_url);
/* All defaults: *ret holds no memory. */
void runtime_options_init(struct runtime_options *ret);
/* Harmless on zeroed options. */
void runtime_options_done(struct runtime_options *o);

/*
 * What a shim leaves in a bundle for `delete`, which may be run by another binary than the one that
 * created it: options.json (all options, keys as in the proto, what is not set left out) and
 * runtime (binary_name again), both 0600. Source: containerd
 * cmd/containerd-shim-runc-v2/runc/container.go. Returns 0 or -errno.
 */
int runtime_options_write(int bundle_fd, const struct runtime_options *o, struct error *err);
/*
 * Reads them back, also those of other shims and releases: a missing file means that nothing was
 * set, an unknown key is skipped. Returns 0, -EBADMSG (not ours to understand) or -errno.
 */
int runtime_options_read(int bundle_fd, struct runtime_options *ret, struct error *err);

struct checkpoint_options {
	struct arena mem;
	bool exit, open_tcp, external_unix_sockets, terminal, file_locks;
	const char **empty_namespaces; /* n_empty_namespaces of them */
	size_t n_empty_namespaces;
	const char *image_path, *work_path, *parent_path; /* "" when not set */
	const char *ref; /* the agent's own store, under this reference; NULL = not */
};

/* As runtime_options_parse(), for containerd.runc.v1.CheckpointOptions and its predecessor, whose
 * image_path and work_path are the other way round. REASON_REF_INVALID: a malformed reference. */
int checkpoint_options_parse(const char *type_url, struct bytes value,
			     struct checkpoint_options *ret, struct error *err);
void checkpoint_options_done(struct checkpoint_options *o);

#endif
