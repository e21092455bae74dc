"""What pycaffe shows of nets, layers and solvers: what may be put into it, and what not.

Errors are of the classes, and begin with the words, of genuine Caffe's.
"""

from __future__ import annotations

import collections
import operator
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

from caffe.log import log_warning

T = TypeVar("T")


class Shown(property):
    """A property that cannot be assigned to, and says so in the words of genuine Caffe."""

    def __set__(self, owner: object, value: object) -> None:
        name, kind = self.fget.__name__, type(owner).__name__
        raise AttributeError(f"can't set attribute '{name}' of {kind}: it is only shown")


class Vector(Generic[T]):
    """A list of things of one kind, as pycaffe shows blobs, layers and test nets."""

    # What may be put in, and what to say to somebody who puts in anything else.
    kind: type = object
    hint = ""

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._items = list(items)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __contains__(self, item: object) -> bool:
        return any(item is own for own in self._items)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._items})"

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(self._items[index])
        return self._items[self._index(index)]

    def __setitem__(self, index: int | slice, value: Any) -> None:
        if not isinstance(index, slice):
            self._check(value, "Invalid assignment")
            self._replace(self._index(index), value)
            return
        items = [value] if isinstance(value, self.kind) else list(value)
        for item in items:
            self._check(item, "Invalid sequence element")
        indices = range(len(self))[index]
        if len(indices) != len(items):
            self._cut(index, items)
            return
        for each, item in zip(indices, items):
            self._replace(each, item)

    def __delitem__(self, index: int | slice) -> None:
        if not isinstance(index, slice):
            start = self._index(index)
            index = slice(start, start + 1)
        self._cut(index, [])

    def append(self, item: T) -> None:
        """Add one at the end.

        Raises
        ------
        TypeError
            If it is not one of the kind.
        """
        self._check(item, "Attempting to append an invalid type")
        self._grow([item])

    def extend(self, items: Iterable[T]) -> None:
        """Add several at the end; as `append`."""
        items = list(items)
        for item in items:
            self._check(item, "Incompatible Data Type")
        self._grow(items)

    def _grow(self, items: list[T]) -> None:
        self._items.extend(items)

    def _replace(self, index: int, item: T) -> None:
        self._items[index] = item

    def _cut(self, part: slice, items: list[T]) -> None:
        """Put `items` in the place of more or fewer."""
        self._items[part] = items

    def _index(self, index: int) -> int:
        try:
            number = operator.index(index)
        except TypeError:
            raise TypeError(f"Invalid index type: {type(index).__name__}") from None
        if not -len(self) <= number < len(self):
            raise IndexError(f"Index out of range: {number}, there are {len(self)}")
        return number % len(self)

    def _check(self, item: object, told: str) -> None:
        if not isinstance(item, self.kind):
            raise TypeError(
                f"{told}: {type(item).__name__} is not a {self.kind.__name__}{self.hint}"
            )


class OrderedDict(collections.OrderedDict):
    """Things of a net by name: the user's own dictionary, which the net does not look at.

    As in genuine Caffe entries can be replaced and removed; to replace one looks like changing the
    net, so that it is told in the log.

    Parameters
    ----------
    items : mapping or iterable of pairs
    change : str
        How the net is changed, "{name}" in the place of the entry's name; "" says nothing.
    """

    def __init__(self, items: Any = (), change: str = "") -> None:
        self._change = ""
        super().__init__(items)
        self._change = change

    def __setitem__(self, name: str, value: object) -> None:
        if self._change and self.get(name) is not value:
            log_warning(
                f"'{name}' is replaced in this dictionary alone, the net does not notice: "
                f"{self._change.format(name=name)}"
            )
        super().__setitem__(name, value)
