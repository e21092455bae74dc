"""Frames in which not every cell is drawn: which pixels nobody has said anything about."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from unet.errors import InputError

RULES = ("none", "surroundings", "markers")


class IgnoreRule(NamedTuple):
    """Which pixels without a drawn cell are unknown, and ignored.

    Attributes
    ----------
    rule : {"none", "surroundings", "markers"}
        none: nothing; what is no cell is background. surroundings: whatever is more than `reach`
        from every drawn cell. markers: around each marker without a drawn cell, the 4-connected
        region of pixels that are in no drawn cell and within `reach` of the marker.
    reach : float
        Pixels.
    field_of_interest : int
        Pixels this close to the edge of the frame are unknown unless a cell is drawn there: in many
        recordings cells are annotated only if they reach into a field of interest.
    """

    rule: str = "none"
    reach: float = 0.0
    field_of_interest: int = 0


def check_rule(rule: IgnoreRule) -> None:
    """Raise `InputError` if the reach or the field is negative, or a reach of 0 means nothing."""
    if rule.rule not in RULES:
        raise ValueError(f"{rule.rule!r} is no rule for unannotated pixels, those are {RULES}")
    # Markers that fill their cells reach 0 pixels beyond themselves.
    lowest = 1e-6 if rule.rule == "surroundings" else 0
    if not lowest <= rule.reach < np.inf:
        raise InputError(f"reach {rule.reach:g}: give pixels, more than 0")
    if rule.field_of_interest < 0:
        raise InputError(f"field {rule.field_of_interest}: give pixels, 0 or more")


def undrawn_markers(cells: np.ndarray, markers: np.ndarray) -> np.ndarray:
    """Return the numbers of the markers of which no pixel lies in a drawn cell, sorted.

    Both are int, (height, width), 0 is none. The two need not give a cell the same number.
    """
    return np.setdiff1d(markers, np.append(markers[cells > 0], 0))


def largest_reach(cells: np.ndarray, markers: np.ndarray) -> float:
    """Return how far, in pixels, a drawn cell reaches from the nearest pixel of the marker in it.

    Both are int, (height, width), 0 is none; 0 if no cell has a marker.
    """
    largest = 0.0
    for number in np.unique(cells[(markers > 0) & (cells > 0)]):
        inside = cells == number
        distance = ndimage.distance_transform_edt(~(inside & (markers > 0)))
        largest = max(largest, float(distance[inside].max()))
    return largest


def unknown_pixels(
    cells: np.ndarray, rule: IgnoreRule, markers: np.ndarray | None = None
) -> np.ndarray:
    """Tell which pixels of a frame are not annotated: bool (height, width), never in a drawn cell.

    Parameters
    ----------
    cells : ndarray of int, shape (height, width)
        The drawn cells; 0 is none.
    rule : IgnoreRule
    markers : ndarray of int, shape (height, width), optional
        A mark in every cell, drawn or not; 0 is none. The rule "markers" needs them.
    """
    undrawn = cells == 0
    unknown = np.zeros(cells.shape, bool)
    if rule.rule == "surroundings":
        if undrawn.all():
            unknown[:] = True
        else:
            unknown = ndimage.distance_transform_edt(undrawn) > rule.reach
    elif rule.rule == "markers":
        for number in undrawn_markers(cells, markers):
            marker = markers == number
            near = undrawn & (ndimage.distance_transform_edt(~marker) <= rule.reach)
            regions, _ = ndimage.label(near)
            unknown |= np.isin(regions, regions[marker]) & near
    edge = rule.field_of_interest
    if edge:
        outside = np.ones(cells.shape, bool)
        outside[edge:-edge, edge:-edge] = False
        unknown |= outside & undrawn
    return unknown
