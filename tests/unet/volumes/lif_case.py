"""A LIF file, as Leica's format has it: one block of XML, then one of pixels for each scene."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

# Numbers by which LIF names its axes.
_AXES = {"X": 1, "Y": 2, "Z": 3, "T": 4, "λ": 5}


def write_lif(path: Path, scenes: dict[str, tuple[np.ndarray, str, dict[str, float]]]) -> None:
    """Write scenes by their names: pixels, their axes, and the spacing along these in metres.

    A first axis C are channels; others lie in memory in the order of the axes.
    """
    elements, memory = [], []
    for number, (name, (pixels, axes, steps)) in enumerate(scenes.items()):
        pixels = np.ascontiguousarray(pixels)
        planes = pixels if axes[0] == "C" else pixels[None]
        bits = 8 * pixels.dtype.itemsize
        channels = "".join(
            f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="{bits}" NameOfMeasured'
            f'Quantity="" Min="0" Max="1" Unit="" LUTName="Green" IsLUTInverted="0" '
            f'BytesInc="{k * planes[0].nbytes}" BitInc="0"/>'
            for k in range(len(planes))
        )
        dimensions = "".join(
            f'<DimensionDescription DimID="{_AXES[axis]}" NumberOfElements="{planes[0].shape[k]}" '
            f'Origin="0" Length="{(planes[0].shape[k] - 1) * steps.get(axis, 1)}" Unit="m" '
            f'BitInc="0" BytesInc="{planes[0].strides[k]}"/>'
            for k, axis in reversed(list(enumerate(axes.lstrip("C"))))
        )
        elements.append(
            f'<Element Name="{name}" Visibility="1" UniqueID="u{number}"><Data><Image>'
            f"<ImageDescription><Channels>{channels}</Channels><Dimensions>{dimensions}"
            f"</Dimensions></ImageDescription></Image></Data>"
            f'<Memory Size="{pixels.nbytes}" MemoryBlockID="MemBlock_{number}"/></Element>'
        )
        name = f"MemBlock_{number}"
        head = struct.pack("<BQBI", 0x2A, pixels.nbytes, 0x2A, len(name))
        memory.append(_block(head + name.encode("utf-16-le")) + pixels.tobytes())
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="case" Visibility="1" UniqueID="u">'
        f"<Data/><Memory Size='0' MemoryBlockID='MemBlock_none'/><Children>{''.join(elements)}"
        "</Children></Element></LMSDataContainerHeader>"
    )
    text = struct.pack("<BI", 0x2A, len(xml)) + xml.encode("utf-16-le")
    path.write_bytes(_block(text) + b"".join(memory))


def _block(content: bytes) -> bytes:
    return struct.pack("<II", 0x70, len(content)) + content
