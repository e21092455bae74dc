"""Made sequences in the challenge's format: a ground truth, and a result with all errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from unet.tracking.ctc_format import Track, write_tracks

SIZE = (96, 112)
FRAMES = 12
_PITCH = 16  # pixels; cells stay in squares of their own


def make_case(folder: Path, seed: int, errors: float) -> tuple[Path, Path]:
    """Write 01_GT and 01_RES.

    Cells are squares that come, go and divide. In the result, with a probability of `errors` each,
    a cell of a frame is missing, moved by half, split, joined with its neighbour or exchanged with
    it, a false one appears, and tracks break.
    """
    rng = np.random.default_rng(seed)
    places = [(y, x) for y in range(0, SIZE[0], _PITCH) for x in range(0, SIZE[1], _PITCH)]
    truth = _true_cells(rng, len(places))
    areas = rng.integers(4, 12, (len(places), 2))

    def box(place, shift=0):
        (y, x), (height, width) = places[place], areas[place]
        return slice(y + 1 + shift, y + 1 + shift + height), slice(x + 1, x + 1 + width)

    markers, seen = [], []
    for cells in truth:
        frame = np.zeros(SIZE, np.uint16)
        # What the result shows: identity -> boxes. The identity of a right cell is its own.
        shown: dict = {}
        for cell, place in cells.items():
            frame[box(place)] = cell
            draw = rng.random(6) < errors
            if draw[0]:
                continue
            rows, columns = box(place, int(draw[1]) * int(areas[place][0] // 2))
            if draw[2]:
                middle = rows.start + 1 + (rows.stop - rows.start) // 2
                shown.setdefault(("part", cell), []).append((slice(middle, rows.stop), columns))
                rows = slice(rows.start, middle)
            other = rng.choice(list(cells)) if draw[3] or draw[4] else cell
            if draw[4] and ("cell", other) in shown:
                shown["cell", cell] = shown.pop(("cell", other))
            shown.setdefault(("cell", other), []).append((rows, columns))
            if draw[5]:
                free = [k for k in range(len(places)) if k not in cells.values()]
                shown.setdefault(("false", cell), []).append(box(rng.choice(free)))
        markers.append(frame)
        seen.append(shown)
    _write(folder / "01_GT" / "TRA", "man_track", markers, _true_tracks(truth, rng))
    for number in sorted(rng.choice(FRAMES, 4, replace=False)):
        write_picture(folder / "01_GT" / "SEG" / f"man_seg{number:03d}.tif", markers[number])
    masks, tracks = _result(rng, seen, errors)
    _write(folder / "01_RES", "mask", masks, tracks)
    return folder / "01_GT", folder / "01_RES"


def _true_cells(rng, places) -> list[dict]:
    """Return cell -> place for each frame; a cell that divides ends, two others begin."""
    now = {k + 1: int(p) for k, p in enumerate(rng.choice(places, 8, replace=False))}
    frames, count = [], len(now)
    for _ in range(FRAMES):
        frames.append(dict(now))
        for cell, place in list(now.items()):
            event = rng.random()
            free = [k for k in range(places) if k not in now.values()]
            if event < 0.06 and len(now) > 3:
                del now[cell]
            elif event < 0.14 and len(free) > 20:
                del now[cell]
                for k in (place, int(rng.choice(free))):
                    count += 1
                    now[count] = k
    return frames


def _true_tracks(truth, rng) -> list[Track]:
    tracks: list[Track] = []
    for cell in sorted({cell for cells in truth for cell in cells}):
        there = [t for t, cells in enumerate(truth) if cell in cells]
        parents = [track.label for track in tracks if track.end == there[0] - 1]
        if rng.random() < 0.2:
            # Seen again after some frames.
            parents = [track.label for track in tracks if track.end < there[0] - 1]
        tracks.append(Track(cell, there[0], there[-1], parents[0] if parents else 0))
    return tracks


def _result(rng, seen, errors) -> tuple[list, list[Track]]:
    """Number what is shown: an identity is one track as long as it is there without a break."""
    numbers = iter(rng.permutation(np.arange(1, 30_000))[:2000].tolist())
    masks = [np.zeros(SIZE, np.uint16) for _ in seen]
    runs: dict = {}
    for t, shown in enumerate(seen):
        mask = masks[t]
        drawn = {}
        for identity, boxes in shown.items():
            past = runs.setdefault(identity, [])
            if past and past[-1][2] == t - 1 and rng.random() >= errors / 4:
                label = past[-1][0]
            else:
                label = next(numbers)
            for place in boxes:
                mask[place] = label
            drawn[identity] = label
        # Others may have been drawn over it.
        there = set(np.unique(mask).tolist())
        for identity, label in drawn.items():
            past = runs[identity]
            if label in there:
                if past and past[-1][0] == label:
                    past[-1][2] = t
                else:
                    past.append([label, t, t])
    tracks = []
    for past in runs.values():
        for k, (label, begin, end) in enumerate(past):
            parent = past[k - 1][0] if k and rng.random() < 0.7 else 0
            tracks.append([label, begin, end, parent])
    for track in tracks:
        # Children, right or wrong, of tracks that ended in the frame before.
        ready = [other[0] for other in tracks if other[2] == track[1] - 1]
        if not track[3] and ready and rng.random() < 0.5:
            track[3] = ready[int(rng.integers(len(ready)))]
    return masks, [Track(*track) for track in tracks]


def _write(folder, prefix, masks, tracks) -> None:
    for number, mask in enumerate(masks):
        write_picture(folder / f"{prefix}{number:03d}.tif", mask)
    name = "man_track.txt" if prefix == "man_track" else "res_track.txt"
    write_tracks(folder / name, tracks)


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a TIFF as the challenge has them, and the folders it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, picture, photometric="minisblack", compression="lzw")
