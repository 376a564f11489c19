/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "api/containerd/common.pb-c.h"
#include "oci/options.h"
#include "tests/golden.h"

static const struct bytes nothing = { (const uint8_t *)"", 0 };

/* Parses an Any of the golden folder. */
static int parse_runtime(const char *name, struct runtime_options *ret, struct error *err)
{
	_cleanup_buf_ struct buf raw = golden(name);
	Ctd__Any *any = ctd__any__unpack(NULL, buf_len(&raw), buf_bytes(&raw).p);
	int r;

	assert_non_null(any);
	r = runtime_options_parse(any->type_url, bytes_of(any->value.data, any->value.len), ret,
				  err);
	ctd__any__free_unpacked(any, NULL);
	return r;
}

static int parse_checkpoint(const char *name, struct checkpoint_options *ret)
{
	_cleanup_buf_ struct buf raw = golden(name);
	Ctd__Any *any = ctd__any__unpack(NULL, buf_len(&raw), buf_bytes(&raw).p);
	int r;

	assert_non_null(any);
	r = checkpoint_options_parse(any->type_url, bytes_of(any->value.data, any->value.len), ret,
				     NULL);
	ctd__any__free_unpacked(any, NULL);
	return r;
}

static int parse_toml(const char *toml, struct runtime_options *ret, struct error *err)
{
	uint8_t raw[512];
	size_t n = strlen(toml);

	/* runtimeoptions.v1.Options, config_body = 3 */
	assert_true(n < 128);
	raw[0] = 3 << 3 | 2;
	raw[1] = (uint8_t)n;
	memcpy(raw + 2, toml, n);
	return runtime_options_parse("runtimeoptions.v1.Options", bytes_of(raw, n + 2), ret, err);
}

static void assert_defaults(const struct runtime_options *o)
{
	assert_false(o->no_pivot_root || o->no_new_keyring || o->systemd_cgroup);
	assert_int_equal(o->io_uid, 0);
	assert_int_equal(o->io_gid, 0);
	assert_string_equal(o->binary_name, "");
	assert_string_equal(o->root, "");
	assert_string_equal(o->shim_cgroup, "");
	assert_string_equal(o->criu_path, "");
	assert_string_equal(o->criu_image_path, "");
	assert_string_equal(o->criu_work_path, "");
	assert_null(o->unknown);
}

static void no_options_are_the_defaults(void **state)
{
	struct runtime_options o;
	struct checkpoint_options c;

	(void)state;
	assert_int_equal(runtime_options_parse("", nothing, &o, NULL), 0);
	assert_defaults(&o);
	runtime_options_done(&o);
	assert_int_equal(runtime_options_parse("runtimeoptions.v1.Options", nothing, &o, NULL), 0);
	assert_defaults(&o);
	runtime_options_done(&o);
	assert_int_equal(
		runtime_options_parse("containerd.runc.v1.Options", (struct bytes){ 0 }, &o, NULL),
		0);
	assert_defaults(&o);
	runtime_options_done(&o);
	assert_int_equal(checkpoint_options_parse("", nothing, &c, NULL), 0);
	assert_false(c.exit || c.open_tcp || c.external_unix_sockets || c.terminal || c.file_locks);
	assert_string_equal(c.image_path, "");
	assert_string_equal(c.work_path, "");
	assert_string_equal(c.parent_path, "");
	assert_int_equal(c.n_empty_namespaces, 0);
	assert_null(c.ref);
	checkpoint_options_done(&c);
}

static void runc_options_are_read(void **state)
{
	static const char *const files[] = { "options/runc.bin", "options/googleapis.bin" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		struct runtime_options o;

		assert_int_equal(parse_runtime(files[i], &o, NULL), 0);
		assert_true(o.no_pivot_root && o.no_new_keyring && o.systemd_cgroup);
		assert_int_equal(o.io_uid, 7);
		assert_int_equal(o.io_gid, 8);
		assert_string_equal(o.binary_name, "crun");
		assert_string_equal(o.root, "/run/kyb");
		assert_string_equal(o.shim_cgroup, "/cg");
		assert_string_equal(o.criu_image_path, "/i");
		assert_string_equal(o.criu_work_path, "/w");
		assert_string_equal(o.criu_path, "");
		runtime_options_done(&o);
	}
}

static void legacy_options_are_read(void **state)
{
	struct runtime_options o;

	(void)state;
	assert_int_equal(parse_runtime("options/legacy-create.bin", &o, NULL), 0);
	assert_true(o.no_pivot_root && o.no_new_keyring);
	assert_false(o.systemd_cgroup);
	assert_int_equal(o.io_uid, 7);
	assert_int_equal(o.io_gid, 8);
	assert_string_equal(o.shim_cgroup, "/cg");
	assert_string_equal(o.criu_image_path, "/i");
	assert_string_equal(o.criu_work_path, "/w");
	runtime_options_done(&o);
}

static void the_cri_options_table_is_read(void **state)
{
	static const char *const files[] = { "start/1.7.24-cri-options.bin",
					     "start/2.1.9-cri-options.bin",
					     "start/1.7.24-cri-runtime-path.bin",
					     "start/2.1.9-cri-runtime-path.bin" };
	struct runtime_options o;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		assert_int_equal(parse_runtime(files[i], &o, NULL), 0);
		assert_true(o.systemd_cgroup && o.no_pivot_root);
		assert_false(o.no_new_keyring);
		assert_int_equal(o.io_uid, 1000);
		assert_string_equal(o.binary_name, "crun");
		assert_string_equal(o.root, "/run/kyb");
		assert_string_equal(o.criu_work_path, "/var/lib/criu work");
		assert_null(o.unknown);
		runtime_options_done(&o);
	}
	/* 1.6 sends its type and nothing else. */
	assert_int_equal(parse_runtime("start/1.6.20-cri-options.bin", &o, NULL), 0);
	assert_defaults(&o);
	runtime_options_done(&o);
}

static void toml_keys_are_compared_as_go_does(void **state)
{
	struct runtime_options o;
	struct error err = ERROR_NULL;

	(void)state;
	assert_int_equal(parse_toml("systemdcgroup = true\nTypeUrl = 'x'\nConfigPath = ''\n"
				    "Later = 1\n[Even]\nlater = 2\n",
				    &o, &err),
			 0);
	assert_true(o.systemd_cgroup);
	assert_string_equal(o.unknown, "Later, Even");
	runtime_options_done(&o);
	assert_int_equal(parse_toml("SystemdCgroup = 'yes'", &o, &err), -EINVAL);
	assert_string_equal(error_text(&err), "runtime options: line 1: 'SystemdCgroup' must be "
					      "true or false, not a string");
	assert_int_equal(error_rpc_code(&err), RPC_INVALID_ARGUMENT);
	assert_int_equal(parse_toml("IoUid = 4294967296", &o, &err), -EINVAL);
	assert_int_equal(parse_toml("Root = [", &o, &err), -EINVAL);
	assert_int_equal(error_rpc_code(&err), RPC_INVALID_ARGUMENT);
}

static void a_config_path_is_followed(void **state)
{
	char dir[] = "/tmp/options-test-XXXXXX", path[64];
	uint8_t raw[128] = { 2 << 3 | 2 };
	struct error err = ERROR_NULL;
	struct runtime_options o;
	size_t n;

	(void)state;
	assert_non_null(mkdtemp(dir));
	n = (size_t)snprintf(path, sizeof(path), "%s/runtime.toml", dir);
	raw[1] = (uint8_t)n;
	memcpy(raw + 2, path, n);
	assert_int_equal(
		runtime_options_parse("runtimeoptions.v1.Options", bytes_of(raw, n + 2), &o, &err),
		-ENOENT);
	assert_non_null(strstr(error_text(&err), path));
	assert_int_equal(file_write(AT_FDCWD, path, "Root = '/r'\n", 12, 0600, FILE_PLAIN), 0);
	assert_int_equal(
		runtime_options_parse("runtimeoptions.v1.Options", bytes_of(raw, n + 2), &o, &err),
		0);
	assert_string_equal(o.root, "/r");
	runtime_options_done(&o);
	raw[2] = 'x';
	assert_int_equal(
		runtime_options_parse("runtimeoptions.v1.Options", bytes_of(raw, n + 2), &o, &err),
		-EINVAL);
	assert_non_null(strstr(error_text(&err), "must be an absolute path"));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(dir), 0);
}

static void what_is_not_understood_is_refused(void **state)
{
	struct error err = ERROR_NULL;
	struct checkpoint_options c;
	struct runtime_options o;

	(void)state;
	assert_int_equal(runtime_options_parse("containerd.runhcs.v1.Options", nothing, &o, &err),
			 -EINVAL);
	assert_string_equal(error_text(&err),
			    "runtime options of the type "
			    "\"containerd.runhcs.v1.Options\" are not understood");
	assert_int_equal(error_rpc_code(&err), RPC_INVALID_ARGUMENT);
	assert_int_equal(runtime_options_parse("", bytes_of("x", 1), &o, &err), -EINVAL);
	assert_int_equal(
		runtime_options_parse("containerd.runc.v1.Options", bytes_of("\xff", 1), &o, &err),
		-EINVAL);
	assert_string_equal(error_text(&err),
			    "runtime options: malformed or too large: containerd.runc.v1.Options");
	assert_int_equal(checkpoint_options_parse("containerd.runc.v1.Options", nothing, &c, &err),
			 -EINVAL);
	assert_int_equal(checkpoint_options_parse("containerd.runc.v1.CheckpointOptions",
						  bytes_of("\x0a\x7f", 2), &c, &err),
			 -EINVAL);
	assert_true(runtime_options_type("type.googleapis.com/runtimeoptions.v1.Options"));
	assert_false(runtime_options_type("containerd.io/nri.v1.PluginConfig"));
}

static void both_checkpoint_messages_mean_the_same(void **state)
{
	static const char *const files[] = { "options/checkpoint.bin",
					     "options/legacy-checkpoint.bin" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		struct checkpoint_options c;

		assert_int_equal(parse_checkpoint(files[i], &c), 0);
		assert_true(c.exit && c.open_tcp && c.external_unix_sockets && c.terminal &&
			    c.file_locks);
		assert_int_equal(c.n_empty_namespaces, 2);
		assert_string_equal(c.empty_namespaces[0], "network");
		assert_string_equal(c.empty_namespaces[1], "pid");
		assert_string_equal(c.image_path, "/image");
		assert_string_equal(c.work_path, "/work-dir");
		assert_string_equal(c.parent_path, "");
		assert_null(c.ref);
		checkpoint_options_done(&c);
	}
}

/* kybernate_ref = 1000: tag 0xc2 0x3e */
static void a_reference_must_be_a_name(void **state)
{
	struct error err = ERROR_NULL;
	struct checkpoint_options c;

	(void)state;
	assert_int_equal(checkpoint_options_parse("containerd.runc.v1.CheckpointOptions",
						  bytes_of("\xc2\x3e\x03one", 6), &c, &err),
			 0);
	assert_string_equal(c.ref, "one");
	checkpoint_options_done(&c);
	assert_int_equal(checkpoint_options_parse("containerd.runc.v1.CheckpointOptions",
						  bytes_of("\xc2\x3e\x03../", 6), &c, &err),
			 -EINVAL);
	assert_int_equal(err.reason, REASON_REF_INVALID);
}

struct bundle_dir {
	char path[32];
	int fd;
};

static int make_bundle(void **state)
{
	static struct bundle_dir b;

	(void)snprintf(b.path, sizeof(b.path), "/tmp/options-test-XXXXXX");
	assert_non_null(mkdtemp(b.path));
	b.fd = open(b.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*state = &b;
	return b.fd < 0;
}

static int remove_bundle(void **state)
{
	struct bundle_dir *b = *state;

	(void)unlinkat(b->fd, "options.json", 0);
	(void)unlinkat(b->fd, "runtime", 0);
	(void)close(b->fd);
	return rmdir(b->path);
}

static void put(struct bundle_dir *b, const char *name, const char *text)
{
	assert_int_equal(file_write(b->fd, name, text, strlen(text), 0600, FILE_PLAIN), 0);
}

static void options_survive_in_a_bundle(void **state)
{
	struct bundle_dir *b = *state;
	struct runtime_options o, back;
	_cleanup_buf_ struct buf text = BUF_NULL;
	struct stat st;

	assert_int_equal(parse_runtime("options/runc.bin", &o, NULL), 0);
	assert_int_equal(runtime_options_write(b->fd, &o, NULL), 0);
	assert_int_equal(file_read(b->fd, "options.json", &text), 0);
	/* What containerd's own shim writes for the same options, less the two it alone uses. */
	assert_string_equal(buf_str(&text), "{\"no_pivot_root\":true,\"no_new_keyring\":true,"
					    "\"shim_cgroup\":\"/cg\",\"io_uid\":7,\"io_gid\":8,"
					    "\"binary_name\":\"crun\",\"root\":\"/run/kyb\","
					    "\"systemd_cgroup\":true,\"criu_image_path\":\"/i\","
					    "\"criu_work_path\":\"/w\"}");
	buf_clear(&text);
	assert_int_equal(file_read(b->fd, "runtime", &text), 0);
	assert_string_equal(buf_str(&text), "crun");
	assert_int_equal(fstatat(b->fd, "options.json", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(fstatat(b->fd, "runtime", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(runtime_options_read(b->fd, &back, NULL), 0);
	assert_true(back.no_pivot_root && back.no_new_keyring && back.systemd_cgroup);
	assert_int_equal(back.io_uid, 7);
	assert_int_equal(back.io_gid, 8);
	assert_string_equal(back.binary_name, "crun");
	assert_string_equal(back.root, "/run/kyb");
	assert_string_equal(back.criu_work_path, "/w");
	runtime_options_done(&o);
	runtime_options_done(&back);
	runtime_options_init(&o);
	assert_int_equal(runtime_options_write(b->fd, &o, NULL), 0);
	buf_clear(&text);
	assert_int_equal(file_read(b->fd, "options.json", &text), 0);
	assert_string_equal(buf_str(&text), "{}");
}

static void foreign_bundles_are_readable(void **state)
{
	struct bundle_dir *b = *state;
	struct error err = ERROR_NULL;
	struct runtime_options o;

	assert_int_equal(runtime_options_read(b->fd, &o, &err), 0);
	assert_defaults(&o);
	runtime_options_done(&o);
	put(b, "options.json",
	    "{\"root\":\"/r\",\"binary_name\":\"a\",\"task_api_version\":3,"
	    "\"from\":{\"the\":\"future\"}}");
	assert_int_equal(runtime_options_read(b->fd, &o, &err), 0);
	assert_string_equal(o.root, "/r");
	assert_string_equal(o.binary_name, "a");
	runtime_options_done(&o);
	put(b, "runtime", "/usr/bin/b\n");
	assert_int_equal(runtime_options_read(b->fd, &o, &err), 0);
	assert_string_equal(o.binary_name, "/usr/bin/b");
	runtime_options_done(&o);
	put(b, "options.json", "{\"root\":7}");
	assert_int_equal(runtime_options_read(b->fd, &o, &err), -EBADMSG);
	assert_string_equal(error_text(&err), "options.json: 'root': Bad message");
	put(b, "options.json", "[]");
	assert_int_equal(runtime_options_read(b->fd, &o, &err), -EBADMSG);
	put(b, "options.json", "");
	assert_int_equal(runtime_options_read(b->fd, &o, &err), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_options_are_the_defaults),
		cmocka_unit_test(runc_options_are_read),
		cmocka_unit_test(legacy_options_are_read),
		cmocka_unit_test(the_cri_options_table_is_read),
		cmocka_unit_test(toml_keys_are_compared_as_go_does),
		cmocka_unit_test(a_config_path_is_followed),
		cmocka_unit_test(what_is_not_understood_is_refused),
		cmocka_unit_test(both_checkpoint_messages_mean_the_same),
		cmocka_unit_test(a_reference_must_be_a_name),
		cmocka_unit_test_setup_teardown(options_survive_in_a_bundle, make_bundle,
						remove_bundle),
		cmocka_unit_test_setup_teardown(foreign_bundles_are_readable, make_bundle,
						remove_bundle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
