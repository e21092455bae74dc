"""What is fuzzed: each reader, valid files to begin with, and how these are damaged."""

from __future__ import annotations

import io
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from google.protobuf import text_format
from google.protobuf.message import DecodeError, Message

from caffe.files import caffemodel, prototxt, upgrade
from caffe.net.net import TEST, TRAIN, Net
from caffe.programs.upgrade_protos import read_binary
from caffe.proto import caffe_pb2
from tests.caffe.files.blobs import net_of
from tests.caffe.files.test_upgrade import NETS, SOLVERS
from tests.fuzz.mutations import change_bytes, change_message, change_text, words_of
from tests.parity.layer_cases import CASES, Draw

_ARRAYS = {
    "conv": [np.arange(12, dtype=np.float32).reshape(3, 4), np.ones(3, np.float32)],
    "a/b": [np.ones((1, 2, 1, 2), np.float32)],
}


@dataclass
class Target:
    """A reader under test.

    Attributes
    ----------
    read : callable of path
        Reads a file, or raises a CaffeError or an InputError.
    seeds : callable
        Gives valid files.
    mutate : callable of random generator and bytes
        Gives a damaged file.
    place : str
        A pattern of what each error has to name beside the file.
    is_bounded : bool
        Whether work and memory are bounded, and no other errors are allowed.
    """

    read: Callable[[Path], object]
    seeds: Callable[[], Sequence[bytes]]
    mutate: Callable[[random.Random, bytes], bytes]
    place: str
    is_bounded: bool = True


def _text_mutation(
    kind: type[Message],
) -> Callable[[random.Random, bytes], bytes]:
    words = words_of(kind())

    def mutate(rng: random.Random, data: bytes) -> bytes:
        text = data.decode("utf-8", "surrogateescape")
        if rng.random() < 0.5:
            message = kind()
            try:
                text_format.Parse(text, message)
            # protobuf's answer to an enumeration's value that UTF-8 cannot hold is a SystemError.
            except (text_format.ParseError, ValueError, RecursionError, SystemError):
                pass
            else:
                for _ in range(rng.choice((1, 1, 2, 4))):
                    change_message(rng, message)
                text = text_format.MessageToString(message)
        if rng.random() < 0.6:
            text = change_text(rng, text, words)
        data = text.encode("utf-8", "surrogateescape")
        return change_bytes(rng, data) if rng.random() < 0.1 else data

    return mutate


def _wire_mutation(kind: type[Message]) -> Callable[[random.Random, bytes], bytes]:
    def mutate(rng: random.Random, data: bytes) -> bytes:
        if rng.random() < 0.5:
            try:
                message = kind.FromString(data)
            except DecodeError:
                pass
            else:
                for _ in range(rng.choice((1, 1, 2, 4))):
                    change_message(rng, message)
                data = message.SerializePartialToString()
        return change_bytes(rng, data) if rng.random() < 0.7 else data

    return mutate


def _read_net(path: Path) -> None:
    for phase in (TRAIN, TEST):
        Net(str(path), phase)


def _read_binary(path: Path) -> None:
    upgrade.upgrade_net_as_needed(read_binary(str(path)), str(path))


def _net_seeds() -> list[bytes]:
    texts = [CASES[kind](Draw(kind, number)).net for kind in CASES for number in (0, 1)]
    texts += [net for name, net in NETS.items() if name != "v0 all fields"]
    return [text.encode() for text in texts]


def _solver_seeds() -> list[bytes]:
    nested = f"net_param {{ {NETS['input shapes']} }} test_net_param {{ {NETS['v1 net']} }}"
    return [text.encode() for text in (*SOLVERS.values(), nested, _SOLVER)]


_SOLVER = """
net: "net.prototxt" base_lr: 0.1 lr_policy: "multistep" stepvalue: [1, 2] gamma: 0.5
test_iter: 3 test_interval: 100 max_iter: 9 snapshot_format: HDF5 snapshot_prefix: "x"
"""


def written(write: Callable[..., None], *args: object, suffix: str = "") -> bytes:
    """Return what `write` writes into the file that it is given."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{suffix}"
        write(path, *args)
        return path.read_bytes()


def _weight_seeds() -> list[bytes]:
    old = caffe_pb2.NetParameter()
    blob = dict(num=1, channels=1, height=2, width=2, data=[1, 2, 3, 4])
    old.layers.add(name="v1", type="CONVOLUTION", blobs=[caffe_pb2.BlobProto(**blob)])
    old.layers.add().layer.blobs.add(**blob)
    doubles = old.layers.add(name="doubles").blobs.add(double_data=[1, 2])
    doubles.shape.dim.append(2)
    texts = [prototxt.parse_net(text) for text in (NETS["v1 net"], NETS["batch norm"])]
    return [
        written(caffemodel.write_caffemodel, net_of(_ARRAYS), _ARRAYS),
        old.SerializeToString(),
        *(net.SerializeToString() for net in texts),
    ]


def _state_seeds(suffix: str = "") -> list[bytes]:
    history = [array for arrays in _ARRAYS.values() for array in arrays]
    state = caffemodel.SolverState(7, "w.caffemodel", history, 2)
    return [written(caffemodel.write_solverstate, state, suffix=suffix)]


def _blob_seeds() -> list[bytes]:
    new = caffe_pb2.BlobProto(data=range(12))
    new.shape.dim.extend((1, 3, 2, 2))
    old = caffe_pb2.BlobProto(num=1, channels=3, height=2, width=2, data=range(12))
    return [new.SerializeToString(), old.SerializeToString()]


def _hdf5(build: Callable[[h5py.File], object]) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        build(opened)
    return file.getvalue()


def _hdf5_seeds() -> list[bytes]:
    packed = {"data": np.zeros((40, 50), np.float32), "compression": "gzip", "shuffle": True}
    return [
        written(caffemodel.write_weights_hdf5, _ARRAYS, _ARRAYS),
        _hdf5(lambda file: file.create_dataset("data/conv/0", **packed)),
        _hdf5(
            lambda file: file.create_dataset("data/conv/0", (3,), "f8", chunks=(2,), fillvalue=1.0)
        ),
    ]


_BINARY = r"byte \d|layer '|history \d|blob|holds no|has both|\d input|is (?:an?|empty|no)\b"
TARGETS = {
    "net": Target(
        _read_net,
        _net_seeds,
        _text_mutation(caffe_pb2.NetParameter),
        r":\d+|: is |: \d+ input|: has both|layer '",
    ),
    "solver": Target(
        lambda path: prototxt.read_solver(str(path)),
        _solver_seeds,
        _text_mutation(caffe_pb2.SolverParameter),
        r":\d+|: is |: give 'type'|_net_param|net_param",
    ),
    "weights": Target(
        caffemodel.read_layers, _weight_seeds, _wire_mutation(caffe_pb2.NetParameter), _BINARY
    ),
    "upgrade": Target(_read_binary, _weight_seeds, _wire_mutation(caffe_pb2.NetParameter), _BINARY),
    "state": Target(
        caffemodel.read_solverstate, _state_seeds, _wire_mutation(caffe_pb2.SolverState), _BINARY
    ),
    "blob": Target(caffemodel.read_blob, _blob_seeds, _wire_mutation(caffe_pb2.BlobProto), _BINARY),
    "weights_h5": Target(caffemodel.read_layers, _hdf5_seeds, change_bytes, "."),
    "state_h5": Target(caffemodel.read_solverstate, lambda: _state_seeds(".h5"), change_bytes, "."),
}
