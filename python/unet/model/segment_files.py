"""A stack segmented into files, by one process, several or a cluster; one stopped goes on."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from tqdm import tqdm

from unet.errors import InputError, few
from unet.files.names import split_name
from unet.machine.memory import pass_memory
from unet.model.job import BlockWorker, Job
from unet.model.model import Model, load
from unet.segmentation.blocks import Block
from unet.segmentation.cluster import compute_on_cluster
from unet.segmentation.options import Plan
from unet.segmentation.progress import Progress, changed_text, identity_of, stamps_of
from unet.segmentation.provenance import command_of, describe, sha256_of
from unet.segmentation.workers import compute_by_workers
from unet.segmentation.write import fingerprint_of, output_bytes, write_segmentation
from unet.volumes import Volume, open_volume
from unet.volumes.file_numbers import missing_numbers


class Segmented(NamedTuple):
    """How segmenting went.

    Attributes
    ----------
    plan : Plan
    share : float
        How much of the stack was computed now, and not by a run before: 0 to 1.
    seconds : float
        That it took.
    flat : list of int
        The slices of one value, in which there is nothing to see.
    """

    plan: Plan
    share: float
    seconds: float
    flat: list[int]


def segment_files(job: Job) -> Segmented:
    """Segment a stack into files; go on where a run that was stopped has come to. It says how.

    Raises
    ------
    InputError, MemoryError
        If an input is missing or unfit, or an output would damage something; as
        `unet.model.Model.plan` and `unet.segmentation.write.write_segmentation`. What is done is
        kept, which they tell.
    """
    before = stamps_of(job.stack)
    with _opened(job) as (model, volume, plan):
        begin = time.perf_counter()
        with _begun(job, model, volume, plan) as (progress, plan):
            print(plan, flush=True)
            stacks = job.files.stacks()
            if stacks and (gaps := missing_numbers(volume)):
                print(
                    f"look at this: the files of {volume.path} leave out the numbers {few(gaps)}; "
                    f"in {few(stacks)} slices are counted without them"
                )
            share = 1 - progress.count() / len(plan.blocks)
            run = partial(model.run, volume, plan, progress=True)
            many = len(job.devices) > 1 or job.scheduler
            elsewhere = partial(_compute_elsewhere, job, plan) if many else None
            network = {"model": job.model, "weights": job.weights, "net": job.net}
            command = command_of(job.stack, job.part, network, job.options)
            note = describe(plan, job.network()[1], command)
            check = partial(progress.check_stack, job.stack, before)
            flat = write_segmentation(run, plan, job.files, progress, note, elsewhere, check)
        return Segmented(plan, share, time.perf_counter() - begin, flat)


def estimate_files(job: Job) -> str:
    """Return what `segment_files` would take, from one pass that is measured; nothing is written.

    Raises
    ------
    InputError, MemoryError
        As `segment_files`.
    """
    with _opened(job) as (model, _, plan):
        seconds, written = model.measure_pass(plan), output_bytes(job.files, plan)
    processes = len(job.devices)
    # Processes without GPUs share the cores, which one pass has already.
    at_once = processes if job.devices[0].isdigit() else 1
    hours, rest = divmod(round(plan.passes * seconds / at_once), 3600)
    twice = sum(size for path, size in written.items() if path.suffix.lower() != ".zarr")
    return (
        f"{plan}\n"
        f"{plan.passes} passes of {seconds:.2f} s, as one was measured: about {hours} h "
        f"{rest // 60:02d} min {rest % 60:02d} s; memory about {plan.memory / 2**30:.2f} GB beside "
        f"the program{f', in each of {processes} processes' * (processes > 1)}; written "
        f"{_size(sum(written.values()))} before compression"
        f"{f', and {_size(twice)} more until all is whole' * (twice > 0)}; nothing was written"
    )


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GB" if count >= 2**30 else f"{count / 2**20:.2f} MB"


@contextlib.contextmanager
def _opened(job: Job) -> Iterator[tuple[Model, Volume, Plan]]:
    """Open model and stack, and plan."""
    job.check_files()
    net, weights = job.network()
    model = load(weights, net, device=job.devices[0], precision=job.precision)
    with open_volume(job.stack, channels=model.channels, **job.part, colours=True) as volume:
        yield model, volume, model.plan(volume, job.options)


def _compute_elsewhere(
    job: Job, plan: Plan, blocks: Sequence[Block], noted: Callable[[], object]
) -> None:
    """Have other processes compute blocks, and put them away; `noted` is called after each."""
    devices = job.devices
    with tqdm(total=len(blocks), unit="block", disable=None, leave=False) as bar:

        def told() -> None:
            bar.update()
            noted()

        if job.scheduler:
            worker = BlockWorker(job.absolute(), plan)
            compute_on_cluster(worker, blocks, job.scheduler, devices[0], told=told)
            return
        memory = plan.cost.memory(plan.tiling.tile) * len(devices)
        if not devices[0].isdigit() and memory > pass_memory(devices[0]):
            raise InputError(
                f"--workers {len(devices)}: as many passes at once do not fit into memory; take "
                f"fewer, or a smaller --tile"
            )
        compute_by_workers(BlockWorker(job, plan), blocks, devices, told=told)


@contextlib.contextmanager
def _begun(job: Job, model: Model, volume: Volume, plan: Plan) -> Iterator[tuple[Progress, Plan]]:
    """Open what is done of the run, say so, and give the plan by which it goes on."""
    net, weights = job.network()
    network = {
        "weights": sha256_of(weights),
        "network": sha256_of(net),
        "device": job.device,
        "precision": job.precision,
        "part": [split_name(job.stack)[1], *job.part.values()],
    }
    fingerprint = fingerprint_of(plan, job.files, job.options, network)
    identity = identity_of(job.stack)
    chosen = {"tile": list(plan.tiling.tile), "block": list(plan.block)}
    begun = Progress.open(
        job.files.first,
        fingerprint,
        identity=identity,
        chosen=chosen,
        anew=job.files.overwrite,
    )
    with begun as progress:
        if progress.anew:
            print(progress.anew)
        if progress.chosen["tile"] != chosen["tile"]:
            tile = tuple(progress.chosen["tile"])
            try:
                plan = model.plan(volume, replace(job.options, tile=tile))
            except InputError:
                # It does not fit into the memory that is free now.
                progress.choose({**progress.chosen, "tile": chosen["tile"]})
        # What is done is kept by blocks.
        plan = replace(plan, block=tuple(progress.chosen["block"]))
        if not progress.is_same_stack:
            changed = progress.drop_changed(plan.blocks, volume.region, identity)
            if changed:
                print(changed_text(changed))
        if progress.count():
            print(f"going on: {progress.count()} of {len(plan.blocks)} blocks are done", flush=True)
        try:
            yield progress, plan
        except KeyboardInterrupt:
            if progress.kept:
                print(progress.kept, file=sys.stderr)
            raise
