/* SPDX-License-Identifier: Apache-2.0 */
/* The shim's settings: shim.toml. For people: docs/configuration.md, generated from this table. */
#ifndef KYB_CONF_SHIM_SETTINGS_H
#define KYB_CONF_SHIM_SETTINGS_H

#include "conf/settings.h"

#define SHIM_SETTINGS_ENV  "KYBERNATE_SHIM_CONFIG"
#define SHIM_SETTINGS_FILE "/etc/kybernate/shim.toml"

/* X(type, member = key, default, documentation) */
#define SHIM_SETTINGS(X)                                                                           \
	X(PATH, agent_socket, "\"/run/kybernate/agent.sock\"", "The node agent's socket.")         \
	X(LEVEL, log_level, "\"info\"",                                                            \
	  "The least important lines that are logged. containerd's own debug switch lowers it to " \
	  "`\"debug\"`.")                                                                          \
	X(DURATION, timeouts.agent, "\"5s\"", "Connecting to the agent, and its first answer.")    \
	X(DURATION, timeouts.agent_return, "\"1m\"",                                               \
	  "An agent that dies in the middle of a checkpoint may take so long to come back: the "   \
	  "container is kept as it is until then, and the checkpoint goes on.")                    \
	X(DURATION, timeouts.quiesce, "\"10s\"",                                                   \
	  "Before a dump: look at the container's mounts; thaw it, drain its output, sync its "    \
	  "file system.")                                                                          \
	X(DURATION, timeouts.cuda_checkpoint, "\"7m\"",                                            \
	  "From the end of quiesce until the agent reports all GPU memory saved. More than the "   \
	  "agent's `timeouts.lock` and `timeouts.vram_save` together.")                            \
	X(DURATION, timeouts.criu_dump, "\"15m\"", "The OCI runtime's `checkpoint`.")              \
	X(DURATION, timeouts.exit, "\"30s\"",                                                      \
	  "A checkpoint with exit: until the container is gone after its image was sealed.")       \
	X(DURATION, timeouts.criu_restore, "\"15m\"", "The OCI runtime's `restore`.")              \
	X(DURATION, timeouts.cuda_restore, "\"7m\"",                                               \
	  "Until the agent reports all GPU memory back, after a dump, a restore or a resume. More " \
	  "than the agent's `timeouts.vram_restore` and `timeouts.unlock` together.")              \
	X(DURATION, timeouts.operation, "\"30m\"",                                                 \
	  "A whole checkpoint, restore, suspend or resume, where the caller set no deadline.")     \
	X(DURATION, timeouts.stop, "\"25s\"",                                                      \
	  "`kybernate.io/on-stop: checkpoint`: how long the checkpoint may take before SIGTERM is " \
	  "delivered after all. Less than the pods' grace period, which the shim is not told.")    \
	X(BOOL, checkpoint.tcp_established, "false",                                               \
	  "Dump established TCP connections, as if every caller set `open_tcp`. They can be "      \
	  "restored only where the container gets its old address back.")                          \
	X(BOOL, checkpoint.ext_unix_sk, "false",                                                   \
	  "Dump Unix sockets connected to outside of the container, as if every caller set "       \
	  "`external_unix_sockets`. The peer must cope with a connection that breaks.")            \
	X(BOOL, checkpoint.file_locks, "true",                                                     \
	  "Dump file locks, as if every caller set `file_locks`. Model caches hold such locks; "   \
	  "`ctr` sets this too.")                                                                  \
	X(PATHS, gpu.device_prefixes, "[\"/dev/nvidia\"]",                                         \
	  "Devices whose path starts so are GPU devices: a container that is given one is a GPU "  \
	  "container.")                                                                            \
	X(PATHS, gpu.mount_prefixes,                                                               \
	  "[\"/dev/dri/\", \"/dev/infiniband/\", \"/dev/nvidia\", \"/etc/OpenCL/\", "                \
	  "\"/etc/nvidia\", \"/etc/vulkan/\", \"/lib\", \"/proc/driver/nvidia\", "                   \
	  "\"/run/nvidia\", \"/usr/bin/nvidia-\", \"/usr/lib\", \"/usr/local/nvidia/\", "            \
	  "\"/usr/share/egl/\", \"/usr/share/glvnd/\", \"/usr/share/nvidia/\", "                     \
	  "\"/usr/share/vulkan/\", \"/var/run/nvidia\"]",                                            \
	  "What a hook or CDI may have mounted into a GPU container from the host, beyond its "    \
	  "`config.json`: sources that begin so are declared to CRIU at a dump, and mounted from " \
	  "the same name at a restore.")

struct shim_settings {
	struct arena mem;
	const char *agent_socket;
	enum log_level log_level;
	struct {
		nsec_t agent, agent_return, quiesce, cuda_checkpoint, criu_dump, exit, criu_restore,
			cuda_restore, operation, stop;
	} timeouts;
	struct {
		bool tcp_established, ext_unix_sk, file_locks;
	} checkpoint;
	struct {
		struct setting_list device_prefixes, mount_prefixes;
	} gpu;
};

/*
 * named: the value of SHIM_SETTINGS_ENV, or NULL. Returns 0, -EINVAL (err names file, line and
 * key), -ENOMEM, or -errno of the file. Free with shim_settings_done() after success.
 */
int shim_settings_load(const char *named, struct shim_settings *ret, struct error *err);
/* The same from a text. */
int shim_settings_parse(struct bytes text, struct shim_settings *ret, struct error *err);
/* Harmless on zeroed settings. */
void shim_settings_done(struct shim_settings *s);

#endif
