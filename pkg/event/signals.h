/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals as events. The signals named are blocked for the process and read from a signalfd;
 * nothing ever runs in a handler. SIGPIPE is ignored. spawn() undoes both in a child.
 */
#ifndef KYB_EVENT_SIGNALS_H
#define KYB_EVENT_SIGNALS_H

#include <signal.h>

#include "event/loop.h"

struct signals {
	struct source src;
	void (*caught)(struct signals *s, int signo);
};

/* signos ends with 0. Returns 0 or -errno. */
int signals_open(struct loop *loop, struct signals *s, const int *signos,
		 void (*caught)(struct signals *s, int signo));
/* Stops listening and closes; the signals stay blocked. Harmless when not open. */
void signals_close(struct signals *s);

#endif
