"""Unknown fields and enum values of binary files: passed over, and named in a warning."""

from __future__ import annotations

import numpy as np
import pytest

from caffe.files import wire
from caffe.files.caffemodel import read_blob, read_layers, read_solverstate, write_solverstate
from caffe.proto import caffe_pb2


def _field(number: int, body: bytes) -> bytes:
    return wire.header(number, len(body)) + body


_NUMBERS = _field(7, _field(7, _field(1, b"\1")) + _field(5, bytes(4)))


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        # A later Caffe's parameters of a layer, twice.
        (
            [_field(1, b"conv") + _field(999, b"new") + _NUMBERS] * 2,
            "field 999 of LayerParameter (byte 12, layer 'conv', 2 times)",
        ),
        # A field that is known, but as text.
        ([_field(1, b"conv") + b"\x10\x03" + _NUMBERS], "field 2 of LayerParameter (byte 10"),
        # A pooling method 9, in a message within the layer.
        (
            [_field(1, b"conv") + _NUMBERS + _field(121, b"\x08\x09")],
            "pool: 9 of PoolingParameter (byte ",
        ),
        ([_field(1, b"conv") + _NUMBERS + b"\x50\x05"], "phase: 5 of LayerParameter (byte "),
        (
            [_field(1, b"conv") + _NUMBERS + b"".join(_field(n, b"") for n in range(990, 997))],
            "field 994 of LayerParameter (byte 37, layer 'conv') and 2 more",
        ),
    ],
)
def test_what_is_unknown_in_weights_is_passed_over_and_named(layers, told, tmp_path, capsys):
    path = tmp_path / "w.caffemodel"
    path.write_bytes(b"".join(_field(100, layer) for layer in layers))
    np.testing.assert_array_equal(read_layers(path)["conv"][0], [0])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("W")
    assert f"{path}: passed over, as Caffe does not know it: " in line
    assert told in line


def test_unknown_types_of_old_layers_are_named(tmp_path, capsys):
    path = tmp_path / "w.caffemodel"
    path.write_bytes(_field(2, _field(4, b"old") + b"\x28\xe7\x07"))
    assert read_layers(path) == {"old": []}
    assert "type: 999 of V1LayerParameter (byte 8, layer 'old')" in capsys.readouterr().err


def test_what_is_unknown_in_states_and_means_is_named(tmp_path, capsys):
    path = tmp_path / "file"
    write_solverstate(path, 3, "w", [np.ones(2, np.float32)], 1)
    path.write_bytes(path.read_bytes() + _field(77, b"x"))
    assert read_solverstate(path).iteration == 3
    assert "field 77 of SolverState (byte " in capsys.readouterr().err
    path.write_bytes(
        caffe_pb2.BlobProto(num=1, channels=1, height=1, width=1, data=[3]).SerializeToString()
        + b"\x98\x06\x01"
    )
    assert read_blob(path).item() == 3
    assert "field 99 of BlobProto (byte " in capsys.readouterr().err


def test_a_file_of_known_fields_is_read_in_silence(tmp_path, capsys):
    net = caffe_pb2.NetParameter(name="net")
    layer = net.layer.add(name="all", type="Convolution", phase=caffe_pb2.TEST)
    for field in layer.DESCRIPTOR.fields:
        if field.message_type is not None and hasattr(getattr(layer, field.name), "SetInParent"):
            getattr(layer, field.name).SetInParent()
    layer.clip_param.min, layer.clip_param.max = 0, 1
    layer.convolution_param.kernel_size.extend([3, 300])
    layer.loss_weight.append(0.5)
    layer.pooling_param.pool = caffe_pb2.PoolingParameter.AVE
    layer.blobs.add(data=[1], double_diff=[2]).shape.dim.append(1)
    (tmp_path / "w").write_bytes(net.SerializeToString())
    assert list(read_layers(tmp_path / "w")) == ["all"]
    assert capsys.readouterr().err == ""
