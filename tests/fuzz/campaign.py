"""Fuzz readers in a process of their own, which may crash or hang: what the two campaigns share."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

# A process that takes that much more time than it should hangs; so much more, as others may have
# the processor.
PATIENCE = 100


def run(
    module: str,
    about: str,
    readers: Sequence[str],
    fuzz: Callable[[str, float, int, Path], dict[str, object]],
    environment: Callable[[], contextlib.AbstractContextManager],
) -> int:
    """Fuzz all readers in turns; return the exit status, 1 if something was found.

    Parameters
    ----------
    module : str
        The program, which calls this.
    about : str
    readers : sequence of str
        Those there are.
    fuzz : callable
        Takes a reader, seconds of processor time, a seed and a folder for finds; returns what the
        line about the reader says, "reader", "executions" and "finds" among it.
    environment : callable
        Makes what the process that fuzzes works in.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--seconds", type=float, default=600, help="of processor time, in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--finds", type=Path, default=Path("build/fuzz"), help="folder for finds")
    parser.add_argument("--readers", nargs="+", default=list(readers), help="all by default")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.finds = args.finds.resolve()
    args.finds.mkdir(parents=True, exist_ok=True)
    if args.worker:
        faulthandler.enable()
        with environment():
            for name in args.readers:
                print(json.dumps(fuzz(name, args.seconds, args.seed, args.finds)), flush=True)
        return 0
    waiting, seconds = args.readers, args.seconds / len(args.readers)
    total = finds = 0
    while waiting:
        results = _round(module, waiting, seconds, args)
        for result in results:
            print(json.dumps(result), flush=True)
            total += int(result["executions"])
            finds += int(result["finds"])
        waiting = waiting[len(results) :]
    print(f"{total} executions, {finds} finds")
    return int(finds > 0)


def _round(
    module: str, names: list[str], seconds: float, args: argparse.Namespace
) -> list[dict[str, object]]:
    """Fuzz readers in one process, up to the one that it does not survive."""
    words = [sys.executable, "-m", module, "--worker", "--readers", *names]
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
        for left in (f"{name}.file.zarr", f"{name}.file"):
            if (args.finds / left).exists():
                (args.finds / left).rename(kept)
                break
        print(f"{kept}: {wrong}", file=sys.stderr, flush=True)
        results.append({"reader": name, "executions": 0, "finds": 1})
    return results
