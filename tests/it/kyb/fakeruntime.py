# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the OCI runtime that records how it is called and then calls the real one.

It can be told to wait or to fail at a verb, which is how a test gets between two steps of a shim.
"""
import pathlib

from . import env
from .wait import until

_SCRIPT = """#!/bin/sh
# Records each call, and does what the files beside it say before the real runtime runs.
dir=%(dir)s
verb=
skip=
for arg; do
    if [ -n "$skip" ]; then skip=; continue; fi
    case $arg in
    --root | --log | --log-format | --criu) skip=1 ;;
    -*) ;;
    *) verb=$arg; break ;;
    esac
done
call=$dir/calls/$(date +%%s%%N).$$
{ printf '%%s\\0' "$@"; } >"$call.argv.new"
tr '\\0' '\\n' </proc/$$/environ >"$call.env"
mv "$call.argv.new" "$call.argv"
while [ -e "$dir/hold.$verb" ]; do sleep 0.02; done
if [ -e "$dir/fail.$verb" ]; then cat "$dir/fail.$verb" >&2; exit 1; fi
if [ ! -e "$dir/after.$verb" ]; then exec %(real)s "$@"; fi
%(real)s "$@"
status=$?
. "$dir/after.$verb"
exit $status
"""


class FakeRuntime:
    """Give path to a shim as the options' binary_name."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        (self.folder / "calls").mkdir(parents=True)
        # crun is known by its name: it has fewer options.
        self.path = self.folder / ("crun" if env.RUNTIME == "crun" else "runtime")
        self.path.write_text(_SCRIPT % {"dir": self.folder, "real": env.which(env.RUNTIME)},
                             encoding="ascii")
        self.path.chmod(0o755)

    def calls(self, verb=None):
        """argv lists, in order, of all calls or of those of one verb."""
        found = []
        for file in sorted((self.folder / "calls").glob("*.argv")):
            argv = file.read_bytes().decode().split("\0")[:-1]
            if verb is None or verb in argv:
                found.append(argv)
        return found

    def environments(self):
        """The environment of each call, as a dict."""
        return [dict(line.partition("=")[::2] for line in file.read_text().splitlines())
                for file in sorted((self.folder / "calls").glob("*.env"))]

    def hold(self, verb):
        """Calls of verb wait from now on ..."""
        (self.folder / f"hold.{verb}").touch()

    def release(self, verb):
        """... until now."""
        (self.folder / f"hold.{verb}").unlink()

    def wait_call(self, verb, timeout=10):
        """Until verb has been called; its argv."""
        return until(lambda: self.calls(verb), timeout, f"a call of {verb}")[0]

    def fail(self, verb, text="told to fail"):
        (self.folder / f"fail.{verb}").write_text(text + "\n", encoding="utf-8")

    def after(self, verb, script):
        """Shell commands to run in the bundle when the real runtime has done verb."""
        (self.folder / f"after.{verb}").write_text(script + "\n", encoding="utf-8")

    def mend(self, verb):
        (self.folder / f"fail.{verb}").unlink()
