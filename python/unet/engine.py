"""The engine behind `import caffe`: quiet, and on the device that was asked for."""

from __future__ import annotations

import os
import re
from types import ModuleType

from unet.errors import InputError

PRECISIONS = ("fp32", "tf32", "bf16")


def open_engine(device: str = "cpu", precision: str = "fp32") -> ModuleType:
    """Import `caffe` and choose where, and in which precision, it computes.

    Parameters
    ----------
    device : str
        "cpu", the number of a GPU, or "auto": GPU 0 where the engine can use one, else the CPU.
    precision : str
        One of `PRECISIONS`; genuine Caffe has "fp32" only.

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
    return caffe
