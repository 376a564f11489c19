/* SPDX-License-Identifier: Apache-2.0 */
/* What annotations and environment of a container mean: see bundle.h. */
#include <errno.h>
#include <string.h>

#include "base/path.h"
#include "oci/bundle.h"

#define VALUE_SHOWN "%.128s"

static const char *const annotation_names[] = {
#define X(id, name, values, doc) [ANNOTATION_##id] = KYB_ANNOTATION_PREFIX name,
	KYB_ANNOTATIONS(X)
#undef X
};

/* An annotation that is one of two words, the first being its default. */
static int two_words(const struct bundle *b, enum kyb_annotation which, const char *off,
		     const char *on, bool *ret, struct error *err)
{
	const char *value = b->annotation[which];

	*ret = value && strcmp(value, on) == 0;
	if (!value || *ret || strcmp(value, off) == 0)
		return 0;
	return error_reason(err, REASON_CONFIG_INVALID, -EINVAL,
			    "annotation %s is \"" VALUE_SHOWN "\"; allowed are \"%s\" and \"%s\"",
			    annotation_names[which], value, off, on);
}

int bundle_intent(const struct bundle *b, struct bundle_intent *ret, struct error *err)
{
	struct bundle_intent intent = { .restore_from = b->annotation[ANNOTATION_RESTORE_FROM] };
	int r;

	if (b->is_sandbox) {
		*ret = (struct bundle_intent){ 0 };
		return 0;
	}
	if (intent.restore_from && !ref_valid(intent.restore_from))
		return error_reason(err, REASON_REF_INVALID, -EINVAL,
				    "annotation %s is \"" VALUE_SHOWN
				    "\", which is not a checkpoint reference: 1 to %d letters, "
				    "digits, '.', '_' and '-', beginning with a letter or digit",
				    annotation_names[ANNOTATION_RESTORE_FROM], intent.restore_from,
				    REF_MAX);
	r = two_words(b, ANNOTATION_PAUSE, "freeze", "suspend", &intent.suspend_on_pause, err);
	if (r == 0)
		r = two_words(b, ANNOTATION_ON_STOP, "signal", "checkpoint",
			      &intent.checkpoint_on_stop, err);
	if (r == 0)
		*ret = intent;
	return r;
}

static int one_of_both(const char *env_name, const char *env, const char *annotation_name,
		       const char *annotation, const char **ret, struct error *err)
{
	const char *said = env ? env : annotation;

	*ret = "";
	if (env && annotation && strcmp(env, annotation) != 0)
		return error_reason(err, REASON_SEAT_MISMATCH, -EPERM,
				    "%s is \"" VALUE_SHOWN "\" but annotation %s is \"" VALUE_SHOWN
				    "\"",
				    env_name, env, annotation_name, annotation);
	if (!said)
		return 0;
	if (!setting_name_valid(said))
		return error_reason(err, REASON_SEAT_MISMATCH, -EPERM,
				    "%s%s is \"" VALUE_SHOWN "\", which is not a name",
				    env ? "" : "annotation ", env ? env_name : annotation_name,
				    said);
	*ret = said;
	return 0;
}

int bundle_seat(const struct bundle *b, struct bundle_seat *ret, struct error *err)
{
	struct bundle_seat seat;
	int r = one_of_both("KYB_GPU_GROUP", b->env[ENV_GPU_GROUP],
			    annotation_names[ANNOTATION_GPU_GROUP],
			    b->annotation[ANNOTATION_GPU_GROUP], &seat.group, err);

	if (r == 0)
		r = one_of_both("KYB_GPU_SEAT", b->env[ENV_GPU_SEAT],
				annotation_names[ANNOTATION_GPU_SEAT],
				b->annotation[ANNOTATION_GPU_SEAT], &seat.seat, err);
	if (r == 0)
		*ret = seat;
	return r;
}

int bundle_visible_devices(const struct bundle *b, struct arena *mem, struct bundle_strings *ret)
{
	const char *s = b->env[ENV_VISIBLE_DEVICES];
	struct bundle_strings list = { 0 };
	size_t max = 1;
	char *copy;

	*ret = list;
	if (!s || strcmp(s, "void") == 0 || strcmp(s, "none") == 0)
		return 0;
	for (const char *at = s; *at; at++)
		max += *at == ',';
	list.items = arena_alloc(mem, max * sizeof(*list.items));
	copy = arena_strdup(mem, s);
	if (!list.items || !copy)
		return -ENOMEM;
	for (char *word, *rest = copy; (word = strsep(&rest, ","));)
		if (word[0])
			list.items[list.n++] = word;
	*ret = list;
	return 0;
}
