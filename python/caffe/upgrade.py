"""Bring older formats of nets and solvers up to the current one."""

from __future__ import annotations

from caffe.errors import CaffeError
from caffe.proto import caffe_pb2

_SOLVER_TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")


def upgrade_net(param: caffe_pb2.NetParameter, source: str) -> caffe_pb2.NetParameter:
    """Return `param` in the current format: input fields become an Input layer.

    Raises
    ------
    CaffeError
        If the net is written in the V0 or V1 format, which this engine does not read.
    """
    if param.layers:
        raise CaffeError(f"{source}: 'layers' is the V1 format; write 'layer' with types in quotes")
    if param.input:
        layer = caffe_pb2.LayerParameter(name="input", type="Input", top=param.input)
        if param.input_shape:
            layer.input_param.shape.extend(param.input_shape)
        else:
            if len(param.input_dim) != 4 * len(param.input):
                raise CaffeError(f"{source}: each input needs four input_dim")
            for first in range(0, len(param.input_dim), 4):
                layer.input_param.shape.add(dim=param.input_dim[first : first + 4])
        rest = list(param.layer)
        del param.layer[:]
        param.layer.add().CopyFrom(layer)
        param.layer.extend(rest)
        for field in ("input", "input_shape", "input_dim"):
            param.ClearField(field)
    return param


def upgrade_solver(param: caffe_pb2.SolverParameter, source: str) -> caffe_pb2.SolverParameter:
    """Return `param` in the current format: the number `solver_type` becomes the name `type`."""
    if param.HasField("solver_type"):
        if param.HasField("type"):
            raise CaffeError(f"{source}: give type or the older solver_type, not both")
        param.type = _SOLVER_TYPES[param.solver_type]
        param.ClearField("solver_type")
    return param
