/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The status codes that gRPC and ttrpc share.
 * Source: google/rpc/code.proto; ttrpc carries the same numbers in google.rpc.Status.
 */
#ifndef KYB_BASE_CODE_H
#define KYB_BASE_CODE_H

enum rpc_code {
	RPC_OK = 0,
	RPC_CANCELED = 1,
	RPC_UNKNOWN = 2,
	RPC_INVALID_ARGUMENT = 3,
	RPC_DEADLINE_EXCEEDED = 4,
	RPC_NOT_FOUND = 5,
	RPC_ALREADY_EXISTS = 6,
	RPC_PERMISSION_DENIED = 7,
	RPC_RESOURCE_EXHAUSTED = 8,
	RPC_FAILED_PRECONDITION = 9,
	RPC_ABORTED = 10,
	RPC_OUT_OF_RANGE = 11,
	RPC_UNIMPLEMENTED = 12,
	RPC_INTERNAL = 13,
	RPC_UNAVAILABLE = 14,
	RPC_DATA_LOSS = 15,
	RPC_UNAUTHENTICATED = 16,
};

/* "NOT_FOUND" and so on; "CODE_?" for a number outside the enum. Never NULL. */
const char *rpc_code_name(enum rpc_code code);

#endif
