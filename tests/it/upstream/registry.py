#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""registry PORT SLEEP - the images that containerd's and Kubernetes' tests pull, with no network.

Speaks as much of the OCI distribution API as a pull needs, on localhost, where clients take plain
HTTP. Every repository holds one image: static busybox, with the users and the command that the
tests expect of the repository of that name (_SPECIAL, _FILES); all tags of it are the same, but for
those that stand there. SLEEP is a static program that is sleep, pause and nnp (programs/sleep.c).
It ends when its standard input does.
"""
import hashlib
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

_PASSWD = """root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
_GROUP = """root:x:0:
daemon:x:1:
sys:x:3:
www-data:x:33:
users:x:100:
nogroup:x:65534:
"""
# Only in the image that is about it: elsewhere tests expect uid 1000 to be nobody in particular.
_USER = "default-user:x:1000:1000::/home/default-user:/bin/sh\n"
_GROUPS = "default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n"
# Debian's static busybox has none.
_PGREP = """#!/bin/sh
for folder in /proc/[0-9]*; do
    read -r name <"$folder/comm" 2>/dev/null || continue
    case $name in *"$1"*) echo "${folder#/proc/}" ;; esac
done
"""
# A process of that name, which says its number and its part, and opens its stderr anew.
_NGINX = """#!/bin/sh
mkdir -p /var/run
echo $$ >/var/run/nginx.pid
echo 'start worker processes' >/proc/self/fd/2
trap 'kill $!; exit' INT QUIT TERM
httpd -f -h /www -p "$1" &
wait
"""
_IPCS = """#!/bin/sh
exec cat /proc/sysvipc/shm
"""
_SPECIAL = {  # the end of a repository's name, or it and a tag: what its image's config says
    "test-image-user-uid": {"User": "1002"},
    "test-image-user-username": {"User": "www-data"},
    "test-image-user-uid-group": {"User": "1003:users"},
    "test-image-user-username-group": {"User": "www-data:users"},
    "test-image-predefined-group": {"User": "1000"},
    "nginx": {"Cmd": ["nginx", "80", "master process"]},
    "httpd": {"Cmd": ["nginx", "80", "master process"]},
    "hostnet-nginx-amd64": {"Cmd": ["nginx", "12003", "master process"]},
    "hostnet-nginx-arm64": {"Cmd": ["nginx", "12003", "master process"]},
    "pause": {"Entrypoint": ["/pause"], "Cmd": None},
    "nonewprivs": {"User": "1000", "Cmd": ["/nnp"]},
    "resource-consumer": {"Cmd": ["sleep", "1000000"]},
    "volume-copy-up": {"Volumes": {"/test_dir": {}, "C:/weird_test_dir": {},
                                   "/:colon_prefixed": {}}},
    "volume-copy-up:2.1": {"Volumes": {"/test_dir": {}}},
    "volume-ownership": {"Volumes": {"/test_dir": {}}},
}
# Takes the memory that 'stress -m 1 --vm-bytes 100M' would, and holds it.
_STRESS = """#!/bin/sh
dd if=/dev/zero bs=101M count=1 2>/dev/null | sleep 30
"""
_FILES = {  # files of its own: name: (content, mode)
    "busybox": {"etc/group": (_GROUP + "wheel:x:10:root\n", 0o644)},
    "resource-consumer": {"bin/stress": (_STRESS, 0o755)},
    "volume-ownership": {"bin/bash": ('#!/bin/sh\nexec sh "$@"\n', 0o755),
                         "usr/bin/passwd": ("", 0o4755)},
    "volume-copy-up": {"C:/weird_test_dir/weird_test_file": ("test_content\n", 0o644),
                       ":colon_prefixed/colon_prefixed_file": ("test_content\n", 0o644)},
}
_DIRS = ("bin", "dev", "etc", "home/default-user", "proc", "root", "run", "sys", "tmp", "usr/bin",
         "usr/sbin", "var/www", "www", "test_dir")
_NOBODY = 65534


def _file(archive, name, data, mode=0o644):
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    archive.addfile(info, io.BytesIO(data))


def _folder(archive, name, mode=0o755, owner=0):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, mode, owner, owner
    archive.addfile(info)


def _base_layer(sleep):
    """busybox with all its applets, as a tar archive."""
    busybox = shutil.which("busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in _DIRS:
            _folder(archive, name, 0o1777 if name == "tmp" else 0o755)
        with open(busybox, "rb") as program:
            _file(archive, "bin/busybox", program.read(), 0o755)
        for applet in applets.stdout.split():
            if applet not in ("busybox", "sleep"):
                # Not symbolic links: a test masks the path of one, and means no other.
                info = tarfile.TarInfo(f"bin/{applet}")
                info.type, info.linkname, info.mode = tarfile.LNKTYPE, "bin/busybox", 0o755
                archive.addfile(info)
        _file(archive, "bin/sleep", sleep, 0o755)
        _file(archive, "bin/nginx", _NGINX.encode(), 0o755)
        for applet, script in (("ipcs", _IPCS), ("pgrep", _PGREP)):
            if applet not in applets.stdout.split():
                _file(archive, f"bin/{applet}", script.encode(), 0o755)
        _file(archive, "etc/passwd", _PASSWD.encode())
        _file(archive, "etc/group", _GROUP.encode())
        _file(archive, "www/index.html", b"<html>Welcome: it works!</html>\n")
        _file(archive, "test_dir/test_file", b"test_content\n")
    return buffer.getvalue()


def _mark_layer(text, sleep):
    """A small layer that makes an image differ from the others."""
    users = text.endswith("test-image-predefined-group")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        _file(archive, "etc/image", text.encode())
        if text.endswith("/pause"):
            _file(archive, "pause", sleep, 0o755)
        if text.endswith("/nonewprivs"):
            _file(archive, "nnp", sleep, 0o4755)
        for name, (data, mode) in _FILES.get(text.rpartition("/")[2], {}).items():
            _file(archive, name, data.encode(), mode)
        if text.endswith("volume-ownership"):
            _folder(archive, "test_dir", owner=_NOBODY)
        if users:
            _file(archive, "etc/passwd", (_PASSWD + _USER).encode())
            _file(archive, "etc/group", (_GROUP + _GROUPS).encode())
    return buffer.getvalue()


def _digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Images:
    """All images by repository and reference, all blobs by digest."""

    def __init__(self, sleep):
        with open(sleep, "rb") as program:
            self._sleep = program.read()
        self._base = _base_layer(self._sleep)
        self.blobs = {_digest(self._base): (_LAYER, self._base)}
        self._made = {}
        self._lock = threading.Lock()

    def _put(self, kind, data):
        self.blobs[_digest(data)] = (kind, data)
        return {"mediaType": kind, "size": len(data), "digest": _digest(data)}

    def manifest(self, repository, reference):
        """The manifest's bytes, or None."""
        if reference.startswith("sha256:"):
            return self.blobs.get(reference, (None, None))[1]
        tagged = f"{repository}:{reference}"
        name = tagged if tagged.rpartition("/")[2] in _SPECIAL else repository
        with self._lock:
            if name not in self._made:
                self._made[name] = self._make(repository, _SPECIAL.get(name.rpartition("/")[2], {}))
            return self._made[name]

    def _make(self, repository, special):
        layers = [self._base, _mark_layer(repository, self._sleep)]
        config = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                  "Cmd": ["sh"], **special}
        document = json.dumps({
            "architecture": "amd64", "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]},
            "history": [{"created_by": repository} for _ in layers]}).encode()
        manifest = json.dumps({
            "schemaVersion": 2, "mediaType": _MANIFEST, "config": self._put(_CONFIG, document),
            "layers": [self._put(_LAYER, layer) for layer in layers]}).encode()
        self._put(_MANIFEST, manifest)
        return manifest


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    images = None

    def do_GET(self):  # pylint: disable=invalid-name
        found = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/([^/?]+)(\?.*)?", self.path)
        kind, data = None, None
        if found and found.group(2) == "manifests":
            kind, data = _MANIFEST, self.images.manifest(found.group(1), found.group(3))
        elif found:
            kind, data = self.images.blobs.get(found.group(3), (None, None))
        elif self.path in ("/v2", "/v2/"):
            kind, data = "application/json", b"{}"
        self.send_response(200 if data is not None else 404)
        self.send_header("Content-Length", str(len(data or b"")))
        if data is not None:
            self.send_header("Content-Type", kind)
            self.send_header("Docker-Content-Digest", _digest(data))
        self.end_headers()
        if data is not None and self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET

    def log_message(self, *args):  # pylint: disable=arguments-differ
        pass


def main():
    _Handler.images = Images(sys.argv[2])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), _Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)  # pylint: disable=protected-access # connections may still be open


if __name__ == "__main__":
    main()
