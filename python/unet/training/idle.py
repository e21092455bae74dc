"""Trainings in which nothing is learnt: they are stopped with a sentence, not called trained."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from unet.errors import InputError

# A tile without an annotated pixel has no loss; so many in a row from the start are no accident.
MOST_WITHOUT_LOSS = 100


def refuse_idle_net(net: Any, source: str) -> None:
    """Refuse the net of the solver `source` if it cannot learn, before anything is trained.

    It is an InputError if it has no parameters, or none of its blobs is a loss of a weight other
    than 0.
    """
    if not any(blob.count for blobs in net.params.values() for blob in blobs):
        raise InputError(
            f"{source}: the net that it trains has no parameters, so none can be learnt"
        )
    if not any(net.blob_loss_weights.values()):
        raise InputError(
            f"{source}: the net that it trains has no loss, or a loss_weight of 0, so nothing "
            f"would be learnt; give a layer of the net a loss_weight"
        )


class IdleWatch:
    """Watch the first iterations of a training until something has been learnt.

    `net` is as it is before the first of them, `source` its solver. Weight decay moves parameters
    without a loss, and a loss may be there while all learning rates are 0: both a loss other than 0
    and a parameter that has changed must be seen.
    """

    def __init__(self, net: Any, source: str) -> None:
        self._net, self._source = net, source
        self._before = [zlib.crc32(blob) for blob in self._parameters()]
        self._lossless = 0
        self._had_loss = self._moved = False

    def _parameters(self) -> list[np.ndarray]:
        return [
            np.ascontiguousarray(blob.data) for blobs in self._net.params.values() for blob in blobs
        ]

    def note(self, loss: float, rate: float) -> None:
        """Note an iteration's loss and learning rate; an InputError if nothing can be learnt."""
        if self._had_loss and self._moved:
            return
        self._had_loss |= loss != 0
        self._lossless += loss == 0
        self._moved = self._moved or any(
            zlib.crc32(blob) != before for blob, before in zip(self._parameters(), self._before)
        )
        if self._lossless == MOST_WITHOUT_LOSS and not self._had_loss:
            self.finish()
        # Where the rate begins at 0, it may grow.
        if loss != 0 and rate != 0 and not self._moved:
            raise InputError(
                f"{self._source}: an iteration with the loss {loss:g} and the rate {rate:g} "
                f"changed no parameter: every lr_mult is 0, or the rate is too small"
            )

    def finish(self) -> None:
        """Note that there are no more; an InputError if nothing was learnt in those that were."""
        if self._lossless and not self._had_loss:
            raise InputError(
                f"{self._source}: the loss was exactly 0 in all of the first {self._lossless} "
                f"iterations, so nothing was learnt: the labels are all ignored, or their weights "
                f"all 0"
            )
        if self._had_loss and not self._moved:
            raise InputError(
                f"{self._source}: no parameter has changed, for the learning rate was 0 "
                f"throughout; set base_lr, or --rate"
            )
