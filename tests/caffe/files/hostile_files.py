"""Files that mean harm, and what a reader does with each.

`python -m tests.caffe.files.hostile_files`

Prints what each reader told, and the lines of Python and the memory it took, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from caffe import TEST, Net
from caffe.errors import CaffeError
from caffe.files import prototxt, wire
from caffe.files.caffemodel import read_blob, read_layers, read_solverstate
from caffe.programs.upgrade_protos import read_binary
from caffe.proto import caffe_pb2

# Beyond this the process is refused memory: it must not come to that.
ADDRESS_SPACE = 2 * 2**30

# Reader -> file -> its content, or what makes it, and what the error says after the file's name.
Table = dict[str, dict[str, tuple[str | bytes | Callable[[], bytes] | Callable, str]]]

READERS: dict[str, Callable[[str], object]] = {
    "net": lambda path: Net(path, TEST),
    "solver": prototxt.read_solver,
    "weights": read_layers,
    "upgrade": read_binary,
    "state": read_solverstate,
    "mean": read_blob,
    "weights_h5": read_layers,
    "state_h5": read_solverstate,
}

_INPUT = (
    'layer { name: "in" type: "Input" top: "in" input_param { shape { dim: [2, 3, 8, 8] } } }\n'
)


def _net(kind: str, options: str = "", tops: int = 1) -> str:
    outputs = " ".join(f'top: "out{index}"' for index in range(tops))
    return f'{_INPUT}layer {{\n  name: "bad" type: "{kind}" bottom: "in" {outputs}\n{options} }}\n'


def _source(kind: str, options: str) -> str:
    return f'# a comment\nlayer {{ name: "bad" type: "{kind}" top: "out"\n{options} }}\n'


def _layers(count: int) -> str:
    chain = 'layer { name: "r" type: "ReLU" bottom: "in" top: "in" }\n' * count
    return f'{_INPUT}{chain}layer {{ name: "bad" type: "Relu" bottom: "in" }}\n'


def _bad(told: str) -> str:
    return rf":2:1: layer 'bad'.*{told}"


TEXTS = {
    "nothing but open braces": ("{" * 10**6, ":1: the line is longer"),
    "layers in layers": ("layer {\n" * 10**5, ":101: messages are nested more than 100 deep"),
    "brackets": ("dim: " + "[" * 10**5, ":1:"),
    "a string of 100 MB": (b'name: "' + b"a" * 10**8 + b'"', ": is too large for a prototxt"),
    "a string of 1 MB": ("\nname: '" + "a" * 2**20 + "'", ":2: the line is longer than 524288"),
    "escaped quotes": ('"' + '\\"' * 200_000, ":1:1: expected identifier"),
    "quotes of both kinds": ("'\"" * 200_000, ":1:1: expected identifier"),
    "a number of 500,000 digits": ("input_dim: " + "9" * 500_000, ":1:12: couldn't parse integer"),
    "a name of 500,000 letters": ("a" * 500_000 + ": 1", ":1:1: NetParameter has no field 'aaa"),
    "150,000 numbers": ("input_dim: 1\n" * 150_000, ":66667: more than 200000 words"),
    "a million comments": ("#\n" * 10**6, ":200001: more than 200000 words"),
    "2 million lines": ("\n" * (2**21 - 5) + "x: 1", r":2097148:1: NetParameter has no field 'x'"),
    "2 million blanks": ("\n" + "\t\n " * 690_000 + "x", ":690002:2: NetParameter has no field"),
    "a line of blanks": (" " * 500_000 + "x", ":1:500001: NetParameter has no field 'x'"),
    "a zero byte": (b'name: "a\0"', r": is not a text file \(byte 8 is zero\)"),
    "no UTF-8": (b'name: "\xff"\n"', ":2:1: string missing"),
    "a field of no message": ("layer {\n  a.b: 3 }", ":2:3: "),
    "an extension": ("layer {\n  [a.b] { } }", ":2:6: .*does not have extensions"),
    "an escape that is none": (r'name: "\xzz"', ":1:7: "),
    "an octal of 9 bits": (r'name: "\777"', ":1:7: "),
    "bytes as a name": (r'name: "\xff"', ":1:13: couldn't parse string"),
    "half a shape": ('input: "a"\ninput_dim: 3', ": 1 input.s. need"),
    "an unknown type behind 5,000 layers": (_layers(5_000), ":5002:1: layer 'bad'.*ReLU"),
    "no bottom": ('\nlayer { name: "bad" type: "ReLU" top: "a" }', _bad("takes 1 bottom")),
    "a billion outputs": (
        _net("InnerProduct", "inner_product_param { num_output: 1000000000 }"),
        _bad("has more than 2.31 - 1"),
    ),
    "five million outputs": (
        _net("InnerProduct", "inner_product_param { num_output: 5000000 }"),
        _bad(r"\(5000000, 192\) are more than"),
    ),
    "a billion maps": (
        _net("Convolution", "convolution_param { num_output: 1000000000 kernel_size: 1 }"),
        _bad("has more than 2.31 - 1"),
    ),
    "kernel 0": (
        _net("Convolution", "convolution_param { num_output: 1 kernel_size: 0 }"),
        _bad(r"kernel \(0, 0\) must be positive"),
    ),
    "a kernel of a billion": (
        _net("Convolution", "convolution_param { num_output: 1 kernel_size: 1000000000 }"),
        _bad(""),
    ),
    "padding of a billion": (
        _net("Convolution", "convolution_param { num_output: 1 kernel_size: 1 pad: 1000000000 }"),
        _bad("more than 2.31"),
    ),
    "stride 0": (
        _net("Convolution", "convolution_param { num_output: 1 kernel_size: 1 stride: 0 }"),
        _bad("stride"),
    ),
    "no groups": (
        _net("Deconvolution", "convolution_param { num_output: 1 kernel_size: 1 group: 0 }"),
        _bad("group"),
    ),
    "50,000 kernels": (
        _net("Convolution", "convolution_param { kernel_size: [1" + ", 1" * 50_000 + "] }"),
        _bad("kernel needs 1 or 2"),
    ),
    "an axis beyond": (_net("Softmax", "softmax_param { axis: -2147483648 }"), _bad("axis")),
    "a pool of no size": (
        _net("Pooling", "pooling_param { kernel_size: 0 }"),
        _bad("positive"),
    ),
    "a pool of 4 billion": (
        _net("Pooling", "pooling_param { kernel_size: 4294967295 pad: 4294967294 }"),
        _bad(""),
    ),
    "an even neighbourhood": (_net("LRN", "lrn_param { local_size: 4294967294 }"), _bad("odd")),
    "a pyramid of a billion": (_net("SPP", "spp_param { pyramid_height: 1000000000 }"), _bad("")),
    "a billion copies": (_net("Tile", "tile_param { tiles: 2147483647 }"), _bad("more than 2.31")),
    "slices beyond": (_net("Slice", "slice_param { slice_point: 4294967295 }", 2), _bad("cut")),
    "a shape of two unknowns": (
        _net("Reshape", "reshape_param { shape { dim: [-1, -1] } }"),
        _bad("once -1"),
    ),
    "a shape of 50,000 axes": (
        _net("Reshape", "reshape_param { shape { dim: [" + "1, " * 50_000 + "1] } }"),
        _bad("gives 50001 dims"),
    ),
    "negative sizes": (_source("Input", "input_param { shape { dim: -3 } }"), _bad("negative")),
    "huge sizes": (
        _source("Input", "input_param { shape { dim: [4611686018427387904, 4] } }"),
        _bad("more than 2.31"),
    ),
    "huge sizes and none": (
        _source("Input", "input_param { shape { dim: [0, 2147483647, 2147483647, 9] } }"),
        _bad("more than 2.31"),
    ),
    "the largest of a number": (
        'layer { name: "in" type: "Input" top: "in" input_param { shape { } } }\n'
        'layer { name: "bad" type: "ArgMax" bottom: "in" top: "out" }',
        _bad("needs items"),
    ),
    "20,000 axes": (
        _source("Input", "input_param { shape { dim: [" + f"{2**62}, " * 20_000 + "1] } }"),
        _bad("cannot have 20001 axes"),
    ),
    "zeros of gigabytes": (
        _source("DummyData", "dummy_data_param { shape { dim: 2000000000 } }"),
        _bad("are more than"),
    ),
    "a vocabulary of billions": (
        _net("Embed", "embed_param { num_output: 4294967295 input_dim: 4294967295 }"),
        _bad("more than 2.31"),
    ),
    "parameters of another shape": (
        _net("InnerProduct", "inner_product_param { num_output: 1 } blobs { data: [1, 2] }"),
        ":2:1: .*has 2 numbers",
    ),
    "parameters of billions": (
        _net("InnerProduct", "blobs { shape { dim: [2000000000, 2000000000] } }"),
        ":2:1: .*has 0 numbers",
    ),
    "a batch of nobody": (
        _source("MemoryData", 'top: "label" memory_data_param { }'),
        _bad("batch_size"),
    ),
    "a file of nowhere": (
        _source("HDF5Data", 'hdf5_data_param { source: "a\\000b" batch_size: 1 }'),
        _bad(""),
    ),
    "a list that is a device": (
        _source("HDF5Data", 'hdf5_data_param { source: "/dev/zero" batch_size: 1 }'),
        _bad(""),
    ),
    "a mean of nowhere": (
        _source(
            "Data",
            'transform_param { mean_file: "/nowhere" } data_param { batch_size: 1 backend: LMDB }',
        ),
        _bad(""),
    ),
}

SOLVERS = {
    "a net that contradicts itself": (
        'net_param {\n  layers { layer { name: "x" type: "y" } } }',
        r":2:3: net_param: layer 'x': V0 has no type 'y'",
    ),
    "more than 32 bits": ("max_iter: 4294967296", ":1:11: value out of range"),
    "a string of 100 MB": (b'net: "' + b"a" * 10**8 + b'"', ": is too large"),
}


def _field(number: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return wire.header(number, len(body)) + body


def _layer(*parts: bytes) -> bytes:
    return _field(100, _field(1, b"bad"), *parts)


def _blob(*parts: bytes) -> bytes:
    return _layer(_field(7, *parts))


def _shape(*dims: int) -> bytes:
    return _field(7, _field(1, *(wire.varint(dim % 2**64) for dim in dims)))


_ENDLESS = b"\xff" * 30
_LONG = b"a" * 10**8

BINARIES = {
    "nothing": (b"", ": is empty"),
    "a text": (b'name: "net"\n', ": is a text file, not a"),
    "zeros": (bytes(10**6), ": .*at byte 0"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(999), ": is a PNG picture"),
    "weights of PyTorch": (b"PK\x03\x04" + bytes(99), ": is a zip archive"),
    "chance": (np.random.default_rng(0).bytes(10_000), ": .*at byte"),
    "an endless number": (_ENDLESS, ": .*at byte 0"),
    "a field of no kind": (b"\x0f\0\0\0", ": .*no field at byte 0"),
    "groups in groups": (b"\x0b" * 10**6, ": .*no field at byte 0"),
    "a length of 2^63": (b"\x0a" + b"\xff" * 8 + b"\x7f", ": .*field at byte 0 needs 92233"),
    "30 million fields": (b"\x98\x06\x00" * 10**7, r": more than 150000 fields up to byte \d+"),
}

WEIGHTS = BINARIES | {
    "a solver state": (caffe_pb2.SolverState(iter=3).SerializeToString(), ": is no .caffemodel"),
    "a name only": (_field(1, b"net"), ": holds no layer"),
    "a layer's name of 100 MB": (
        lambda: _field(100, _field(1, _LONG)),
        ": the text at byte .* has 100000000",
    ),
    "150,000 layers": (_field(100) * 150_001, ": more than 150000 fields"),
    "150,000 blobs": (lambda: _layer(_field(7) * 150_001), ": more than 150000 fields"),
    "150,000 loose numbers": (
        lambda: _blob(b"\x2d\0\0\0\0" * 150_001),
        ": more than 150000 fields",
    ),
    "an endless number in a layer": (_layer(_ENDLESS), ": .*at byte 8"),
    "a blob beyond its layer": (_layer(b"\x3a\x7f\0"), ": .*byte 8 needs 127 bytes"),
}

PARAMETERS = {
    "negative sizes": (_blob(_shape(-2, -2), _field(5, bytes(16))), r"\(-2, -2\)"),
    "huge sizes": (_blob(_shape(2**62, 2**62)), "4611686018427387904"),
    "huge sizes and none": (_blob(_shape(0, 2**62, 2**62)), "4611686018427387904"),
    "bounded sizes and none": (_blob(_shape(0, *[2**31 - 1] * 3)), "2147483647, 2147483647"),
    "sizes of nothing": (_blob(_shape(2**40)), "has 0 numbers"),
    "100 MB of axes": (lambda: _blob(_field(7, _field(1, b"\1" * 10**8))), "more than 32 axes"),
    "100 MB of numbers": (lambda: _blob(_field(5, bytes(10**8))), "has 25000000 numbers"),
    "more numbers than sizes": (
        _blob(_shape(2), _field(5, bytes(12))),
        r"\(2,\) but has 3 numbers",
    ),
    "no sizes": (_blob(_field(5, bytes(12))), "has 3 numbers"),
    "half an old shape": (_blob(b"\x08\x02\x10\x01", _field(5, bytes(8))), r"\(2, 1, 0, 0\)"),
    "half a number": (_blob(_field(5, bytes(5))), "damaged numbers at byte"),
    "numbers of another kind": (_blob(b"\x28\x01"), "no numbers at byte"),
    "shapes without end": (_blob(_shape(1, 1, 1) * 20), "more than 32 axes"),
}

WEIGHTS |= {
    name: (content, rf": layer 'bad': .*{told}") for name, (content, told) in PARAMETERS.items()
}

UPGRADES = BINARIES | {
    name: WEIGHTS[name] for name in ("a layer's name of 100 MB", "150,000 layers", "150,000 blobs")
}


def _state(*parts: bytes) -> bytes:
    return b"\x08\x01" + b"".join(parts)


STATES = BINARIES | {
    "no iteration": (_field(2, b"w.caffemodel"), ": holds no iteration"),
    "a negative iteration": (b"\x08" + wire.varint(2**64 - 1), ": holds no iteration"),
    "an iteration of 2^40": (b"\x08" + wire.varint(2**40), ": holds no iteration"),
    "a name of 100 MB": (lambda: _state(_field(2, _LONG)), ": the text at byte 7"),
    "a history of another shape": (
        _state(_field(3, _shape(1), _field(5, bytes(4))), _field(3, _shape(9))),
        r": history 1: the blob at byte 17 is of shape \(9,\)",
    ),
    "150,000 histories": (_state(_field(3) * 150_001), ": .*history 0|more than 150000"),
}

MEANS = BINARIES | {
    "half an old shape": (b"\x08\x02\x2a\x04\0\0\0\0", r": blob: .*byte 0 is of shape \(2, 0, 0"),
    "an old shape of billions": (
        b"".join(bytes([8 * axis]) + wire.varint(2**31 - 1) for axis in (1, 2, 3, 4)),
        ": blob: .*has 0 numbers",
    ),
    "a shape of another kind": (b"\x3a\x04\x0a\x7f\0\0", ": .*byte 2 needs 127"),
}


def _numbers(file: h5py.File, path: str, **options) -> None:
    file.create_dataset(path, **{"data": np.ones(3, np.float32), **options})


def _many(file: h5py.File) -> None:
    for index in range(15_001):
        file["data"].create_group(f"layer{index}")


def _zeros_of_256_mb(file: h5py.File) -> None:
    _numbers(file, "data/a/0", data=np.zeros(2**26, np.float32), compression=1, chunks=(2**22,))


def _cycle(file: h5py.File) -> None:
    _numbers(file, "data/a/0")
    file["data/a/b"] = file["data"]


def _one_in_many_places(file: h5py.File) -> None:
    _numbers(file, "data/a/0", data=np.ones(2**20, np.float32))
    for index in range(1, 1000):
        file[f"data/a/{index}"] = file["data/a/0"]


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((9,), "f4")
    layout[:] = h5py.VirtualSource("/dev/zero", "x", (9,))
    file.create_virtual_dataset("data/a/0", layout)


def _elsewhere(file: h5py.File) -> None:
    outside = [("/dev/zero", 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("data/a/0", (9,), "f4", external=outside)


WEIGHTS_H5 = {
    "nothing in it": (lambda file: None, ": has no group /data"),
    "numbers without a group": (
        lambda file: _numbers(file, "data"),
        ": holds data, /data is not a group",
    ),
    "15,000 layers": (
        lambda file: (file.create_group("data"), _many(file)),
        ": /data is too much",
    ),
    "groups in groups": (
        lambda file: _numbers(file, "data" + "/a" * 5000),
        ": /data/a/a/.* is too much",
    ),
    "a group in itself": (_cycle, ": /data/a/b/a/b/.* is too much"),
    "numbers in many places": (_one_in_many_places, ": /data/a/1 is of shape"),
    "terabytes of nothing": (
        lambda file: file.create_dataset("data/a/0", (2**40,), "f4"),
        ": /data/a/0 is of shape .* but 0 bytes are stored",
    ),
    "zeros, packed": (_zeros_of_256_mb, ": /data/a/0 is of shape .* are stored"),
    "a piece of gigabytes": (
        lambda file: file.create_dataset(
            "data/a/0", (2,), "f4", chunks=(2**29,), maxshape=(None,), compression=1
        ),
        ": /data/a/0 is of shape",
    ),
    "a link to a device": (
        lambda file: file.update({"data/a/0": h5py.ExternalLink("/dev/zero", "x")}),
        ": /data/a has '0' as a link",
    ),
    "a link to itself": (
        lambda file: file.update({"data": h5py.SoftLink("/data")}),
        ": / has 'data' as a link",
    ),
    "numbers in another file": (_elsewhere, ": /data/a/0 lies in another file"),
    "numbers put together": (_virtual, ": /data/a/0 lies in another file"),
    "text": (lambda file: _numbers(file, "data/a/0", data=b"a"), ": /data/a/0 is of type"),
    "pairs": (
        lambda file: _numbers(file, "data/a/0", data=np.zeros(3, "f4,f4")),
        ": /data/a/0 is of type",
    ),
    "no numbers": (
        lambda file: _numbers(file, "data/a/0", data=h5py.Empty("f4")),
        ": /data/a/0 is of type",
    ),
    "a number missing": (
        lambda file: file.create_group("data/a/0"),
        ": /data/a/0 is a group where numbers should be",
    ),
}


def _state_of(**entries) -> Callable[[h5py.File], None]:
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
    "no history": (lambda file: file.update({"iter": [1]}), ": has no /history"),
    "numbers for the history": (
        lambda file: file.update({"iter": [1], "history": [1]}),
        ": /history is no group",
    ),
    "a group in the history": (_state_of(**{"history/0/a": [1.0]}), ": .*is a group"),
    "a negative iteration": (_state_of(iter=[-1]), ": /iter is no whole number"),
    "an iteration that is text": (_state_of(iter="one"), ": /iter is no whole number"),
    "an iteration of terabytes": (_state_of(iter=((2**40,), "i4")), ": /iter is no single value"),
    "a name of terabytes": (
        _state_of(learned_net=((2**40,), "S9")),
        ": /learned_net is no single value",
    ),
    "one name of gigabytes": (
        _state_of(learned_net=((), "S1000000000")),
        ": /learned_net is of shape",
    ),
    "a gap": (_state_of(**{"history/99999": [1.0]}), ": /history/0 is missing"),
    "a group for a number": (
        lambda file: (file.create_group("iter"), file.create_group("history")),
        ": /iter is no single value",
    ),
}

TABLE: Table = {
    "net": TEXTS,
    "solver": SOLVERS,
    "weights": WEIGHTS,
    "upgrade": UPGRADES,
    "state": STATES,
    "mean": MEANS,
    "weights_h5": WEIGHTS_H5,
    "state_h5": STATES_H5,
}


def write(reader: str, name: str, path: Path) -> None:
    """Write a file of the table."""
    content = TABLE[reader][name][0]
    if reader.endswith("_h5"):
        with h5py.File(path, "w") as file:
            content(file)
        return
    content = content() if callable(content) else content
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def _memory(field: str) -> float:
    """Return the process's memory in megabytes: now (VmRSS), or the most since it was reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise KeyError(field)


@contextlib.contextmanager
def counted_lines() -> Iterator[Callable[[], int]]:
    """Count the lines of Python that run, whatever module they are of; gives what tells them."""
    lines = 0

    def local(_frame: object, event: str, _: object) -> Callable:
        nonlocal lines
        lines += event == "line"
        return local

    sys.settrace(lambda *_: local)
    try:
        yield lambda: lines
    finally:
        sys.settrace(None)


def run(reader: str, path: Path) -> dict[str, object]:
    """Read a file; return what was told, and the lines and megabytes it took."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    with counted_lines() as count:
        try:
            READERS[reader](str(path))
            kind, told = "", ""
        except CaffeError as error:
            kind, told = "CaffeError", str(error)
        except Exception as error:
            kind, told = type(error).__name__, str(error)
    return {
        "kind": kind,
        "told": told[:5000],
        "lines": count(),
        "megabytes": _memory("VmHWM") - before,
    }


def main() -> None:
    """Run the table."""
    resource.setrlimit(resource.RLIMIT_AS, (int(_memory("VmSize") * 2**20) + ADDRESS_SPACE,) * 2)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        path = Path(folder) / "file"
        for reader, files in TABLE.items():
            for name in files:
                write(reader, name, path)
                # Should it not come back: this one it was.
                print(f"{reader}: {name}", file=sys.stderr, flush=True)
                results[f"{reader}: {name}"] = run(reader, path)
                path.unlink()
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
