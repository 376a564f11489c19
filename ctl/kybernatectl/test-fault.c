/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/cleanup.h"
#include "conf/json.h"
#include "fault.h"
#include "tests/cmocka.h"

typedef Kybernate__Agent__V1__Error pb_error;

#define FAILED   KYBERNATE__AGENT__V1__STATUS__STATUS_FAILED
#define DEGRADED KYBERNATE__AGENT__V1__STATUS__STATUS_DEGRADED

static pb_error error_of(int reason, int phase, const char *message)
{
	pb_error e = KYBERNATE__AGENT__V1__ERROR__INIT;

	e.reason = (Kybernate__Agent__V1__Reason)reason;
	e.phase = (Kybernate__Agent__V1__Phase)phase;
	e.message = (char *)message;
	return e;
}

static void assert_says(const struct fault *f, const char *what, const char *text)
{
	_cleanup_text_ struct text t = TEXT_NULL;

	fault_print(f, what, false, &t);
	assert_string_equal(text_str(&t), text);
}

static void from_an_error(void **state)
{
	_cleanup_fault_ struct fault f = FAULT_NULL;
	pb_error e = error_of(REASON_LOCK_TIMEOUT, 3, "pid 7\nhangs");
	char *detail[] = { (char *)"one", (char *)"two\033[m" };

	(void)state;
	e.detail = detail;
	e.n_detail = 2;
	assert_int_equal(fault_from_error(&f, FAILED, &e), CTL_TIMEOUT);
	assert_says(&f, "checkpoint",
		    "kybernatectl: checkpoint failed in phase lock: LOCK_TIMEOUT: pid 7\\nhangs\n"
		    "    one\n    two\\x1b[m\n"
		    "hint: a kernel runs for longer than the lock time-out: raise timeouts.lock or "
		    "retry\n");
	assert_int_equal(fault_from_error(&f, DEGRADED, &e), CTL_DEGRADED);
	assert_true(f.degraded);
	/* Nothing is said: what the reason means is. */
	e = error_of(REASON_BUSY, 0, "");
	assert_int_equal(fault_from_error(&f, FAILED, &e), CTL_REFUSED);
	assert_string_equal(f.message, reason_meaning(REASON_BUSY));
	assert_int_equal(fault_from_error(&f, FAILED, NULL), CTL_FAILED);
	assert_says(&f, "restore", "kybernatectl: restore failed: the agent gave no message\n");
}

/* Every reason has an exit status on purpose: a new one fails here until it is thought about. */
static void every_reason(void **state)
{
	static const struct {
		int reason, exit;
	} table[] = {
#define X(name, number, transient, what, todo) { (number), CTL_FAILED },
		REASON_TABLE(X)
#undef X
	};
	static const enum reason fail_later[] = {
		REASON_NONE, REASON_VRAM_SHORT, REASON_CRIU_DUMP_FAILED,
		REASON_CRIU_RESTORE_FAILED, REASON_IMAGE_CORRUPT, REASON_STORE_FULL,
		REASON_CUDA_LOCK_FAILED, REASON_CUDA_SAVE_FAILED, REASON_CUDA_RESTORE_FAILED,
		REASON_CUDA_STATE_LOST, REASON_CUDA_STATE_WRONG, REASON_WORKER_FAILED,
		REASON_STORE_FAILED, REASON_CONTAINERD_FAILED, REASON_RUNTIME_FAILED,
		REASON_CANCELED, REASON_ROOTFS_FAILED, REASON_SHIM_GONE, REASON_INTERNAL,
		REASON_CUDA_QUERY_FAILED,
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		_cleanup_fault_ struct fault f = FAULT_NULL;
		pb_error late = error_of(table[i].reason, 7, "x");
		pb_error early = error_of(table[i].reason, 1, "x");
		bool fails = false;
		int exit = fault_from_error(&f, FAILED, &late);

		for (size_t k = 0; k < ARRAY_SIZE(fail_later); k++)
			fails = fails || (int)fail_later[k] == table[i].reason;
		if (fails != (exit == CTL_FAILED))
			fail_msg("%s: exit status %d", reason_name((enum reason)table[i].reason),
				 exit);
		/* In preflight nothing was touched yet. */
		assert_int_equal(fault_from_error(&f, FAILED, &early), fails ? CTL_REFUSED : exit);
	}
}

static void from_a_status(void **state)
{
	static const struct {
		enum rpc_code code;
		const char *text;
		int exit, reason;
		const char *message;
	} cases[] = {
		{ RPC_ABORTED, "BUSY: it is", CTL_REFUSED, REASON_BUSY, "it is" },
		{ RPC_ABORTED, "BUSY", CTL_REFUSED, REASON_BUSY,
		  "another operation runs on this container" },
		{ RPC_INTERNAL, "BUSYBODY: it is", CTL_FAILED, REASON_NONE, "BUSYBODY: it is" },
		{ RPC_INTERNAL, "NONE: it is", CTL_FAILED, REASON_NONE, "NONE: it is" },
		{ RPC_INTERNAL, "BUSY it is", CTL_FAILED, REASON_NONE, "BUSY it is" },
		{ RPC_NOT_FOUND, "no such thing", CTL_NOT_FOUND, REASON_NONE, "no such thing" },
		{ RPC_UNAVAILABLE, "/run/x: gone", CTL_UNREACHABLE, REASON_AGENT_UNAVAILABLE,
		  "/run/x: gone" },
		{ RPC_UNAVAILABLE, "STORE_FAILED: io", CTL_FAILED, REASON_STORE_FAILED, "io" },
		{ RPC_DEADLINE_EXCEEDED, "", CTL_TIMEOUT, REASON_NONE,
		  "the agent gave no message" },
		{ RPC_UNIMPLEMENTED, "x", CTL_REFUSED, REASON_NONE, "x" },
		{ (enum rpc_code)77, "x", CTL_FAILED, REASON_NONE, "x" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_fault_ struct fault f = FAULT_NULL;
		const struct grpc_status status = { .code = cases[i].code, .text = cases[i].text };

		assert_int_equal(fault_from_status(&f, &status), cases[i].exit);
		assert_int_equal(f.reason, cases[i].reason);
		assert_string_equal(f.message, cases[i].message);
	}
}

static void own(void **state)
{
	_cleanup_fault_ struct fault f = FAULT_NULL;

	(void)state;
	assert_int_equal(fault_set(&f, CTL_UNREACHABLE, REASON_AGENT_UNAVAILABLE, "%s!", "gone"),
			 CTL_UNREACHABLE);
	assert_int_equal(fault_hint(&f, "do this"), CTL_UNREACHABLE);
	assert_says(&f, "list", "kybernatectl: list failed: AGENT_UNAVAILABLE: gone!\n"
				"hint: do this\n");
	(void)fault_set(&f, CTL_SIGNAL + 2, REASON_CANCELED, "stopped");
	fault_hint(&f, "look");
	assert_says(&f, "checkpoint",
		    "kybernatectl: checkpoint interrupted: CANCELED: stopped\nhint: look\n");
}

static void as_a_document(void **state)
{
	_cleanup_fault_ struct fault f = FAULT_NULL;
	_cleanup_json_ json_t *doc = NULL;
	pb_error e = error_of(REASON_STORE_FULL, 7, "full\xff");
	char *detail[] = { (char *)"one" };
	const char *s;

	(void)state;
	e.detail = detail;
	e.n_detail = 1;
	e.transient = 1;
	(void)fault_from_error(&f, FAILED, &e);
	doc = fault_doc(&f);
	assert_int_equal(json_object_size(doc), 7);
	assert_int_equal(json_doc_string(JSON_DOC_AT(doc, "reason"), &s), 0);
	assert_string_equal(s, "STORE_FULL");
	assert_int_equal(json_doc_string(JSON_DOC_AT(doc, "phase"), &s), 0);
	assert_string_equal(s, "seal");
	assert_int_equal(json_doc_string(JSON_DOC_AT(doc, "message"), &s), 0);
	assert_string_equal(s, "full\xef\xbf\xbd");
	assert_true(json_is_true(JSON_DOC_AT(doc, "transient")));
	assert_int_equal(json_integer_value(JSON_DOC_AT(doc, "exit_status")), CTL_FAILED);
	assert_int_equal(json_array_size(JSON_DOC_AT(doc, "detail")), 1);
	json_decref(doc);
	(void)fault_set(&f, CTL_FAILED, REASON_NONE, "x");
	doc = fault_doc(&f);
	assert_true(json_is_null(json_object_get(doc, "hint")));
}

static void bounded(void **state)
{
	_cleanup_fault_ struct fault f = FAULT_NULL;
	_cleanup_text_ struct text t = TEXT_NULL;
	_cleanup_free_ char *huge = malloc((size_t)2 << 20);
	char *detail[200];
	pb_error e;

	(void)state;
	assert_non_null(huge);
	memset(huge, 'x', ((size_t)2 << 20) - 1);
	huge[((size_t)2 << 20) - 1] = 0;
	e = error_of(REASON_INTERNAL, 1, huge);
	for (size_t i = 0; i < ARRAY_SIZE(detail); i++)
		detail[i] = (char *)"line";
	e.detail = detail;
	e.n_detail = ARRAY_SIZE(detail);
	(void)fault_from_error(&f, FAILED, &e);
	assert_int_equal(f.n_detail, FAULT_DETAIL_MAX);
	assert_string_equal(f.message, "(too long to show)");
	huge[100000] = 0;
	(void)fault_from_error(&f, FAILED, &e);
	fault_print(&f, "list", false, &t);
	assert_true(strlen(text_str(&t)) < 8000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(from_an_error), cmocka_unit_test(every_reason),
		cmocka_unit_test(from_a_status), cmocka_unit_test(own),
		cmocka_unit_test(as_a_document), cmocka_unit_test(bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
