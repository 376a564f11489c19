# SPDX-License-Identifier: Apache-2.0
"""What a machine is and allows: plain facts, gathered without changing anything that stays."""
import glob
import gzip
import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess
import sys

import lab

_CONFIG = ("CHECKPOINT_RESTORE", "OVERLAY_FS", "NAMESPACES", "PID_NS", "NET_NS", "USER_NS",
           "CGROUPS", "CGROUP_FREEZER", "CGROUP_DEVICE", "CGROUP_BPF", "MEMCG",
           "CGROUP_PIDS", "UNIX_DIAG", "INET_DIAG", "PACKET_DIAG", "NETLINK_DIAG", "NF_TABLES",
           "IP_NF_IPTABLES", "EPOLL", "INOTIFY_USER", "FHANDLE", "EVENTFD", "SECCOMP_FILTER",
           "MEM_SOFT_DIRTY", "USERFAULTFD", "BRIDGE", "VETH", "TUN", "BLK_DEV_LOOP", "FUSE_FS",
           "TRANSPARENT_HUGEPAGE", "PREEMPT")


def _read(path, most=4000):
    try:
        with open(path, "rb") as f:
            return f.read(most).replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError as e:
        return f"({e.strerror})"


def _says(*argv, most=4000, timeout=20):
    done = lab.Run(argv, timeout)
    text = (done.out + done.err).strip()[:most]
    return text if done.ok else f"({done.status}) {text}"


def kernel():
    config = {}
    try:
        with gzip.open("/proc/config.gz", "rt") as f:
            text = f.read()
        for name in _CONFIG:
            found = re.search(rf"^CONFIG_{name}=(.*)$", text, re.M)
            config[name] = found.group(1) if found else "n"
    except OSError as e:
        config = f"(/proc/config.gz: {e.strerror})"
    return {"uname": " ".join(platform.uname()), "cmdline": _read("/proc/cmdline"),
            "config": config, "ptrace_scope": _read("/proc/sys/kernel/yama/ptrace_scope"),
            "lsm": _read("/sys/kernel/security/lsm"), "last_cap": _read("/proc/sys/kernel/cap_last_cap")}


def process():
    status = _read("/proc/self/status")
    return {"status": {k: v for k, v in re.findall(
        r"^(Cap\w+|Seccomp\w*|NoNewPrivs|Uid|NSpid):\s+(.*)$", status, re.M)},
        "cgroup": _read("/proc/self/cgroup"), "limits": _read("/proc/self/limits"),
        "namespaces": {n: os.readlink(f"/proc/self/ns/{n}") for n in os.listdir("/proc/self/ns")},
        "pid1": _read("/proc/1/cmdline"), "uid_map": _read("/proc/self/uid_map"),
        "oom_score_adj": _read("/proc/self/oom_score_adj")}


def memory():
    return {"meminfo": _read("/proc/meminfo", 400), "cpus": os.cpu_count(),
            "cpu": (re.findall(r"model name\s*: (.*)", _read("/proc/cpuinfo")) or ["?"])[0],
            "df": _says("df", "-hT"), "shm": _says("df", "-h", "/dev/shm")}


def files():
    mounts = _read("/proc/self/mountinfo", 20000)
    return {"mountinfo": mounts, "root": [m for m in mounts.splitlines() if " / / " in m],
            "cgroup_mounts": [m for m in mounts.splitlines() if " - cgroup" in m],
            "controllers": _read("/sys/fs/cgroup/cgroup.controllers"),
            "subtree": _read("/sys/fs/cgroup/cgroup.subtree_control"),
            "filesystems": _read("/proc/filesystems"), "loop": glob.glob("/dev/loop*")[:3]}


def may():
    """What is tried: unshare, overlay, a cgroup, ptrace, a chroot of mounts."""
    found = {}
    for name, flag in (("mount", "-m"), ("pid", "-pf"), ("net", "-n"), ("ipc", "-i"),
                       ("uts", "-u"), ("user", "-U"), ("cgroup", "-C")):
        found[f"unshare {name}"] = _says("unshare", flag, "true", most=200) or "ok"
    found["overlay on /var/tmp"] = lab.try_overlay("/var/tmp") or "ok"
    for base in ("/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/devices",
                 "/sys/fs/cgroup/freezer"):
        path = pathlib.Path(base) / "kybernate-try"
        try:
            path.mkdir()
            found[f"cgroup in {base}"] = sorted(p.name for p in path.iterdir())[:12]
            path.rmdir()
        except OSError as e:
            found[f"cgroup in {base}"] = e.strerror
    with subprocess.Popen(["sleep", "5"]) as child:
        PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17
        found["ptrace"] = "ok" if lab._LIBC.ptrace(PTRACE_SEIZE, child.pid, 0, 0) == 0 else "no"
        lab._LIBC.ptrace(PTRACE_DETACH, child.pid, 0, 0)
        child.kill()
    return found


def driver(found):
    facts = {"version": _read("/proc/driver/nvidia/version"),
             "module": _read("/sys/module/nvidia/version"),
             "params": _read("/proc/driver/nvidia/params"),
             "devices": {p: [f"{os.major(os.stat(p).st_rdev)}:{os.minor(os.stat(p).st_rdev)}",
                             oct(os.stat(p).st_mode)]
                         for p in glob.glob("/dev/nvidia*") if not os.path.isdir(p)},
             "nvidia-smi -L": _says("nvidia-smi", "-L"), "nvidia-smi": _says("nvidia-smi"),
             "processes": _says("nvidia-smi", "--query-compute-apps=pid,used_memory",
                                "--format=csv"),
             "persistence": _says("nvidia-smi", "--query-gpu=persistence_mode,mig.mode.current,"
                                  "memory.total,memory.used,driver_version", "--format=csv"),
             "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", ""),
             "ldconfig": re.findall(r"\S*(?:cuda|nvidia)\S* .*", _says("/sbin/ldconfig", "-p",
                                                                       most=200000))[:60]}
    if found is not None:
        facts.update(folder=str(found.folder), libraries=found.libraries,
                     mounted=found.devices,
                     all=sorted(os.listdir(found.folder))[:120])
    return facts


def cuda_in_namespaces(deadline):
    """What cuInit says in namespaces such as a container has."""
    found = {}
    for name, flags in (("none", []), ("pid, with its /proc", ["-pf", "--mount-proc"]),
                        ("pid", ["-pf"]), ("ipc, uts, net", ["-i", "-u", "-n"])):
        argv = (["unshare", *flags] if flags else []) + [str(lab.BIN / "real-shell")]
        try:
            done = subprocess.run(argv, input=b"init\nalloc 8\ncheck\n", capture_output=True,
                                  timeout=deadline.left(30), env=lab.environment(), check=False)
            found[name] = (done.stdout + done.stderr).decode(errors="replace").split("\n")
        except (OSError, subprocess.TimeoutExpired) as e:
            found[name] = str(e)
    return found


def cuda_process(pid):
    """What CRIU would meet: descriptors, threads, kinds of mappings."""
    fds = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = re.sub(r"\d+", "N", os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            continue
        fds[target] = fds.get(target, 0) + 1
    maps = {}
    for line in _read(f"/proc/{pid}/maps", 4 << 20).splitlines():
        fields = line.split(None, 5)
        low, high = (int(n, 16) for n in fields[0].split("-"))
        key = f"{fields[1]} {fields[5] if len(fields) > 5 else 'anonymous'}"
        n, size = maps.get(key, (0, 0))
        maps[key] = (n + 1, size + high - low)
    threads = [_read(f"/proc/{pid}/task/{t}/comm") for t in os.listdir(f"/proc/{pid}/task")]
    memory_of = dict(re.findall(r"^(Vm(?:RSS|Lck|Pin|Size)|Rss\w+):\s+(.*)$",
                                _read(f"/proc/{pid}/status"), re.M))
    return {"fds": fds, "threads": threads, "maps": maps, "memory": memory_of}


def python():
    facts = {"version": sys.version, "executable": sys.executable,
             "openssl": _says("openssl", "version")}
    for name in ("torch", "grpcio", "protobuf", "numpy"):
        # Not imported: that takes half a minute from a cold disk.
        try:
            facts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            facts[name] = "is not there"
    facts["nvcc"] = _says("nvcc", "--version")
    return facts


def tools():
    facts = {"glibc": os.confstr("CS_GNU_LIBC_VERSION"), "os": _read("/etc/os-release"),
             "kit": _read(lab.PREFIX / "VERSIONS")}
    for name in ("containerd", "ctr", "runc", "criu", "docker", "nvidia-ctk", "nvidia-smi",
                 "nvidia-modprobe", "ip", "iptables-save", "busybox", "gcc", "systemctl", "gdb"):
        facts[f"of the machine: {name}"] = lab.Run(
            ["sh", "-c", f"PATH=${{PATH#*:}} command -v {name}"]).out.strip()
    for name in ("containerd", "ctr", "runc", "criu", "busybox", "kybernatectl"):
        argv = [lab.BIN / name] + (["version", "--client"] if name == "kybernatectl" else
                                   [] if name == "busybox" else ["--version"])
        facts[f"ours: {name}"] = _says(*argv, most=300)
    facts["ours: ip"] = _says(lab.BIN / "ip", "link", most=600)
    facts["ours: iptables-save"] = _says(lab.BIN / "iptables-save", most=600)
    facts["shim"] = _says(lab.BIN / "containerd-shim-kybernate-v1", "-v", most=300)
    return facts


def criu():
    return {"check": _says(lab.BIN / "criu", "check", most=3000),
            "check --all": _says(lab.BIN / "criu", "check", "--all", most=5000)}
