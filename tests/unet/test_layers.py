from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import caffe
from tests.unet.noise_set import write_noise_set
from unet.augmentation.tile_sampler import Augmentation, TileSampler
from unet.errors import InputError
from unet.preparation.training_set import TrainingSet

TILE = [188, 204]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    options = dict(classes=3, channels=2, ignored_rows=9, weights=(1, 5))
    return write_noise_set(tmp_path / "set.h5", **options)


def net(path: Path, config, phase: int = caffe.TRAIN, tops: str = "data label weight") -> caffe.Net:
    text = config if isinstance(config, str) else json.dumps(config)
    prototxt = path.with_name("net.prototxt")
    prototxt.write_text(
        'layer { name: "tiles" type: "Python" '
        + " ".join(f'top: "{top}"' for top in tops.split())
        + ' python_param { module: "unet.layers" layer: "TrainingTiles" '
        + f"param_str: {json.dumps(text)} }} }}"
    )
    return caffe.Net(str(prototxt), phase)


def blobs(one: caffe.Net) -> list[np.ndarray]:
    return [one.blobs[name].data.copy() for name in ("data", "label", "weight")]


def forward(one: caffe.Net) -> list[np.ndarray]:
    one.forward()
    return blobs(one)


def test_tops_hold_the_sampler_s_tiles(path: Path):
    augmentation = dict(std=6.0, contrast=0.2)
    config = dict(file=str(path), tile=TILE, slices=[1, 3], seed=9, workers=0)
    one = net(path, dict(config, augmentation=augmentation))
    with TrainingSet(path) as training_set:
        sampler = TileSampler(
            training_set, [1, 2], tuple(TILE), 92, Augmentation(**augmentation), 9
        )
        for i in range(4):
            data, label, weight = forward(one)
            tile = sampler(i)
            assert data.shape == (1, 2, 188, 204)
            assert label.shape == (1, 1, 4, 20)
            assert weight.shape == (1, 3, 4, 20)
            assert np.array_equal(data[0], tile[0])
            assert np.array_equal(label[0, 0], tile[1])
            for k in range(3):
                assert np.array_equal(weight[0, k], np.where(label[0, 0] == k, tile[2], 0))


def test_tiles_are_the_same_with_any_number_of_workers_and_after_seek(path: Path):
    config = dict(file=str(path), tile=TILE, seed=3)
    alone = net(path, dict(config, workers=0))
    expected = [forward(alone) for _ in range(6)]
    for more in (dict(workers=1), dict(workers=3), {}):
        one = net(path, dict(config, **more))
        for start in (0, 4, 1):
            one.layers[0].seek(start)
            for i in (start, start + 1):
                for a, b in zip(forward(one), expected[i]):
                    assert np.array_equal(a, b)


def test_solvers_that_train_together_share_out_the_tiles(path: Path):
    config = dict(file=str(path), tile=TILE, seed=3)
    alone = net(path, dict(config, workers=0))
    expected = [forward(alone) for _ in range(6)]
    covered = net(path, config, caffe.TEST)
    shown = [forward(covered) for _ in range(2)]
    caffe.set_solver_count(2)
    try:
        for rank in range(2):
            caffe.set_solver_rank(rank)
            for workers in (0, 2):
                one = net(path, dict(config, workers=workers))
                for start in (0, 1):
                    one.layers[0].seek(start)
                    for i in (start, start + 1):
                        for a, b in zip(forward(one), expected[2 * i + rank]):
                            assert np.array_equal(a, b)
            one = net(path, config, caffe.TEST)
            for wanted in shown:
                for a, b in zip(forward(one), wanted):
                    assert np.array_equal(a, b)
    finally:
        caffe.set_solver_rank(0)
        caffe.set_solver_count(1)


def test_seed_is_one_by_default(path: Path):
    config = dict(file=str(path), tile=188, workers=0)
    first, second = (forward(net(path, c)) for c in (config, dict(config, seed=1)))
    assert all(np.array_equal(a, b) for a, b in zip(first, second))


def test_the_test_phase_walks_over_every_pixel_once(path: Path):
    config = dict(file=str(path), tile=TILE, slices=[2, 4], seed=1, augmentation=dict(std=3))
    one = net(path, config, caffe.TEST)
    # Outputs of 4 x 20 on 60 x 50.
    assert one.layers[0].tiles_per_epoch == 2 * 15 * 3
    tiles = [forward(one) for _ in range(90)]
    with TrainingSet(path) as training_set:
        for z in range(2):
            label = np.zeros((60, 60))
            weight = np.zeros((3, 60, 60), np.float32)
            data = np.zeros((2, 60, 60), np.float32)
            for n, tile in enumerate(tiles[45 * z : 45 * z + 45]):
                here = slice(n // 3 * 4, n // 3 * 4 + 4), slice(n % 3 * 20, n % 3 * 20 + 20)
                label[here] = tile[1][0, 0]
                weight[(slice(None), *here)] = tile[2][0]
                data[(slice(None), *here)] = tile[0][0, :, 92:-92, 92:-92]
            true = training_set.labels(2 + z)
            assert np.array_equal(label[:, :50], true)
            assert np.all(label[:, 50:] == 255)
            assert np.array_equal(
                weight.sum(0)[:, :50], np.where(true == 255, 0, training_set.weights(2 + z))
            )
            assert not weight[:, :, 50:].any()
            assert np.array_equal(data[..., :50], training_set.raw(2 + z))
    # After the last tile comes the first.
    assert all(np.array_equal(a, b) for a, b in zip(forward(one), tiles[0]))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("geometry", "tile", "inner"),
    [
        (dict(downsample_factor=4, pad_input=12, pad_output=-28), 60, 20),
        (dict(downsample_factor=8, pad_input=0, pad_output=0), 64, 64),
    ],
)
def test_labels_are_as_large_as_the_scores_of_any_geometry(
    path: Path, workers, geometry, tile, inner
):
    augmentation = dict(std=0, rotation=0, mirror=False)
    config = dict(file=str(path), tile=tile, workers=workers, augmentation=augmentation, **geometry)
    data, label, _ = forward(net(path, config))
    assert (data.shape, label.shape) == ((1, 2, tile, tile), (1, 1, inner, inner))
    with TrainingSet(path) as training_set:
        border = (tile - inner) // 2
        whole = dict(config, downsample_factor=1, pad_input=0, pad_output=0)
        middle = forward(net(path, whole))[1][..., border : border + inner, border : border + inner]
        assert np.array_equal(label, middle)
        covered = net(path, config, caffe.TEST)
        plain = forward(covered)
        part = training_set.labels(0)[:inner, :inner]
        assert np.array_equal(plain[1][0, 0, : part.shape[0], : part.shape[1]], part)
        assert covered.layers[0].tiles_per_epoch == 4 * -(-60 // inner) * -(-50 // inner)


AUGMENTATIONS = [
    ({"rotaton": 3}, "augmentation: unknown key 'rotaton'; did you mean 'rotation'"),
    ({"xyz": 3}, "known are grid, std, rotation"),
    ({"std": -1}, "std is -1, but must be a number of at least 0"),
    ({"std": "10"}, "std is '10'"),
    ({"std": float("nan")}, "std is nan"),
    ({"std": True}, "std is True"),
    ({"rotation": 181}, "rotation is 181, but must be a number from 0 to 180"),
    ({"contrast": 1.5}, "contrast is 1.5, but must be a number from 0 to 1"),
    ({"grid": 1}, "grid is 1, but must be a whole number from 2 to 64"),
    ({"grid": 3.0}, "grid is 3.0"),
    ({"mirror": 1}, "mirror is 1, but must be true or false"),
    ({"balanced": 2}, "balanced is 2, but must be true or false"),
    ([1], "must be an object"),
    (None, "augmentation is None"),
]


@pytest.mark.parametrize(
    "change, message",
    [
        ("no json", "param_str is no JSON: Expecting value"),
        ("[1]", "param_str must be a JSON object"),
        (dict(sed=1), "unknown key 'sed'; did you mean 'seed'?"),
        (dict(xyzzy=1), "unknown key 'xyzzy'; known are file, tile, slices"),
        (dict(file=None), "file is None"),
        (dict(file="none.h5"), "none.h5: no such training set"),
        (dict(tile="572"), "tile is '572'"),
        (dict(tile=[572]), "tile is [572]"),
        (dict(tile=[188, 188.0]), "tile is 188.0"),
        (dict(tile=True), "tile is True"),
        (dict(tile=180), "188"),
        (dict(tile=200), "200 is not 16k + 60"),
        (dict(tile=10**9), "tile is 1000000000"),
        (dict(slices=[0, 5]), "slices [0, 5] are not in the stack, which has 4"),
        (dict(slices="all"), "slices is 'all'"),
        *((dict(slices=wrong), "set.h5: slices") for wrong in ([2, 2], [-1, 2], [0], [0, 1, 2])),
        *((dict(slices=wrong), "set.h5: slices") for wrong in ([0, 1.5], 3, [False, True])),
        (dict(downsample_factor=0), "downsample_factor is 0, but must be a whole number from 1"),
        (dict(pad_output=-123), "pad_input 60 is not pad_output -123 and a border of the same"),
        (
            dict(downsample_factor=8, tile=191),
            "191 is not 8k + 60 with k >= 16; the nearest are 188",
        ),
        (dict(workers=-1), "workers is -1"),
        (dict(batch=0), "batch is 0, but must be a whole number from 1"),
        (dict(workers="2"), "workers is '2'"),
        *((dict(seed=wrong), f"seed is {wrong}") for wrong in (-1, 2**63, 1.0, None, True)),
        *((dict(augmentation=wrong), message) for wrong, message in AUGMENTATIONS),
    ],
)
def test_a_mistake_is_told_in_one_sentence(path: Path, change, message: str):
    config = change if isinstance(change, str) else {"file": str(path), "tile": 188, **change}
    with pytest.raises(InputError) as error:
        net(path, config)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["file", "tile"])
def test_a_missing_key_is_named(path: Path, key: str):
    config = dict(file=str(path), tile=188)
    del config[key]
    with pytest.raises(InputError, match=f"param_str lacks '{key}'"):
        net(path, config)


@pytest.mark.parametrize("tops", ["data", "data label", "data label weight more"])
def test_a_wrong_number_of_tops_is_told(path: Path, tops: str):
    with pytest.raises(InputError, match=f"but has 0 bottoms and {len(tops.split())} tops"):
        net(path, dict(file=str(path), tile=188), tops=tops)


def test_a_file_that_is_none_is_told(path: Path):
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"set\.h5"):
        net(path, dict(file=str(path), tile=188))


def test_a_pass_delivers_a_batch_of_tiles(path: Path):
    config = dict(file=str(path), tile=TILE, seed=3)
    alone = net(path, dict(config, workers=0))
    expected = [forward(alone) for _ in range(6)]
    for more in (dict(workers=0), dict(workers=2)):
        batch = net(path, dict(config, batch=3, **more))
        for start in (0, 1):
            batch.layers[0].seek(start)
            for top, tops in zip(forward(batch), zip(*expected[3 * start :])):
                assert np.array_equal(top, np.concatenate(tops[:3]))


def test_in_testing_batches_cover_all_tiles_and_begin_anew(path: Path):
    alone = net(path, dict(file=str(path), tile=TILE), caffe.TEST)
    count = alone.layers[0].tiles_per_epoch
    tiles = [forward(alone)[0][0] for _ in range(count)]
    batch = net(path, dict(file=str(path), tile=TILE, batch=7), caffe.TEST)
    assert batch.layers[0].tiles_per_epoch == -(-count // 7)
    found = np.concatenate([forward(batch)[0] for _ in range(batch.layers[0].tiles_per_epoch)])
    for i, tile in enumerate(found):
        assert np.array_equal(tile, tiles[i % count])
