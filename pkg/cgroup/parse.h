/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text formats of cgroup files. What a line holds beyond what is asked for, and lines of
 * another shape, are passed over: kernels add to these files. Nothing here reads a file, so that
 * all of it can be fuzzed.
 */
#ifndef KYB_CGROUP_PARSE_H
#define KYB_CGROUP_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"

/*
 * A single number, blanks around it allowed. "max" is max; a negative number is 0, as in
 * containerd. Returns 0, -EINVAL or -ERANGE.
 */
int parse_value(struct bytes text, uint64_t max, uint64_t *ret);

/* The next line "KEY NUMBER". Returns 1, or 0 at the end. */
int parse_pair(struct bytes *text, struct bytes *ret_key, uint64_t *ret_value);

/* The number of one key, or 0 when there is none. */
uint64_t parse_find(struct bytes text, const char *key);

/* Where the number of a key goes: the field at that offset of a struct. */
struct parse_key {
	const char *name;
	size_t offset; /* of an uint64_t */
};

/* Fills the fields of all keys that the text has; the others stay. */
void parse_pairs(struct bytes text, const struct parse_key *keys, size_t n_keys, void *to);

/* Numbers between blanks, at most max of them, in the arena. Returns 0, -EBADMSG, -ENOMEM. */
int parse_numbers(struct bytes text, size_t max, struct arena *a, uint64_t **ret, size_t *ret_n);

struct blkio_entry {
	const char *op; /* "Read", ...; "" where the file does not tell operations apart */
	uint64_t major, minor, value;
	const char *device; /* "/dev/vda", "" when unknown; not filled here */
};

/* blkio.*: "MAJOR:MINOR [OP] NUMBER". Returns as parse_numbers() does. */
int parse_blkio(struct bytes text, size_t max, struct arena *a, struct blkio_entry **ret,
		size_t *ret_n);

struct io_entry {
	uint64_t major, minor, rbytes, wbytes, rios, wios;
};

/* io.stat: "MAJOR:MINOR KEY=NUMBER ..." */
int parse_io(struct bytes text, size_t max, struct arena *a, struct io_entry **ret,
	     size_t *ret_n);

struct rdma_entry {
	const char *device;
	uint32_t hca_handles, hca_objects; /* "max" is UINT32_MAX */
};

/* rdma.current, rdma.max: "DEVICE hca_handle=NUMBER hca_object=NUMBER" */
int parse_rdma(struct bytes text, size_t max, struct arena *a, struct rdma_entry **ret,
	       size_t *ret_n);

struct psi_data {
	bool present;
	double avg10, avg60, avg300; /* per cent */
	uint64_t total;              /* microseconds */
};

struct psi {
	bool present;
	struct psi_data some, full;
};

/* *.pressure: "some avg10=0.00 avg60=0.00 avg300=0.00 total=0", then "full". -EBADMSG or 0. */
int parse_psi(struct bytes text, struct psi *ret);

/* The name of a device in /proc/partitions, as "/dev/NAME" in the arena; "" when not found. */
const char *parse_partition(struct bytes partitions, uint64_t major, uint64_t minor,
			    struct arena *a);

/*
 * The size in the name of a folder, "hugepages-2048kB", as the files of the hugetlb controller
 * have it: "2MB". Returns 0 or -EINVAL.
 */
int parse_hugepage_size(const char *folder, char *buf, size_t size);

#endif
