/* SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "doc.h"
#include "human.h"
#include "table.h"

#define NAME_COLUMN 14

void progress_init(struct progress *p, const struct screen *screen)
{
	*p = (struct progress){ .live = screen->live, .colour = screen->colour };
}

static const char *phase_name(int phase, char *buf)
{
	return doc_enum_name(&kybernate__agent__v1__phase__descriptor, phase, buf);
}

/* "vram_save     12.3/40.0 GiB  1512 MB/s  8.1s", without escapes of any kind. */
static void describe(const struct progress *p, nsec_t now, const char *how, struct text *line)
{
	char name[DOC_NAME_MAX], buf[HUMAN_MAX];
	nsec_t took = now > p->since ? now - p->since : 0;

	text_printf(line, "%-*s", NAME_COLUMN, phase_name(p->phase, name));
	if (how)
		text_printf(line, "%s after ", how);
	else if (p->total && p->done < p->total)
		text_printf(line, "%s  ", human_part(p->done, p->total, buf));
	else if (p->done)
		text_printf(line, "%s  ", human_size(p->done, buf));
	else if (p->processes)
		text_printf(line, "%" PRIu32 " process%s  ", p->processes,
			    p->processes == 1 ? "" : "es");
	if (!how && p->done && took)
		text_printf(line, "%s  ", human_rate(p->done, took, buf));
	text_add(line, human_duration(took, buf));
}

static void draw(struct progress *p, nsec_t now, size_t columns, struct text *out)
{
	_cleanup_text_ struct text line = TEXT_NULL;

	describe(p, now, NULL, &line);
	/* The last column stays free: writing into it moves some terminals to the next line. */
	text_add(out, "\r\033[K");
	text_add_n(out, text_str(&line), text_fit(text_str(&line), columns ? columns - 1 : 0));
	p->drawn = now;
	p->on_line = true;
}

static void finish(struct progress *p, nsec_t now, const char *how, struct text *out)
{
	if (p->on_line)
		text_add(out, "\r\033[K");
	p->on_line = false;
	if (!p->phase)
		return;
	screen_style(p->colour && how, STYLE_WARN, out);
	describe(p, now, how, out);
	screen_unstyle(p->colour && how, STYLE_WARN, out);
	text_add(out, "\n");
}

void progress_update(struct progress *p, nsec_t now, size_t columns,
		     const Kybernate__Agent__V1__OperationUpdate *u, struct text *out)
{
	bool changed = u->phase && (int)u->phase != p->phase;

	if (changed) {
		finish(p, now, NULL, out);
		p->phase = (int)u->phase;
		p->since = now;
		p->done = p->total = p->processes = 0;
	}
	if (u->progress) {
		p->done = u->progress->bytes_done;
		p->total = u->progress->bytes_total;
		p->processes = u->progress->processes;
	}
	if (p->live && p->phase && (!p->on_line || now - p->drawn >= PROGRESS_INTERVAL))
		draw(p, now, columns, out);
}

void progress_tick(struct progress *p, nsec_t now, size_t columns, struct text *out)
{
	if (p->on_line && now - p->drawn >= PROGRESS_INTERVAL)
		draw(p, now, columns, out);
}

void progress_end(struct progress *p, nsec_t now, const char *how, struct text *out)
{
	finish(p, now, how, out);
	p->phase = 0;
}

/* --- the timeline --------------------------------------------------------------------------- */

nsec_t progress_usec(uint64_t usec)
{
	return usec > NSEC_NEVER / NSEC_PER_USEC ? NSEC_NEVER : usec * NSEC_PER_USEC;
}

nsec_t progress_total(Kybernate__Agent__V1__PhaseTime *const *times, size_t n)
{
	nsec_t end = 0;

	for (size_t i = 0; i < n; i++) {
		nsec_t e = time_add(progress_usec(times[i]->start_us),
				    progress_usec(times[i]->duration_us));

		end = e > end ? e : end;
	}
	return end;
}

static const struct table_column columns_of_timeline[] = {
	{ "PHASE", false }, { "START", true }, { "TIME", true },
	{ "BYTES", true },  { "RATE", true },  { "NOTE", false },
};

static void add_row(struct table *t, const Kybernate__Agent__V1__PhaseTime *row, bool failed)
{
	nsec_t took = progress_usec(row->duration_us);
	char name[DOC_NAME_MAX], buf[HUMAN_MAX];

	table_cell(t, phase_name((int)row->phase, name));
	table_cell(t, human_duration(progress_usec(row->start_us), buf));
	table_cell(t, human_duration(took, buf));
	if (row->bytes) {
		table_cell(t, human_size(row->bytes, buf));
		table_cell(t, human_rate(row->bytes, took, buf));
	} else {
		table_blank(t);
		table_blank(t);
	}
	if (t->n_columns < ARRAY_SIZE(columns_of_timeline))
		return;
	if (failed)
		table_cell_styled(t, STYLE_BAD, "failed");
	else if (row->undo)
		table_cell_styled(t, STYLE_WARN, "undo");
	else
		table_blank(t);
}

void progress_timeline(Kybernate__Agent__V1__PhaseTime *const *times, size_t n, int failed_phase,
		       bool colour, struct text *out)
{
	_cleanup_table_ struct table t = TABLE_OF(columns_of_timeline);
	bool notes = false;
	size_t failed = n;

	/* Of several attempts of the phase that failed, it was the last that ended it. */
	for (size_t i = 0; i < n; i++) {
		if (failed_phase && (int)times[i]->phase == failed_phase && !times[i]->undo)
			failed = i;
		notes = notes || times[i]->undo;
	}
	if (!notes && failed == n)
		t.n_columns--;
	for (size_t i = 0; i < n; i++)
		add_row(&t, times[i], i == failed);
	if (n)
		table_write(&t, 0, colour, out);
}
