/* SPDX-License-Identifier: Apache-2.0 */
/* delete REF...: takes checkpoints out of the store. One that fails does not keep the others. */
#include <limits.h>

#include "api/agent/v1/agent.pb-c.h"
#include "base/cleanup.h"
#include "base/path.h"
#include "ctl.h"
#include "doc.h"

static const struct client_method method = {
	CLIENT_METHOD("DeleteCheckpoint"),
	&kybernate__agent__v1__delete_checkpoint_reply__descriptor
};

/* {"checkpoint_ref": ..., "deleted": ..., "room_pending": ..., "error": null or {...}} */
static json_t *result_doc(const char *ref, bool room_pending, const struct fault *fault)
{
	bool deleted = fault->exit == CTL_OK;

	return json_pack("{s:o, s:b, s:b, s:o}", "checkpoint_ref", doc_string(ref), "deleted",
			 (int)deleted, "room_pending", (int)room_pending, "error",
			 deleted ? json_null() : fault_doc(fault));
}

static int delete_one(struct client *c, char *ref, bool *ret_room_pending, struct fault *fault)
{
	const Kybernate__Agent__V1__DeleteCheckpointReply *reply;
	Kybernate__Agent__V1__DeleteCheckpointRequest request =
		KYBERNATE__AGENT__V1__DELETE_CHECKPOINT_REQUEST__INIT;
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(CLIENT_MEMORY_MAX);

	request.checkpoint_ref = ref;
	reply = client_call(c, &method, &request.base, time_add(time_now(), CLIENT_ANSWER_TIME),
			    &mem, fault);
	*ret_room_pending = reply && reply->room_pending;
	return reply ? CTL_OK : fault->exit;
}

/* Prints one result, as it comes. */
static int report(const struct ctl *ctl, const char *ref, bool room_pending,
		  const struct fault *fault, json_t *all)
{
	_cleanup_text_ struct text t = TEXT_NULL;
	json_t *doc;

	if (fault->exit != CTL_OK)
		(void)ctl_complain(ctl, fault);
	if (ctl_json(ctl)) {
		doc = result_doc(ref, room_pending, fault);
		if (ctl->output == OUTPUT_JSONL)
			return ctl_print_doc(ctl, doc);
		return json_array_append_new(all, doc) < 0 ? CTL_FAILED : CTL_OK;
	}
	if (fault->exit != CTL_OK || ctl->quiet)
		return CTL_OK;
	text_printf(&t, "Deleted %s%s\n", ref,
		    room_pending ? "; its files are still being removed" : "");
	return ctl_print(ctl, &t);
}

/* Returns the exit status of the first that failed. */
static int delete_all(const struct ctl *ctl, struct client *c, char *const *refs, json_t *all)
{
	int first = CTL_OK;

	for (; *refs; refs++) {
		_cleanup_fault_ struct fault fault = FAULT_NULL;
		bool room_pending;
		int exit = delete_one(c, *refs, &room_pending, &fault), printed;

		printed = report(ctl, *refs, room_pending, &fault, all);
		exit = exit == CTL_OK ? printed : exit;
		first = first == CTL_OK ? exit : first;
		if (c->signo || exit == CTL_UNREACHABLE)
			break; /* nobody would answer for the rest */
	}
	return first;
}

static int run(struct ctl *ctl, const void *args, char *const *operands)
{
	_cleanup_fault_ struct fault fault = FAULT_NULL;
	json_t *all = json_array();
	struct client client;
	int exit, printed;

	(void)args;
	for (size_t i = 0; operands[i]; i++) {
		if (!ref_valid(operands[i])) {
			json_decref(all);
			return ctl_usage(ctl, "\"%s\" is no name for a checkpoint", operands[i]);
		}
	}
	exit = client_open(&client, ctl->socket, &fault);
	if (exit != CTL_OK) {
		json_decref(all);
		return ctl_fail(ctl, &fault);
	}
	exit = delete_all(ctl, &client, operands, all);
	client_close(&client);
	if (ctl->output != OUTPUT_JSON) {
		json_decref(all);
		return exit;
	}
	printed = ctl_print_doc(ctl, json_pack("{s:o}", "checkpoints", all));
	return exit == CTL_OK ? printed : exit;
}

const struct verb verb_delete = {
	.name = "delete",
	.operands = "REF...",
	.summary = "delete checkpoints",
	.about = "Deletes checkpoints from the agent's store. Where one cannot be deleted, the\n"
		 "others are all the same; the exit status is that of the first failure. Returns when\n"
		 "the room is free, or says that it is not yet.",
	.min_operands = 1,
	.max_operands = INT_MAX,
	.run = run,
};
