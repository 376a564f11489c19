/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's command line and configuration file; README.md, "fakegpud", lists both. */
#ifndef FAKEGPUD_CONFIG_H
#define FAKEGPUD_CONFIG_H

#include "daemon/server.h"

/* Fills srv->config, srv->settings, srv->gpus and srv->n_gpus. Returns 0, 1 when the program was
 * only asked for its usage (printed), or negative with err. */
int config_load(struct server *srv, int argc, char **argv, struct error *err);

/* Returns 0, -ENOENT (no such setting) or -ERANGE. */
int config_set(struct settings *settings, const char *name, uint64_t value);
/* The name of the i-th setting, its value in *ret; NULL past the last. */
const char *config_setting(struct settings *settings, unsigned int i, uint64_t *ret);
/* "64M", "2G", "4096": bytes. Returns 0 or -EINVAL. */
int config_parse_size(const char *text, uint64_t *ret);

#endif
