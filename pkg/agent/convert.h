/* SPDX-License-Identifier: Apache-2.0 */
/* Between the messages of agent.proto and the plain structs of pkg/checkpoint. */
#ifndef KYB_AGENT_CONVERT_H
#define KYB_AGENT_CONVERT_H

#include "api/agent/v1/agent.pb-c.h"
#include "artifact/store.h"
#include "checkpoint/operation.h"

/* The generated names are long. */
typedef Kybernate__Agent__V1__Error pb_error;
typedef Kybernate__Agent__V1__Progress pb_progress;
typedef Kybernate__Agent__V1__PhaseTime pb_phase_time;
typedef Kybernate__Agent__V1__CheckpointInfo pb_checkpoint_info;
typedef Kybernate__Agent__V1__OrderResult pb_order_result;

/* First requests of the three streams. Strings are borrowed from the message, the rest is in mem. */
int convert_checkpoint_request(const Kybernate__Agent__V1__CheckpointRequest *m,
			       struct operation_request *ret, struct arena *mem,
			       struct error *err);
int convert_suspend_request(const Kybernate__Agent__V1__SuspendRequest *m,
			    struct operation_request *ret, struct arena *mem, struct error *err);
int convert_restore_request(const Kybernate__Agent__V1__RestoreRequest *m,
			    struct operation_request *ret, struct error *err);

/* The mounts that were kept with a checkpoint. *ret points into mem; NULL when out of memory. */
size_t convert_mounts(const struct mount_record *mounts, size_t n, struct arena *mem,
		      Kybernate__Agent__V1__Mount ***ret);

/* What op's processes hold, for the shim to keep. Returns 0 or -ENOMEM. */
int convert_make_held(const struct operation *op, struct arena *mem, ProtobufCBinaryData *ret);

/* What a shim says of an order: r and err of operation_order_done(). Its detail goes to op. */
int convert_order_result(const pb_order_result *m, struct operation *op, struct error *err);

/* Fills and returns buf. op may be NULL: then there are no details. */
pb_error *convert_error(const struct error *err, enum phase phase, const struct operation *op,
			pb_error *buf);
pb_progress *convert_progress(const struct operation *op, pb_progress *buf);
/* *ret points into mem; NULL when out of memory. */
size_t convert_timeline(const struct operation *op, struct arena *mem, pb_phase_time ***ret);
/* Returns NULL when out of memory. */
pb_checkpoint_info *convert_checkpoint_info(const struct metadata *m, struct arena *mem);

#endif
