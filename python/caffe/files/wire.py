"""Walk and assemble Protocol Buffers' wire format, without copying the numbers in it.

protobuf's Python classes turn each number of a parameter into a Python float; a network has tens
of millions of them. Here the packed numbers stay the bytes they are.
"""

from __future__ import annotations

from collections.abc import Iterator

from caffe.errors import CaffeError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# A residual net of a thousand convolutions, about the largest published, takes 80,000 fields
# outside its packed numbers.
MAX_FIELDS = 150_000
MAX_NUMBER = 2**29 - 1
# Names of layers and files are not longer.
MAX_TEXT = 2**16


def read_varint(data: memoryview, place: int, source: str, offset: int = 0) -> tuple[int, int]:
    """Return the varint at `place` of `data`, and the place after it.

    Raises
    ------
    CaffeError
        If `data` ends within it or it is longer than ten bytes.
    """
    value = shift = 0
    start = place
    while True:
        if place >= len(data):
            raise CaffeError(f"{source}: truncated: a number at byte {offset + start} has no end")
        if shift > 63:
            raise CaffeError(f"{source}: damaged: no number at byte {offset + start}")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, place
        shift += 7


def signed(value: int) -> int:
    """Return the int64 that a varint stands for."""
    return value - 2**64 if value >= 2**63 else value


class Walker:
    """Walks through the fields of one file's messages; gives up on a file of absurdly many.

    Parameters
    ----------
    source : str
        What errors call the file.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._left = MAX_FIELDS

    def spend(self, fields: int, place: int) -> None:
        """Count fields of the file.

        Raises
        ------
        CaffeError
            If they are too many by now; names the byte.
        """
        self._left -= fields
        if self._left < 0:
            raise CaffeError(
                f"{self.source}: more than {MAX_FIELDS} fields up to byte {place}: no file of Caffe"
            )

    def text(self, value: memoryview, place: int) -> str:
        """Return the text at a byte of the file; what is no UTF-8 in it becomes U+FFFD.

        Raises
        ------
        CaffeError
            If it is too long for a name.
        """
        if len(value) > MAX_TEXT:
            raise CaffeError(
                f"{self.source}: the text at byte {place} has {len(value)} bytes, names in files "
                f"of Caffe have at most {MAX_TEXT}"
            )
        return bytes(value).decode("utf-8", "replace")

    def fields(
        self, data: memoryview, offset: int = 0
    ) -> Iterator[tuple[int, int, int | memoryview, int]]:
        """Yield (field number, wire type, value, byte offset of the value) of a message's fields.

        Parameters
        ----------
        data : memoryview
            The bytes of one message.
        offset : int
            Where `data` begins in the file.

        Raises
        ------
        CaffeError
            If the bytes are no message; names the byte.
        """
        place = 0
        while place < len(data):
            self._left -= 1
            if self._left < 0:
                self.spend(0, offset + place)
            start = place
            key = data[place]
            if key < 0x80:
                place += 1
            else:
                key, place = read_varint(data, place, self.source, offset)
            number, kind = key >> 3, key & 7
            if not 0 < number <= MAX_NUMBER or kind not in (VARINT, FIXED64, BYTES, FIXED32):
                raise CaffeError(
                    f"{self.source}: no file of Caffe, or damaged: no field at byte "
                    f"{offset + start}"
                )
            if kind == VARINT:
                at = place
                value, place = read_varint(data, place, self.source, offset)
                yield number, kind, value, offset + at
                continue
            size = 4 if kind == FIXED32 else 8
            if kind == BYTES:
                size, place = read_varint(data, place, self.source, offset)
            if size > len(data) - place:
                raise CaffeError(
                    f"{self.source}: truncated or damaged: the field at byte {offset + start} "
                    f"needs {size} bytes, {len(data) - place} are left"
                )
            yield number, kind, data[place : place + size], offset + place
            place += size


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
