"""How much memory a pass of a network may take, and whether it was too little."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import time
from pathlib import Path

# The rest is for what else runs here, and for what the allocators lose between their blocks.
_SHARE_OF_RAM = 0.8
_SHARE_OF_GPU = 0.5
# Where the GPU cannot be asked.
_GPU_BYTES = 2.0 * 2**30
_SHORT = re.compile(r"memory|bad_alloc|could not create a primitive(?! descriptor)")
_CGROUP = Path("/sys/fs/cgroup")
# Seconds for which what a GPU has said holds.
_ANEW = 60.0


def is_short_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory is too short, whoever raised it.

    oneDNN, by which convolutions are computed on CPUs, only says that a primitive cannot be
    created; one that it does not have it calls a primitive descriptor.

    >>> is_short_of_memory(RuntimeError("CUDA out of memory")), is_short_of_memory(MemoryError())
    (True, True)
    >>> is_short_of_memory(RuntimeError("could not create a primitive"))
    True
    >>> is_short_of_memory(RuntimeError("could not create a primitive descriptor for convolution"))
    False
    """
    if isinstance(error, RuntimeError):
        return _SHORT.search(str(error)) is not None
    return isinstance(error, MemoryError)


def free_ram() -> float:
    """Return the bytes of main memory that are still free, within the limits of a container."""
    import psutil

    free = float(psutil.virtual_memory().available)
    for limit, used, told, name in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        try:
            taken = int((_CGROUP / used).read_text())
            free = min(free, int((_CGROUP / limit).read_text()) - taken + _waiting(told, name))
        except (OSError, ValueError):
            # There is no such limit: the file is missing, or says "max".
            continue
    return max(free, 0.0)


def _waiting(told: str, name: str) -> int:
    """Return the bytes that a container gives back as soon as it is short of memory.

    Of files that were read, say a stack, and of what programs have declared to be free.
    """
    try:
        found = re.search(rf"^{name} (\d+)$", (_CGROUP / told).read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def free_on_gpu(number: int) -> float | None:
    """Return the bytes that are free on a GPU, None where they cannot be asked for.

    GPUs count as Caffe counts them: among those that CUDA_VISIBLE_DEVICES leaves.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    name = visible[number].strip() if visible[0] and number < len(visible) else str(number)
    return _told_free(name, int(time.monotonic() // _ANEW))


@functools.lru_cache(maxsize=64)
def _told_free(name: str, period: int) -> float | None:
    """Ask for `free_on_gpu`; the same period is not asked for twice: it takes 20 ms and more."""
    command = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits", "-i", name]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return float(answer.stdout.split()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def pass_memory(device: str) -> float:
    """Return the bytes that one pass may take where it is computed; "auto" counts GPU 0, if any."""
    if device == "cpu":
        return _SHARE_OF_RAM * free_ram()
    free = free_on_gpu(0 if device == "auto" else int(device))
    if free is not None:
        return _SHARE_OF_GPU * free
    return _SHARE_OF_RAM * free_ram() if device == "auto" else _GPU_BYTES


def array_memory(device: str) -> float | None:
    """Return the bytes that arrays may take beside passes; None: both come out of the same."""
    if device == "cpu" or (device == "auto" and free_on_gpu(0) is None):
        return None
    return _SHARE_OF_RAM * free_ram()
