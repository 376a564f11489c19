# SPDX-License-Identifier: Apache-2.0
"""The shims under test: containerd's own, which is the oracle, and ours in both deployments."""
import dataclasses

from . import env


@dataclasses.dataclass(frozen=True)
class Kind:
    """How one shim is found and named to containerd."""
    name: str
    runtime: str       # runtime type, as a client names it
    program: str
    ours: bool
    by_path: bool      # named as containerd's own, found by an explicit path

    @property
    def binary(self):
        return env.which(self.program)

    @property
    def why_missing(self):
        """None when it can be tested."""
        if self.binary:
            return None
        return f"{self.program} is not in PATH" + (" (set KYB_BIN to its folder)" if self.ours
                                                   else "")

    @property
    def typed_options(self):
        """Whether clients send containerd.runc.v1.Options: they go by the name of the runtime."""
        return self.runtime == "io.containerd.runc.v2"

    def __str__(self):
        return self.name


KINDS = {kind.name: kind for kind in (
    Kind("runc-v2", "io.containerd.runc.v2", "containerd-shim-runc-v2", False, False),
    Kind("kybernate", "io.containerd.kybernate.v1", "containerd-shim-kybernate-v1", True, False),
    Kind("kybernate-as-runc", "io.containerd.runc.v2", "containerd-shim-kybernate-v1", True, True),
)}
