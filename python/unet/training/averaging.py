"""The mean of a network's parameters over the last part of a training, in a file of its own.

Near its end a training wanders around a minimum more than it comes nearer to it; the mean of where
it has been lies closer, and generalises better (Izmailov et al. 2018, Averaging weights leads to
wider optima and better generalization). The training itself is not changed: its parameters are
only read.
"""

from __future__ import annotations

import contextlib
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from unet.errors import InputError
from unet.files.atomic import atomic_path
from unet.files.hdf5 import Hdf5Output, check_all_inside, damage_is_told, open_hdf5_file
from unet.files.provenance import KEY, mark
from unet.training.snapshots import average_of, averaged_model_of

# About so many iterations, evenly spaced, make up a mean: neighbours are nearly the same, and to
# add up the 31 million parameters of Fig. 1 takes 30 ms, and on a GPU the time of fetching them.
_SAMPLES = 100


def check_share(share: float) -> None:
    """Refuse a share of the iterations that is not above 0 and at most 1."""
    if not 0 < share <= 1:
        raise InputError(
            f"--average {share:g}: give the part of the iterations whose parameters are averaged, "
            f"more than 0 and at most 1"
        )


class Averaging:
    """Add up the parameters of a net while it is trained, in double precision.

    The mean is over the iterations i, counted when they are done, with N - share N < i <= N that
    are multiples of `every`: N is the last one, and `every` a hundredth of share N, at least 1. If
    the end comes before any of them, it is the last one alone.

    Parameters
    ----------
    net : caffe net
        The one that is trained; only its parameters are read, by pycaffe's interface.
    share : float
        Of the iterations, above 0 and at most 1.
    iterations : int
        N, as far as is known at the beginning.
    source : str
        The solver, for messages.

    Raises
    ------
    InputError
        If share is not in its range, or the net has batch normalisation.
    """

    def __init__(self, net: Any, share: float, iterations: int, source: str) -> None:
        check_share(share)
        if any(layer.type == "BatchNorm" for layer in net.layers):
            raise InputError(
                f"{source}: the net has layers of type BatchNorm, whose statistics would not fit "
                f"averaged parameters: train it without --average"
            )
        self._net, self._share = net, share
        self._every = max(1, int(share * iterations) // _SAMPLES)
        self._sums: list[np.ndarray] = []
        self._count = self._first = 0

    def _parameters(self) -> list[np.ndarray]:
        return [blob.data for blobs in self._net.params.values() for blob in blobs]

    def note(self, iteration: int, end: int) -> None:
        """Note that `iteration` are done, of `end`, as far as is known."""
        begun = self._count or iteration > end - self._share * end
        if begun and iteration % self._every == 0:
            self._add(iteration)

    def _add(self, iteration: int) -> None:
        if self._count:
            for total, values in zip(self._sums, self._parameters()):
                np.add(total, values, out=total)
        else:
            self._sums = [values.astype(np.float64) for values in self._parameters()]
            self._first = iteration
        self._count += 1

    def save(self, state: str) -> None:
        """Write the sums beside the solver state that is about to be written, if there are any."""
        if not self._count:
            return
        with (
            atomic_path(average_of(state)) as fresh,
            Hdf5Output(fresh) as output,
            output.changing() as file,
        ):
            file.attrs[KEY] = np.bytes_(mark("sums of parameters"))
            for name, value in self._record().items():
                file.attrs[name] = value
            for number, total in enumerate(self._sums):
                file[f"sums/{number}"] = total

    def _record(self) -> dict[str, int]:
        check = 0
        for values in self._parameters():
            check = zlib.crc32(np.ascontiguousarray(values), check)
        return dict(first=self._first, every=self._every, count=self._count, parameters=check)

    def resume(self, state: str, iteration: int, end: int) -> None:
        """Take up the sums beside a solver state, from which the net has gone on at `iteration`.

        If that is before the part that is averaged, they are not needed. If they are not there, or
        not of this training, it is said, and the mean is over what is left.
        """
        begin = end - self._share * end
        self._first = (int(begin // self._every) + 1) * self._every
        if iteration < self._first:
            return
        try:
            self._load(average_of(state), 1 + (iteration - self._first) // self._every)
        except (OSError, InputError) as error:
            self._count = 0
            print(
                f"averaged from iteration {iteration} on, not from {self._first}: {error}",
                file=sys.stderr,
            )

    def _load(self, path: str, count: int) -> None:
        self._count = count
        parameters = self._parameters()
        with open_hdf5_file(path) as file, damage_is_told(path, "sums of parameters"):
            check_all_inside(file)
            for name, value in self._record().items():
                if file.attrs[name] != value:
                    raise InputError(f"{path}: is of another training, or of other iterations")
            self._sums = [file[f"sums/{number}"][()] for number in range(len(parameters))]
        if any(one.shape != values.shape for one, values in zip(self._sums, parameters)):
            raise InputError(f"{path}: is of another net")

    def write(self, model: str, iteration: int) -> str:
        """Write the averaged network beside the last snapshot's parameters; return its path."""
        if not self._count:
            self._add(iteration)
        path = averaged_model_of(model)
        with atomic_path(path) as fresh, self._in_the_net():
            if path.endswith(".h5"):
                self._net.save_hdf5(str(fresh))
            else:
                self._net.save(str(fresh))
        return path

    @contextlib.contextmanager
    def _in_the_net(self) -> Iterator[None]:
        trained = [values.copy() for values in self._parameters()]
        try:
            for values, total in zip(self._parameters(), self._sums):
                values[...] = total / self._count
            yield
        finally:
            for values, before in zip(self._parameters(), trained):
                values[...] = before
