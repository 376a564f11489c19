/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu-shell: a CUDA process on a string. Reads commands from stdin, one a line, and answers each
 * with "ok [VALUE]" or "error NAME":
 *
 *	init | alloc MIB | managed MIB | free | kernel MS | sync | api | check | count | device N |
 *	fork | quit
 *
 * "api" is a call that needs the GPU and does nothing; "check" compares all that was allocated
 * with what was put there; "fork" makes an idle child without CUDA and tells its pid.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fakecuda/fakecuda.h"

#define ALLOCS_MAX 64

struct shell {
	struct {
		uint64_t address, words;
	} allocs[ALLOCS_MAX];
	unsigned int n;
	uint64_t cell; /* address: two words for results; 0 = not yet */
};

static void answer(const char *text, long long value, bool with_value)
{
	char line[96];
	int n = with_value ? snprintf(line, sizeof(line), "%s %lld\n", text, value)
			   : snprintf(line, sizeof(line), "%s\n", text);

	while (write(STDOUT_FILENO, line, (size_t)n) < 0 && errno == EINTR)
		;
}

static int allocate(struct shell *s, uint64_t mib, bool managed)
{
	uint64_t address, words = (mib << 20) / 8;
	int code;

	if (s->n == ALLOCS_MAX || !mib)
		return FG_INVALID_VALUE;
	code = (managed ? fc_malloc_managed : fc_malloc)(&address, words * 8);
	if (code != FG_SUCCESS)
		return code;
	s->allocs[s->n].address = address;
	s->allocs[s->n].words = words;
	s->n++;
	return fc_launch_fill(address, words, s->n, 0);
}

static int free_all(struct shell *s)
{
	int code = FG_SUCCESS;

	while (s->n && code == FG_SUCCESS)
		code = fc_free(s->allocs[--s->n].address);
	return code;
}

static int check(struct shell *s, long long *bad)
{
	uint64_t result[2];
	int code = FG_SUCCESS;

	*bad = 0;
	if (!s->cell)
		code = fc_malloc(&s->cell, 16);
	for (unsigned int i = 0; i < s->n && code == FG_SUCCESS; i++) {
		code = fc_launch_verify(s->allocs[i].address, s->allocs[i].words, i + 1, 0,
					s->cell);
		if (code == FG_SUCCESS)
			code = fc_memcpy_from(result, s->cell, sizeof(result));
		if (code == FG_SUCCESS)
			*bad += (long long)result[0];
	}
	return code;
}

static int api(void)
{
	uint64_t address;
	int code = fc_malloc(&address, 4096);

	return code == FG_SUCCESS ? fc_free(address) : code;
}

static pid_t idle_child(void)
{
	struct timespec second = { .tv_sec = 1 };
	pid_t pid = fork();

	if (pid)
		return pid;
	/* Outlives the shell, which is what it is for; but not for ever. */
	for (int i = 0; i < 60; i++)
		(void)nanosleep(&second, NULL);
	_exit(EXIT_SUCCESS);
}

/* false: leave. */
static bool command(struct shell *s, char *line)
{
	const char *word = strtok(line, " "), *argument = strtok(NULL, " ");
	uint64_t n = argument ? strtoull(argument, NULL, 10) : 0;
	int code = FG_INVALID_VALUE, count;
	bool with_value = false;
	long long value = 0;

	if (!word || strcmp(word, "quit") == 0)
		return false;
	if (strcmp(word, "init") == 0)
		code = fc_init();
	else if (strcmp(word, "alloc") == 0 || strcmp(word, "managed") == 0)
		code = allocate(s, n, *word == 'm');
	else if (strcmp(word, "free") == 0)
		code = free_all(s);
	else if (strcmp(word, "kernel") == 0)
		code = fc_launch_sleep(n);
	else if (strcmp(word, "sync") == 0)
		code = fc_synchronize();
	else if (strcmp(word, "api") == 0)
		code = api();
	else if (strcmp(word, "device") == 0)
		code = fc_set_device((int)n);
	else if ((with_value = strcmp(word, "check") == 0))
		code = check(s, &value);
	else if ((with_value = strcmp(word, "count") == 0)) {
		code = fc_device_count(&count);
		value = count;
	} else if ((with_value = strcmp(word, "fork") == 0)) {
		value = idle_child();
		code = FG_SUCCESS;
	}
	if (code == FG_SUCCESS) {
		answer("ok", value, with_value);
	} else {
		char text[64];

		(void)snprintf(text, sizeof(text), "error %s", fc_code_name(code));
		answer(text, 0, false);
	}
	return true;
}

int main(void)
{
	struct shell s = { .n = 0 };
	char line[256];
	size_t at = 0;

	(void)signal(SIGPIPE, SIG_IGN);
	for (;;) {
		ssize_t n = read(STDIN_FILENO, line + at, 1);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0 || at == sizeof(line) - 1)
			return n == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
		if (line[at++] != '\n')
			continue;
		line[at - 1] = '\0';
		at = 0;
		if (!command(&s, line))
			return EXIT_SUCCESS;
	}
}
