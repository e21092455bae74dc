"""The networks, as they read in Fig. 1, and the prototxt files made of them.

`python -m unet.nets` writes prototxt/; with a network and a training set it writes a folder for
your own data.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import caffe
from caffe import NetSpec
from caffe import layers as L
from caffe.proto import caffe_pb2
from unet.command.options import add_overwrite, whole
from unet.command.options import parse_slices as parse_range
from unet.command.running import run_program
from unet.errors import InputError, few
from unet.files.atomic import atomic_parts
from unet.files.names import path_in_prototxt
from unet.files.outputs import Output, guard_outputs
from unet.files.provenance import NETWORK, NETWORK_LINE
from unet.layers import parse_slices
from unet.network.loss import weighted_softmax_loss
from unet.network.release2015 import NAME as PHSEG_V5
from unet.network.release2015 import phseg_v5_files
from unet.network.u_net import u_shape
from unet.preparation.training_set import TrainingSet
from unet.segmentation.tiles import BORDER, check_tile
from unet.volumes.intensity import INPUT, input_text

# Maps after the first convolution; they double at each of the four poolings.
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
TEST_TILE = 700
DATA = "data/isbi2012/isbi2012.h5"
HOLDOUT = 20


def data_layer(config: dict, include: dict) -> caffe_pb2.LayerParameter:
    """Return the layer that feeds tiles, admitted where `include` holds."""
    n = NetSpec()
    n["data"], n["label"], n["weight"] = L.Python(
        name="tiles",
        ntop=3,
        python_param=dict(
            module="unet.layers", layer="TrainingTiles", param_str=json.dumps(config)
        ),
        include=include,
    )
    return n.to_proto().layer[0]


def training_net(
    name: str,
    phase: int,
    feeds: Sequence[tuple[dict, dict]],
    *,
    classes: int = 2,
) -> caffe_pb2.NetParameter:
    """Return the net that is trained (TRAIN) or tested (TEST), from tiles to loss.

    Parameters
    ----------
    name : str
        A key of `WIDTHS`.
    phase : int
        caffe.TRAIN or caffe.TEST; the test net also has `accuracy`.
    feeds : sequence of (configuration, include rule)
        The data layers, of which the solver's state admits one.
    classes : int
    """
    n = NetSpec()
    # Stands for the data layers while the net is put together.
    n["data"], n["label"], n["weight"] = L.Python(name="tiles", ntop=3)
    u_shape(n, WIDTHS[name], classes)
    weighted_softmax_loss(n, "score", "weight", classes)
    if phase == caffe.TEST:
        n["accuracy"] = L.Accuracy(n["score"], n["label"], ignore_label=255)
    else:
        n["silence"] = L.Silence(n["label"], ntop=0)
    body = n.to_proto()
    net = caffe_pb2.NetParameter(name=name)
    net.layer.extend(data_layer(config, include) for config, include in feeds)
    net.layer.extend(body.layer[1:])
    return net


def deploy_net(
    name: str, *, channels: int = 1, classes: int = 2, tile: int = FIGURE_TILE
) -> caffe_pb2.NetParameter:
    """Return the net that segments: `data` in, `score` and its soft-max `prob` out."""
    n = NetSpec()
    n["data"] = L.Input(shape=dict(dim=[1, channels, tile, tile]))
    u_shape(n, WIDTHS[name], classes)
    n["prob"] = L.Softmax(n["score"])
    net = n.to_proto()
    net.name = name
    return net


def solver(
    name: str,
    folder: str,
    prefix: str,
    stage: str,
    iterations: int,
    test_iter: int | None,
    method: str = "SGD",
) -> caffe_pb2.SolverParameter:
    """Return the solver: one tile a step; the paper's SGD with momentum 0.99 (Sec. 3), or Adam.

    Parameters
    ----------
    name : str
        A key of `WIDTHS`.
    folder : str
        Where train.prototxt and test.prototxt lie.
    prefix : str
        Path of the snapshots, up to `_iter_N`.
    stage : str
        Which data layer is admitted.
    iterations : int
    test_iter : int, optional
        Passes of a test; None: there is nothing to test on.
    method : {"SGD", "Adam"}
        Adam: without weight decay, which in Caffe would pass through its second moments.
    """
    methods = {
        "SGD": dict(momentum=0.99, weight_decay=0.0005),
        "Adam": dict(momentum=0.9, momentum2=0.999),
    }
    param = caffe_pb2.SolverParameter(
        train_net=f"{folder}/train.prototxt",
        type=method,
        base_lr=RATES[method][name],
        lr_policy="poly",
        power=1.0,
        **methods[method],
        max_iter=iterations,
        display=20,
        average_loss=20,
        snapshot=500,
        snapshot_prefix=prefix,
        random_seed=1,
    )
    param.train_state.stage.append(stage)
    if test_iter:
        param.test_net.append(f"{folder}/test.prototxt")
        param.test_iter.append(test_iter)
        param.test_interval = 500
        param.test_initialization = False
        param.test_state.add(stage=[stage])
    return param


AUGMENTATION = dict(
    grid=3, std=10.0, rotation=180.0, mirror=True, shift=True, contrast=0.3, brightness=0.15
)


def feed(
    file: str, tile: int, slices: Sequence[int] | None, augmentation: dict | None = None
) -> dict:
    """Return the configuration of a data layer."""
    config: dict = dict(file=file, tile=tile)
    if slices is not None:
        config["slices"] = list(slices)
    if augmentation is not None:
        config.update(seed=1, augmentation=augmentation)
    return config


def isbi_files(name: str) -> dict[str, object]:
    """Return the files of prototxt/<name>: file name -> message, or text."""
    folder = f"prototxt/{name}"
    holdout = dict(stage=["holdout"])
    everything = dict(stage=["isbi"])
    solvers = {
        f"solver_{file}{suffix}.prototxt": solver(
            name,
            folder,
            f"runs/{name}_{file}{suffix}/{name}",
            file,
            ITERATIONS[name],
            tests,
            method,
        )
        for method, suffix in (("SGD", ""), ("Adam", "_adam"))
        for file, tests in (("holdout", 30 - HOLDOUT), ("isbi", None))
    }
    return {
        "train.prototxt": training_net(
            name,
            caffe.TRAIN,
            [
                (feed(DATA, TRAIN_TILES[name], (0, HOLDOUT), AUGMENTATION), holdout),
                (feed(DATA, TRAIN_TILES[name], None, AUGMENTATION), everything),
            ],
        ),
        "test.prototxt": training_net(
            name, caffe.TEST, [(feed(DATA, TEST_TILE, (HOLDOUT, 30)), holdout)]
        ),
        "deploy.prototxt": deploy_net(name),
        INPUT: input_text(True),
        **solvers,
    }


def own_files(
    name: str,
    data: str,
    folder: str,
    *,
    tile: int,
    iterations: int,
    train: Sequence[int] | None,
    test: Sequence[int] | None,
    method: str,
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
    tile : int
        Input size, 16k + 60.
    iterations : int
    train, test : [first, stop], optional
        Slices to train on (None: all) and to test on (None: no test).
    method : {"SGD", "Adam"}
        As of `solver`.

    Raises
    ------
    InputError
        If the training set, the tile size, the slices or the iterations are wrong.
    """
    check_tile((tile, tile))
    if iterations < 1:
        raise InputError(f"{iterations} iterations are too few; give at least 1")
    with TrainingSet(data) as training_set:
        shape, channels, classes = training_set.shape, training_set.channels, training_set.classes
        normalised = training_set.grey_range is None
        chosen = parse_slices(train, shape[0], training_set.path)
        training_set.demand_annotated(chosen, classes=2)
        if test is not None:
            held_out = parse_slices(test, shape[0], training_set.path)
            training_set.demand_annotated(held_out, classes=1)
            both = sorted(set(chosen) & set(held_out))
            if both:
                raise InputError(
                    f"slices {few(both)} of {training_set.path} are to be trained and tested on, "
                    f"but scores on slices that a network has learnt from say nothing; choose "
                    f"--train-slices and --test-slices that share none"
                )
    always = dict(stage=["own"])
    files: dict[str, object] = {
        "train.prototxt": training_net(
            name, caffe.TRAIN, [(feed(data, tile, train, AUGMENTATION), always)], classes=classes
        ),
        "deploy.prototxt": deploy_net(name, channels=channels, classes=classes, tile=tile),
        INPUT: input_text(normalised),
    }
    passes = None
    if test is not None:
        files["test.prototxt"] = training_net(
            name, caffe.TEST, [(feed(data, tile, test), always)], classes=classes
        )
        across = [-(-size // (tile - 2 * BORDER)) for size in shape[1:]]
        passes = (test[1] - test[0]) * across[0] * across[1]
    files["solver.prototxt"] = solver(
        name, folder, f"{folder}/{name}", "own", iterations, passes, method
    )
    return files


def write_files(files: dict[str, object], folder: Path) -> None:
    """Write messages as prototxt, and text as it is, into a folder: all or none."""
    with atomic_parts(folder) as fresh:
        for name, content in files.items():
            text = content if isinstance(content, str) else f"{NETWORK_LINE}\n{content}"
            (fresh / name).write_text(text, encoding="utf-8")


def guard_files(files: Iterable[str], options: argparse.Namespace) -> None:
    """Refuse to write files where that would damage something."""
    outputs = [Output(Path(options.output, name), NETWORK) for name in files]
    guard_outputs(outputs, [options.data] if options.data else [], options.overwrite)


def _slices(option: str, text: str | None) -> list[int] | None:
    chosen = None if text is None else parse_range(text, option)
    return chosen and [chosen.start, chosen.stop]


def main(argv: Sequence[str] | None = None) -> None:
    """Write the checked-in prototxt files, or those of a network for your own training set."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("net", nargs="?", choices=sorted(WIDTHS))
    parser.add_argument("--data", help="training set (HDF5) that tools/prepare.py wrote")
    parser.add_argument("--train-slices", metavar="A:B")
    parser.add_argument("--test-slices", metavar="A:B")
    parser.add_argument(
        "--tile",
        type=whole(1),
        help="input size, 16k + 60; by default that of the net's own training",
    )
    parser.add_argument("--iterations", type=whole(-(2**31)), default=4000)
    parser.add_argument(
        "--method", choices=("SGD", "Adam"), help="by default SGD for unet, Adam for unet_slim"
    )
    parser.add_argument("-o", "--output", default="prototxt", help="folder to write to")
    add_overwrite(parser)
    options = parser.parse_args(argv)
    if options.net is None:
        folders = {name: isbi_files(name) for name in WIDTHS}
        folders[PHSEG_V5] = phseg_v5_files()
        guard_files([f"{folder}/{name}" for folder in folders for name in folders[folder]], options)
        for folder, files in folders.items():
            write_files(files, Path(options.output) / folder)
        return
    if not options.data:
        raise InputError("--data is missing: name the training set that tools/prepare.py wrote")
    files = own_files(
        options.net,
        options.data,
        path_in_prototxt(options.output),
        tile=TRAIN_TILES[options.net] if options.tile is None else options.tile,
        iterations=options.iterations,
        train=_slices("--train-slices", options.train_slices),
        test=_slices("--test-slices", options.test_slices),
        method=options.method or METHODS[options.net],
    )
    guard_files(files, options)
    write_files(files, Path(options.output))
    print(f"wrote {', '.join(sorted(files))} to {options.output}")


if __name__ == "__main__":
    run_program(main)
