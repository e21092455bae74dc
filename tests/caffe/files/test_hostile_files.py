"""Files that mean harm: each is refused in a short sentence that says where it is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable

import h5py
import numpy as np
import pytest

from caffe import TEST, Net
from caffe.errors import CaffeError
from caffe.files import wire
from caffe.files.caffemodel import read_blob, read_layers, read_solverstate
from caffe.files.prototxt import read_solver
from caffe.programs.upgrade_protos import read_binary
from caffe.proto import caffe_pb2

MAX_MESSAGE = 2000
INPUT = 'layer { name: "in" type: "Input" top: "in" input_param { shape { dim: [2, 3, 8, 8] } } }\n'

# Text, and what the error says after the file's name.
TEXTS = {
    "nothing but open braces": ("{" * 10**6, ":1: the line is longer"),
    "brackets": ("dim: " + "[" * 10**5, ":1:"),
    "a string of 1 MB": ("\nname: '" + "a" * 2**20 + "'", ":2: the line is longer than 524288"),
    "escaped quotes": ('"' + '\\"' * 200_000, ":1:1: expected identifier"),
    "a number of 500,000 digits": ("input_dim: " + "9" * 500_000, ":1:12: couldn't parse integer"),
    "a name of 500,000 letters": ("a" * 500_000 + ": 1", ":1:1: NetParameter has no field 'aaa"),
    "150,000 numbers": ("input_dim: 1\n" * 150_000, ":66667: more than 200000 words"),
    "a million comments": ("#\n" * 10**6, ":200001: more than 200000 words"),
    "2 million lines": ("\n" * (2**21 - 5) + "x: 1", r":2097148:1: NetParameter has no field 'x'"),
    "a line of blanks": (" " * 500_000 + "x", ":1:500001: NetParameter has no field 'x'"),
    "no UTF-8": (b'name: "\xff"\n"', ":2:1: string missing"),
    "a field of no message": ("layer {\n  a.b: 3 }", ":2:3: "),
    "an extension": ("layer {\n  [a.b] { } }", ":2:6: .*does not have extensions"),
    "an escape that is none": (r'name: "\xzz"', ":1:7: "),
    "an octal of 9 bits": (r'name: "\777"', ":1:7: "),
    "bytes as a name": (r'name: "\xff"', ":1:13: couldn't parse string"),
    "parameters of billions": (
        f'{INPUT}layer {{ type: "InnerProduct" bottom: "in" top: "out" blobs {{ shape {{ '
        "dim: [2000000000, 2000000000] } } }",
        ":2:1: .*has 0 numbers",
    ),
}
# Of a layer that reads an input: type, options, and what is told of it.
LAYERS = [
    ("InnerProduct", "inner_product_param { num_output: 1000000000 }", "more than 2.31 - 1"),
    ("InnerProduct", "inner_product_param { num_output: 5000000 }", r"\(5000000, 192\) are more"),
    ("Convolution", "convolution_param { num_output: 1 kernel_size: 1000000000 }", ""),
    ("Convolution", "convolution_param { num_output: 1 kernel_size: 1 pad: 1000000000 }", "2.31"),
    ("Deconvolution", "convolution_param { num_output: 1 kernel_size: 1 group: 0 }", "group"),
    ("Softmax", "softmax_param { axis: -2147483648 }", "axis"),
    ("Pooling", "pooling_param { kernel_size: 4294967295 pad: 4294967294 }", ""),
    ("LRN", "lrn_param { local_size: 4294967294 }", "odd"),
    ("SPP", "spp_param { pyramid_height: 1000000000 }", ""),
    ("Tile", "tile_param { tiles: 2147483647 }", "more than 2.31"),
    ("Slice", 'top: "b" slice_param { slice_point: 4294967295 }', "cut"),
    ("Reshape", "reshape_param { shape { dim: [-1, -1] } }", "once -1"),
    ("Reshape", f"reshape_param {{ shape {{ dim: {[1] * 50_001} }} }}", "gives 50001 dims"),
    ("Embed", "embed_param { num_output: 4294967295 input_dim: 4294967295 }", "more than 2.31"),
]
# The same of layers that read nothing.
SOURCES = [
    ("Input", "input_param { shape { dim: -3 } }", "negative"),
    ("Input", "input_param { shape { dim: [4611686018427387904, 4] } }", "more than 2.31"),
    ("Input", "input_param { shape { dim: [0, 2147483647, 2147483647, 9] } }", "more than 2.31"),
    ("Input", f"input_param {{ shape {{ dim: {[2**62] * 20_001} }} }}", "cannot have 20001 axes"),
    ("DummyData", "dummy_data_param { shape { dim: 2000000000 } }", "are more than"),
    ("MemoryData", 'top: "label" memory_data_param { }', "batch_size"),
]
TEXTS |= {
    f"{kind} {options[:60]}": (
        f'{start}layer {{ name: "bad" type: "{kind}" {bottom} top: "out"\n{options} }}\n',
        rf":2:1: layer 'bad'.*{told}",
    )
    for start, bottom, table in ((INPUT, 'bottom: "in"', LAYERS), ("#\n", "", SOURCES))
    for kind, options, told in table
}
SOLVERS = {"more than 32 bits": ("max_iter: 4294967296", ":1:11: value out of range")}


def _field(number: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return wire.header(number, len(body)) + body


def _layer(*parts: bytes) -> bytes:
    return _field(100, _field(1, b"bad"), *parts)


def _blob(*parts: bytes) -> bytes:
    return _layer(_field(7, *parts))


def _shape(*dims: int) -> bytes:
    return _field(7, _field(1, *(wire.varint(dim % 2**64) for dim in dims)))


ENDLESS = b"\xff" * 30
BINARIES = {
    "nothing": (b"", ": is empty"),
    "a text": (b'name: "net"\n', ": is a text file, not a"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(999), ": is a PNG picture"),
    "weights of PyTorch": (b"PK\x03\x04" + bytes(99), ": is a zip archive"),
    "chance": (np.random.default_rng(0).bytes(10_000), ": .*at byte"),
    "an endless number": (ENDLESS, ": .*at byte 0"),
    "groups in groups": (b"\x0b" * 10**6, ": .*no field at byte 0"),
    "a length of 2^63": (b"\x0a" + b"\xff" * 8 + b"\x7f", ": .*field at byte 0 needs 92233"),
    "too many fields": (b"\x98\x06\x00" * 150_001, r": more than 150000 fields up to byte \d+"),
}
WEIGHTS = BINARIES | {
    "a solver state": (caffe_pb2.SolverState(iter=3).SerializeToString(), ": is no .caffemodel"),
    "a name only": (_field(1, b"net"), ": holds no layer"),
    "a layer's name of 1 MB": (
        _field(100, _field(1, b"a" * 10**6)),
        ": the text at byte .* has",
    ),
    "150,000 layers": (_field(100) * 150_001, ": more than 150000 fields"),
    "150,000 blobs": (_layer(_field(7) * 150_001), ": more than 150000 fields"),
    "loose numbers": (_blob(b"\x2d\0\0\0\0" * 150_001), ": more than 150000 fields"),
    "an endless number in a layer": (_layer(ENDLESS), ": .*at byte 8"),
    "a blob beyond its layer": (_layer(b"\x3a\x7f\0"), ": .*byte 8 needs 127 bytes"),
}
PARAMETERS = {
    "negative sizes": (_blob(_shape(-2, -2), _field(5, bytes(16))), r"\(-2, -2\)"),
    "huge sizes and none": (_blob(_shape(0, 2**62, 2**62)), "4611686018427387904"),
    "bounded sizes and none": (_blob(_shape(0, *[2**31 - 1] * 3)), "2147483647, 2147483647"),
    "sizes of nothing": (_blob(_shape(2**40)), "has 0 numbers"),
    "a million axes": (_blob(_field(7, _field(1, b"\1" * 10**6))), "more than 32 axes"),
    "more numbers than sizes": (_blob(_shape(2), _field(5, bytes(12))), r"\(2,\) but has 3 numb"),
    "no sizes": (_blob(_field(5, bytes(12))), "has 3 numbers"),
    "half an old shape": (_blob(b"\x08\x02\x10\x01", _field(5, bytes(8))), r"\(2, 1, 0, 0\)"),
    "half a number": (_blob(_field(5, bytes(5))), "damaged numbers at byte"),
    "numbers of another kind": (_blob(b"\x28\x01"), "no numbers at byte"),
    "shapes without end": (_blob(_shape(1, 1, 1) * 20), "more than 32 axes"),
}
WEIGHTS |= {name: (data, rf": layer 'bad': .*{told}") for name, (data, told) in PARAMETERS.items()}
# With an iteration before it.
STATES = {
    "no iteration": (_field(2, b"w.caffemodel"), ": holds no iteration"),
    "a negative iteration": (b"\x08" + wire.varint(2**64 - 1), ": holds no iteration"),
    "an iteration of 2^40": (b"\x08" + wire.varint(2**40), ": holds no iteration"),
    "a name of 1 MB": (b"\x08\x01" + _field(2, b"a" * 10**6), ": the text at byte 6"),
    "a history of another shape": (
        b"\x08\x01" + _field(3, _shape(1), _field(5, bytes(4))) + _field(3, _shape(9)),
        r": history 1: the blob at byte 17 is of shape \(9,\)",
    ),
}
MEANS = {
    "half an old shape": (b"\x08\x02\x2a\x04\0\0\0\0", r": blob: .*byte 0 is of shape \(2, 0, 0"),
    "a shape of another kind": (b"\x3a\x04\x0a\x7f\0\0", ": .*byte 2 needs 127"),
}

Build = Callable[[h5py.File], object]


def _numbers(path: str, *words: object, **options: object) -> Build:
    options = options if words or "data" in options else {"data": np.ones(3, np.float32)}
    return lambda file: file.create_dataset(path, *words, **options)


def _linked(path: str, link: object) -> Build:
    return lambda file: file.update({path: link})


def _many(file: h5py.File) -> None:
    for index in range(15_001):
        file.create_group(f"data/layer{index}")


def _cycle(file: h5py.File) -> None:
    _numbers("data/a/0")(file)
    file["data/a/b"] = file["data"]


def _one_in_many_places(file: h5py.File) -> None:
    _numbers("data/a/0", data=np.ones(2**20, np.float32))(file)
    for index in range(1, 1000):
        file[f"data/a/{index}"] = file["data/a/0"]


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((9,), "f4")
    layout[:] = h5py.VirtualSource("/dev/zero", "x", (9,))
    file.create_virtual_dataset("data/a/0", layout)


PACKED = {"data": np.zeros(2**25, np.float32), "compression": 1, "chunks": (2**22,)}
PIECE = {"chunks": (2**29,), "maxshape": (None,), "compression": 1}
OUTSIDE = [("/dev/zero", 0, h5py.h5f.UNLIMITED)]
WEIGHTS_H5 = {
    "nothing in it": (lambda file: None, ": has no group /data"),
    "numbers without a group": (_numbers("data"), ": holds data, /data is not a group"),
    "15,000 layers": (_many, ": /data is too much"),
    "groups in groups": (_numbers("data" + "/a" * 5000), ": /data/a/a/.* is too much"),
    "a group in itself": (_cycle, ": /data/a/b/a/b/.* is too much"),
    "numbers in many places": (_one_in_many_places, ": /data/a/1 is of shape"),
    "terabytes of nothing": (_numbers("data/a/0", (2**40,), "f4"), ": /data/a/0 is .* but 0 bytes"),
    "zeros, packed": (_numbers("data/a/0", **PACKED), ": /data/a/0 is of shape .* are stored"),
    "a piece of gigabytes": (_numbers("data/a/0", (2,), "f4", **PIECE), ": /data/a/0 is of shape"),
    "a link to a device": (
        _linked("data/a/0", h5py.ExternalLink("/dev/zero", "x")),
        ": /data/a has '0' as a link",
    ),
    "a link to itself": (_linked("data", h5py.SoftLink("/data")), ": / has 'data' as a link"),
    "numbers elsewhere": (_numbers("data/a/0", (9,), "f4", external=OUTSIDE), ": .*another file"),
    "numbers put together": (_virtual, ": /data/a/0 lies in another file"),
    "text": (_numbers("data/a/0", data=b"a"), ": /data/a/0 is of type"),
    "pairs": (_numbers("data/a/0", data=np.zeros(3, "f4,f4")), ": /data/a/0 is of type"),
    "no numbers": (_numbers("data/a/0", data=h5py.Empty("f4")), ": /data/a/0 is of type"),
    "a number missing": (
        lambda file: file.create_group("data/a/0"),
        ": /data/a/0 is a group where numbers should be",
    ),
}


def _state_of(**entries: object) -> Build:
    def build(file: h5py.File) -> None:
        file.create_group("history")
        for name, value in {"iter": [1], **entries}.items():
            if isinstance(value, tuple):
                file.create_dataset(name, *value)
            else:
                file[name] = value

    return build


STATES_H5 = {
    "nothing in it": (lambda file: None, ": has no /iter"),
    "no history": (_linked("iter", [1]), ": has no /history"),
    "numbers for the history": (
        lambda file: file.update({"iter": [1], "history": [1]}),
        ": /history is no group",
    ),
    "a group in the history": (_state_of(**{"history/0/a": [1.0]}), ": .*is a group"),
    "a negative iteration": (_state_of(iter=[-1]), ": /iter is no whole number"),
    "an iteration that is text": (_state_of(iter="one"), ": /iter is no whole number"),
    "an iteration of terabytes": (_state_of(iter=((2**40,), "i4")), ": /iter is no single value"),
    "a name of terabytes": (_state_of(learned_net=((2**40,), "S9")), ": /learned_net is no single"),
    "a name of gigabytes": (_state_of(learned_net=((), "S1000000000")), ": /learned_net is of sha"),
    "a gap": (_state_of(**{"history/99999": [1.0]}), ": /history/0 is missing"),
    "a group for a number": (
        lambda file: (file.create_group("iter"), file.create_group("history")),
        ": /iter is no single value",
    ),
}

READERS = {
    "net": (lambda path: Net(path, TEST), TEXTS),
    "solver": (read_solver, SOLVERS),
    "weights": (read_layers, WEIGHTS),
    "upgrade": (read_binary, BINARIES),
    "state": (read_solverstate, STATES),
    "mean": (read_blob, MEANS),
    "weights of HDF5": (read_layers, WEIGHTS_H5),
    "state of HDF5": (read_solverstate, STATES_H5),
}
CASES = [
    pytest.param(read, *case, id=f"{reader}: {name}")
    for reader, (read, table) in READERS.items()
    for name, case in table.items()
]


@pytest.mark.parametrize(("read", "content", "told"), CASES)
def test_a_hostile_file_is_refused(read, content, told, tmp_path):
    path = tmp_path / "file"
    if callable(content):
        with h5py.File(path, "w") as file:
            content(file)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(CaffeError) as refused:
        read(str(path))
    said = str(refused.value)
    assert re.match(rf"{re.escape(str(path))}{told}", said, re.DOTALL), said[:5000]
    assert len(said) < MAX_MESSAGE, said
    assert said.isprintable(), said
