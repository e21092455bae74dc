"""What `unet.train` does: a network from a stack and its labels, or by a solver prototxt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet.errors import InputError
from unet.experiment.options import ExperimentOptions
from unet.files.names import PathLike
from unet.machine.engine import open_engine, precision_kept
from unet.training.train import train as train_by_solver
from unet.volumes import Stack

if TYPE_CHECKING:
    from unet.experiment.run import Trained

_HEAD = 4096


def train(source: Stack, *arguments: Any, **options: Any) -> Trained | str:
    """Train a network: on a stack and its labels, or by a solver prototxt.

    Parameters
    ----------
    source : path or array
        ``train(stack, labels, output, overwrite=False, **options)``: a stack as
        `unet.open_volume` opens it, or an array, (slices, [channels,] height, width); its labels
        alike; the model folder to make; and fields of
        `unet.experiment.options.ExperimentOptions` and
        `unet.preparation.training_set_options.TrainingSetOptions`. For a sequence of the cell
        tracking challenge, DATASET/NN, labels are None.

        ``train(solver, output=None, weights=None, **options)``: the path of a solver prototxt, and
        what `unet.training.train.train` takes.

    Returns
    -------
    unet.experiment.run.Trained or str
        The model folder, scores and choices; by a solver the path of the newest .caffemodel.

    Raises
    ------
    InputError
        If it cannot be trained, or a file that is there would be damaged.

    Examples
    --------
    >>> trained = train("stack.tif", "labels.tif", "runs/mine", minutes=20)    # doctest: +SKIP
    >>> trained.scores["rand_error"]                                           # doctest: +SKIP
    0.0712
    >>> train("runs/mine/net/solver_1.prototxt", "runs/other")                 # doctest: +SKIP
    'runs/other/unet_iter_4000.caffemodel'
    """
    with precision_kept():
        if is_solver(source):
            return train_by_solver(os.fspath(source), *arguments, **options)
        return _train_on_stack(source, *arguments, **options)


def _train_on_stack(
    stack: Stack,
    labels: Stack | None = None,
    output: PathLike | None = None,
    *,
    overwrite: bool = False,
    command: str = "",
    **options: Any,
) -> Trained:
    if output is None:
        raise InputError("name the model folder to make with output, or -o")
    chosen = ExperimentOptions.of(**options)
    # First: the engine reads its environment when it is imported, as it is by what follows.
    engine = open_engine(chosen.device, chosen.precision or "fp32", graphs=True)
    # Genuine Caffe has no other.
    if chosen.precision is None and hasattr(engine, "set_precision"):
        engine.set_precision("bf16")
    from unet.experiment.run import train_from_stack

    return train_from_stack(
        engine, stack, labels, output, chosen, overwrite=overwrite, command=command
    )


def is_solver(source: object) -> bool:
    """Tell whether something is the path of a prototxt, which is text, and no stack is."""
    if not isinstance(source, (str, os.PathLike)):
        return False
    path = Path(source)
    if not path.is_file():
        return path.suffix == ".prototxt"
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    return bool(head) and b"\0" not in head and head.decode("utf-8", "ignore").isascii()
