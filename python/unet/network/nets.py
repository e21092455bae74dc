"""The prototxt files of the networks in this room, and the numbers that they train with.

`unet nets` writes prototxt/; with a network and a training set it writes a folder for
your own data.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import caffe
from caffe import NetSpec
from caffe import layers as L
from caffe.proto import caffe_pb2
from unet.errors import InputError, few
from unet.files.atomic import atomic_parts
from unet.files.provenance import NETWORK_LINE
from unet.layers import GEOMETRY
from unet.network.geometry import LEVELS, Geometry
from unet.network.sliding_window import dense_net, dense_side, stages_of, window_body
from unet.network.u_net import u_net, weighted_softmax_loss
from unet.preparation.training_set import TrainingSet
from unet.volumes import chosen_slices
from unet.volumes.intensity import INPUT, input_text

# Maps after the first convolution; they double at each pooling.
WIDTHS = {"unet": 64, "unet_slim": 16}
# The input of Fig. 1.
FIGURE_TILE = 572
# The paper trains on tiles of 572; smaller ones give a CPU more steps in the same time.
TRAIN_TILES = {"unet": FIGURE_TILE, "unet_slim": 444}
# SGD: at 0.01 the slim net ended up calling everything a cell. Adam: at 0.001 the wide net's first
# step throws it far off.
RATES = {
    "SGD": {"unet": 0.001, "unet_slim": 0.0025},
    "Adam": {"unet": 0.0001, "unet_slim": 0.001},
}
# The paper's solver trains the paper's net. In the few thousand steps that a CPU has, Adam gets the
# slim one much further.
METHODS = {"unet": "SGD", "unet_slim": "Adam"}
ITERATIONS = {"unet": 30000, "unet_slim": 22000}
OWN_ITERATIONS = 4000
AUGMENTATION = dict(
    grid=3, std=10.0, rotation=180.0, mirror=True, shift=True, contrast=0.3, brightness=0.15
)
TEST_TILE = 700
# Of Ciresan's network: windows are turned and mirrored, not bent; classes come equally often.
WINDOW, WINDOWS_A_STEP, WINDOW_RATE = "sliding_window", 8, 0.001
WINDOW_AUGMENTATION = {**AUGMENTATION, "std": 0.0, "balanced": True}
DATA = "data/isbi2012/isbi2012.h5"
SLICES, HOLDOUT = 30, 20
TRAIN_VAL = "train_val.prototxt"
FIGURE_1 = Geometry()
# Stands for layers from `data` to `score` while a net is put together.
_BODY = "body"


def tiles(
    file: str,
    tile: int,
    phase: int,
    *,
    stage: str | None = None,
    slices: Sequence[int] | None = None,
    geometry: Geometry = FIGURE_1,
    weighted: bool = True,
    seed: int = 1,
    batch: int = 1,
    augmentation: Mapping[str, object] = AUGMENTATION,
) -> caffe_pb2.LayerParameter:
    """Return the layer that feeds tiles of a training set; in phase TRAIN they are augmented.

    It is admitted in one phase, and in one stage of the solver or in any. Slices are [first, stop],
    by default all. Unweighted, all pixels that are annotated count alike. A pass feeds `batch` of
    them.
    """
    config: dict = dict(file=file, tile=tile)
    if batch > 1:
        config["batch"] = batch
    if slices is not None:
        config["slices"] = list(slices)
    if not weighted:
        config["weighted"] = False
    if phase == caffe.TRAIN:
        config.update(seed=seed, augmentation=augmentation)
    numbers = {name: getattr(geometry, name) for name in GEOMETRY}
    config.update({k: value for k, value in numbers.items() if value != getattr(FIGURE_1, k)})
    n = NetSpec()
    n["data"], n["label"], n["weight"] = L.Python(
        name="tiles",
        ntop=3,
        python_param=dict(
            module="unet.layers", layer="TrainingTiles", param_str=json.dumps(config)
        ),
        include=dict(phase=phase, **(dict(stage=stage) if stage else {})),
    )
    return n.to_proto().layer[0]


def train_val_net(
    name: str,
    feeds: Sequence[caffe_pb2.LayerParameter],
    *,
    maps: int | None = None,
    classes: int = 2,
    body: Sequence[caffe_pb2.LayerParameter] | None = None,
    **shape: int,
) -> caffe_pb2.NetParameter:
    """Return the net that is trained and tested: from tiles to loss, in phase TEST to accuracy.

    Of its feeds, from `tiles`, phase and stage admit one. It has so many maps after the first
    convolution, by default those of `WIDTHS`. Its shape is levels and padded, as of
    `unet.network.u_net.u_net`; or its layers from `data` to `score` are those of a body.
    """
    n = NetSpec()
    # Stands for the data layers while the net is put together.
    n["data"], n["label"], n["weight"] = L.Python(name="tiles", ntop=3)
    _add_body(n, body, maps or WIDTHS.get(name, 0), classes, shape)
    weighted_softmax_loss(n, "score", "weight", classes)
    n["accuracy"] = L.Accuracy(
        n["score"], n["label"], ignore_label=255, include=dict(phase=caffe.TEST)
    )
    n["silence"] = L.Silence(n["label"], ntop=0, include=dict(phase=caffe.TRAIN))
    return caffe_pb2.NetParameter(name=name, layer=[*feeds, *_layers(n, body)[1:]])


def _add_body(
    n: NetSpec,
    body: Sequence[caffe_pb2.LayerParameter] | None,
    width: int,
    classes: int,
    shape: Mapping[str, int],
) -> None:
    """Add what lies between `data` and `score`: a body, or what stands for it."""
    if body is None:
        u_net(n, width, classes, **shape)
    else:
        n["score"] = L.Python(n["data"], name=_BODY)


def _layers(
    n: NetSpec, body: Sequence[caffe_pb2.LayerParameter] | None
) -> list[caffe_pb2.LayerParameter]:
    """Return the layers of a net, among them those of a body where it stands."""
    layers = []
    for layer in n.to_proto().layer:
        layers.extend(body if body is not None and layer.name == _BODY else [layer])
    return layers


def deploy_net(
    name: str,
    *,
    maps: int | None = None,
    channels: int = 1,
    classes: int = 2,
    tile: int = FIGURE_TILE,
    body: Sequence[caffe_pb2.LayerParameter] | None = None,
    **shape: int,
) -> caffe_pb2.NetParameter:
    """Return the net that segments, shaped alike: `data` in, `score` and its soft-max out."""
    n = NetSpec()
    n["data"] = L.Input(shape=dict(dim=[1, channels, tile, tile]))
    _add_body(n, body, maps or WIDTHS.get(name, 0), classes, shape)
    n["prob"] = L.Softmax(n["score"])
    return caffe_pb2.NetParameter(name=name, layer=_layers(n, body))


def solver(
    name: str,
    folder: str,
    prefix: str,
    iterations: int,
    *,
    stage: str | None = None,
    test_iter: int | None = None,
    method: str = "SGD",
    rate: float | None = None,
    test_every: int = 500,
    snapshot_every: int = 500,
    seed: int = 1,
) -> caffe_pb2.SolverParameter:
    """Return the solver: one tile a step; the paper's SGD with momentum 0.99 (Sec. 3), or Adam.

    Adam is without weight decay, which in Caffe would pass through its second moments. The network
    lies in `folder`; snapshots are PREFIX_iter_N; without `test_iter`, the passes of a test, there
    is nothing to test on. Without a rate it is that of `RATES`.
    """
    methods = {
        "SGD": dict(momentum=0.99, weight_decay=0.0005),
        "Adam": dict(momentum=0.9, momentum2=0.999),
    }
    param = caffe_pb2.SolverParameter(
        net=f"{folder}/{TRAIN_VAL}",
        type=method,
        base_lr=RATES[method][name] if rate is None else rate,
        lr_policy="poly",
        power=1.0,
        **methods[method],
        max_iter=iterations,
        display=20,
        average_loss=20,
        snapshot=snapshot_every,
        snapshot_prefix=prefix,
        random_seed=seed,
    )
    if stage:
        param.train_state.stage.append(stage)
    if test_iter:
        param.test_iter.append(test_iter)
        param.test_interval = test_every
        param.test_initialization = False
        if stage:
            param.test_state.add(stage=[stage])
    return param


def isbi_files(name: str) -> dict[str, object]:
    """Return the files of prototxt/<name>: file name -> message, or text."""
    tile = TRAIN_TILES[name]
    feeds = [
        tiles(DATA, tile, caffe.TRAIN, stage="holdout", slices=(0, HOLDOUT)),
        tiles(DATA, tile, caffe.TRAIN, stage="isbi"),
        tiles(DATA, TEST_TILE, caffe.TEST, stage="holdout", slices=(HOLDOUT, SLICES)),
    ]
    solvers = {
        f"solver_{stage}{suffix}.prototxt": solver(
            name,
            f"prototxt/{name}",
            f"runs/{name}_{stage}{suffix}/{name}",
            ITERATIONS[name],
            stage=stage,
            test_iter=tests,
            method=method,
        )
        for method, suffix in (("SGD", ""), ("Adam", "_adam"))
        for stage, tests in (("holdout", SLICES - HOLDOUT), ("isbi", None))
    }
    return {
        TRAIN_VAL: train_val_net(name, feeds),
        "deploy.prototxt": deploy_net(name),
        INPUT: input_text(True),
        **solvers,
    }


def own_files(
    name: str,
    data: str,
    folder: str,
    *,
    tile: int | None = None,
    iterations: int = OWN_ITERATIONS,
    train: range | None = None,
    test: range | None = None,
    method: str | None = None,
    levels: int = LEVELS,
    padded: bool = False,
) -> dict[str, object]:
    """Return the files of a network for a training set of one's own: file name -> message or text.

    Parameters
    ----------
    name : str
        A key of `WIDTHS`.
    data : str
        The training set; it says how many channels and classes the network has.
    folder : str
        Where the files will lie; solver and snapshots name it.
    tile : int, optional
        Input size; by default that of the network's own training, or the next smaller valid one.
    iterations : int
    train, test : range, optional
        Slices to train on (None: all) and to test on (None: no test).
    method : {"SGD", "Adam"}, optional
        As of `solver`; by default what suits the network.
    levels, padded
        As of `unet.network.u_net.u_net`.

    Raises
    ------
    InputError
        If the training set, the tile size, the slices or the iterations are wrong.
    """
    shape = dict(levels=levels, padded=padded)
    # What is learnt is all of the scores, also where padding reaches.
    geometry = dataclasses.replace(Geometry.of(deploy_net(name, **shape)), margin=0)
    if tile is None:
        tile = TRAIN_TILES[name]
        tile -= (tile - geometry.pad_input) % geometry.downsample_factor
    geometry.check((tile, tile))
    if iterations < 1:
        raise InputError(f"{iterations} iterations are too few; give at least 1")
    with TrainingSet(data) as training_set:
        size, channels, classes, normalised, chosen = _learnt_from(training_set, train)
        if test is not None:
            held_out = chosen_slices(test, training_set.shape[0], "--test-slices")
            training_set.demand_annotated(held_out, classes=1)
            both = sorted(set(chosen) & set(held_out))
            if both:
                raise InputError(
                    f"slices {few(both)} of {training_set.path} are to be trained and tested on, "
                    f"but scores on slices that a network has learnt from say nothing; choose "
                    f"--train-slices and --test-slices that share none"
                )
    learnt = None if train is None else (chosen.start, chosen.stop)
    feeds, passes = [tiles(data, tile, caffe.TRAIN, slices=learnt, geometry=geometry)], None
    if test is not None:
        shown = held_out.start, held_out.stop
        feeds.append(tiles(data, tile, caffe.TEST, slices=shown, geometry=geometry))
        down, across = (-(-length // geometry.output_size(tile)) for length in size)
        passes = len(held_out) * down * across
    return {
        TRAIN_VAL: train_val_net(name, feeds, classes=classes, **shape),
        "deploy.prototxt": deploy_net(name, channels=channels, classes=classes, tile=tile, **shape),
        INPUT: input_text(normalised),
        "solver.prototxt": solver(
            name,
            folder,
            f"{folder}/{name}",
            iterations,
            test_iter=passes,
            method=method or METHODS[name],
        ),
    }


def _learnt_from(
    training_set: TrainingSet, train: range | None
) -> tuple[tuple[int, ...], int, int, bool, range]:
    """Return size, channels, classes, whether slices are normalised, and which are learnt from."""
    count, *size = training_set.shape
    chosen = chosen_slices(train, count, "--train-slices")
    training_set.demand_annotated(chosen, classes=2)
    normalised = training_set.intensity_range is None
    return tuple(size), training_set.channels, training_set.classes, normalised, chosen


def window_files(
    data: str,
    folder: str,
    *,
    window: int = 95,
    iterations: int = OWN_ITERATIONS,
    train: range | None = None,
) -> dict[str, object]:
    """Return the files of Ciresan's network for a training set: file name -> message or text.

    It tells the class of the centre of a window. `dense.prototxt` scores all windows of a slice of
    the training set at once. Parameters as of `own_files`.

    Raises
    ------
    InputError
        If there is no network of this window, or the training set, the slices or the iterations are
        wrong.
    """
    stages_of(window)
    if iterations < 1:
        raise InputError(f"{iterations} iterations are too few; give at least 1")
    with TrainingSet(data) as training_set:
        size, channels, classes, normalised, chosen = _learnt_from(training_set, train)
    name = f"window_{window}"
    body = window_body(window, classes=classes)
    feed = tiles(
        data,
        window,
        caffe.TRAIN,
        slices=None if train is None else (chosen.start, chosen.stop),
        geometry=Geometry(1, window - 1, 0),
        weighted=False,
        batch=WINDOWS_A_STEP,
        augmentation=WINDOW_AUGMENTATION,
    )
    side = dense_side(window, max(size))
    return {
        TRAIN_VAL: train_val_net(name, [feed], classes=classes, body=body),
        "deploy.prototxt": deploy_net(
            name, channels=channels, classes=classes, tile=window, body=body
        ),
        "dense.prototxt": dense_net(window, side, channels=channels, classes=classes),
        INPUT: input_text(normalised),
        "solver.prototxt": solver(
            name, folder, f"{folder}/{name}", iterations, method="Adam", rate=WINDOW_RATE
        ),
    }


def write_files(files: dict[str, object], folder: Path) -> None:
    """Write messages as prototxt, and text as it is, into a folder: all or none."""
    with atomic_parts(folder) as fresh:
        for name, content in files.items():
            text = content if isinstance(content, str) else f"{NETWORK_LINE}\n{content}"
            (fresh / name).write_text(text, encoding="utf-8")
