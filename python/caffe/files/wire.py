"""Protocol Buffers' wire format: messages and BlobProtos, without copying the numbers in them.

protobuf's Python classes turn each number of a parameter into a Python float; a network has tens
of millions of them. Here the packed numbers stay the bytes they are.
"""

from __future__ import annotations

import math
import mmap
import os
import stat
from collections.abc import Iterator

import numpy as np

from caffe.blob import MAX_AXES, MAX_COUNT
from caffe.errors import CaffeError
from caffe.files import limits
from caffe.files.atomic import missing

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# Field numbers of a BlobProto in caffe.proto.
_SHAPE, _DATA, _DOUBLE_DATA = 7, 5, 8
_LEGACY_SHAPE = (1, 2, 3, 4)  # num, channels, height, width
_SIZES = {_DATA: 4, _DOUBLE_DATA: 8}

# The limit of protobuf for a file.
MAX_BYTES = 2**31 - 1

_KINDS = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"GIF8", "a GIF picture"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"PK\x03\x04", "a zip archive (PyTorch's weights?)"),
    (b"\x1f\x8b", "a gzip archive, to be unpacked first"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
)


def map_file(path: str) -> memoryview:
    """Return the bytes of a file, mapped: only what is looked at is read.

    Raises
    ------
    CaffeError
        If there is no such file, or it is empty or not one that can be mapped.
    """
    try:
        with open(path, "rb", opener=_open_regular) as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise CaffeError(f"{path}: is empty")
            # Closed by the garbage collector with the last view into it: errors keep views alive.
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise CaffeError(missing(path)) from None
    except IsADirectoryError:
        raise CaffeError(f"{path}: is a folder, not a file") from None
    except OSError as error:
        raise CaffeError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise CaffeError(f"{path!r}: is no name of a file") from None


def _open_regular(path: str, flags: int) -> int:
    # A named pipe would wait for ever for its writer.
    if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):
        raise CaffeError(f"{path}: is no regular file")
    return os.open(path, flags)


def check_kind(data: memoryview, path: str, wanted: str) -> None:
    """Raise a CaffeError that names what `data` is if its first bytes tell."""
    head = bytes(data[:512])
    for magic, kind in _KINDS:
        if head.startswith(magic):
            raise CaffeError(f"{path}: is {kind}, not {wanted}")
    # Lengths and keys of protobuf are hardly ever all letters; 0x0a alone begins a net's name.
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head) and head[0] != 0x0A:
        raise CaffeError(f"{path}: is a text file, not {wanted}")
    if len(data) > MAX_BYTES:
        raise CaffeError(f"{path}: {len(data)} bytes are too many for {wanted}")


def signed(value: int) -> int:
    """Return the int64 that a varint stands for."""
    return value - 2**64 if value >= 2**63 else value


class WireReader:
    """Reads the messages of one file, `source` in errors."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._fields_left = limits.WIRE_FIELDS

    def fields(
        self, data: memoryview, offset: int = 0
    ) -> Iterator[tuple[int, int, int | memoryview, int]]:
        """Yield (field number, wire type, value, byte offset of the value) of a message's fields.

        The message begins at the byte `offset` of the file.

        Raises
        ------
        CaffeError
            If the bytes are not a message, or the file has absurdly many fields; names the byte.
        """
        place = 0
        while place < len(data):
            self._fields_left -= 1
            if self._fields_left < 0:
                raise CaffeError(
                    f"{self.source}: more than {limits.WIRE_FIELDS} fields up to byte "
                    f"{offset + place}: no file of Caffe"
                )
            start = place
            key, place = self._varint(data, place, offset)
            number, kind = key >> 3, key & 7
            if not 0 < number < 2**29 or kind not in (VARINT, FIXED64, BYTES, FIXED32):
                raise CaffeError(
                    f"{self.source}: no file of Caffe, or damaged: no field at byte "
                    f"{offset + start}"
                )
            if kind == VARINT:
                at = place
                value, place = self._varint(data, place, offset)
                yield number, kind, value, offset + at
                continue
            size = 4 if kind == FIXED32 else 8
            if kind == BYTES:
                size, place = self._varint(data, place, offset)
            if size > len(data) - place:
                raise CaffeError(
                    f"{self.source}: truncated or damaged: the field at byte {offset + start} "
                    f"needs {size} bytes, {len(data) - place} are left"
                )
            yield number, kind, data[place : place + size], offset + place
            place += size

    def _varint(self, data: memoryview, place: int, offset: int) -> tuple[int, int]:
        """Return the varint at `place` of `data`, and the place after it."""
        value = shift = 0
        start = place
        while True:
            if place >= len(data):
                what = f"truncated: a number at byte {offset + start} has no end"
                raise CaffeError(f"{self.source}: {what}")
            if shift > 63:
                raise CaffeError(f"{self.source}: damaged: no number at byte {offset + start}")
            byte = data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFFFFFFFFFFFFFF, place
            shift += 7

    def text(self, value: memoryview, place: int) -> str:
        """Return the name at a byte of the file; what is not UTF-8 in it becomes U+FFFD.

        Raises
        ------
        CaffeError
            If it is too long for a name.
        """
        if len(value) > limits.WIRE_NAME:
            raise CaffeError(
                f"{self.source}: the text at byte {place} has {len(value)} bytes, names in files "
                f"of Caffe have at most {limits.WIRE_NAME}"
            )
        return bytes(value).decode("utf-8", "replace")

    def blob(self, data: memoryview, offset: int, owner: str) -> np.ndarray:
        """Return the data of one BlobProto, float32 of its shape; a copy.

        It begins at the byte `offset` of the file; errors call whose it is `owner`.

        Raises
        ------
        CaffeError
            If the shape is not one, or the numbers are not as many as it says.
        """
        shape: tuple[int, ...] = ()
        legacy: dict[int, int] = {}
        numbers: dict[int, list[memoryview]] = {_DATA: [], _DOUBLE_DATA: []}
        for number, kind, value, place in self.fields(data, offset):
            if number == _SHAPE and kind == BYTES:
                shape += self._dims(value, place)
                if len(shape) > MAX_AXES:
                    what = f"the blob at byte {offset} has more than {MAX_AXES} axes"
                    raise CaffeError(f"{self.source}: {owner}: {what}")
            elif number in _LEGACY_SHAPE and kind == VARINT:
                legacy[number] = signed(value)
            elif number in numbers and kind == BYTES:
                if len(value) % _SIZES[number]:
                    raise CaffeError(f"{self.source}: {owner}: damaged numbers at byte {place}")
                numbers[number].append(value)
            elif (number, kind) in ((_DATA, FIXED32), (_DOUBLE_DATA, FIXED64)):
                # Numbers one by one: legal, though Caffe never writes them so.
                numbers[number].append(value)
            elif number in numbers:
                raise CaffeError(f"{self.source}: {owner}: no numbers at byte {place}")
        if legacy:
            shape = tuple(legacy.get(axis, 0) for axis in _LEGACY_SHAPE)
        # As genuine Caffe: the doubles if there are any.
        kept = _DOUBLE_DATA if numbers[_DOUBLE_DATA] else _DATA
        parts, size = numbers[kept], _SIZES[kept]
        count = sum(map(len, parts)) // size
        # Bound the other axes too: an empty blob may declare huge ones.
        bounded = min(shape, default=0) >= 0 and math.prod(filter(None, shape)) <= MAX_COUNT
        if not bounded or math.prod(shape) != count:
            raise CaffeError(
                f"{self.source}: {owner}: the blob at byte {offset} is of shape {shape} "
                f"but has {count} numbers"
            )
        values = np.frombuffer(parts[0] if len(parts) == 1 else b"".join(parts), f"<f{size}")
        with np.errstate(over="ignore", invalid="ignore"):
            return values.astype(np.float32).reshape(shape)

    def _dims(self, data: memoryview, offset: int) -> tuple[int, ...]:
        dims: list[int] = []
        for number, kind, value, place in self.fields(data, offset):
            if number == 1 and kind == VARINT and len(dims) <= MAX_AXES:
                dims.append(signed(value))
            elif number == 1 and kind == BYTES:
                position = 0
                while position < len(value) and len(dims) <= MAX_AXES:
                    dim, position = self._varint(value, position, place)
                    dims.append(signed(dim))
        return tuple(dims)


def varint(value: int) -> bytes:
    """Return `value`, not negative, as a varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def header(number: int, size: int) -> bytes:
    """Return the key and length that stand before a field of `size` bytes."""
    return varint(number << 3 | BYTES) + varint(size)


def blob_bytes(array: np.ndarray) -> list[bytes | memoryview]:
    """Return the bytes of `array` as a BlobProto, in pieces: its numbers are not copied.

    The order of the fields is genuine Caffe's: data, then shape.
    """
    # ascontiguousarray would make a number of no axes one of one axis.
    array = np.asarray(array, "<f4", order="C")
    dims = b"".join(varint(dim) for dim in array.shape)
    shape = header(1, len(dims)) + dims if dims else b""
    tail = header(_SHAPE, len(shape)) + shape
    if not array.size:
        return [tail]
    return [header(_DATA, array.nbytes), array.reshape(-1).view(np.uint8).data, tail]
