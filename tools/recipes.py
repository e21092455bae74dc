"""The experiments: what is learnt from which data, how, and what judges it.

Each is data, a `Recipe`; tools/run_recipe.py runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Split:
    """What a network learns from, and what it is judged by.

    Attributes
    ----------
    train, test : str
        A:B, slices of the stack or numbers of frames; "" is all of them.
    judged : str
        What is segmented: a stack or a sequence of the data.
    learnt, told : str
        Both, in the words of the card.
    solver : str
        Checked in as prototxt/NET/solver_NAME[_adam].prototxt; "": it is written for the data.
    """

    train: str
    test: str
    judged: str
    learnt: str = ""
    told: str = ""
    solver: str = ""


@dataclass(frozen=True)
class Recipe:
    """An experiment. Options are those of the programs, as one types them.

    Attributes
    ----------
    data, folder : str
        What `unet fetch` gets, and where that lies.
    learn : str
        What a network learns from: a stack, TRAIN-volume.tif beside TRAIN-labels.tif, or a sequence
        of the cell tracking challenge, NN beside NN_GT.
    splits : dict of str to Split
    prepare, nets, segment, track, score : str
        Options of the programs.
    training_set : str
        Where it is written; "" is in the folder of the run.
    iterations : int
        Of the slim net where there is no GPU.
    weights : str
        A trained network, where none is trained.
    make : str
        The target of the Makefile, of which a card tells.
    title, about, use, cite : str
        Of the card.
    scores : tuple of str
        Those on the card.
    digits : int
        Behind the point, of each of them.
    """

    data: str
    folder: str
    learn: str = "train-volume.tif"
    splits: dict[str, Split] | None = None
    prepare: str = ""
    nets: str = ""
    segment: str = ""
    track: str = ""
    score: str = ""
    training_set: str = ""
    iterations: int = 0
    weights: str = ""
    make: str = ""
    title: str = ""
    about: str = ""
    use: str = ""
    cite: str = ""
    scores: tuple[str, ...] = ()
    digits: int = 6


_NOT_SEEN = ", not seen in training, mean of 8 rotations and mirrorings"
_CHALLENGE = """\
Data: Cell Tracking Challenge, whose terms apply; Maska et al., Bioinformatics 30 (2014),
Ulman et al., Nature Methods 14 (2017). The network: Ronneberger et al., MICCAI 2015."""
_USE_OF_CELLS = """\
    python tools/segment.py FRAMES --weights weights.caffemodel --instances cells.tif
    python tools/track.py cells.tif -o RES"""


def _cells(until: int) -> dict[str, Split]:
    """Return how sequence 02 is learnt from, up to a frame or wholly."""
    return {
        "holdout": Split(
            f"0:{until}",
            f"{until}:",
            "02",
            f"the annotated frames before {until:03d} of sequence 02",
            f"the annotated frames from {until:03d} on (SEG) and all of sequence 02 (DET, TRA)",
        ),
        "all": Split("", "", "01", "all annotated frames of sequence 02", "sequence 01"),
    }


RECIPES = {
    "demo": Recipe(data="isbi2012", folder="data/isbi2012"),
    "segment-demo": Recipe(
        data="isbi2012",
        folder="data/isbi2012",
        splits={"holdout": Split("", "27:30", "train-volume.tif")},
        segment="--tta dihedral",
        score="--no-warping",
        weights="models/isbi2012_slim",
    ),
    # Ends within half an hour on two cores.
    "isbi2012": Recipe(
        data="isbi2012",
        folder="data/isbi2012",
        splits={
            "holdout": Split(
                "0:20",
                "20:30",
                "train-volume.tif",
                "slices 1 to 20 of the training stack",
                f"slices 21 to 30 of the training stack{_NOT_SEEN}",
                solver="holdout",
            ),
            "all": Split(
                "",
                "",
                "test-volume.tif",
                "all 30 slices of the stack",
                f"the test stack{_NOT_SEEN}",
                solver="isbi",
            ),
        },
        prepare="--normalise",
        segment="--tta dihedral",
        training_set="data/isbi2012/isbi2012.h5",
        iterations=5000,
        make="train-isbi",
        title="ISBI 2012",
        about="""\
Tells the inside of cells (class 1) from membranes (class 0) in serial-section electron
micrographs of 4 x 4 x 50 nm (fly larva, ventral nerve cord).""",
        use="    python tools/segment.py STACK --weights weights.caffemodel -o probabilities.tif",
        cite="""\
Data: free for research; Arganda-Carreras et al., Frontiers in Neuroanatomy 9, 2015,
and Cardona et al., PLoS Biology 8, 2010. The network: Ronneberger et al., MICCAI 2015.""",
        scores=("rand_error", "pixel_error", "warping_error", "v_rand_thin", "v_info_thin"),
    ),
    # Ends within an hour on two cores.
    "phc-u373": Recipe(
        data="phc-u373",
        folder="data/PhC-C2DH-U373",
        learn="02",
        splits=_cells(61),
        prepare="--normalise --field-of-interest 50 --unannotated markers",
        segment="--tta mirror --threshold 0.6 --minimum-area 500 --fill-holes",
        track="--field-of-interest 50",
        iterations=3000,
        make="train-phc",
        title="PhC-C2DH-U373",
        about="Finds glioblastoma-astrocytoma cells (U373) in phase contrast, 0.65 um a pixel.",
        use=_USE_OF_CELLS,
        cite=_CHALLENGE,
        scores=("SEG", "DET", "TRA"),
        digits=4,
    ),
    "dic-hela": Recipe(
        data="dic-hela",
        folder="data/DIC-C2DH-HeLa",
        learn="02",
        splits=_cells(42),
        prepare="--normalise --unannotated markers",
        segment="--tta mirror --minimum-area 500 --fill-holes",
        iterations=6000,
        make="train-dic",
        title="DIC-C2DH-HeLa",
        about="Finds HeLa cells in differential interference contrast, 0.19 um a pixel.",
        use=_USE_OF_CELLS,
        cite=_CHALLENGE,
        scores=("SEG", "DET", "TRA"),
        digits=4,
    ),
    "separation": Recipe(
        data="phantom-cells",
        folder="data/phantom-cells",
        splits={"holdout": Split("0:20", "20:30", "train-volume.tif")},
        prepare="--label-kind instances --balance-slices 0:20",
        nets="--tile 316",
        segment="--tta mirror",
        iterations=2200,
    ),
    # The network of Ciresan et al. (2012) beside unet_slim; ends within half an hour on two cores.
    "compare": Recipe(
        data="isbi2012",
        folder="data/isbi2012",
        splits={"holdout": Split("0:20", "20:30", "train-volume.tif")},
        prepare="--normalise --w0 0 --no-class-balance",
        segment="--tta none",
        score="--no-warping",
        weights="models/isbi2012_slim",
    ),
    "published": Recipe(
        data="release-2015",
        folder="data/u-net-release",
        segment="--procedure 2015",
        track="--procedure 2015",
        weights="models/phc-u373_slim",
    ),
}
# Of the demo: seconds for the whole way, and for what comes before the training.
DEMO_SECONDS, FETCH_SECONDS = 300, 30
# Of `compare`: its windows, minutes of the U-Net's and of the largest window's training, and the
# slice that is drawn and timed.
WINDOWS, COMPARE_MINUTES, SHOWN_SLICE = (23, 47, 95), 8, 25
# w0 of the two trainings of `separation`: the paper's, and none.
SEPARATION_W0 = (10, 0)
