"""HDF5: of strangers' files only what they hold themselves is read; a full disk is an error.

HDF5 can say that a group or the numbers of a dataset lie in another file, wherever that is: a file
from a stranger would bring any file that its reader can open into what is made of it.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator

import h5py
from h5py import h5d, h5g, h5i, h5l, h5o, h5z

from unet.errors import InputError
from unet.files.names import PathLike
from unet.machine.signals import held

# As many as Linux follows from file to file.
_MOST_LINKS = 40
_MOST_VIRTUAL = 10_000


@contextlib.contextmanager
def damage_is_told(path: PathLike, what: str = "HDF5") -> Iterator[None]:
    """Turn whatever h5py raises on a file that should have been `what` into `InputError`."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        # A flipped bit surfaces as whatever it first breaks: OSError, RuntimeError, KeyError, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{os.fspath(path)}: cannot be read as {what} ({reason}); is the file whole?"
        ) from None


def open_hdf5_file(path: PathLike) -> h5py.File:
    """Open an HDF5 file to read; `InputError` if it is none, damaged, or missing."""
    if not os.path.exists(path):
        raise InputError(f"{os.fspath(path)}: no such file")
    if os.path.isdir(path):
        raise InputError(f"{os.fspath(path)}: is a folder, not an HDF5 file")
    with damage_is_told(path):
        return h5py.File(os.fspath(path), "r")


def find(file: h5py.File, name: str) -> h5py.Group | h5py.Dataset | None:
    """Return what a name, with slashes between groups, means by links within the file; or None.

    Raises
    ------
    InputError
        If the name leads out of the file, or in a circle; or if it is a dataset whose numbers lie
        in another file.
    """
    with damage_is_told(file.filename):
        entry = _find(file, _as_bytes(name))
        if isinstance(entry, h5d.DatasetID):
            check_inside(file, entry)
            return h5py.Dataset(entry)
        return h5py.Group(entry) if isinstance(entry, h5g.GroupID) else None


def _find(file: h5py.File, name: bytes) -> h5i.ObjectID | None:
    root = h5o.open(file.id, b"/")
    entry, links = root, 0
    waiting = _parts(name)
    while waiting:
        part = waiting.pop()
        # `part in entry` would follow a link.
        if not isinstance(entry, h5g.GroupID) or not entry.links.exists(part):
            return None
        kind = entry.links.get_info(part).type
        if kind == h5l.TYPE_HARD:
            entry = h5o.open(entry, part)
            continue
        if kind != h5l.TYPE_SOFT:
            raise _refuse(file, name, f"is a link {_leads_to(entry, part, kind)}")
        links += 1
        if links > _MOST_LINKS:
            raise _refuse(file, name, f"is a link over more than {_MOST_LINKS} links")
        target = entry.links.get_val(part)
        waiting += _parts(target)
        if target.startswith(b"/"):
            entry = root
    return entry


def _parts(name: bytes) -> list[bytes]:
    """Return the names between the slashes, the last one first."""
    return [part for part in name.split(b"/") if part not in (b"", b".")][::-1]


def _leads_to(group: h5g.GroupID, part: bytes, kind: int) -> str:
    if kind != h5l.TYPE_EXTERNAL:
        return "of a kind that is not known here"
    return f"into another file, {as_text(group.links.get_val(part)[0])}"


def _refuse(file: h5py.File, name: bytes, complaint: str) -> InputError:
    return InputError(
        f"{file.filename}: /{as_text(name).strip('/')} {complaint}; only what lies in the file "
        f"itself is read: copy it into this one"
    )


def _as_bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def as_text(name: bytes) -> str:
    """Return a name in a file as text, also where it is not UTF-8."""
    return name.decode("utf-8", "surrogateescape")


def datasets(group: h5py.Group) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield the datasets below a group and their names in it, once each, in the order of the names.

    Links are not followed, nor is it looked at where the numbers lie: `find` does both.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    with damage_is_told(group.file.filename):
        for name, entry in _walk(group):
            if isinstance(entry, h5d.DatasetID):
                yield as_text(name), h5py.Dataset(entry)


def _walk(group: h5py.Group) -> Iterator[tuple[bytes, h5i.ObjectID]]:
    # From each group only its own entries are opened: a path from the root costs as much as it is
    # long. Names stay in parts until they are needed, for the same reason.
    seen: set[tuple[int, int]] = set()
    waiting: list[tuple[tuple, h5i.ObjectID]] = [((), group.id)]
    while waiting:
        name, entry = waiting.pop()
        info = h5o.get_info(entry)
        # A group may hold itself.
        if (info.fileno, info.addr) in seen:
            continue
        seen.add((info.fileno, info.addr))
        yield _joined(name), entry
        if isinstance(entry, h5g.GroupID):
            for key in sorted(entry, reverse=True):
                if entry.links.get_info(key).type == h5l.TYPE_HARD:
                    waiting.append(((name, key), h5o.open(entry, key)))


def _joined(name: tuple) -> bytes:
    parts = []
    while name:
        name, key = name
        parts.append(key)
    return b"/".join(reversed(parts))


def check_inside(file: h5py.File, dataset: h5d.DatasetID) -> None:
    """Refuse a dataset that is stored outside, or made of datasets of other files."""
    seen: set[bytes] = set()
    waiting = [dataset]
    while waiting:
        dataset = waiting.pop()
        name = h5i.get_name(dataset) or b""
        layout = dataset.get_create_plist()
        if layout.get_external_count():
            outside = as_text(layout.get_external(0)[0])
            raise _refuse(file, name, f"has its numbers in another file, {outside}")
        if layout.get_layout() != h5d.VIRTUAL:
            continue
        if layout.get_virtual_count() > _MOST_VIRTUAL:
            raise _refuse(file, name, f"is made of more than {_MOST_VIRTUAL} datasets")
        for k in range(layout.get_virtual_count()):
            source, part = layout.get_virtual_filename(k), layout.get_virtual_dsetname(k)
            if source != "." or "%" in part:
                raise _refuse(file, name, f"is made of datasets of other files, {source}")
            if _as_bytes(part) not in seen:
                seen.add(_as_bytes(part))
                inner = _find(file, _as_bytes(part))
                if isinstance(inner, h5d.DatasetID):
                    waiting.append(inner)


def shape_of(dataset: h5py.Dataset) -> tuple[int, ...]:
    """Return the shape of a dataset; no other file is opened for that of a virtual one."""
    layout = dataset.id.get_create_plist()
    if layout.get_layout() == h5d.VIRTUAL and layout.get_virtual_count():
        return layout.get_virtual_vspace(0).get_simple_extent_dims()
    return dataset.shape


def check_filters(path: PathLike, dataset: h5py.Dataset) -> None:
    """Refuse a dataset that is compressed by a filter which HDF5 does not bring along.

    Those of the package hdf5plugin (Blosc, Zstandard, LZ4, bitshuffle, ...) are taken where it is
    installed.
    """
    made = dataset.id.get_create_plist()
    codes = [made.get_filter(k) for k in range(made.get_nfilters())]
    if all(h5z.filter_avail(code[0]) for code in codes):
        return
    with contextlib.suppress(ImportError):
        # It registers its filters.
        import hdf5plugin  # noqa: F401
    for code, _, _, name in codes:
        if not h5z.filter_avail(code):
            raise InputError(
                f"{os.fspath(path)}:{dataset.name} is compressed by the HDF5 filter {code} "
                f"({as_text(name)[:40] or 'without a name'}), which is not installed: pip install "
                f"hdf5plugin"
            )


def check_all_inside(file: h5py.File) -> None:
    """Refuse a file of which anything lies in another one, before a program follows it there.

    `InputError` is raised, too, if the file is damaged.
    """
    with damage_is_told(file.filename):
        for name, entry in _walk(file):
            if isinstance(entry, h5d.DatasetID):
                check_inside(file, entry)
            if isinstance(entry, h5g.GroupID):
                for key in entry:
                    kind = entry.links.get_info(key).type
                    if kind not in (h5l.TYPE_HARD, h5l.TYPE_SOFT):
                        place = _leads_to(entry, key, kind)
                        raise _refuse(file, name + b"/" + key, f"is a link {place}")


def check_weights(path: PathLike) -> None:
    """Refuse weights in HDF5 of which anything lies in another file: an engine would go there.

    Files of other kinds are left to the engine.
    """
    if h5py.is_hdf5(os.fspath(path)):
        with open_hdf5_file(path) as file:
            check_all_inside(file)


class _File(io.RawIOBase):
    """A file whose writes never fail: the first error is kept, and what comes after it dropped.

    HDF5 does not survive an error while it writes what it has kept in memory: it ends the process
    with a segmentation fault, then or when the file is closed.
    """

    def __init__(self, path: str | os.PathLike, mode: str) -> None:
        self._file = open(path, mode, buffering=0)  # noqa: SIM115 - closed by close
        self.error: BaseException | None = None

    def write(self, data: bytes) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        if self.error is None:
            try:
                while left:
                    left = left[self._file.write(left) :]
            except BaseException as error:
                self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        if self.error is None:
            try:
                self._file.truncate(size)
            except BaseException as error:
                self.error = error
        return self._file.tell() if size is None else size

    def readinto(self, buffer: bytearray) -> int:
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


class Hdf5Output:
    """An HDF5 file to write, anew ("w") or in part ("r+"); a context manager.

    Examples
    --------
    with Hdf5Output("numbers.h5") as output, output.changing() as file:
        file["numbers"] = [1, 2, 3]
    """

    def __init__(self, path: str | os.PathLike, mode: str = "w") -> None:
        self._raw = _File(path, "w+b" if mode == "w" else "r+b")
        with held():
            self._hdf5 = h5py.File(self._raw, mode)

    @contextlib.contextmanager
    def changing(self) -> Iterator[h5py.File]:
        """Give the file, to be changed in one go; signals wait for the end.

        Raises
        ------
        OSError
            If that, or anything before, could not be written.
        """
        try:
            with held():
                yield self._hdf5
        except Exception:
            # What could not be written cannot be read back either: that is the consequence.
            self._fail()
            raise
        self._fail()

    def _fail(self) -> None:
        if self._raw.error is not None:
            raise self._raw.error

    def __enter__(self) -> Hdf5Output:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with held():
            self._hdf5.close()
            self._raw.close()
        if kind is None:
            self._fail()
