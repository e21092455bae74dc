"""Which of the solvers that train one net together, each in a process of its own, this one is."""

from __future__ import annotations

from caffe.arguments import WHOLE, takes
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2

_count = 1
_rank = 0


def solver_count() -> int:
    """Return how many solvers train together."""
    return _count


@takes(count=WHOLE)
def set_solver_count(count: int) -> None:
    """Say how many solvers train together.

    Raises
    ------
    CaffeError
        If there is none.
    """
    global _count
    if count < 1:
        raise CaffeError(f"solver count {count} must be positive")
    _count = int(count)


def solver_rank() -> int:
    """Return the number of this process's solver, from 0."""
    return _rank


@takes(rank=WHOLE)
def set_solver_rank(rank: int) -> None:
    """Say which of the solvers this process runs; only solver 0 displays, tests and snapshots.

    Raises
    ------
    CaffeError
        If the number is negative.
    """
    global _rank
    if rank < 0:
        raise CaffeError(f"solver rank {rank} must not be negative")
    _rank = int(rank)


@takes(multiprocess=WHOLE)
def set_multiprocess(multiprocess: bool) -> None:
    """Say that each solver has a process of its own, as scripts of pycaffe do; here it always has.

    Raises
    ------
    TypeError
        If it is no number.
    """


def is_root() -> bool:
    """Tell whether this is the solver that displays, tests and snapshots."""
    return _rank == 0


def check() -> None:
    """Refuse a rank that lies outside the count.

    Raises
    ------
    CaffeError
    """
    if _rank >= _count:
        raise CaffeError(
            f"solver rank {_rank} does not exist among {_count}: ranks count from 0, and "
            "set_solver_count says how many there are"
        )


def share(phase: int) -> tuple[int, int]:
    """Return which items of its source a data layer of this solver reads.

    Parameters
    ----------
    phase : int
        In phase TEST, which solver 0 runs alone, it reads all of them.

    Returns
    -------
    first, step : int
        The number of the first one, and from one to the next.

    Raises
    ------
    CaffeError
        If the rank lies outside the count.
    """
    if phase != caffe_pb2.TRAIN:
        return 0, 1
    check()
    return _rank, _count
