"""What a training set was made of, and as text what `unet prepare` prints."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from unet.errors import few
from unet.files.names import PathLike


class Summary(NamedTuple):
    """What a training set was made of; as text, what the program prints.

    Attributes
    ----------
    output : str
        The file.
    size : int
        Its bytes.
    shape : tuple of int
        (slices, height, width).
    intensity_range : tuple of float, optional
        The grey values that become 0 and 1; None: each slice is normalised.
    w0, sigma : float
    kind : str
        Kind of the labels: binary, classes or instances.
    understood : str
        Which labels mean what.
    counts : ndarray of int64, shape (K,)
        Annotated pixels of each class, over all slices written.
    weights : ndarray of float64, shape (K,)
        wc of each class.
    ignored : int
        Pixels not annotated.
    cells : int
        Cells, counted in every slice by itself.
    vanished : int
        Cells so thin that the borders between touching cells took all of their pixels in a slice.
    empty : tuple of int
        Slices of which every annotated pixel is background.
    largest : float
        Largest weight.
    remarks : tuple of str
        What is unusual enough to be looked at, a sentence each.
    preview : path, optional
        The picture of the middle slice.
    sequence : tuple of str
        What was taken of a sequence, a line each.
    is_tissue : bool
        Whether the background is a thin connected network, as membranes between cells that fill
        the picture.
    """

    output: str
    size: int
    shape: tuple[int, int, int]
    intensity_range: tuple[float, float] | None
    w0: float
    sigma: float
    kind: str
    understood: str
    counts: np.ndarray
    weights: np.ndarray
    ignored: int
    cells: int
    vanished: int
    empty: tuple[int, ...]
    largest: float
    remarks: tuple[str, ...]
    preview: PathLike | None = None
    sequence: tuple[str, ...] = ()
    is_tissue: bool = False

    def __str__(self) -> str:
        slices, height, width = self.shape
        annotated = int(self.counts.sum())
        intensity = "each slice's mean becomes 1/2, its standard deviation 1/6"
        if self.intensity_range is not None:
            low, high = self.intensity_range
            intensity = f"{low:g} becomes 0, {high:g} becomes 1"
        lines = [
            f"grey values  {intensity}",
            f"labels       {self.kind}, {self.cells:,} cells in all slices: {self.understood}",
        ]
        if self.empty:
            lines.append(f"no cell      in slices {few(self.empty)}")
        lines += [
            f"class {number}      {count / annotated:7.2%} of the pixels, weight {weight:.4f}"
            for number, (count, weight) in enumerate(zip(self.counts, self.weights))
        ]
        if self.ignored:
            share = self.ignored / (annotated + self.ignored)
            lines.append(f"ignored      {share:.2%} of the pixels")
        if self.vanished:
            lines.append(
                f"borders      {self.vanished:,} cells are so thin that they became all border"
            )
        lines.append(f"weights      w0 {self.w0:g}, sigma {self.sigma:g}: up to {self.largest:.3f}")
        lines += [f"look at this: {remark}" for remark in self.remarks]
        if self.preview is not None:
            lines.append(f"preview      {self.preview}")
        lines += self.sequence
        head = f"{self.output}: {slices} slices of {height} x {width}, {self.size:,} bytes"
        return "\n  ".join([head, *lines])
