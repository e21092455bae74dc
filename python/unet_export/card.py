"""What a model package says of itself: who, what, whom to cite, and how it is used."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from unet.files.version import VERSION
from unet_export.source import Source
from unet_export.whole import halo, smallest_block

AUTHOR = "the U-Net in Caffe contributors"
_ISBI = (
    {
        "text": "Arganda-Carreras et al., Crowdsourcing the creation of image segmentation "
        "algorithms for connectomics, Frontiers in Neuroanatomy 9, 2015 (data)",
        "doi": "10.3389/fnana.2015.00142",
    },
    {
        "text": "Cardona et al., An integrated micro- and macroarchitectural analysis of the "
        "Drosophila brain by computer-assisted serial section electron microscopy, PLoS Biology "
        "8(10), 2010 (data)",
        "doi": "10.1371/journal.pbio.1000502",
    },
)
_CELLS = (
    {
        "text": "Ulman et al., An objective comparison of cell-tracking algorithms, Nature "
        "Methods 14, 2017 (data)",
        "doi": "10.1038/nmeth.4473",
    },
)
# Of networks that come with the project: what they tell apart, and whose pictures they have seen.
_KNOWN = {
    "isbi2012": ("the inside of cells from membranes in electron micrographs", _ISBI),
    "isbi2012_slim": ("the inside of cells from membranes in electron micrographs", _ISBI),
    "phc-u373_slim": ("glioblastoma cells from their surroundings in phase contrast", _CELLS),
}
_METHOD = {
    "text": "Ronneberger, Fischer, Brox, U-Net: Convolutional Networks for Biomedical Image "
    "Segmentation, MICCAI 2015",
    "doi": "10.1007/978-3-319-24574-4_28",
}
_PLUGIN = {
    "text": "Falk et al., U-Net: deep learning for cell counting, detection, and morphometry, "
    "Nature Methods 16, 2019",
    "doi": "10.1038/s41592-018-0261-2",
}


def summary(source: Source) -> str:
    """Return what a network does, in a sentence."""
    classes = source.net.blobs[source.score].shape[1]
    known = _KNOWN.get(source.name)
    return f"U-Net (Ronneberger et al. 2015) that tells {known[0] if known else _kinds(classes)}"


def _kinds(classes: int) -> str:
    return f"{classes} classes of pixels apart"


def citations(source: Source) -> list[dict[str, str]]:
    """Return what is to be cited: the method, and the data of networks that come with it."""
    plugin = [_PLUGIN] if source.definition is not None else []
    return [_METHOD, *plugin, *_KNOWN.get(source.name, ("", ()))[1]]


def plain_name(source: Source) -> str:
    """Return a network's name with the characters that a model's may have."""
    return re.sub(r"[^\w\- ()]", "_", f"U-Net {source.name}", flags=re.ASCII)[:128]


def card_text(source: Source, formats: Sequence[str], said: Mapping[str, str]) -> str:
    """Return the documentation of a package: Markdown."""
    axes = list(zip("zyx"[3 - len(source.axes) :], source.axes))
    factors = [axis.downsample_factor for _, axis in axes]
    sizes = "\n".join(
        f"- {name}: {axis.downsample_factor} n + {axis.pad_input} pixels give "
        f"{2 * (axis.border - axis.margin)} fewer scores, of which {axis.margin} at each edge are "
        f"of no use"
        for name, axis in axes
    )
    blocks = "; ".join(
        f"{name} {axis.downsample_factor} n from {smallest_block(axis)} on, halo {halo(axis)}"
        for name, axis in axes
    )
    more = [(halo(axis), axis.downsample_factor) for _, axis in axes]
    values = {
        "title": plain_name(source),
        "summary": summary(source),
        "version": VERSION,
        "formats": " and ".join(formats),
        "said": "\n".join(f"- {key}: {value}" for key, value in said.items()),
        "sizes": sizes,
        "blocks": blocks,
        "factors": " and ".join(str(factor) for factor in dict.fromkeys(factors)),
        "edges": repr(tuple(more)),
        "axes": ", ".join(name for name, _ in axes),
    }
    return _CARD.format(**values)


_CARD = """# {title}

{summary}. Exported from Caffe by unet-in-caffe {version}; weights for {formats}.

{said}

## Sizes

What the network itself takes and gives:

{sizes}

In this package it lies between two steps, so that tools can tile it: it is given the part of a
block that fits its poolings, and its scores are put where their pixels lie, zeros around them. So
the scores are as large as the block, and what is of no use is the halo that every tool cuts off.
Blocks: {blocks}.
`pad` says how pictures go on beyond their edges; the paper mirrors them (Fig. 2).

## The same scores in every tiling

Poolings make scores depend on where a block begins, modulo {factors}. Pictures whose sides are
multiples of {factors} are tiled by bioimageio.core at multiples, and get the scores of a single
pass over the whole picture. Others are continued by mirroring until they are, once their grey
values are scaled:

```python
import numpy as np
import bioimageio.core as core
from bioimageio.core.digest_spec import create_sample_for_model

EDGES = {edges}  # halo, and what sizes are multiples of

def predict(pipeline, picture, ns=10):
    "Return probabilities of a picture of any size, (batch, channel, {axes})."
    sides = [(0, 0), (0, 0)]
    for size, (halo, factor) in zip(picture.shape[2:], EDGES):
        block = 2 * halo + factor * (1 + ns)
        sides.append((0, max(block, -(size + halo) // factor * -factor) - size))
    whole = core.Tensor(picture.astype("float32"), dims=("batch", "channel", *"{axes}".split(", ")))
    sample = core.Sample(members={{"image": whole}}, stat={{}}, id=None)
    pipeline.apply_preprocessing(sample)
    seen = np.pad(np.asarray(sample.members["image"].data), sides, mode="reflect")
    sample = create_sample_for_model(pipeline.model_descr, inputs={{"image": seen}})
    found = pipeline.predict_sample_with_blocking(sample, skip_preprocessing=True, ns=ns)
    return np.asarray(found.members["probabilities"].data)[(..., *map(slice, picture.shape[2:]))]
```

## Validation

`bioimageio test` runs each weights format on the test picture and compares with the probabilities
of the original network in Caffe. How well a network segments is measured on pictures that it has
not seen: `unet score` of the project does so. It has learnt from one kind of picture; what it makes
of others needs to be looked at before it is trusted.
"""
