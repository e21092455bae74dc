"""What a tile loses in a network, which sizes are valid and where tiles may lie.

An input of f n + pad_input pixels gives f n + pad_output of scores, where n is the size of the
lowest map and f how much coarser it is: the numbers that caffe_unet keeps of a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from unet.errors import InputError

#: Poolings of the network of Fig. 1, and of the smallest and largest that are written.
LEVELS = 4
FEWEST_LEVELS, MOST_LEVELS = 2, 5

# Layers whose tops have the size of their bottom, compared without case and underscores.
_POINTWISE = (
    "absval batchnorm bias bnll dropout elu exp log lrn mvn power prelu relu scale sigmoid softmax "
    "split tanh threshold"
)


@dataclass(frozen=True)
class Geometry:
    """Sizes of a network's tiles, the same along both axes.

    Parameters
    ----------
    downsample_factor : int
        f, pixels of the input to one of the lowest map. The scores move along with the input in
        steps of f only, so tiles that are to fit together lie at multiples of f.
    pad_input, pad_output : int
        Pixels of input and scores beyond f n.
    margin : int
        Pixels at each edge of the scores that padding within the network has an influence on: they
        are not those of a pass over a larger picture.

    Examples
    --------
    The network of Fig. 1:

    >>> figure1 = Geometry()
    >>> figure1.levels, figure1.border, figure1.smallest, figure1.output_size(572)
    (4, 92, 188, 388)

    References
    ----------
    Ronneberger et al. 2015, Fig. 1 and 2. Falk et al., Nature Methods 16, 2019 (`padInput`,
    `padOutput`, `downsampleFactor`).
    """

    downsample_factor: int = 16
    pad_input: int = 60
    pad_output: int = -124
    margin: int = 0

    @classmethod
    def of(cls, net: Any, data: str = "data", score: str = "score") -> Geometry:
        """Read the geometry of a network.

        Parameters
        ----------
        net : caffe_pb2.NetParameter
            Of the current format or of V1, such as the authors' of 2015.
        data, score : str
            The blobs between which it lies.

        Raises
        ------
        InputError
            If tiles of no size can be put together: the scores are not as fine as the input, a
            window or a crop is not symmetric, or a layer on the way moves pixels in a way of its
            own.
        """
        maps: dict[str, _Map | str] = {data: _Map()}
        lowest = _Map()
        for layer in [*net.layer, *net.layers]:
            known = [maps[name] for name in layer.bottom if name in maps]
            if not known or _trains_only(layer):
                continue
            try:
                found: _Map | str = _through(layer, [_whole(one) for one in known])
                if found.scale < lowest.scale:
                    lowest = found
            except InputError as error:
                # Of no interest unless the scores come from there.
                found = str(error)
            maps.update(dict.fromkeys(layer.top, found))
            if score in layer.top:
                break
        if score not in maps:
            raise InputError(f"the network has no blob '{score}' that comes from '{data}'")
        end = _whole(maps[score])
        factor, pad_input = 1 / lowest.scale, -lowest.shift / lowest.scale
        lost = -end.shift
        if end.scale != 1 or lost % 2 or factor.denominator * pad_input.denominator != 1:
            raise InputError(
                f"'{score}' does not lie centrally on '{data}', pixel by pixel, whatever the size"
            )
        return cls(int(factor), int(pad_input), int(pad_input - lost), end.reach)

    @property
    def levels(self) -> int:
        """How often the network halves its maps."""
        return self.downsample_factor.bit_length() - 1

    @property
    def border(self) -> int:
        """Pixels by which the scores of a tile that can be used are smaller than it, each side."""
        return (self.pad_input - self.pad_output) // 2 + self.margin

    @property
    def smallest(self) -> int:
        """The smallest valid input size."""
        return self.input_size(1)

    def output_size(self, size: int) -> int:
        """Return how many pixels of scores can be used of an input, along an axis."""
        return size - 2 * self.border

    def input_size(self, output: int) -> int:
        """Return the smallest valid input size that gives at least so many pixels of scores."""
        lowest = -(-(output + 2 * self.border - self.pad_input) // self.downsample_factor)
        return self.downsample_factor * max(1, lowest) + self.pad_input

    def check(self, tile: Sequence[int]) -> None:
        """Refuse an input size that the network's poolings cannot halve.

        Raises
        ------
        InputError
            Unless height and width are f n + pad_input, and large enough; names the nearest sizes.
        """
        factor, pad, smallest = self.downsample_factor, self.pad_input, self.smallest
        for size in tile:
            if size < smallest or (size - pad) % factor:
                below = max(smallest, pad + (size - pad) // factor * factor)
                plus = f" + {pad}" if pad else ""
                raise InputError(
                    f"tile size {size} is not {factor}k{plus} with k >= "
                    f"{(smallest - pad) // factor}; the nearest are {below} and {below + factor}"
                )


class _Map(NamedTuple):
    """A blob: its size is scale * input + shift; padding reaches `reach` pixels from its edges."""

    scale: Fraction = Fraction(1)
    shift: Fraction = Fraction(0)
    reach: int = 0


def _whole(found: _Map | str) -> _Map:
    if isinstance(found, str):
        raise InputError(found)
    return found


def _through(layer: Any, bottoms: list[_Map]) -> _Map:
    """Return the map of a layer's tops."""
    kind = _kind(layer)
    first = bottoms[0]
    if kind in _POINTWISE.split() or (kind == "slice" and layer.slice_param.axis == 1):
        return first
    if kind in ("concat", "eltwise"):
        # Of maps of unequal sizes caffe_unet's Concat takes the middle.
        cut = [_middle(layer, one, first) for one in bottoms]
        return first._replace(reach=max(one.reach for one in cut))
    if kind == "crop" and len(bottoms) == 2:
        cut = _middle(layer, first, bottoms[1])
        # V1 crops, those of the authors' Caffe of 2015, align coordinates and have no offset.
        if hasattr(layer, "crop_param"):
            offset = _number(layer, layer.crop_param, "offset", 0)
            if 2 * offset != first.shift - bottoms[1].shift:
                raise InputError(f"layer '{layer.name}': its crop is not central")
        return cut
    if kind in ("convolution", "deconvolution", "pooling"):
        return _window(layer, kind, first)
    raise InputError(f"layer '{layer.name}': what its type does to the size of a tile is not known")


def _kind(layer: Any) -> str:
    """Return the layer's type in lower case; V1 has numbers for names such as HDF5_DATA."""
    if isinstance(layer.type, int):
        return str(type(layer).LayerType.Name(layer.type)).replace("_", "").lower()
    return str(layer.type).lower()


def _trains_only(layer: Any) -> bool:
    return bool(layer.include) and all(
        rule.HasField("phase") and rule.phase == 0 for rule in layer.include
    )


def _middle(layer: Any, one: _Map, like: _Map) -> _Map:
    """Return the middle of a map, as large as another."""
    more = one.shift - like.shift
    if one.scale != like.scale or more < 0 or more % 2:
        raise InputError(f"layer '{layer.name}': its bottoms have no common middle")
    return like._replace(reach=max(0, one.reach - int(more) // 2))


def _window(layer: Any, kind: str, below: _Map) -> _Map:
    """Return the map of a layer that moves a window over its bottom."""
    param = layer.pooling_param if kind == "pooling" else layer.convolution_param
    if kind == "pooling" and param.global_pooling:
        raise InputError(f"layer '{layer.name}': pools the whole map, whatever its size")
    window = (_number(layer, param, "kernel_size", 1) - 1) * _number(
        layer, param, "dilation", 1
    ) + 1
    stride, pad = _number(layer, param, "stride", 1), _number(layer, param, "pad", 0)
    scale, shift, reach = below
    if kind == "deconvolution":
        return _Map(
            stride * scale,
            stride * (shift - 1) + window - 2 * pad,
            max(0, stride * reach + window - stride - pad),
        )
    return _Map(
        scale / stride, (shift + 2 * pad - window) / stride + 1, -(-(reach + pad) // stride)
    )


def _number(layer: Any, param: Any, name: str, default: int) -> int:
    """Return a parameter of a window, which has to be the same along both axes."""
    short = name.replace("_size", "")
    given = set()
    for field, value in param.ListFields():
        if field.name in (name, f"{short}_h", f"{short}_w"):
            given.update([value] if isinstance(value, int) else value)
    if len(given) > 1:
        raise InputError(f"layer '{layer.name}': its {name} differs between the axes")
    return given.pop() if given else default
