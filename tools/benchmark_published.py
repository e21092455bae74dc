"""Segment and track the frames of the authors' release of 2015, with their network and with ours.

Their network by their own procedure; ours with the options of its training. One table: scores where
there is ground truth, time and main memory of the programs, and how far the two agree. Ground truth
is that beside the frames, or that of data/PhC-C2DH-U373 (tools/fetch.py phc-u373) for the same
frames.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline_cells import DATA
from steps import StepFailed, shown
from unet.command.options import add_overwrite
from unet.command.running import run_program
from unet.datasets import release2015
from unet.errors import InputError
from unet.files.atomic import atomic_path
from unet.files.json_text import json_text
from unet.files.outputs import Output, guard_outputs
from unet.files.provenance import KEY, RESULT, SCORE_FILE, STACK, mark
from unet.scoring.ctc import score_seg, score_tracking
from unet.scoring.ctc_metrics import match_objects, seg
from unet.tracking.ctc_format import numbered_files, open_frames

REPOSITORY = Path(__file__).resolve().parent.parent
OURS = REPOSITORY / "models" / "phc-u373_slim"
TRUTH = REPOSITORY / "data" / release2015.FRAMES


class Network(NamedTuple):
    """A network, and the options it is run with.

    Attributes
    ----------
    name : str
    weights : Path
        As tools/segment.py takes them.
    segment, track : list of str
        Options of tools/segment.py and tools/track.py.
    """

    name: str
    weights: Path
    segment: list[str]
    track: list[str]


def main(argv: Sequence[str] | None = None) -> None:
    """Run both networks on all sequences, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--from",
        dest="release",
        metavar="FOLDER_OR_ARCHIVE",
        help="the authors' release; by default it is downloaded, unless it is there",
    )
    add("--data", default=str(release2015.FOLDER), help="folder for the release (%(default)s)")
    add("--truth", default=str(TRUTH), help="folder of the data set with ground truth")
    add("--model", default=str(OURS), help="our model folder; passed over where there is none")
    add("--device", default="auto", help="auto, cpu or the number of a GPU (%(default)s)")
    add("-o", "--output", default="runs/published", help="folder for the results (%(default)s)")
    add_overwrite(parser)
    options = parser.parse_args(argv)

    release = release2015.fetch(options.data, options.release or None, overwrite=options.overwrite)
    print("\n".join(release2015.describe(release)), flush=True)
    if not release.sequences:
        raise InputError(f"{options.data}: the release holds no frames of {release2015.FRAMES}")
    procedure = ["--procedure", "2015"]
    networks = [Network("the authors', 2015", release.weights, procedure, procedure)]
    if Path(options.model).is_dir():
        usual = DATA["phc-u373"]
        networks.append(Network("ours", Path(options.model), usual.cells, usual.track))
    else:
        print(f"{options.model}: there is no such model folder, so nothing to compare with")
    rows, output = [], Path(options.output)
    folders = {
        sequence: [output / f"{sequence.name}_{name}" for name in ("authors", "ours")]
        for sequence in release.sequences
    }
    guard(options, release, [folder for both in folders.values() for folder in both])
    for sequence, count in release.sequences.items():
        truth = find_truth(sequence, Path(options.truth))
        results = []
        for folder, network in zip(folders[sequence], networks):
            overwrite = ["--overwrite"] * options.overwrite
            row = run_network(network, sequence, folder, options.device, overwrite)
            row["seconds"] /= count
            results.append(folder / "result")
            rows.append({"sequence": sequence.name, **row, **scores(truth, results[-1])})
        if len(results) == 2:
            rows[-1]["agreement"] = agreement(*results)
    print(f"\n{table(rows)}")
    with atomic_path(output / "scores.json") as path:
        path.write_text(json_text({KEY: mark(SCORE_FILE), "rows": rows}) + "\n", encoding="utf-8")
    print(f"written: {output / 'scores.json'}")


def guard(
    options: argparse.Namespace, release: release2015.Release, folders: Sequence[Path]
) -> None:
    """Refuse outputs that would damage something, before anything is computed."""
    outputs = [Output(Path(options.output) / "scores.json", SCORE_FILE)]
    for folder in folders:
        outputs += [Output(folder / "cells.tif", STACK), Output(folder / "result", RESULT)]
    inputs = [release.net, release.weights, *release.sequences, options.model, options.truth]
    inputs += [sequence.with_name(f"{sequence.name}_GT") for sequence in release.sequences]
    guard_outputs(outputs, inputs, options.overwrite)


def find_truth(sequence: Path, dataset: Path) -> Path | None:
    """Return the ground truth of a sequence, if there is any of the same frames."""
    beside = sequence.with_name(f"{sequence.name}_GT")
    if beside.is_dir():
        return beside
    other = dataset / sequence.name
    truth = other.with_name(f"{other.name}_GT")
    if not other.is_dir() or not truth.is_dir():
        return None
    files = [numbered_files(folder, "t") for folder in (sequence, other)]
    with open_frames(files[0], masks=False) as given, open_frames(files[1], masks=False) as known:
        same = given.shape == known.shape and all(
            np.array_equal(given[z], known[z]) for z in (0, len(given) // 2, len(given) - 1)
        )
    if not same:
        print(f"{truth}: is of other frames than {sequence}, so it is not used")
    return truth if same else None


def run_network(
    network: Network, sequence: Path, folder: Path, device: str, overwrite: list[str]
) -> dict[str, Any]:
    """Segment and track a sequence into folder/result; return name, seconds and peak memory."""
    folder.mkdir(parents=True, exist_ok=True)
    cells = str(folder / "cells.tif")
    seconds, peak = 0.0, 0.0
    for command in (
        ["segment.py", str(sequence), "--weights", str(network.weights), "--device", device]
        + ["--labels", cells, *network.segment, *overwrite],
        ["track.py", cells, "-o", str(folder / "result"), *network.track, *overwrite],
    ):
        program = shown(str(REPOSITORY / "tools" / command[0]))
        print("\n$ " + shlex.join([shown(sys.executable), program, *command[1:]]), flush=True)
        begin = time.perf_counter()
        process = subprocess.Popen([sys.executable, program, *command[1:]])
        _, status, usage = os.wait4(process.pid, 0)
        seconds += time.perf_counter() - begin
        peak = max(peak, usage.ru_maxrss / 2**20)
        # wait4 has taken the status that Popen would wait for.
        process.returncode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1
        if process.returncode:
            raise StepFailed(process.returncode)
    return {"network": network.name, "seconds": seconds, "peak_gib": peak}


def scores(truth: Path | None, result: Path) -> dict[str, float]:
    """Return SEG, DET and TRA, as far as there is ground truth for them."""
    found: dict[str, float] = {}
    if truth and (truth / "SEG").is_dir():
        found["SEG"] = score_seg(truth, result)["SEG"]
    if truth and (truth / "TRA").is_dir():
        tracking = score_tracking(truth, result)
        found.update(DET=tracking["DET"], TRA=tracking["TRA"])
    return found


def agreement(first: Path, second: Path) -> dict[str, float]:
    """Return how far two results agree.

    Returns
    -------
    dict
        pixels, the share of pixels that both call a cell or both call background; SEG, of the
        second's cells with the first's in the place of the truth, NaN where there are none.
    """
    same, total, frames = 0, 0, []
    files = [numbered_files(folder, "mask") for folder in (first, second)]
    with open_frames(files[0], masks=True) as one, open_frames(files[1], masks=True) as other:
        for z in range(len(one)):
            a, b = one[z], other[z]
            same += int(np.count_nonzero((a > 0) == (b > 0)))
            total += a.size
            frames.append(match_objects(a, b))
    any_cell = any(len(frame.reference) for frame in frames)
    return {"pixels": same / total, "SEG": seg(frames) if any_cell else float("nan")}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table as text."""
    heads = ("SEG", "DET", "TRA")
    lines = [
        f"{'sequence':10s}{'network':20s}"
        + "".join(f"{head:>8s}" for head in heads)
        + f"{'s/frame':>9s}{'GiB':>7s}"
    ]
    for row in rows:
        marks = "".join(f"{row[h]:8.4f}" if h in row else f"{'-':>8s}" for h in heads)
        lines.append(
            f"{row['sequence']:10s}{row['network']:20s}{marks}{row['seconds']:9.2f}"
            f"{row['peak_gib']:7.2f}"
        )
        if "agreement" in row:
            both = row["agreement"]
            lines.append(
                f"{'':10s}the two agree on {both['pixels']:.2%} of the pixels; SEG of ours against "
                f"theirs {both['SEG']:.4f}"
            )
    return "\n".join(lines)


def run() -> int | None:
    """Run, and pass on the exit status of a program that failed."""
    try:
        main()
    except StepFailed as failed:
        return failed.status
    return None


if __name__ == "__main__":
    run_program(lambda _: run())
