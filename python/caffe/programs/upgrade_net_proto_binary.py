"""Bring old weights up to the current format: upgrade_net_proto_binary IN OUT."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from caffe.errors import CaffeError
from caffe.files import upgrade
from caffe.files.atomic import atomic_path
from caffe.files.blob_wire import check_kind, map_file
from caffe.files.survey import Survey
from caffe.log import log_info
from caffe.programs.run import run_program
from caffe.programs.upgrading import EXIT_USAGE, tell, two_paths
from caffe.proto import caffe_pb2


def read_binary(path: str) -> caffe_pb2.NetParameter:
    """Read a .caffemodel of any format, its parameters with it.

    Raises
    ------
    CaffeError
        If the file is missing, damaged or of another kind.
    """
    data = map_file(path)
    check_kind(data, path, "a .caffemodel")
    survey = Survey(path, text_as_utf8=True)
    survey.walk(data, caffe_pb2.NetParameter.DESCRIPTOR)
    try:
        net = caffe_pb2.NetParameter.FromString(data)
    except DecodeError as error:
        raise CaffeError(f"{path}: is no .caffemodel, or damaged: {error}") from None
    survey.warn()
    return net


def main(argv: Sequence[str] | None = None) -> int:
    """Upgrade a .caffemodel; return the exit status, 1 if something in it could not be kept."""
    paths = two_paths("upgrade_net_proto_binary v0_net_proto_file_in net_proto_file_out", argv)
    if paths is None:
        return EXIT_USAGE
    source, target = paths
    net = read_binary(source)
    needed = upgrade.net_needs_upgrade(net)
    status = tell(source, target, needed, upgrade.upgrade_net_as_needed(net, source))
    with atomic_path(target) as temporary:
        temporary.write_bytes(net.SerializeToString())
    log_info(f"Wrote upgraded NetParameter binary proto to {target}")
    return status


def run() -> None:
    """Run the program."""
    run_program(main)


if __name__ == "__main__":
    run()
