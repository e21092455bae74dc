"""The snapshots of a run: find them, tell whole from torn, go on from one, keep few."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unet.errors import InputError
from unet.files import atomic as files
from unet.files.hdf5 import Hdf5Output, check_all_inside, damage_is_told, open_hdf5_file
from unet.files.names import path_in_prototxt
from unet.files.weights import count_values, read_message, stored_blobs

# Of a run's snapshots these stay on disk: the newest, one to fall back on, and every tenth.
NEWEST_KEPT = 2
MILESTONE = 10


class Snapshot(NamedTuple):
    """The two files that Caffe writes at one iteration."""

    iteration: int
    state: str
    model: str


def model_of(state: str) -> str:
    """Return the path of the parameters that belong to a solver state."""
    folder, name = os.path.split(state)
    return os.path.join(folder, name.replace(".solverstate", ".caffemodel"))


def average_of(state: str) -> str:
    """Return the path of the sums, of `unet.training.averaging`, that belong to a solver state."""
    folder, name = os.path.split(state)
    return os.path.join(folder, re.sub(r"\.solverstate(\.h5)?$", "", name) + ".average.h5")


def averaged_model_of(model: str) -> str:
    """Return the path of the averaged network that belongs to the parameters of a last snapshot."""
    folder, name = os.path.split(model)
    return os.path.join(folder, name.replace(".caffemodel", "_averaged.caffemodel"))


def files_of(prefix: str) -> re.Pattern[str]:
    """Return the pattern of the names of all files that snapshots of a run have."""
    kinds = r"(_averaged)?\.caffemodel(\.h5)?|\.solverstate(\.h5)?|\.average\.h5"
    return re.compile(rf"{re.escape(os.path.basename(prefix))}_iter_\d+({kinds})")


def find(prefix: str) -> list[Snapshot]:
    """Return the snapshots PREFIX_iter_N, newest first; a state without its parameters is none."""
    folder, name = os.path.split(prefix)
    pattern = re.compile(re.escape(name) + r"_iter_(\d+)\.solverstate(\.h5)?$")
    found = []
    for entry in os.listdir(folder or ".") if os.path.isdir(folder or ".") else ():
        match = pattern.match(entry)
        if match:
            state = os.path.join(folder, entry)
            if os.path.isfile(model_of(state)):
                found.append(Snapshot(int(match.group(1)), state, model_of(state)))
    return sorted(found, reverse=True)


def prune(prefix: str, interval: int, own: Container[int]) -> None:
    """Delete old snapshots of a run: all but the newest two and those at every tenth interval.

    The interval is 0 where there are none but those of a stop. `own` are the iterations that the
    run has done; what else is there another program has written.
    """
    for old in find(prefix)[NEWEST_KEPT:]:
        milestone = interval and old.iteration % (MILESTONE * interval) == 0
        if old.iteration in own and not milestone:
            # The state first: parameters without a state are no snapshot to go on from.
            os.unlink(old.state)
            os.unlink(old.model)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(average_of(old.state))


def sweep(prefix: str) -> None:
    """Remove what a snapshot left half-written when the process was killed."""
    pattern = files_of(prefix)
    files.sweep(os.path.dirname(prefix) or ".", lambda other: pattern.fullmatch(other) is not None)


def _history(path: str) -> list[int]:
    """Return the number of values in each history blob of a solver state."""
    if not path.endswith(".h5"):
        return [count_values(blob) for blob in read_message(path, "SolverState").history]
    with open_hdf5_file(path) as file, damage_is_told(path, "a solver state"):
        check_all_inside(file)
        history = file["history"]
        return [int(np.prod(history[str(k)].shape)) for k in range(len(history))]


def check(snapshot: Snapshot, solver: Any) -> None:
    """Refuse a snapshot that is torn or belongs to another net, before the engine reads it.

    Genuine Caffe ends the process on such a file, and takes a torn one for a smaller net.

    Parameters
    ----------
    snapshot : Snapshot
    solver : caffe solver
        The one that is to go on.

    Raises
    ------
    InputError
        Names the file and what does not fit.
    """
    expected = {
        name: [blob.count for blob in blobs] for name, blobs in solver.net.params.items() if blobs
    }
    try:
        parameters = {
            layer: [blob.count for blob in blobs]
            for layer, blobs in stored_blobs(snapshot.model).items()
        }
        history = _history(snapshot.state)
    except (OSError, KeyError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{snapshot.state}: is torn, or its .caffemodel is ({error})") from None
    for name, counts in expected.items():
        if parameters.get(name) != counts:
            raise InputError(
                f"{snapshot.model}: layer '{name}' has blobs of {parameters.get(name, 'no')} "
                f"values, the net has {counts}: the file is torn or belongs to another net"
            )
    blobs = [count for counts in expected.values() for count in counts]
    if not history or len(history) % len(blobs) or history != blobs * (len(history) // len(blobs)):
        raise InputError(
            f"{snapshot.state}: its {len(history)} history blobs do not fit the net's "
            f"{len(blobs)} parameter blobs: the file is torn or belongs to another net or solver"
        )


def restore(snapshot: Snapshot, solver: Any) -> None:
    """Let a solver go on from a snapshot, also where the folder was moved since it was written.

    Raises
    ------
    InputError
        If the snapshot is torn or belongs to another net.
    """
    check(snapshot, solver)
    with _beside_its_model(snapshot) as state:
        solver.restore(state)


@contextlib.contextmanager
def _beside_its_model(snapshot: Snapshot) -> Iterator[str]:
    # A solver state names the file of its parameters; the one that lies beside it is meant.
    hdf5 = snapshot.state.endswith(".h5")
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "state.solverstate" + (".h5" if hdf5 else ""))
        model = path_in_prototxt(os.path.abspath(snapshot.model))
        if hdf5:
            shutil.copyfile(snapshot.state, copy)
            with Hdf5Output(copy, "r+") as output, output.changing() as file:
                del file["learned_net"]
                file["learned_net"] = np.bytes_(model.encode())
        else:
            message = read_message(snapshot.state, "SolverState")
            message.learned_net = model
            Path(copy).write_bytes(message.SerializeToString())
        yield copy


def given(state: str) -> Snapshot:
    """Return the snapshot of a solver state that a user names; missing files are an InputError."""
    name = os.path.basename(state)
    if ".solverstate" not in name:
        raise InputError(f"{state}: is no .solverstate file")
    for path in (state, model_of(state)):
        if not os.path.isfile(path):
            raise InputError(
                f"{path}: no such file; a snapshot is a .solverstate and a .caffemodel"
            )
    match = re.search(r"_iter_(\d+)\.", name)
    return Snapshot(int(match.group(1)) if match else 0, state, model_of(state))


def newest_whole(prefix: str, solver: Any) -> tuple[Snapshot | None, list[str]]:
    """Restore the newest snapshot that is whole; return it, and why newer ones were passed over.

    It is None if there are no snapshots at all; if none of them can be used, that is an InputError.
    """
    passed: list[str] = []
    for candidate in find(prefix):
        try:
            restore(candidate, solver)
        except InputError as error:
            passed.append(str(error))
        else:
            return candidate, passed
    if passed:
        raise InputError(f"no snapshot of {prefix} can be used; the newest: {passed[0]}")
    return None, passed
