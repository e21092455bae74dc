"""Fuzz the readers of files: python -m tests.fuzz.readers --seconds 600.

Valid files and the corpus are damaged again and again; what reaches a line of the packages that
nothing has reached before is damaged further. A reader may only accept a file or raise an error
that names the file and the place in it; those of Caffe's files with bounded work and memory. What
does otherwise is kept. Each reader works in a process of its own, which may crash or hang.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import logging
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from caffe.errors import CaffeError
from caffe.layers import fillers
from tests.fuzz import targets, volumes
from unet.errors import InputError

TARGETS = targets.TARGETS | volumes.TARGETS
CORPUS = Path(__file__).parent / "corpus"

# Lines of the packages, and calls of whatever function of Python.
MAX_WORK = 500_000
MAX_MEGABYTES = 200
MAX_MESSAGE = 2000
# A damaged header of a stack may well ask for more; then there is a MemoryError.
MEMORY = 8 << 30
# No file that is fuzzed is larger: large ones are made by hand, in test_hostile_files.
MAX_FILE = 40_000
# A process that takes that much more time than it should hangs; so much more, as others may have
# the processor.
PATIENCE = 100


def verdict(name: str, path: Path, reached: set[tuple[str, int]]) -> str:
    """Read a file; return what is wrong with how that went, or nothing.

    Parameters
    ----------
    name : str
        Of the target.
    path : Path
    reached : set
        Gets the lines of the packages that run.
    """
    target = TARGETS[name]
    before = peak_megabytes()
    told = ""
    try:
        with _traced(reached) as work, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(path)
    except (CaffeError, InputError) as error:
        told = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if not target.is_bounded and isinstance(error, (OSError, MemoryError)):
            return ""
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {error}"
    megabytes = peak_megabytes() - before
    if target.is_bounded and work() > MAX_WORK:
        return f"{work()} lines and calls: {told[:99]}"
    if target.is_bounded and megabytes > MAX_MEGABYTES:
        return f"{megabytes:.0f} MB: {told[:99]}"
    if len(told) > MAX_MESSAGE or "\n" in told:
        return f"a message of {len(told)} characters: {told[:99]}"
    if told and not re.search(rf"{re.escape(path.name)}.*(?:{target.place})", told):
        return f"no place in the message: {told}"
    return ""


def peak_megabytes() -> float:
    """Return the most memory that this process has ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextlib.contextmanager
def _traced(reached: set[tuple[str, int]]) -> Iterator[Callable[[], int]]:
    """Enter into `reached` each line of the packages that runs; gives what tells the work."""
    work = 0

    def local(frame, event, _):
        nonlocal work
        work += 1
        reached.add((frame.f_code.co_filename, frame.f_lineno))
        return local

    def call(frame, event, _):
        nonlocal work
        work += 1
        return local if re.search("/(caffe|unet)/", frame.f_code.co_filename) else None

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
        The target, executions, lines reached, files in the pool, finds.
    """
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


def _work(args: argparse.Namespace) -> None:
    """Fuzz readers in this process, and print a line of JSON about each."""
    faulthandler.enable()
    logging.disable(logging.CRITICAL)
    # A net may ask for gigabytes of parameters: here none may, so that memory tells of readers.
    fillers.MAX_COUNT = 2**20
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    with tempfile.TemporaryDirectory() as scratch:
        # Layers that write files name them as they like.
        os.chdir(scratch)
        for name in args.readers:
            print(json.dumps(fuzz(name, args.seconds, args.seed, args.finds)), flush=True)


def _round(names: list[str], seconds: float, args: argparse.Namespace) -> list[dict[str, object]]:
    """Fuzz readers in one process, up to the one that it does not survive."""
    words = [sys.executable, "-m", "tests.fuzz.readers", "--worker", "--readers", *names]
    words += ["--seconds", str(seconds), "--seed", str(args.seed), "--finds", str(args.finds)]
    variables = os.environ | {"GLOG_minloglevel": "3", "OMP_NUM_THREADS": "1"}
    limit = PATIENCE * (seconds + 1) * len(names)
    wrong = ""
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, env=variables, timeout=limit)
        output = done.stdout
        if done.returncode:
            wrong = f"the process ended with {done.returncode}"
    except subprocess.TimeoutExpired as error:
        output, wrong = error.stdout or b"", "the process hangs"
    results = [json.loads(line) for line in output.splitlines()]
    if wrong:
        name = names[len(results)]
        kept = args.finds / f"{name}-killed-{args.seed}"
        if (args.finds / f"{name}.file").exists():
            (args.finds / f"{name}.file").rename(kept)
        print(f"{kept}: {wrong}", file=sys.stderr, flush=True)
        results.append({"reader": name, "executions": 0, "finds": 1})
    return results


def main() -> int:
    """Run the campaign; return the exit status, 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="of processor time, in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--finds", type=Path, default=Path("build/fuzz"), help="folder for finds")
    parser.add_argument("--readers", nargs="+", default=list(TARGETS), help="all by default")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.finds = args.finds.resolve()
    args.finds.mkdir(parents=True, exist_ok=True)
    if args.worker:
        _work(args)
        return 0
    waiting, seconds = args.readers, args.seconds / len(args.readers)
    total = finds = 0
    while waiting:
        results = _round(waiting, seconds, args)
        for result in results:
            print(json.dumps(result), flush=True)
            total += int(result["executions"])
            finds += int(result["finds"])
        waiting = waiting[len(results) :]
    print(f"{total} executions, {finds} finds")
    return int(finds > 0)


if __name__ == "__main__":
    sys.exit(main())
