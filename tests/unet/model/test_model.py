"""A model segments stacks from wherever they come, slice by slice."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import tifffile
import torch
from scipy import ndimage

import caffe
import unet
from tests.unet.watched import watch
from unet.errors import InputError
from unet.model import Model
from unet.network.geometry import Geometry
from unet.segmentation.instances import InstanceRules, find_instances
from unet.segmentation.options import SegmentationOptions
from unet.segmentation.segment import Picture, segment_image
from unet.segmentation.tiles import Tiling
from unet.volumes import Volume, as_volume, read_volume, write_volume
from unet.volumes.intensity import scale_intensity

# Dark lines between bright fields, as membranes are.
FIELD = np.abs(
    ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(2, 24, 34)), (0, 3, 3))
)
STACK = (np.clip(4 * FIELD / FIELD.max(), 0, 1) * 255).astype(np.uint8)
RANGE = dict(intensity=(0, 255))


@pytest.fixture(scope="module")
def model() -> Model:
    return unet.load("isbi2012_slim", device="cpu")


def wanted(model: Model, stack: np.ndarray, tta: str = "none") -> np.ndarray:
    tiling = Tiling.over(stack.shape[1:], (316, 316), Geometry())
    images = (scale_intensity(image[None], (0, 255)) for image in stack)
    return np.stack([segment_image(model.net, image, tiling, tta) for image in images])


def test_probabilities_are_those_of_the_second_class(model):
    given = model.segment(STACK, tta="mirror", **RANGE)
    np.testing.assert_allclose(given, wanted(model, STACK, "mirror")[:, 1], atol=1e-5)
    assert given.dtype == np.float32


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="without AVX-512 oneDNN computes nothing in bfloat16",
)
def test_each_model_computes_in_its_own_precision(model, monkeypatch):
    # Also where bfloat16 would gain nothing.
    monkeypatch.setattr("caffe.common._gains_by_bf16", lambda where: True)
    expected = model.segment(STACK, **RANGE)
    coarse = unet.load("isbi2012_slim", device="cpu", precision="bf16")
    try:
        first, second = (one.stream(STACK, **RANGE) for one in (model, coarse))
        in_turns = [(next(first), next(second)) for _ in STACK]
    finally:
        caffe.set_precision("fp32")
    exact, rough = (np.stack(one) for one in zip(*in_turns))
    np.testing.assert_array_equal(exact, expected)
    assert 1e-5 < np.abs(rough - expected).max() < 0.1


@pytest.mark.parametrize("kind", ["file", "volume", "slice", "dataset"])
def test_whatever_holds_a_stack_is_taken(model, tmp_path, kind):
    write_volume(tmp_path / "stack.tif", STACK)
    with h5py.File(tmp_path / "many.h5", "w") as file:
        file["first"], file["second"] = STACK[:1], STACK
    stack = {
        "file": tmp_path / "stack.tif",
        "volume": unet.open_volume(tmp_path / "stack.tif"),
        "slice": STACK[1],
        "dataset": f"{tmp_path / 'many.h5'}:/second",
    }[kind]
    expected = model.segment(STACK, **RANGE)
    given = model.segment(stack, **RANGE)
    np.testing.assert_array_equal(given, expected[1:2] if kind == "slice" else expected)


def test_three_slices_stored_as_colour_are_slices_to_a_network_of_one_channel(model, tmp_path):
    slices = np.concatenate([STACK, STACK])[:3]
    planes = {"photometric": "rgb", "planarconfig": "separate"}
    tifffile.imwrite(tmp_path / "stack.tif", slices, **planes)
    expected = model.segment(slices, **RANGE)
    np.testing.assert_array_equal(model.segment(tmp_path / "stack.tif", **RANGE), expected)


def test_without_options_a_model_normalises_as_it_learnt(model):
    np.testing.assert_array_equal(model.segment(STACK), model.segment(STACK, normalise=True))
    assert np.abs(model.segment(STACK) - model.segment(STACK, normalise=False)).max() > 0.01


def test_instances_are_those_of_the_probabilities(model):
    given = model.instances(STACK, minimum_area=4, watershed=0.05, **RANGE)
    # Its segment.json says the threshold.
    rules = InstanceRules(threshold=0.4, minimum_area=4, watershed=0.05)
    for labels, probability in zip(given, model.segment(STACK, **RANGE)):
        expected = find_instances(np.stack([1 - probability, probability]), rules)
        assert (labels != expected).mean() < 0.05
    assert given.max() > 1


def test_slices_are_read_just_ahead_of_their_turn(model):
    read = []

    def slice_of(z: int) -> np.ndarray:
        read.append(z)
        return STACK[0]

    stream = model.stream(Volume("stack", (9, *STACK.shape[1:]), STACK.dtype, slice_of), **RANGE)
    assert read == []
    np.testing.assert_array_equal(next(stream), model.segment(STACK[0], **RANGE)[0])
    # The next pass runs while this slice is handed over, and the one after it is read.
    assert read in ([0, 1], [0, 1, 2])
    stream.close()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (dict(tta="flip"), "tta 'flip': give one of none, mirror, rotate, dihedral"),
        (dict(procedure="2016"), "procedure '2016'"),
        (dict(slices=slice(1, 9)), "0 <= A < B <= 2"),
        (dict(tile=(500, 572)), "nearest are 492 and 508"),
        (dict(tile=500), "nearest are 492 and 508"),
        (dict(memory=1.0), "smallest tiles, 204x204"),
        (dict(rules=InstanceRules(threshold=2)), "threshold 2"),
    ],
)
def test_what_cannot_be_is_refused(model, options, told):
    with pytest.raises(InputError, match=told):
        model.segment(STACK, **options)


def test_a_name_that_no_network_has_is_told_with_those_that_have_one():
    with pytest.raises(InputError, match=r"isbi2013: there is no .* project: isbi2012, isbi2012_s"):
        unet.load("isbi2013")


def test_other_channels_and_missing_slices_are_refused(model):
    with pytest.raises(
        InputError,
        match=r"stack: has 2 channels, but .* takes 1: give 1 channel of it \(in Fiji.*or another",
    ):
        model.segment(np.zeros((2, 2, 20, 30), np.uint8))
    volume = Volume("cut", STACK.shape, np.uint8, STACK.__getitem__, missing=[1])
    with pytest.raises(InputError, match="cut: slice 1 is not there"):
        model.segment(volume)


def test_out_of_memory_is_a_sentence(model, monkeypatch):
    def fails(picture: Picture) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory\nmore")

    watch(monkeypatch, fails)
    monkeypatch.setattr(model, "_too_much", np.inf)
    with pytest.raises(MemoryError, match="allocate memory; a pass of the smallest tiles, 204x204"):
        model.segment(STACK)


def test_a_plan_says_what_will_be_computed(model):
    with as_volume(STACK, "stack") as volume:
        plan = model.plan(volume, SegmentationOptions(tta="rotate", tile=(204, 204)))
    assert plan.passes == 2 * 4 * 4
    assert "2 slices of 24x34; each 4 versions of 4 tiles of 204x204; a pass is" in str(plan)


@pytest.mark.parametrize("name", ["isbi2012", "isbi2012_slim"])
def test_networks_that_come_with_the_project_know_cells_they_have_not_seen(name, isbi_dir):
    caffe.set_mode_cpu()
    volume, labels = (
        read_volume(isbi_dir / f"train-{stack}.tif")[25] for stack in ("volume", "labels")
    )
    image = scale_intensity(volume[None], None)[:, 200:360, 200:360]
    model = unet.load(name, device="cpu")
    tiling = Tiling.over((160, 160), (284, 284), model.geometry)
    probabilities = segment_image(model.net, image, tiling)
    wrong = (probabilities[1] > 0.5) != (labels[200:360, 200:360] > 0)
    # More than a fifth of these pixels are membranes; the whole slice has half as many errors.
    assert wrong.mean() < 0.12


class Bar:
    """What a window shows instead of tqdm."""

    total = done = 0

    def update(self) -> None:
        self.done += 1


def test_a_bar_is_told_of_each_pass_and_can_end_them(model):
    bar = Bar()
    slices = list(model.stream(STACK, tta="mirror", bar=bar))
    np.testing.assert_array_equal(slices, model.segment(STACK, tta="mirror"))
    assert bar.done == bar.total == 2 * 4

    class Enough(Exception):
        pass

    class Impatient(Bar):
        def update(self) -> None:
            super().update()
            if self.done == 5:
                raise Enough

    bar, done = Impatient(), []
    with pytest.raises(Enough):
        done.extend(model.stream(STACK, tta="mirror", bar=bar))
    assert bar.done == 5
    # Nothing of it is left in the network.
    np.testing.assert_array_equal(slices, model.segment(STACK, tta="mirror"))


def test_cells_come_slice_by_slice_as_they_come_together(model):
    rules = dict(threshold=0.6, minimum_area=4)
    streamed = list(model.stream_instances(STACK, rules))
    np.testing.assert_array_equal(streamed, model.instances(STACK, **rules))
