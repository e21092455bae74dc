"""Numbers on the command line that make no sense: a sentence and status 2, before any work."""

from __future__ import annotations

import os

import numpy as np
import pytest
import tifffile

from unet.command import fetch, nets, prepare, segment, track, train
from unet.command import score as evaluate
from unet.errors import InputError

WHOLE = ("10000000000", "9" * 5000, "-99999999999", "1.5", "²", "0x10", "", "nan")
REAL = ("1e400", "-1", "nan", "inf", "1e300", "-1e-300", "x")
RANGE = ("0:" + "9" * 5000, "9" * 19 + ":", "0:99999999999", "²:", "::", "-1:1", "5", "1:1")

PREPARE = (prepare.main, ["a.tif", "b.tif", "-o", "a.h5"])
NETS = (nets.main, ["unet_slim", "--data", "a.h5"])
EVALUATE = (evaluate.main, ["a.tif", "a.tif"])
SEGMENT = (segment.main, ["a.tif", "--weights", "w", "-o", "o.tif", "--instances", "c.tif"])


@pytest.mark.parametrize(
    ("call", "option", "values"),
    [
        ((train.main, ["solver.prototxt"]), "--iterations", WHOLE),
        (NETS, "--iterations", WHOLE),
        (NETS, "--tile", WHOLE),
        (PREPARE, "--field-of-interest", WHOLE),
        ((track.main, ["a.tif", "-o", "out"]), "--field-of-interest", WHOLE),
        (EVALUATE, "--workers", WHOLE),
        (EVALUATE, "--slices", WHOLE),
        (SEGMENT, "--minimum-area", WHOLE),
        ((fetch.main, ["phantom"]), "--slices", WHOLE),
        ((fetch.main, ["phantom"]), "--seed", WHOLE),
        (PREPARE, "--w0", REAL),
        (PREPARE, "--sigma", REAL),
        (PREPARE, "--sigma=1e-300 --w0", REAL),
        (SEGMENT, "--memory", REAL),
        (SEGMENT, "--threshold", REAL),
        (SEGMENT, "--watershed", REAL),
        (SEGMENT, "--grey 0", REAL),
        (PREPARE, "--slices", RANGE),
        (PREPARE, "--balance-slices", RANGE),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_numbers_that_make_no_sense_are_refused(tmp_path, monkeypatch, call, option, values):
    monkeypatch.chdir(tmp_path)
    cells = np.zeros((2, 20, 20), np.uint8)
    cells[:, 2:9, 2:9], cells[:, 11:18, 2:9] = 1, 255
    tifffile.imwrite("a.tif", cells * 3, photometric="minisblack")
    tifffile.imwrite("b.tif", cells, photometric="minisblack")
    main, words = call
    for value in values:
        # After = also what begins with a minus is a value.
        last = [*option.split(), value] if option == "--grey 0" else f"{option}={value}".split()
        with pytest.raises((InputError, SystemExit)) as caught:
            main([*words, *last])
        assert isinstance(caught.value, InputError) or caught.value.code == 2
        assert sorted(os.listdir(tmp_path)) == ["a.tif", "b.tif"]
