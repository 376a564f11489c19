/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's messages as JSON, for -o json and -o jsonl. Made from the descriptors that protoc-c
 * generates, so keys and enum values are those of agent.proto and as stable as these: field names
 * as they are; enum values without their prefix and in lower case ("vram_save", "degraded"), but
 * for reasons, which have one spelling everywhere ("LOCK_TIMEOUT"). Every field of a message is
 * there, also when it is empty; a message that was not sent is null.
 *
 * Functions that make a json_t return a new reference, or NULL when out of memory.
 */
#ifndef KYB_CTL_DOC_H
#define KYB_CTL_DOC_H

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>

#include "text.h"

json_t *doc_message(const ProtobufCMessage *m);

/* A string from somewhere else: what is not UTF-8 becomes U+FFFD. */
json_t *doc_string(const char *s);

#define DOC_NAME_MAX 64

/* "vram_save", "LOCK_TIMEOUT"; "phase_99" for a number that this version does not know. */
const char *doc_enum_name(const ProtobufCEnumDescriptor *type, int value, char *buf);

/*
 * Adds doc to out as ASCII, pretty or in one line, with a newline. What a terminal could take for
 * a command is escaped. Takes over the reference; doc NULL is an error of out (no memory).
 */
void doc_write(json_t *doc, bool pretty, struct text *out);

#endif
