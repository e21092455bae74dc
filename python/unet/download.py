"""Download a file so that a broken connection costs only what was not there yet."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Union

from unet.errors import InputError

PathLike = Union[str, "os.PathLike[str]"]
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

    Returns
    -------
    pathlib.Path

    Raises
    ------
    InputError
        If the file cannot be had or has another checksum.
    """
    import pooch
    import requests

    base, name = url.rsplit("/", 1)
    pooch.get_logger().setLevel("WARNING")
    store = pooch.create(
        path=str(folder),
        base_url=base + "/",
        registry={name: f"sha256:{sha256}" if sha256 else None},
        retry_if_failed=retries,
    )
    part = Path(folder) / f"{name}.part"
    try:
        return Path(store.fetch(name, downloader=lambda url, output, _: _resume(url, output, part)))
    except requests.RequestException as error:
        raise InputError(f"{url} cannot be downloaded ({_reason(error)})") from None
    except ValueError as error:
        raise InputError(f"{url} is not the file expected ({error})") from None


def _resume(url: str, output: PathLike, part: Path) -> None:
    """Fetch what `part` lacks of the file, then move it to `output`."""
    import requests
    from tqdm import tqdm

    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"} if have else {}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as reply:
        if reply.status_code == 416:
            if reply.headers.get("Content-Range") == f"bytes */{have}":
                os.replace(part, output)
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
        with bar, open(part, "ab" if resumed else "wb") as file, contextlib.suppress(*broken):
            for block in reply.iter_content(_BLOCK):
                file.write(block)
                bar.update(len(block))
    if total is not None and part.stat().st_size != total:
        raise requests.ConnectionError(f"{part.stat().st_size} of {total} bytes came")
    os.replace(part, output)


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
