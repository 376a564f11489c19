/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <malloc.h>
#include <string.h>

#include "oci/bundle.h"
#include "tests/golden.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KYB_CLANG_ASAN 1
#endif
#endif
#ifndef KYB_CLANG_ASAN
#define KYB_CLANG_ASAN 0
#endif

static const char *prefix[] = { "/dev/nvidia" };
static const struct setting_list prefixes = { prefix, 1 };

static int parse(const char *text, struct bundle *ret, struct error *err)
{
	return bundle_parse(bytes_of(text, strlen(text)), &prefixes, ret, err);
}

static void parse_golden(const char *name, struct bundle *ret)
{
	_cleanup_buf_ struct buf text = golden(name);

	assert_int_equal(bundle_parse(buf_bytes(&text), &prefixes, ret, NULL), 0);
}

static void a_plain_container_of_ctr(void **state)
{
	struct bundle b;

	(void)state;
	parse_golden("config/ctr-1.6.20-plain.json", &b);
	assert_null(b.group);
	assert_null(b.sandbox_id);
	assert_false(b.is_sandbox || b.terminal || b.rootfs_readonly || b.gpu || b.user_namespace);
	assert_string_equal(b.rootfs, "rootfs");
	assert_string_equal(b.cgroups_path, "/default/plain");
	assert_true(b.own_pid_namespace);
	assert_true(b.memory_limit == 0);
	assert_int_equal(b.uid_maps.n, 0);
	assert_int_equal(b.unknown.n, 0);
	bundle_done(&b);
}

static void a_gpu_container_of_ctr(void **state)
{
	struct bundle_seat seat;
	struct bundle b;

	(void)state;
	parse_golden("config/ctr-2.1.9-gpu.json", &b);
	assert_true(b.gpu);
	assert_true(b.memory_limit == 67108864);
	assert_int_equal(b.gpu_devices.n, 1);
	assert_string_equal(b.gpu_devices.items[0], "/dev/nvidiactl");
	assert_string_equal(b.env[ENV_VISIBLE_DEVICES], "0,1");
	assert_string_equal(b.annotation[ANNOTATION_PAUSE], "suspend");
	assert_int_equal(bundle_seat(&b, &seat, NULL), 0);
	assert_string_equal(seat.group, "left");
	assert_string_equal(seat.seat, "1");
	bundle_done(&b);
}

static void a_container_with_a_user_namespace(void **state)
{
	struct bundle b;

	(void)state;
	parse_golden("config/ctr-2.1.9-userns.json", &b);
	assert_true(b.user_namespace && b.rootfs_readonly && b.own_pid_namespace);
	assert_int_equal(b.uid_maps.n, 1);
	assert_int_equal(b.uid_maps.items[0].inside, 0);
	assert_int_equal(b.uid_maps.items[0].outside, 100000);
	assert_int_equal(b.uid_maps.items[0].count, 65536);
	assert_int_equal(b.gid_maps.n, 1);
	assert_int_equal(b.gid_maps.items[0].outside, 200000);
	bundle_done(&b);
}

/* The pod of the golden samples: "5a" 32 times is its sandbox. */
static void check_pod(const struct bundle *b)
{
	assert_int_equal(strlen(b->sandbox_id), 64);
	assert_memory_equal(b->sandbox_id, "5a5a5a5a", 8);
	assert_string_equal(b->group, b->sandbox_id);
	assert_string_equal(b->pod_name, "llama-0");
	assert_string_equal(b->pod_namespace, "team-a");
}

static void the_containers_of_a_pod(void **state)
{
	static const char *const releases[] = { "1.6.20", "1.7.24", "2.1.9" };
	struct bundle_intent intent;
	char name[64];
	struct bundle b;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(releases); i++) {
		(void)snprintf(name, sizeof(name), "config/cri-%s-container.json", releases[i]);
		parse_golden(name, &b);
		check_pod(&b);
		assert_string_equal(b.container_name, "trainer");
		assert_string_equal(b.pod_uid, "0f3c2b1a-4d5e-6f70-8192-a3b4c5d6e7f8");
		assert_true(b.gpu && b.own_pid_namespace);
		assert_false(b.is_sandbox);
		assert_int_equal(b.gpu_devices.n, 2);
		assert_string_equal(b.gpu_devices.items[0], "/dev/nvidia0");
		assert_string_equal(b.gpu_devices.items[1], "/dev/nvidiactl");
		assert_true(b.memory_limit == (int64_t)8 << 30);
		assert_string_equal(b.env[ENV_SEAT_GENERATION], "7");
		assert_int_equal(bundle_intent(&b, &intent, NULL), 0);
		assert_string_equal(intent.restore_from, "llama-step-1000");
		assert_true(intent.checkpoint_on_stop);
		assert_false(intent.suspend_on_pause);
		bundle_done(&b);

		/* The pod's annotations reach the sandbox and the sidecar too. */
		(void)snprintf(name, sizeof(name), "config/cri-%s-sandbox.json", releases[i]);
		parse_golden(name, &b);
		check_pod(&b);
		assert_true(b.is_sandbox);
		assert_false(b.gpu);
		assert_int_equal(bundle_intent(&b, &intent, NULL), 0);
		assert_null(intent.restore_from);
		bundle_done(&b);
		(void)snprintf(name, sizeof(name), "config/cri-%s-sidecar.json", releases[i]);
		parse_golden(name, &b);
		check_pod(&b);
		assert_string_equal(b.container_name, "sidecar");
		assert_false(b.gpu || b.own_pid_namespace);
		assert_int_equal(bundle_intent(&b, &intent, NULL), 0);
		assert_null(intent.restore_from);
		bundle_done(&b);
	}
}

static void integers_beyond_64_bits_do_no_harm(void **state)
{
	struct bundle b;

	(void)state;
	parse_golden("config/dockerd-ulimit.json", &b);
	assert_true(b.memory_limit == 9223372036854771712);
	assert_string_equal(b.cgroups_path, "/default/plain");
	bundle_done(&b);
	assert_int_equal(parse("{\"linux\":{\"resources\":{\"memory\":"
			       "{\"limit\":18446744073709551615}}}}",
			       &b, NULL),
			 0);
	assert_true(b.memory_limit == 0);
	bundle_done(&b);
	assert_int_equal(parse("{\"linux\":{\"resources\":{\"memory\":{\"limit\":-1}}}}", &b, NULL),
			 0);
	assert_true(b.memory_limit == 0);
	bundle_done(&b);
}

static void what_makes_a_gpu_container(void **state)
{
	static const struct {
		bool gpu;
		const char *text;
	} cases[] = {
		{ false, "{}" },
		{ false, "{\"process\":{\"env\":[\"NVIDIA_VISIBLE_DEVICES=\"]}}" },
		{ false, "{\"process\":{\"env\":[\"NVIDIA_VISIBLE_DEVICES=void\"]}}" },
		{ false, "{\"process\":{\"env\":[\"NVIDIA_VISIBLE_DEVICES=none\"]}}" },
		{ false, "{\"process\":{\"env\":[\"NVIDIA_VISIBLE_DEVICES=all\","
			 "\"NVIDIA_VISIBLE_DEVICES=void\"]}}" },
		{ true, "{\"process\":{\"env\":[\"NVIDIA_VISIBLE_DEVICES=all\"]}}" },
		{ true, "{\"process\":{\"env\":[\"KYB_GPU_SEAT=0\"]}}" },
		{ true, "{\"process\":{\"env\":[\"KYB_GPU_GROUP=a\"]}}" },
		{ false, "{\"process\":{\"env\":[\"KYB_GPU_GROUP=\",\"XKYB_GPU_SEAT=1\"]}}" },
		{ false, "{\"annotations\":{\"kybernate.io/gpu-group\":\"a\"}}" },
		{ true, "{\"annotations\":{\"cdi.k8s.io/plugin_7\":\"nvidia.com/gpu=0\"}}" },
		{ true, "{\"annotations\":{\"cdi.k8s.io/x\":\"a.b/c=1,nvidia.com/gpu=all\"}}" },
		{ true, "{\"annotations\":{\"cdi.k8s.io/x\":\"k8s.gpu.nvidia.com/claim=7\"}}" },
		{ false, "{\"annotations\":{\"cdi.k8s.io/x\":\"intel.com/gpu=0\"}}" },
		{ false, "{\"annotations\":{\"cdi.k8s.io/x\":\"notnvidia.com/gpu=0\"}}" },
		{ false, "{\"annotations\":{\"x\":\"nvidia.com/gpu=0\"}}" },
		{ true, "{\"linux\":{\"devices\":[{\"path\":\"/dev/nvidia3\"}]}}" },
		{ false, "{\"linux\":{\"devices\":[{\"path\":\"/dev/null\"}]}}" },
		{ true, "{\"mounts\":[{\"source\":\"/dev/nvidia0\",\"destination\":\"/x\"}]}" },
		{ true, "{\"mounts\":[{\"source\":\"/x\",\"destination\":\"/dev/nvidia0\"}]}" },
		{ false, "{\"mounts\":[{\"source\":\"/opt/nvidia\",\"destination\":\"/y\"}]}" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bundle b;

		assert_int_equal(parse(cases[i].text, &b, NULL), 0);
		if (b.gpu != cases[i].gpu)
			fail_msg("%s: gpu is %d", cases[i].text, b.gpu);
		bundle_done(&b);
	}
}

static void a_device_is_listed_once(void **state)
{
	struct bundle b;

	(void)state;
	assert_int_equal(
		parse("{\"linux\":{\"devices\":[{\"path\":\"/dev/nvidia0\"},"
		      "{\"path\":\"/dev/null\"},{\"path\":\"/dev/nvidia-uvm\"}]},"
		      "\"mounts\":[{\"source\":\"/dev/nvidia0\",\"destination\":\"/dev/nvidia0\"},"
		      "{\"source\":\"/dev/nvidia1\",\"destination\":\"/dev/nvidia0\"}]}",
		      &b, NULL),
		0);
	assert_int_equal(b.gpu_devices.n, 3);
	assert_string_equal(b.gpu_devices.items[0], "/dev/nvidia0");
	assert_string_equal(b.gpu_devices.items[1], "/dev/nvidia-uvm");
	assert_string_equal(b.gpu_devices.items[2], "/dev/nvidia1");
	bundle_done(&b);
}

static void the_pid_namespace(void **state)
{
	static const struct {
		bool own;
		const char *text;
	} cases[] = {
		{ false, "{}" },
		{ false, "{\"linux\":{\"namespaces\":[{\"type\":\"mount\"}]}}" },
		{ true, "{\"linux\":{\"namespaces\":[{\"type\":\"pid\"}]}}" },
		{ true, "{\"linux\":{\"namespaces\":[{\"type\":\"pid\",\"path\":\"\"}]}}" },
		{ false,
		  "{\"linux\":{\"namespaces\":[{\"type\":\"pid\",\"path\":\"/proc/1/ns/pid\"}]}}" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bundle b;

		assert_int_equal(parse(cases[i].text, &b, NULL), 0);
		assert_int_equal(b.own_pid_namespace, cases[i].own);
		bundle_done(&b);
	}
}

static void the_group_label_comes_before_the_sandbox(void **state)
{
	struct bundle b;

	(void)state;
	assert_int_equal(parse("{\"annotations\":{\"io.kubernetes.cri.sandbox-id\":\"s\","
			       "\"io.containerd.runc.v2.group\":\"g\"}}",
			       &b, NULL),
			 0);
	assert_string_equal(b.group, "g");
	assert_string_equal(b.sandbox_id, "s");
	bundle_done(&b);
	assert_int_equal(parse("{\"annotations\":null}", &b, NULL), 0);
	assert_null(b.group);
	bundle_done(&b);
}

static void one_containers_annotation_wins(void **state)
{
	struct bundle b;

	(void)state;
	assert_int_equal(parse("{\"annotations\":{\"kybernate.io/pause\":\"suspend\","
			       "\"kybernate.io/pause.web\":\"freeze\","
			       "\"kybernate.io/gpu-seat.db\":\"9\","
			       "\"kybernate.io/on-stop\":\"checkpoint\","
			       "\"io.kubernetes.cri.container-name\":\"web\"}}",
			       &b, NULL),
			 0);
	assert_string_equal(b.annotation[ANNOTATION_PAUSE], "freeze");
	assert_string_equal(b.annotation[ANNOTATION_ON_STOP], "checkpoint");
	assert_null(b.annotation[ANNOTATION_GPU_SEAT]);
	assert_int_equal(b.unknown.n, 0);
	bundle_done(&b);
}

static void unknown_annotations_are_told(void **state)
{
	char text[4096] = "{\"annotations\":{\"kybernate.io/restore-form\":\"x\","
			  "\"kybernate.io/pauses.web\":\"x\",\"other.io/pause\":\"x\"";
	struct bundle b;

	(void)state;
	(void)strcat(text, "}}");
	assert_int_equal(parse(text, &b, NULL), 0);
	assert_int_equal(b.unknown.n, 2);
	assert_string_equal(b.unknown.items[0], "kybernate.io/pauses.web");
	assert_string_equal(b.unknown.items[1], "kybernate.io/restore-form");
	bundle_done(&b);
	text[strlen(text) - 2] = 0;
	for (int i = 0; i < 20; i++)
		(void)snprintf(text + strlen(text), sizeof(text) - strlen(text),
			       ",\"kybernate.io/x%d\":\"\"", i);
	(void)strcat(text, "}}");
	assert_int_equal(parse(text, &b, NULL), 0);
	assert_int_equal(b.unknown.n, BUNDLE_UNKNOWN_MAX);
	bundle_done(&b);
}

static void intent_of(const char *annotations, int want, enum reason reason, const char *why)
{
	struct error err = ERROR_NULL;
	struct bundle_intent intent;
	char text[1024];
	struct bundle b;

	(void)snprintf(text, sizeof(text), "{\"annotations\":{%s}}", annotations);
	assert_int_equal(parse(text, &b, NULL), 0);
	assert_int_equal(bundle_intent(&b, &intent, &err), want);
	assert_int_equal(err.reason, reason);
	if (why)
		assert_string_equal(error_text(&err), why);
	bundle_done(&b);
}

static void annotations_are_read_strictly(void **state)
{
	(void)state;
	intent_of("", 0, REASON_NONE, NULL);
	intent_of("\"kybernate.io/pause\":\"freeze\",\"kybernate.io/on-stop\":\"signal\"", 0,
		  REASON_NONE, NULL);
	intent_of("\"kybernate.io/pause\":\"Suspend\"", -EINVAL, REASON_CONFIG_INVALID,
		  "annotation kybernate.io/pause is \"Suspend\"; allowed are \"freeze\" and "
		  "\"suspend\"");
	intent_of("\"kybernate.io/on-stop\":\"\"", -EINVAL, REASON_CONFIG_INVALID,
		  "annotation kybernate.io/on-stop is \"\"; allowed are \"signal\" and "
		  "\"checkpoint\"");
	intent_of("\"kybernate.io/restore-from\":\"../etc\"", -EINVAL, REASON_REF_INVALID,
		  "annotation kybernate.io/restore-from is \"../etc\", which is not a checkpoint "
		  "reference: 1 to 128 letters, digits, '.', '_' and '-', beginning with a letter "
		  "or digit");
	intent_of("\"kybernate.io/restore-from\":\"\"", -EINVAL, REASON_REF_INVALID, NULL);
	/* The sandbox of a pod has no intent, whatever the pod says. */
	intent_of("\"kybernate.io/pause\":\"x\",\"kybernate.io/restore-from\":\"/\","
		  "\"io.kubernetes.cri.container-type\":\"sandbox\"",
		  0, REASON_NONE, NULL);
}

static void seat_of(const char *env, const char *annotations, int want, const char *group,
		    const char *seat, const char *why)
{
	struct error err = ERROR_NULL;
	struct bundle_seat got;
	char text[1024];
	struct bundle b;

	(void)snprintf(text, sizeof(text), "{\"process\":{\"env\":[%s]},\"annotations\":{%s}}", env,
		       annotations);
	assert_int_equal(parse(text, &b, NULL), 0);
	assert_int_equal(bundle_seat(&b, &got, &err), want);
	if (want == 0) {
		assert_string_equal(got.group, group);
		assert_string_equal(got.seat, seat);
	} else {
		assert_int_equal(err.reason, REASON_SEAT_MISMATCH);
		assert_string_equal(error_text(&err), why);
	}
	bundle_done(&b);
}

static void environment_and_annotation_must_agree(void **state)
{
	(void)state;
	seat_of("", "", 0, "", "", NULL);
	seat_of("\"KYB_GPU_GROUP=a\",\"KYB_GPU_SEAT=1\"", "", 0, "a", "1", NULL);
	seat_of("", "\"kybernate.io/gpu-group\":\"a\",\"kybernate.io/gpu-seat\":\"1\"", 0, "a", "1",
		NULL);
	seat_of("\"KYB_GPU_GROUP=a\"", "\"kybernate.io/gpu-group\":\"a\"", 0, "a", "", NULL);
	seat_of("\"KYB_GPU_GROUP=a\"", "\"kybernate.io/gpu-group\":\"b\"", -EPERM, NULL, NULL,
		"KYB_GPU_GROUP is \"a\" but annotation kybernate.io/gpu-group is \"b\"");
	seat_of("\"KYB_GPU_SEAT=1\"", "\"kybernate.io/gpu-seat\":\"10\"", -EPERM, NULL, NULL,
		"KYB_GPU_SEAT is \"1\" but annotation kybernate.io/gpu-seat is \"10\"");
	seat_of("\"KYB_GPU_SEAT=a b\"", "", -EPERM, NULL, NULL,
		"KYB_GPU_SEAT is \"a b\", which is not a name");
	seat_of("", "\"kybernate.io/gpu-seat\":\"\"", -EPERM, NULL, NULL,
		"annotation kybernate.io/gpu-seat is \"\", which is not a name");
}

static void visible_devices_are_split(void **state)
{
	_cleanup_arena_ struct arena mem = ARENA_LIMIT(4096);
	struct bundle_strings list;
	struct bundle b;

	(void)state;
	assert_int_equal(
		parse("{\"process\":{\"env\":[\"NVIDIA_VISIBLE_DEVICES=0,GPU-1,,2\"]}}", &b, NULL),
		0);
	assert_int_equal(bundle_visible_devices(&b, &mem, &list), 0);
	assert_int_equal(list.n, 3);
	assert_string_equal(list.items[0], "0");
	assert_string_equal(list.items[1], "GPU-1");
	assert_string_equal(list.items[2], "2");
	bundle_done(&b);
	assert_int_equal(
		parse("{\"process\":{\"env\":[\"NVIDIA_VISIBLE_DEVICES=void\"]}}", &b, NULL), 0);
	assert_int_equal(bundle_visible_devices(&b, &mem, &list), 0);
	assert_int_equal(list.n, 0);
	bundle_done(&b);
}

static void what_is_no_spec_is_refused(void **state)
{
	static const struct {
		const char *text, *why;
	} cases[] = {
		{ "[]", "the file is not what the runtime specification says" },
		{ "{\"annotations\":[]}",
		  "annotations is not what the runtime specification says" },
		{ "{\"annotations\":{\"kybernate.io/pause\":1}}",
		  "annotations is not what the runtime specification says" },
		{ "{\"process\":{\"terminal\":\"yes\"}}",
		  "process.terminal is not what the runtime specification says" },
		{ "{\"root\":{\"path\":7}}",
		  "root.path is not what the runtime specification says" },
		{ "{\"linux\":{\"uidMappings\":[{\"hostID\":-1}]}}",
		  "linux.uidMappings is not what the runtime specification says" },
		{ "{", "line 1, column 1: string or '}' expected" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error err = ERROR_NULL;
		struct bundle b;

		assert_int_equal(parse(cases[i].text, &b, &err), -EBADMSG);
		assert_string_equal(error_text(&err), cases[i].why);
	}
}

static void what_is_kept_is_bounded(void **state)
{
	_cleanup_buf_ struct buf text = BUF_NULL;
	struct error err = ERROR_NULL;
	struct bundle b;

	(void)state;
	assert_int_equal(buf_append_str(&text, "{\"linux\":{\"cgroupsPath\":\"/"), 0);
	for (int i = 0; i < 300 * 1024; i++)
		assert_int_equal(buf_append_str(&text, "x"), 0);
	assert_int_equal(buf_append_str(&text, "\"}}"), 0);
	assert_int_equal(bundle_parse(buf_bytes(&text), &prefixes, &b, &err), -E2BIG);
}

static void a_bundle_is_read_from_its_folder(void **state)
{
	char dir[] = "/tmp/bundle-test-XXXXXX";
	struct error err = ERROR_NULL;
	struct bundle b;
	int fd;

	(void)state;
	assert_non_null(mkdtemp(dir));
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(bundle_read(fd, &prefixes, &b, &err), -ENOENT);
	assert_string_equal(error_text(&err), "read config.json: No such file or directory");
	assert_int_equal(file_write(fd, "config.json", "[]", 2, 0600, FILE_PLAIN), 0);
	assert_int_equal(bundle_read(fd, &prefixes, &b, &err), -EBADMSG);
	assert_string_equal(error_text(&err),
			    "config.json: the file is not what the runtime specification says");
	assert_int_equal(
		file_write(fd, "config.json", "{\"root\":{\"path\":\"r\"}}", 21, 0600, FILE_PLAIN),
		0);
	assert_int_equal(bundle_read(fd, &prefixes, &b, &err), 0);
	assert_string_equal(b.rootfs, "r");
	bundle_done(&b);
	assert_int_equal(unlinkat(fd, "config.json", 0), 0);
	assert_int_equal(close(fd), 0);
	assert_int_equal(rmdir(dir), 0);
}

/* Pages that only this process has. */
static size_t private_kb(void)
{
	_cleanup_buf_ struct buf text = BUF_NULL;
	const char *at;

	assert_int_equal(file_read(AT_FDCWD, "/proc/self/smaps_rollup", &text), 0);
	at = strstr(buf_str(&text), "Private_Dirty:");
	assert_non_null(at);
	return strtoul(at + strlen("Private_Dirty:"), NULL, 10);
}

static void a_big_spec(int dirfd)
{
	_cleanup_buf_ struct buf text = BUF_NULL;

	assert_int_equal(buf_append_str(&text, "{\"root\":{\"path\":\"r\"},\"mounts\":[{}"), 0);
	for (int i = 0; buf_len(&text) < 1000000; i++)
		assert_int_equal(buf_printf(&text,
					    ",{\"destination\":\"/m/%d\",\"type\":\"bind\","
					    "\"source\":\"/host/%d\",\"options\":[\"rbind\"]}",
					    i, i),
				 0);
	assert_int_equal(buf_append_str(&text, "]}"), 0);
	assert_int_equal(
		file_write(dirfd, "config.json", buf_str(&text), buf_len(&text), 0600, FILE_PLAIN),
		0);
}

/* The tree of a megabyte of JSON takes eight. A shim, one for each pod, must not keep it. */
static void a_big_spec_leaves_little_behind(void **state)
{
	char dir[] = "/tmp/bundle-test-XXXXXX";
	struct bundle b;
	size_t before;
	int fd;

	(void)state;
#if defined(__SANITIZE_ADDRESS__) || KYB_CLANG_ASAN
	skip(); /* its allocator keeps what is freed */
#endif
	assert_non_null(mkdtemp(dir));
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	a_big_spec(fd);
	(void)malloc_trim(0);
	before = private_kb();
	assert_int_equal(bundle_read(fd, &prefixes, &b, NULL), 0);
	assert_in_range(private_kb(), 0, before + 256);
	assert_in_range(b.mem.used, 1, 4096);
	bundle_done(&b);
	assert_int_equal(unlinkat(fd, "config.json", 0), 0);
	assert_int_equal(close(fd), 0);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_plain_container_of_ctr),
		cmocka_unit_test(a_gpu_container_of_ctr),
		cmocka_unit_test(a_container_with_a_user_namespace),
		cmocka_unit_test(the_containers_of_a_pod),
		cmocka_unit_test(integers_beyond_64_bits_do_no_harm),
		cmocka_unit_test(what_makes_a_gpu_container),
		cmocka_unit_test(a_device_is_listed_once),
		cmocka_unit_test(the_pid_namespace),
		cmocka_unit_test(the_group_label_comes_before_the_sandbox),
		cmocka_unit_test(one_containers_annotation_wins),
		cmocka_unit_test(unknown_annotations_are_told),
		cmocka_unit_test(annotations_are_read_strictly),
		cmocka_unit_test(environment_and_annotation_must_agree),
		cmocka_unit_test(visible_devices_are_split),
		cmocka_unit_test(what_is_no_spec_is_refused),
		cmocka_unit_test(what_is_kept_is_bounded),
		cmocka_unit_test(a_bundle_is_read_from_its_folder),
		cmocka_unit_test(a_big_spec_leaves_little_behind),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
