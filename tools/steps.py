"""Run programs as steps that need not be repeated."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unet.command.running import EXIT_STOPPED
from unet.files.atomic import atomic_path
from unet.machine.signals import ASKING, Stopped


class StepFailed(Exception):
    """A program has failed and has said why; carries its exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass
class Step:
    """One program run.

    Attributes
    ----------
    title : str
    command : list of str
        Arguments for this Python.
    inputs, outputs : list of Path
        Files; without outputs the step is always run.
    """

    title: str
    command: list[str]
    inputs: list[Path] = field(default_factory=list)
    outputs: list[Path] = field(default_factory=list)

    def fingerprint(self) -> str:
        """Return a hash of the command and of the contents of its inputs."""
        digest = hashlib.sha256("\0".join(self.command).encode())
        for path in self.inputs:
            digest.update(f"\0{path}\0".encode())
            with open(path, "rb") as file:
                for block in iter(lambda: file.read(1 << 20), b""):
                    digest.update(block)
        return digest.hexdigest()


class Pipeline:
    """Run steps, and remember in a folder which are done.

    Parameters
    ----------
    folder : Path
        Holds steps.json: title of a step -> fingerprint.
    """

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

        Raises
        ------
        StepFailed
            If the program fails.
        KeyboardInterrupt
            If the program, or this one, was asked to stop.
        """
        print(f"\n== {step.title} ({time.monotonic() - self.began:.0f} s)")
        print("$ " + shlex.join([shown(sys.executable), *step.command]), flush=True)
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

    SIGTERM and SIGHUP are passed on, so that a training writes its snapshot before it stops.

    Raises
    ------
    Stopped
        If one of them came, once the program has ended.
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


def shown(path: str) -> str:
    """Return a path as it would be typed in this folder."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
