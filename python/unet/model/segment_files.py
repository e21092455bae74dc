"""A stack segmented into files, by one process, several or a cluster; one stopped goes on."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from tqdm import tqdm

from unet.errors import InputError, few
from unet.files.names import split_name
from unet.machine.memory import pass_memory
from unet.model.job import Job
from unet.model.model import Model
from unet.segmentation.blocks import Block
from unet.segmentation.cluster import compute_on_cluster
from unet.segmentation.options import Plan, SegmentationOptions
from unet.segmentation.progress import Progress, changed_text, identity_of
from unet.segmentation.provenance import describe, sha256_of
from unet.segmentation.workers import compute_by_workers
from unet.segmentation.write import fingerprint_of, write_segmentation
from unet.volumes import Volume
from unet.volumes.file_numbers import missing_numbers


def segment_files(
    job: Job,
    model: Model,
    volume: Volume,
    options: SegmentationOptions,
    *,
    device: str,
    devices: Sequence[str],
    scheduler: str | None = None,
    command: str = "",
) -> tuple[float, list[int]]:
    """Segment a stack into files; go on where a run that was stopped has come to. It says how.

    Parameters
    ----------
    job : Job
        The stack, the network, what is written, and the plan of `options`.
    model, volume : Model, Volume
        What `job` names, opened.
    options : SegmentationOptions
    device : str
        As it was asked for.
    devices : sequence of str
        Of each process that computes: `unet.segmentation.workers.devices_of`.
    scheduler : str, optional
        Address of the Dask cluster that computes instead.
    command : str
        For the files' provenance.

    Returns
    -------
    share : float
        How much of the stack was computed now, and not by a run before: 0 to 1.
    flat : list of int
        The slices of one value, in which there is nothing to see.

    Raises
    ------
    InputError, MemoryError
        As `unet.segmentation.write.write_segmentation`; what is done is kept, which they tell.
    """
    with _begun(job, model, volume, options, device) as (progress, plan):
        job = replace(job, plan=plan)
        print(plan, flush=True)
        stacks = job.files.stacks()
        if stacks and (gaps := missing_numbers(volume)):
            print(
                f"look at this: the files of {volume.path} leave out the numbers {few(gaps)}; "
                f"in {few(stacks)} slices are counted without them"
            )
        share = 1 - progress.count() / len(plan.blocks)
        if len(devices) > 1 or scheduler:
            missing = [block for block in plan.blocks if not progress.done(block)]
            _compute_elsewhere(job, missing, devices, scheduler)
        run = partial(model.run, volume, plan, progress=True)
        note = describe(plan, job.weights, command)
        return share, write_segmentation(run, plan, job.files, progress, note)


def _compute_elsewhere(
    job: Job, blocks: Sequence[Block], devices: Sequence[str], scheduler: str | None
) -> None:
    """Have other processes compute blocks into the progress that is open."""
    with tqdm(total=len(blocks), unit="block", disable=None, leave=False) as bar:
        if scheduler:
            compute_on_cluster(job.absolute(), blocks, scheduler, devices[0], bar=bar)
            return
        memory = job.plan.cost.memory(job.plan.tiling.tile) * len(devices)
        if devices[0] == "cpu" and memory > pass_memory("cpu"):
            raise InputError(
                f"--workers {len(devices)}: as many passes at once do not fit into memory; take "
                f"fewer, or a smaller --tile"
            )
        compute_by_workers(job, blocks, devices, bar=bar)


@contextlib.contextmanager
def _begun(
    job: Job, model: Model, volume: Volume, options: SegmentationOptions, device: str
) -> Iterator[tuple[Progress, Plan]]:
    """Open what is done of the run, say so, and give the plan by which it goes on."""
    plan = job.plan
    network = {
        "weights": sha256_of(job.weights),
        "network": sha256_of(job.net),
        "device": device,
        "precision": job.precision,
        "part": [split_name(job.stack)[1], *job.part.values()],
    }
    fingerprint = fingerprint_of(plan, job.files, options, network)
    identity = identity_of(job.stack)
    chosen = {"tile": list(plan.tiling.tile), "block": list(plan.block)}
    begun = Progress.open(job.files.first, fingerprint, identity=identity, chosen=chosen)
    with begun as progress:
        if progress.anew:
            print(progress.anew)
        if progress.chosen["tile"] != chosen["tile"]:
            tile = tuple(progress.chosen["tile"])
            try:
                plan = model.plan(volume, replace(options, tile=tile))
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
