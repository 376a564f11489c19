/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What test containers run: one static program, told by its first argument what to show or do.
 * Unlike a shell it changes no signal dispositions and opens no descriptors on its own, and its
 * sleep survives a checkpoint (busybox's does not from 1.37 on: the restored nanosleep returns
 * EINTR).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	exit(111);
}

static void nap(long ms)
{
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

/* Returns at once when a signal handler has run, for the verbs that wait for one. */
static void nap_once(long ms)
{
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&ts, NULL);
}

static void say(const char *text)
{
	if (write(STDOUT_FILENO, text, strlen(text)) < 0)
		fail("write");
}

/* sleep [MS]: for ever, or so long. */
static int do_sleep(int argc, char **argv)
{
	if (argc > 0) {
		nap(atol(argv[0]));
		return 0;
	}
	for (;;)
		nap(1000000);
}

/* exit STATUS */
static int do_exit(int argc, char **argv)
{
	return argc > 0 ? atoi(argv[0]) : 0;
}

/*
 * count FILE: a number that lives only in memory, written to FILE every 10 ms; what a restored
 * process has to continue with. FILE is replaced by rename, so a reader never sees a half of it.
 */
static int do_count(int argc, char **argv)
{
	char tmp[256];

	if (argc < 1 || snprintf(tmp, sizeof(tmp), "%s.new", argv[0]) >= (int)sizeof(tmp))
		return 2;
	for (unsigned long n = 1;; n++) {
		int fd = open(tmp, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);

		if (fd < 0 || dprintf(fd, "%lu\n", n) < 0)
			fail(tmp);
		close(fd);
		if (rename(tmp, argv[0]) < 0)
			fail(argv[0]);
		nap(10);
	}
}

/* tick [MS]: a numbered line to stdout every MS (10) milliseconds. */
static int do_tick(int argc, char **argv)
{
	long ms = argc > 0 ? atol(argv[0]) : 10;
	char line[32];

	for (unsigned long n = 1;; n++) {
		snprintf(line, sizeof(line), "%lu\n", n);
		say(line);
		nap(ms);
	}
	return 0;
}

/*
 * bytes N [FD]: N bytes of a fixed pseudo-random sequence (xorshift64, little-endian words), which
 * the test can compute too.
 */
static int do_bytes(int argc, char **argv)
{
	static uint64_t block[8192];
	uint64_t x = 88172645463325252ULL;
	size_t left = argc > 0 ? strtoull(argv[0], NULL, 10) : 0;
	int fd = argc > 1 ? atoi(argv[1]) : STDOUT_FILENO;

	while (left > 0) {
		const char *at = (const char *)block;
		size_t n = left < sizeof(block) ? left : sizeof(block);

		for (size_t i = 0; i < sizeof(block) / sizeof(block[0]); i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			block[i] = x;
		}
		left -= n;
		while (n > 0) {
			ssize_t w = write(fd, at, n);

			if (w < 0)
				fail("write");
			at += w;
			n -= (size_t)w;
		}
	}
	return 0;
}

/* sink: reads stdin to its end and prints how many bytes came. */
static int do_sink(int argc, char **argv)
{
	static char block[65536];
	unsigned long long total = 0;
	ssize_t n;

	(void)argc;
	(void)argv;
	while ((n = read(STDIN_FILENO, block, sizeof(block))) > 0)
		total += (unsigned long long)n;
	if (n < 0)
		fail("read");
	printf("%llu\n", total);
	return 0;
}

/* fds: one line per open descriptor, 'number target'. */
static int do_fds(int argc, char **argv)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;

	(void)argc;
	(void)argv;
	if (dir == NULL)
		fail("/proc/self/fd");
	while ((entry = readdir(dir)) != NULL) {
		char target[512];
		ssize_t n;

		if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(dir))
			continue;
		n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);
		target[n > 0 ? n : 0] = '\0';
		printf("%s %s\n", entry->d_name, target);
	}
	closedir(dir);
	return 0;
}

/* signals: 'blocked N...' and 'ignored N...', the standard signals only. */
static int do_signals(int argc, char **argv)
{
	struct sigaction act;
	sigset_t set;

	(void)argc;
	(void)argv;
	if (sigprocmask(SIG_BLOCK, NULL, &set) < 0)
		fail("sigprocmask");
	printf("blocked");
	for (int sig = 1; sig < 32; sig++)
		if (sigismember(&set, sig) == 1)
			printf(" %d", sig);
	printf("\nignored");
	for (int sig = 1; sig < 32; sig++)
		if (sigaction(sig, NULL, &act) == 0 && act.sa_handler == SIG_IGN)
			printf(" %d", sig);
	printf("\n");
	return 0;
}

static volatile sig_atomic_t got;

static void on_signal(int sig)
{
	got = sig;
}

/* trap SIG STATUS: prints 'ready', waits for SIG, prints 'got SIG', and exits with STATUS. */
static int do_trap(int argc, char **argv)
{
	struct sigaction act = {.sa_handler = on_signal};
	char line[32];

	if (argc < 2)
		return 2;
	sigaction(atoi(argv[0]), &act, NULL);
	say("ready\n");
	while (got == 0)
		nap_once(1000000);
	snprintf(line, sizeof(line), "got %d\n", (int)got);
	say(line);
	return atoi(argv[1]);
}

/* ignore SIG: prints 'ready' and lives on whatever SIG comes. */
static int do_ignore(int argc, char **argv)
{
	if (argc < 1)
		return 2;
	signal(atoi(argv[0]), SIG_IGN);
	say("ready\n");
	return do_sleep(0, NULL);
}

static void print_size(void)
{
	struct winsize size = {0};
	char line[64];

	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) < 0)
		fail("TIOCGWINSZ");
	snprintf(line, sizeof(line), "%ux%u\n", size.ws_col, size.ws_row);
	say(line);
}

/* winsize: the terminal's size as COLUMNSxROWS, now and after every change. */
static int do_winsize(int argc, char **argv)
{
	struct sigaction act = {.sa_handler = on_signal};

	(void)argc;
	(void)argv;
	sigaction(SIGWINCH, &act, NULL);
	print_size();
	for (;;) {
		while (got == 0)
			nap_once(1000);
		got = 0;
		print_size();
	}
	return 0;
}

/* hog MIB: touches so much memory, prints 'done' if it is still alive, and sleeps. */
static int do_hog(int argc, char **argv)
{
	size_t size = (argc > 0 ? strtoul(argv[0], NULL, 10) : 1) << 20;
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		fail("mmap");
	for (size_t i = 0; i < size; i += 4096)
		p[i] = 1;
	say("done\n");
	return do_sleep(0, NULL);
}

/* spin MS: burns so much CPU time. */
static int do_spin(int argc, char **argv)
{
	clock_t end = clock() + (argc > 0 ? atol(argv[0]) : 10) * (CLOCKS_PER_SEC / 1000);

	while (clock() < end)
		;
	return 0;
}

/*
 * orphan MS STATUS: leaves a child behind that holds stdout and stderr for MS milliseconds and
 * then writes 'late', and exits with STATUS at once.
 */
static int do_orphan(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	if (fork() == 0) {
		setsid();
		nap(atol(argv[0]));
		say("late\n");
		_exit(0);
	}
	return atoi(argv[1]);
}

/* reap: an init that collects whatever exits below it. */
static int do_reap(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	say("ready\n");
	for (;;) {
		if (waitpid(-1, NULL, 0) < 0)
			nap(20);
	}
	return 0;
}

/* tty: is stdin, stdout, stderr a terminal? */
static int do_tty(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	printf("%d %d %d\n", isatty(0), isatty(1), isatty(2));
	return 0;
}

/* echo: repeats every block of stdin on stdout; at its end prints 'eof'. */
static int do_echo(int argc, char **argv)
{
	char block[4096];
	ssize_t n;

	(void)argc;
	(void)argv;
	while ((n = read(STDIN_FILENO, block, sizeof(block))) > 0)
		if (write(STDOUT_FILENO, block, (size_t)n) != n)
			fail("write");
	say("eof\n");
	return 0;
}

/*
 * undumpable: holds something that CRIU cannot dump (an io_uring, or where that is forbidden a
 * socket of the kernel's crypto API), prints 'ready', and sleeps.
 */
static int do_undumpable(int argc, char **argv)
{
	struct io_uring_params params = {0};

	(void)argc;
	(void)argv;
	if (syscall(SYS_io_uring_setup, 4, &params) < 0 && socket(AF_ALG, SOCK_SEQPACKET, 0) < 0)
		fail("undumpable");
	say("ready\n");
	return do_sleep(0, NULL);
}

/*
 * inflight READY GO: makes a TCP connection to itself that it does not accept, and then the file
 * READY; once GO exists it accepts, closes, and sleeps. Until then CRIU cannot dump it.
 */
static int do_inflight(int argc, char **argv)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(at);
	int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
	const struct linger now = { .l_onoff = 1 }; /* no FIN, which would leave a TIME_WAIT */
	int ready, accepted;

	if (argc != 2 || listener < 0 || client < 0 ||
	    bind(listener, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *)&at, &len) < 0 ||
	    connect(client, (struct sockaddr *)&at, sizeof(at)) < 0)
		fail("inflight");
	ready = open(argv[0], O_WRONLY | O_CREAT, 0600);
	if (ready < 0 || setsockopt(client, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) < 0)
		fail(argv[0]);
	close(ready);
	while (access(argv[1], F_OK) < 0)
		nap(10);
	accepted = accept(listener, NULL, NULL);
	if (accepted < 0)
		fail("accept");
	close(client);
	close(accepted);
	close(listener);
	return do_sleep(0, NULL);
}

/* rw FD: writes to FD and says on the exit status whether it could (0), else errno. */
static int do_rw(int argc, char **argv)
{
	return write(argc > 0 ? atoi(argv[0]) : 1, "x", 1) == 1 ? 0 : errno;
}

static const struct verb {
	const char *name;
	int (*run)(int argc, char **argv);
} verbs[] = {
	{"bytes", do_bytes},	 {"count", do_count},	  {"echo", do_echo},
	{"exit", do_exit},	 {"fds", do_fds},	  {"hog", do_hog},
	{"ignore", do_ignore},	 {"inflight", do_inflight}, {"orphan", do_orphan},
	{"reap", do_reap},	 {"rw", do_rw},		  {"signals", do_signals},
	{"sink", do_sink},	 {"sleep", do_sleep},	  {"spin", do_spin},
	{"tick", do_tick},	 {"trap", do_trap},	  {"tty", do_tty},
	{"undumpable", do_undumpable}, {"winsize", do_winsize},
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (strcmp(argv[1], verbs[i].name) == 0)
			return verbs[i].run(argc - 2, argv + 2);
	fprintf(stderr, "usage: probe VERB [ARGUMENT...]\n");
	return 2;
}
