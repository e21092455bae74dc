"""What the log says of nets as they are built, against genuine Caffe's."""

from __future__ import annotations

import re

import pytest

from tests.parity.harness import Engine, undated
from tests.parity.layer_cases import CASES, Draw
from tests.parity.whole_nets import NETS

SCRIPT = """
import os
import sys
import numpy as np
import caffe
from exchange import give, given, text_file

results = {}
kept = os.dup(2)
for key, net in given().items():
    path = text_file(str(net))
    with open(path + ".log", "w") as log:
        os.dup2(log.fileno(), 2)
        caffe.Net(path, int(key.split("|")[1]))
        sys.stderr.flush()
        os.dup2(kept, 2)
    results[key] = np.array(open(path + ".log").read())
give(results)
"""
# Genuine Caffe's recurrent layers build a net of their own, which is in its log too.
RECURRENT = re.compile(r'"(LSTM|RNN)"')


def nets() -> dict[str, str]:
    """Return NAME|PHASE -> prototxt: a case of each layer type, and all whole nets."""
    found = {}
    for kind, make in CASES.items():
        case = make(Draw(kind, 1))
        found[f"{kind}|{case.phase}"] = case.net
    for name, whole in NETS.items():
        for phase in (0, 1):
            found[f"{name}|{phase}"] = whole.net()
    return {name: text for name, text in found.items() if not RECURRENT.search(text)}


def lines(log: str) -> list[str]:
    """Return level, file and text of a log's lines; genuine Caffe's warning of glog is left out."""
    return [line for line in undated(log).splitlines() if "before InitGoogleLogging" not in line]


@pytest.fixture(scope="module")
def logs(ours: Engine, reference: Engine) -> tuple[dict, dict]:
    """Return what this engine and genuine Caffe write."""
    ran = [e.run(SCRIPT, nets(), environment={"GLOG_minloglevel": "0"}) for e in (ours, reference)]
    return ran[0], ran[1]


@pytest.mark.parametrize("name", nets())
def test_building_is_told_as_by_genuine_caffe(logs, name):
    got, wanted = (lines(str(log[name])) for log in logs)
    assert got == wanted
    assert wanted[-1].endswith("Network initialization done.")
