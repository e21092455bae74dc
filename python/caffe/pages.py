"""Pages of main memory that blobs of a pass leave to those made after them.

The system hands out fresh pages one by one, and clears each: for the blobs of a pass, each of which
lives for a few layers, that takes a tenth of the time of the pass itself. Here the pages of a blob
that is gone move to where the next one lies. None waits for a fitting size, so that blobs together
take no more than they do at the worst moment of the pass. Those that are idle after it wait for the
next one, if what comes between needs no such memory; the system takes them as soon as it is short.
"""

from __future__ import annotations

import ctypes
import functools
import math
import mmap
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Of x86-64 and of most others: what `mremap` moves as one entry of a table.
_HUGE = 2 * 2**20
# As of Linux; Python does not name them.
_MREMAP_MAYMOVE, _MREMAP_FIXED = 1, 2
_FAILED = ctypes.c_void_p(-1).value

# Where pages lie that nobody uses: (address, bytes). Blobs vanish in any thread and at any moment,
# even while this one takes pages: no lock, but a deque that many may change at once.
_idle: deque[tuple[int, int]] = deque()
# How many passes run, which may be in several threads.
_passes = 0
# Bytes below which blobs are left to the allocator.
_least = 32 * 2**20
_counting = threading.Lock()


def set_least(count: int) -> None:
    """Set the bytes from which on the allocator gives blocks back to the system at once."""
    global _least
    _least = count


@contextmanager
def passed_on(kept: bool) -> Iterator[None]:
    """Pass pages on from blob to blob inside the block, which is a pass forward.

    Parameters
    ----------
    kept : bool
        Whether pages that are idle at the end wait for the next pass. What a pass backward computes
        would come on top of them.
    """
    _count_passes(1)
    try:
        yield
    finally:
        _count_passes(-1)
        if not (_passes or (kept and _may_be_taken())):
            give_back()


def give_back() -> None:
    """Give idle pages back to the system."""
    while (run := _next_idle()) is not None:
        _system().munmap(*run)


def empty(shape: tuple[int, int, int, int]) -> torch.Tensor:
    """Return a float32 tensor of any values on the CPU, channels last, on such pages if there are.

    Parameters
    ----------
    shape : (n, channels, height, width)
    """
    n, channels, height, width = shape
    count = math.prod(shape)
    address = _mapped(4 * count) if _passes and 4 * count >= _least and _system() else None
    if address is None:
        return torch.empty(shape, memory_format=torch.channels_last)
    memory = (ctypes.c_float * count).from_address(address)
    # The tensor, and each view of it, keeps that object.
    weakref.finalize(memory, _leave, address, _rounded(4 * count)).atexit = False
    pixels = torch.frombuffer(memory, dtype=torch.float32).view(n, height, width, channels)
    return pixels.permute(0, 3, 1, 2)


def _count_passes(more: int) -> None:
    global _passes
    with _counting:
        _passes += more


@functools.cache
def _system() -> ctypes.CDLL | None:
    """Return the C library, where the system can move pages: on Linux."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    size, address, number = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int
    library.mmap.argtypes = [address, size, number, number, number, ctypes.c_long]
    library.munmap.argtypes = [address, size]
    library.mremap.argtypes = [address, size, size, number, address]
    library.madvise.argtypes = [address, size, number]
    library.mmap.restype = library.mremap.restype = address
    return library


def _rounded(count: int) -> int:
    return -(-count // _HUGE) * _HUGE


def _mapped(count: int) -> int | None:
    """Return the address of so many bytes, of idle pages first; None if the system refuses."""
    system, size = _system(), _rounded(count)
    protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    found = system.mmap(None, size + _HUGE, protection, flags, -1, 0)
    if found == _FAILED:
        return None
    # Of what lies around huge pages nothing has been touched.
    start = _rounded(found)
    if start > found:
        system.munmap(found, start - found)
    if start < found + _HUGE:
        system.munmap(start + size, found + _HUGE - start)
    system.madvise(start, size, mmap.MADV_HUGEPAGE)
    filled = 0
    while filled < size and (run := _next_idle()) is not None:
        address, length = run
        moved = min(length, size - filled)
        if length > moved:
            _idle.append((address + moved, length - moved))
        flags = _MREMAP_MAYMOVE | _MREMAP_FIXED
        if system.mremap(address, moved, moved, flags, start + filled) == _FAILED:
            # Too many pieces, say: fresh pages do as well.
            system.munmap(address, moved)
            break
        filled += moved
    return start


def _may_be_taken() -> bool:
    """Let the system take idle pages when it is short of memory; tell whether it can do that."""
    advice = getattr(mmap, "MADV_FREE", None)
    for _ in range(len(_idle)):
        run = _next_idle()
        if run is None:
            break
        _idle.appendleft(run)
        if advice is None or _system().madvise(*run, advice):
            return False
    return True


def _next_idle() -> tuple[int, int] | None:
    try:
        return _idle.pop()
    except IndexError:
        return None


def _leave(address: int, count: int) -> None:
    """Leave the pages of a tensor that is gone to others."""
    if _passes:
        _idle.append((address, count))
    else:
        _system().munmap(address, count)
