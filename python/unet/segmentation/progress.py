"""What of a run is done, on disk beside its output, so that a run that was killed goes on.

The folder .NAME.progress beside an output NAME holds

    lock                 held by the program that uses the folder
    workers              held, shared, by the processes that compute for it
    run.json             what is computed (the fingerprint), and of which stack
    blocks/Z-ROW-COLUMN  arrays of a block that is done

A block's file gets its name when it is whole and on the disk: that marks it as done. Blocks that
come faster than a disk can sync are put together: they share its journal and the folder's sync.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from unet.errors import InputError, few
from unet.files.atomic import (
    CannotWrite,
    make_folders,
    remove_folder,
    sync,
    write_all_durably,
    write_durably,
    writing,
)
from unet.files.names import PathLike, split_name
from unet.segmentation.blocks import Block

_SUFFIX = ".progress"
_LOCK, _WORKERS, _RUN, _BLOCKS = "lock", "workers", "run.json", "blocks"
# Part of the fingerprint: folders of another layout are begun anew.
_LAYOUT = 3
# Names are at most 255 bytes long.
_LONGEST = 200
# So often the folder is made anew after the program that it belonged to has removed it.
_CLAIMS = 100
# Longer values of a fingerprint are not told: checksums, that is.
_SHORT = 40


def progress_folder(output: PathLike) -> Path:
    """Return where the progress of a run that writes `output` lies.

    Examples
    --------
    >>> progress_folder("results/out.tif").as_posix()
    'results/.out.tif.progress'
    """
    output = Path(output)
    name = os.fsencode(output.name)
    if len(name) > _LONGEST:
        name = name[:_LONGEST] + hashlib.blake2b(name, digest_size=8).hexdigest().encode()
    return output.parent / f".{os.fsdecode(name)}{_SUFFIX}"


def identity_of(stack: PathLike) -> str:
    """Return a digest of the files of a stack, by their names, sizes and times: no pixel is read.

    It is another one if one of them was written anew; one that cannot be found counts as absent.
    """
    digest = hashlib.blake2b(digest_size=16)
    for stamp in _stamps(split_name(os.fspath(stack))[0]):
        digest.update(stamp)
    return digest.hexdigest()


def stamps_of(stack: PathLike) -> np.ndarray:
    """Return a number for each file of a stack, by its name, size and time, in uint64.

    Hidden files do not count, but Zarr's.
    """
    file = split_name(os.fspath(stack))[0]

    def counts(stamp: bytes) -> bool:
        name = stamp.partition(b"\0")[0]
        if name == b".":
            # Of a folder its own time changes with whatever else is written in it.
            return not file.is_dir()
        return not any(part[:1] == b"." and part[:2] != b".z" for part in name.split(b"/"))

    digests = (hashlib.blake2b(one, digest_size=8) for one in _stamps(file) if counts(one))
    return np.fromiter((int.from_bytes(one.digest(), "little") for one in digests), np.uint64)


def _stamps(file: Path) -> Iterator[bytes]:
    for path in (file, *_below(file)):
        with contextlib.suppress(OSError):
            status = os.stat(path)
            name = os.fsencode(os.path.relpath(path, file))
            yield b"%s\0%d\0%d\0" % (name, status.st_size, status.st_mtime_ns)


def _below(folder: Path) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders.sort()
        yield from (os.path.join(place, name) for name in sorted(files))


def digest_of(image: np.ndarray) -> str:
    """Return a digest of the pixels, type and shape of an image."""
    digest = hashlib.blake2b(f"{image.dtype.str} {image.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


class Computed(NamedTuple):
    """What is kept of a block.

    Attributes
    ----------
    block : Block
    arrays : mapping of ndarray
    image : ndarray
        The pixels of the stack that they were computed of.
    """

    block: Block
    arrays: Mapping[str, np.ndarray]
    image: np.ndarray


class Progress:
    """The blocks of a run that are done; as a context, the folder is this program's alone.

    The context left by `finish` or before a block is done leaves nothing; else the folder stays,
    and an `InputError` or other mistake that ends it says so.

    Attributes
    ----------
    output : pathlib.Path
    chosen : dict
        What the run that began chose for all that go on, as JSON holds it.
    is_same_stack : bool
        Whether the stack is, by its identity, that of the run that began.
    anew : str
        Why what an earlier run had done was dropped; empty if it counts, or there is none.
    """

    def __init__(self, output: PathLike) -> None:
        self.output = Path(output)
        self.folder = progress_folder(output)
        self.chosen: dict[str, Any] = {}
        self.is_same_stack = True
        self.anew = ""
        self._lock = -1
        self._is_worker = False
        self._made: list[Path] = []
        self._content: dict[str, Any] = {}

    @classmethod
    def open(
        cls,
        output: PathLike,
        fingerprint: Mapping[str, Any],
        *,
        identity: str = "",
        chosen: Mapping[str, Any] | None = None,
        anew: bool = False,
    ) -> Progress:
        """Go on with the run that writes an output, or begin it.

        Parameters
        ----------
        output : path
            The folder that it lies in is made.
        fingerprint : mapping
            All that the values depend on, of what JSON holds.
        identity : str
            Of the stack: `identity_of`.
        chosen : mapping, optional
            What is kept for the runs that go on, of what JSON holds.
        anew : bool
            Whether what was done of another fingerprint is dropped.

        Raises
        ------
        InputError
            If another program is writing the output, blocks of another fingerprint are done, or the
            folder cannot be made.
        """
        progress = cls(output)
        content = {
            "fingerprint": {"layout": _LAYOUT, **fingerprint},
            "identity": identity,
            "chosen": dict(chosen or {}),
        }
        try:
            with writing(output):
                progress._take()
                progress._begin(json.loads(json.dumps(content)), anew)
        except BaseException:
            progress._leave(remove=not progress.count())
            raise
        return progress

    @classmethod
    def join(cls, output: PathLike) -> Progress:
        """Put blocks into the folder that another process has opened, as one of its workers.

        As a context it only holds the folder. An `InputError` if there is none.
        """
        progress = cls(output)
        progress._is_worker = True
        try:
            progress._lock = os.open(progress.folder / _WORKERS, os.O_RDWR)
            progress._content = json.loads((progress.folder / _RUN).read_text())
        except OSError:
            raise InputError(f"{output}: no program is writing it") from None
        progress.chosen = progress._content["chosen"]
        with contextlib.suppress(OSError):
            fcntl.flock(progress._lock, fcntl.LOCK_SH)
        return progress

    def _take(self) -> None:
        for _ in range(_CLAIMS):
            self._made += make_folders(self.output.parent)
            with contextlib.suppress(FileExistsError):
                self.folder.mkdir()
                for place in (self.folder, *self._made):
                    sync(place.parent)
            try:
                lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            except FileNotFoundError:
                continue
            if _is_held(lock) or self._has_workers():
                os.close(lock)
                raise InputError(
                    f"{self.output}: another program is writing it; wait until that has ended, or "
                    f"name another output"
                )
            with contextlib.suppress(FileNotFoundError):
                # Else the program that held it has finished, and removed the folder.
                if os.path.samestat(os.fstat(lock), os.stat(self.folder / _LOCK)):
                    self._lock = lock
                    return
            os.close(lock)
        raise InputError(f"{self.output}: {self.folder} cannot be made; name another place")

    def _has_workers(self) -> bool:
        """Tell whether processes still compute for a program that was killed."""
        try:
            workers = os.open(self.folder / _WORKERS, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            return False
        try:
            return _is_held(workers)
        finally:
            os.close(workers)

    def _begin(self, content: dict[str, Any], anew: bool) -> None:
        try:
            before = json.loads((self.folder / _RUN).read_text())
            earlier, identity = before["fingerprint"], before["identity"]
            self.chosen = before["chosen"]
        except (OSError, ValueError, KeyError, TypeError):
            # Nothing was begun.
            earlier = None
        if earlier == content["fingerprint"]:
            self.is_same_stack = identity == content["identity"]
            self._content = before
            return
        if earlier is not None and (count := self.count()):
            told = "; ".join(_differences(earlier, content["fingerprint"]))
            done = f"an earlier run has done {_of_blocks(count)} of it by other options ({told})"
            if not anew:
                raise InputError(
                    f"{self.output}: {done}: give those to go on, or --overwrite to begin anew"
                )
            self.anew = f"{done}: begun anew"
        with contextlib.suppress(FileNotFoundError):
            # First: blocks without it do not count.
            (self.folder / _RUN).unlink()
        sync(self.folder)
        remove_folder(self.folder / _BLOCKS)
        (self.folder / _BLOCKS).mkdir(exist_ok=True)
        self.chosen = content["chosen"]
        self._note(content)

    def _note(self, content: dict[str, Any]) -> None:
        self._content = content
        write_durably(
            self.folder / _RUN, lambda file: file.write(json.dumps(content, indent=1).encode())
        )

    def choose(self, chosen: Mapping[str, Any]) -> None:
        """Replace `chosen`, for the runs that go on."""
        with writing(self.output):
            self._note({**self._content, "chosen": dict(chosen)})
        self.chosen = dict(chosen)

    def _place(self, block: Block) -> Path:
        rows, columns = block.rows, block.columns
        name = f"{block.z}-{rows.start}_{rows.stop}-{columns.start}_{columns.stop}"
        return self.folder / _BLOCKS / name

    def done(self, block: Block) -> bool:
        """Tell whether a block is done, by this run or an earlier one."""
        return self._place(block).exists()

    def count(self) -> int:
        """Return how many blocks are done."""
        try:
            names = os.listdir(self.folder / _BLOCKS)
        except (FileNotFoundError, NotADirectoryError):
            return 0
        return sum(not name.startswith(".") for name in names)

    @property
    def kept(self) -> str:
        """What is told of an error or a signal that ends the run; empty if nothing is done."""
        count = self.count() if self._lock >= 0 else 0
        told = f"what is done, {_of_blocks(count)}, is kept: the same command goes on"
        return told if count else ""

    def put(self, computed: Sequence[Computed]) -> None:
        """Store what was computed of blocks; when this returns it is safe on the disk.

        Several processes may do so at once.

        Raises
        ------
        InputError
            If it cannot be written: the disk is full, say. Blocks before the one that does not go
            are stored.
        """
        with writing(self.output):
            write_all_durably((self._place(one.block), _writer(one)) for one in computed)

    def get(self, block: Block) -> dict[str, np.ndarray]:
        """Return the arrays of a block that is done.

        An `InputError` if its file is damaged; the block then counts as not done.
        """
        arrays = {}
        try:
            with open(self._place(block), "rb") as file:
                crc, header = file.readline(), file.readline()
                for name, (dtype, shape) in json.loads(header)["arrays"].items():
                    arrays[name] = np.empty(shape, dtype)
                    if file.readinto(arrays[name].data) < arrays[name].nbytes:
                        raise EOFError
            whole = crc == b"%08x\n" % _crc(header, arrays)
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            whole = False
        if not whole:
            self.drop(block)
            raise InputError(
                f"{self._place(block)}: is damaged, so slice {block.z} is to be computed again"
            )
        return arrays

    def drop(self, block: Block) -> None:
        """Have a block count as not done, from now on and after a power cut."""
        place = self._place(block)
        with contextlib.suppress(FileNotFoundError):
            place.unlink()
            sync(place.parent)

    def drop_all(self) -> None:
        """Have all blocks count as not done."""
        remove_folder(self.folder / _BLOCKS)
        with writing(self.output):
            (self.folder / _BLOCKS).mkdir(exist_ok=True)
            sync(self.folder)

    def drop_changed(
        self,
        blocks: Iterable[Block],
        read: Callable[[int, slice, slice], np.ndarray],
        identity: str,
    ) -> list[int]:
        """Have the slices of which pixels have changed count as not done; return them.

        Parameters
        ----------
        blocks : iterable of Block
            All of the run.
        read : callable
            Returns the pixels of a block: `Volume.region`.
        identity : str
            Of the stack as it is now.
        """
        blocks = list(blocks)
        changed = {
            block.z
            for block in blocks
            if self.done(block) and self._digest(block) != digest_of(read(*block))
        }
        for block in blocks:
            # A block looks over its edges at its neighbours'.
            if block.z in changed:
                self.drop(block)
        with writing(self.output):
            self._note({**self._content, "identity": identity})
        self.is_same_stack = True
        return sorted(changed)

    def check_stack(self, stack: PathLike, before: np.ndarray) -> None:
        """Refuse a stack of which files are gone or others than before; then all is looked at anew.

        Chunks of Zarr that are gone read as if nothing had ever been written there.

        Parameters
        ----------
        stack : path
        before : uint64 ndarray
            `stamps_of` it when the run began.
        """
        if np.isin(before, stamps_of(stack)).all():
            return
        with writing(self.output):
            self._note({**self._content, "identity": ""})
        raise InputError(
            f"{os.fspath(stack)}: has changed, or parts of it are gone, since this run began; put "
            f"it back as it was"
        )

    def _digest(self, block: Block) -> str | None:
        try:
            with open(self._place(block), "rb") as file:
                file.readline()
                return json.loads(file.readline())["image"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def finish(self) -> None:
        """Remove the folder, since the output is whole; a kill leaves it or what is swept away."""
        self._leave(remove=True)

    def _leave(self, remove: bool) -> None:
        if self._lock >= 0 and remove and not self._is_worker:
            # A name of what `unet.files.atomic` sweeps, once nobody holds its lock any more.
            short = os.fsdecode(os.fsencode(self.output.name)[:_LONGEST])
            gone = self.folder.with_name(f".{short}.{secrets.token_hex(4)}.part")
            with contextlib.suppress(OSError):
                os.replace(self.folder, gone)
                remove_folder(gone)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        for parent in reversed(self._made):
            # Those that hold something stay.
            with contextlib.suppress(OSError):
                parent.rmdir()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        kept = "" if self._is_worker else self.kept
        self._leave(remove=not kept)
        if not kept or error is None:
            return
        if isinstance(error, CannotWrite):
            raise CannotWrite(error.target, f"{error.reason}; {kept}") from None
        if isinstance(error, (InputError, OSError, MemoryError)):
            made = MemoryError if isinstance(error, MemoryError) else InputError
            raise made(f"{error}; {kept}") from None


def _writer(computed: Computed) -> Callable[[BinaryIO], None]:
    """Return what writes the file of a block."""

    def write(file: BinaryIO) -> None:
        arrays = {name: np.ascontiguousarray(one) for name, one in computed.arrays.items()}
        content = {
            "image": digest_of(computed.image),
            "arrays": {name: [array.dtype.str, array.shape] for name, array in arrays.items()},
        }
        header = json.dumps(content).encode() + b"\n"
        file.write(b"%08x\n" % _crc(header, arrays))
        file.write(header)
        for array in arrays.values():
            file.write(array.data)

    return write


def _crc(header: bytes, arrays: Mapping[str, np.ndarray]) -> int:
    crc = zlib.crc32(header)
    for array in arrays.values():
        crc = zlib.crc32(array.data, crc)
    return crc


def _of_blocks(count: int) -> str:
    return f"{count} block{'s' * (count > 1)}"


def _differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield what differs between two fingerprints, with both values where these are short."""
    for key in {**earlier, **now}:
        old, new = earlier.get(key), now.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new)
            continue
        values = ["none" if one in (None, []) else str(one) for one in (old, new)]
        is_short = max(map(len, values)) <= _SHORT
        yield f"{key} {values[0]}, now {values[1]}" if is_short else f"other {key}"


def changed_text(slices: list[int]) -> str:
    """Return what is told of slices that were computed already and have changed since."""
    return f"slices {few(slices)} have changed since they were computed: computed again"


def _is_held(lock: int) -> bool:
    """Lock a file; tell whether another has locked it. Where there are no locks, nobody has."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN)
    return False
