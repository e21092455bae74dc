"""Kill the programs at random moments: python -m tests.fuzz.kills --count 1000 --seed 1.

Each program works on small inputs that are made here. It gets SIGKILL, SIGTERM, SIGINT or SIGHUP
after a random time, or at a random one of the system calls by which it writes; then it is run
again, to its end or to another kill. Counted are outputs that are

torn  neither what was there before nor what the whole run makes; a program that fails where it
      should end with the signal's status, or the next run that does not come to its end;
lost  inputs that changed, old results that are gone, iterations of a training that were done when
      a signal came that can be answered, and results that differ from an undisturbed run's;
left  files that belong to neither when the next run has come to its end.

Most runs are forks of this process, which has imported everything and computed nothing; some are
fresh processes, as a user starts them.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import hashlib
import importlib
import io
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.fuzz.kill_cases import ITERATIONS, MAKERS, Case, Tree, cases
from tests.fuzz.kill_server import serving

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Of all kills these are of fresh processes.
FRESH = 0.04
# And these at a call that writes, in place of after a time.
AIMED = 0.6
# Seconds after which a program that should have ended has not.
PATIENCE = 600
# As both packages' atomic files name them; what a download keeps ends likewise.
# What is done of a segmentation is kept, too, until it is whole.
TEMPORARY = re.compile(r"\..+(\.[0-9a-f]{8}\.part|\.progress)")
EVENTS = re.compile(r"(run/)?tensorboard/events\.out\.tfevents\..*")
# What changes files, and is counted to aim at.
CALLS = ("replace", "rename", "fsync", "mkdir", "rmdir", "unlink", "chmod", "open", "listdir")

# -- running ---------------------------------------------------------------------------------------


@dataclass
class Aim:
    """A signal to send to oneself at one of the calls that write; 0 counts them all."""

    number: int
    call: int
    count: int = 0

    def __call__(self) -> None:
        self.count += 1
        if self.count == self.call:
            os.kill(os.getpid(), self.number)


def _watch(aim: Aim) -> None:
    """Have every call that writes counted, in this process."""
    from unet.files import hdf5

    def counted(function: Callable) -> Callable:
        def call(*arguments: Any, **rest: Any) -> Any:
            aim()
            return function(*arguments, **rest)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    builtins.open = io.open = counted(io.open)
    hdf5._File.write = counted(hdf5._File.write)


def _fork(case: Case, folder: Path, words: list[str], aim: Aim) -> int:
    """Run a program in a fork, its streams in the file `said` beside the folder."""
    pid = os.fork()
    if pid:
        return pid
    status = 99
    try:
        os.setsid()
        for number in SIGNALS[1:]:
            signal.signal(number, signal.SIG_DFL)
        os.chdir(folder)
        handle = os.open("../said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(handle, stream)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        sys.argv = [case.program, *words]
        _watch(aim)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        PROGRAMS[case.program]()
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        if not aim.call:
            Path("../calls").write_text(str(aim.count))
        os._exit(status)


def _start(case: Case, folder: Path, words: list[str]) -> int:
    """Run a program as a process of its own, and as `_fork`."""
    with open(folder.parent / "said", "w") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "unet.command", case.program, *words],
            cwd=folder,
            stdout=said,
            stderr=said,
            start_new_session=True,
        ).pid


def _wait(pid: int, seconds: float) -> int | None:
    """Return the exit status, negative for a signal; None if it is still running then."""
    deadline = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.002)


def run_whole(case: Case, folder: Path, words: list[str]) -> str:
    """Run a program to its end in a fork; return what is wrong with that, or nothing."""
    pid = _fork(case, folder, words, Aim(0, 0))
    status = _wait(pid, PATIENCE)
    if status is None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if status == 0:
        return ""
    return f"torn: the run ends with status {status}: {_said(folder)}"


def _said(folder: Path) -> str:
    lines = (folder.parent / "said").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "nothing said"


# -- what there is ---------------------------------------------------------------------------------


def tree(folder: Path) -> Tree:
    """Return hashes of all files by their paths, an empty hash for folders."""
    found: Tree = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            found[name] = ""
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _kept(names: Tree) -> Tree:
    """Return what is under final names."""
    return {
        name: content
        for name, content in names.items()
        if not any(TEMPORARY.fullmatch(part) for part in name.split("/"))
        and not name.endswith(".zip.part")
    }


def _unit(case: Case, name: str) -> str:
    return next((f for f in case.folders if name == f or name.startswith(f + "/")), name)


def _units(case: Case, names: Tree) -> dict[str, Tree]:
    units: dict[str, Tree] = {}
    for name, content in _kept(names).items():
        unit = _unit(case, name)
        # Folders that are no output may be there or not.
        if content or unit in case.folders:
            units.setdefault(unit, {})[name] = content
    return units


def _grows(path: Path) -> bool:
    """Tell whether a .zarr, which lies under its name from the start, says that it is not whole."""
    if path.suffix != ".zarr":
        return False
    try:
        return json.loads((path / "zarr.json").read_text())["attributes"]["complete"] is False
    except (OSError, ValueError, KeyError):
        return False


def compare(case: Case, folder: Path) -> Iterator[str]:
    """Yield what is neither as before nor as after the whole run."""
    now, old, new = (_units(case, names) for names in (tree(folder), case.old, case.new))
    for unit in sorted({*now, *old, *new}):
        there, before, after = (units.get(unit, {}) for units in (now, old, new))
        if there not in (before, after) and not _grows(folder / unit):
            yield f"{'torn' if there else 'lost'}: {unit}"


# -- trainings -------------------------------------------------------------------------------------


def rows(folder: Path) -> list[dict[str, float]]:
    """Return the rows of a training's curve, without the seconds that they took."""
    from unet.training.history import read_history

    path = folder / "run" / "curve.csv"
    found = read_history(path) if path.exists() else []
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found]


def compare_training(
    case: Case, folder: Path, number: int, status: int | None, before: list[dict[str, float]]
) -> Iterator[str]:
    """Yield what is wrong with the files of a training that was killed; `before` is its curve."""
    iterations = []
    for name, content in _kept(tree(folder)).items():
        match = re.fullmatch(r"run/small_iter_(\d+)\.(caffemodel|solverstate)", name)
        if match:
            if case.new.get(name) != content:
                yield f"torn: {name}"
            if match[2] == "solverstate":
                iterations.append(int(match[1]))
        elif EVENTS.fullmatch(name):
            if not _is_log(folder / name):
                yield f"torn: {name}"
        elif name in case.old and case.old[name] != content:
            yield f"lost: {name}"
        elif name not in case.new and name != "run":
            yield f"torn: {name} is new"
    try:
        noted = [row["iteration"] + 1 for row in rows(folder) if "loss" in row]
        if rows(folder) == before:
            # It was killed before it had written anything.
            return
    except Exception as error:
        yield f"torn: {error}"
        return
    newest = max(iterations, default=0)
    if status == 128 + number and noted and newest != max(noted):
        yield f"lost: iteration {max(noted):.0f} was done, the newest snapshot is of {newest}"
    if number == signal.SIGKILL and noted and newest < min(max(noted), ITERATIONS) // 3 * 3 - 3:
        yield f"lost: iteration {max(noted):.0f} was done, the newest snapshot is of {newest}"


def _is_log(path: Path) -> bool:
    """Tell whether TensorBoard's events are whole up to the last one."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    data, place = path.read_bytes(), 0
    while len(data) - place >= 12:
        size, check = struct.unpack_from("<QI", data, place)
        if masked_crc32c(data[place : place + 8]) != check:
            return False
        record = data[place + 12 : place + 12 + size]
        if len(data) >= place + size + 16:
            (check,) = struct.unpack_from("<I", data, place + 12 + size)
            if masked_crc32c(record) != check:
                return False
        place += size + 16
    return True


def compare_end(case: Case, folder: Path) -> Iterator[str]:
    """Yield how the files at the end differ from those of a run that nobody disturbed."""
    training = case.name == "train"
    now = tree(folder)
    for name in sorted({*now, *case.new}):
        if EVENTS.fullmatch(name):
            continue
        if training and re.fullmatch(r"run/(curve.csv|curves.png|small_iter_(?!9\.).*)", name):
            continue
        if name not in case.new:
            yield f"left: {name}"
        elif now.get(name) != case.new[name]:
            yield f"lost: {name} is not as of an undisturbed run"
    if training and rows(folder) != rows(case.template.parent / "whole"):
        yield "lost: the curve is not as of an undisturbed run"


# -- making what is to be killed -------------------------------------------------------------------


PROGRAMS: dict[str, Callable[[], None]] = {}


def _import_programs() -> None:
    """Import everything that the programs do, and make them quicker than for a user."""
    import torch
    import zarr  # noqa: F401

    import caffe
    import unet.layers  # noqa: F401
    import unet_export.bioimageio
    import unet_export.onnx_file  # noqa: F401
    from unet.command.running import run_program
    from unet.files.atomic import atomic_path
    from unet.training import history as curve

    torch.set_num_threads(1)
    caffe.set_mode_cpu()

    def draw(_: object, path: Path) -> None:
        # matplotlib takes a second for a picture that is of no interest here.
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"\x89PNG")

    curve.draw_curves = draw
    for name in MAKERS:
        module = importlib.import_module(f"unet.command.{name}")
        PROGRAMS[name] = lambda main=module.main: run_program(main)


def _in_child(function: Callable[..., None], *arguments: object) -> None:
    """Do something in a fork, so that this process stays without threads."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            function(*arguments)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError(f"{function.__name__} fails")


def prepare_case(case: Case, place: Path) -> None:
    """Make inputs, older results and those of an undisturbed run; measure how long it takes."""
    case.template = place / "template"
    case.template.mkdir(parents=True)
    for make in MAKERS[case.program]:
        _in_child(make, case.template)
    if case.before and (wrong := run_whole(case, case.template, case.before)):
        raise RuntimeError(wrong)
    case.old = tree(case.template)
    whole = place / "whole"
    if case.name == "train":
        # Every iteration's snapshot, to hold against whichever a kill leaves.
        every = place / "every"
        shutil.copytree(case.template, every)
        text = (every / "solver.prototxt").read_text()
        (every / "solver.prototxt").write_text(re.sub(r"snapshot: 3", "snapshot: 1", text))
        _in_child(_train_every, case, every)
        _in_child(_snapshot_of_nothing, every)
        case.new = {n: c for n, c in tree(every).items() if "_iter_" in n}
        (place / "every").rename(place / "done")
    shutil.copytree(case.template, whole)
    begin = time.monotonic()
    if wrong := run_whole(case, whole, case.words):
        raise RuntimeError(wrong)
    case.seconds = time.monotonic() - begin
    case.calls = int((place / "calls").read_text())
    case.new.update(tree(whole))


def _train_every(case: Case, folder: Path) -> None:
    from unet.training import snapshots

    snapshots.prune = lambda *_: None
    if wrong := run_whole(case, folder, case.words):
        raise RuntimeError(wrong)


def _snapshot_of_nothing(folder: Path) -> None:
    """Write the snapshot of iteration 0, which a stop in the first test leaves."""
    import caffe
    from unet.training.train import Training

    os.chdir(folder)
    with Training(caffe, "solver.prototxt") as training:
        training.solver.snapshot()


# -- killing ---------------------------------------------------------------------------------------


def kill(
    case: Case, folder: Path, words: list[str], number: int, rng: random.Random, fresh: bool
) -> tuple[int | None, list[str]]:
    """Run a program and kill it; return its exit status and what is wrong."""
    aimed = not fresh and rng.random() < AIMED
    aim = Aim(number, rng.randint(1, case.calls) if aimed else -1)
    pid = _start(case, folder, words) if fresh else _fork(case, folder, words, aim)
    status = None
    if not aimed:
        # A fresh process first imports for some seconds.
        status = _wait(pid, rng.uniform(0, 1.1 * case.seconds + (8 if fresh else 0)))
        if status is None:
            os.kill(_victim(pid, number, rng), number)
    if status is None:
        status = _wait(pid, PATIENCE)
    wrong = []
    if status is None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        wrong.append("torn: it does not end")
    # Before the program has begun, a signal does what it does to any process; Python tells of
    # Ctrl-C while it imports by a traceback.
    allowed = {0, -number, 128 + number, *([1] if fresh else [])}
    if status is not None and status not in allowed:
        wrong.append(f"torn: status {status}: {_said(folder)}")
    said = (folder.parent / "said").read_text(errors="replace")
    if not fresh and "Traceback" in said:
        wrong.append(f"torn: a traceback: {said[max(0, said.index('Traceback') - 200) :]}")
    return status, wrong


def _victim(pid: int, number: int, rng: random.Random) -> int:
    """Return which process is killed: any by SIGKILL, which the system sends for memory."""
    workers = []
    if number == signal.SIGKILL:
        with contextlib.suppress(psutil.Error):
            workers = [
                child.pid
                for child in psutil.Process(pid).children()
                if "spawn_main" in " ".join(child.cmdline())
            ]
    return rng.choice([pid, *workers]) if workers else pid


def one(case: Case, place: Path, rng: random.Random, numbers: Iterable[int]) -> Iterator[tuple]:
    """Kill a program, and its next runs, once with each signal; then let it come to its end.

    Yields
    ------
    tuple of int and list of str
        A signal, and what was wrong after it.
    """
    folder = place / "work"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(case.template, folder)
    words = case.words
    last = None
    for number in numbers:
        fresh = case.fresh and rng.random() < FRESH
        curve = rows(folder) if case.name == "train" else []
        status, wrong = kill(case, folder, words, number, rng, fresh)
        if case.name == "train":
            wrong += compare_training(case, folder, number, status, curve)
        else:
            wrong += compare(case, folder)
        if last is not None:
            yield last
        last = number, wrong
        words = [*case.words, *case.again]
    if wrong := run_whole(case, folder, words):
        last[1].append(wrong)
    last[1].extend(compare_end(case, folder))
    yield last


# -- the whole -------------------------------------------------------------------------------------


def campaign(
    count: int,
    seed: int,
    place: Path,
    only: str | None,
    signals: list[int],
    tell: Callable,
    workers: int = 0,
) -> Counter:
    """Kill `count` times, a run and its next ones once with each of the signals.

    With workers segmentation alone, by so many processes.

    Returns how often (program, signal, what) was found.
    """
    _import_programs()
    rng = random.Random(seed)
    found: Counter = Counter()
    with serving(place, _in_child):
        chosen = [case for case in cases(workers) if only in (None, case.name)]
        for index, case in enumerate(chosen):
            prepare_case(case, place / str(index))
            tell(f"{case.name} {' '.join(case.words)}: {case.seconds:.2f} s, {case.calls} calls")
        done = turn = 0
        names = list(dict.fromkeys(case.name for case in chosen))
        while done < count:
            # All programs alike, however many kinds of output they have.
            of_name = [case for case in chosen if case.name == names[turn % len(names)]]
            case = of_name[turn // len(names) % len(of_name)]
            turn += 1
            numbers = rng.sample(signals, min(len(signals), count - done))
            for number, wrong in one(case, place / str(chosen.index(case)), rng, numbers):
                done += 1
                found[case.name, number, "kills"] += 1
                for text in wrong:
                    found[case.name, number, text.split(":")[0]] += 1
                    number_name = signal.Signals(number).name
                    tell(f"kill {done}: {case.name} {' '.join(case.words)}: {number_name}: {text}")
            if turn % 25 == 0:
                tell(f"{done} kills")
    return found


def table(found: Counter) -> str:
    """Return the counts as lines."""
    heads = ("kills", "torn", "lost", "left")
    lines = [f"{'program':12s}{'signal':10s}" + "".join(f"{head:>7s}" for head in heads)]
    pairs = sorted({(name, number) for name, number, _ in found})
    for name, number in pairs:
        counts = "".join(f"{found[name, number, head]:7d}" for head in heads)
        lines.append(f"{name:12s}{signal.Signals(number).name:10s}{counts}")
    sums = [sum(found[name, number, head] for name, number in pairs) for head in heads]
    lines.append(f"{'all':22s}" + "".join(f"{total:7d}" for total in sums))
    return "\n".join(lines)


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000, help="kills (1000)")
    parser.add_argument("--seed", type=int, default=0, help="another number, other moments (0)")
    parser.add_argument("--only", choices=sorted(MAKERS), help="one of the programs")
    parser.add_argument(
        "--workers", type=int, default=0, help="segment alone, by so many processes"
    )
    parser.add_argument("--kill-9", action="store_true", help="SIGKILL alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = campaign(
            options.count,
            options.seed,
            Path(place),
            options.only,
            [signal.SIGKILL] * 4 if options.kill_9 else list(SIGNALS),
            lambda line: print(line, flush=True),
            options.workers,
        )
    print(table(found))
    return int(any(number for (*_, what), number in found.items() if what != "kills"))


if __name__ == "__main__":
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    os.environ["GLOG_minloglevel"] = "2"  # noqa: SIM112
    sys.exit(main())
