/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events to containerd: one queue, strictly in order, never in an RPC's way. Service
 * containerd.services.events.ttrpc.v1.Events, method Forward. Source: containerd
 * pkg/shim/publisher.go.
 *
 * While containerd is away the head of the queue is retried, so that a TaskExit can never
 * overtake or fall behind its neighbours; events older than a limit are dropped: after a restart
 * containerd asks for the state of every task anyway.
 */
#ifndef KYB_SHIM_EVENTS_H
#define KYB_SHIM_EVENTS_H

#include <protobuf-c/protobuf-c.h>

#include "base/time.h"
#include "event/loop.h"

struct publisher;

/* address: containerd's ttrpc socket (path), "" = nowhere: events are dropped. ns is borrowed.
 * Returns 0 or -errno. */
int publisher_new(struct publisher **ret, struct loop *loop, const char *address, const char *ns);
void publisher_free(struct publisher *p);

/* Queues an event: topic "/tasks/start", type "containerd.events.TaskStart". */
void publisher_send(struct publisher *p, const char *topic, const char *type,
		    const ProtobufCMessage *event);

/* Nothing queued and nothing under way? */
bool publisher_idle(const struct publisher *p);

#endif
