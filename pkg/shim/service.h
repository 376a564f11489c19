/* SPDX-License-Identifier: Apache-2.0 */
/* The services of a shim's socket. Handlers take a struct shim as their arg. */
#ifndef KYB_SHIM_SERVICE_H
#define KYB_SHIM_SERVICE_H

#include "shim/task.h"

extern const struct ttrpc_service service_table[];
extern const size_t service_table_size;

#endif
