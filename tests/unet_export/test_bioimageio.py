"""Model packages: bioimage.io's own core reads, tests and tiles them, with this engine's result."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("bioimageio.core", reason="needs pip install bioimageio.core (Python 3.11)")

from bioimageio.core import create_prediction_pipeline, test_description
from bioimageio.core.digest_spec import create_sample_for_model
from bioimageio.spec import load_description, load_model_description
from loguru import logger
from PIL import Image

import caffe
import unet
from tests.plain_caffe_unet import PluginModel
from tests.unet.model.test_adapt import write_model
from unet.datasets.phantom import phantom
from unet.errors import InputError
from unet.volumes.intensity import input_text
from unet_export import write_bioimageio

test_description.__test__ = False
FORMATS = ["pytorch_state_dict", "onnx"]


@pytest.fixture(autouse=True)
def quiet():
    """Have core tell nothing."""
    logger.remove()


def small_model(folder: Path, normalise: bool = True, **shape: object) -> Path:
    """Write a model folder of two levels, whose scores differ from pixel to pixel."""
    write_model(folder, **{"levels": 2, **shape})
    (folder / "input.json").write_text(input_text(normalise))
    return folder


def judged(package: Path, weights: str) -> str:
    """Let core test a package; return what it found."""
    summary = test_description(package, weight_format=weights)
    failed = [
        (detail.name, [error.msg for error in detail.errors])
        for detail in summary.details
        if detail.status == "failed"
    ]
    assert failed == []
    return summary.status


@pytest.mark.parametrize(
    ("weights", "normalise"), [(FORMATS[0], True), (FORMATS[1], True), (FORMATS[1], False)]
)
def test_the_core_reproduces_the_test_picture(tmp_path, weights, normalise):
    folder = small_model(tmp_path / "m", normalise, channels=2)
    assert write_bioimageio(folder, tmp_path / "out.zip") == FORMATS
    assert judged(tmp_path / "out.zip", weights) == "passed"


@pytest.mark.slow
def test_the_networks_of_isbi_pass(tmp_path):
    write_bioimageio("isbi2012_slim", tmp_path / "slim.zip")
    assert judged(tmp_path / "slim.zip", "onnx") == "passed"
    # Of the paper's network what core's test does first: its many passes take a minute.
    write_bioimageio("isbi2012", tmp_path / "out.zip")
    model = load_model_description(tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        image, wanted = (
            np.load(io.BytesIO(archive.read(f"test_{name}.npy")))
            for name in ("image", "probabilities")
        )
    for weights in FORMATS:
        with create_prediction_pipeline(model, weight_format=weights) as pipeline:
            sample = create_sample_for_model(model, inputs={"image": image})
            found = pipeline.predict_sample_without_blocking(
                sample, skip_input_padding=True, skip_output_cropping=True
            )
        found = np.asarray(found.members["probabilities"].data)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def recipe(package: Path):
    """Return the function of the package's card."""
    with zipfile.ZipFile(package) as archive:
        card = archive.read("README.md").decode()
    names: dict[str, object] = {}
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], names)
    return names["predict"]


@pytest.mark.slow
def test_its_own_tiles_give_this_projects_probabilities_of_any_picture(tmp_path):
    write_bioimageio("isbi2012_slim", tmp_path / "out.zip")
    stack, _ = phantom(slices=1, size=512, seed=3)
    ours = unet.load("isbi2012_slim", device="cpu")
    model = load_model_description(tmp_path / "out.zip")
    for weights in FORMATS:
        with create_prediction_pipeline(model, weight_format=weights) as pipeline:
            # A picture of the sides that core takes, as it is; any other as the card says.
            sample = create_sample_for_model(model, inputs={"image": stack[None].astype("f4")})
            found = pipeline.predict_sample_with_blocking(sample, ns=4)
            found = np.asarray(found.members["probabilities"].data)[0, 1]
            np.testing.assert_allclose(found, ours.segment(stack)[0], rtol=0, atol=2e-5)
            picture = stack[:, :300, :500]
            found = recipe(tmp_path / "out.zip")(pipeline, picture[None], ns=4)[0, 1]
            np.testing.assert_allclose(found, ours.segment(picture)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "ns"), [((70, 110), 2), ((31, 29), 1), ((64, 80), 9)], ids=["tiles", "tiny", "large"]
)
@pytest.mark.parametrize("padded", [False, True])
def test_tiles_of_other_networks(tmp_path, shape, ns, padded):
    folder = small_model(tmp_path / "m", padded=padded)
    write_bioimageio(folder, tmp_path / "out.zip")
    picture = np.random.default_rng(0).integers(0, 256, (1, *shape), np.uint8)
    ours = unet.load(folder, device="cpu").segment(picture)
    model = load_model_description(tmp_path / "out.zip")
    with create_prediction_pipeline(model, weight_format="onnx") as pipeline:
        found = recipe(tmp_path / "out.zip")(pipeline, picture[None], ns=ns)[0, 1]
    assert np.ptp(ours) > 1e-3
    np.testing.assert_allclose(found, ours[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("levels", [(1, 2), (1, 1, 1)])
def test_networks_of_the_plugin_carry_their_pixel_size(tmp_path, levels):
    size = (0.5,) * len(levels)
    model = PluginModel(tmp_path, levels, element_size_um=size, normalization_type=2)
    write_bioimageio(model.path, tmp_path / "out.zip", author="Somebody", licence="CC-BY-4.0")
    found = load_model_description(tmp_path / "out.zip")
    axes = [axis for axis in found.inputs[0].axes if axis.type == "space"]
    assert [(axis.id, axis.scale, axis.unit) for axis in axes] == [
        (name, 0.5, "micrometer") for name in "zyx"[3 - len(levels) :]
    ]
    assert (found.license, found.authors[0].name) == ("CC-BY-4.0", "Somebody")
    assert judged(tmp_path / "out.zip", FORMATS[len(levels) % 2]) == "passed"


def test_the_package_says_who_what_and_which_sizes(tmp_path):
    write_bioimageio("isbi2012_slim", tmp_path / "out.zip")
    found = load_model_description(tmp_path / "out.zip")
    dois = [str(entry.doi) for entry in found.cite]
    assert dois[0] == "10.1007/978-3-319-24574-4_28"
    assert "10.3389/fnana.2015.00142" in dois
    (image,), (out,) = found.inputs, found.outputs
    # 16 n + 60 pixels within, 92 lost on each side; the next multiple of 16 beyond 92 + 15.
    assert [(a.size.min, a.size.step) for a in image.axes[2:]] == [(240, 16)] * 2
    assert [(a.halo, a.size.offset) for a in out.axes[2:]] == [(112, 0)] * 2
    assert image.pad.mode == "reflect"
    operations = [step.id for step in image.preprocessing]
    assert operations[1:3] == ["zero_mean_unit_variance", "scale_linear"]
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert Image.open(io.BytesIO(archive.read("cover.png"))).size == (512, 256)
    said = found.config.model_dump()["unet_in_caffe"]
    assert json.loads(said["padInput"]) == [60, 60]


def test_the_architecture_needs_pytorch_and_nothing_else(tmp_path):
    write_bioimageio(small_model(tmp_path / "m"), tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        archive.extract("architecture.py", tmp_path)
    text = (tmp_path / "architecture.py").read_text()
    assert set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)) == {
        "__future__",
        "typing",
        "torch",
    }


def test_equal_networks_give_equal_bytes(tmp_path):
    folder = small_model(tmp_path / "m")
    for name in ("a.zip", "b.zip"):
        write_bioimageio(folder, tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_what_the_specification_refuses_is_told_in_a_sentence(tmp_path):
    folder = small_model(tmp_path / "m")
    with pytest.raises(InputError, match=r"bioimage\.io refuses .*license") as told:
        write_bioimageio(folder, tmp_path / "out.zip", licence="anything goes")
    assert "\n" not in str(told.value)
    assert not (tmp_path / "out.zip").exists()


def test_a_specification_that_does_not_run_is_told_with_what_to_install(tmp_path, monkeypatch):
    def of_no_entry(*args: object, **flags: object) -> object:
        found = load_description(*args, **flags)
        for detail in found.validation_summary.details:
            for error in detail.errors:
                error.loc = ()
        return found

    monkeypatch.setattr("unet_export.bioimageio.load_description", of_no_entry)
    folder = small_model(tmp_path / "m")
    wanted = r"out\.zip: bioimageio\.spec [\d.]+ does not run with pydantic .*: pip install '"
    with pytest.raises(InputError, match=wanted):
        write_bioimageio(folder, tmp_path / "out.zip", licence="anything goes")
    assert not (tmp_path / "out.zip").exists()


def test_what_has_no_tiles_is_refused(tmp_path):
    net = """layer { name: "data" type: "Input" top: "data"
                     input_param { shape { dim: 1 dim: 3 dim: 12 dim: 12 } } }
             layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
                     inner_product_param { num_output: 5 weight_filler { type: "msra" } } }"""
    (tmp_path / "deploy.prototxt").write_text(net)
    opened = caffe.Net(str(tmp_path / "deploy.prototxt"), caffe.TEST)
    opened.save(str(tmp_path / "weights.caffemodel"))
    with pytest.raises(InputError, match="no U-Net whose tiles can be put together; export it as"):
        write_bioimageio(tmp_path, tmp_path / "out.zip")


def test_an_interruption_leaves_the_earlier_package(tmp_path, monkeypatch):
    folder = small_model(tmp_path / "m")
    write_bioimageio(folder, tmp_path / "out.zip")
    before = (tmp_path / "out.zip").read_bytes()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unet_export.bioimageio._check", stop)
    with pytest.raises(KeyboardInterrupt):
        write_bioimageio(folder, tmp_path / "out.zip")
    assert (tmp_path / "out.zip").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "out.zip"]


def test_a_full_disk_leaves_nothing(tmp_path, small_disk):
    folder = small_model(tmp_path / "m", maps=32)
    with pytest.raises(InputError, match=r"out\.zip: cannot be written: the disk is full"):
        write_bioimageio(folder, small_disk / "out.zip")
    assert list(small_disk.iterdir()) == []
