"""Bring the text of an old net up to the current format: upgrade_net_proto_text IN OUT."""

from __future__ import annotations

from collections.abc import Sequence

from caffe.files import prototxt, upgrade
from caffe.log import log_info
from caffe.programs.run import run_program
from caffe.programs.upgrading import EXIT_USAGE, tell, two_paths
from caffe.proto import caffe_pb2


def main(argv: Sequence[str] | None = None) -> int:
    """Upgrade a net; return the exit status, 1 if something in it could not be kept."""
    paths = two_paths("upgrade_net_proto_text v0_net_proto_file_in net_proto_file_out", argv)
    if paths is None:
        return EXIT_USAGE
    source, target = paths
    net = prototxt.read_text(source, caffe_pb2.NetParameter())
    needed = upgrade.net_needs_upgrade(net)
    status = tell(source, target, needed, upgrade.upgrade_net_as_needed(net, source))
    prototxt.write_text(net, target)
    log_info(f"Wrote upgraded NetParameter text proto to {target}")
    return status


def run() -> None:
    """Run the program."""
    run_program(main)


if __name__ == "__main__":
    run()
