"""What the whole process computes with: mode, device, precision, seed, and its solver's rank."""

from __future__ import annotations

import functools
import os

# Blobs in huge pages: a step of the full U-Net takes 0.1 million page faults in place of 0.8.
# PyTorch reads this once, before its first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch

from caffe.argument_checks import WHOLE, takes
from caffe.errors import CaffeError
from caffe.log import log_warning
from caffe.proto import caffe_pb2

PRECISIONS = ("fp32", "tf32", "bf16")

_mode = "cpu"
_precision = "fp32"
_device_id = 0
_seed: int | None = None
# Which of the solvers that train one net together, each in a process of its own, this one is.
_solver_count = 1
_solver_rank = 0
_generators: dict[torch.device, torch.Generator] = {}


@takes()
def set_mode_cpu() -> None:
    """Compute on the CPU from now on."""
    global _mode
    _mode = "cpu"


@takes()
def set_mode_gpu() -> None:
    """Compute on the GPU chosen by `set_device` (0 by default) from now on.

    Raises
    ------
    CaffeError
        If PyTorch finds no CUDA device.
    """
    global _mode
    if not torch.cuda.is_available():
        raise CaffeError(
            "no GPU can be used: PyTorch finds no CUDA device here; call set_mode_cpu() instead"
        )
    _mode = "gpu"
    _choose_tf32()


def get_mode() -> str:
    """Return where layers compute, "cpu" or "gpu"; not in genuine Caffe."""
    return _mode


@takes(device_id=WHOLE)
def set_device(device_id: int) -> None:
    """Choose the GPU by its number.

    Raises
    ------
    CaffeError
        If there is no GPU of that number.
    """
    global _device_id
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not 0 <= device_id < count:
        # With CUDA's own words, by which programs tell it from other errors.
        raise CaffeError(
            f"GPU {device_id} does not exist, invalid device ordinal: PyTorch finds {count} CUDA "
            f"device(s)"
        )
    _device_id = device_id


def set_precision(precision: str) -> None:
    """Choose what convolutions and inner products are computed in; not in genuine Caffe.

    Parameters, their gradients and the solver's state stay float32, and so do all other layers but
    those that only move or choose values: blobs between them hold what they are given.

    Parameters
    ----------
    precision : {"fp32", "tf32", "bf16"}
        "fp32": float32. "tf32": the same, but GPUs that can multiply with 10 bits of mantissa.
        "bf16": bfloat16, 7 bits of mantissa, half the memory, where the device has instructions for
        it: CPUs with AVX512_BF16 or AMX, GPUs of compute capability 8.0. Elsewhere it would be
        slower, so float32 is computed and a line of the log says so; see `get_precision`.

    Raises
    ------
    CaffeError
        If it is none of these.
    """
    global _precision
    if precision not in PRECISIONS:
        raise CaffeError(f"unknown precision {precision!r}; there are {', '.join(PRECISIONS)}")
    _precision = precision
    _choose_tf32()
    # Said now, not in the middle of the first pass.
    get_precision()


def get_precision() -> str:
    """Return what convolutions and inner products compute in, on the current device.

    Returns
    -------
    {"fp32", "tf32", "bf16"}
        What `set_precision` chose, but "fp32" for "bf16" where that gains nothing.
    """
    if _precision == "bf16" and not _gains_by_bf16(current_device()):
        return "fp32"
    return _precision


@functools.cache
def _gains_by_bf16(where: torch.device) -> bool:
    """Tell whether a device has instructions for bfloat16; say so once where it has not."""
    if where.type == "cuda":
        major, minor = torch.cuda.get_device_capability(where)
        if torch.version.hip or major >= 8:
            return True
        lacks = f"GPU {where.index} is of compute capability {major}.{minor}, below 8.0"
    else:
        if _cpu_multiplies_bf16():
            return True
        lacks = "oneDNN finds neither AVX512_BF16 nor AMX_BF16 in this CPU"
    log_warning(f"bf16 would be slower than float32, which is computed instead: {lacks}")
    return False


def _cpu_multiplies_bf16() -> bool:
    """Tell whether oneDNN multiplies bfloat16 by instructions made for it.

    Without AVX-512 it refuses, with AVX-512 alone it makes float32 of all values and takes two to
    three times as long as in float32. Asked is oneDNN itself, which knows what this CPU, the
    system and ONEDNN_MAX_CPU_ISA allow: by a product with a number below 2^-126, which the
    instructions take for zero (Intel, Instruction Set Reference, VDPBF16PS, TDPBF16PS).
    """
    mkldnn = torch.backends.mkldnn.is_available()
    if not (mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    tiny, huge = (torch.full((16, 16, 1, 1), 2.0**e, dtype=torch.bfloat16) for e in (-130, 100))
    return not torch.conv2d(tiny, huge).any()


def _choose_tf32() -> None:
    # PyTorch's own default is TF32 in convolutions and float32 elsewhere.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = _precision == "tf32"


def compute_dtype() -> torch.dtype:
    """Return the type that convolutions and inner products compute in."""
    return torch.bfloat16 if get_precision() == "bf16" else torch.float32


def current_device() -> torch.device:
    """Return the device on which layers compute now."""
    return torch.device("cpu") if _mode == "cpu" else torch.device("cuda", _device_id)


@takes(seed=WHOLE)
def set_random_seed(seed: int) -> None:
    """Start the random numbers of fillers, drop-out and data layers anew from `seed`.

    Raises
    ------
    OverflowError
        If it is negative.
    """
    global _seed
    _seed = int(seed)
    if _seed < 0:
        raise OverflowError("can't convert negative value to unsigned int: a seed is 0 or more")
    for generator in _generators.values():
        generator.manual_seed(_seed)


def generator(where: torch.device | None = None) -> torch.Generator:
    """Return the random generator of a device, the current one by default.

    Fillers always draw on the CPU, so that one seed gives one network on every device.
    """
    where = current_device() if where is None else where
    if where not in _generators:
        made = torch.Generator(device=where)
        if _seed is None:
            made.seed()
        else:
            made.manual_seed(_seed)
        _generators[where] = made
    return _generators[where]


def random_below(stop: int) -> int:
    """Draw a whole number from 0 to stop - 1, as data layers do: on the CPU, whatever computes."""
    return int(torch.randint(stop, (), generator=generator(torch.device("cpu"))))


def random_order(count: int) -> list[int]:
    """Draw an order of the numbers below `count`; as `random_below`."""
    return torch.randperm(count, generator=generator(torch.device("cpu"))).tolist()


def solver_count() -> int:
    """Return how many solvers train together."""
    return _solver_count


@takes(count=WHOLE)
def set_solver_count(count: int) -> None:
    """Say how many solvers train together.

    Raises
    ------
    CaffeError
        If there is none.
    """
    global _solver_count
    if count < 1:
        raise CaffeError(f"solver count {count} must be positive")
    _solver_count = int(count)


def solver_rank() -> int:
    """Return the number of this process's solver, from 0."""
    return _solver_rank


@takes(rank=WHOLE)
def set_solver_rank(rank: int) -> None:
    """Say which of the solvers this process runs; only solver 0 displays, tests and snapshots.

    Raises
    ------
    CaffeError
        If the number is negative.
    """
    global _solver_rank
    if rank < 0:
        raise CaffeError(f"solver rank {rank} must not be negative")
    _solver_rank = int(rank)


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
    return _solver_rank == 0


def check_rank() -> None:
    """Refuse a rank that lies outside the count."""
    if _solver_rank >= _solver_count:
        raise CaffeError(
            f"solver rank {_solver_rank} does not exist among {_solver_count}: ranks count from 0, "
            "and set_solver_count says how many there are"
        )


def share_of_items(phase: int) -> tuple[int, int]:
    """Return the first item that a data layer of this solver reads, and the step to the next.

    In phase TEST, which solver 0 runs alone, it reads all of them.
    """
    if phase != caffe_pb2.TRAIN:
        return 0, 1
    check_rank()
    return _solver_rank, _solver_count
