"""The folder of a trained network: what a user of it needs, and what shows how good it is."""

from __future__ import annotations

import shutil
from pathlib import Path

from unet.files import atomic_path
from unet.grey import INPUT


def make_model_folder(
    target: Path, run: Path, model: Path, deploy: Path, card: str, scored: bool
) -> None:
    """Copy a training's results into a folder, with a card.

    Parameters
    ----------
    target : Path
        The folder; made if it is not there.
    run : Path
        Has overlay.png and, if scored, scores.json.
    model : Path
        The caffemodel; curves.png is beside it.
    deploy : Path
        The network's prototxt, with input.json beside it.
    card : str
        README.md.
    scored : bool
    """
    files = {
        "weights.caffemodel": model,
        "deploy.prototxt": deploy,
        INPUT: deploy.parent / INPUT,
        "curves.png": model.parent / "curves.png",
        "overlay.png": run / "overlay.png",
    }
    if scored:
        files["scores.json"] = run / "scores.json"
    for name, source in files.items():
        with atomic_path(target / name) as path:
            shutil.copyfile(source, path)
    with atomic_path(target / "README.md") as path:
        path.write_text(card, encoding="utf-8")
