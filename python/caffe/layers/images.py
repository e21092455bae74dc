"""Pictures in files, by OpenCV as in Caffe: channels blue, green, red."""

from __future__ import annotations

import numpy as np

# OpenCV is imported where an image is read: few nets read any, and it takes 16 MB.


def decode(data: bytes, color: bool | None) -> np.ndarray | None:
    """Return an encoded image as (channels, height, width), blue first; None: not an image.

    With three channels if `color`, else with one; by None as it is.
    """
    import cv2

    flag = cv2.IMREAD_UNCHANGED if color is None else cv2.IMREAD_COLOR if color else 0
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:
        # No bytes at all, or more pixels than OpenCV reads.
        return None
    if image is None:
        return None
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


def load(path: str) -> np.ndarray | None:
    """Return the image of a file as (rows, columns, 3), in colour; None: not an image."""
    import cv2

    return cv2.imread(path, cv2.IMREAD_COLOR)


def resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return a (rows, columns) or (rows, columns, channels) image resized, bilinear."""
    import cv2

    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
