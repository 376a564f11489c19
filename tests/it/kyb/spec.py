# SPDX-License-Identifier: Apache-2.0
"""OCI runtime specifications, close to what containerd's clients write."""
import copy

_CAPS = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
         "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
         "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"]
PATH = "PATH=/bin"


def process(args, terminal=False, env=(), cwd="/", user=None, **more):
    """A Process, for the init of a spec or for an exec."""
    proc = {
        "terminal": terminal,
        "user": user or {"uid": 0, "gid": 0},
        "args": list(args),
        "env": [PATH, *env],
        "cwd": cwd,
        "capabilities": {"bounding": _CAPS, "effective": _CAPS, "permitted": _CAPS},
        "noNewPrivileges": True,
    }
    proc.update(more)
    return proc


_MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc",
     "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
     "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
    {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
     "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
    {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
     "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
     "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs",
     "options": ["nosuid", "noexec", "nodev", "ro"]},
    {"destination": "/run", "type": "tmpfs", "source": "tmpfs",
     "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
]
_NAMESPACES = ("pid", "ipc", "uts", "mount", "network")


def container(args, cgroup, rootfs="rootfs", annotations=None, host=(), memory=None, mounts=(),
              edit=None, **proc):
    """A whole spec. host names namespaces to share with the host, memory is a limit in bytes;
    edit(spec) may change the rest; the other keywords go to process()."""
    spec = {
        "ociVersion": "1.0.2",
        "process": process(args, **proc),
        "root": {"path": rootfs},
        "hostname": "kyb",
        "mounts": copy.deepcopy(_MOUNTS) + list(mounts),
        "annotations": dict(annotations or {}),
        "linux": {
            "cgroupsPath": cgroup,
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": name} for name in _NAMESPACES if name not in host],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                              "/proc/sysrq-trigger"],
        },
    }
    if "uts" in host:
        del spec["hostname"]
    if "network" in host:  # a new sysfs may only be mounted in one's own network namespace
        for mount in spec["mounts"]:
            if mount["type"] == "sysfs":
                mount.update(type="none", source="/sys",
                             options=["rbind", "nosuid", "noexec", "nodev", "ro"])
    if memory:
        spec["linux"]["resources"]["memory"] = {"limit": memory}
    if edit:
        edit(spec)
    return spec
