"""What a model segments, told picture by picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest

import unet.model.model
from unet.segmentation.segment import Picture


def watch(monkeypatch: pytest.MonkeyPatch, look: Callable[[Picture], object]) -> None:
    """Have `look` called of each picture before a model segments it; it may raise an error."""
    real = unet.model.model.segment_pictures

    def segment_pictures(net: Any, pictures: Iterable[Picture], **how: Any) -> Iterator[np.ndarray]:
        for picture in pictures:
            look(picture)
            yield from real(net, [picture], **how)

    monkeypatch.setattr(unet.model.model, "segment_pictures", segment_pictures)
