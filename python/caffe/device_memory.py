"""Memory of the host and of the device: pinned, copied up and down, kept by the allocator."""

from __future__ import annotations

import ctypes
import functools
import sys

import numpy as np
import torch

from caffe import common, pages


def host_memory(shape: tuple[int, ...]) -> torch.Tensor:
    """Return float32 memory of the host that the current device fetches from and brings to."""
    return torch.empty(shape, pin_memory=common.current_device().type == "cuda")


def upload(host: torch.Tensor, target: torch.Tensor, wait: bool) -> torch.cuda.Event | None:
    """Copy memory of the host to the device.

    Returns, where the host has not waited, what to wait for before it writes into `host` again.
    """
    later = not wait and target.device.type == "cuda" and host.is_pinned()
    target.copy_(host, non_blocking=later)
    if not later:
        return None
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(target.device))
    return done


def download(source: torch.Tensor, host: torch.Tensor) -> torch.cuda.Event:
    """Copy values of a GPU to pinned memory, once they are computed; what follows does not wait.

    Returns an event that is reached when that is done.
    """
    stream = _way_down(source.device)
    # A copy on the GPU: what is computed next may write where these values lie.
    values = source.clone(memory_format=torch.contiguous_format)
    stream.wait_stream(torch.cuda.current_stream(source.device))
    with torch.cuda.stream(stream):
        host.copy_(values, non_blocking=True)
    values.record_stream(stream)
    done = torch.cuda.Event()
    done.record(stream)
    return done


@functools.cache
def _way_down(where: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(where)


def to_current(values: np.ndarray) -> torch.Tensor:
    """Return an array of the host's as a tensor on the current device, which may keep it.

    On a GPU it goes by way of pinned memory, and the host does not wait.
    """
    tensor = torch.from_numpy(values)
    where = common.current_device()
    if where.type != "cuda":
        return tensor.to(where)
    # PyTorch does not use pinned memory anew before the GPU has fetched it.
    return tensor.pin_memory().to(where, non_blocking=True)


# Nets whose blobs take more than this, in bytes, are the ones whose memory matters.
_LARGE_NET = 768 * 2**20


def tune_allocator(blob_bytes: int) -> None:
    """Choose which freed blocks glibc keeps for the next pass, by what the data of all blobs take.

    A large net's large blocks go back to the system at once: kept ones leave holes that the next
    blob does not fit into, and a training step of the full U-Net peaks 0.1 GiB higher. Its small
    ones stay, which saves a tenth of its time for 0.02 GiB, and so do all of a small net: it would
    spend a third of its time on fresh pages.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    m_trim_threshold, m_mmap_threshold = -1, -3
    large = blob_bytes > _LARGE_NET
    given_back = (8 if large else 32) * 2**20
    mallopt(m_mmap_threshold, given_back)
    pages.set_least(given_back)
    mallopt(m_trim_threshold, (64 if large else 512) * 2**20)
