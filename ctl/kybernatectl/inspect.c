/* SPDX-License-Identifier: Apache-2.0 */
/* inspect REF: all that is known of a checkpoint. */
#include <inttypes.h>
#include <string.h>

#include "api/agent/v1/agent.pb-c.h"
#include "base/cleanup.h"
#include "base/path.h"
#include "conf/json.h"
#include "ctl.h"
#include "doc.h"
#include "human.h"
#include "table.h"

typedef Kybernate__Agent__V1__GetCheckpointReply pb_reply;
typedef Kybernate__Agent__V1__CheckpointInfo pb_info;

/* Hashing a checkpoint of a terabyte takes so long on a slow disk. */
#define VERIFY_TIME (3600 * NSEC_PER_SEC)

struct args {
	bool files, verify;
};

static const struct opt options[] = {
	{ "files", 'f', NULL, "list its files", offsetof(struct args, files), option_switch },
	{ "verify", 0, NULL, "read every file and compare its hash",
	  offsetof(struct args, verify), option_switch },
};

static const struct client_method method = {
	CLIENT_METHOD("GetCheckpoint"), &kybernate__agent__v1__get_checkpoint_reply__descriptor
};

static const struct table_column pairs[] = { { NULL, false }, { NULL, false } };

/* A row, unless there is nothing to say. */
static void pair(struct table *t, const char *key, const char *value)
{
	if (!*value)
		return;
	table_cell_styled(t, STYLE_DIM, key);
	table_cell(t, value);
}

static void add_origin(struct table *t, const pb_info *info)
{
	_cleanup_text_ struct text s = TEXT_NULL;
	char age[HUMAN_MAX];
	nsec_t at, now = time_wall();

	pair(t, "Checkpoint", info->checkpoint_ref);
	text_add(&s, info->created_at);
	if (human_time(info->created_at, &at) == 0)
		text_printf(&s, " (%s)", human_age(now > at ? now - at : 0, age));
	pair(t, "Created", text_str(&s));
	pair(t, "Container", info->container_id);
	pair(t, "Namespace", info->containerd_namespace);
	text_clear(&s);
	if (*info->pod_name)
		text_printf(&s, "%s/%s", info->pod_namespace, info->pod_name);
	if (*info->pod_uid)
		text_printf(&s, "%s(uid %s)", *info->pod_name ? " " : "", info->pod_uid);
	pair(t, "Pod", text_str(&s));
	pair(t, "Image", info->image);
	pair(t, "Runtime", info->runtime);
}

static void add_content(struct table *t, const pb_reply *reply, bool verify)
{
	const pb_info *info = reply->checkpoint;
	_cleanup_text_ struct text s = TEXT_NULL;
	char size[HUMAN_MAX];

	text_printf(&s, "%s in %" PRIu32 " file%s", human_size(info->size_bytes, size), info->files,
		    info->files == 1 ? "" : "s");
	pair(t, "Size", text_str(&s));
	pair(t, "GPU memory", human_size(info->vram_bytes, size));
	pair(t, "GPU driver", info->driver_version);
	text_clear(&s);
	if (*info->gpu_group)
		text_printf(&s, "group %s%s", info->gpu_group, *info->gpu_seat ? ", " : "");
	if (*info->gpu_seat)
		text_printf(&s, "seat %s", info->gpu_seat);
	pair(t, "GPU seat", text_str(&s));
	if (verify) {
		table_cell_styled(t, STYLE_DIM, "Verified");
		table_cell_styled(t, reply->verified ? STYLE_GOOD : STYLE_BAD,
				  reply->verified ? "yes, every file has its hash" : "no");
	}
}

static void print_processes(const pb_info *info, bool colour, struct text *out)
{
	static const struct table_column columns[] = {
		{ "PID", true }, { "NS-PID", true }, { "NAME", false },
		{ "VRAM", true }, { "GPUS", false },
	};
	_cleanup_table_ struct table t = TABLE_OF(columns);
	char buf[HUMAN_MAX];

	if (!info->n_processes)
		return;
	for (size_t i = 0; i < info->n_processes; i++) {
		const Kybernate__Agent__V1__GpuProcess *p = info->processes[i];
		_cleanup_text_ struct text gpus = TEXT_NULL;

		(void)snprintf(buf, sizeof(buf), "%" PRIu32, p->pid);
		table_cell(&t, buf);
		(void)snprintf(buf, sizeof(buf), "%" PRIu32, p->ns_pid);
		table_cell(&t, buf);
		table_cell(&t, p->name);
		table_cell(&t, human_size(p->vram_bytes, buf));
		for (size_t k = 0; k < p->n_gpu_uuids; k++)
			text_printf(&gpus, "%s%s", k ? " " : "", p->gpu_uuids[k]);
		table_cell(&t, text_str(&gpus));
	}
	text_add(out, "\nGPU processes, as they were:\n");
	table_write(&t, 2, colour, out);
}

static void print_files(const pb_reply *reply, bool colour, struct text *out)
{
	static const struct table_column columns[] = {
		{ "SIZE", true }, { "SHA-256", false }, { "FILE", false },
	};
	_cleanup_table_ struct table t = TABLE_OF(columns);
	char buf[HUMAN_MAX];

	for (size_t i = 0; i < reply->n_files; i++) {
		table_cell(&t, human_size(reply->files[i]->size, buf));
		table_cell(&t, reply->files[i]->sha256);
		table_cell(&t, reply->files[i]->path);
	}
	text_add(out, "\nFiles:\n");
	table_write(&t, 2, colour, out);
}

static int print_text(const struct ctl *ctl, const pb_reply *reply, const struct args *args)
{
	_cleanup_text_ struct text t = TEXT_NULL;
	_cleanup_table_ struct table table = TABLE_OF(pairs);

	if (ctl->quiet) {
		text_escaped(&t, reply->checkpoint->checkpoint_ref);
		text_add(&t, "\n");
		return ctl_print(ctl, &t);
	}
	add_origin(&table, reply->checkpoint);
	add_content(&table, reply, args->verify);
	table_write(&table, 0, ctl->out.colour, &t);
	print_processes(reply->checkpoint, ctl->out.colour, &t);
	if (args->files)
		print_files(reply, ctl->out.colour, &t);
	return ctl_print(ctl, &t);
}

/* As the agent's reply, but with metadata.json as a document instead of a text in a string. */
static int print_doc(const struct ctl *ctl, const pb_reply *reply, const struct args *args)
{
	struct bytes text = bytes_of(reply->metadata_json, strlen(reply->metadata_json));
	json_t *doc = doc_message(&reply->base), *metadata = NULL;
	struct error err = ERROR_NULL;

	if (!doc)
		return ctl_print_doc(ctl, NULL);
	if (json_doc_parse(text, &metadata, &err) < 0)
		metadata = json_null();
	if (!args->files)
		(void)json_object_del(doc, "files");
	(void)json_object_del(doc, "metadata_json");
	if (json_object_set_new(doc, "metadata", metadata) < 0) {
		json_decref(doc);
		doc = NULL;
	}
	return ctl_print_doc(ctl, doc);
}

static int run(struct ctl *ctl, const void *given, char *const *operands)
{
	Kybernate__Agent__V1__GetCheckpointRequest request =
		KYBERNATE__AGENT__V1__GET_CHECKPOINT_REQUEST__INIT;
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(CLIENT_MEMORY_MAX);
	_cleanup_fault_ struct fault fault = FAULT_NULL;
	const struct args *args = given;
	const pb_reply *reply;
	int exit;

	if (!ref_valid(operands[0]))
		return ctl_usage(ctl, "\"%s\" is no name for a checkpoint", operands[0]);
	request.checkpoint_ref = operands[0];
	request.verify = args->verify;
	reply = ctl_ask(ctl, &method, &request.base,
			args->verify ? VERIFY_TIME : CLIENT_ANSWER_TIME, &mem, &fault);
	if (reply && !reply->checkpoint) {
		(void)client_bad_answer(&fault);
		reply = NULL;
	}
	if (!reply)
		return ctl_fail(ctl, &fault);
	exit = ctl_json(ctl) ? print_doc(ctl, reply, args) : print_text(ctl, reply, args);
	if (exit != CTL_OK || !args->verify || reply->verified)
		return exit;
	(void)fault_set(&fault, CTL_FAILED, REASON_IMAGE_CORRUPT,
			"the agent did not find every file as it was sealed");
	return ctl_complain(ctl, &fault);
}

const struct verb verb_inspect = {
	.name = "inspect",
	.operands = "REF",
	.summary = "show what a checkpoint holds, and whether it is whole",
	.about = "Shows a checkpoint of the agent's store: where it comes from, its size, the\n"
		 "GPUs and the driver it needs, its GPU processes. With -o json also its whole\n"
		 "metadata.json.",
	.options = options,
	.n_options = ARRAY_SIZE(options),
	.args_size = sizeof(struct args),
	.min_operands = 1,
	.max_operands = 1,
	.run = run,
};
