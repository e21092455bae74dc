"""Download a file so that a broken connection costs only what was not there yet."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from unet.errors import InputError
from unet.files.atomic import writing
from unet.files.names import PathLike

_BLOCK = 1 << 16  # bytes; what a broken connection may lose
_TIMEOUT = 30  # seconds without a byte


def download(url: str, folder: PathLike, sha256: str | None = None, retries: int = 3) -> Path:
    """Download a file into a folder, or find it there.

    Parameters
    ----------
    url : str
    folder : path
        Where the file goes, under the last part of the address.
    sha256 : str, optional
        Checksum of the file.
    retries : int
        How often to try again; what has arrived is kept in NAME.part, from run to run, too.

    Raises
    ------
    InputError
        If the file cannot be had or has another checksum.
    """
    import requests

    folder, name = Path(folder), url.rsplit("/", 1)[1]
    target, part = folder / name, folder / f"{name}.part"
    with writing(target):
        folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if target.exists() and _fits(target, sha256):
            return target
        for attempt in range(retries + 1):
            time.sleep(min(attempt, 10))
            try:
                _resume(url, part, target)
            except requests.RequestException as error:
                if attempt == retries:
                    raise InputError(f"{url} cannot be downloaded ({_reason(error)})") from None
            else:
                if _fits(part, sha256):
                    with writing(target):
                        os.replace(part, target)
                    return target
                part.unlink()
    raise InputError(f"{url} is not the file expected (its SHA-256 is not {sha256})")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until nobody else downloads into a folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        # A file system without locks: alone or not, the checksum decides.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _fits(path: Path, sha256: str | None) -> bool:
    if sha256 is None:
        return True
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest() == sha256


def _resume(url: str, part: Path, target: Path) -> None:
    """Fetch what `part` lacks of the file; errors of writing name `target`."""
    import requests
    from tqdm import tqdm

    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"} if have else {}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as reply:
        if reply.status_code == 416:
            if reply.headers.get("Content-Range") == f"bytes */{have}":
                return
            # The part is longer than the file, so it is of another: begin anew.
            part.unlink()
            raise requests.ConnectionError("the server has no such range")
        reply.raise_for_status()
        resumed = reply.status_code == 206
        have = have if resumed else 0
        length = reply.headers.get("Content-Length")
        total = have + int(length) if length else None
        bar = tqdm(
            total=total, initial=have, unit="B", unit_scale=True, desc=part.stem, disable=None
        )
        # A connection that breaks is seen below, by what is missing, if the length is known.
        broken = () if total is None else (requests.exceptions.ChunkedEncodingError,)
        with writing(target):
            file = open(part, "ab" if resumed else "wb")  # noqa: SIM115 - closed below
        with bar, file, contextlib.suppress(*broken):
            for block in reply.iter_content(_BLOCK):
                with writing(target):
                    file.write(block)
                    file.flush()
                bar.update(len(block))
    if total is not None and part.stat().st_size != total:
        raise requests.ConnectionError(f"{part.stat().st_size} of {total} bytes came")


def _reason(error: Exception) -> str:
    """Return the part of an error of requests that a user can read."""
    import requests

    if isinstance(error, requests.HTTPError):
        return f"the server says {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    innermost = error
    while innermost.args and isinstance(innermost.args[0], Exception):
        innermost = innermost.args[0]
    return str(getattr(innermost, "reason", innermost)).split(": ", 1)[-1]
