/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/cleanup.h"
#include "progress.h"
#include "tests/cmocka.h"

typedef Kybernate__Agent__V1__OperationUpdate pb_update;
typedef Kybernate__Agent__V1__PhaseTime pb_phase_time;

#define GIB (UINT64_C(1) << 30)

static const struct screen terminal = { .live = true }, pipe_end = { .live = false };

static pb_update update(int phase, Kybernate__Agent__V1__Progress *progress, uint64_t done,
			uint64_t total)
{
	pb_update u = KYBERNATE__AGENT__V1__OPERATION_UPDATE__INIT;

	kybernate__agent__v1__progress__init(progress);
	progress->bytes_done = done;
	progress->bytes_total = total;
	u.phase = (Kybernate__Agent__V1__Phase)phase;
	u.progress = progress;
	return u;
}

static void assert_takes(struct text *t, const char *text)
{
	assert_int_equal(t->failed, 0);
	assert_string_equal(text_str(t), text);
	text_clear(t);
}

static void on_a_terminal(void **state)
{
	_cleanup_text_ struct text t = TEXT_NULL;
	Kybernate__Agent__V1__Progress progress;
	const nsec_t ms = NSEC_PER_MSEC, at = 1000 * NSEC_PER_SEC;
	struct progress p;
	pb_update u;

	(void)state;
	progress_init(&p, &terminal);
	u = update(4, &progress, 0, 40 * GIB);
	progress_update(&p, at, 80, &u, &t);
	assert_takes(&t, "\r\033[Kvram_save     0.0/40.0 GiB  0s");
	/* Not sooner than a tenth of a second later. */
	u = update(4, &progress, 10 * GIB, 40 * GIB);
	progress_update(&p, at + 99 * ms, 80, &u, &t);
	progress_tick(&p, at + 99 * ms, 80, &t);
	assert_takes(&t, "");
	progress_tick(&p, at + 100 * ms, 80, &t);
	assert_takes(&t, "\r\033[Kvram_save     10.0/40.0 GiB  107374 MB/s  100ms");
	/* Never as wide as the screen. */
	progress_tick(&p, at + 200 * ms, 20, &t);
	assert_takes(&t, "\r\033[Kvram_save     10.0/");
	/* The next phase. */
	u = update(9, &progress, 0, 0);
	progress.processes = 3;
	progress_update(&p, at + 250 * ms, 80, &u, &t);
	assert_takes(&t, "\r\033[Kvram_save     10.0/40.0 GiB  42950 MB/s  250ms\n"
			 "\r\033[Kunlock        3 processes  0s");
	progress_end(&p, at + 350 * ms, "interrupted", &t);
	assert_takes(&t, "\r\033[Kunlock        interrupted after 100ms\n");
	progress_end(&p, at + 350 * ms, NULL, &t);
	progress_tick(&p, at + 999 * ms, 80, &t);
	assert_takes(&t, "");
}

static void on_a_pipe(void **state)
{
	_cleanup_text_ struct text t = TEXT_NULL;
	Kybernate__Agent__V1__Progress progress;
	struct progress p;
	pb_update u;

	(void)state;
	progress_init(&p, &pipe_end);
	u = update(3, &progress, 0, 0);
	progress_update(&p, NSEC_PER_SEC, 0, &u, &t);
	progress_update(&p, 2 * NSEC_PER_SEC, 0, &u, &t);
	progress_tick(&p, 3 * NSEC_PER_SEC, 0, &t);
	assert_takes(&t, "");
	/* An update that names no phase belongs to the one before. */
	u = update(0, &progress, 0, 0);
	progress_update(&p, 4 * NSEC_PER_SEC, 0, &u, &t);
	assert_takes(&t, "");
	u = update(4, &progress, 2 * GIB, 2 * GIB);
	progress_update(&p, 5 * NSEC_PER_SEC, 0, &u, &t);
	assert_takes(&t, "lock          4.0s\n");
	progress_end(&p, 6 * NSEC_PER_SEC, NULL, &t);
	assert_takes(&t, "vram_save     2.0 GiB  2147 MB/s  1.0s\n");
}

static void timeline(void **state)
{
	pb_phase_time times[4], *list[4];
	_cleanup_text_ struct text t = TEXT_NULL;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		kybernate__agent__v1__phase_time__init(&times[i]);
		list[i] = &times[i];
		times[i].start_us = i * 1000000;
		times[i].duration_us = 1000000;
	}
	times[0].phase = times[1].phase = KYBERNATE__AGENT__V1__PHASE__PHASE_LOCK;
	times[2].phase = KYBERNATE__AGENT__V1__PHASE__PHASE_VRAM_SAVE;
	times[2].bytes = GIB;
	times[3].phase = KYBERNATE__AGENT__V1__PHASE__PHASE_LOCK;
	progress_timeline(list, 4, 0, false, &t);
	assert_takes(&t, "PHASE       START   TIME     BYTES        RATE\n"
			 "lock           0s   1.0s\n"
			 "lock         1.0s   1.0s\n"
			 "vram_save    2.0s   1.0s   1.0 GiB   1074 MB/s\n"
			 "lock         3.0s   1.0s\n");
	times[3].undo = 1;
	progress_timeline(list, 4, KYBERNATE__AGENT__V1__PHASE__PHASE_LOCK, false, &t);
	assert_takes(&t, "PHASE       START   TIME     BYTES        RATE   NOTE\n"
			 "lock           0s   1.0s\n"
			 "lock         1.0s   1.0s                         failed\n"
			 "vram_save    2.0s   1.0s   1.0 GiB   1074 MB/s\n"
			 "lock         3.0s   1.0s                         undo\n");
	assert_true(progress_total(list, 4) == 4 * NSEC_PER_SEC);
	progress_timeline(list, 0, 3, false, &t);
	assert_takes(&t, "");
	times[3].start_us = times[3].duration_us = UINT64_MAX;
	assert_true(progress_total(list, 4) == NSEC_NEVER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(on_a_terminal),
		cmocka_unit_test(on_a_pipe),
		cmocka_unit_test(timeline),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
