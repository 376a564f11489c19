/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/control.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config.h"

/* An answer: a JSON object, or NULL with err. References are the caller's. */
typedef json_t *(*command_fn)(struct server *srv, json_t *request, struct error *err);

static json_t *done_with(json_t *answer, struct error *err)
{
	if (!answer)
		(void)error_set(err, -ENOMEM, "out of memory");
	return answer;
}

/* ---- members of the request --------------------------------------------------------------- */

/* A member that must be a number of at most max if it is there. */
static int get_number(json_t *request, const char *key, uint64_t max, uint64_t *ret,
		      struct error *err)
{
	json_t *v = json_object_get(request, key);

	if (!v)
		return 0;
	if (!json_is_integer(v) || json_integer_value(v) < 0 ||
	    (uint64_t)json_integer_value(v) > max)
		return error_set(err, -EINVAL, "'%s' is not a number up to %llu", key,
				 (unsigned long long)max);
	*ret = (uint64_t)json_integer_value(v);
	return 0;
}

static int get_gpu(struct server *srv, json_t *request, struct gpu **ret, struct error *err)
{
	uint64_t i = 0;
	int r = get_number(request, "gpu", UINT32_MAX, &i, err);

	if (r < 0)
		return r;
	if (i >= srv->n_gpus)
		return error_set(err, -ENODEV, "there is no GPU %llu", (unsigned long long)i);
	*ret = &srv->gpus[i];
	return 0;
}

/* ---- what there is ------------------------------------------------------------------------ */

static json_t *gpu_json(const struct server *srv, unsigned int i)
{
	const struct gpu *gpu = &srv->gpus[i];
	json_t *procs = json_array(), *answer;
	char uuid[FG_UUID_TEXT];
	const struct session *s;

	list_for_each(s, &srv->sessions, node) {
		uint64_t n = session_vram(s, gpu);

		if (n)
			(void)json_array_append_new(procs, json_pack("{s:i, s:I}", "pid", s->pid,
								     "bytes", (json_int_t)n));
	}
	fg_uuid_text(gpu->info.uuid, uuid);
	answer = json_pack("{s:i, s:s, s:s, s:i, s:b, s:I, s:I, s:I, s:I, s:o}", "index", i,
			   "uuid", uuid, "name", gpu->info.name, "minor", gpu->info.minor, "mig",
			   gpu->info.mig, "total", (json_int_t)gpu->info.total, "used",
			   (json_int_t)gpu->info.used, "reserved", (json_int_t)gpu->reserved,
			   "free", (json_int_t)gpu_free(gpu), "processes", procs);
	return answer;
}

static json_t *cmd_status(struct server *srv, json_t *request, struct error *err)
{
	json_t *gpus = json_array(), *settings = json_object(), *answer;
	const char *name;
	uint64_t value;

	(void)request;
	for (unsigned int i = 0; i < srv->n_gpus; i++)
		(void)json_array_append_new(gpus, gpu_json(srv, i));
	for (unsigned int i = 0; (name = config_setting(&srv->settings, i, &value)); i++)
		(void)json_object_set_new(settings, name, json_integer((json_int_t)value));
	answer = json_pack("{s:s, s:i, s:i, s:I, s:o, s:o}", "driver_version", server_version(srv),
			   "cuda_version", server_cuda_version(srv), "connections",
			   srv->n_sessions, "pooled", (json_int_t)srv->pooled, "settings",
			   settings, "gpus", gpus);
	return done_with(answer, err);
}

static json_t *process_json(const struct server *srv, const struct process *p)
{
	json_t *vram = json_object();
	bool connected = false;
	uint64_t total = 0;
	const struct session *s;

	list_for_each(s, &srv->sessions, node) {
		if (s->process != p || s->role != FG_APP || s->ended)
			continue;
		connected = true;
		total += session_vram(s, NULL);
		for (unsigned int i = 0; i < srv->n_gpus; i++) {
			uint64_t n = session_vram(s, &srv->gpus[i]);
			char uuid[FG_UUID_TEXT];

			fg_uuid_text(srv->gpus[i].info.uuid, uuid);
			if (n)
				(void)json_object_set_new(vram, uuid, json_integer((json_int_t)n));
		}
	}
	return json_pack("{s:i, s:i, s:s?, s:b, s:i, s:I, s:o}", "pid", p->pid, "tid", p->tid,
			 "state", p->state < 0 ? NULL : fg_state_name(p->state), "connected",
			 connected, "waiting_calls", (int)list_count(&p->calls), "vram_total",
			 (json_int_t)total, "vram", vram);
}

static json_t *cmd_processes(struct server *srv, json_t *request, struct error *err)
{
	json_t *list = json_array();
	const struct process *p;

	(void)request;
	list_for_each(p, &srv->processes, node)
		if (p->cuda)
			(void)json_array_append_new(list, process_json(srv, p));
	return done_with(json_pack("{s:o}", "processes", list), err);
}

static json_t *moment_json(const struct calllog_moment *m)
{
	if (!m->tick)
		return json_null();
	return json_pack("{s:I, s:I}", "tick", (json_int_t)m->tick, "ns", (json_int_t)m->time);
}

static json_t *entry_json(const struct calllog_entry *e)
{
	const char *end = "answered";

	if (e->code == CALLLOG_UNDER_WAY)
		end = "under way";
	else if (e->code == CALLLOG_CRASHED)
		end = "crashed";
	else if (e->code == CALLLOG_ABANDONED)
		end = "abandoned";
	return json_pack("{s:I, s:s, s:i, s:i, s:i, s:I, s:s, s:o, s:o, s:I, s:I, s:o, s:o, s:o, "
			 "s:o}",
			 "id", (json_int_t)e->id, "call", fg_call_name(e->call), "pid", e->pid,
			 "caller", e->caller, "tid", e->tid, "timeout_ms",
			 (json_int_t)e->timeout_ms, "how", end, "code",
			 e->code < 0 ? json_null() : json_integer(e->code), "real_code",
			 e->real_code < 0 ? json_null() : json_integer(e->real_code), "value",
			 (json_int_t)e->value, "rule", (json_int_t)e->rule, "begin",
			 moment_json(&e->begin), "execute", moment_json(&e->execute), "executed",
			 moment_json(&e->executed), "end", moment_json(&e->end));
}

static json_t *cmd_log(struct server *srv, json_t *request, struct error *err)
{
	const char *name = json_string_value(json_object_get(request, "call"));
	uint64_t since = 0, pid = 0, first;
	json_t *list;

	if (get_number(request, "since", INT64_MAX, &since, err) < 0 ||
	    get_number(request, "pid", INT32_MAX, &pid, err) < 0)
		return NULL;
	if (name && fg_call_of(name) == FG_CALLS) {
		(void)error_set(err, -EINVAL, "there is no call '%s'", name);
		return NULL;
	}
	list = json_array();
	first = srv->log.last > CALLLOG_MAX ? srv->log.last - CALLLOG_MAX + 1 : 1;
	for (uint64_t id = since >= first ? since + 1 : first; id <= srv->log.last; id++) {
		const struct calllog_entry *e = calllog_get(&srv->log, id);

		if (e && (!name || e->call == fg_call_of(name)) &&
		    (!pid || (uint64_t)e->pid == pid))
			(void)json_array_append_new(list, entry_json(e));
	}
	return done_with(json_pack("{s:I, s:o}", "last", (json_int_t)srv->log.last, "calls", list),
			 err);
}

/* ---- faults ------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	unsigned int lie; /* 0 = the noop */
	unsigned int calls;
} lies[] = {
	{ "noop", 0, ~0U },
	{ "keep-connection", FG_LIE_KEEP_CONNECTION, 1U << FG_CALL_CHECKPOINT },
	{ "keep-device", FG_LIE_KEEP_DEVICE, 1U << FG_CALL_CHECKPOINT },
	{ "half-restore", FG_LIE_HALF_RESTORE, 1U << FG_CALL_RESTORE },
	{ "wrong-device", FG_LIE_WRONG_DEVICE, 1U << FG_CALL_RESTORE },
};

static int read_lie(json_t *request, struct rule *r, struct error *err)
{
	json_t *v = json_object_get(request, "lie");
	const char *name = json_string_value(v);

	if (!v)
		return 0;
	for (size_t i = 0; name && i < ARRAY_SIZE(lies); i++) {
		if (strcmp(lies[i].name, name) != 0)
			continue;
		if (r->after || (r->call != FG_CALLS && !(lies[i].calls & 1U << r->call)))
			return error_set(err, -EINVAL, "'%s' cannot lie so", fg_call_name(r->call));
		if (lies[i].lie)
			r->plan.lies = lies[i].lie;
		else
			r->plan.noop = true;
		return 0;
	}
	return error_set(err, -EINVAL, "there is no lie '%s'", name ? name : "?");
}

static int read_plan(json_t *request, struct rule *r, struct error *err)
{
	uint64_t code = 0, signo = 0;

	if (get_number(request, "delay_ms", 3600 * 1000, &r->plan.delay_ms, err) < 0 ||
	    get_number(request, "code", 9999, &code, err) < 0 ||
	    get_number(request, "value", UINT64_MAX / 2, &r->plan.value, err) < 0 ||
	    get_number(request, "target_signal", SIGRTMAX, &signo, err) < 0)
		return -EINVAL;
	r->plan.has_code = json_object_get(request, "code") != NULL;
	r->plan.code = (int)code;
	r->plan.has_value = json_object_get(request, "value") != NULL;
	r->plan.target_signal = (int)signo;
	r->plan.hang = json_is_true(json_object_get(request, "hang"));
	r->plan.crash = json_is_true(json_object_get(request, "crash"));
	return read_lie(request, r, err);
}

static int read_rule(json_t *request, struct rule *r, struct error *err)
{
	const char *call = json_string_value(json_object_get(request, "call"));
	uint64_t pid = 0;

	r->call = call && strcmp(call, "any") != 0 ? fg_call_of(call) : FG_CALLS;
	if (!call || (r->call == FG_CALLS && strcmp(call, "any") != 0))
		return error_set(err, -EINVAL, "there is no call '%s'", call ? call : "");
	if (get_number(request, "pid", INT32_MAX, &pid, err) < 0 ||
	    get_number(request, "skip", UINT32_MAX, &r->skip, err) < 0 ||
	    get_number(request, "count", UINT32_MAX, &r->count, err) < 0)
		return -EINVAL;
	r->pid = (pid_t)pid;
	r->after = json_is_true(json_object_get(request, "after"));
	return read_plan(request, r, err);
}

static json_t *cmd_fault(struct server *srv, json_t *request, struct error *err)
{
	struct rule *r;

	if (list_count(&srv->rules) >= RULES_MAX) {
		(void)error_set(err, -ENOSPC, "more than %d rules", RULES_MAX);
		return NULL;
	}
	r = calloc(1, sizeof(*r));
	if (!r)
		return done_with(NULL, err);
	if (read_rule(request, r, err) < 0) {
		free(r);
		return NULL;
	}
	r->id = ++srv->last_rule;
	list_append(&srv->rules, &r->node);
	return done_with(json_pack("{s:I}", "rule", (json_int_t)r->id), err);
}

static unsigned int held_by(struct server *srv, uint64_t rule)
{
	unsigned int n = 0;
	struct session *s;

	list_for_each(s, &srv->sessions, node)
		n += s->call.stage == CALL_HELD && s->call.plan.rule == rule;
	return n;
}

static json_t *cmd_faults(struct server *srv, json_t *request, struct error *err)
{
	json_t *list = json_array();
	struct rule *r;

	(void)request;
	list_for_each(r, &srv->rules, node)
		(void)json_array_append_new(
			list, json_pack("{s:I, s:s, s:i, s:I, s:I}", "rule", (json_int_t)r->id,
					"call", r->call == FG_CALLS ? "any" : fg_call_name(r->call),
					"pid", r->pid, "hits", (json_int_t)r->hits, "held",
					(json_int_t)held_by(srv, r->id)));
	return done_with(json_pack("{s:o}", "faults", list), err);
}

static json_t *cmd_clear(struct server *srv, json_t *request, struct error *err)
{
	uint64_t rule = 0;

	if (get_number(request, "rule", INT64_MAX, &rule, err) < 0)
		return NULL;
	fault_clear(&srv->rules, rule);
	return done_with(json_object(), err);
}

static json_t *cmd_release(struct server *srv, json_t *request, struct error *err)
{
	uint64_t rule = 0;

	if (get_number(request, "rule", INT64_MAX, &rule, err) < 0)
		return NULL;
	return done_with(json_pack("{s:i}", "released", (int)call_release(srv, rule)), err);
}

/* ---- changes ------------------------------------------------------------------------------ */

static json_t *cmd_set(struct server *srv, json_t *request, struct error *err)
{
	const char *name = json_string_value(json_object_get(request, "name"));
	struct gpu *gpu = NULL;
	uint64_t value = 0;
	int r = name ? 0 : -ENOENT;

	if (get_number(request, "value", INT64_MAX, &value, err) < 0)
		return NULL;
	if (name && strcmp(name, "mig") == 0) {
		if (get_gpu(srv, request, &gpu, err) < 0)
			return NULL;
		gpu->info.mig = value != 0;
	} else if (name) {
		r = config_set(&srv->settings, name, value);
		vram_drain_pool(srv, srv->settings.pool);
	}
	if (r < 0) {
		(void)error_set(err, r, "no such setting, or no such value");
		return NULL;
	}
	return done_with(json_object(), err);
}

/* Takes memory of a GPU away, or gives it back: room for nobody. */
static json_t *cmd_reserve(struct server *srv, json_t *request, struct error *err)
{
	struct gpu *gpu = NULL; /* gcc 14 does not see that get_gpu() sets it */
	uint64_t bytes = 0;

	if (get_gpu(srv, request, &gpu, err) < 0 ||
	    get_number(request, "bytes", INT64_MAX, &bytes, err) < 0)
		return NULL;
	gpu->reserved = bytes;
	return done_with(json_pack("{s:I}", "free", (json_int_t)gpu_free(gpu)), err);
}

static json_t *cmd_reset(struct server *srv, json_t *request, struct error *err)
{
	(void)request;
	fault_clear(&srv->rules, 0);
	(void)call_release(srv, 0);
	calllog_clear(&srv->log);
	srv->settings = srv->config.settings;
	vram_drain_pool(srv, srv->settings.pool);
	for (unsigned int i = 0; i < srv->n_gpus; i++)
		srv->gpus[i].reserved = 0;
	return done_with(json_object(), err);
}

static const struct {
	const char *name;
	command_fn run;
} commands[] = {
	{ "status", cmd_status },   { "processes", cmd_processes }, { "log", cmd_log },
	{ "fault", cmd_fault },     { "faults", cmd_faults },       { "clear", cmd_clear },
	{ "release", cmd_release }, { "set", cmd_set },             { "reserve", cmd_reserve },
	{ "reset", cmd_reset },
};

static json_t *run_command(struct server *srv, json_t *request, struct error *err)
{
	const char *name = json_string_value(json_object_get(request, "cmd"));

	for (size_t i = 0; name && i < ARRAY_SIZE(commands); i++)
		if (strcmp(commands[i].name, name) == 0)
			return commands[i].run(srv, request, err);
	(void)error_set(err, -EINVAL, "there is no command '%s'", name ? name : "");
	return NULL;
}

int control_request(struct session *s, const struct fg_msg *m)
{
	struct fg_msg answer = { .type = FG_RESULT, .n = 1, .seq = m->seq, .fd = -1 };
	json_t *request = json_loadb(m->data, m->len, JSON_REJECT_DUPLICATES, NULL);
	struct error err = ERROR_NULL;
	json_t *result = NULL;
	char *text;

	if (json_is_object(request))
		result = run_command(s->srv, request, &err);
	else
		(void)error_set(&err, -EBADMSG, "the request is not a JSON object");
	json_decref(request);
	if (!result) {
		answer.arg[0] = 1;
		result = json_pack("{s:s}", "error", error_text(&err));
	}
	text = json_dumps(result, JSON_COMPACT);
	json_decref(result);
	if (!text)
		return -ENOMEM;
	answer.data = text;
	answer.len = strlen(text);
	session_send(s, &answer);
	free(text);
	return 0;
}
