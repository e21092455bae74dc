"""The programs that are killed, and the small inputs that they work on."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ITERATIONS = 9

Tree = dict[str, str]


@dataclass
class Case:
    """A program with its inputs.

    Attributes
    ----------
    name : str
        Of the row that counts it, and what it writes.
    program : str
        Its module in unet/command.
    words : list of str
    folders : list of str
        Outputs that are folders, whole or absent.
    again : list of str
        Further words of the runs after a kill.
    fresh : bool
        Whether it can run as a process of its own.
    before : list of str
        Words of the run that has made older results; none if there are none.
    """

    name: str
    program: str
    words: list[str]
    folders: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    fresh: bool = True
    before: list[str] = field(default_factory=list)
    template: Path = Path()
    old: Tree = field(default_factory=dict)
    new: Tree = field(default_factory=dict)
    seconds: float = 0.0
    calls: int = 0


def _stack(folder: Path) -> None:
    import numpy as np

    from unet.volumes import write_volume

    rng = np.random.default_rng(3)
    for name, seed in (("stack", 0), ("other", 1)):
        pixels = np.random.default_rng(seed).integers(0, 256, (3, 20, 30), np.uint8)
        write_volume(folder / f"{name}.tif", pixels)
    cells = np.zeros((3, 20, 30), np.uint16)
    for z in range(3):
        cells[z, 2 + z : 9 + z, 3:12], cells[z, 10:18, 14:27] = 1, 2
    write_volume(folder / "cells.tif", cells)
    write_volume(folder / "cells2.tif", np.where(rng.random(cells.shape) < 0.9, cells, 0))


def _model(folder: Path) -> None:
    import caffe
    from unet.network import nets

    nets.WIDTHS["tiny"] = 2
    (folder / "model").mkdir()
    path = folder / "model" / "deploy.prototxt"
    path.write_text(f"{nets.deploy_net('tiny')}")
    (folder / "model" / "input.json").write_text('{"normalise": true}\n')
    caffe.set_random_seed(1)
    caffe.Net(str(path), caffe.TEST).save(str(folder / "model" / "weights.caffemodel"))


def _training(folder: Path) -> None:
    from tests.unet.small_net import write_training

    before = os.getcwd()
    os.chdir(folder)
    try:
        write_training(
            Path("."), max_iter=ITERATIONS, snapshot=3, snapshot_prefix="run/small", test_interval=4
        )
    finally:
        os.chdir(before)


def write_sequences(path: Path, seed: int) -> None:
    """Write a zip of a data set of the cell tracking challenge."""
    import numpy as np
    import tifffile

    grey = np.add.outer(np.arange(512), np.arange(512) * (1 + seed)).astype(np.uint8)
    cells = np.zeros((512, 512), np.uint16)
    cells[40:90, 30:70] = 1
    with zipfile.ZipFile(path, "w") as file:

        def put(name: str, picture: np.ndarray) -> None:
            data = io.BytesIO()
            tifffile.imwrite(data, picture, photometric="minisblack", compression="zlib")
            file.writestr(f"DIC-C2DH-HeLa/{name}", data.getvalue())

        for sequence in ("01", "02"):
            for number in range(2):
                put(f"{sequence}/t{number:03d}.tif", np.roll(grey, number))
                put(f"{sequence}_GT/TRA/man_track{number:03d}.tif", cells)
            put(f"{sequence}_GT/SEG/man_seg001.tif", cells)
            file.writestr(f"DIC-C2DH-HeLa/{sequence}_GT/TRA/man_track.txt", "1 0 1 0\n")


def _archives(folder: Path) -> None:
    write_sequences(folder / "a.zip", 0)
    write_sequences(folder / "b.zip", 1)


def _plugin_files(folder: Path) -> None:
    import numpy as np

    from tests.plain_caffe_unet import PluginModel, write_images

    PluginModel(folder, (2, 2))
    for name, seed in (("images", 0), ("others", 1)):
        write_images(folder / f"{name}.h5", np.random.default_rng(seed).random((2, 1, 45, 37)))


MAKERS: dict[str, tuple[Callable[[Path], None], ...]] = {
    "segment": (_stack, _model),
    "prepare": (_stack,),
    "track": (_stack,),
    "train": (_training,),
    "fetch": (_archives,),
    "score": (_stack,),
    "export": (_model,),
    "caffe_unet": (_plugin_files,),
}


def cases(workers: int = 0) -> list[Case]:
    """Return the programs with all that they write; with workers those that take --workers."""
    net = ["--weights", "model", "--device", "cpu"]
    found = []
    for out in ("out.tif", "out.h5", "out.zarr", "out"):
        folders = [out] if "." not in out or out.endswith("zarr") else []
        words = ["-o", out, "--instances", "found.tif", *net]
        found.append(
            Case("segment", "segment", ["stack.tif", *words], folders, before=["other.tif", *words])
        )
    words = ["stack.tif", "-o", "new.zarr", "--classes", "new.h5", *net]
    found.append(Case("segment", "segment", words, ["new.zarr"]))
    pictures = ["-o", "out.tif", "--overlay", "pictures", *net]
    found.append(Case("segment", "segment", ["stack.tif", *pictures]))
    if workers:
        for case in found:
            case.words += ["--workers", str(workers)]
        return found
    words = ["stack.tif", "cells.tif", "-o", "set.h5", "--preview", "set.png"]
    words += ["--label-kind", "instances"]
    found.append(Case("prepare", "prepare", words, before=[*words, "--sigma", "3"]))
    found.append(Case("prepare", "prepare", words))
    words = ["-o", "RES"]
    found.append(
        Case("track", "track", ["cells.tif", *words], ["RES"], before=["cells2.tif", *words])
    )
    found.append(Case("track", "track", ["cells.tif", "-o", "RES"], ["RES"]))
    found.append(Case("train", "train", ["solver.prototxt", "--device", "cpu"], again=["--resume"]))
    data = [f"data/{name}" for name in ("01", "02", "01_GT", "02_GT")]
    take = ["dic-hela", "-o", "data", "--from"]
    over = [*take, "a.zip", "--overwrite"]
    found.append(Case("fetch", "fetch", over, data, before=[*take, "b.zip"]))
    found.append(Case("fetch", "fetch", [*take, "a.zip"], data))
    found.append(Case("fetch", "fetch", ["dic-hela", "-o", "data"], data, fresh=False))
    words = ["--json", "scores.json"]
    before = ["cells.tif", "cells.tif", *words]
    found.append(Case("score", "score", ["cells.tif", "cells2.tif", *words], before=before))
    words = ["model", "-o", "net.onnx", "--bioimageio", "net.zip"]
    found.append(Case("export", "export", words, before=[*words, "--author", "Somebody Else"]))
    words = ["-outfileH5", "scores.h5", "-model", "cells.modeldef.h5"]
    words = ["tiled_predict", *words, "-weights", "cells.caffemodel.h5", "-n_tiles", "2x2"]
    old = [*words, "-infileH5", "others.h5"]
    words += ["-infileH5", "images.h5"]
    found.append(Case("caffe_unet", "caffe_unet", words, fresh=False, before=old))
    return found
