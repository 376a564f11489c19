/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/args.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/path.h"

struct flag {
	const char *name;
	size_t offset;
	bool boolean;
};

static const struct flag flags[] = {
	{ "namespace", offsetof(struct args, ns), false },
	{ "id", offsetof(struct args, id), false },
	{ "bundle", offsetof(struct args, bundle), false },
	{ "address", offsetof(struct args, address), false },
	{ "publish-binary", offsetof(struct args, publish_binary), false },
	{ "socket", offsetof(struct args, socket), false },
	{ "debug-socket", offsetof(struct args, debug_socket), false },
	{ "debug", offsetof(struct args, debug), true },
	{ "v", offsetof(struct args, version), true },
	{ "version", offsetof(struct args, version), true }, /* 2.3+ */
	{ "info", offsetof(struct args, info), true },       /* 2.0+ */
};

static const struct flag *find(const char *name, size_t n)
{
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (strlen(flags[i].name) == n && memcmp(flags[i].name, name, n) == 0)
			return &flags[i];
	return NULL;
}

/* As strconv.ParseBool. */
static int parse_bool(const char *s, bool *ret)
{
	static const char *const yes[] = { "1", "t", "T", "true", "TRUE", "True" };
	static const char *const no[] = { "0", "f", "F", "false", "FALSE", "False" };

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		if (strcmp(s, yes[i]) == 0 || strcmp(s, no[i]) == 0) {
			*ret = strcmp(s, yes[i]) == 0;
			return 0;
		}
	}
	return -EINVAL;
}

int args_parse(int argc, char **argv, struct args *ret, struct error *err)
{
	struct args a = { "", "", "", "", "", "", "", false, false, false, "" };
	int i;

	for (i = 1; i < argc; i++) {
		const char *name = argv[i], *value;
		const struct flag *f;
		char *base = (char *)&a;
		size_t n;

		if (name[0] != '-' || name[1] == 0)
			break;
		if (strcmp(name, "--") == 0) {
			i++;
			break;
		}
		name += name[1] == '-' ? 2 : 1;
		n = strcspn(name, "=");
		value = name[n] ? name + n + 1 : NULL;
		f = find(name, n);
		if (!f)
			return error_set(err, -EINVAL, "flag provided but not defined: -%.*s",
					 (int)n, name);
		if (f->boolean) {
			if (parse_bool(value ? value : "true", (bool *)(base + f->offset)) < 0)
				return error_set(err, -EINVAL, "invalid boolean value \"%s\" for -%s",
						 value, f->name);
			continue;
		}
		if (!value && ++i < argc)
			value = argv[i];
		if (!value)
			return error_set(err, -EINVAL, "flag needs an argument: -%s", f->name);
		memcpy(base + f->offset, &value, sizeof(value));
	}
	if (i < argc)
		a.action = argv[i];
	*ret = a;
	return 0;
}

int args_check_names(const struct args *args, struct error *err)
{
	if (!*args->ns)
		return error_set(err, -EINVAL, "shim namespace cannot be empty");
	if (!id_valid(args->ns))
		return error_set(err, -EINVAL, "namespace \"%.80s\" is not a valid identifier",
				 args->ns);
	if (!id_valid(args->id))
		return error_set(err, -EINVAL, "id \"%.80s\" is not a valid identifier", args->id);
	return 0;
}
