"""Tiles cut out of pictures, turned, mirrored and deformed: CreateDeformation, ApplyDeformation.

Layers of caffe_unet (Falk et al., Nature Methods 16, 2019). Coordinates are (z,) y, x in pixels of
the picture, pixel centres at whole numbers. Random numbers are drawn on the CPU, so that one seed
gives the same tiles on every device.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch

from caffe import common, device_memory, late_checks
from caffe.blob import Blob
from caffe.layer_types import register
from caffe.layers import scalars_on_gpu
from caffe.layers.base import Blobs, BuiltInLayer

_CPU = torch.device("cpu")


def _uniform(low: float, high: float) -> float:
    drawn = torch.rand((), generator=common.generator(_CPU), dtype=torch.float64)
    return low + (high - low) * float(drawn)


def grid_weights(size: int, spacing: int) -> torch.Tensor:
    """Return the weights (size, points) by which the values of points give those of pixels.

    Points lie `spacing` pixels apart, around the middle, and one beyond each end. Float64; cubic
    convolution with a = -1/2, which goes through the points (Keys, IEEE Trans. ASSP 29, 1981).
    """
    cells = max(1, math.ceil((size - 1) / spacing))
    place = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / spacing + cells / 2
    cell = place.floor().clamp(0, cells - 1)
    t = place - cell
    near = (t**3 - t**2) / 2
    far = (t**2 - t) / 2 - near
    second = t + far - 2 * near
    weights = torch.zeros(size, cells + 3, dtype=torch.float64)
    for offset, weight in enumerate((far, 1 - far - second - near, second, near)):
        weights.scatter_(1, cell.long()[:, None] + offset, weight[:, None])
    return weights


def rotation(degrees: Sequence[float], z_size: float = 1) -> torch.Tensor:
    """Return the matrix of a turn about z, or about z, y and x, of offsets (y, x) or (z, y, x).

    `z_size` is how much larger a step in z is than one in y or x.
    """
    turns = []
    # Axes (z, y, x) that each turn mixes, in the order of the angles.
    for angle, (first, second) in zip(degrees, ((1, 2), (0, 2), (0, 1))):
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        turn = torch.eye(3, dtype=torch.float64)
        turn[first, first] = turn[second, second] = cosine
        turn[first, second], turn[second, first] = -sine, sine
        turns.append(turn)
    if len(turns) == 1:
        return turns[0][1:, 1:]
    sizes = torch.tensor([z_size, 1, 1], dtype=torch.float64)
    return (turns[0] @ turns[1] @ turns[2]) * sizes / sizes[:, None]


@register("CreateDeformation")
class CreateDeformation(BuiltInLayer):
    """Where each pixel of a random tile is taken from: (n, (nz,) ny, nx, components).

    Notes
    -----
    Pixel p comes from centre + R M (p - shape // 2 + d(p)): M mirrors each axis with
    random_mirror_flag by chance, R turns by angles from random_rotate_from to random_rotate_to
    (degrees, about z, or about z, y and x), and d is interpolated between points
    random_elastic_grid_spacing pixels apart that are displaced with standard deviations of
    random_elastic_deform_magnitude. The centre is, in this order: a pixel drawn by the density that
    the bottom is (random_offset_range_from_pdf), one of the pixels whose label, in the bottom, is
    not random_offset_range_from_ignore_label, any point of the bottom
    (random_offset_range_from_in_blob_shape), or the middle of the picture moved by offsets from
    random_offset_from to random_offset_to. Without a bottom the picture is the net's first blob of
    as many axes.
    """

    bottom_range = (0, 1)
    top_range = (1, 1)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.beyond_bvlc("is a layer of caffe_unet")
        self.param = param = self.layer_param.create_deformation_param
        self.shape = tuple(size for size in (param.nz, param.ny, param.nx) if size)
        axes = len(self.shape)
        if not (param.ny and param.nx):
            raise self.fail("needs ny and nx, and nz for volumes: the size of the tile")
        if param.ncomponents != axes:
            raise self.fail(f"needs ncomponents: {axes}, one per axis, has {param.ncomponents}")
        of_bottom = self._of_bottom()
        if of_bottom and not bottom:
            raise self.fail(f"{of_bottom} needs a bottom")
        self.angles = list(
            zip(self._values("random_rotate_from", 2 * axes - 3, 0), self._ends("random_rotate"))
        )
        self.offsets = list(
            zip(self._values("random_offset_from", axes, 0), self._ends("random_offset"))
        )
        self.flags = self._values("random_mirror_flag", axes, 0)
        self.magnitudes = self._values("random_elastic_deform_magnitude", axes, 0)
        spacings = self._values("random_elastic_grid_spacing", axes, 0)
        self.elastic = any(self.magnitudes)
        if self.elastic and min(spacings) < 1:
            raise self.fail(f"random_elastic_grid_spacing {spacings} must be positive")
        if self.elastic:
            self.weights = list(map(grid_weights, self.shape, spacings))

    def _of_bottom(self) -> str:
        """Return the parameter, if any, that has centres drawn from the bottom."""
        for name in ("pdf", "ignore_label", "in_blob_shape"):
            name = f"random_offset_range_from_{name}"
            if getattr(self.param, name) or (name.endswith("label") and self.param.HasField(name)):
                return name
        return ""

    def _values(self, name: str, count: int, default: float) -> list[float]:
        values = list(getattr(self.param, name).v) or [default] * count
        if len(values) != count:
            raise self.fail(f"{name} needs {count} value(s), has {len(values)}")
        return values

    def _ends(self, name: str) -> list[float]:
        starts = list(getattr(self.param, f"{name}_from").v)
        ends = list(getattr(self.param, f"{name}_to").v)
        if len(starts) != len(ends):
            raise self.fail(f"{name}_from and {name}_to need as many values each")
        return ends or [0.0] * 3

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        axes = len(self.shape)
        if bottom and len(bottom[0].shape) != axes + 2:
            raise self.fail(f"needs a bottom of {axes + 2} axes, not {bottom[0].shape}")
        if bottom and bottom[0].shape[1] != 1 and "blob" not in self._of_bottom():
            raise self.fail(f"needs a bottom of 1 channel, not {bottom[0].shape}")
        items = bottom[0].shape[0] if bottom else self.param.batch_size
        top[0].reshape(items, *self.shape, axes)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        where = common.current_device()
        fields = [
            self._field(self._centre(bottom, top[0], item), where)
            for item in range(top[0].shape[0])
        ]
        top[0].set_data(torch.stack(fields))

    def _picture(self, bottom: Blobs, own: Blob) -> tuple[int, ...]:
        """Return the size of the picture that tiles are cut out of."""
        blobs = bottom or self.blobs_of_net.values()
        axes = len(own.shape)
        shapes = (b.shape for b in blobs if b is not own and len(b.shape) == axes)
        return next(shapes, (1, 1, *self.shape))[2:]

    def _centre(self, bottom: Blobs, own: Blob, item: int) -> list[torch.Tensor | float]:
        """Draw where the tile's middle lies: tensors on the device, or numbers."""
        shape = self._picture(bottom, own)
        kind = self._of_bottom().rpartition("_")[2]
        if kind == "shape":
            return [_uniform(0, size - 1) for size in shape]
        if not kind:
            return [size // 2 + _uniform(*ends) for size, ends in zip(shape, self.offsets)]
        density = bottom[0].data_tensor()[item].flatten().to(torch.float64)
        if kind == "label":
            ignored = self.param.random_offset_range_from_ignore_label
            density = (density != ignored).to(torch.float64)
        reached = density.clamp(min=0).cumsum(0)
        total = reached[-1]
        self._check_density(total)
        # Nobody waits for a GPU here: the pixel stays there.
        index = torch.searchsorted(reached, (_uniform(0, 1) * total)[None], right=True)
        index = index[0].clamp(max=len(reached) - 1)
        centre = []
        for size in shape[::-1]:
            centre.insert(0, (index % size).to(torch.float64))
            index = index // size
        return centre

    def _check_density(self, total: torch.Tensor) -> None:
        error = self.fail("no pixel of the bottom may be the middle of a tile: all of it is 0")
        if not scalars_on_gpu.on_host(total):
            late_checks.add(total <= 0, lambda: error)
        elif total <= 0:
            raise error

    def _field(self, centre: Sequence[torch.Tensor | float], where: torch.device) -> torch.Tensor:
        matrix = rotation([_uniform(*ends) for ends in self.angles], self.param.voxel_relsize_z)
        mirror = [-1.0 if flag and _uniform(0, 1) < 0.5 else 1.0 for flag in self.flags]
        matrix = matrix * torch.tensor(mirror, dtype=torch.float64)
        moved = self._displacements(matrix, where) if self.elastic else None
        field = torch.empty(*self.shape, len(self.shape), device=where)
        for axis, middle in enumerate(centre):
            out = torch.zeros(self.shape, dtype=torch.float64, device=where)
            for other, size in enumerate(self.shape):
                steps = torch.arange(size, dtype=torch.float64, device=where) - size // 2
                steps = steps * float(matrix[axis, other])
                out += steps.view(-1, *(1,) * (len(self.shape) - 1 - other))
            out += middle
            if moved is not None:
                out += moved[axis]
            field[..., axis] = out
        return field

    def _displacements(self, matrix: torch.Tensor, where: torch.device) -> torch.Tensor:
        """Draw the displacement of each pixel, by axis of the picture."""
        points = [weights.shape[1] for weights in self.weights]
        drawn = torch.randn(
            len(points), *points, generator=common.generator(_CPU), dtype=torch.float64
        )
        drawn *= torch.tensor(self.magnitudes, dtype=torch.float64).view(-1, *(1,) * len(points))
        # The host does not wait for a GPU, which may still be at the last step.
        moved = device_memory.to_current(torch.tensordot(matrix, drawn, 1).numpy())
        self.weights = [weights.to(where) for weights in self.weights]
        for weights in self.weights:
            # Along the first axis of points, whose pixels then are the last axis.
            moved = torch.tensordot(moved, weights, ([1], [1]))
        return moved


def sample(
    image: torch.Tensor, coordinates: Sequence[torch.Tensor], linear: bool, mirror: bool
) -> torch.Tensor:
    """Return the values (channels, ...) of an image (channels, (z,) y, x) at coordinates.

    Beyond the edges it is mirrored, over and over, without repeating the edge, or zero.
    """
    shape = image.shape[1:]
    ways: list[list[tuple[torch.Tensor, torch.Tensor | None]]] = []
    for at, size in zip(coordinates, shape):
        if mirror:
            period = max(2 * (size - 1), 1)
            at = at.remainder(period)
            at = torch.minimum(at, period - at) if size > 1 else torch.zeros_like(at)
        if not linear:
            # Of two pixels as near as each other the one with the larger number.
            places = [((at + 0.5).floor(), None)]
        else:
            low = at.floor()
            part = at - low
            places = [(low, 1 - part), (low + 1, part)]
        axis = []
        for place, weight in places:
            if not mirror:
                inside = ((place >= 0) & (place < size)).to(at.dtype)
                weight = inside if weight is None else weight * inside
            axis.append((place.clamp(0, size - 1).to(torch.int64), weight))
        ways.append(axis)
    flat, total = image.flatten(1), None
    for corner in itertools.product(*ways):
        index, factor = corner[0]
        for (place, weight), size in zip(corner[1:], shape[1:]):
            index = index * size + place
            if weight is not None:
                factor = factor * weight
        values = flat[:, index.flatten()].view(-1, *index.shape)
        if factor is not None:
            values = values * factor
        total = values if total is None else total.add_(values)
    return total


@register("ApplyDeformation")
class ApplyDeformation(BuiltInLayer):
    """The first bottom's pixels at the coordinates that the second one is, by CreateDeformation.

    Notes
    -----
    The top is as large as the coordinates are many, or has the pixels of the blob that
    output_shape_from names, which an earlier layer has made: those of the coordinates' middle then.
    """

    bottom_range = (2, 2)
    top_range = (1, 1)
    # The shape may be another blob's.
    always_reshape = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.beyond_bvlc("is a layer of caffe_unet")
        param = self.layer_param.apply_deformation_param
        for name, values in (
            ("interpolation", ("linear", "nearest")),
            ("extrapolation", ("mirror", "zero")),
        ):
            if getattr(param, name) not in values:
                raise self.fail(f"{name} is '{getattr(param, name)}', it can be {values}")
        self.linear = param.interpolation == "linear"
        self.mirror = param.extrapolation == "mirror"

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape, field = bottom[0].shape, bottom[1].shape
        axes = len(shape) - 2
        if len(field) != axes + 2 or field[-1] != axes or field[0] != shape[0]:
            raise self.fail(
                f"needs {axes} coordinates for each pixel of {shape}, the second bottom is {field}"
            )
        sizes = field[1:-1]
        if name := self.layer_param.apply_deformation_param.output_shape_from:
            other = self.blobs_of_net.get(name)
            if other is None:
                raise self.fail(
                    f"output_shape_from: no layer before it makes a blob '{name}'; move it behind "
                    "the one that does"
                )
            sizes = other.shape[2:]
        if len(sizes) != axes or any(size > most for size, most in zip(sizes, field[1:])):
            raise self.fail(f"there are coordinates for {field[1:-1]} pixels, not for {sizes}")
        self.window = [
            slice((most - size) // 2, (most - size) // 2 + size)
            for size, most in zip(sizes, field[1:])
        ]
        top[0].reshape(*shape[:2], *sizes)

    def allows_force_backward(self, bottom_index: int) -> bool:
        return False

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        images, fields = bottom[0].data_tensor(), bottom[1].data_tensor()
        fields = fields[(slice(None), *self.window)]
        cut = [
            sample(image, field.unbind(-1), self.linear, self.mirror)
            for image, field in zip(images, fields)
        ]
        top[0].set_data(torch.stack(cut))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if any(propagate_down):
            raise self.fail("has no gradient: nothing below it can learn")
