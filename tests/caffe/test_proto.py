"""caffe.proto and what is generated from it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorSet

import caffe.proto
from caffe.proto import caffe_pb2

FOLDER = Path(caffe.proto.__file__).parent


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


def test_the_generated_module_is_that_of_the_schema(tmp_path):
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("grpcio-tools is not installed")
    out = tmp_path / "schema"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{FOLDER}"]
    subprocess.run([*command, f"--descriptor_set_out={out}", "caffe.proto"], check=True)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(FileDescriptorSet.FromString(out.read_bytes()).file[0])
    assert facts(pool.FindFileByName("caffe.proto")) == facts(caffe_pb2.DESCRIPTOR)  # noqa: F821


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
