# SPDX-License-Identifier: Apache-2.0
"""What the tests of deploy/ share."""
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
