"""Files of scores: JSON without NaN, with a mark."""

from __future__ import annotations

import json

from unet.files.provenance import SCORE_FILE, mark
from unet.files.score_file import write_scores


def test_what_is_no_number_is_null_wherever_it_stands(tmp_path):
    scores = {"a": float("nan"), "b": [1.5, (float("-inf"), 2)], "c": {"d": float("inf")}}
    write_scores(tmp_path / "s.json", scores)
    assert json.loads((tmp_path / "s.json").read_text()) == {
        "software": mark(SCORE_FILE),
        "a": None,
        "b": [1.5, [None, 2]],
        "c": {"d": None},
    }
