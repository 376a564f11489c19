/* SPDX-License-Identifier: Apache-2.0 */
/* Packing whatever gets sealed in a store, as REF.tar in a directory. */
#ifndef KYB_SIDECAR_SERVE_H
#define KYB_SIDECAR_SERVE_H

#include <signal.h>
#include <stdbool.h>

#include "artifact/store.h"
#include "base/error.h"
#include "base/time.h"
#include "pack/pack.h"

struct serve_config {
	const struct store *store;
	int out; /* the directory of the archives */
	/* Blocked; each ends it, and a packing that is under way, of which nothing stays. */
	const sigset_t *ends;
	bool (*stopped)(void *arg); /* is one of them pending? */
	void *arg;
	void (*packed)(const char *ref, const char *file, const struct pack_result *p, nsec_t took);
	nsec_t pause; /* before the second try */
};

#define SERVE_TRIES 5

/*
 * Packs what is in the store and has no archive, then what comes. One that cannot be packed is
 * tried again, later and later, SERVE_TRIES times in all; a damaged one is not. An archive that is
 * there is never looked at.
 *
 * Returns 0 when it was ended, or negative with err.
 */
int serve(const struct serve_config *config, struct error *err);


#endif
