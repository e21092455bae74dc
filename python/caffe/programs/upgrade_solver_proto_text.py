"""Bring the text of an old solver up to the current format: upgrade_solver_proto_text IN OUT."""

from __future__ import annotations

from collections.abc import Sequence

from caffe.files import prototxt, upgrade
from caffe.log import log_info
from caffe.programs.run import run_program
from caffe.programs.upgrading import EXIT_USAGE, tell, two_paths
from caffe.proto import caffe_pb2


def main(argv: Sequence[str] | None = None) -> int:
    """Upgrade a solver, but no nets written in it; return the exit status."""
    paths = two_paths(
        "upgrade_solver_proto_text old_solver_proto_file_in solver_proto_file_out", argv
    )
    if paths is None:
        return EXIT_USAGE
    source, target = paths
    solver = prototxt.read_text(source, caffe_pb2.SolverParameter())
    status = tell(source, target, needed=solver.HasField("solver_type"))
    upgrade.upgrade_solver_as_needed(solver, source)
    prototxt.write_text(solver, target)
    log_info(f"Wrote upgraded SolverParameter text proto to {target}")
    return status


def run() -> None:
    """Run the program."""
    run_program(main)


if __name__ == "__main__":
    run()
