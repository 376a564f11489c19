/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening the client's end of a stream without blocking. Source for the rules: containerd's fifo
 * package and copyPipes() (shim contract, "FIFO rules").
 */
#ifndef KYB_SHIM_FIFO_H
#define KYB_SHIM_FIFO_H

#include "base/error.h"
#include "event/loop.h"

struct fifo_open {
	struct loop *loop; /* NULL = not under way */
	const char *path;  /* borrowed until done() or fifo_open_cancel() */
	struct timer timer;
	nsec_t pause, deadline;
	int result; /* descriptor or -errno */
	void (*done)(struct fifo_open *f);
};

/*
 * Opens path for writing. A FIFO: waits until it has a reader (a client that has not come yet),
 * then holds both of its ends in one descriptor, so that neither a client that goes away nor a
 * restart of containerd breaks the container's writes. Anything else is opened for appending.
 * Never creates. done() is called from the loop with f->result: -ETIMEDOUT at the deadline.
 */
void fifo_open_writer(struct fifo_open *f, struct loop *loop, const char *path, nsec_t deadline,
		      void (*done)(struct fifo_open *f));
/* Waits no longer than until deadline, nor than before. Harmless when not under way. */
void fifo_open_hurry(struct fifo_open *f, nsec_t deadline);
/* Harmless when not under way. */
void fifo_open_cancel(struct fifo_open *f);

/*
 * Opens a stdin FIFO: *ret_reader for us to read from, *ret_holder a writing end of our own, so
 * that a client closing its end is not the end of the container's stdin; CloseIO closes it.
 * A regular file is opened for reading and has no holder (-1). Returns 0 or -errno.
 */
int fifo_open_stdin(const char *path, int *ret_reader, int *ret_holder);

#endif
