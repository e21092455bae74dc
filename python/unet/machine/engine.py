"""The engine behind `import caffe`: quiet, and on the device that was asked for."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from types import ModuleType

from unet.errors import InputError

PRECISIONS = ("fp32", "tf32", "bf16")


def open_engine(
    device: str = "cpu", precision: str = "fp32", *, graphs: bool = False
) -> ModuleType:
    """Import `caffe` and choose where, and in which precision, it computes.

    Parameters
    ----------
    device : str
        "cpu", the number of a GPU, or "auto": GPU 0 where the engine can use one, else the CPU.
    precision : str
        One of `PRECISIONS`; genuine Caffe has "fp32" only.
    graphs : bool
        Whether a GPU repeats passes of one shape as CUDA graphs, where the engine can; that changes
        the time that they take, and nothing else.

    Returns
    -------
    module
        `caffe`.

    Raises
    ------
    InputError
        If `device` or `precision` is none of these, or the engine lacks it.
    """
    # Caffe's own log would tear the progress bars; genuine Caffe reads this once, when imported.
    os.environ.setdefault("GLOG_minloglevel", "1")
    # Read once, too, by GNU's OpenMP: threads that wait give their core to others at once. With
    # other work beside it, on 2 cores, a training step takes 0.4 s in place of 0.5 to 6.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    import caffe

    if device == "cpu":
        caffe.set_mode_cpu()
    elif device == "auto":
        # Genuine Caffe built without a GPU ends the process if asked for one; it has no CaffeError.
        error = getattr(caffe, "CaffeError", None)
        caffe.set_mode_cpu()
        if error is not None:
            try:
                caffe.set_device(0)
                caffe.set_mode_gpu()
            except error:
                caffe.set_mode_cpu()
    elif re.fullmatch("[0-9]{1,9}", device):
        caffe.set_device(int(device))
        caffe.set_mode_gpu()
    else:
        raise InputError(f"device '{device}' is neither auto, cpu nor the number of a GPU")
    if precision not in PRECISIONS:
        raise InputError(f"precision '{precision}' is none of {', '.join(PRECISIONS)}")
    if hasattr(caffe, "set_precision"):
        caffe.set_precision(precision)
    elif precision != "fp32":
        raise InputError(f"precision {precision}: genuine Caffe computes in fp32 only")
    if hasattr(caffe, "set_graphs"):
        caffe.set_graphs(graphs)
    return caffe


@contextlib.contextmanager
def unwarned() -> Iterator[None]:
    """Have no warnings in the engine's log for a while, where no more than these was asked for.

    Of a network that genuine Caffe would refuse, each layer would say so.
    """
    before = os.environ.get("GLOG_minloglevel")  # noqa: SIM112
    if before != "1":
        yield
        return
    os.environ["GLOG_minloglevel"] = "2"  # noqa: SIM112
    try:
        yield
    finally:
        os.environ["GLOG_minloglevel"] = before  # noqa: SIM112


@contextlib.contextmanager
def precision_kept() -> Iterator[None]:
    """Have the engine compute afterwards in the precision that it computes in now."""
    # It may not be imported yet, and genuine Caffe has no other than fp32.
    chosen = getattr(sys.modules.get("caffe"), "get_precision", lambda: "fp32")()
    try:
        yield
    finally:
        getattr(sys.modules.get("caffe"), "set_precision", lambda precision: None)(chosen)


@contextlib.contextmanager
def in_full_precision(caffe: ModuleType) -> Iterator[None]:
    """Compute in float32 for a while, whatever was chosen."""
    with precision_kept():
        getattr(caffe, "set_precision", lambda precision: None)("fp32")
        yield


def tiles_together(caffe: ModuleType) -> int:
    """Return how many tiles a net is to be given at a time.

    On a GPU the next tile is fetched, and the last one's scores are given back, while one is
    computed: with eight nearly all of that is hidden. On a CPU there is nothing to hide, and each
    pass is told when it is done.
    """
    # Genuine Caffe does not tell, nor does it do anything of that while it computes.
    return 8 if getattr(caffe, "get_mode", lambda: "cpu")() == "gpu" else 1
