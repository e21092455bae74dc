"""Segment a stack by jobs of SLURM: each job is a worker of a Dask cluster, which ends with it.

    segment_on_slurm.py --jobs 8 --cores 8 --job-memory 16GB STACK --weights MODEL -o OUT.zarr

What follows STACK is what `unet segment` takes. All machines must see the same files. It runs where
jobs are submitted, for as long as the segmentation takes; jobs that SLURM ends cost their blocks,
and what is done is kept if it is stopped itself.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from unet.command.options import whole
from unet.command.running import run_program
from unet.command.segment import main as segment
from unet.errors import InputError


def main(argv: Sequence[str] | None = None) -> int | None:
    """Submit the jobs, and have them segment a stack."""
    options = parse(argv)
    with cluster_of(options) as cluster:
        if options.print_job:
            print(cluster.job_script(), end="")
            return None
        if shutil.which("sbatch") is None:
            raise InputError(
                "sbatch is not there: run this where jobs of SLURM are submitted, or see the job's "
                "script with --print-job"
            )
        cluster.scale(jobs=options.jobs)
        return segment([options.stack, *options.rest, "--scheduler", cluster.scheduler_address])


def cluster_of(options: argparse.Namespace) -> Any:
    """Return the `dask_jobqueue.SLURMCluster`, which as a context ends its jobs."""
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise InputError(
            "jobs of SLURM need the package dask_jobqueue: pip install -e '.[dask]'"
        ) from None
    directives = [f"--{directive.lstrip('-')}" for directive in options.directive]
    return SLURMCluster(
        # A worker computes one block at a time, with all cores of its job.
        cores=1,
        processes=1,
        job_cpu=options.cores,
        memory=options.job_memory,
        queue=options.partition,
        account=options.account,
        walltime=options.walltime,
        interface=options.interface,
        job_name="unet-segment",
        job_extra_directives=directives,
        job_script_prologue=[f"export OMP_NUM_THREADS={options.cores}"],
        log_directory=options.logs,
        python=sys.executable,
        scheduler_options={"dashboard_address": None},
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # Abbreviated, options of `unet segment` before the stack would be taken for these.
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--jobs", type=whole(1, 100_000), default=1, metavar="N", help="jobs (%(default)s)")
    add("--cores", type=whole(1, 4096), default=4, metavar="N", help="of a job (%(default)s)")
    add("--job-memory", default="8GB", metavar="SIZE", help="of a job (%(default)s)")
    add("--walltime", default="04:00:00", metavar="H:M:S", help="of a job (%(default)s)")
    add("--partition", metavar="NAME", help="where jobs are queued")
    add("--account", metavar="NAME", help="that pays for them")
    add("--interface", metavar="NAME", help="network device by which jobs reach this machine, ib0")
    gpu = "another line for sbatch, such as gres=gpu:1; may be given again"
    add("--directive", action="append", default=[], metavar="TEXT", help=gpu)
    add("--logs", metavar="FOLDER", help="for what jobs print (default: the working folder)")
    add("--print-job", action="store_true", help="print the job's script and submit nothing")
    add("stack", help="as of `unet segment`")
    add("rest", nargs=argparse.REMAINDER, metavar="...", help="options of `unet segment`")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_program(main)
