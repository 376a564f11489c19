/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an agent can make kybernatectl print: text, statuses and messages of any kind. Whatever
 * comes, nothing reaches the terminal that it would take for a command.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/kybernatectl/doc.h"
#include "ctl/kybernatectl/fault.h"
#include "ctl/kybernatectl/human.h"
#include "ctl/kybernatectl/progress.h"
#include "rpc/pb.h"

#define MEMORY_MAX ((size_t)16 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(struct text *t)
{
	const unsigned char *s = (const unsigned char *)text_str(t);

	for (; *s; s++) {
		assert(*s == '\n' || (*s >= ' ' && *s != 0x7f));
		assert(s[0] != 0xc2 || s[1] >= 0xa0);                       /* C1 controls */
		assert(s[0] != 0xe2 || s[1] != 0x80 || s[2] < 0xaa || s[2] > 0xae); /* overrides */
	}
	text_clear(t);
}

static void as_text(const char *s, struct text *t)
{
	nsec_t when;

	text_escaped(t, s);
	assert(t->failed || text_fit(text_str(t), text_width(text_str(t))) == strlen(text_str(t)));
	check(t);
	text_escaped_n(t, s, 5);
	check(t);
	doc_write(json_pack("[o]", doc_string(s)), true, t);
	check(t);
	(void)human_time(s, &when);
}

static void as_status(const char *s, struct text *t)
{
	const struct grpc_status status = { .code = (enum rpc_code)(strlen(s) % 20), .text = s };
	_cleanup_fault_ struct fault f = FAULT_NULL;

	assert(fault_from_status(&f, &status) != CTL_OK);
	fault_print(&f, "list", false, t);
	check(t);
}

static void as_update(struct bytes in, struct text *t)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(MEMORY_MAX);
	const Kybernate__Agent__V1__OperationUpdate *u =
		pb_unpack(&kybernate__agent__v1__operation_update__descriptor, in, &mem);
	_cleanup_fault_ struct fault f = FAULT_NULL;
	const struct screen screen = { .live = false };
	struct progress p;

	if (!u)
		return;
	progress_init(&p, &screen);
	progress_update(&p, 1, 0, u, t);
	progress_end(&p, NSEC_NEVER, NULL, t);
	progress_timeline(u->timeline, u->n_timeline, (int)u->phase, false, t);
	check(t);
	assert(fault_from_error(&f, u->status, u->error) != CTL_OK);
	fault_print(&f, "checkpoint", false, t);
	check(t);
	doc_write(doc_message(&u->base), false, t);
	doc_write(fault_doc(&f), false, t);
	assert(!t->failed);
	check(t);
}

static void as_list(struct bytes in, struct text *t)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(MEMORY_MAX);
	const Kybernate__Agent__V1__ListCheckpointsReply *m =
		pb_unpack(&kybernate__agent__v1__list_checkpoints_reply__descriptor, in, &mem);

	if (m)
		doc_write(doc_message(&m->base), true, t);
	check(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_text_ struct text t = TEXT_NULL;
	_cleanup_free_ char *s = malloc(n + 1);

	assert(s);
	memcpy(s, n ? data : (const uint8_t *)"", n);
	s[n] = 0;
	as_text(s, &t);
	as_status(s, &t);
	as_update(bytes_of(data, n), &t);
	as_list(bytes_of(data, n), &t);
	return 0;
}
