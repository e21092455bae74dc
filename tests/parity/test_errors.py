"""Where genuine pycaffe raises a Python exception, its class and first words are raised here."""

from __future__ import annotations

import json

import pytest

from tests.parity.harness import SCRIPTS, Engine

# The words are those of Python, numpy, protobuf or scikit-image, whose releases differ.
WORDS_OF_OTHERS = {
    *("spec: no such top to delete", "spec: no such field in a filler", "spec: list for a number"),
    *("spec: number for a message", "spec: shape without dict", "spec: too many tops unpacked"),
    *("io: mean of two axes", "io: datum with a label of text", "io: vector of text"),
    *("io: picture missing", "io: crops larger than the picture", "io: resize to one number"),
    *("classifier: no weights", "detector: picture missing", "message: text for a number"),
    *("blob: no such axis", "io: vector of nonsense"),
}
# What is taken here all the same.
TAKEN = {
    "io: blob of a list",  # becomes an array
    "layer: without a description",  # base classes of Python layers can be made on their own
}


@pytest.fixture(scope="module")
def outcomes(ours: Engine, reference: Engine) -> tuple[dict, dict]:
    """Return what scripts/errors.py finds in both engines."""
    script = SCRIPTS / "errors.py"
    return tuple(
        {name: json.loads(str(told)) for name, told in engine.run(script).items()}
        for engine in (ours, reference)
    )


def test_errors_are_of_genuine_caffes_classes_and_begin_with_its_words(outcomes):
    got, wanted = outcomes
    raised = {name: told for name, told in wanted.items() if isinstance(told, list)}
    assert len(raised) > 100
    wrong = {}
    for name, (classes, text) in raised.items():
        if name in TAKEN:
            continue
        # Genuine Caffe's own words, up to the first end of a line or a sentence.
        words = "" if name in WORDS_OF_OTHERS else text.split("\n")[0].split(" std::")[0].strip(".")
        told = got[name]
        alike = isinstance(told, list) and classes[0] in told[0] and told[1].startswith(words)
        if not alike:
            wrong[name] = f"{classes[0]}: {text[:200]} | {told and told[0][0]}: {told and told[1]}"
    assert not wrong


def test_no_mistake_ends_the_process_or_passes_where_genuine_caffe_ends(outcomes):
    got, wanted = outcomes
    assert "ended" not in got.values()
    ended = {name for name, told in wanted.items() if told == "ended"}
    assert len(ended) > 2
    assert {name for name in ended if got[name] is None} == set()


def test_errors_are_one_sentence(outcomes):
    for name, told in outcomes[0].items():
        if isinstance(told, list):
            assert "\n" not in told[1], name
