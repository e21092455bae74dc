"""What `tools/benchmark.py segment` compares segments the same slice by the same net."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

import time_segmentation
from tests.conftest import REPOSITORY
from time_segmentation import RUNS, Stack
from unet import load, open_volume
from unet.volumes import write_volume

OPTIONS = argparse.Namespace(device="cpu", precision="fp32", threads=1, rounds=1)
# Genuine Caffe does not know networks by name.
SOURCE = str(REPOSITORY / "models" / "isbi2012_slim")


@pytest.fixture(scope="module")
def stack(tmp_path_factory, isbi_dir):
    """One slice of ISBI 2012."""
    path = tmp_path_factory.mktemp("stack") / "stack.tif"
    write_volume(path, open_volume(isbi_dir / "test-volume.tif")[0][None])
    return str(path)


@pytest.fixture(scope="module")
def whole(stack):
    return RUNS["slice"](stack, SOURCE, "cpu", "fp32")()


def test_a_slice_is_segmented_as_the_library_segments_it(stack, whole):
    expected = load(SOURCE, device="cpu").segment(stack)
    np.testing.assert_array_equal(whole[1], expected[0])


def test_monai_gives_the_same_where_its_first_window_counts_alone(stack, whole):
    pytest.importorskip("monai", reason="needs MONAI")
    found = RUNS["monai"](stack, SOURCE, "cpu", "fp32")()
    # The second window begins there.
    alone = 512 - (572 - 184)
    np.testing.assert_allclose(found[:, :alone, :alone], whole[:, :alone, :alone], atol=1e-4)
    assert found.shape == whole.shape


@pytest.mark.reference
def test_genuine_caffe_gives_the_same_in_the_tiles_of_2015(stack, whole):
    ((name, seconds, found),) = time_segmentation.in_turns(stack, SOURCE, ["2015"], OPTIONS)
    assert name == "2015" and len(seconds) == 1
    # The second tile begins there, off the grid of the poolings.
    alone = 260
    np.testing.assert_allclose(found[:, :alone], whole[:, :alone], atol=1e-3)
    assert found.shape == whole.shape


def test_a_stack_goes_from_file_to_file_in_as_many_passes_as_it_is_compared_with(stack, whole):
    timed = Stack(stack, SOURCE, "cpu", "fp32")
    assert timed.segment() > 0
    with open_volume(timed.output) as written:
        np.testing.assert_array_equal(written[0], whole[1])
    assert timed.passes() > 0


def test_what_a_process_says_of_its_mistake_is_told(stack):
    with pytest.raises(time_segmentation.InputError, match="no_such_net"):
        list(time_segmentation.in_turns(stack, "no_such_net", ["slice"], OPTIONS))
