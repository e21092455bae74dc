"""What a GPU computes, and how fast: the first half of tools/gpu_check.py.

The network is timed beside the same one written by hand in PyTorch, in turns; then a slice from
file to probabilities, the tiles that the feed cuts, and last, with all time that is left, the tests
that need a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable

from gpu_record import REPOSITORY, Program, Record, ending
from unet.parallel import available_cores

# Until which part of the time each measurement may go on; the tests get the rest.
TIMINGS_END, SLICE_END, FEED_END = 0.5, 0.6, 0.68
# Passes before one counts: algorithms are chosen, graphs are captured.
WARM = 4
PHASES = {"train": "step", "test": "forward"}
# Worker processes of the feed, and the tiles that each cuts.
WORKERS, TILES = (1, 4, 8, 15), 30
MOST_TEST_PROCESSES = 8
# Kept back for the last word.
_LAST_SECONDS = 3.0


def prove(record: Record, options: argparse.Namespace) -> None:
    """Measure a device and test the engine on it.

    Parameters
    ----------
    record : Record
        Gets the findings; says how much time is left.
    options : argparse.Namespace
        `device`, `net`, `tile`, `precisions`, `rounds`, `work`.
    """
    budget = record.left
    shutil.rmtree(options.work, ignore_errors=True)
    told, values = _machine(options.work)
    record.note("machine", told, **values)
    timings = TIMINGS_END * budget
    for number, precision in enumerate(options.precisions):
        share = (timings - record.passed) / (len(options.precisions) - number)
        time_net(record, options, precision, share)
    time_slice(record, options, SLICE_END * budget - record.passed)
    time_feed(record, options, FEED_END * budget - record.passed)
    run_tests(record, options, record.left - _LAST_SECONDS)


def _machine(work: Path) -> tuple[str, dict[str, str]]:
    """Return what the machine is: a table and values."""
    found = {"cores": str(available_cores())}
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        found["CPU"] = next(iter(re.findall(r"model name\s*: (.*)", text)), "unknown")
    # In a process of its own: this one is to hold nothing on the GPU.
    question = "import json, plain_pytorch; print(json.dumps(plain_pytorch.versions()))"
    asked = Program(["-c", question], work / "versions.log", environment=_tools_path())
    error = asked.wait(120)
    with contextlib.suppress(ValueError):
        found.update(json.loads(asked.said))
    if error:
        found["PyTorch"] = error
    card = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(card, capture_output=True, text=True, timeout=30).stdout
        found["nvidia-smi"] = "; ".join(said.splitlines())
    return "\n".join(f"{name:12s}{value}" for name, value in found.items()), found


def _tools_path() -> dict[str, str]:
    folders = [REPOSITORY / "tools", REPOSITORY / "python", os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, map(str, folders)))}


class _Timed:
    """A `benchmark.py work` process: one pass each time it is asked.

    Attributes
    ----------
    error : str or None
    """

    def __init__(self, options: argparse.Namespace, precision: str, name: str, *extra: str) -> None:
        arguments = ["tools/benchmark.py", "work", "--net", options.net, "--tile"]
        arguments += [str(options.tile), "--device", options.device, "--precision", precision]
        log = options.work / f"{precision}-{name}.log".replace(" ", "-")
        self.program = Program([*arguments, *extra], log, piped=True)
        self.answers: list[dict[str, float]] = []
        self.error: str | None = None

    def ask(self) -> None:
        """Run a pass."""
        answer = self._answer(b"\n")
        if answer is not None:
            self.answers.append(answer)

    def profile(self) -> str | None:
        """Return what a pass spends its time on."""
        return (self._answer(b"profile\n") or {}).get("profile")

    def _answer(self, line: bytes) -> dict[str, Any] | None:
        process = self.program.process
        if process.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(line)
                process.stdin.flush()
                # Libraries, too, may say something.
                for answer in iter(process.stdout.readline, b""):
                    if answer.startswith(b"{"):
                        return json.loads(answer)
        # One that was killed has used up its time.
        if process.wait() != -signal.SIGKILL:
            self.error = f"{self.program.told}\n{self.program.said}"
        return None

    @property
    def rounds(self) -> list[dict[str, float]]:
        """What it answered once it was warm; the last answer where there was no time for more."""
        return self.answers[WARM:] or self.answers[-1:]

    def summary(self) -> dict[str, float]:
        """Return milliseconds, memory and speed."""
        seconds = statistics.median(found["seconds"] for found in self.rounds)
        last = self.rounds[-1]
        return {
            "ms": round(1000 * seconds, 3),
            "best_ms": round(1000 * min(found["seconds"] for found in self.rounds), 3),
            "rounds": len(self.rounds),
            "gib": round(last.get("gpu_gib", last["peak_gib"]), 3),
            "tflops": round(2e-3 * last["products"] / seconds, 3),
        }


class _Overtime:
    """Kills programs when a time is over, so that nobody waits for their answers any more."""

    def __init__(self, timed: dict[Any, _Timed], seconds: float) -> None:
        self.over = time.monotonic() + seconds
        self._timer = threading.Timer(max(0.1, seconds), self._kill, [list(timed.values())])
        self._timer.daemon = True

    @staticmethod
    def _kill(timed: list[_Timed]) -> None:
        for one in timed:
            one.program.process.kill()

    def __enter__(self) -> _Overtime:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def left(self) -> float:
        return self.over - time.monotonic()


def _measure(
    record: Record,
    item: str,
    timed: dict[str, _Timed],
    rounds: int,
    seconds: float,
    summary: Callable[[], tuple[str, dict[str, Any]]],
    profiled: bool = False,
) -> None:
    """Warm processes up one after the other, then ask them in turns, and note what comes of it."""
    programs = {name: one.program for name, one in timed.items()}
    with ending(programs), _Overtime(timed, seconds) as limit:
        for one in timed.values():
            for number in range(WARM):
                if number == 0 or limit.left() > 0.5 * seconds:
                    one.ask()
        for number in range(rounds):
            for one in timed.values():
                if limit.left() > 0.1 * seconds:
                    one.ask()
            if number % 5 == 4 and any(one.rounds for one in timed.values()):
                told, values = summary()
                record.note(item, told, **values)
        told, values = summary()
        record.note(item, told, **values)
        profiles = {}
        for name, one in timed.items():
            if profiled and one.rounds and limit.left() > 0.1 * seconds:
                profiles[name] = one.profile()
                told = "\n\n".join(f"{item}, {name}\n{text}" for name, text in profiles.items())
                record.note(f"{item}, profiles", told, **profiles)
    for name, one in timed.items():
        if one.error is not None:
            record.fail(f"{item}, {name}", one.error)


def not_measured(name: str) -> str:
    """Return the line of what failed, or had no time."""
    return f"  {name:30s} not measured"


def time_net(record: Record, options: argparse.Namespace, precision: str, seconds: float) -> None:
    """Time steps and passes forward of the engine and of plain PyTorch, and the device's peak."""
    engines = {
        "this engine": [],
        "this engine, graphs": ["--graphs"],
        "plain PyTorch": ["--by", "torch"],
    }
    timed = {
        f"{what}, {name}": _Timed(
            options, precision, f"{what} {name}", "--phase", phase, *arguments
        )
        for phase, what in PHASES.items()
        for name, arguments in engines.items()
    }
    product = _Timed(options, precision, "product", "--phase", "product")
    everything = {**timed, "matrix product": product}

    def summary() -> tuple[str, dict[str, Any]]:
        values: dict[str, Any] = {}
        peak = product.summary()["tflops"] if product.rounds else None
        lines = [f"{options.net}, {options.tile}x{options.tile}, {precision}:"]
        if product.rounds:
            best = 2e-3 * product.rounds[0]["products"] / min(r["seconds"] for r in product.rounds)
            peak = values["peak_tflops"] = round(best, 2)
            lines.append(f"  matrix product{'':26s}{peak:10.2f} TFLOP/s")
        for name, one in timed.items():
            if not one.rounds:
                lines.append(not_measured(name))
                continue
            found = values[name] = one.summary()
            # Plain PyTorch does not count its products: they are the same.
            what = name.partition(",")[0]
            counted = timed[f"{what}, this engine"].answers
            if counted and not found["tflops"]:
                found["tflops"] = round(2 * counted[0]["products"] / found["ms"], 3)
            line = f"  {name:30s}{found['ms']:9.2f} ms {found['gib']:7.2f} GiB"
            if found["tflops"]:
                line += f"{found['tflops']:8.2f} TFLOP/s"
                if peak:
                    found["share_of_peak"] = round(found["tflops"] / peak, 4)
                    line += f" {found['share_of_peak']:6.1%} of the peak"
            lines.append(line)
        for what in PHASES.values():
            plain = values.get(f"{what}, plain PyTorch")
            for name in engines:
                ours = values.get(f"{what}, {name}")
                if plain and ours and ours is not plain:
                    ratio = values[f"{what}, {name} against plain"] = round(
                        plain["ms"] / ours["ms"], 3
                    )
                    lines.append(f"  {what}, {name}: {ratio:.2f} times as fast as plain PyTorch")
        return "\n".join(lines), values

    _measure(record, precision, everything, options.rounds, seconds, summary, profiled=True)


def time_slice(record: Record, options: argparse.Namespace, seconds: float) -> None:
    """Time a slice of 512 x 512 from file to probabilities, once and as the mean of 8 versions."""
    timed = {
        f"{precision}, {average}": _Timed(
            options, precision, f"slice {average}", "--phase", "slice", "--average", average
        )
        for precision in options.precisions
        for average in ("none", "dihedral")
    }

    def summary() -> tuple[str, dict[str, Any]]:
        values = {name: one.summary() for name, one in timed.items() if one.rounds}
        lines = ["a slice of 512 x 512, from file to probabilities:"]
        lines += [
            f"  {name:30s}{values[name]['ms']:9.2f} ms" if name in values else not_measured(name)
            for name in timed
        ]
        return "\n".join(lines), values

    _measure(record, "slice", timed, options.rounds, seconds, summary)


def time_feed(record: Record, options: argparse.Namespace, seconds: float) -> None:
    """Count the augmented tiles that worker processes cut in a second."""
    cores = available_cores()
    counts = [count for count in WORKERS if count <= cores] or [1]
    command = ["tools/benchmark.py", "tiles", "--tile", str(options.tile), "--tiles", str(TILES)]
    feed = Program([*command, "--workers", *map(str, counts)], options.work / "feed.log")
    with ending({"feed": feed}):
        error = feed.wait(seconds)
    rates = {
        int(count): float(rate)
        for count, rate in re.findall(r"(\d+) workers: ([0-9.]+) a second", feed.everything)
    }
    lines = [f"augmented tiles of {options.tile}x{options.tile} a second:"]
    lines += [
        f"  {f'{count} workers':30s}{rates[count]:9.1f}"
        if count in rates
        else not_measured(f"{count} workers")
        for count in counts
    ]
    record.note("feed", "\n".join(lines), rates=rates)
    if error and feed.process.returncode != -signal.SIGKILL:
        record.fail("feed, all", error)


def files_of_gpu_tests() -> list[str]:
    """Return the files of tests that need a GPU: others may need what is not there."""
    tests = sorted((REPOSITORY / "tests").rglob("test_*.py"))
    return [str(test) for test in tests if "mark.gpu" in test.read_text(encoding="utf-8")]


def run_tests(record: Record, options: argparse.Namespace, seconds: float) -> None:
    """Run the tests that need a GPU, in several processes, for as long as there is time."""
    over = time.monotonic() + seconds
    count = max(1, min(MOST_TEST_PROCESSES, available_cores() // 2))
    threads = str(max(1, available_cores() // count))
    # Plugins of pytest that happen to be installed may want what is not.
    environment = {
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    notes = [options.work / f"tests-{number}.jsonl" for number in range(count)]
    programs = {
        number: Program(
            ["tools/gpu_tests.py", str(notes[number]), str(number), str(count)]
            + [
                "-m",
                "gpu",
                "-q",
                "-p",
                "no:cacheprovider",
                "--continue-on-collection-errors",
                *files_of_gpu_tests(),
            ],
            options.work / f"tests-{number}.log",
            environment=environment,
        )
        for number in range(count)
    }
    with ending(programs):
        while time.monotonic() < over:
            running = [one for one in programs.values() if one.process.poll() is None]
            _note_tests(record, notes)
            if not running:
                break
            time.sleep(min(2.0, max(0.0, over - time.monotonic())))
        late = [number for number, one in programs.items() if one.process.poll() is None]
    left = _note_tests(record, notes)
    if late:
        record.note("tests, not run", f"tests that were not run or not ended: {left}", tests=left)
    for number, program in programs.items():
        status = program.process.returncode
        # 0: passed, 1: failed, which is noted of each test; 5: there was none.
        if number not in late and status not in (0, 1, 5):
            record.fail(f"tests, process {number}", f"{program.said}\nexit status {status}")


def _note_tests(record: Record, notes: list[Path]) -> int:
    """Note what tests have said so far; return how many have not ended."""
    planned, results, running = 0, [], []
    for path in notes:
        begun = None
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                planned += found.get("tests", 0)
                begun = found.get("begins", begun)
                if "outcome" in found:
                    results.append(found)
                    begun = None
        if begun:
            running.append(begun)
    counts = Counter(found["outcome"] for found in results)
    failed = [found for found in results if found["outcome"] == "failed"]
    parity = [
        value
        for found in results
        for name, value in found.get("properties", ())
        if name == "gpu_parity"
    ]
    ended = ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items()))
    lines = [f"tests that need a GPU: {planned}; {ended or 'none ended'}"]
    lines += parity_table(parity)
    lines += [f"  FAILED {found['test']}\n      {_last_error(found['text'])}" for found in failed]
    record.note(
        "tests",
        "\n".join(lines),
        planned=planned,
        counts=dict(counts),
        parity=parity,
        running=running,
        failed=[{key: found[key] for key in ("test", "text")} for found in failed],
    )
    record.failed = record.failed or bool(failed)
    return planned - len(results)


def parity_table(rows: list[dict[str, Any]]) -> list[str]:
    """Return lines with the largest difference of each kind of cases from the CPU's float32.

    Parameters
    ----------
    rows : list of dict
        As tests/gpu records them: `suite`, `part`, `precision`, `cases`, `worst` (a fraction of the
        largest value of an array), `where`, `mistakes`.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["suite"], row["precision"]), []).append(row)
    lines = []
    if groups:
        lines.append(f"  {'against the CPU':26s}{'in':>5s}{'cases':>7s}{'worst':>9s}")
    for (suite, precision), group in sorted(groups.items()):
        cases, wrong = (sum(counts) for counts in zip(*_counts(group)))
        worst = max(group, key=lambda row: row["worst"])
        remark = f"{wrong} TOO FAR OFF" if wrong else f"{worst['part']}: {worst['where']}"
        lines.append(f"  {suite:26s}{precision:>5s}{cases:7d}{worst['worst']:9.1e}  {remark}")
    return lines


def _counts(rows: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [(row["cases"], len(row["mistakes"])) for row in rows]


def _last_error(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("E ")] or text.splitlines()[-1:]
    return lines[0][:200] if lines else ""
