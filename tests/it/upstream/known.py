# SPDX-License-Identifier: Apache-2.0
"""What is known of single tests of the upstream suites: for run, and for docs/conformance.md."""

# What is changed in the sources, beside the names of images.
CHANGES = (
    # A process also where the image's shell has it built in; containerd's own from 1.7 on.
    ("do sleep 1; done", "do /bin/sleep 1; done"),
    # It stops a shell that must have set its trap by then.
    ('t.Log("Stop the container with 3s timeout, but 1s context timeout")',
     'time.Sleep(time.Second)'),
)

# Not run, whatever the shim, and why: the beginnings of names, by suite.
NOT_RUN = {
    "client": {
        "waits for a server that nobody ends where low ports are free": ("TestBindLowPortNonOpt",),
    },
    "cri": {
        "downloads earlier releases": ("TestUpgrade",),
        "about images only, from the network": ("TestCRIImagePullTimeout", "TestImageLoad"),
        "on a shim of their own, which fails where they say": (
            "TestRunPodSandboxWithSetup", "TestRunPodSandboxWithShim",
            "TestRunPodSandboxAndTeardown", "TestIssue7496_ShouldRetryShutdown",
            "TestPodSandboxController_", "TestSandboxStopWithNilCNIResult"),
    },
}
# What fails or skips itself on ours for a reason that is not ours: names (as of fnmatch), the shim
# (None is any of ours), from and before which containerd.
_FEATURES = ("skips itself: before 2.2.7 and 2.3.4 CRI asks only runtimes of the type "
             "io.containerd.runc.v2 for their features")
KNOWN = {
    ("Security Context UserNamespaces *", "kybernate", (2,), (2, 2, 7)): _FEATURES,
    ("Container Mount Readonly * recursive *", "kybernate", (2,), (2, 2, 7)): _FEATURES,
    ("TestCheckpointRestoreWithImagePath", "kybernate", (0,), (2,)):
        "up to 1.7 containerd itself heeds an image path only for runtimes named io.containerd.runc",
    ("TestTransferImport", None, (2,), (99,)): "of images only; it depends on an order by chance",
    ("TestTransferImport/DigestRefsSkipNamed", None, (2,), (99,)): "the same",
    ("TestContainerPids", None, (0,), (2,)):
        "a race of the test: it counts the children of a shell that has only just been started",
}
