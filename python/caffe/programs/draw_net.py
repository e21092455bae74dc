"""Draw a net as a graph: draw_net NET.prototxt PICTURE.png."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence

from caffe.errors import CaffeError
from caffe.files import prototxt
from caffe.files.atomic import refuse_own_input
from caffe.programs.run import run_program
from caffe.proto import caffe_pb2

_PHASES = {"TRAIN": caffe_pb2.TRAIN, "TEST": caffe_pb2.TEST, "ALL": None}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        prog="draw_net", description="Draw a net as a graph of layers and blobs."
    )
    parser.add_argument("input_net_proto_file", help="the net's prototxt")
    parser.add_argument(
        "output_image_file",
        help="the picture; its suffix names the format: .png, .pdf, .svg and what else Graphviz "
        "writes, or .raw for the graph as text, which needs no Graphviz",
    )
    parser.add_argument(
        "--rankdir",
        default="LR",
        choices=("LR", "RL", "TB", "BT"),
        help="direction of the graph, from left to right (the default) or from top to bottom",
    )
    parser.add_argument(
        "--phase", default="ALL", choices=_PHASES, help="the layers of one phase (default: ALL)"
    )
    parser.add_argument(
        "--display_lrm", action="store_true", help="tell the multipliers of the learning rate"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw a net."""
    options = parse_args(argv)
    refuse_own_input(options.output_image_file, options.input_net_proto_file)
    try:
        from caffe import draw
    except ImportError as error:
        raise CaffeError(str(error)) from None
    net = prototxt.read_net(options.input_net_proto_file)
    try:
        draw.draw_net_to_file(
            net,
            options.output_image_file,
            options.rankdir,
            _PHASES[options.phase],
            options.display_lrm,
        )
    except ValueError as error:
        raise CaffeError(f"{options.input_net_proto_file}: {error}") from None
    print(f"Drew {options.input_net_proto_file} to {options.output_image_file}")


run = functools.partial(run_program, main)


if __name__ == "__main__":
    run()
