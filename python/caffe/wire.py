"""Walk and assemble Protocol Buffers' wire format, without copying the numbers in it."""

from __future__ import annotations

from collections.abc import Iterator

from caffe.errors import CaffeError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def _varint(data: memoryview, place: int, source: str) -> tuple[int, int]:
    value = shift = 0
    start = place
    while True:
        if place >= len(data) or shift > 63:
            raise CaffeError(f"{source}: truncated or damaged at byte {start}")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7


def fields(
    data: memoryview, source: str, offset: int = 0
) -> Iterator[tuple[int, int, int | memoryview, int]]:
    """Yield (field number, wire type, value, byte offset) of each field of a message.

    Parameters
    ----------
    data : memoryview
        The bytes of one message.
    source : str
        What errors call the file.
    offset : int
        Where `data` begins in the file.

    Raises
    ------
    CaffeError
        If the bytes are no message; names the byte.
    """
    place = 0
    while place < len(data):
        start = place
        key, place = _varint(data, place, source)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise CaffeError(f"{source}: is no protobuf file (byte {offset + start})")
        if kind == VARINT:
            value, place = _varint(data, place, source)
        elif kind in (FIXED32, FIXED64, BYTES):
            if kind == BYTES:
                size, place = _varint(data, place, source)
            else:
                size = 4 if kind == FIXED32 else 8
            if place + size > len(data):
                raise CaffeError(
                    f"{source}: truncated: the field at byte {offset + start} needs {size} bytes, "
                    f"{len(data) - place} are left"
                )
            value = data[place : place + size]
            place += size
        else:
            raise CaffeError(
                f"{source}: is no protobuf file, or damaged: wire type {kind} at byte {offset + start}"
            )
        yield number, kind, value, offset + place - (len(value) if kind != VARINT else 0)


def varint(value: int) -> bytes:
    """Return `value` as a varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def header(number: int, size: int) -> bytes:
    """Return the key and length that stand before a field of `size` bytes."""
    return varint(number << 3 | BYTES) + varint(size)
