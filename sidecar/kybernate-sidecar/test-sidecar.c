/* SPDX-License-Identifier: Apache-2.0 */
/* The program as it is run: as another user than the store's where we are root. */
#include "pack/test-rig.h"

#include <jansson.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"
#include "proc/spawn.h"

#define USER     "nobody"
#define ARGS_MAX 12
#define PATIENCE (20 * NSEC_PER_SEC)

static struct rig rig;
static char said[4096]; /* on standard output */
static int outputs[2];

static int setup(void **state)
{
	(void)state;
	rig_open(&rig);
	if (geteuid() == 0)
		assert_int_equal(chown(rig.out.path, 65534, 65534), 0);
	assert_int_equal(pipe2(outputs, O_CLOEXEC), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	(void)close(outputs[0]);
	rig_close(&rig);
	return 0;
}

static pid_t start(const char *const *args)
{
	const char *argv[ARGS_MAX + 4] = { SIDECAR };
	struct spawn s = { .argv = argv };
	struct error err = ERROR_NULL;
	size_t n = 1;
	pid_t pid;

	if (geteuid() == 0)
		argv[n++] = "--user=" USER;
	for (; *args; args++)
		argv[n++] = *args;
	spawn_fd(&s, outputs[1], 1);
	spawn_fd(&s, 2, 2);
	assert_int_equal(spawn(&s, &pid, &err), 0);
	return pid;
}

static int end_of(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int run(const char *const *args)
{
	int status = end_of(start(args));
	ssize_t n;

	(void)close(outputs[1]);
	n = read(outputs[0], said, sizeof(said) - 1);
	said[n > 0 ? n : 0] = 0;
	(void)close(outputs[0]);
	assert_int_equal(pipe2(outputs, O_CLOEXEC), 0);
	return status;
}

#define RUN(...) run((const char *const[]){ __VA_ARGS__, NULL })

static void in_out(char *ret, const char *name)
{
	(void)snprintf(ret, 128, "%s/%s", rig.out.path, name);
}

static void it_packs_and_unpacks(void **state)
{
	char file[128], dir[128];
	struct stat st;
	json_t *line;

	(void)state;
	rig_seal(&rig, "big", MANIFEST_TREE_MIN + 5);
	in_out(file, "big.tar");
	in_out(dir, "big");
	assert_int_equal(RUN("pack", "--store", rig.store_dir.path, "big", file), 0);
	line = json_loads(said, 0, NULL);
	assert_string_equal(json_string_value(json_object_get(line, "ref")), "big");
	assert_string_equal(json_string_value(json_object_get(line, "file")), file);
	assert_true(json_integer_value(json_object_get(line, "bytes")) >
		    (json_int_t)MANIFEST_TREE_MIN);
	json_decref(line);
	assert_int_equal(RUN("unpack", file, dir), 0);
	assert_true(tree_has(rig.out.fd, "big/criu/pages-2.img"));
	/* Neither again, unless it is asked for. */
	assert_int_equal(RUN("pack", "--store", rig.store_dir.path, "big", file), 1);
	assert_int_equal(RUN("pack", "--force", "--store", rig.store_dir.path, "big", file), 0);
	assert_int_equal(RUN("unpack", file, dir), 1);
	in_out(dir, "small");
	assert_int_equal(RUN("unpack", "--max-size=1000", file, dir), 1);
	assert_int_equal(rig_count(&rig), 2);
	/* What came out belongs to whom it was unpacked by. */
	assert_int_equal(fstatat(rig.out.fd, "big/criu", &st, 0), 0);
	assert_int_equal(st.st_uid, geteuid() == 0 ? 65534 : geteuid());
}

static void until_there(const char *name)
{
	nsec_t deadline = time_add(time_now(), PATIENCE);

	while (!tree_has(rig.out.fd, name)) {
		assert_true(time_now() < deadline);
		(void)usleep(10 * 1000);
	}
}

static void it_serves(void **state)
{
	const char *const args[] = { "serve", "--store", rig.store_dir.path, "--out", rig.out.path,
				     NULL };
	char left[] = ".a.tar.00c0ffee.part";
	pid_t pid;

	(void)state;
	rig_seal(&rig, "damaged", 0);
	tree_poke(rig.store_dir.fd, "damaged/criu/pages-1.img", 3, 'X');
	tree_text(rig.out.fd, left, "of one that was killed");
	if (geteuid() == 0)
		assert_int_equal(fchownat(rig.out.fd, left, 65534, 65534, 0), 0);
	pid = start(args);
	until_there("a.tar");
	rig_seal(&rig, "b", 0);
	until_there("b.tar");
	rig_seal(&rig, "c", MANIFEST_TREE_MIN + 5);
	until_there("c.tar");
	assert_int_equal(kill(pid, SIGTERM), 0);
	assert_int_equal(end_of(pid), 0);
	assert_int_equal(rig_count(&rig), 3);
	assert_int_equal(rig_unpack(&rig, "c.tar", "c"), 0);
	/* What is there already is left alone. */
	assert_int_equal(unlinkat(rig.out.fd, "b.tar", 0), 0);
	tree_text(rig.out.fd, "a.tar", "another");
	pid = start(args);
	until_there("b.tar");
	assert_int_equal(kill(pid, SIGTERM), 0);
	assert_int_equal(end_of(pid), 0);
	assert_int_not_equal(rig_unpack(&rig, "a.tar", "a"), 0);
}

/* In the middle of it: at once, and nothing of it stays. */
static void it_ends_in_the_middle(void **state)
{
	const char *const args[] = { "serve", "--store", rig.store_dir.path, "--out", rig.out.path,
				     NULL };
	nsec_t start_time, deadline = time_add(time_now(), PATIENCE);
	pid_t pid;

	(void)state;
	rig_seal(&rig, "b", (uint64_t)1 << 30);
	pid = start(args);
	until_there("a.tar");
	while (rig_count(&rig) < 2 && time_now() < deadline)
		(void)usleep(1000);
	start_time = time_now();
	assert_int_equal(kill(pid, SIGTERM), 0);
	assert_int_equal(end_of(pid), 0);
	assert_true(time_now() - start_time < 2 * NSEC_PER_SEC);
	assert_int_equal(rig_count(&rig), 1);
}

static void it_ends_with_the_store(void **state)
{
	const char *const args[] = { "serve", "--store", rig.store_dir.path, "--out", rig.out.path,
				     NULL };
	char other[96];
	pid_t pid;

	(void)state;
	pid = start(args);
	until_there("a.tar");
	(void)snprintf(other, sizeof(other), "%s.moved", rig.store_dir.path);
	assert_int_equal(rename(rig.store_dir.path, other), 0);
	assert_int_equal(end_of(pid), 1);
	assert_int_equal(rename(other, rig.store_dir.path), 0);
}

static void its_arguments_are_checked(void **state)
{
	(void)state;
	assert_int_equal(RUN("--help"), 0);
	assert_int_equal(RUN("--version"), 0);
	assert_int_equal(RUN("--what"), 2);
	assert_int_equal(RUN("dance"), 2);
	assert_int_equal(RUN("pack", "a"), 2);
	assert_int_equal(RUN("pack", "a", "b", "c"), 2);
	assert_int_equal(RUN("pack", "--out", "x", "a", "b"), 2);
	assert_int_equal(RUN("serve"), 2);
	assert_int_equal(RUN("unpack", "--max-size=many", "a", "b"), 2);
	assert_int_equal(RUN("pack", "--store=relative", "a", "/tmp/none"), 1);
	assert_int_equal(RUN("pack", "--store=/none", "a", "/tmp/none"), 1);
	assert_int_equal(RUN("unpack", "/none", "/tmp/none"), 1);
	assert_int_equal(RUN("unpack", "/dev/null", "/tmp/none"), 1);
	assert_int_equal(RUN("pack", "--user=root", "a", "/tmp/none"), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(it_packs_and_unpacks),
		T(it_serves),
		T(it_ends_in_the_middle),
		T(it_ends_with_the_store),
		T(its_arguments_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
