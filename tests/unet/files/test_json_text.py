"""JSON without NaN."""

from __future__ import annotations

import json

from unet.files.json_text import json_text


def test_what_is_no_number_is_null_wherever_it_stands():
    text = json_text({"a": float("nan"), "b": [1.5, (float("-inf"), 2)], "c": {"d": float("inf")}})
    assert json.loads(text) == {
        "a": None,
        "b": [1.5, [None, 2]],
        "c": {"d": None},
    }
