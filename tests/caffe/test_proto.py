"""caffe.proto and what is generated from it."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorSet

import caffe.proto
from caffe.proto import caffe_pb2

FOLDER = Path(caffe.proto.__file__).parent
FILE = "caffe/proto/caffe.proto"


def _label(field) -> int:
    # `label` is deprecated in the newest protobuf, and its successors are missing in older ones.
    if hasattr(field, "is_repeated"):
        return 3 if field.is_repeated else 2 if field.is_required else 1
    return field.label


# Also run in genuine Caffe, which has a _label of its own.
FACTS = """
def facts(file):
    found = {}
    for name, message in file.message_types_by_name.items():
        found[name] = {}
        for f in message.fields:
            kind = f.message_type or f.enum_type
            found[name][f.name] = [f.number, f.type, _label(f), repr(f.default_value),
                                   f.GetOptions().packed, kind.full_name if kind else ""]
        for kind, enum in message.enum_types_by_name.items():
            found[name + "." + kind] = {v.name: v.number for v in enum.values}
    return found
"""
exec(FACTS)


def test_the_messages_are_those_of_the_schema(tmp_path):
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("grpcio-tools is not installed")
    out = tmp_path / "schema"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{FOLDER.parents[1]}"]
    subprocess.run([*command, f"--descriptor_set_out={out}", FILE], check=True)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(FileDescriptorSet.FromString(out.read_bytes()).file[0])
    assert facts(pool.FindFileByName(FILE)) == facts(caffe_pb2.DESCRIPTOR)  # noqa: F821


def test_messages_are_those_of_genuine_caffe(genuine):
    theirs = genuine.python(
        "from caffe.proto import caffe_pb2\n_label = lambda field: field.label\n"
        + FACTS
        + "result = facts(caffe_pb2.DESCRIPTOR)"
    )
    mine = facts(caffe_pb2.DESCRIPTOR)  # noqa: F821
    for name, fields in theirs.items():
        for field, expected in fields.items():
            assert mine[name].get(field) == expected, f"{name}.{field}"


# What works in genuine Caffe; protobuf's own pool, where the class was, takes each name once.
IDENTITY = """
import copy, importlib, multiprocessing, pickle, sys

import caffe
from caffe.proto import caffe_pb2

FOLDER = {folder!r}


def label(datum):
    return datum.label, type(datum) is caffe_pb2.Datum


def purged():
    for name in [name for name in sys.modules if name.split(".")[0] == "caffe"]:
        del sys.modules[name]
    import caffe
    from caffe import layers as L
    from caffe.proto import caffe_pb2

    n = caffe.NetSpec()
    n.x = L.Input(shape=dict(dim=[1, 2]))
    made = n.to_proto()
    return isinstance(made, caffe_pb2.NetParameter), pickle.loads(pickle.dumps(made)) == made


if __name__ == "__main__":
    net = caffe_pb2.NetParameter(name="n")
    net.layer.add(name="c", type="Convolution").convolution_param.kernel_size.extend([3, 5])
    found = [caffe_pb2.__name__, caffe_pb2.DESCRIPTOR.name, caffe_pb2.Datum.__module__]
    for message in (net, net.layer[0], net.layer[0].convolution_param, caffe_pb2.Datum(label=3)):
        found.append(pickle.loads(pickle.dumps(message)) == copy.deepcopy(message) == message)
    found.append(pickle.loads(pickle.dumps(caffe_pb2.Datum)) is caffe_pb2.Datum)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found.append(pool.map(label, [caffe_pb2.Datum(label=7)]))
    found.append(purged())
    sys.path.append(FOLDER)
    plain = importlib.import_module("caffe_pb2")
    found.append([plain.__name__, plain.DESCRIPTOR.name, plain.NetParameter.FromString(
        net.SerializeToString()).layer[0].name])
    print(found)
"""
SAME = [
    *("caffe.proto.caffe_pb2", FILE, "caffe.proto.caffe_pb2"),
    *(True, True, True, True, True),
    [(7, True)],
    (True, True),
    ["caffe_pb2", FILE, "c"],
]


def test_messages_can_be_pickled_and_the_module_be_imported_again(tmp_path, genuine):
    script, theirs = tmp_path / "ours.py", tmp_path / "genuine.py"
    script.write_text(IDENTITY.format(folder=str(FOLDER)))
    theirs.write_text(IDENTITY.format(folder="/usr/lib/python3/dist-packages/caffe/proto"))
    for done in (
        subprocess.run([sys.executable, str(script)], capture_output=True, text=True),
        genuine.command("python3", theirs),
    ):
        assert done.returncode == 0, done.stderr[-3000:]
        assert ast.literal_eval(done.stdout.splitlines()[-1]) == SAME


FOREIGN = """
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# As in a module of another project: the same names, other fields.
file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe")
file.message_type.add(name="Datum").field.add(
    name="other", number=1, type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL)


def foreign():
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.Datum"))


def own():
    from caffe.proto import caffe_pb2
    return caffe_pb2.Datum


{first}, {second} = {first}(), {second}()
print(foreign(other="x").other, own(label=3).label)
"""


@pytest.mark.parametrize("order", [("own", "foreign"), ("foreign", "own")])
@pytest.mark.parametrize("implementation", ["upb", "python"])
def test_another_projects_messages_of_the_same_names_can_stand_beside(order, implementation):
    done = subprocess.run(
        [sys.executable, "-c", FOREIGN.format(first=order[0], second=order[1])],
        env={**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "x 3\n"), done.stderr[-3000:]
