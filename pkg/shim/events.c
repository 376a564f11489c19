/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/events.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/containerd/events.pb-c.h"
#include "base/log.h"
#include "rpc/pb.h"
#include "rpc/ttrpc_client.h"

#define QUEUE_MAX   2048                /* the reference's size, too */
#define AGE_MAX     (30 * NSEC_PER_SEC) /* twice the reference's patience */
#define CALL_MAX    (5 * NSEC_PER_SEC)
#define RETRY_FIRST (50 * NSEC_PER_MSEC)
#define RETRY_MAX   (2 * NSEC_PER_SEC)

struct item {
	struct list node;
	nsec_t born, wall;
	const char *topic, *type; /* constants */
	struct buf event;
};

struct publisher {
	struct loop *loop;
	const char *ns;
	struct ttrpc_client *client; /* NULL: nowhere to send to */
	struct ttrpc_request request;
	struct timer retry;
	nsec_t pause;
	struct list queue;
	unsigned int n;
};

static void send_first(struct publisher *p);

static void drop_first(struct publisher *p)
{
	struct item *item = list_first(&p->queue, struct item, node);

	list_remove(&item->node);
	p->n--;
	buf_done(&item->event);
	free(item);
}

static void retry(struct timer *t)
{
	send_first(container_of(t, struct publisher, retry));
}

static void sent(struct ttrpc_request *req, int r, struct bytes payload, const struct error *err)
{
	struct publisher *p = container_of(req, struct publisher, request);
	struct item *item = list_first(&p->queue, struct item, node);

	(void)payload;
	/* What containerd refuses it would refuse again. */
	if (r < 0 && (err->rpc == RPC_UNAVAILABLE || err->rpc == RPC_DEADLINE_EXCEEDED) &&
	    time_now() - item->born < AGE_MAX) {
		timer_set(p->loop, &p->retry, time_now() + p->pause, retry);
		p->pause = p->pause * 2 < RETRY_MAX ? p->pause * 2 : RETRY_MAX;
		return;
	}
	if (r < 0)
		log_warning("event dropped", F_STR("topic", item->topic), F_ERR(err));
	p->pause = RETRY_FIRST;
	drop_first(p);
	send_first(p);
}

static void send_first(struct publisher *p)
{
	struct item *item = list_first(&p->queue, struct item, node);
	Events__ForwardRequest request = EVENTS__FORWARD_REQUEST__INIT;
	Events__Envelope envelope = EVENTS__ENVELOPE__INIT;
	Ctd__Timestamp stamp = CTD__TIMESTAMP__INIT;
	Ctd__Any any = CTD__ANY__INIT;

	if (!item)
		return;
	stamp.seconds = (int64_t)(item->wall / NSEC_PER_SEC);
	stamp.nanos = (int32_t)(item->wall % NSEC_PER_SEC);
	any.type_url = (char *)item->type;
	any.value.data = (uint8_t *)buf_bytes(&item->event).p;
	any.value.len = buf_len(&item->event);
	envelope.timestamp = &stamp;
	envelope.namespace_ = (char *)p->ns;
	envelope.topic = (char *)item->topic;
	envelope.event = &any;
	request.envelope = &envelope;
	ttrpc_client_call(p->client, &p->request, "containerd.services.events.ttrpc.v1.Events",
			  "Forward", &request.base, p->ns, time_now() + CALL_MAX, sent);
}

void publisher_send(struct publisher *p, const char *topic, const char *type,
		    const ProtobufCMessage *event)
{
	struct item *item;

	if (!p->client)
		return;
	if (p->n >= QUEUE_MAX) {
		log_warning("event dropped: the queue is full", F_STR("topic", topic));
		return;
	}
	item = calloc(1, sizeof(*item));
	if (!item || pb_pack(event, &item->event) < 0) {
		log_error("event dropped: out of memory", F_STR("topic", topic));
		if (item)
			buf_done(&item->event);
		free(item);
		return;
	}
	item->topic = topic;
	item->type = type;
	item->born = time_now();
	item->wall = time_wall();
	list_append(&p->queue, &item->node);
	p->n++;
	if (p->n == 1)
		send_first(p);
}

bool publisher_idle(const struct publisher *p)
{
	return list_empty(&p->queue);
}

int publisher_new(struct publisher **ret, struct loop *loop, const char *address, const char *ns)
{
	struct publisher *p = calloc(1, sizeof(*p));
	int r = 0;

	if (!p)
		return -ENOMEM;
	p->loop = loop;
	p->ns = ns;
	p->pause = RETRY_FIRST;
	list_init(&p->queue);
	if (*address)
		r = ttrpc_client_new(&p->client, loop, address);
	if (r < 0) {
		free(p);
		return r;
	}
	*ret = p;
	return 0;
}

void publisher_free(struct publisher *p)
{
	if (!p)
		return;
	timer_cancel(&p->retry);
	ttrpc_request_cancel(&p->request);
	while (!list_empty(&p->queue))
		drop_first(p);
	ttrpc_client_free(p->client);
	free(p);
}
