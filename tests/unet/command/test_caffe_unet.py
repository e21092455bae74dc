"""caffe_unet, as the Fiji plugin calls it: scores, tiles, averages; against plain numpy."""

from __future__ import annotations

import itertools
import math
import re
import resource

import h5py
import numpy as np
import pytest

from tests.plain_caffe_unet import PluginModel, grid_tile, numbers, sizes, tiled, write_images
from unet.command import caffe_unet
from unet.errors import InputError

LINE = re.compile(r"Processing batch ([0-9]+)/([0-9]+), tile ([0-9]+)/([0-9]+)")


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("GLOG_minloglevel", "2")


def predict(model: PluginModel, path, *flags: object) -> np.ndarray:
    """Return the scores that the program writes in place of the images."""
    words = ["tiled_predict", "-infileH5", path, "-outfileH5", path, "-model", model.path]
    words += ["-weights", model.weights, "-iterations", 0, *flags]
    assert caffe_unet.main(list(map(str, words))) is None
    with h5py.File(path, "r") as file:
        assert list(file) == ["score"]
        return file["score"][()]


def close(given: np.ndarray, expected: object) -> None:
    expected = np.asarray(expected)
    assert given.dtype == np.float32 and np.ptp(expected) > 0.01
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("levels", "channels", "shape", "padding"),
    [
        ((2, 2), 1, (45, 37), "mirror"),
        ((2, 2), 3, (45, 37), "zero"),
        # Narrower than the border: the mirror goes on.
        ((3, 3), 2, (9, 61), "mirror"),
        ((1, 3), 1, (30, 30), "zero"),
        ((1, 2, 2), 1, (7, 21, 18), "mirror"),
        ((1, 1, 1), 2, (6, 9, 11), "zero"),
    ],
)
def test_scores_are_those_of_the_tiles_one_by_one(tmp_path, levels, channels, shape, padding):
    model = PluginModel(tmp_path, levels, channels, padding=padding)
    images = np.random.default_rng(0).random((2, channels, *shape))
    write_images(tmp_path / "x.h5", images)
    counts = (2,) * len(shape)
    given = predict(model, tmp_path / "x.h5", "-n_tiles", "x".join(map(str, counts)))
    tile = grid_tile(levels, shape, counts)
    close(given, [tiled(one.astype("f4"), tile, padding, model.network)[0] for one in images])


@pytest.mark.parametrize(
    ("levels", "shape"), [((4, 4), (20, 30)), ((5, 5), (20, 10)), ((2, 3, 3), (5, 9, 8))]
)
def test_the_published_depths_run(tmp_path, levels, shape):
    model = PluginModel(tmp_path, levels)
    image = np.random.default_rng(1).random((1, 1, *shape)).astype("f4")
    write_images(tmp_path / "x.h5", image)
    given = predict(model, tmp_path / "x.h5", "-n_tiles", 1)
    tile = [sizes(one, side) for one, side in zip(levels, shape)]
    close(given[0], tiled(image[0], tile, "mirror", model.network)[0])


@pytest.mark.parametrize("average", ["mirror", "rotate"])
def test_raw_scores_are_averaged_each_version_cut_anew(tmp_path, average, capsys):
    levels, shape = (1, 1), (17, 26)
    model = PluginModel(tmp_path, levels)
    images = np.random.default_rng(2).random((2, 1, *shape)).astype("f4")
    write_images(tmp_path / "x.h5", images)
    given = predict(model, tmp_path / "x.h5", "-tile_size", "10x14", f"-average_{average}")
    tile = [sizes(1, 10), sizes(1, 14)]
    expected, lines = [], []
    for image in images:
        total = 0
        for k in range(4):
            if average == "mirror":
                axes = [(), (2,), (1,), (1, 2)][k]
                scores, tiles = tiled(np.flip(image, axes), tile, "mirror", model.network)
                total = total + np.flip(scores, axes)
            else:
                turned = np.rot90(image, k, (1, 2))
                scores, tiles = tiled(turned, tile, "mirror", model.network)
                total = total + np.rot90(scores, -k, (1, 2))
            batch = len(expected) * 4 + k + 1
            lines += [f"Processing batch {batch}/8, tile {t + 1}/{tiles}" for t in range(tiles)]
        expected.append(total / 4)
    close(given, expected)
    # Line by line as the plugin's expression matches it, and nothing else.
    assert capsys.readouterr().out.splitlines() == lines
    assert all(LINE.fullmatch(line) for line in lines)


def tiling_of(told: str) -> int:
    return int(LINE.fullmatch(told.splitlines()[0]).group(4))


@pytest.fixture(scope="module")
def shallow(tmp_path_factory):
    return PluginModel(tmp_path_factory.mktemp("shallow"), (1, 1))


@pytest.mark.parametrize("shape", [(30, 50), (41, 23)])
@pytest.mark.parametrize("count", [1, 3, 6, 40])
def test_n_tiles_is_the_best_grid_of_up_to_so_many(tmp_path, shallow, shape, count, capsys):
    image = np.random.default_rng(3).random((1, 1, *shape)).astype("f4")
    write_images(tmp_path / "x.h5", image)
    given = predict(shallow, tmp_path / "x.h5", "-n_tiles", count)
    best = None
    for grid in itertools.product(range(1, 26), repeat=2):
        if math.prod(grid) > count:
            continue
        tile = grid_tile((1, 1), shape, grid)
        tiles = math.prod(math.ceil(s / out) for s, (_, out) in zip(shape, tile))
        key = -tiles, math.prod(wide for wide, _ in tile)
        if best is None or key < best[0]:
            best = key, tile
    assert tiling_of(capsys.readouterr().out) == -best[0][0] <= count
    close(given[0], tiled(image[0], best[1], "mirror", shallow.network)[0])


@pytest.mark.parametrize("shape", [(30, 50), (41, 23)])
@pytest.mark.parametrize("pixels", [700, 1200, 3000])
def test_mem_available_px_is_the_least_of_all_that_fit(tmp_path, shallow, shape, pixels, capsys):
    image = np.random.default_rng(4).random((1, 1, *shape)).astype("f4")
    write_images(tmp_path / "x.h5", image)
    given = predict(shallow, tmp_path / "x.h5", "-mem_available_px", pixels)
    factor, pad_input, pad_output = numbers(1)
    least, tile, number = math.inf, None, 0
    for lowest in itertools.product(range(7, 60), repeat=2):
        one = [(factor * n + pad_input, factor * n + pad_output) for n in lowest]
        work = math.prod(wide for wide, _ in one)
        tiles = math.prod(math.ceil(s / out) for s, (_, out) in zip(shape, one))
        if work <= pixels and work * tiles < least:
            least, tile, number = work * tiles, one, tiles
    assert tiling_of(capsys.readouterr().out) == number
    close(given[0], tiled(image[0], tile, "mirror", shallow.network)[0])


def test_the_models_map_of_memory_is_asked_for_megabytes(tmp_path, capsys):
    model = PluginModel(tmp_path, (1, 1), memory_map=((500, 100), (1200, 200), (9000, 900)))
    image = np.random.default_rng(5).random((1, 1, 41, 23))
    said = []
    for flags in (("-gpu_mem_available_MB", 250), ("-mem_available_px", 1200)):
        write_images(tmp_path / "x.h5", image)
        predict(model, tmp_path / "x.h5", *flags)
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    write_images(tmp_path / "x.h5", image)
    with pytest.raises(InputError, match="-gpu_mem_available_MB 50: out of memory"):
        predict(model, tmp_path / "x.h5", "-gpu_mem_available_MB", 50)
    # What was there is still there.
    with h5py.File(tmp_path / "x.h5", "r") as file:
        assert list(file) == ["data"]


def test_without_a_word_what_fits_the_free_memory_and_then_one_tile(tmp_path, shallow, capsys):
    image = np.random.default_rng(6).random((1, 1, 41, 23)).astype("f4")
    write_images(tmp_path / "x.h5", image)
    given = predict(shallow, tmp_path / "x.h5")
    assert tiling_of(capsys.readouterr().out) == 1
    tile = [sizes(1, 41), sizes(1, 23)]
    close(given[0], tiled(image[0], tile, "mirror", shallow.network)[0])


def test_iterations_and_the_models_own_dataset(tmp_path, capsys):
    model = PluginModel(tmp_path, (1, 1), input_dataset_name="pictures")
    write_images(tmp_path / "x.h5", np.random.default_rng(7).random((3, 1, 9, 9)), "pictures")
    words = f"tiled_predict -infileH5 {tmp_path}/x.h5 --outfileH5={tmp_path}/y.h5 -iterations 2"
    words += f" -model {model.path} -weights {model.weights} -n_tiles 1"
    caffe_unet.main(words.split())
    with h5py.File(tmp_path / "y.h5", "r") as file:
        assert file["score"].shape == (2, 2, 9, 9)
    assert capsys.readouterr().out.splitlines()[-1] == "Processing batch 2/2, tile 1/1"


def test_usage_is_printed_and_mistakes_are_told(tmp_path, shallow, capsys):
    assert caffe_unet.main([]) is None
    usage = capsys.readouterr().out
    assert usage.startswith("usage: caffe_unet <command> <args>")
    write_images(tmp_path / "x.h5", np.zeros((1, 2, 9, 9)))
    write_images(tmp_path / "3d.h5", np.zeros((1, 1, 4, 9, 9)))
    with h5py.File(shallow.weights, "r") as file, h5py.File(tmp_path / "w.h5", "w") as other:
        file.copy("data", other)
        del other["data/conv_d1b-d1c"]
    files = f"-infileH5 {tmp_path}/x.h5 -outfileH5 {tmp_path}/y.h5 -model {shallow.path}"
    run = f"tiled_predict {files} -weights {shallow.weights}"
    for words, told in (
        ("predict", "no command 'predict'; give one of tiled_predict"),
        ("tiled_predict -model a", "tiled_predict needs -infileH5"),
        (f"{run} -n_tiles 1 -tile_size 9x9", "give one of them"),
        (f"{run} -average_mirror -average_rotate", "give one of them"),
        (f"{run} -n_tiles 1x2x3", "-n_tiles 1x2x3: the model has 2 dimensions"),
        (f"{run} -n_tiles 1 -gpu x", "-gpu x: give the number"),
        (run, "/data has 2 channels, but the weights are for 1"),
        (run.replace("x.h5", "3d.h5"), "not images of 2 dimensions"),
        (run.replace("x.h5", "absent.h5"), "absent.h5"),
        (
            f"check_model_and_weights_h5 -model {shallow.path} -weights {tmp_path}/w.h5 "
            "-n_channels 1",
            "holds no weights, or NaN, for layer 'conv_d1b-d1c'",
        ),
    ):
        with pytest.raises(InputError, match=re.escape(told)):
            caffe_unet.main(words.split())
    for words in ("tiled_predict -bogus 1", "tiled_predict -n_tiles 0", "tiled_predict -model"):
        with pytest.raises(SystemExit) as ended:
            caffe_unet.main(words.split())
        assert ended.value.code == 1
    assert not (tmp_path / "y.h5").exists()


def test_a_definition_of_another_network_is_refused(tmp_path):
    model = PluginModel(tmp_path, (1, 1), pad_output=(-14, -14))
    words = f"check_model_and_weights_h5 -model {model.path} -weights {model.weights}"
    with pytest.raises(InputError, match=r"padInput, padOutput and downsampleFactor say"):
        caffe_unet.main([*words.split(), "-n_channels", "1"])


def _damaged(path, how: str) -> None:
    """Damage a file of images."""
    if how in ("NaN", "infinite"):
        with h5py.File(path, "a") as file:
            file["data"][1, 0, 3, 4] = {"NaN": np.nan, "infinite": np.inf}[how]
    elif how == "torn":
        path.write_bytes(path.read_bytes()[:-200])
    elif how == "flipped":
        content = path.read_bytes()
        with h5py.File(path, "r") as file:
            chunk = file["data"].id.get_chunk_info(0)
        middle = chunk.byte_offset + chunk.size // 2
        path.write_bytes(content[:middle] + bytes(20) + content[middle + 20 :])
    elif how == "nameless":
        with h5py.File(path, "a") as file:
            file.move("data", "pictures")
    elif how == "none":
        path.write_bytes(b"II*\0 a picture")
    elif how == "too bright":
        with h5py.File(path, "a") as file:
            file["data"][...] = file["data"][()] * np.float32(3e38)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("NaN", "image 2 of 2 holds NaN or infinite values"),
        ("infinite", "image 2 of 2 holds NaN or infinite values"),
        ("too bright", "the scores of image 1 are NaN or infinite"),
        ("torn", "cannot be read as HDF5"),
        ("flipped", "cannot be read as HDF5"),
        ("nameless", "has no dataset /data with the images to segment"),
        ("none", "cannot be read as HDF5"),
    ],
)
def test_bad_images_are_one_sentence_and_stay(tmp_path, shallow, how, told):
    path = tmp_path / "job.h5"
    write_images(path, np.random.default_rng(8).random((2, 1, 20, 20)))
    _damaged(path, how)
    before = path.read_bytes()
    with pytest.raises(InputError, match=rf"job\.h5: .*{told}") as raised:
        predict(shallow, path, "-n_tiles", 1)
    assert "\n" not in str(raised.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_on_a_full_disk_the_images_stay(tmp_path, shallow):
    path = tmp_path / "job.h5"
    write_images(path, np.random.default_rng(9).random((2, 1, 60, 60)))
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, limits[1]))
    try:
        with pytest.raises((InputError, OSError)):
            predict(shallow, path, "-n_tiles", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("which", ["model", "weights"])
def test_the_network_is_never_replaced_by_scores(tmp_path, shallow, which):
    write_images(tmp_path / "x.h5", np.zeros((1, 1, 9, 9)))
    files = {"model": shallow.path, "weights": shallow.weights}
    before = files[which].read_bytes()
    words = f"tiled_predict -infileH5 {tmp_path}/x.h5 -outfileH5 {files[which]} -n_tiles 1"
    words += f" -model {files['model']} -weights {files['weights']}"
    with pytest.raises(InputError, match="would be damaged"):
        caffe_unet.main(words.split())
    assert files[which].read_bytes() == before


def test_weights_that_are_another_file_are_told(tmp_path, shallow):
    words = f"check_model_and_weights_h5 -model {shallow.path} -weights {shallow.path}"
    with pytest.raises(InputError, match="has no group /data with weights"):
        caffe_unet.main([*words.split(), "-n_channels", "1"])
