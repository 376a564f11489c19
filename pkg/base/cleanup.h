/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ownership helpers: one owner at a time, released when it leaves the scope, given away
 * with TAKE_PTR()/TAKE_FD(), which disarm the giver.
 */
#ifndef KYB_BASE_CLEANUP_H
#define KYB_BASE_CLEANUP_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <dirent.h>

#define _cleanup_(fn) __attribute__((cleanup(fn)))

#define DEFINE_CLEANUP(type, fn)                                                                   \
	static inline void fn##_p(type *p)                                                         \
	{                                                                                          \
		if (*p)                                                                            \
			fn(*p);                                                                    \
	}                                                                                          \
	struct cleanup_swallow_semicolon

static inline void cleanup_free_p(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_close_p(const int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

DEFINE_CLEANUP(FILE *, fclose);
DEFINE_CLEANUP(DIR *, closedir);

#define _cleanup_free_     _cleanup_(cleanup_free_p)
#define _cleanup_close_    _cleanup_(cleanup_close_p)
#define _cleanup_fclose_   _cleanup_(fclose_p)
#define _cleanup_closedir_ _cleanup_(closedir_p)

#define TAKE_PTR(p)                                                                                \
	({                                                                                         \
		__typeof__(p) take_ = (p);                                                         \
		(p) = NULL;                                                                        \
		take_;                                                                             \
	})

#define TAKE_FD(fd)                                                                                \
	({                                                                                         \
		int take_ = (fd);                                                                  \
		(fd) = -1;                                                                         \
		take_;                                                                             \
	})

#define container_of(ptr, type, member)                                                            \
	({                                                                                         \
		const __typeof__(((type *)0)->member) *member_ = (ptr);                            \
		(type *)((uintptr_t)member_ - offsetof(type, member));                            \
	})

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#endif
