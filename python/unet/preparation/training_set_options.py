"""How a training set is made: its options, checked before anything is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unet.errors import InputError
from unet.preparation.labels import IGNORED

#: What may be said of pixels without a label: of stacks and their labels, of sequences.
OF_STACKS = ("auto", "none", "slices", "boxes", "surroundings")
OF_SEQUENCES = ("auto", "none", "surroundings", "markers")
UNANNOTATED = (*OF_STACKS, "markers")


@dataclass(frozen=True)
class TrainingSetOptions:
    """How labels become weights, and intensities input.

    Attributes
    ----------
    label_kind : {"auto", "binary", "membranes", "classes", "instances"}
        binary: 0 and anything else, which is inside cells; membranes: anything else is membrane;
        classes: 0, 1, 2, ...; instances: a number for each cell, which get borders where they
        touch; auto: by the number of values, and binary ones by whether these are a thin connected
        network.
    ignore_label : int, optional
        The label that means "not annotated".
    label_threshold : float, optional
        Labels above it are cells, the others are not: of masks that were scaled, of probabilities.
    classes : sequence of int, optional
        The labels that are classes 0, 1, 2, ..., background first; no others may occur.
    level, channel, time, scene : int, optional
        Which part of the pictures is taken, as of `unet.open_volume` (scene also by its name); and
        of labels whose file holds several levels, time points or scenes as well.
    by_order : bool
        Whether the files of two folders are paired in the order of their names, whatever their
        numbers.
    w0, sigma : float
        Weight of the gaps between cells, and its reach in pixels (Eq. 2 of the paper).
    balance : bool
        Whether the classes are balanced; else all weigh 1.
    normalise : bool
        Whether each slice is brought to the same mean and standard deviation when it is read.
    slices : range or slice, optional
        The slices to take; by default all.
    balance_slices : range or slice, optional
        The slices whose class frequencies are balanced, so that held-out slices can be kept out; by
        default those taken.
    frames, balance_frames : range, optional
        The same for the frames of a sequence, of which the annotated ones are taken.
    annotations : {"gt", "st"}
        Of a sequence: cells from NN_GT/SEG, drawn by people, or NN_ST/SEG.
    unannotated : {"auto", "none", "slices", "boxes", "surroundings", "markers"}
        What has no label is background (none), or was not annotated: slices without any label, or
        what is beyond the box of a slice's labels, too (slices, boxes; auto: as they lie, see
        `unet.preparation.annotated_part.annotated_part`); what is farther than `reach` from every
        cell; of a sequence what is within it of markers without a cell
        (`unet.preparation.partial_annotation.IgnoreRule`; auto is none).
    reach : float, optional
        In pixels; by default, for markers, as far as a drawn cell reaches from its own.
    field_of_interest : int
        Of a sequence: where no cell is drawn in so many pixels at the edges is unknown.
    """

    label_kind: str = "auto"
    ignore_label: int | None = None
    label_threshold: float | None = None
    classes: Sequence[int] | None = None
    level: int | None = None
    channel: int | None = None
    time: int | None = None
    scene: int | str | None = None
    by_order: bool = False
    w0: float = 10.0
    sigma: float = 5.0
    balance: bool = True
    normalise: bool = False
    slices: range | slice | None = None
    balance_slices: range | slice | None = None
    frames: range | None = None
    balance_frames: range | None = None
    annotations: str = "gt"
    unannotated: str = "auto"
    reach: float | None = None
    field_of_interest: int = 0

    @property
    def part(self) -> dict[str, int | str]:
        """Return those of level, channel, time and scene that are given."""
        names = ("level", "channel", "time", "scene")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def check_for_stack(self) -> None:
        """Raise `InputError` if there are options of a sequence."""
        for name in ("frames", "balance_frames"):
            if getattr(self, name) is not None:
                raise InputError(f"--{name.replace('_', '-')} is for sequences, DATASET/NN")
        if self.annotations != "gt" or self.field_of_interest:
            raise InputError("--annotations and --field-of-interest are for sequences, DATASET/NN")
        self._check_unannotated(OF_STACKS, "sequences, DATASET/NN")
        self._check_labels()

    def _check_unannotated(self, rules: Sequence[str], others: str) -> None:
        if self.unannotated not in rules:
            whose = f" is for {others}" if self.unannotated in UNANNOTATED else ""
            raise InputError(
                f"--unannotated {self.unannotated}{whose}: give one of {', '.join(rules)}"
            )
        if self.reach is not None and self.unannotated not in ("surroundings", "markers"):
            raise InputError("--reach belongs to --unannotated surroundings or markers")
        if self.reach is None and self.unannotated == "surroundings":
            raise InputError("--unannotated surroundings needs --reach PIXELS")
        if self.reach is not None and not self.reach > 0:
            raise InputError(f"--reach {self.reach:g}: give pixels, more than 0")

    def _check_labels(self) -> None:
        ways = {
            "--label-threshold": (
                self.label_threshold is not None,
                ("auto", "binary", "membranes"),
            ),
            "--classes": (self.classes is not None, ("auto", "classes")),
        }
        given = [name for name, (is_given, _) in ways.items() if is_given]
        if len(given) > 1:
            raise InputError("--label-threshold and --classes: give one of them")
        if given and self.label_kind not in ways[given[0]][1]:
            raise InputError(
                f"{given[0]} says that labels are {ways[given[0]][1][1]}, not {self.label_kind}"
            )
        if self.classes is not None:
            if not 2 <= len(self.classes) <= IGNORED:
                raise InputError(f"--classes: name 2 to {IGNORED} labels")
            if len({*self.classes, self.ignore_label}) != len(self.classes) + 1:
                raise InputError(
                    "--classes: name each label once, and the one of --ignore-label not at all"
                )

    def check_for_sequence(self) -> None:
        """Raise `InputError` if there are options of a stack, or those of a sequence do not fit."""
        for name in self.part:
            raise InputError(f"--{name} is for stacks: the files of a sequence hold one frame each")
        for name, given, remedy in (
            ("--label-kind", self.label_kind not in ("auto", "instances"), "they are instances"),
            ("--ignore-label", self.ignore_label is not None, "see --unannotated"),
            ("--label-threshold", self.label_threshold is not None, "they are instances"),
            ("--classes", self.classes is not None, "they are instances"),
            ("--by-order", self.by_order, "frames go by their numbers"),
            ("--slices", self.slices is not None, "use --frames"),
            ("--balance-slices", self.balance_slices is not None, "use --balance-frames"),
        ):
            if given:
                raise InputError(f"{name} is not for the labels of a sequence: {remedy}")
        self._check_unannotated(OF_SEQUENCES, "stacks")
