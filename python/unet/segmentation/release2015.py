"""The procedure of the networks that the authors published in 2015, for PhC-C2DH-U373.

It differs from this project's own in its tiles, which join without overlap off the poolings' grid,
in the zeros beyond the mirrored border, and in fixed rules for what is an instance.

References
----------
u-net-release-2015-10-02, segmentAndTrack (Ronneberger et al. 2015, Sec. 4).
"""

from __future__ import annotations

from unet.network.geometry import Geometry
from unet.segmentation.instances import InstanceRules
from unet.segmentation.tiles import Tiling

# Tiles of an image, one under the other.
TILES = 2
TTA = "mirror"
# Components of up to 500 pixels are not instances.
RULES = InstanceRules(minimum_area=501)
# Pixels at the edges in which a cell does not count; the tracker follows it there nevertheless.
FIELD_OF_INTEREST = 50
TRACKER = "greedy"


def tiling(shape: tuple[int, int], geometry: Geometry) -> Tiling:
    """Return how images of `shape` = (height, width) are cut.

    Notes
    -----
    The tile is the smallest whose output has the image's whole width and half of its height: in the
    authors' numbers, of d4a = ceil((wanted + 124) / 16) pixels of the lowest map.

    Examples
    --------
    >>> frames = tiling((520, 696), Geometry())
    >>> frames.tile, frames.origins
    ((444, 892), ((0, 0), (260, 0)))
    """
    height = geometry.input_size(-(-shape[0] // TILES))
    rows = range(0, shape[0], geometry.output_size(height))
    return Tiling(
        tile=(height, geometry.input_size(shape[1])),
        origins=tuple((y, 0) for y in rows),
        geometry=geometry,
        reach=geometry.border,
    )
