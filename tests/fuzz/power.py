"""What of a folder is on the disk for certain: what a program finds when the power has gone."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

# Contents by path; a folder is None.
Files = dict[str, "bytes | None"]


class Disk:
    """A folder; of what changes in it only what `os.fsync` is called for comes to the disk.

    Of a file that is the content it had then, of a folder the names in it, which lead to files
    and folders whatever becomes of their other names. `fsync` takes the place of `os.fsync`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._content: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        # A number on the disk stays that of one file for as long as this is open.
        self._open: dict[int, int] = {}
        self._lock = threading.Lock()
        for place in (folder, *folder.rglob("*")):
            self._fsync(os.open(place, os.O_RDONLY))

    def fsync(self, handle: int) -> None:
        with self._lock:
            self._fsync(os.dup(handle))

    def _fsync(self, handle: int) -> None:
        number = self._hold(handle)
        place = Path(f"/proc/self/fd/{self._open[number]}")
        if place.is_dir():
            self._names[number] = self._list(place)
        else:
            self._content[number] = place.read_bytes()

    def _hold(self, handle: int) -> int:
        number = os.fstat(handle).st_ino
        if self._open.setdefault(number, handle) != handle:
            os.close(handle)
        return number

    def _list(self, folder: Path) -> dict[str, int]:
        return {
            name: self._hold(os.open(folder / name, os.O_RDONLY)) for name in os.listdir(folder)
        }

    def after_power_cut(self, names_are_there: bool) -> Files:
        """Return files by their paths, and folders, which are None.

        Parameters
        ----------
        names_are_there : bool
            Whether all names, new ones and those that were changed, came to the disk anyway.
            Files that were never synced are empty then, as file systems leave them.
        """
        found: Files = {}

        def walk(number: int, path: str) -> None:
            names = self._names.get(number, {})
            if names_are_there:
                names = self._list(Path(f"/proc/self/fd/{self._open[number]}"))
            for name, child in names.items():
                below = f"{path}{name}"
                if stat.S_ISDIR(os.fstat(self._open[child]).st_mode):
                    found[below] = None
                    walk(child, below + "/")
                else:
                    found[below] = self._content.get(child, b"")

        with self._lock:
            walk(os.stat(self._folder).st_ino, "")
        return found

    def close(self) -> None:
        for handle in self._open.values():
            os.close(handle)


def lay_out(folder: Path, found: Files) -> None:
    """Make a folder of what `Disk.after_power_cut` has found."""
    folder.mkdir()
    for name, content in found.items():
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)
