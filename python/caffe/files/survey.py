"""What a binary file holds that Caffe's schema does not know: found, and told in a warning."""

from __future__ import annotations

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from caffe.errors import CaffeError
from caffe.files import wire
from caffe.log import log_warning

# The wire types that a field's type may come in; packed numbers come as bytes.
_FIXED32 = (FieldDescriptor.TYPE_FLOAT,)
_FIXED64 = (FieldDescriptor.TYPE_DOUBLE,)
_BYTES = (
    FieldDescriptor.TYPE_STRING,
    FieldDescriptor.TYPE_BYTES,
    FieldDescriptor.TYPE_MESSAGE,
)

# As many kinds of unknown things as a warning names.
_MOST_KINDS = 5


def _wire_type(field: FieldDescriptor) -> int:
    if field.type in _BYTES:
        return wire.BYTES
    if field.type in _FIXED32:
        return wire.FIXED32
    return wire.FIXED64 if field.type in _FIXED64 else wire.VARINT


class Survey(wire.Walker):
    """Goes through a file's messages as the schema describes them.

    Parameters
    ----------
    source : str
        What errors and the warning call the file.
    text_as_utf8 : bool
        Whether names in it must be UTF-8.
    """

    def __init__(self, source: str, text_as_utf8: bool = False) -> None:
        super().__init__(source)
        self._text_as_utf8 = text_as_utf8
        # What is unknown -> where it was found first, and how often it was.
        self._unknown: dict[str, list] = {}

    def walk(self, data: memoryview, schema: Descriptor, offset: int = 0, layer: str = "") -> None:
        """Note what is unknown in a message and those in it.

        Parameters
        ----------
        data : memoryview
            The bytes of one message.
        schema : Descriptor
            Of the message.
        offset : int
            Where `data` begins in the file.
        layer : str
            The layer that the message belongs to.

        Raises
        ------
        CaffeError
            If the bytes are no such message; names the byte.
        """
        fields = schema.fields_by_number
        for number, kind, value, place in self.fields(data, offset):
            field = fields.get(number)
            expected = None if field is None else _wire_type(field)
            packed = kind == wire.BYTES and expected != wire.BYTES
            if field is None or (kind != expected and not packed):
                self._note(f"field {number} of {schema.name}", place, layer)
            elif packed:
                # Each becomes a number of eight bytes where it has one.
                self.spend(len(value) if expected == wire.VARINT else 0, place)
            elif field.type == FieldDescriptor.TYPE_MESSAGE:
                self.walk(value, field.message_type, place, layer)
            elif field.type == FieldDescriptor.TYPE_ENUM:
                known = field.enum_type.values_by_number
                if wire.signed(value) not in known:
                    what = f"{field.name}: {wire.signed(value)} of {schema.name}"
                    self._note(what, place, layer)
            elif field.type == FieldDescriptor.TYPE_STRING:
                text = self.text(value, place)
                if self._text_as_utf8 and "\ufffd" in text:
                    raise CaffeError(
                        f"{self.source}: {schema.name}.{field.name} at byte {place} is no UTF-8"
                    )
                if field.name == "name" and schema.name.endswith("LayerParameter"):
                    layer = text

    def _note(self, what: str, place: int, layer: str) -> None:
        found = self._unknown.setdefault(what, [place, layer, 0])
        found[2] += 1

    def warn(self) -> None:
        """Name what is unknown in the log, if there is any."""
        kinds = [
            f"{what} (byte {place}{f', layer {layer!r}' if layer else ''}"
            f"{f', {times} times' if times > 1 else ''})"
            for what, (place, layer, times) in self._unknown.items()
        ]
        if kinds:
            more = len(kinds) - _MOST_KINDS
            log_warning(
                f"{self.source}: passed over, as Caffe does not know it: "
                f"{', '.join(kinds[:_MOST_KINDS])}{f' and {more} more' if more > 0 else ''}"
            )
