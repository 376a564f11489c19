/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nvml-call LIBRARY: all that a libnvidia-ml.so.1 tells, as JSON. A call that fails appears as
 * {"error": code}.
 */
#include <dlfcn.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "driver/nvml_abi.h"

#define PROCESSES_MAX 64

struct nvml {
	void *lib;
	fnv_result (*init)(void);
	fnv_result (*shutdown)(void);
	const char *(*text)(fnv_result);
	fnv_result (*version)(char *, unsigned int);
	fnv_result (*count)(unsigned int *);
	fnv_result (*by_index)(unsigned int, fnv_device *);
	fnv_result (*by_uuid)(const char *, fnv_device *);
	fnv_result (*uuid)(fnv_device, char *, unsigned int);
	fnv_result (*name)(fnv_device, char *, unsigned int);
	fnv_result (*memory)(fnv_device, struct fnv_memory *);
	fnv_result (*processes)(fnv_device, unsigned int *, struct fnv_process *);
	fnv_result (*mig)(fnv_device, unsigned int *, unsigned int *);
	fnv_result (*persistence)(fnv_device, int *);
	fnv_result (*minor)(fnv_device, unsigned int *);
};

static int load(struct nvml *n, const char *path)
{
	struct {
		void *member;
		const char *symbol;
	} const table[] = {
		{ &n->init, "nvmlInit_v2" },
		{ &n->shutdown, "nvmlShutdown" },
		{ &n->text, "nvmlErrorString" },
		{ &n->version, "nvmlSystemGetDriverVersion" },
		{ &n->count, "nvmlDeviceGetCount_v2" },
		{ &n->by_index, "nvmlDeviceGetHandleByIndex_v2" },
		{ &n->by_uuid, "nvmlDeviceGetHandleByUUID" },
		{ &n->uuid, "nvmlDeviceGetUUID" },
		{ &n->name, "nvmlDeviceGetName" },
		{ &n->memory, "nvmlDeviceGetMemoryInfo" },
		{ &n->processes, "nvmlDeviceGetComputeRunningProcesses_v3" },
		{ &n->mig, "nvmlDeviceGetMigMode" },
		{ &n->persistence, "nvmlDeviceGetPersistenceMode" },
		{ &n->minor, "nvmlDeviceGetMinorNumber" },
	};

	n->lib = dlopen(path, RTLD_NOW);
	for (size_t i = 0; n->lib && i < sizeof(table) / sizeof(table[0]); i++) {
		void *p = dlsym(n->lib, table[i].symbol);

		if (!p) {
			(void)fprintf(stderr, "nvml-call: no %s\n", table[i].symbol);
			return -1;
		}
		memcpy(table[i].member, &p, sizeof(p));
	}
	return n->lib ? 0 : -1;
}

/* Takes value over; the error instead, if there is one. */
static json_t *or_error(fnv_result r, json_t *value)
{
	if (r == FNV_SUCCESS)
		return value;
	json_decref(value);
	return json_pack("{s:i}", "error", r);
}

static json_t *memory_of(const struct nvml *n, fnv_device d)
{
	struct fnv_memory m = { 0 };
	fnv_result r = n->memory(d, &m);

	return or_error(r, json_pack("{s:I, s:I, s:I}", "total", (json_int_t)m.total, "free",
				     (json_int_t)m.free, "used", (json_int_t)m.used));
}

static json_t *processes_of(const struct nvml *n, fnv_device d)
{
	struct fnv_process p[PROCESSES_MAX];
	unsigned int count = 0, wanted;
	json_t *list = json_array();
	fnv_result r = n->processes(d, &count, NULL);

	/* As every caller must: ask how many there are, then for that many. */
	wanted = count;
	if (r == FNV_INSUFFICIENT_SIZE && count <= PROCESSES_MAX)
		r = n->processes(d, &count, p);
	for (unsigned int i = 0; r == FNV_SUCCESS && wanted && i < count; i++)
		(void)json_array_append_new(
			list, json_pack("{s:i, s:I}", "pid", (int)p[i].pid, "bytes",
					(json_int_t)p[i].used_memory));
	return or_error(r, list);
}

static json_t *device(const struct nvml *n, unsigned int index)
{
	unsigned int mig = 0, pending = 0, minor = 0;
	char uuid[96] = "", name[96] = "", tiny[4];
	fnv_device d, same = NULL;
	fnv_result r = n->by_index(index, &d);
	json_t *o = json_object();
	int persistence = 0;

	if (r != FNV_SUCCESS)
		return or_error(r, o);
	r = n->uuid(d, uuid, sizeof(uuid));
	(void)json_object_set_new(o, "uuid", or_error(r, json_string(uuid)));
	r = n->name(d, name, sizeof(name));
	(void)json_object_set_new(o, "name", or_error(r, json_string(name)));
	(void)json_object_set_new(o, "memory", memory_of(n, d));
	(void)json_object_set_new(o, "processes", processes_of(n, d));
	r = n->mig(d, &mig, &pending);
	(void)json_object_set_new(o, "mig", or_error(r, json_integer(mig)));
	r = n->persistence(d, &persistence);
	(void)json_object_set_new(o, "persistence", or_error(r, json_integer(persistence)));
	r = n->minor(d, &minor);
	(void)json_object_set_new(o, "minor", or_error(r, json_integer(minor)));
	r = n->by_uuid(uuid, &same);
	(void)json_object_set_new(o, "by_uuid", or_error(r, json_boolean(same == d)));
	r = n->uuid(d, tiny, sizeof(tiny));
	(void)json_object_set_new(o, "uuid_in_tiny_buffer", json_integer(r));
	return o;
}

static json_t *all(const struct nvml *n)
{
	json_t *devices = json_array(), *o = json_object();
	char version[96] = "";
	unsigned int count = 0;
	fnv_result r = n->count(&count);

	(void)json_object_set_new(o, "count_before_init", json_integer(r));
	r = n->init();
	(void)json_object_set_new(o, "init", json_integer(r));
	(void)json_object_set_new(o, "init_text", json_string(n->text(r)));
	r = n->version(version, sizeof(version));
	(void)json_object_set_new(o, "driver_version", or_error(r, json_string(version)));
	r = n->count(&count);
	(void)json_object_set_new(o, "count", or_error(r, json_integer(count)));
	for (unsigned int i = 0; i < count; i++)
		(void)json_array_append_new(devices, device(n, i));
	(void)json_object_set_new(o, "devices", devices);
	(void)json_object_set_new(o, "one_past", device(n, count));
	(void)json_object_set_new(o, "shutdown", json_integer(n->shutdown()));
	(void)json_object_set_new(o, "shutdown_again", json_integer(n->shutdown()));
	return o;
}

int main(int argc, char **argv)
{
	struct nvml n = { 0 };
	json_t *o;
	int r;

	if (argc != 2 || load(&n, argv[1]) < 0)
		return 2;
	o = all(&n);
	r = json_dumpf(o, stdout, 0);
	json_decref(o);
	return r == 0 ? 0 : 1;
}
