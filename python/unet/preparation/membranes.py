"""Whether masks are thin connected networks that divide the picture, as membranes do."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

# Of a slice no more is looked at, nor of more slices: what membranes look like is seen in a part.
_WINDOW, _SLICES = 768, 4
_EIGHT = np.ones((3, 3), bool)
# Of the ISBI 2012 stack's membranes 0.97 and more are connected; gaps in a drawing part little.
_CONNECTED = 0.5
# So much of the centre lines has another face on either side: of ISBI 2012 0.96 and more;
# filaments that cross each other end somewhere.
_DIVIDING = 0.93
# Mean distance to the edge, of the network's pixels over that of the faces': of ISBI 2012 0.2, of
# touching cells above 1.
_THIN = 0.45
# Faces that are large beside what divides them, and how many of all are: of ISBI 2012 0.85 and
# more, of filaments that cross each other at random 0.7 and less.
_FACES, _LARGE = 8, 0.75
# One face may not be nearly all there is.
_LARGEST_FACE = 0.7


class NetworkSurvey:
    """What masks of some slices look like; a handful of them is looked at.

    Notes
    -----
    They are a network of membranes if, in the slices together: most of each mask is one 8-connected
    component; it is thin beside what it leaves, by the mean distances to the edge; what it leaves
    falls into at least 8 4-connected faces, most of them large beside the width of what divides
    them; and nearly all of its centre lines (the skeleton: Zhang and Suen 1984) lie between two
    different faces. So filaments, which end somewhere, cells that touch, and blobs are none.
    """

    def __init__(self) -> None:
        self._slices = 0
        self._sums = np.zeros(len(_Measures))

    def add(self, mask: np.ndarray, known: np.ndarray | None = None) -> None:
        """Look at a slice.

        Parameters
        ----------
        mask : bool ndarray, shape (height, width)
            Of membranes, perhaps.
        known : bool ndarray, same shape, optional
            Where it was annotated; by default everywhere.
        """
        if self._slices == _SLICES:
            return
        window = _window(known, mask.shape)
        mask = mask[window]
        known = np.ones(mask.shape, bool) if known is None else known[window]
        mask, left = mask & known, ~mask & known
        if mask.any() and left.any():
            self._slices += 1
            self._sums += _measured(mask, left)

    @property
    def is_network(self) -> bool:
        """Whether the masks are a network of membranes."""
        if not self._slices:
            return False
        sums = dict(zip(_Measures, self._sums.tolist()))
        return (
            sums["largest part"] >= _CONNECTED * sums["mask"]
            and sums["depth"] * sums["left"] <= _THIN * sums["depth left"] * sums["mask"]
            and sums["large faces"] >= max(_FACES, _LARGE * sums["faces"])
            and sums["largest face"] <= _LARGEST_FACE * sums["left"]
            and sums["dividing"] >= _DIVIDING * sums["lines"]
        )


_Measures = (
    *("mask", "left", "largest part", "depth", "depth left"),
    *("faces", "large faces", "largest face", "lines", "dividing"),
)


def is_network(mask: np.ndarray) -> bool:
    """Tell whether the mask of one slice is a network of membranes, as `NetworkSurvey` does.

    Examples
    --------
    >>> lines = np.zeros((100, 100), bool)
    >>> lines[10::20], lines[:, 10::20] = True, True
    >>> is_network(lines), is_network(~lines)
    (True, False)
    """
    survey = NetworkSurvey()
    survey.add(mask)
    return survey.is_network


def _window(known: np.ndarray | None, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Return the middle of what was annotated, no larger than is looked at."""
    sides = (slice(0, shape[0]), slice(0, shape[1]))
    if known is not None and known.any():
        sides = ndimage.find_objects(known.astype(np.uint8))[0]
    starts = [side.start + max(0, side.stop - side.start - _WINDOW) // 2 for side in sides]
    rows, columns = (slice(a, min(side.stop, a + _WINDOW)) for a, side in zip(starts, sides))
    return rows, columns


def _inner(shape: tuple[int, int], margin: int) -> np.ndarray:
    inner = np.zeros(shape, bool)
    inner[margin : shape[0] - margin, margin : shape[1] - margin] = True
    return inner


def _measured(mask: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Return `_Measures` of a slice."""
    # It takes longer to import than most programs to start.
    from skimage.morphology import skeletonize

    parts = np.bincount(ndimage.label(mask, _EIGHT)[0].ravel())[1:]
    # The edge of the picture is none of the mask's.
    depth = ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1][mask]
    depth_left = ndimage.distance_transform_edt(~mask)[left].sum()
    faces = ndimage.label(left)[0]
    areas = np.bincount(faces.ravel())[1:]
    width = 2 * np.median(depth)
    large = areas > width**2
    # At the edge of the picture faces are cut off, and lines run along it.
    lines = skeletonize(mask) & _inner(mask.shape, int(np.ceil(2 * width)))
    nearest = ndimage.distance_transform_edt(
        faces == 0, return_distances=False, return_indices=True
    )
    face = faces[tuple(nearest)]
    between = ndimage.maximum_filter(face, 3) != ndimage.minimum_filter(face, 3)
    return np.array(
        [
            *(mask.sum(), left.sum(), parts.max(), depth.sum(), depth_left),
            *(len(areas), large.sum(), areas.max(), lines.sum(), (lines & between).sum()),
        ],
        float,
    )
