"""Blocks of a stack, computed by the workers of a Dask cluster.

As those of `unet.segmentation.workers` they share nothing but files: the stack, the network and the
output must have the same names on all machines. A worker that dies costs its block.
"""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Sequence
from typing import Any

from unet.errors import InputError
from unet.segmentation.blocks import Block
from unet.segmentation.workers import Compute, Open, Told

# Blocks that each thread of the cluster is given ahead of need.
_AHEAD = 2
# Of the run that this process computes blocks of: the name, and what is open. A net computes one
# block at a time.
_opened: dict[str, Compute] = {}
_turn = threading.Lock()


def compute_on_cluster(
    opener: Open, blocks: Sequence[Block], address: str, device: str, *, told: Told = lambda: None
) -> None:
    """Compute blocks on a Dask cluster.

    Parameters
    ----------
    opener, blocks, told
        As of `unet.segmentation.workers.compute_by_workers`; files are named by absolute paths.
    address : str
        Of the scheduler, such as "tcp://node7:8786".
    device : str
        Of each worker. With "auto" it is the first GPU that CUDA_VISIBLE_DEVICES leaves to it, if
        there is one.

    Raises
    ------
    InputError
        If Dask is not installed, or no scheduler answers.
    MemoryError
        If a block has killed several workers.
    """
    try:
        from distributed import Client, KilledWorker, as_completed
    except ImportError:
        raise InputError(
            "--scheduler needs the package distributed: pip install 'dask[distributed]'"
        ) from None
    try:
        client = Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"--scheduler {address}: no scheduler answers there ({reason}); start one with "
            f"'dask scheduler', and workers with 'dask worker {address} --nthreads 1'"
        ) from None
    run = uuid.uuid4().hex
    coming = iter(blocks)
    with client:

        def submit(block: Block) -> Any:
            # Not pure: the result is a file, which Dask does not know.
            return client.submit(_compute, run, opener, device, block, pure=False)

        threads = sum(client.nthreads().values())
        first = itertools.islice(coming, max(threads, 1) * _AHEAD)
        under_way = as_completed([submit(block) for block in first], loop=client.loop)
        try:
            for future in under_way:
                future.result()
                told()
                for block in itertools.islice(coming, 1):
                    under_way.add(submit(block))
        except KilledWorker as error:
            raise MemoryError(
                f"a block has killed several workers, probably out of memory: give workers more, "
                f"or take a smaller --tile ({error.task})"
            ) from None


def _compute(run: str, opener: Open, device: str, block: Block) -> None:
    with _turn:
        if run not in _opened:
            _opened.clear()
            _opened[run] = opener(device)
        _opened[run](block)
