"""HDF5 files that are written: a full disk is an error to catch, not the end of the process."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator

import h5py

from unet.machine.signals import held


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
    """An HDF5 file to write; a context manager.

    Parameters
    ----------
    path : path
    mode : str
        "w" makes it anew, "r+" changes what is there.

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
