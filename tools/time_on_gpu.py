"""How fast a GPU computes: the network beside the same one written by hand in PyTorch, in turns.

Then a slice from file to probabilities, and the tiles that the feed cuts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from child_programs import Program, ending
from findings import Findings
from unet.machine.cores import available_cores

# Until which part of the time each measurement may go on; the tests get the rest.
TIMINGS_END, FEED_END = 0.5, 0.6
# What a process may take to import and build everything, which its measurements do not pay for.
READY_SECONDS = 90.0
# Passes before one counts, on a GPU: algorithms are chosen, graphs are captured.
WARM = 4
# Rounds in which slices are timed, too: they take longest, and differ least.
SLICES = 10
# What `benchmark.py work` is asked for, by name.
_STEP, _FORWARD = {"phase": "train"}, {"phase": "test"}
_PLAIN, _GRAPHS = {"by": "torch"}, {"graphs": True}
PASSES: dict[str, dict[str, Any]] = {
    "step, this engine": _STEP,
    "step, plain PyTorch": {**_STEP, **_PLAIN},
    "forward, this engine": _FORWARD,
    "forward, plain PyTorch": {**_FORWARD, **_PLAIN},
    "matrix product": {"phase": "product"},
    "step, this engine, graphs": {**_STEP, **_GRAPHS},
    "forward, this engine, graphs": {**_FORWARD, **_GRAPHS},
    "slice of 512 x 512": {"phase": "slice", "tta": "none"},
    "slice of 512 x 512, 8 versions": {"phase": "slice", "tta": "dihedral"},
}
# Worker processes of the feed, and the tiles that each cuts.
WORKERS, TILES = (1, 4, 8, 15), 20
# Kept back for the last word.
LAST_SECONDS = 3.0


def machine_at_hand(work: Path) -> tuple[str, dict[str, str]]:
    """Return what the machine is: a table and values."""
    found = {"cores": str(available_cores())}
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        found["CPU"] = next(iter(re.findall(r"model name\s*: (.*)", text)), "unknown")
    # In a process of its own: this one is to hold nothing on the GPU.
    question = "import json, unet_in_pytorch; print(json.dumps(unet_in_pytorch.versions()))"
    asked = Program(["-c", question], work / "versions.log")
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


class Bench:
    """A `benchmark.py work` process, which runs the pass that it is asked for.

    It builds all passes at once, while others may be timed. `error` is what it died of, or None.
    """

    def __init__(self, options: argparse.Namespace, precision: str) -> None:
        log = options.work / f"{precision}.log"
        command = self.command(options, precision)
        self._program = Program(command, log, asked=True, answers=True)
        self.error: str | None = None
        self._building = len(PASSES)
        for what in PASSES.values():
            self._write({**what, "build": True})

    @staticmethod
    def command(options: argparse.Namespace, precision: str) -> list[str]:
        """Return what runs in the process."""
        command = ["tools/benchmark.py", "work", "--net", options.net, "--tile", str(options.tile)]
        return [*command, "--device", options.device, "--precision", precision]

    def wait_until_ready(self, seconds: float) -> None:
        """Wait until all passes are built, for so long at most."""
        with self.limited(seconds):
            while self._building and self._answer() is not None:
                # What cannot be built says so when it is to run.
                self._building -= 1

    def _write(self, what: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._program.process.stdin.write(json.dumps(what).encode() + b"\n")
            self._program.process.stdin.flush()

    def _answer(self) -> dict[str, Any] | None:
        # Libraries, too, may say something.
        for answer in iter(self._program.process.stdout.readline, b""):
            if answer.startswith(b"{"):
                return json.loads(answer)
        # One that was killed has used up its time.
        if self._program.process.wait() != -signal.SIGKILL:
            self.error = f"{self._program.told}\n{self._program.said}"
        return None

    def ask(self, what: dict[str, Any]) -> dict[str, Any] | None:
        """Run a pass; None if the process is no more."""
        self._write(what)
        return self._answer()

    @contextlib.contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """End the process when a time is over, so that nobody waits for its answer any more."""
        timer = threading.Timer(max(0.1, seconds), self._program.process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def kill(self) -> None:
        """End it."""
        self._program.kill()


def time_net(
    findings: Findings, options: argparse.Namespace, precision: str, bench: Bench, seconds: float
) -> None:
    """Time the passes of the engine and of plain PyTorch in turns, and the device's peak.

    Once everything is built, that may take so many seconds.
    """
    bench.wait_until_ready(READY_SECONDS)
    over = time.monotonic() + seconds
    answers: dict[str, list[dict[str, float]]] = {name: [] for name in PASSES}

    def ask(name: str) -> None:
        answer = bench.ask(PASSES[name])
        if answer is None:
            return
        if "error" in answer:
            findings.fail(f"{precision}, {name}", answer["error"])
            del answers[name]
        else:
            answers[name].append(answer)

    def note() -> None:
        told, values = _net_table(options, precision, answers)
        findings.note(precision, told, **values)

    with bench.limited(seconds):
        for name in PASSES:
            for _ in range(_warm(options)):
                if name in answers and time.monotonic() < over:
                    ask(name)
            note()
        for number in range(options.rounds):
            for name in list(answers):
                enough = name.startswith("slice") and number >= SLICES
                if time.monotonic() < over and not enough:
                    ask(name)
            if number % 5 == 4:
                note()
        note()
    if bench.error:
        findings.fail(f"{precision}, process", bench.error)


def _net_table(
    options: argparse.Namespace, precision: str, answers: dict[str, list[dict[str, float]]]
) -> tuple[str, dict[str, Any]]:
    """Return a table of times, and values: milliseconds, memory, speed."""
    values: dict[str, Any] = {}
    lines = [f"{options.net}, {options.tile}x{options.tile}, {precision}:"]
    for name in PASSES:
        # Where there was no time for more, the last one that was to warm it up.
        rounds = answers.get(name, [])[_warm(options) :] or answers.get(name, [])[-1:]
        if not rounds:
            lines.append(not_measured(name))
            continue
        seconds = statistics.median(found["seconds"] for found in rounds)
        found = values[name] = {
            "ms": round(1000 * seconds, 3),
            "best_ms": round(1000 * min(found["seconds"] for found in rounds), 3),
            "rounds": len(rounds),
            # With the search for the fastest algorithms.
            "first_seconds": round(answers[name][0]["seconds"], 2),
        }
        line = f"  {name:30s}{found['ms']:9.2f} ms"
        if "gpu_gib" in rounds[-1]:
            found["gpu_gib"] = round(rounds[-1]["gpu_gib"], 3)
            line += f"{found['gpu_gib']:8.2f} GiB"
        # Plain PyTorch does not count its products: they are the same.
        counted = answers.get(f"{name.partition(',')[0]}, this engine") or rounds
        products = rounds[0]["products"] or counted[0]["products"]
        found["tflops"] = round(2e-3 * products / seconds, 3)
        lines.append(f"{line}{found['tflops']:8.2f} TFLOP/s")
    peak = values.get("matrix product", {}).get("tflops")
    for number, name in enumerate(PASSES, 1):
        if peak and name in values and name != "matrix product":
            values[name]["share_of_peak"] = round(values[name]["tflops"] / peak, 4)
            lines[number] += f" {values[name]['share_of_peak']:6.1%} of the product's"
    for name, found in list(values.items()):
        what, _, who = name.partition(", ")
        plain = values.get(f"{what}, plain PyTorch")
        if plain and plain is not found:
            ratio = found["against_plain"] = round(plain["ms"] / found["ms"], 3)
            lines.append(f"  {what}, {who}: {ratio:.2f} times as fast as plain PyTorch")
    return "\n".join(lines), values


def _warm(options: argparse.Namespace) -> int:
    return 1 if options.device == "cpu" else WARM


def not_measured(name: str) -> str:
    """Return the line of what failed, or had no time."""
    return f"  {name:30s} not measured"


def time_feed(findings: Findings, options: argparse.Namespace, seconds: float) -> None:
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
    findings.note("feed", "\n".join(lines), rates=rates)
    if error and feed.process.returncode != -signal.SIGKILL:
        findings.fail("feed, all", error)
