"""Segment a stack with a trained network: probability, class or cell of every pixel.

With two classes the probability is that of class 1 (inside a cell), and --classes is white there.
With more, probabilities have one channel a class, and --classes the classes' numbers. --instances
tells which cell each pixel belongs to: 0 none, 1, 2, ... in each slice anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from unet.command.options import (
    add_cells,
    add_device,
    add_network,
    add_overwrite,
    add_part,
    parse_slices,
    parse_tile,
    part_of,
    real,
    rules_of,
    whole,
)
from unet.errors import InputError, few
from unet.model import find_model
from unet.model.defaults import take_defaults
from unet.model.job import Job
from unet.model.segment_files import estimate_files, segment_files
from unet.segmentation.instances import InstanceRules
from unet.segmentation.options import SegmentationOptions
from unet.segmentation.segment import TTA
from unet.segmentation.write import SegmentationFiles


def main(argv: Sequence[str] | None = None) -> None:
    """Segment a stack."""
    arguments = parse(argv)
    net, _ = find_model(arguments.model or arguments.weights, arguments.net)
    if said := take_defaults(vars(arguments), net):
        print(said)
    job = job_of(arguments)
    if arguments.dry_run:
        print(estimate_files(job))
        return
    plan, share, seconds, flat = segment_files(job)
    if share:
        print(
            f"{seconds:.1f} s, {seconds / share / len(plan.slices):.2f} s a slice, "
            f"{plan.work * share / seconds / 1e9:.0f} G multiply-adds a second"
        )
    for output in job.files.outputs():
        print(f"written: {output.path}")
    if flat:
        print(f"look at this: all pixels are of one grey value in slices {few(flat)}")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, file = parser.add_argument, dict(type=Path, metavar="FILE")
    add("stack", help="TIFF, PNG, folder of them, HDF5 or Zarr (FILE:/dataset names one inside)")
    add_part(parser, "of the stack, of --truth all but the channel, where it has several")
    add_network(parser)
    kinds = ".tif, .h5, .zarr, .png, or a folder of PNG"
    add("-o", "--output", dest="probabilities", **file, help=f"write probabilities: {kinds}")
    add("--classes", **file, help="write the likeliest class")
    add("--instances", **file, help="write the cells' numbers")
    types = dict(choices=("float32", "uint8"))
    add("--dtype", **types, help="of probabilities; uint8 is 255 for 1, and what PNG holds")
    add("--zarr-format", type=int, choices=(2, 3), help="2: NGFF 0.4, 3: 0.5 (default: the newest)")
    add("--tta", choices=tuple(TTA), help="mean over 4 mirrored, 4 rotated or 8 orientations")
    add(
        "--procedure",
        choices=("2015",),
        help="segment as the authors did with their networks of 2015: fixes --tile (2 tiles joined "
        "without overlap), --tta mirror and --minimum-area 501; then tools/track.py "
        "--procedure 2015",
    )
    add("--tile", metavar="N|HxW", help="input size, 16k + 60 (default: the cheapest that fits)")
    add(
        "--memory",
        type=real(0, 1e9),
        metavar="GB",
        help="that passes and blocks of slices may take, on a GPU passes alone; the program itself "
        "takes some 0.5 more (default: most of what is free, half of it on a GPU)",
    )
    takes = "tiles, passes, memory, time by one pass that is measured, size"
    add("--dry-run", action="store_true", help=f"say what it would take ({takes}); write nothing")
    add_device(parser)
    many = "processes, which share the cores; GPUs take one each, --device 0,1 names them"
    add("--workers", type=whole(1, 4096), metavar="N", help=many)
    asked = "a Dask cluster computes, whose machines see the same files (tcp://HOST:8786)"
    add("--scheduler", metavar="ADDRESS", help=asked)
    through = "counted through all time points where each has several (default: all)"
    add("--slices", metavar="A:B", help=f"segment slices A to B - 1, from 0, {through}")
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
    add_cells(parser)
    more = "uint32 holds more than 65535 cells (default: uint16, above 2^26 pixels uint32)"
    add("--instance-dtype", choices=("uint16", "uint32"), help=more)
    return parser.parse_args(argv)


def job_of(arguments: argparse.Namespace) -> Job:
    """Return all that was asked for."""
    rules = rules_of(arguments)
    if not arguments.instances and rules != InstanceRules():
        raise InputError(
            "--threshold, --minimum-area, --fill-holes and --watershed say what is a cell of "
            "--instances: name that file as well"
        )
    part = part_of(arguments)
    given = {one.name: getattr(arguments, one.name, None) for one in fields(SegmentationFiles)}
    # Channels are of pictures; levels, time points and scenes labels may have, too.
    given["truth_part"] = {name: one for name, one in part.items() if name != "channel"}
    files = SegmentationFiles(**given)
    return Job(
        stack=arguments.stack,
        part=part,
        model=arguments.model,
        weights=arguments.weights,
        net=arguments.net,
        options=SegmentationOptions(
            tta=arguments.tta,
            tile=parse_tile(arguments.tile),
            memory=None if arguments.memory is None else arguments.memory * 2**30,
            intensity=None if arguments.grey is None else tuple(arguments.grey),
            normalise=arguments.normalise,
            slices=parse_slices(arguments.slices),
            procedure=arguments.procedure,
            rules=rules,
        ),
        files=files,
        device=arguments.device,
        precision=arguments.precision,
        workers=arguments.workers or 0,
        scheduler=arguments.scheduler,
    )
