/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standard output and standard error: what they are, and writing to them. A terminal may be
 * given colours and lines that are drawn again; a pipe or a file gets plain text, always.
 */
#ifndef KYB_CTL_SCREEN_H
#define KYB_CTL_SCREEN_H

#include <stdbool.h>
#include <stddef.h>

#include "text.h"

struct screen {
	int fd;
	bool colour; /* a terminal, and neither NO_COLOR nor TERM=dumb forbids it */
	bool live;   /* a terminal that can go back to the start of its line */
};

enum style { STYLE_PLAIN, STYLE_GOOD, STYLE_WARN, STYLE_BAD, STYLE_DIM };

/* https://no-color.org: NO_COLOR counts when it is set and not empty. */
void screen_open(struct screen *s, int fd);

/* The terminal's width now; 80 where it is not known. */
size_t screen_columns(const struct screen *s);

/* Adds what goes in front of and behind text in this style; nothing without colours. */
void screen_style(bool colour, enum style style, struct text *t);
void screen_unstyle(bool colour, enum style style, struct text *t);

/*
 * Writes the text and clears it. While it waits for a slow reader it watches wake_fd (-1: none)
 * and gives up with -EINTR when that becomes readable: a full pipe must not hold back Ctrl-C.
 * Returns 0 or -errno, also the error that the text met while it was made.
 */
int screen_write(const struct screen *s, struct text *t, int wake_fd);

#endif
