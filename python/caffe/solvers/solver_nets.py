"""The nets that a solver trains and tests, made as its parameters say."""

from __future__ import annotations

import os

from caffe.errors import CaffeError
from caffe.files import prototxt
from caffe.files.atomic import missing
from caffe.log import Log
from caffe.net import parameters
from caffe.net.net import TEST, TRAIN, Net
from caffe.proto import caffe_pb2

_log = Log("solver.cpp")

_TRAINING_FIELDS = ("train_net_param", "train_net", "net_param", "net")


def training_net(param: caffe_pb2.SolverParameter, source: str) -> Net:
    """Make the net that is trained; errors call the solver `source`."""
    given = [field for field in _TRAINING_FIELDS if param.HasField(field)]
    train = [field for field in given if field.startswith("train")] or given
    if len(train) != 1:
        raise CaffeError(
            f"{source}: give exactly one of net, net_param, train_net, train_net_param; "
            f"found {', '.join(train) or 'none'}"
        )
    value = getattr(param, train[0])
    named = (
        f"from {train[0]} file: {value}" if isinstance(value, str) else f"specified in {train[0]}."
    )
    _log.info(f"Creating training net {named}")
    net = _make(_net_param(value, train[0], source), value, param.train_state, TRAIN)
    _load_weights(net, param, source)
    return net


def test_nets(param: caffe_pb2.SolverParameter, source: str) -> list[Net]:
    """Make the nets that are tested; as `training_net`."""
    sources = [("test_net_param", value) for value in param.test_net_param]
    sources += [("test_net", value) for value in param.test_net]
    for field in ("net_param", "net"):
        if param.HasField(field):
            # One net file serves all the tests that no test net is named for.
            missing = len(param.test_iter) - len(sources)
            sources += [(field, getattr(param, field))] * max(0, missing)
            break
    if len(sources) != len(param.test_iter):
        raise CaffeError(
            f"{source}: {len(sources)} test net(s) need as many test_iter, "
            f"there are {len(param.test_iter)}"
        )
    if sources and param.test_interval < 1:
        raise CaffeError(f"{source}: test nets need a positive test_interval")
    states = list(param.test_state) or [caffe_pb2.NetState()] * len(sources)
    if len(states) != len(sources):
        raise CaffeError(f"{source}: give one test_state per test net, or none")
    descriptions = [_net_param(value, field, source) for field, value in sources]
    nets = []
    for index, (description, (field, value), state) in enumerate(
        zip(descriptions, sources, states)
    ):
        named = f"{field} file: {value}" if isinstance(value, str) else field
        _log.info(f"Creating test net (#{index}) specified by {named}")
        net = _make(description, value, state, TEST)
        net.debug_info = param.debug_info
        _load_weights(net, param, source)
        nets.append(net)
    return nets


def _net_param(
    value: str | caffe_pb2.NetParameter, field: str, source: str
) -> caffe_pb2.NetParameter:
    if not isinstance(value, str):
        return value
    if not os.path.exists(value):
        raise CaffeError(f"{source}: {field}: {_not_there(value, source)}")
    return prototxt.read_net(value)


def _not_there(path: str, source: str) -> str:
    """Return the sentence about a file that a solver names and that does not exist."""
    beside = os.path.join(os.path.dirname(source), path)
    hint = ""
    if not os.path.isabs(path):
        hint = "; relative paths count from there, not from the solver's folder"
        if os.path.exists(beside):
            hint += f", where it is: start from {os.path.dirname(beside)} or write the whole path"
    return f"{missing(path)}{hint}"


def _make(
    description: caffe_pb2.NetParameter,
    value: str | caffe_pb2.NetParameter,
    state: caffe_pb2.NetState,
    phase: int,
) -> Net:
    whole = caffe_pb2.NetParameter()
    whole.CopyFrom(description)
    whole.state.MergeFrom(state)
    if not isinstance(value, str):
        return Net(whole, phase)
    try:
        return Net(whole, phase, source=value)
    except CaffeError as error:
        raise prototxt.located_in_file(error, value) from error


def _load_weights(net: Net, param: caffe_pb2.SolverParameter, source: str) -> None:
    for entry in param.weights:
        for path in map(str.strip, entry.split(",")):
            _log.info(f"Finetuning from {path}")
            if not os.path.exists(path):
                raise CaffeError(f"{source}: weights: {_not_there(path, source)}")
            layers = net.layer_dict
            # What the plugin behind caffe_unet finetunes may have other classes than before.
            parameters.copy_from(path, layers, parameters.of_caffe_unet(layers))
