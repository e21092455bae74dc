"""What a training reads and what it writes: nothing of the one, and nobody's work, is replaced."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unet.errors import InputError
from unet.files.outputs import refuse_own_inputs
from unet.training import snapshots
from unet.training.history import CSV_NAME, PNG_NAME, read_history


def guard_run(
    prefix: str, solver_path: str, param: Any, weights: str | None, overwrite: bool
) -> None:
    """Refuse to start a training anew where its files would damage what is there.

    It is an InputError if a file of its names, a snapshot PREFIX_iter_N, the curve or its image, is
    an input of it: its solver, what that names, the weights that it starts from; or if, without
    `overwrite`, it is there without the record of a training beside it.
    """
    there = _files_of_run(prefix)
    inputs = [solver_path, *([weights] if weights else []), *_files_named(param)]
    refuse_own_inputs(there, inputs)
    if not there or overwrite or _is_run(Path(prefix).parent):
        return
    raise InputError(
        f"{there[0]}: exists, and no training has left its {CSV_NAME} beside it; name another "
        "folder with --output, or replace it with --overwrite"
    )


def _files_of_run(prefix: str) -> list[Path]:
    """Return the files that are there and that a training with this prefix may replace."""
    folder = Path(prefix).parent
    if not folder.is_dir():
        return []
    snapshot = snapshots.files_of(prefix)
    return [
        path
        for path in sorted(folder.iterdir())
        if snapshot.fullmatch(path.name) or path.name in (CSV_NAME, PNG_NAME)
    ]


def _is_run(folder: Path) -> bool:
    """Tell whether a training of this project has worked in a folder: its curve comes first."""
    try:
        read_history(folder / CSV_NAME)
    except (OSError, InputError):
        return False
    with open(str(folder / CSV_NAME), encoding="utf-8") as file:
        return file.readline().startswith("iteration,seconds,")


def _files_named(message: Any) -> Iterator[str]:
    """Yield the files that a solver, or a net that it names, names."""
    from google.protobuf import text_format

    from caffe.proto import caffe_pb2

    for text in _strings(message):
        if not os.path.isfile(text):
            continue
        yield text
        if isinstance(message, caffe_pb2.SolverParameter):
            try:
                net = text_format.Parse(
                    Path(text).read_text(encoding="utf-8"), caffe_pb2.NetParameter()
                )
            except (text_format.ParseError, UnicodeDecodeError):
                # Weights, or a net of an older format, whose data the engine names.
                continue
            yield from _files_named(net)


def _strings(message: Any) -> Iterator[str]:
    """Yield all texts in a message, also those in the parameters of Python layers."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for one in [value] if hasattr(value, "ListFields") else value:
                yield from _strings(one)
        elif field.type == field.TYPE_STRING:
            yield from [value] if isinstance(value, str) else value
            if field.name == "param_str":
                yield from _strings_of_json(value)


def _strings_of_json(text: str) -> Iterator[str]:
    try:
        config = json.loads(text)
    except ValueError:
        return
    if isinstance(config, dict):
        yield from (value for value in config.values() if isinstance(value, str))
