"""What the names of a folder's files say: which slice each is, and its fellow in another folder."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Union

from unet.errors import InputError, few
from unet.volumes.images import Volume

# What is left of a name: numbers and words, without what stands between them.
Key = tuple[Union[int, str], ...]
_PARTS = re.compile(r"[0-9]+|[^\W0-9_]+")
# Folders that `unet segment` writes of a stack, whose slices have no names, count them from 0.
_COUNTED = re.compile(r"slice_0*([0-9]+)\.png")
_FLAG = "or say --by-order to take both in the order of their names"


def keys_of(names: Sequence[str]) -> list[Key]:
    """Return what tells the files of a folder apart: their names without what is common to all.

    Parameters
    ----------
    names : sequence of str
        With suffix; those of one folder.

    Examples
    --------
    >>> keys_of(["img_09-a.tif", "img_10-a.tif"])
    [(9,), (10,)]
    >>> keys_of(["mouse_mask.png", "rat_mask.png"])
    [('mouse',), ('rat',)]
    """
    split = [_parts(name) for name in names]
    if len(split) == 1:
        return split
    shortest = min(map(len, split))
    front = next((k for k in range(shortest) if len({parts[k] for parts in split}) > 1), shortest)
    back = next(
        (k for k in range(shortest - front) if len({parts[-1 - k] for parts in split}) > 1),
        shortest - front,
    )
    return [parts[front : len(parts) - back] for parts in split]


def _parts(name: str) -> Key:
    parts = _PARTS.findall(os.path.splitext(name)[0].lower())
    return tuple(int(part) if part[0].isdecimal() else part for part in parts)


def frame_numbers(volume: Volume) -> list[int] | None:
    """Return the number that each file of a folder has in its name; None where they have none.

    Names may hold other numbers, such as times: the one meant is different in each and spans least.

    Examples
    --------
    >>> from unet.volumes.images import Volume
    >>> folder = Volume("masks", (3, 4, 5), "u1", None)
    >>> folder.names = ("mask000.tif", "mask001.tif", "mask004.tif")
    >>> frame_numbers(folder)
    [0, 1, 4]

    Raises
    ------
    InputError
        If two files have the same number.
    """
    keys = keys_of(volume.names)
    if len(keys) == 1:
        last = [part for part in keys[0] if isinstance(part, int)][-1:]
        return last or None
    columns = [
        list(column)
        for column in zip(*keys)
        if len({len(key) for key in keys}) == 1 and all(isinstance(part, int) for part in column)
    ]
    rising = [column for column in columns if all(a < b for a, b in zip(column, column[1:]))]
    if rising:
        return min(rising, key=lambda column: column[-1] - column[0])
    _refuse_twins(volume, keys)
    return None


def known_numbers(volume: Volume) -> list[int]:
    """Return `frame_numbers`; none where names have none, or two files the same.

    Examples
    --------
    >>> folder = Volume("masks", (2, 4, 5), "u1", None)
    >>> folder.names = ("mask007.tif", "mask009.tif")
    >>> known_numbers(folder)
    [7, 9]
    """
    try:
        return (frame_numbers(volume) if volume.names else None) or []
    except InputError:
        return []


def missing_numbers(volume: Volume) -> list[int]:
    """Return the numbers that the files of a folder leave out, between the first and the last.

    None where names have no numbers, or leave out more than there are: then they count otherwise.

    Examples
    --------
    >>> folder = Volume("masks", (3, 4, 5), "u1", None)
    >>> folder.names = ("mask000.tif", "mask001.tif", "mask003.tif")
    >>> missing_numbers(folder)
    [2]
    """
    numbers = known_numbers(volume)
    if not numbers or numbers[-1] - numbers[0] + 1 > 2 * len(numbers):
        return []
    return sorted(set(range(numbers[0], numbers[-1])) - set(numbers))


def _refuse_twins(volume: Volume, keys: Sequence[Key]) -> None:
    seen: dict[Key, str] = {}
    for key, name in zip(keys, volume.names):
        if key in seen:
            raise InputError(
                f"{volume.path}: {seen[key]} and {name} have the same number; remove one of the two"
            )
        seen[key] = name


def are_named(first: Volume, second: Volume) -> bool:
    """Tell whether the names of files say which slice of one belongs to which of the other.

    So it is for two folders, but for those that `unet segment` has written of a stack, and of one
    file each.
    """
    return (
        bool(first.names and second.names)
        and not (_is_counted(first) or _is_counted(second))
        and not len(first) == len(second) == 1
    )


def places_of(labels: Volume, pictures: Volume, what: str = "picture") -> Sequence[int]:
    """Return which picture belongs to each slice of labels, by numbers or words in their names.

    Parameters
    ----------
    labels, pictures : Volume
        Unless `are_named`, slices belong together by their places, and all places of the pictures
        are returned.
    what : str
        What the pictures are, for messages.

    Raises
    ------
    InputError
        If labels have no picture, or files of one folder have the same number.
    """
    by_place = range(len(pictures))
    if not are_named(labels, pictures):
        return by_place
    places = _places(pictures, labels, what)
    return by_place if places == list(by_place) else places


def _is_counted(volume: Volume) -> bool:
    found = [_COUNTED.fullmatch(name) for name in volume.names]
    return all(one and int(one[1]) == z for z, one in enumerate(found))


def _places(pictures: Volume, labels: Volume, what: str) -> list[int]:
    """Return which picture belongs to each of the labels."""
    lost = ""
    for keys_of_both in (_by_stem, _by_key):
        first, second = keys_of_both(pictures, labels)
        _refuse_twins(pictures, first)
        _refuse_twins(labels, second)
        place = {key: k for k, key in enumerate(first)}
        alone = [name for key, name in zip(second, labels.names) if key not in place]
        if not alone:
            return [place[key] for key in second]
        lost = few(alone, 3)
    raise InputError(
        f"{labels.path}: {lost} {'has' if ',' not in lost else 'have'} no {what} of that number "
        f"in {pictures.path} ({few(pictures.names, 3)}): give both the same numbers, {_FLAG}"
    )


def _by_stem(pictures: Volume, labels: Volume) -> tuple[list[Key], list[Key]]:
    return tuple(
        [(os.path.splitext(name)[0].lower(),) for name in volume.names]
        for volume in (pictures, labels)
    )


def _by_key(pictures: Volume, labels: Volume) -> tuple[list[Key], list[Key]]:
    first, second = keys_of(pictures.names), keys_of(labels.names)
    # Of a single file nothing is common to several: its last number is meant.
    if len(first) == 1:
        first = [_last_number(first[0])]
    if len(second) == 1:
        second = [_last_number(second[0])]
    return first, second


def _last_number(key: Key) -> Key:
    return tuple([part for part in key if isinstance(part, int)][-1:]) or key


def chosen(volume: Volume, places: Sequence[int]) -> Volume:
    """Return the slices of a volume at these places, in their order; closing it closes the other.

    Parameters
    ----------
    volume : Volume
    places : sequence of int
    """
    if places == range(len(volume)):
        return volume
    part = Volume(
        volume.path,
        (len(places),) + volume.shape[1:],
        volume.dtype,
        lambda z: volume[places[z]],
        volume.close,
        missing=[k for k, place in enumerate(places) if place in volume.missing],
        # They need no longer be all depths of each time point.
        calibration=replace(volume.calibration, times=1),
        part=lambda z, rows, columns: volume.region(places[z], rows, columns),
    )
    part.names = tuple(volume.names[place] for place in places) if volume.names else ()
    return part
