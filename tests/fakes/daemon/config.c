/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/config.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/num.h"

#define MEMORY_DEFAULT ((uint64_t)8 << 30)
#define MEMORY_MAX     ((uint64_t)1 << 40)
#define NAME_DEFAULT   "Fake H100 80GB HBM3"

static const struct setting {
	const char *name;
	size_t offset;
	uint64_t initial, max;
} settings_table[] = {
	{ "branch", offsetof(struct settings, branch), 580, 999 },
	{ "persistence", offsetof(struct settings, persistence), 0, 1 },
	{ "context", offsetof(struct settings, context), (uint64_t)2 << 20, (uint64_t)1 << 34 },
	{ "cuinit_ms", offsetof(struct settings, cuinit_ms), 0, 600000 },
	{ "not_cuda_code", offsetof(struct settings, not_cuda), FG_NOT_INITIALIZED, 999 },
	{ "lock_expires", offsetof(struct settings, lock_expires), 0, 1 },
	{ "lock_outlives", offsetof(struct settings, lock_outlives), 0, 1 },
	{ "pool", offsetof(struct settings, pool), 0, MEMORY_MAX },
};

static uint64_t *field(struct settings *settings, const struct setting *s)
{
	return (uint64_t *)(void *)((char *)settings + s->offset);
}

int config_set(struct settings *settings, const char *name, uint64_t value)
{
	for (size_t i = 0; i < ARRAY_SIZE(settings_table); i++) {
		const struct setting *s = &settings_table[i];

		if (strcmp(s->name, name) != 0)
			continue;
		if (value > s->max)
			return -ERANGE;
		*field(settings, s) = value;
		return 0;
	}
	return -ENOENT;
}

const char *config_setting(struct settings *settings, unsigned int i, uint64_t *ret)
{
	if (i >= ARRAY_SIZE(settings_table))
		return NULL;
	*ret = *field(settings, &settings_table[i]);
	return settings_table[i].name;
}

int config_parse_size(const char *text, uint64_t *ret)
{
	size_t n = strspn(text, "0123456789");
	unsigned int shift = 0;
	uint64_t v;

	if (text[n] && text[n + 1])
		return -EINVAL;
	switch (text[n]) {
	case '\0':
		break;
	case 'K':
		shift = 10;
		break;
	case 'M':
		shift = 20;
		break;
	case 'G':
		shift = 30;
		break;
	default:
		return -EINVAL;
	}
	if (num_parse_n(text, n, MEMORY_MAX, &v) < 0 || v > MEMORY_MAX >> shift)
		return -EINVAL;
	*ret = v << shift;
	return 0;
}

/* GPU index of the node-th emulated node; no two nodes share a UUID. */
static void default_gpu(struct gpu *gpu, unsigned int node, unsigned int index)
{
	*gpu = (struct gpu){ .info = { .total = MEMORY_DEFAULT, .minor = index } };
	memcpy(gpu->info.uuid, "\x00\x00\x00\x00\xfa\x4e\x40\x00\x80\x00\x00\x00\x00\x00\x00", 15);
	gpu->info.uuid[3] = (uint8_t)node;
	gpu->info.uuid[15] = (uint8_t)index;
	(void)snprintf(gpu->info.name, sizeof(gpu->info.name), "%s", NAME_DEFAULT);
}

/* A number, true/false, or a size as text. */
static int json_size(const json_t *v, uint64_t *ret)
{
	if (json_is_boolean(v))
		*ret = json_is_true(v);
	else if (json_is_integer(v) && json_integer_value(v) >= 0)
		*ret = (uint64_t)json_integer_value(v);
	else if (json_is_string(v))
		return config_parse_size(json_string_value(v), ret);
	else
		return -EINVAL;
	return 0;
}

static int gpu_member(struct gpu *gpu, const char *key, const json_t *value)
{
	uint64_t n = 0;

	if (strcmp(key, "uuid") == 0 && json_is_string(value))
		return fg_uuid_parse(json_string_value(value), gpu->info.uuid);
	if (strcmp(key, "name") == 0 && json_is_string(value) &&
	    json_string_length(value) < sizeof(gpu->info.name)) {
		(void)snprintf(gpu->info.name, sizeof(gpu->info.name), "%s",
			       json_string_value(value));
		return 0;
	}
	if (json_size(value, &n) < 0)
		return -EINVAL;
	if (strcmp(key, "memory") == 0 && n && n <= MEMORY_MAX)
		gpu->info.total = n;
	else if (strcmp(key, "minor") == 0 && n < 256)
		gpu->info.minor = (uint32_t)n;
	else if (strcmp(key, "mig") == 0 && n <= 1)
		gpu->info.mig = (uint32_t)n;
	else
		return -EINVAL;
	return 0;
}

static int load_gpus(struct server *srv, json_t *gpus, unsigned int node, struct error *err)
{
	json_t *gpu, *value;
	const char *key;
	size_t i;

	if (!json_is_array(gpus) || json_array_size(gpus) > FG_GPUS_MAX)
		return error_set(err, -EINVAL, "gpus is not a list of at most %d", FG_GPUS_MAX);
	srv->n_gpus = 0;
	json_array_foreach(gpus, i, gpu) {
		default_gpu(&srv->gpus[i], node, (unsigned int)i);
		srv->n_gpus++;
		json_object_foreach(gpu, key, value)
			if (gpu_member(&srv->gpus[i], key, value) < 0)
				return error_set(err, -EINVAL, "gpus[%zu]: bad '%s'", i, key);
	}
	return 0;
}

static int load_file(struct server *srv, const char *path, unsigned int node, struct error *err)
{
	json_error_t je;
	json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &je), *value;
	const char *key;
	uint64_t n;
	int r = 0;

	if (!json_is_object(root)) {
		json_decref(root);
		return error_set(err, -EINVAL, "%s:%d: %s", path, je.line, je.text);
	}
	json_object_foreach(root, key, value) {
		if (strcmp(key, "gpus") == 0)
			r = load_gpus(srv, value, node, err);
		else if (strcmp(key, "driver_version") == 0 && json_is_string(value) &&
			 json_string_length(value) < sizeof(srv->config.version))
			(void)snprintf(srv->config.version, sizeof(srv->config.version), "%s",
				       json_string_value(value));
		else if (json_size(value, &n) < 0 ||
			 config_set(&srv->config.settings, key, n) < 0)
			r = error_set(err, -EINVAL, "%s: bad '%s'", path, key);
		if (r < 0)
			break;
	}
	json_decref(root);
	return r;
}

static int usage(void)
{
	puts("Usage: fakegpud --socket PATH [OPTION]...\n"
	     "Owns the memory of emulated GPUs. See tests/fakes/README.md.\n\n"
	     "  --socket PATH          Unix socket to listen on\n"
	     "  --mode OCTAL           its permissions (0666)\n"
	     "  --gpus N               number of GPUs (1)\n"
	     "  --memory SIZE          memory of each (8G)\n"
	     "  --name TEXT            chip of each (" NAME_DEFAULT ")\n"
	     "  --node N               makes the UUIDs differ from another node's (0)\n"
	     "  --driver-version TEXT  as NVML tells it (one that suits the branch)\n"
	     "  --set NAME=VALUE       branch, persistence, context, cuinit_ms, not_cuda_code,\n"
	     "                         lock_expires, lock_outlives, pool\n"
	     "  --config FILE          JSON: those settings, driver_version, gpus\n"
	     "  --verbose              log at debug level");
	return 1;
}

static int set_option(struct settings *settings, const char *text, struct error *err)
{
	const char *value = strchr(text, '=');
	char name[32];
	uint64_t n;

	if (value && (size_t)(value - text) < sizeof(name)) {
		memcpy(name, text, (size_t)(value - text));
		name[value - text] = '\0';
		if (config_parse_size(value + 1, &n) == 0 && config_set(settings, name, n) == 0)
			return 0;
	}
	return error_set(err, -EINVAL, "--set '%s': no such setting, or no such value", text);
}

struct options {
	uint64_t gpus, node, memory, mode;
	const char *name, *file;
};

static int parse_number(const char *option, const char *text, uint64_t max, uint64_t *ret,
			struct error *err)
{
	if (num_parse(text, max, ret) < 0)
		return error_set(err, -EINVAL, "--%s: '%s' is not a number up to %llu", option,
				 text, (unsigned long long)max);
	return 0;
}

static int parse_options(struct server *srv, int argc, char **argv, struct options *o,
			 struct error *err)
{
	static const struct option options[] = {
		{ "socket", required_argument, NULL, 's' },  { "mode", required_argument, NULL, 'm' },
		{ "gpus", required_argument, NULL, 'g' },    { "memory", required_argument, NULL, 'M' },
		{ "name", required_argument, NULL, 'N' },    { "node", required_argument, NULL, 'n' },
		{ "driver-version", required_argument, NULL, 'd' },
		{ "set", required_argument, NULL, 'S' },     { "config", required_argument, NULL, 'c' },
		{ "verbose", no_argument, NULL, 'v' },       { "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int c, r = 0;

	while (r == 0 && (c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (c) {
		case 's':
			srv->config.socket = optarg;
			break;
		case 'm':
			o->mode = strtoul(optarg, NULL, 8) & 0777;
			break;
		case 'g':
			r = parse_number("gpus", optarg, FG_GPUS_MAX, &o->gpus, err);
			break;
		case 'M':
			if (config_parse_size(optarg, &o->memory) < 0 || !o->memory)
				r = error_set(err, -EINVAL, "--memory: bad size '%s'", optarg);
			break;
		case 'N':
			o->name = optarg;
			break;
		case 'n':
			r = parse_number("node", optarg, 255, &o->node, err);
			break;
		case 'd':
			(void)snprintf(srv->config.version, sizeof(srv->config.version), "%s",
				       optarg);
			break;
		case 'S':
			r = set_option(&srv->config.settings, optarg, err);
			break;
		case 'c':
			o->file = optarg;
			break;
		case 'v':
			log_set_level(LOG_DEBUG);
			break;
		case 'h':
			return usage();
		default:
			return error_set(err, -EINVAL, "bad arguments: see --help");
		}
	}
	if (r == 0 && optind < argc)
		r = error_set(err, -EINVAL, "unexpected argument '%s'", argv[optind]);
	return r;
}

int config_load(struct server *srv, int argc, char **argv, struct error *err)
{
	struct options o = { .gpus = 1, .memory = MEMORY_DEFAULT, .mode = 0666,
			     .name = NAME_DEFAULT };
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(settings_table); i++)
		*field(&srv->config.settings, &settings_table[i]) = settings_table[i].initial;
	r = parse_options(srv, argc, argv, &o, err);
	if (r != 0)
		return r;
	if (!srv->config.socket || strlen(srv->config.socket) >= FG_PATH_MAX)
		return error_set(err, -EINVAL, "--socket is missing, or longer than %d",
				 FG_PATH_MAX - 1);
	srv->config.socket_mode = (unsigned int)o.mode;
	srv->n_gpus = (unsigned int)o.gpus;
	for (unsigned int i = 0; i < srv->n_gpus; i++) {
		default_gpu(&srv->gpus[i], (unsigned int)o.node, i);
		srv->gpus[i].info.total = o.memory;
		(void)snprintf(srv->gpus[i].info.name, sizeof(srv->gpus[i].info.name), "%s",
			       o.name);
	}
	if (o.file) {
		r = load_file(srv, o.file, (unsigned int)o.node, err);
		if (r < 0)
			return r;
	}
	srv->settings = srv->config.settings;
	return 0;
}
