"""A run's folder, made without training: a phantom, a result with mistakes, falling curves."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from scipy import ndimage

from unet.datasets.phantom import phantom, touching_cells
from unet.report.run_files import HeldOutSlice
from unet.training.history import write_history

SIDE = 160


def pictures(kind: str, slices: int = 2, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return raw and truth as those of held-out.h5."""
    if kind == "cells":
        raw, cells = touching_cells(slices, SIDE, seed)
        return raw, cells.astype(np.int32)
    raw, labels = phantom(slices, SIDE, seed)
    truth = (labels > 0).astype(np.int32)
    if kind == "classes":
        # Membranes, what is next to them, the middle of cells.
        truth += np.stack([ndimage.distance_transform_edt(one) > 6 for one in truth])
    return raw, truth


def mistaken(kind: str, truth: np.ndarray) -> np.ndarray:
    """Return a result with some mistakes: in one corner all is alike."""
    result = truth.copy()
    result[:, :40, :40] = 0 if kind == "cells" else 1
    return result


def held_out(kind: str, slices: int = 2, seed: int = 1) -> list[HeldOutSlice]:
    """Return the slices of such a run."""
    raw, truth = pictures(kind, slices, seed)
    result = mistaken(kind, truth)
    return [
        HeldOutSlice(z, f"slice {z}", raw[z][np.newaxis], truth[z], result[z])
        for z in range(slices)
    ]


def curve(iterations: int, tests: np.ndarray, end: float = 0.2) -> list[dict[str, float]]:
    """Return rows of a curve.csv: a training loss that falls to `end`, held-out losses as given."""
    random = np.random.default_rng(0)
    rows = []
    for k, i in enumerate(np.linspace(0, iterations, len(tests)).astype(int).tolist()):
        test = {"test_loss": float(tests[k]), "test_misclassified": float(tests[k]) / 3}
        rows.append({"iteration": i, "seconds": float(i), **test})
    for i in range(iterations):
        loss = end + 0.5 * np.exp(-5 * i / iterations) + 0.02 * random.standard_normal()
        rows.append({"iteration": i, "seconds": float(i), "rate": 1e-3, "loss": float(loss)})
    return sorted(rows, key=lambda row: (row["iteration"], "loss" in row))


def falling(tests: int = 16) -> np.ndarray:
    """Return held-out losses as they should be."""
    return 0.25 + 0.5 * np.exp(-np.linspace(0, 6, tests))


def choices(kind: str, **more: object) -> dict:
    """Return what choices.json holds."""
    return {
        "stack": "/data/stack.tif",
        "labels": "/data/labels.tif",
        "command": "unet train /data/stack.tif /data/labels.tif -o mine",
        "version": "0.1.0",
        "kind": kind,
        "classes": 3 if kind == "classes" else 2,
        "understood": f"{kind}, as the labels say",
        "normalise": True,
        "split": {"train": [0, 1, 2, 3], "held_out": [4, 5]},
        "device": "CPU",
        "precision": "fp32",
        "net": {"levels": 3, "maps": 16, "padded": True, "parameters": 470000},
        "tile": 252,
        "solver": {
            "type": "Adam",
            "stages": [
                {"iterations": 3200, "base_lr": 0.001, "weighting": "none"},
                {"iterations": 800, "base_lr": 0.0003, "weighting": "w0 10, sigma 5"},
            ],
        },
        "augmentation": {"elastic": 10},
        "seed": 1,
        "minutes": 5,
        "seconds_a_step": 0.25,
        "reasons": {
            "held out": "spread through the stack",
            "levels": "cells are 40 pixels wide",
            "maps": "of more too few steps would fit",
            "solver": "it gets further",
            "weather": "it rained",
        },
        **more,
    }


def make_run(folder: Path, kind: str = "membranes", **more: object) -> Path:
    """Write the files of a finished run."""
    folder.mkdir(parents=True)
    (folder / "choices.json").write_text(json.dumps(choices(kind, **more)))
    Image.fromarray(np.full((40, 160, 3), 90, np.uint8)).save(folder / "labels.png")
    for number, iterations in ((1, 3200), (2, 800)):
        write_history(folder / f"training-{number}" / "curve.csv", curve(iterations, falling()))
    write_held_out(folder, kind)
    write_scores(folder, kind)
    (folder / "segment.json").write_text(json.dumps({"tta": "mirror", "threshold": 0.4}))
    (folder / "weights.caffemodel").write_bytes(b"weights")
    return folder


def write_held_out(folder: Path, kind: str) -> None:
    """Write held-out.h5."""
    raw, truth = pictures(kind)
    with h5py.File(str(folder / "held-out.h5"), "w") as file:
        file["raw"], file["truth"], file["result"] = raw, truth, mistaken(kind, truth)
        file["slices"] = np.array([4, 5])


def write_scores(folder: Path, kind: str) -> None:
    """Write scores.json."""
    scores = {
        "membranes": {"rand_error": 0.0731, "pixel_error": 0.0477, "v_rand_thin": 0.9815},
        "cells": {"SEG": 0.8123, "f1_mean": 0.7345, "f1_0.50": 0.9456},
        "classes": {"iou_mean": 0.8642, "iou_0": 0.91, "iou_1": None, "iou_2": 0.82},
    }[kind]
    told = {"chosen": 0.4, "curve": [[0.2, 0.7], [0.4, 0.9], [0.6, 0.8]], "score": "Rand F-score"}
    better = {name: value and value + 0.01 for name, value in scores.items()}
    slices = [{"slice": 4, **scores}, {"slice": 5, **better}]
    text = {"kind": kind, "scores": scores, "slices": slices}
    if kind != "classes":
        text["threshold"] = told
    (folder / "scores.json").write_text(json.dumps(text))
