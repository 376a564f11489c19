/* SPDX-License-Identifier: Apache-2.0 */
#include "mnt/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

static const struct word {
	const char *name;
	bool clear;
	unsigned long flag;
} words[] = {
	{ "async", true, MS_SYNCHRONOUS },
	{ "atime", true, MS_NOATIME },
	{ "bind", false, MS_BIND },
	{ "defaults", false, 0 },
	{ "dev", true, MS_NODEV },
	{ "diratime", true, MS_NODIRATIME },
	{ "dirsync", false, MS_DIRSYNC },
	{ "exec", true, MS_NOEXEC },
	{ "mand", false, MS_MANDLOCK },
	{ "noatime", false, MS_NOATIME },
	{ "nodev", false, MS_NODEV },
	{ "nodiratime", false, MS_NODIRATIME },
	{ "noexec", false, MS_NOEXEC },
	{ "nomand", true, MS_MANDLOCK },
	{ "norelatime", true, MS_RELATIME },
	{ "nostrictatime", true, MS_STRICTATIME },
	{ "nosuid", false, MS_NOSUID },
	{ "rbind", false, MS_BIND | MS_REC },
	{ "relatime", false, MS_RELATIME },
	{ "remount", false, MS_REMOUNT },
	{ "ro", false, MS_RDONLY },
	{ "rw", true, MS_RDONLY },
	{ "strictatime", false, MS_STRICTATIME },
	{ "suid", true, MS_NOSUID },
	{ "sync", false, MS_SYNCHRONOUS },
}, propagations[] = {
	{ "private", false, MS_PRIVATE },
	{ "rprivate", false, MS_PRIVATE | MS_REC },
	{ "rshared", false, MS_SHARED | MS_REC },
	{ "rslave", false, MS_SLAVE | MS_REC },
	{ "runbindable", false, MS_UNBINDABLE | MS_REC },
	{ "shared", false, MS_SHARED },
	{ "slave", false, MS_SLAVE },
	{ "unbindable", false, MS_UNBINDABLE },
};

static const struct word *find(const struct word *table, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(table[i].name, name) == 0)
			return &table[i];
	return NULL;
}

static const char *value_of(const char *option, const char *key)
{
	size_t n = strlen(key);

	return strncmp(option, key, n) == 0 ? option + n : NULL;
}

static bool take_word(struct mnt_options *o, const char *option)
{
	const struct word *word = find(words, ARRAY_SIZE(words), option);

	if (word) {
		o->flags = word->clear ? o->flags & ~word->flag : o->flags | word->flag;
		return true;
	}
	word = find(propagations, ARRAY_SIZE(propagations), option);
	if (word)
		o->propagation = word->flag;
	return word != NULL;
}

static bool take_value(struct mnt_options *o, const char *option)
{
	const char *value;

	if ((value = value_of(option, "uidmap=")))
		o->uidmap = value;
	else if ((value = value_of(option, "gidmap=")))
		o->gidmap = value;
	else if (!o->lowerdir && (value = value_of(option, "lowerdir=")))
		o->lowerdir = value;
	return value != NULL;
}

/* Means something for a loop device only, elsewhere it is data. */
static void take_direct_io(struct mnt_options *o)
{
	for (size_t i = 0; o->loop && i < o->n_data; i++) {
		if (strcmp(o->data[i], "direct-io") != 0)
			continue;
		o->direct_io = true;
		o->n_data--;
		memmove(o->data + i, o->data + i + 1, (o->n_data - i) * sizeof(*o->data));
		return;
	}
}

int mnt_options_parse(const char *const *options, size_t n, struct mnt_options *ret,
		      struct error *err)
{
	_cleanup_mnt_options_ struct mnt_options o = { 0 };

	if (n > MNT_OPTIONS_MAX)
		return error_set(err, -E2BIG, "%zu mount options, at most %d are allowed", n,
				 MNT_OPTIONS_MAX);
	o.data = calloc(n + 1, sizeof(*o.data));
	if (!o.data)
		return error_set(err, -ENOMEM, "mount options: out of memory");
	for (size_t i = 0; i < n; i++) {
		if (value_of(options[i], "X-containerd."))
			return error_set(err, -EINVAL,
					 "mount option \"%s\" is for containerd's mount manager",
					 options[i]);
		if (strcmp(options[i], "loop") == 0)
			o.loop = true;
		else if (!take_word(&o, options[i]) && !take_value(&o, options[i]))
			o.data[o.n_data++] = options[i];
	}
	/* A mapping that is silently left out would show files to the wrong users. */
	if (!o.uidmap != !o.gidmap)
		return error_set(err, -EINVAL, "mount options: %s without %s",
				 o.uidmap ? "uidmap" : "gidmap", o.uidmap ? "gidmap" : "uidmap");
	take_direct_io(&o);
	*ret = o;
	o.data = NULL;
	return 0;
}

void mnt_options_done(struct mnt_options *o)
{
	free(o->data);
	o->data = NULL;
	o->n_data = 0;
}

int mnt_options_data(const struct mnt_options *o, const char *lowerdir, struct buf *out)
{
	const char *comma = "";
	int r = 0;

	for (size_t i = 0; i < o->n_data && r == 0; i++) {
		r = buf_printf(out, "%s%s", comma, o->data[i]);
		comma = ",";
	}
	if (r == 0 && lowerdir)
		r = buf_printf(out, "%slowerdir=%s", comma, lowerdir);
	return r;
}
