"""Programs run as steps of an experiment: what is done is not done again.

Every command is printed as it could be typed. A step whose output is there, made by the same
command from the same inputs, is not run again; a training goes on from its last snapshot.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unet.command.running import EXIT_STOPPED
from unet.files.atomic import atomic_path
from unet.machine.signals import ASKING, Stopped

# How this Python runs the command `unet`, also where it is not installed.
_UNET = ["-m", "unet.command"]
# Options whose word is an output.
_OUTPUTS = ("-o", "--preview", "--overlay", "--classes", "--instances", "--json")


class StepFailed(Exception):
    """A program has failed and has said why; carries its exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass
class Step:
    """One program run by this Python: a command, and the files that it reads and writes.

    Inputs may be folders. Without outputs the step is always run.
    """

    title: str
    command: list[str]
    inputs: list[Path] = field(default_factory=list)
    outputs: list[Path] = field(default_factory=list)

    @classmethod
    def unet(cls, title: str, *words: object, needs: Iterable[Path] = ()) -> Step:
        """Return a step of the command `unet`; its words say what it reads and what it writes.

        It reads what it `needs`, too.
        """
        return cls._of(title, _UNET, words, needs)

    @classmethod
    def program(cls, title: str, path: Path, *words: object) -> Step:
        """Return a step of a program in Python, whose words say the same."""
        return cls._of(title, [str(path)], words, [path])

    @classmethod
    def _of(
        cls, title: str, program: list[str], words: Iterable[object], needs: Iterable[Path]
    ) -> Step:
        texts = [str(word) for word in words]
        outputs = [Path(word) for option, word in zip(texts, texts[1:]) if option in _OUTPUTS]
        named = [Path(word) for word in texts if os.sep in word]
        inputs = [path for path in named if path not in outputs and path.exists()]
        return cls(title, [*program, *texts], [*inputs, *needs], outputs)

    def fingerprint(self) -> str:
        """Return a hash of the command and of the contents of its inputs."""
        digest = hashlib.sha256("\0".join(self.command).encode())
        for named in self.inputs:
            inside = sorted(named.rglob("*")) if named.is_dir() else [named]
            for path in inside:
                if path.is_dir():
                    continue
                digest.update(f"\0{path}\0".encode())
                with open(path, "rb") as file:
                    for block in iter(lambda: file.read(1 << 20), b""):
                        digest.update(block)
        return digest.hexdigest()

    def __str__(self) -> str:
        program, rest = shown(sys.executable), self.command
        if rest[:2] == _UNET:
            program, rest = str(Path(program).with_name("unet")), rest[2:]
        return shlex.join([program, *rest])


class Run:
    """Run steps, and remember in steps.json of a folder which are done, by their fingerprints."""

    def __init__(self, folder: Path) -> None:
        self.record = folder / "steps.json"
        self.began = time.monotonic()
        try:
            self.done = dict(json.loads(self.record.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            # An unreadable record costs time, nothing else: all steps run again.
            self.done = {}

    def run(self, step: Step) -> None:
        """Run a step unless its outputs are there, made by the same command from the same inputs.

        Raises `StepFailed` if the program fails, KeyboardInterrupt if it, or this one, is to stop.
        """
        print(f"\n== {step.title} ({time.monotonic() - self.began:.0f} s)\n$ {step}", flush=True)
        fingerprint = step.fingerprint()
        if step.outputs and self.is_done(step, fingerprint):
            print("already done")
            return
        status = call([sys.executable, *step.command])
        if status - EXIT_STOPPED in ASKING:
            raise Stopped(status - EXIT_STOPPED)
        if status:
            raise StepFailed(status)
        self.remember(step.title, fingerprint)

    def is_done(self, step: Step, fingerprint: str) -> bool:
        """Return whether all outputs of a step are there and of this fingerprint."""
        return self.done.get(step.title) == fingerprint and all(p.exists() for p in step.outputs)

    def remember(self, title: str, fingerprint: str) -> None:
        """Write down that a step has reached a fingerprint."""
        self.done[title] = fingerprint
        with atomic_path(self.record) as path:
            path.write_text(json.dumps(self.done, indent=1), encoding="utf-8")

    def train(self, step: Step, folder: Path) -> None:
        """Run a training; begin anew where an earlier one in this folder had other inputs."""
        key, fingerprint = f"{step.title}: begun", step.fingerprint()
        if self.done.get(key) != fingerprint and folder.exists():
            number = 1
            while folder.with_name(f"{folder.name}.old{number}").exists():
                number += 1
            old = folder.with_name(f"{folder.name}.old{number}")
            folder.rename(old)
            print(f"\n{folder} was trained from other inputs or to another end: it is {old} now")
        self.remember(key, fingerprint)
        self.run(step)


def call(command: Sequence[str]) -> int:
    """Run a program to its end, also through Ctrl-C, which it gets itself; return its exit status.

    SIGTERM and SIGHUP are passed on, so that a training writes its snapshot before it stops. If one
    of them came, `Stopped` is raised once the program has ended.
    """
    process: subprocess.Popen | None = None
    asked: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        asked.append(number)
        if process is not None and number != signal.SIGINT:
            process.send_signal(number)

    handlers = {}
    try:
        for number in ASKING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                handlers[number] = signal.signal(number, pass_on)
        if not asked:
            process = subprocess.Popen(command)
            for number in list(asked):
                pass_on(number, None)
            status = process.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if asked:
        raise Stopped(asked[0])
    return 128 - status if status < 0 else status


def timed(step: Step) -> tuple[float, float]:
    """Run a step, whether it is done or not; return its seconds and its peak of memory in GiB."""
    print(f"\n$ {step}", flush=True)
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, *step.command])
    _, status, usage = os.wait4(process.pid, 0)
    # wait4 has taken the status that Popen would wait for.
    process.returncode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1
    if process.returncode:
        raise StepFailed(process.returncode)
    return time.perf_counter() - begin, usage.ru_maxrss / 2**20


def shown(path: str) -> str:
    """Return a path as it would be typed in this folder."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
