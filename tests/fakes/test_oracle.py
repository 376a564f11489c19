# SPDX-License-Identifier: Apache-2.0
"""The emulated driver answers as a real one was measured to."""

import json
import pathlib

import oracle


def test_the_answers_are_those_of_the_real_driver():
    here = pathlib.Path(__file__).resolve().parent
    measured = json.loads((here / "driver-580.159.04.json").read_text())["answers"]
    answers = oracle.ask_fake()
    if "other_user.tid" not in answers:  # not root
        measured = {k: v for k, v in measured.items() if not k.startswith("other_user.")}
    assert answers == measured


def test_a_lock_without_a_caller_may_stay():
    """The one thing that the driver answered in two ways, asked twice."""
    here = pathlib.Path(__file__).resolve().parent
    record = json.loads((here / "driver-580.159.04.json").read_text())
    answers = oracle.ask_fake("caller_dies", lock_outlives=1)
    expected = {k: record["other_answers"].get(k, record["answers"][k]) for k in answers}
    assert expected != {k: record["answers"][k] for k in answers}
    assert answers == expected
