/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an agent that died has left half done, taken up by the next one. Each record of the journal
 * becomes an operation again, which waits for its shim: that one has kept the container as it was
 * and comes back by itself. Then
 *
 *	- a dump that has succeeded, or does so now, is finished, as if nothing had happened;
 *	- everything else is taken back: CRIU lets go, the container is thawed, every CUDA process
 *	  is RUNNING again, whatever state it is found in. What is in the store unsealed goes.
 *
 * When the shim does not come, because it has died too or has given up, the same is done without
 * it. A resume needs nothing as long as its shim lives, which has paused the container again: it can
 * be resumed from wherever it is. Without a shim nobody ever will, and what runs is brought back.
 *
 * A record that cannot be read still says by its name whose it was. Its container is searched for,
 * and whatever was begun is taken back: at once where it runs, else when its shim comes. Where none
 * does, it stands still for a reason of its own (suspended, or on its way from there), and stays so.
 *
 * A shim that comes back although there is no record at all is refused, and its container is brought
 * back all the same: the shim has said which it is.
 *
 * A checkpoint into the store is always taken back, unless it is sealed, even when its images are
 * whole: the operator's call that asked for it, and knew what belongs into it, has died with the
 * agent, so he has been told that it failed. Sealed all the same it would be a checkpoint, or with
 * exit the end of a container, that nobody expects any more. He asks again.
 */
#ifndef KYB_CHECKPOINT_REVIVE_H
#define KYB_CHECKPOINT_REVIVE_H

#include "checkpoint/operation.h"

/* Takes up all that the journal holds. To be called once, before shims are served. */
int revive_all(struct node *node, struct error *err);

/* Is a checkpoint of this ref among them? For store_clean(); data is the node. */
bool revive_keeps(void *data, const char *ref);

/*
 * The shim of an operation is back (req->resume); answered: the result r, err of its last order is
 * known, else operation_order_done() follows. Returns 0, or negative with err when no operation of
 * a former agent waits for this shim (AGENT_UNAVAILABLE: what there was has been undone, or is
 * being undone now).
 */
int revive_claim(struct node *node, const struct operation_request *req,
		 const struct operation_host *host, void *host_data, bool answered, int r,
		 const struct error *result, struct operation **ret, struct error *err);

#endif
