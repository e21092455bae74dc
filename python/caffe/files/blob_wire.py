"""BlobProtos as bytes: read them into arrays, write them from arrays."""

from __future__ import annotations

import math
import mmap
import os
import stat

import numpy as np

from caffe.blob import MAX_AXES, MAX_COUNT
from caffe.errors import CaffeError
from caffe.files import wire
from caffe.files.atomic import missing

# Field numbers of caffe.proto.
_SHAPE, _DATA, _DOUBLE_DATA = 7, 5, 8
_SIZES = {_DATA: 4, _DOUBLE_DATA: 8}
_LEGACY_SHAPE = (1, 2, 3, 4)  # num, channels, height, width

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
        If there is no such file, or it is empty or none that can be mapped.
    """
    try:
        with open(path, "rb", opener=_open_regular) as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise CaffeError(f"{path}: is empty")
            # Closed by the garbage collector with the last view into it: errors keep views alive.
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise CaffeError(missing(path)) from None
    except IsADirectoryError:
        raise CaffeError(f"{path}: is a folder, not a file") from None
    except OSError as error:
        raise CaffeError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise CaffeError(f"{path!r}: is no name of a file") from None
    return data


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


class BlobReader(wire.Walker):
    """Reads the BlobProtos of one file."""

    def read(self, data: memoryview, offset: int, owner: str) -> np.ndarray:
        """Return the data of one BlobProto.

        Parameters
        ----------
        data : memoryview
            The bytes of the BlobProto.
        offset : int
            Where `data` begins in the file.
        owner : str
            What errors call the blob's owner.

        Returns
        -------
        float32 array
            With the blob's shape; a copy.

        Raises
        ------
        CaffeError
            If the shape is not one, or the numbers are not as many as it says.
        """
        shape: tuple[int, ...] = ()
        legacy: dict[int, int] = {}
        numbers: dict[int, list[memoryview]] = {_DATA: [], _DOUBLE_DATA: []}
        for number, kind, value, place in self.fields(data, offset):
            if number == _SHAPE and kind == wire.BYTES:
                shape += self._dims(value, place)
                if len(shape) > MAX_AXES:
                    raise CaffeError(
                        f"{self.source}: {owner}: the blob at byte {offset} has more than "
                        f"{MAX_AXES} axes"
                    )
            elif number in _LEGACY_SHAPE and kind == wire.VARINT:
                legacy[number] = wire.signed(value)
            elif number in numbers and kind == wire.BYTES:
                if len(value) % _SIZES[number]:
                    raise CaffeError(f"{self.source}: {owner}: damaged numbers at byte {place}")
                numbers[number].append(value)
            elif (number, kind) in ((_DATA, wire.FIXED32), (_DOUBLE_DATA, wire.FIXED64)):
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
        # Neither do the other axes of an empty blob go beyond all bounds.
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
            if number == 1 and kind == wire.VARINT and len(dims) <= MAX_AXES:
                dims.append(wire.signed(value))
            elif number == 1 and kind == wire.BYTES:
                position = 0
                while position < len(value) and len(dims) <= MAX_AXES:
                    dim, position = wire.read_varint(value, position, self.source, place)
                    dims.append(wire.signed(dim))
        return tuple(dims)


def blob_bytes(array: np.ndarray) -> list[bytes | memoryview]:
    """Return the bytes of `array` as a BlobProto, in pieces: its numbers are not copied.

    The order of the fields is genuine Caffe's: data, then shape.
    """
    # ascontiguousarray would make a number of no axes one of one axis.
    array = np.asarray(array, "<f4", order="C")
    dims = b"".join(wire.varint(dim) for dim in array.shape)
    shape = wire.header(1, len(dims)) + dims if dims else b""
    tail = wire.header(_SHAPE, len(shape)) + shape
    if not array.size:
        return [tail]
    return [
        wire.header(_DATA, array.nbytes),
        array.reshape(-1).view(np.uint8).data,
        tail,
    ]
