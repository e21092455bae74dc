"""Segment a stack with a trained network: probability, class or cell of every pixel.

With two classes the probability is that of class 1 (inside a cell), and --classes is white there.
With more, probabilities have one channel a class, and --classes the classes' numbers. --instances
tells which cell each pixel belongs to: 0 none, 1, 2, ... in each slice anew.
"""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from unet.command.options import (
    add_device,
    add_overwrite,
    add_part,
    parse_slices,
    parse_tile,
    part_of,
    real,
    whole,
)
from unet.errors import InputError, few
from unet.files.outputs import guard_outputs
from unet.model import find_model, load
from unet.model.defaults import read_defaults, told
from unet.model.job import Job
from unet.model.segment_files import segment_files
from unet.segmentation.instances import InstanceRules
from unet.segmentation.options import Plan, SegmentationOptions
from unet.segmentation.segment import TTA
from unet.segmentation.workers import devices_of
from unet.segmentation.write import (
    SegmentationFiles,
    output_bytes,
)
from unet.volumes import chosen_slices, open_volume
from unet.volumes.intensity import INPUT

# The options that the values depend on, but for what is a cell.
_OF_VALUES = (
    *("level", "channel", "time", "scene", "model", "weights", "net", "tta", "procedure"),
    *("tile", "slices", "grey", "normalise"),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Segment a stack."""
    arguments = parse(argv)
    net, weights = find_model(arguments.model or arguments.weights, arguments.net)
    if said := take_defaults(arguments, read_defaults(net)):
        print(said)
    options = options_of(arguments)
    if arguments.workers and arguments.scheduler:
        raise InputError("--workers and --scheduler: give one of them")
    names = [field.name for field in fields(SegmentationFiles)]
    files = SegmentationFiles(*(getattr(arguments, name) for name in names))
    inputs = [arguments.stack, *([files.truth] if files.truth else [])]
    guard_outputs(files.outputs(), [*inputs, net, weights, net.parent / INPUT], arguments.overwrite)
    part = part_of(arguments)
    # What is wrong with the stack is told before the network is loaded.
    with open_volume(arguments.stack, **part, colours=True) as volume:
        volume.demand(chosen_slices(options.slices, len(volume)))
    devices = devices_of(arguments.device, arguments.workers or 0)
    model = load(weights, net, device=devices[0], precision=arguments.precision)
    with open_volume(arguments.stack, channels=model.channels, **part, colours=True) as volume:
        plan = model.plan(volume, options)
        if arguments.dry_run:
            print(plan)
            print(estimate(plan, model.measure_pass(plan), output_bytes(files, plan)))
            return
        job = Job(arguments.stack, part, str(weights), str(net), arguments.precision, plan, files)
        begin = time.perf_counter()
        share, flat = segment_files(
            job,
            model,
            volume,
            options,
            device=arguments.device,
            devices=devices,
            scheduler=arguments.scheduler,
            command=command_of(arguments),
        )
        seconds = time.perf_counter() - begin
    if share:
        print(
            f"{seconds:.1f} s, {seconds / share / len(plan.slices):.2f} s a slice, "
            f"{plan.work * share / seconds / 1e9:.0f} G multiply-adds a second"
        )
    for output in files.outputs():
        print(f"written: {output.path}")
    if flat:
        print(f"look at this: all pixels are of one grey value in slices {few(flat)}")


def estimate(plan: Plan, seconds: float, size: int) -> str:
    """Say what a plan will take, if a pass takes so many seconds; `size` is in bytes."""
    hours, rest = divmod(round(plan.passes * seconds), 3600)
    return (
        f"{plan.passes} passes of {seconds:.2f} s, as one was measured: about {hours} h "
        f"{rest // 60:02d} min {rest % 60:02d} s; memory about {plan.memory / 2**30:.2f} GB beside "
        f"the program; written {size / 2**30:.2f} GB before compression; nothing was written"
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, file = parser.add_argument, dict(type=Path, metavar="FILE")
    add("stack", help="TIFF, PNG, folder of them, HDF5 or Zarr (FILE:/dataset names one inside)")
    add_part(parser)
    network = parser.add_mutually_exclusive_group(required=True).add_argument
    network(
        "--model",
        metavar="NAME|FOLDER",
        help="isbi2012_slim or another network that comes with this; a model folder "
        "(weights.caffemodel, deploy.prototxt), such as `unet train` leaves, with what suits it "
        "best (segment.json)",
    )
    network(
        "--weights",
        metavar="FILE|FOLDER",
        help="the same, or a file: .caffemodel or HDF5 weights; the authors' phseg_v5.caffemodel "
        "or a NAME.caffemodel.h5 of the Fiji plugin",
    )
    beside = "deploy.prototxt; of published ones NAME-train.prototxt, NAME.modeldef.h5"
    add("--net", help=f"prototxt or .modeldef.h5 (default, beside the weights: {beside})")
    kinds = ".tif, .h5, .zarr, .png, or a folder of PNG"
    add("-o", "--output", dest="probabilities", **file, help=f"write probabilities: {kinds}")
    add("--classes", **file, help="write the likeliest class")
    add("--instances", **file, help="write the cells' numbers")
    types = dict(choices=("float32", "uint8"))
    add("--dtype", **types, help="of probabilities; uint8 is 255 for 1, and what PNG holds")
    zarr = dict(type=int, choices=(2, 3))
    add("--zarr-format", **zarr, help="of .zarr: 2 is NGFF 0.4, 3 NGFF 0.5 (default: the newest)")
    add("--tta", choices=tuple(TTA), help="mean over 4 mirrored, 4 rotated or 8 orientations")
    add(
        "--procedure",
        choices=("2015",),
        help="segment as the authors did with their networks of 2015: fixes --tile (2 tiles joined "
        "without overlap), --tta mirror and --minimum-area 501; then tools/track.py "
        "--procedure 2015",
    )
    add("--tile", metavar="N|HxW", help="input size, 16k + 60 (default: the cheapest that fits)")
    most = "most of what is free, half of it on a GPU"
    add(
        "--memory",
        type=real(0, 1e9),
        metavar="GB",
        help="that passes and blocks of slices may take, on a GPU passes alone; the program itself "
        f"takes some 0.5 more (default: {most})",
    )
    takes = "tiles, passes, memory, time by one pass that is measured, size"
    add("--dry-run", action="store_true", help=f"say what it would take ({takes}); write nothing")
    add_device(parser)
    many = "processes, which share the cores; GPUs take one each, --device 0,1 names them"
    add("--workers", type=whole(1, 4096), metavar="N", help=many)
    asked = "a Dask cluster computes, whose machines see the same files (tcp://HOST:8786)"
    add("--scheduler", metavar="ADDRESS", help=asked)
    add("--slices", metavar="A:B", help="segment slices A to B - 1, from 0 (default: all)")
    usual = "0 and 255 for 8 bit; else the stack's 0.1 and 99.9 percentiles"
    bounds = dict(nargs=2, type=real(-1e30, 1e30), metavar=("LOW", "HIGH"))
    add("--grey", **bounds, help=f"grey values that become 0 and 1 (default: {usual})")
    add(
        "--normalise",
        action=argparse.BooleanOptionalAction,
        help="bring each slice to the same mean and standard deviation, in place of --grey "
        "(default: as the network was trained, which input.json beside it says)",
    )
    shows = "outlines beside slices: .png shows the middle one, a folder all"
    add("--overlay", type=Path, metavar="PATH", help=shows)
    add("--truth", help="true labels, drawn in the overlay under the outlines")
    add_overwrite(parser)
    cells = parser.add_argument_group("what is a cell of --instances").add_argument
    above = "probability above which a pixel is in a cell (default: the likeliest class)"
    cells("--threshold", type=float, metavar="T", help=above)
    cells("--minimum-area", type=whole(0), metavar="N", help="in pixels (default: 1)")
    cells(
        "--fill-holes",
        action=argparse.BooleanOptionalAction,
        help="background inside a cell is part of it",
    )
    split = "split cells where the probability falls by D between two peaks, say 0.2"
    cells("--watershed", type=float, metavar="D", help=split)
    more = (
        "uint32 holds more than 65535 cells (default: uint16, of slices above 2^26 pixels uint32)"
    )
    cells("--instance-dtype", choices=("uint16", "uint32"), help=more)
    return parser.parse_args(argv)


def take_defaults(arguments: argparse.Namespace, defaults: Mapping[str, Any]) -> str:
    """Take what the network says of itself where no flag says otherwise; say what that is."""
    # What is a cell matters where cells are asked for; a procedure fixes all of it.
    taken = {
        name: value
        for name, value in defaults.items()
        if getattr(arguments, name) is None
        and not arguments.procedure
        and (name == "tta" or arguments.instances)
    }
    for name, value in taken.items():
        setattr(arguments, name, value)
    return told(taken)


def rules_of(arguments: argparse.Namespace) -> InstanceRules:
    """Return what is a cell."""
    given = {name: getattr(arguments, name) for name in InstanceRules._fields}
    return InstanceRules(**{name: value for name, value in given.items() if value is not None})


def command_of(arguments: argparse.Namespace) -> str:
    """Return the command by all that the values depend on: neither machine nor names of outputs."""
    rules = rules_of(arguments)
    values = {name: getattr(arguments, name) for name in _OF_VALUES}
    command = ["unet", "segment", str(arguments.stack)]
    for name, value in {**values, **rules.changed()}.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            command += [flag if value else flag.replace("--", "--no-", 1)]
        elif value is not None:
            several = isinstance(value, (list, tuple))
            command += [flag, *(map(str, value) if several else [str(value)])]
    return shlex.join(command)


def options_of(arguments: argparse.Namespace) -> SegmentationOptions:
    """Return how the stack is segmented."""
    rules = rules_of(arguments)
    if not arguments.instances and rules != InstanceRules():
        raise InputError(
            "--threshold, --minimum-area, --fill-holes and --watershed say what is a cell of "
            "--instances: name that file as well"
        )
    return SegmentationOptions(
        tta=arguments.tta,
        tile=parse_tile(arguments.tile),
        memory=None if arguments.memory is None else arguments.memory * 2**30,
        intensity=None if arguments.grey is None else tuple(arguments.grey),
        normalise=arguments.normalise,
        slices=parse_slices(arguments.slices),
        procedure=arguments.procedure,
        rules=rules,
    )
