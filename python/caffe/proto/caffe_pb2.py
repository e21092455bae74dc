"""Caffe's messages, as Python classes: `caffe_pb2.NetParameter`, `caffe_pb2.TRAIN`.

As what protoc generates, with one difference: the messages stand in a pool of their own, so that
this module can be imported again, under another name, and beside the caffe_pb2 of other projects.
Protobuf's own pool takes every file, and every name in it, once in a process.
"""

from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import builder
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

_FILE = descriptor_pb2.FileDescriptorSet.FromString(
    Path(__file__).with_name("caffe.binpb").read_bytes()
).file[0]
_POOL = descriptor_pool.DescriptorPool()
_POOL.AddSerializedFile(_FILE.SerializeToString())

DESCRIPTOR = _POOL.FindFileByName(_FILE.name)


def _fill(module: dict[str, object]) -> None:
    # Descriptors, such as _NETPARAMETER.
    builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, module)
    for name, message in DESCRIPTOR.message_types_by_name.items():
        module[name] = message_factory.GetMessageClass(message)
        # Where pickle finds the class again.
        module[name].__module__ = __name__
    for name, enum in DESCRIPTOR.enum_types_by_name.items():
        module[f"_{name.upper()}"] = enum
        module[name] = EnumTypeWrapper(enum)
        module.update((value.name, value.number) for value in enum.values)


_fill(globals())
