"""Arrays of any length as batches, which go to a GPU and come back while it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch

from caffe import common, device_memory, late_checks
from caffe.blob import Blob


def cut(arrays: Mapping[str, Sequence[np.ndarray]], size: int) -> Iterator[dict[str, np.ndarray]]:
    """Cut arrays into batches of `size` items, the last one filled up with zeros."""
    total = len(next(iter(arrays.values())))
    for first in range(0, total, size):
        batch = {}
        for name, values in arrays.items():
            part = np.asarray(values[first : first + size])
            missing = size - len(part)
            if missing:
                part = np.concatenate([part, np.zeros((missing, *part.shape[1:]))])
            batch[name] = part
        yield batch


class _Lane:
    """A stream of copies beside what is computed; on a CPU copies are made at once."""

    def __init__(self, where: torch.device) -> None:
        self._where = where
        self._stream = torch.cuda.Stream(where) if where.type == "cuda" else None

    def up(self, host: torch.Tensor) -> torch.Tensor:
        """Return a copy on the device of what lies in pinned memory; `join` before its use."""
        if self._stream is None:
            return host.to(self._where, copy=True)
        with torch.cuda.stream(self._stream):
            tensor = host.to(self._where, non_blocking=True)
        # It is used on another stream than it was made for.
        tensor.record_stream(torch.cuda.current_stream(self._where))
        return tensor

    def join(self) -> None:
        """Let what is computed from now on begin after the copies made so far."""
        if self._stream is not None:
            torch.cuda.current_stream(self._where).wait_stream(self._stream)

    def down(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return memory of the host that a tensor will be copied to, once it is computed."""
        host = device_memory.host_memory(tuple(tensor.shape))
        if self._stream is None:
            return host.copy_(tensor)
        self._stream.wait_stream(torch.cuda.current_stream(self._where))
        with torch.cuda.stream(self._stream):
            host.copy_(tensor, non_blocking=True)
        tensor.record_stream(self._stream)
        return host

    def done(self) -> Callable[[], None]:
        """Return what lets the host wait for the copies made so far."""
        if self._stream is None:
            return lambda: None
        event = torch.cuda.Event()
        event.record(self._stream)
        return event.synchronize


def forward_overlapped(
    inputs: Iterable[Mapping[str, np.ndarray]],
    blobs: Mapping[str, Blob],
    names: Sequence[str],
    write: Callable[[str, np.ndarray, np.ndarray], None],
    run: Callable[[], object],
) -> Iterator[dict[str, np.ndarray]]:
    """Run a net on one batch after the other.

    Parameters
    ----------
    inputs : iterable of mapping of str to ndarray
        Of each batch, the values of all input blobs.
    blobs : mapping of str to Blob
    names : sequence of str
        Of the blobs that are wanted.
    write : callable
        Given an input's name, its array and values writes them, or raises an error.
    run : callable
        Runs all layers forward.

    Yields
    ------
    dict
        Of each batch: blob name -> float32 array of its own.

    Raises
    ------
    CaffeError
        After the last batch, if one held values that a layer refuses.
    """
    where = common.current_device()
    coming, going = _Lane(where), _Lane(where)

    def fetch(batch: Mapping[str, np.ndarray] | None) -> dict[str, torch.Tensor] | None:
        if batch is None:
            return None
        fetched = {}
        for name, values in batch.items():
            host = device_memory.host_memory(blobs[name].shape)
            write(name, host.numpy(), values)
            fetched[name] = coming.up(host)
        return fetched

    def give_back() -> tuple[dict[str, torch.Tensor], Callable[[], None]]:
        given = {}
        for name in names:
            # A copy on the device: the next pass may write where this one has written.
            made = blobs[name].data_tensor().clone(memory_format=torch.contiguous_format)
            given[name] = going.down(made)
        return given, going.done()

    batches = iter(inputs)
    fetched, last = fetch(next(batches, None)), None
    while fetched is not None:
        coming.join()
        for name, tensor in fetched.items():
            blobs[name].set_data(tensor)
        run()
        given = give_back()
        # The host does all this while the GPU computes.
        fetched = fetch(next(batches, None))
        if last is not None:
            yield _read(*last)
        last = given
    if last is not None:
        yield _read(*last)
    late_checks.settle()


def _read(given: Mapping[str, torch.Tensor], wait: Callable[[], None]) -> dict[str, np.ndarray]:
    wait()
    return {name: tensor.numpy() for name, tensor in given.items()}
