"""Numbers on the command line that make no sense: a sentence and status 2, before any work."""

from __future__ import annotations

import os

import numpy as np
import pytest
import tifffile

from unet.command import fetch, nets, prepare, segment, track, train
from unet.command import score as evaluate
from unet.errors import InputError

HUGE = ("10000000000", "9" * 5000, "-99999999999", "1.5", "²", "0x10", "", "nan")


@pytest.fixture
def stack(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = np.zeros((2, 20, 20), np.uint8)
    cells[:, 2:9, 2:9], cells[:, 11:18, 2:9] = 1, 255
    tifffile.imwrite("a.tif", cells * 3, photometric="minisblack")
    tifffile.imwrite("b.tif", cells, photometric="minisblack")


def refused(main, *arguments):
    with pytest.raises((InputError, SystemExit)) as caught:
        main([str(word) for word in arguments])
    assert isinstance(caught.value, InputError) or caught.value.code == 2


@pytest.mark.parametrize("value", HUGE)
@pytest.mark.parametrize(
    ("main", "words", "option"),
    [
        (train.main, ["solver.prototxt"], "--iterations"),
        (nets.main, ["unet_slim", "--data", "a.h5"], "--iterations"),
        (nets.main, ["unet_slim", "--data", "a.h5"], "--tile"),
        (prepare.main, ["a.tif", "b.tif", "-o", "a.h5"], "--field-of-interest"),
        (track.main, ["a.tif", "-o", "out"], "--field-of-interest"),
        (evaluate.main, ["a.tif", "a.tif"], "--workers"),
        (evaluate.main, ["a.tif", "a.tif"], "--slices"),
        (segment.main, ["a.tif", "--weights", "w", "-o", "o.tif"], "--minimum-area"),
        (fetch.main, ["phantom"], "--slices"),
        (fetch.main, ["phantom"], "--seed"),
    ],
)
def test_whole_numbers(stack, tmp_path, main, words, option, value):
    refused(main, *words, f"{option}={value}")
    assert sorted(os.listdir(tmp_path)) == ["a.tif", "b.tif"]


@pytest.mark.parametrize("value", ["1e400", "-1", "nan", "inf", "1e300", "-1e-300", "x"])
@pytest.mark.parametrize(
    ("main", "words"),
    [
        (prepare.main, ["a.tif", "b.tif", "-o", "a.h5", "--w0"]),
        (prepare.main, ["a.tif", "b.tif", "-o", "a.h5", "--sigma"]),
        (prepare.main, ["a.tif", "b.tif", "-o", "a.h5", "--sigma=1e-300", "--w0"]),
        (segment.main, ["a.tif", "--weights", "w", "-o", "o.tif", "--memory"]),
        (segment.main, ["a.tif", "--weights", "w", "--instances", "o.tif", "--threshold"]),
        (segment.main, ["a.tif", "--weights", "w", "--instances", "o.tif", "--watershed"]),
        (segment.main, ["a.tif", "--weights", "w", "-o", "o.tif", "--grey", "0"]),
    ],
)
def test_real_numbers(stack, tmp_path, main, words, value):
    *words, option = words
    if option == "0":
        refused(main, *words, option, value)
    else:
        refused(main, *words, f"{option}={value}")
    assert sorted(os.listdir(tmp_path)) == ["a.tif", "b.tif"]


@pytest.mark.parametrize(
    "value", ["0:" + "9" * 5000, "9" * 19 + ":", "0:99999999999", "²:", "::", "-1:1"]
)
@pytest.mark.parametrize("option", ["--slices", "--balance-slices"])
def test_slices(stack, tmp_path, option, value):
    refused(prepare.main, "a.tif", "b.tif", "-o", "a.h5", f"{option}={value}")
    assert sorted(os.listdir(tmp_path)) == ["a.tif", "b.tif"]
