"""Bring old nets and solvers up to the current format: upgrade_net_proto_text IN OUT and siblings.

Each returns its exit status: 1 if something in the file could not be kept, or after the usage.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence

from google.protobuf.message import DecodeError

from caffe.errors import CaffeError
from caffe.files import prototxt, upgrade
from caffe.files.atomic import atomic_path, refuse_own_input
from caffe.files.caffemodel import stored_layers
from caffe.files.wire import WireReader, check_kind, map_file
from caffe.log import log_error, log_info
from caffe.programs.run import run_program
from caffe.proto import caffe_pb2

EXIT_INCOMPLETE = EXIT_USAGE = 1


def upgrade_net_proto_text(argv: Sequence[str] | None = None) -> int:
    """Upgrade a net's prototxt."""
    paths = _paths("upgrade_net_proto_text v0_net_proto_file_in net_proto_file_out", argv)
    if paths is None:
        return EXIT_USAGE
    source, target = paths
    net = prototxt.read_text(source, caffe_pb2.NetParameter())
    status = _upgrade_net(net, source, target)
    prototxt.write_text(net, target)
    log_info(f"Wrote upgraded NetParameter text proto to {target}")
    return status


def upgrade_net_proto_binary(argv: Sequence[str] | None = None) -> int:
    """Upgrade a .caffemodel."""
    paths = _paths("upgrade_net_proto_binary v0_net_proto_file_in net_proto_file_out", argv)
    if paths is None:
        return EXIT_USAGE
    source, target = paths
    net = read_binary(source)
    status = _upgrade_net(net, source, target)
    with atomic_path(target) as temporary:
        temporary.write_bytes(net.SerializeToString())
    log_info(f"Wrote upgraded NetParameter binary proto to {target}")
    return status


def upgrade_solver_proto_text(argv: Sequence[str] | None = None) -> int:
    """Upgrade a solver's prototxt, but no nets written in it."""
    usage = "upgrade_solver_proto_text old_solver_proto_file_in solver_proto_file_out"
    paths = _paths(usage, argv)
    if paths is None:
        return EXIT_USAGE
    source, target = paths
    solver = prototxt.read_text(source, caffe_pb2.SolverParameter())
    status = _tell(source, target, needed=solver.HasField("solver_type"))
    upgrade.upgrade_solver_as_needed(solver, source)
    prototxt.write_text(solver, target)
    log_info(f"Wrote upgraded SolverParameter text proto to {target}")
    return status


def read_binary(path: str) -> caffe_pb2.NetParameter:
    """Read a .caffemodel of any format, its parameters with it.

    Raises
    ------
    CaffeError
        If the file is missing, damaged or of another kind.
    """
    data = map_file(path)
    check_kind(data, path, "a .caffemodel")
    for _ in stored_layers(WireReader(path), data):
        # They are whole, and not more than protobuf's objects of them fit into memory.
        pass
    try:
        return caffe_pb2.NetParameter.FromString(data)
    except DecodeError as error:
        raise CaffeError(f"{path}: is no .caffemodel, or damaged: {error}") from None


def _paths(usage: str, argv: Sequence[str] | None) -> tuple[str, str] | None:
    """Return the input's and the output's path, or log the usage if these are not what is given."""
    words = sys.argv[1:] if argv is None else argv
    if len(words) != 2:
        log_error(f"Usage: {usage}")
        return None
    return words[0], words[1]


def _upgrade_net(net: caffe_pb2.NetParameter, source: str, target: str) -> int:
    needed = upgrade.net_needs_upgrade(net)
    try:
        complete = upgrade.upgrade_net_as_needed(net, source)
    except ValueError as error:
        raise CaffeError(f"{source}: a name in it is no UTF-8: {error}") from None
    for layer in net.layer:
        pooling = layer.pooling_param
        # The word of other Caffes, which genuine Caffe does not read.
        if pooling.HasField("ceil_mode"):
            pooling.round_mode = pooling.CEIL if pooling.ceil_mode else pooling.FLOOR
            pooling.ClearField("ceil_mode")
    return _tell(source, target, needed, complete)


def _tell(source: str, target: str, needed: bool, complete: bool = True) -> int:
    """Log whether there was anything to do and whether it could be done; return the exit status.

    Raises `CaffeError` if it could not, and the file is to be upgraded in place: what is left out
    would be lost. Genuine Caffe writes it all the same.
    """
    if not needed:
        log_error(f"File already in latest proto format: {source}")
    if complete:
        return 0
    log_error("Encountered error(s) while upgrading prototxt; see details above.")
    refuse_own_input(target, source)
    return EXIT_INCOMPLETE


run_net_text = functools.partial(run_program, upgrade_net_proto_text)
run_net_binary = functools.partial(run_program, upgrade_net_proto_binary)
run_solver_text = functools.partial(run_program, upgrade_solver_proto_text)
