"""The method of U-Net (Ronneberger et al., MICCAI 2015) on any engine that speaks pycaffe.

>>> import unet
>>> model = unet.load("isbi2012_slim")                             # doctest: +SKIP
>>> probabilities = model.segment("stack.tif", tta="dihedral")     # doctest: +SKIP
>>> print(unet.score("labels.tif", probabilities))                 # doctest: +SKIP

The names below are the face: `load`, `open_volume`, `prepare`, `train`, `track` and `score`. Behind
it lies a room for each question; a file imports only what lies below it.

| room | what it answers |
| --- | --- |
| command | the programs: flags, one call, print; exit statuses; outputs that replace no input |
| experiment | from a stack and its labels to a trained network, judged on what was held out |
| datasets | where ISBI 2012, the cell tracking challenge and the release of 2015 come from |
| report | what a person looks at: pictures, the report of a run, what it finds out |
| model | a trained network, opened from wherever it comes, and what is done with it |
| segmentation | from slices to probabilities and instances: tiles, orientations, memory, files |
| tracking | cells over time, in the files of the cell tracking challenge |
| training | run a solver: validation, snapshots, resuming, curves |
| scoring | how well: ISBI 2012, the cell tracking challenge, F1 of cells, IoU of classes |
| layers | the Caffe layer that feeds training tiles; prototxt names it |
| augmentation | deformed tiles, cut by workers ahead of need |
| preparation | from labels to a training set: borders, weight maps, what nobody annotated |
| network | the U of Fig. 1, its loss and its geometry; all networks' prototxt |
| volumes | stacks in and out: TIFF, PNG, folders, HDF5, Zarr; their range of intensity |
| files | files that are whole or absent, and carry a mark; HDF5; names |
| machine | engine and device, memory, cores, signals |
| errors | the one exception for a user's mistake |
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unet.files.version import VERSION as __version__

__all__ = ["__version__", "load", "open_volume", "prepare", "score", "track", "train"]

if TYPE_CHECKING:
    from unet.experiment.train import train
    from unet.model import load
    from unet.preparation.prepare import prepare
    from unet.scoring.score import score
    from unet.tracking.track import track
    from unet.volumes import open_volume

# Imported when they are first used: what cuts tiles in a worker needs neither caffe nor scipy.
_ROOMS = {
    "load": "unet.model",
    "open_volume": "unet.volumes",
    "prepare": "unet.preparation.prepare",
    "score": "unet.scoring.score",
    "track": "unet.tracking.track",
    "train": "unet.experiment.train",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'unet' has no attribute {name!r}")
    return getattr(import_module(_ROOMS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
