# SPDX-License-Identifier: Apache-2.0
"""Everything that tests, benchmarks and soak runs need to drive shims and containerd."""
