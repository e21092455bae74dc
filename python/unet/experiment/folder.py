"""The folder of a run, which is the model folder, too: what lies in it, and whose it is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unet.errors import InputError
from unet.experiment.options import PLAIN
from unet.files.atomic import (
    atomic_parts,
    atomic_path,
    is_temporary,
    make_folders,
    sweep,
    sweep_parts,
    writing,
)
from unet.files.names import split_name
from unet.files.outputs import refuse_own_inputs
from unet.files.provenance import KEY, SCORE_FILE, mark
from unet.files.score_file import write_scores
from unet.model.open_net import DEPLOY, WEIGHTS
from unet.volumes.intensity import INPUT

CHOICES, TRAINING_SET, LABELS_PICTURE = "choices.json", "training-set.h5", "labels.png"
NET, LOG, CARD = "net", "run.log", "README.md"
#: In the folder NET: the weights that a training begins with that begins as another network.
START = "start.caffemodel"
#: There, too: what judging has left of that network before it learns.
START_JUDGED = "start"
SCORES, HELD_OUT, SEGMENT, OVERLAY = "scores.json", "held-out.h5", "segment.json", "overlay.png"
REPORT = "report.html"
#: What judging leaves of a network, and the run takes from the best one.
JUDGED = (HELD_OUT, SEGMENT, OVERLAY, SCORES)
_STAGES = ("training-1", "training-2")
_OURS = {
    *(CHOICES, TRAINING_SET, LABELS_PICTURE, NET, LOG, CARD, DEPLOY, INPUT, WEIGHTS[0], REPORT),
    *JUDGED,
    *_STAGES,
}


class RunFolder:
    """The folder of a run.

    Parameters
    ----------
    path : path
        Made when it is begun.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def stage(self, number: int) -> Path:
        """Return the folder of a stage, counted from 1."""
        return self.path / _STAGES[number - 1]

    def judged(self, number: int, network: str) -> Path:
        """Return where it lies what judging has left of a network of a stage."""
        return self.stage(number) if network == PLAIN else self.stage(number) / network

    @property
    def choices(self) -> dict[str, Any] | None:
        """What was chosen, None before that; an InputError if it is not this project's."""
        try:
            text = (self / CHOICES).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            found = json.loads(text)
            known = str(found[KEY]).split(" ")[0] == mark(SCORE_FILE).split(" ")[0]
        except (ValueError, LookupError, TypeError):
            known = False
        if not known:
            raise InputError(
                f"{self / CHOICES}: is not what a training from a stack has left; name another "
                f"folder, or begin anew with --overwrite"
            )
        return found

    @property
    def is_settled(self) -> bool:
        """Whether it is the folder of a run that has chosen."""
        return self.path.is_dir() and self.choices is not None

    def write_choices(self, choices: dict[str, Any]) -> None:
        """Write down what was chosen."""
        write_scores(self / CHOICES, choices)

    def make(self, inputs: Iterable[str]) -> list[Path]:
        """Make the folder; return it and those above it that were missing.

        Raises
        ------
        InputError
            If an input lies in it, or it cannot be made.
        """
        refuse_own_inputs([self.path], inputs)
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path}: is a file; name a folder")
        with writing(self.path):
            return make_folders(self.path)

    def begin(self, overwrite: bool) -> None:
        """Make the folder, which no other training is at work in, one of a run, or find it to be.

        Raises
        ------
        InputError
            If there are files of a run's names that no run has left; with `overwrite` these, and an
            earlier run, are removed.
        """
        sweep_parts(self.path)
        there = sorted(name for name in os.listdir(self.path) if name in _OURS)
        if overwrite:
            # First what tells that it is a run, whose files may be lost then.
            for name in sorted(there, key=lambda name: name != CHOICES):
                _remove(self / name)
        elif self.choices is not None:
            self._sweep()
        elif not set(there) <= self._begun():
            strange = sorted(set(there) - self._begun())[0]
            raise InputError(
                f"{self / strange}: exists, and no training from a stack has left it; name "
                f"another folder, or replace it with --overwrite"
            )

    def _sweep(self) -> None:
        """Remove what kills have left: outputs that are done are not written again."""
        sweep(self.path, lambda name: name in _OURS)
        for ours in _OURS:
            for place, _, _ in os.walk(self / ours):
                if not is_temporary(os.path.basename(place)):
                    sweep(place, lambda name: True)

    def _begun(self) -> set[str]:
        """Return what a run that was killed before it had chosen may have left: its log says so."""
        try:
            first = (self / LOG).read_text(encoding="utf-8", errors="replace").split("\n", 1)[0]
        except OSError:
            return set()
        if not first.startswith(mark(LOG)):
            return set()
        return {LOG, TRAINING_SET, LABELS_PICTURE, NET, DEPLOY, INPUT}

    def begin_log(self) -> None:
        """Begin the log, by which a run that is killed before it has chosen is known."""
        if not (self / LOG).exists():
            with writing(self / LOG):
                (self / LOG).write_text(f"{mark(LOG)}\n", encoding="utf-8")

    def drop_empty_log(self) -> None:
        """Remove the log if it tells of nothing, and nothing lies beside it that it tells whose."""
        there = {name for name in os.listdir(self.path) if name in _OURS}
        if there == {LOG} and (self / LOG).read_bytes() == f"{mark(LOG)}\n".encode():
            (self / LOG).unlink()

    def say(self, text: str) -> None:
        """Print, and add to the log."""
        print(text, flush=True)
        self.begin_log()
        how = {"encoding": "utf-8", "errors": "backslashreplace"}
        with writing(self / LOG), open(self / LOG, "a", **how) as log:
            log.write(text + "\n")

    def write_card(self, text: str) -> None:
        """Write the card, the last file of a run."""
        with atomic_path(self / CARD) as fresh:
            fresh.write_text(text, encoding="utf-8", errors="backslashreplace")

    def adopt(self, judged: Path, weights: str) -> None:
        """Take the weights and what judging has left of a network, all of it or nothing."""
        with atomic_parts(self.path, lambda name: (name == SCORES, name)) as fresh:
            (fresh / WEIGHTS[0]).write_bytes(_movable(weights))
            for name in JUDGED:
                if (judged / name).exists():
                    shutil.copyfile(judged / name, fresh / name)
        (judged / HELD_OUT).unlink(missing_ok=True)


def _movable(weights: str) -> bytes:
    """Return a .caffemodel whose paths count from the folder of the run, as its prototxt's do."""
    from caffe.proto import caffe_pb2

    net = caffe_pb2.NetParameter.FromString(Path(weights).read_bytes())
    for layer in net.layer:
        if layer.python_param.layer == "TrainingTiles":
            config = json.loads(layer.python_param.param_str)
            config["file"] = TRAINING_SET
            layer.python_param.param_str = json.dumps(config)
    return net.SerializeToString()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def fingerprint(inputs: Iterable[str]) -> str:
    """Return a hash of the sizes and times of files, and of all in folders: has one changed?"""
    digest = hashlib.sha256()
    for name in inputs:
        place, inner = split_name(name)
        digest.update(f"\0{inner}".encode("utf-8", "surrogateescape"))
        paths = sorted(place.rglob("*")) if place.is_dir() else [place]
        for path in paths:
            if path.is_file() and not is_temporary(path.name):
                status, shown = path.stat(), path.relative_to(place)
                line = f"\0{shown}\0{status.st_size}\0{status.st_mtime_ns}"
                digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
