/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls without a C library, for a program whose start must cost next to nothing: glibc's
 * start-up takes several times as long as all that the null runtime does (on a virtual machine most
 * of it in CPUID, which traps). Where the processor is not known here, libc does it after all.
 *
 * Errors are returned as the kernel returns them: -errno.
 */
#ifndef KYB_BENCH_BARE_H
#define KYB_BENCH_BARE_H

#include <stddef.h>
#include <sys/syscall.h>

#if defined(__x86_64__)

static inline long bare_call(long n, long a, long b, long c, long d, long e)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return ret;
}

/* The kernel gives argc and argv on the stack. */
#define BARE_MAIN(run)                                                                             \
	__asm__(".globl _start\n"                                                                  \
		"_start:\n"                                                                        \
		"	mov %rsp, %rdi\n"                                                          \
		"	and $-16, %rsp\n"                                                          \
		"	call bare_start\n");                                                       \
	__attribute__((used, visibility("default"))) _Noreturn void bare_start(char **stack);      \
	_Noreturn void bare_start(char **stack)                                                    \
	{                                                                                          \
		(void)bare_call(SYS_exit_group, run(stack + 1), 0, 0, 0, 0);                       \
		__builtin_unreachable();                                                           \
	}

#elif defined(__aarch64__)

static inline long bare_call(long n, long a, long b, long c, long d, long e)
{
	register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b,
		      x2 __asm__("x2") = c, x3 __asm__("x3") = d, x4 __asm__("x4") = e;

	__asm__ volatile("svc 0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4)
			 : "memory");
	return x0;
}

#define BARE_MAIN(run)                                                                             \
	__asm__(".globl _start\n"                                                                  \
		"_start:\n"                                                                        \
		"	mov x0, sp\n"                                                              \
		"	bl bare_start\n");                                                         \
	__attribute__((used, visibility("default"))) _Noreturn void bare_start(char **stack);      \
	_Noreturn void bare_start(char **stack)                                                    \
	{                                                                                          \
		(void)bare_call(SYS_exit_group, run(stack + 1), 0, 0, 0, 0);                       \
		__builtin_unreachable();                                                           \
	}

#else
#define BARE_LIBC
#include <errno.h>
#include <unistd.h>

static inline long bare_call(long n, long a, long b, long c, long d, long e)
{
	long r = syscall(n, a, b, c, d, e);

	return r < 0 ? -errno : r;
}

#define BARE_MAIN(run)                                                                             \
	int main(int argc, char **argv)                                                            \
	{                                                                                          \
		(void)argc;                                                                        \
		return run(argv);                                                                  \
	}
#endif

#endif
