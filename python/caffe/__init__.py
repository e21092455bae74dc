"""pycaffe's interface on PyTorch: `import caffe`, without installing Caffe."""

from __future__ import annotations

from caffe import io
from caffe.classifier import Classifier
from caffe.common import (
    get_mode,
    get_precision,
    set_device,
    set_mode_cpu,
    set_mode_gpu,
    set_multiprocess,
    set_precision,
    set_random_seed,
    set_solver_count,
    set_solver_rank,
    solver_count,
    solver_rank,
)
from caffe.detector import Detector
from caffe.errors import CaffeError
from caffe.layers import LAYERS, Layer
from caffe.log import init_log, log
from caffe.net.cuda_graphs import set_graphs
from caffe.net.net import TEST, TRAIN, Net
from caffe.net_spec import NetSpec, layers, params, to_proto
from caffe.parallel.nccl import NCCL, has_nccl
from caffe.solvers.solver import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
    get_solver,
)
from caffe.timer import Timer

__version__ = "1.0.0"


def layer_type_list() -> list[str]:
    """Return the names of all layer types."""
    return sorted(LAYERS)


__all__ = [
    "NCCL",
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "CaffeError",
    "Classifier",
    "Detector",
    "Layer",
    "NesterovSolver",
    "Net",
    "NetSpec",
    "RMSPropSolver",
    "SGDSolver",
    "Timer",
    "get_mode",
    "get_precision",
    "get_solver",
    "has_nccl",
    "init_log",
    "io",
    "layer_type_list",
    "layers",
    "log",
    "params",
    "set_device",
    "set_graphs",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_precision",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
    "to_proto",
]
