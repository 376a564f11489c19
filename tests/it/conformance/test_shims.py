# SPDX-License-Identifier: Apache-2.0
"""Which shims are tested at all: one that was not found is a skipped test with a reason, not
hundreds of them."""
import pytest

from kyb import starter


@pytest.mark.machine
def test_shim_is_there(kind, tmp_path):
    if kind.why_missing:
        pytest.skip(kind.why_missing)
    assert starter.run(kind, ["-v"], tmp_path).status == 0
