"""Run one and the same pycaffe script on this engine and on genuine Caffe, and compare.

A script takes the paths of two .npz files, reads its arrays from the first and writes its results
to the second. It must run on Python 3.9 with numpy 1.19. Starting genuine Caffe takes a second, so
a script should do many cases at once: tests/parity/scripts/run_nets.py does so for nets.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = Path(__file__).resolve().parent / "scripts"

Arrays = dict[str, np.ndarray]
Ran = TypeVar("Ran")


@dataclass(frozen=True)
class Engine:
    """One of the two implementations of pycaffe.

    Attributes
    ----------
    name : str
    command : tuple of str
        Runs a Python in which `import caffe` gives this engine.
    """

    name: str
    command: tuple[str, ...]

    @classmethod
    def ours(cls) -> Engine:
        """Return the engine of this repository."""
        return cls("ours", (sys.executable,))

    @classmethod
    def genuine(cls) -> Engine:
        """Return genuine Caffe."""
        return cls("genuine", (str(REPOSITORY / "tools" / "caffe-reference"), "python3"))

    def run(
        self,
        script: str | Path,
        arrays: Mapping[str, np.ndarray | str | float] | None = None,
        *arguments: str,
        timeout: float = 3600,
        environment: Mapping[str, str] | None = None,
        cwd: Path = REPOSITORY,
    ) -> Arrays:
        """Run a script in a process of its own.

        Parameters
        ----------
        script : path or str
            A file, or source text.
        arrays : mapping, optional
            What the script finds in the .npz file that its first argument names.
        *arguments : str
            Follow the two paths on its command line.
        timeout : float
            Seconds.
        environment : mapping, optional
            Additional environment variables.
        cwd : path
            Working folder, in the repository or in /tmp.

        Returns
        -------
        dict of str to ndarray
            What it wrote to the .npz file that its second argument names.

        Raises
        ------
        AssertionError
            If it fails, with what it printed.
        """
        with tempfile.TemporaryDirectory(prefix="parity-") as folder:
            given, result = Path(folder, "given.npz"), Path(folder, "result.npz")
            np.savez(given, **dict(arrays or {}))
            if not isinstance(script, Path):
                source, script = script, Path(folder, "script.py")
                search = f"import sys; sys.path.insert(0, {str(SCRIPTS)!r})\n"
                script.write_text(search + source, encoding="utf-8")
            finished = subprocess.run(
                [*self.command, str(script), str(given), str(result), *arguments],
                cwd=cwd,
                env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
            )
            assert finished.returncode == 0, (
                f"{script.name} on {self.name}: exit status {finished.returncode}\n"
                f"{finished.stdout[-4000:]}{finished.stderr[-8000:]}"
            )
            if not result.exists():
                return {}
            with np.load(result) as arrays_given:
                return dict(arrays_given)

    def run_each(
        self,
        script: Path,
        cases: Mapping[str, Mapping[str, object]],
        *arguments: str,
        shared: Mapping[str, np.ndarray] | None = None,
        timeout: float = 3600,
    ) -> dict[str, Arrays]:
        """Run a script once for many cases: arrays and results are named "CASE|KEY" there.

        `shared` arrays are found by their keys alone.
        """
        arrays = {f"{name}|{key}": case[key] for name, case in cases.items() for key in case}
        found = self.run(script, arrays | dict(shared or {}), *arguments, timeout=timeout)
        results: dict[str, Arrays] = {name: {} for name in cases}
        for path, value in found.items():
            name, key = path.split("|", 1)
            results[name][key] = value
        return results


@dataclass
class Case:
    """One net, its inputs, and what is wanted of it; see scripts/run_nets.py.

    Attributes
    ----------
    net : str
        Prototxt. Blobs without a data layer come from Input layers.
    inputs : mapping of blob to array
        float32.
    top_diffs : mapping of blob to array
        Diffs set before backward, in addition to those of losses.
    phase : int
        0: TRAIN, 1: TEST.
    backward : bool
    blob_diffs : bool
        Give the diffs of all blobs as well, not only those of parameters and inputs.
    """

    net: str
    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    top_diffs: Mapping[str, np.ndarray] = field(default_factory=dict)
    phase: int = 1
    backward: bool = True
    blob_diffs: bool = True


def run_cases(
    engine: Engine, cases: Mapping[str, Case], timeout: float = 3600
) -> dict[str, Arrays]:
    """Run nets on an engine, all in one process; parameters are drawn from the layers' names.

    Returns
    -------
    dict of case to dict of str to ndarray
        Keys "data BLOB", "diff BLOB", "gradient LAYER I".
    """
    given = {
        name: {
            "net": case.net,
            "options": np.array([case.phase, case.backward, case.blob_diffs]),
            **{f"input|{blob}": np.asarray(v, np.float32) for blob, v in case.inputs.items()},
            **{f"top_diff|{blob}": np.asarray(v, np.float32) for blob, v in case.top_diffs.items()},
        }
        for name, case in cases.items()
    }
    return engine.run_each(SCRIPTS / "run_nets.py", given, timeout=timeout)


def exchange_files(
    run: Callable[[Engine, Path, str, str], Ran], ours: Engine, reference: Engine, folder: Path
) -> tuple[Ran, Ran, Ran]:
    """Run on this engine, on genuine Caffe, which reads our files, and here, reading its files.

    `run` is given an engine, whose files it writes and whose it reads; "" is nobody.
    """
    files = (ours, "ours", ""), (reference, "genuine", "ours"), (ours, "", "genuine")
    return tuple(run(engine, folder, own, other) for engine, own, other in files)


def at_once(run: Callable[[Engine], Ran], ours: Engine, reference: Engine) -> tuple[Ran, Ran]:
    """Run the same on both engines at a time: each is a process of its own, of one thread.

    Parameters
    ----------
    run : callable
        Given an engine.
    ours, reference : Engine

    Returns
    -------
    tuple
        What it returned for each.
    """
    with ThreadPoolExecutor(2) as pool:
        got, wanted = pool.map(run, (ours, reference))
    return got, wanted


def assert_close(
    got: Mapping[str, np.ndarray],
    wanted: Mapping[str, np.ndarray],
    *,
    relative: float = 1e-4,
    only: Sequence[str] | None = None,
) -> None:
    """Compare arrays of the same names, each to a fraction of its largest wanted value.

    Parameters
    ----------
    got, wanted : mapping of name to array
    relative : float
    only : sequence of str, optional
        Compare the names that start so.

    Raises
    ------
    AssertionError
        Lists every array that differs, the worst first.
    """
    prefixes = tuple(only) if only is not None else ("",)
    names = {name for name in wanted if name.startswith(prefixes)}
    given = {name for name in got if name.startswith(prefixes)}
    assert names == given, f"missing: {sorted(names - given)}, too many: {sorted(given - names)}"
    assert names, "there is nothing to compare"
    problems = []
    for name in names:
        a, b = got[name], wanted[name]
        if a.shape != b.shape:
            problems.append((np.inf, f"{name}: shape {a.shape} instead of {b.shape}"))
            continue
        if not b.size:
            continue
        finite = np.isfinite(b)
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            problems.append((np.inf, f"{name}: differs where the value is not finite"))
        a, b = a[finite].astype(np.float64), b[finite].astype(np.float64)
        scale = max(np.abs(b).max(initial=0.0), np.finfo(np.float32).tiny)
        worst = np.abs(a - b).max(initial=0.0) / scale
        if not worst <= relative:
            problems.append((worst, f"{name}: off by {worst:.2e} of its largest value {scale:.3e}"))
    problems.sort(key=lambda problem: -problem[0])
    assert not problems, (
        f"{len(problems)} of {len(names)} arrays differ by more than {relative}:\n"
        + ("\n".join(text for _, text in problems[:20]))
    )


def undated(log: str) -> str:
    """Return a log without time, process and line number: level, file and text of each line."""
    header = re.compile(r"^([IWEF])\d{4} [\d:.]+ +\d+ ([\w.]+):\d+\]", flags=re.MULTILINE)
    return header.sub(r"\1 \2]", log)


# Not a part of a word.
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]\d+)?(?![\w])")


def assert_same_lines(got: Sequence[str], wanted: Sequence[str], atol: float = 0.0) -> None:
    """Compare lines of text, the numbers in them to 1e-4."""
    assert [NUMBER.sub("#", line) for line in got] == [NUMBER.sub("#", line) for line in wanted]
    for mine, line in zip(got, wanted):
        numbers = ([float(number) for number in NUMBER.findall(text)] for text in (mine, line))
        np.testing.assert_allclose(*numbers, rtol=1e-4, atol=atol, err_msg=line)
