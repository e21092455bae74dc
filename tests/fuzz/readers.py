"""Fuzz the readers of Caffe's files: python -m tests.fuzz.readers --seconds 600.

Valid files and the corpus are damaged again and again; what reaches a line of the engine that
nothing has reached before is damaged further. A reader may only accept a file or raise a CaffeError
that names the file and the place in it, with bounded work and memory. What does otherwise is kept.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.fuzz import campaign

CORPUS = Path(__file__).parent / "corpus"

# Lines of the engine, and calls of whatever function of Python.
MAX_WORK = 500_000
MAX_MEGABYTES = 200
MAX_MESSAGE = 2000
# No file that is fuzzed is larger: large ones are made by hand, in test_hostile_files.
MAX_FILE = 40_000


def verdict(name: str, path: Path, reached: set[tuple[str, int]]) -> str:
    """Read a file; return what is wrong with how that went, or nothing.

    Parameters
    ----------
    name : str
        Of the target.
    path : Path
    reached : set
        Gets the lines of the engine that run.
    """
    from caffe.errors import CaffeError
    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    before = peak_megabytes()
    try:
        with _traced(reached) as work:
            target.read(path)
        told = ""
    except CaffeError as error:
        told = str(error)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {error}"
    megabytes = peak_megabytes() - before
    if work() > MAX_WORK:
        return f"{work()} lines and calls: {told[:99]}"
    if megabytes > MAX_MEGABYTES:
        return f"{megabytes:.0f} MB: {told[:99]}"
    if len(told) > MAX_MESSAGE:
        return f"a message of {len(told)} characters: {told[:99]}"
    if told and not re.match(rf"{re.escape(str(path))}(?:.*)(?:{target.place})", told, re.DOTALL):
        return f"no place in the message: {told}"
    return ""


def peak_megabytes() -> float:
    """Return the most memory that this process has ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextlib.contextmanager
def _traced(reached: set[tuple[str, int]]) -> Iterator[Callable[[], int]]:
    """Enter into `reached` each line of the engine that runs; gives what tells the work so far."""
    work = 0

    def local(frame, event, _):
        nonlocal work
        work += 1
        reached.add((frame.f_code.co_filename, frame.f_lineno))
        return local

    def call(frame, event, _):
        nonlocal work
        work += 1
        return local if "/caffe/" in frame.f_code.co_filename else None

    sys.settrace(call)
    try:
        yield lambda: work
    finally:
        sys.settrace(None)


def _smaller(name: str, path: Path, data: bytes, wrong: str) -> bytes:
    """Return the least part of a file found that is wrong in the same way."""
    kind = wrong[:25]
    size = len(data) // 2
    while size:
        place = 0
        while place < len(data):
            shorter = data[:place] + data[place + size :]
            path.write_bytes(shorter)
            if verdict(name, path, set())[:25] == kind:
                data = shorter
            else:
                place += size
        size //= 2
    return data


def fuzz(name: str, seconds: float, seed: int, folder: Path) -> dict[str, object]:
    """Fuzz one reader in this process: valid files and the corpus at first, then damaged ones.

    Parameters
    ----------
    name : str
        Of the target.
    seconds : float
        Of processor time: how long it goes on after the first.
    seed : int
    folder : Path
        For the file that is read, and the finds.

    Returns
    -------
    dict
        The target, executions, lines of the engine reached, files in the pool, finds.
    """
    from tests.fuzz.targets import TARGETS

    rng = random.Random(f"{name} {seed}")
    target = TARGETS[name]
    pool = [*target.seeds(), *(path.read_bytes() for path in sorted((CORPUS / name).glob("*")))]
    given = len(pool)
    seen: set[tuple[str, int]] = set()
    finds: dict[str, str] = {}
    path = folder / f"{name}.file"
    executions = 0
    end = None
    while end is None or time.process_time() < end:
        if executions < given:
            data = pool[executions]
        else:
            end = end or time.process_time() + seconds
            data = target.mutate(rng, rng.choice(pool))[:MAX_FILE]
        path.write_bytes(data)
        lines: set[tuple[str, int]] = set()
        wrong = verdict(name, path, lines)
        executions += 1
        kind = re.sub(r"\d+(\.\d+)?", "0", wrong)[:60]
        if wrong and kind not in finds:
            found = folder / f"{name}-{len(finds)}-{seed}"
            found.write_bytes(_smaller(name, path, data, wrong))
            finds[kind] = wrong
            print(f"{found}: {wrong[:300]}", file=sys.stderr, flush=True)
        if lines - seen and executions > given:
            pool.append(data)
        seen |= lines
    path.unlink()
    return {
        "reader": name,
        "executions": executions,
        "lines": len(seen),
        "pool": len(pool),
        "finds": len(finds),
    }


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    from caffe.layers import fillers

    # A net may ask for gigabytes of parameters: here none may, so that memory tells of readers.
    fillers.MAX_COUNT = 2**20
    with tempfile.TemporaryDirectory() as scratch:
        # Layers that write files name them as they like.
        os.chdir(scratch)
        yield


def main() -> int:
    """Run the campaign."""
    from tests.fuzz.targets import TARGETS

    about = __doc__.splitlines()[0]
    return campaign.run("tests.fuzz.readers", about, list(TARGETS), fuzz, _environment)


if __name__ == "__main__":
    sys.exit(main())
