"""The program `caffe_unet`, which the Fiji plugin "U-Net Segmentation" calls.

Its flags, files and the lines that the plugin reads are those of the authors' program; what it
computes with is this project's engine. The plugin runs the program without arguments to see that
it is there: what computes is imported when it is needed.

References
----------
Falk et al., U-Net: deep learning for cell counting, detection, and morphometry, Nature Methods 16
(2019).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Callable, NoReturn

from unet.command.running import run_program
from unet.errors import InputError

USAGE = """\
usage: caffe_unet <command> <args>

commands:
  tiled_predict               scores of the images in an HDF5 file
  check_model_and_weights_h5  see that a model definition and its weights belong together
  device_query                show what GPUs there are

tiled_predict:
  -infileH5 FILE              images, in the dataset that the model names (data)
  -outfileH5 FILE             scores, one dataset for each output (score); may be the same file
  -model X.modeldef.h5        the model definition
  -weights Y.caffemodel.h5    the network's weights
  -iterations N               images to compute; 0, as without it: all
  -gpu N|all                  compute on a GPU; without it on the CPU
  -tile_size HxW              output pixels of a tile, DxHxW in 3-D, rounded up
  -n_tiles N|HxW              tiles of an image: up to N, or so many along each axis
  -mem_available_px P         input pixels that a tile may have
  -gpu_mem_available_MB M     memory that a tile may take
                              (without any of these: what fits the free memory)
  -average_mirror             the mean of 4 mirrored versions
  -average_rotate             the mean of 4 rotated versions

check_model_and_weights_h5:
  -model, -weights, -gpu      as above
  -n_channels N               channels of the images"""

# The exit status of gflags.
EXIT_FLAGS = 1


class _Flags(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"ERROR: {message}; caffe_unet without arguments tells all flags", file=sys.stderr)
        raise SystemExit(EXIT_FLAGS)


def _sizes(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d{0,8}(x[1-9]\d{0,8}){0,2}", text):
        raise argparse.ArgumentTypeError(f"'{text}' is no size such as 388x388")
    return tuple(map(int, text.split("x")))


def _count(text: str) -> int:
    if not re.fullmatch(r"\d{1,18}", text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
    return int(text)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line: flags with one dash or two, as gflags has them."""
    parser = _Flags(prog="caffe_unet", add_help=False, allow_abbrev=False)
    parser.add_argument("command")
    for name, kind in (
        ("infileH5", str),
        ("outfileH5", str),
        ("model", str),
        ("weights", str),
        ("gpu", str),
        ("iterations", _count),
        ("n_channels", _count),
        ("tile_size", _sizes),
        ("n_tiles", _sizes),
        ("mem_available_px", _count),
        ("gpu_mem_available_MB", _count),
    ):
        parser.add_argument(f"-{name}", f"--{name}", dest=name, type=kind)
    for name in ("average_mirror", "average_rotate"):
        parser.add_argument(f"-{name}", f"--{name}", dest=name, action="store_true")
    return parser.parse_args(words)


def main(argv: Sequence[str] | None = None) -> int | None:
    """Run the program; return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or set(words) & {"-help", "--help", "-h"}:
        print(USAGE)
        return None
    flags = parse(words)
    command = COMMANDS.get(flags.command)
    if command is None:
        raise InputError(
            f"there is no command '{flags.command[:40]}'; give one of {', '.join(COMMANDS)}"
        )
    # What the engine logs of the network goes to standard error, as glog's lines.
    os.environ.setdefault("GLOG_minloglevel", "0")
    return command(flags)


def tiled_predict(flags: argparse.Namespace) -> None:
    """Compute the scores of the images in a file."""
    from unet.files.outputs import refuse_own_inputs
    from unet.machine.engine import open_engine
    from unet.model.open_modeldef import open_definition
    from unet.model.tiled_predict import TilingWish, predict_file

    _demand(flags, "infileH5", "outfileH5", "model", "weights")
    if flags.average_mirror and flags.average_rotate:
        raise InputError("-average_mirror and -average_rotate: give one of them")
    average = "mirror" if flags.average_mirror else "rotate" if flags.average_rotate else "none"
    wish = TilingWish(
        flags.tile_size, flags.n_tiles, flags.mem_available_px, flags.gpu_mem_available_MB
    )
    if sum(one is not None for one in wish) > 1:
        raise InputError(
            "-tile_size, -n_tiles, -mem_available_px and -gpu_mem_available_MB all say how an "
            "image is cut: give one of them"
        )
    # Images may be replaced by their scores, the network never.
    refuse_own_inputs([flags.outfileH5], [flags.model, flags.weights])
    device = _device(flags)
    caffe = open_engine(device, graphs=True)
    net, definition = open_definition(caffe, flags.model, flags.weights)
    predict_file(
        net,
        definition,
        (flags.infileH5, flags.outfileH5),
        wish,
        average=average,
        device=device,
        most=flags.iterations,
        told=_tell,
    )


def _tell(batch: int, batches: int, tile: int, tiles: int) -> None:
    # Read by the plugin, for its progress.
    print(f"Processing batch {batch}/{batches}, tile {tile}/{tiles}", flush=True)


def check_model_and_weights(flags: argparse.Namespace) -> None:
    """See that a definition and weights belong together, and how many channels they are for."""
    from unet.machine.engine import open_engine
    from unet.model.open_modeldef import open_definition

    _demand(flags, "model", "weights", "n_channels")
    caffe = open_engine(_device(flags))
    net, _ = open_definition(caffe, flags.model, flags.weights)
    channels = net.blobs[net.inputs[0]].shape[1]
    if channels != flags.n_channels:
        raise InputError(
            f"{flags.weights}: is for images of {channels} channel{'s' * (channels > 1)}, and not "
            f"of {flags.n_channels}; take a network that was trained for these"
        )


def device_query(flags: argparse.Namespace) -> int:
    """Show what GPUs there are, as the engine's own program does."""
    query = [sys.executable, "-m", "caffe", "device_query"]
    return subprocess.run([*query, *(["-gpu", flags.gpu] if flags.gpu else [])]).returncode


COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "tiled_predict": tiled_predict,
    "check_model_and_weights_h5": check_model_and_weights,
    "device_query": device_query,
}


def _demand(flags: argparse.Namespace, *names: str) -> None:
    for name in names:
        if getattr(flags, name) is None:
            raise InputError(f"{flags.command} needs -{name}; caffe_unet alone tells all flags")


def _device(flags: argparse.Namespace) -> str:
    """Return the device: one GPU computes, the first that is named."""
    if not flags.gpu:
        return "cpu"
    if not re.fullmatch(r"all|\d{1,9}(,\d{1,9})*", flags.gpu):
        raise InputError(f"-gpu {flags.gpu}: give the number of a GPU, or all")
    from unet.machine.engine import open_engine

    device = "0" if flags.gpu == "all" else flags.gpu.split(",")[0]
    try:
        open_engine(device)
    except RuntimeError as error:
        # In CUDA's words, by which the plugin tells its user what is the matter.
        told = str(error)
        words = "" if "invalid device ordinal" in told else "invalid device ordinal: "
        raise InputError(
            f"-gpu {flags.gpu}: {words}{told}; leave -gpu out (in the plugin: "
            f"Use GPU: none) to compute on the CPU"
        ) from None
    return device


def run() -> None:
    """Run the command line."""
    run_program(main)
