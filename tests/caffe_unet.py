"""A net as those behind the Fiji plugin of 2019: its text, made of what is known about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from unet.model.modeldef import ModelDefinition

DATA = """
layer { name: "loaddata" type: "HDF5Data" top: "data" top: "labels" top: "weights"
  hdf5_data_param { source: "train.txt" batch_size: 1 shuffle: true } include { phase: TRAIN } }
layer { name: "deformation" type: "CreateDeformation" bottom: "labels" top: "deformation"
  create_deformation_param { batch_size: 1 ny: 20 nx: 20 ncomponents: 2
    random_elastic_grid_spacing { v: 150 v: 150 } random_elastic_deform_magnitude { v: 10 v: 10 }
    random_rotate_from { v: 0 } random_rotate_to { v: 360 } random_mirror_flag { v: 1 v: 1 }
    random_offset_range_from_pdf: true } include { phase: TRAIN } }
layer { name: "deformed" type: "ApplyDeformation" bottom: "data" bottom: "deformation" top: "d"
  apply_deformation_param { interpolation: "linear" extrapolation: "mirror"
    output_shape_from: "labels" } include { phase: TRAIN } }
layer { name: "augmented" type: "ValueAugmentation" bottom: "d" top: "d"
  value_augmentation_param { black_from: -0.05 black_to: 0.05 white_from: 0.95 white_to: 1.05
    slope_min: 0.8 slope_max: 1.2 } include { phase: TRAIN } }
layer { name: "transformed" type: "ValueTransformation" bottom: "d" top: "d0a"
  value_transformation_param { scale { v: 1 } offset { v: 0 } } include { phase: TRAIN } }
"""


def net_text(width: int = 64, channels: int = 1, classes: int = 2, slope: float = 0.1) -> str:
    """Return the text of a U-Net: valid convolutions, leaky ReLUs, a Concat that crops.

    Without `input`: the program that segments puts it there.
    """
    text = f'name: "cells"\nforce_backward: true\n{DATA}'

    def convolution(bottom: str, top: str, maps: int, kind: str = "Convolution", size: int = 3):
        nonlocal text
        verb = {"Convolution": "conv", "Deconvolution": "upconv"}[kind]
        stride = 2 if kind == "Deconvolution" else 1
        text += (
            f'layer {{ name: "{verb}_{bottom}-{top}" type: "{kind}" bottom: "{bottom}" '
            f'top: "{top}" param {{ lr_mult: 1 decay_mult: 1 }} '
            "param { lr_mult: 2 decay_mult: 0 } convolution_param "
            f"{{ num_output: {maps} pad: 0 kernel_size: {size} stride: {stride} "
            'weight_filler { type: "msra" } } }\n'
        )
        if top != "score":
            text += (
                f'layer {{ name: "relu_{top}" type: "ReLU" bottom: "{top}" top: "{top}" '
                f"relu_param {{ negative_slope: {slope} }} }}\n"
            )

    for level in range(5):
        first = "data" if level == 0 else f"d{level}a"
        convolution(first, f"d{level}b", width << level)
        convolution(f"d{level}b", f"d{level}c", width << level)
        if level < 4:
            text += (
                f'layer {{ name: "pool_d{level}c" type: "Pooling" bottom: "d{level}c" '
                f'top: "d{level + 1}a" pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }} }}\n'
            )
    below = "d4c"
    for level in (3, 2, 1, 0):
        maps = width << level
        convolution(below, f"u{level}a", 2 * maps if level == 0 else maps, "Deconvolution", 2)
        text += (
            f'layer {{ name: "concat_{level}" type: "Concat" bottom: "u{level}a" '
            f'bottom: "d{level}c" top: "u{level}b" }}\n'
        )
        convolution(f"u{level}b", f"u{level}c", maps)
        convolution(f"u{level}c", f"u{level}d", maps)
        below = f"u{level}d"
    convolution(below, "score", classes, size=1)
    return text + (
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "labels" '
        'bottom: "weights" top: "loss" include { phase: TRAIN } }\n'
    )


def _each(name: str, values: Sequence[float]) -> str:
    return " ".join(f"{name}: {value:g}" for value in values)


def border(levels: int) -> int:
    """Return how much smaller an output tile is than the input on each side: padInput, padOutput.

    padInput is 0 for a level of 0, then twice as much and 4 more, padOutput -4, and twice as much
    and 4 less; the sizes at the lowest level are the same for both.
    """
    pad_input, pad_output = 0, -4
    for _ in range(levels):
        pad_input, pad_output = 2 * pad_input + 4, 2 * pad_output - 4
    return (pad_input - pad_output) // 2


def editor_text(
    levels: Sequence[int] = (4, 4),
    width: int = 64,
    shape: Sequence[int] = (540, 540),
    classes: int = 2,
    name: str = "cells",
) -> str:
    """Return the model's text as the plugin's editor writes it: training layers, net, loss.

    `levels` and `shape`, of a training tile, hold one number a spatial axis. An axis of fewer
    levels than another has kernels of 1 in the upper ones.
    """
    axes, depth = len(levels), max(levels)
    of_data = "include: { phase: TRAIN }"
    tile = " ".join(f"n{axis}: {side}" for axis, side in zip("zyx"[3 - axes :], shape))
    steps = [2**level for level in levels]
    text = (
        f"name: '{name}'\n\n"
        "layer { top: 'data' top: 'labels' top: 'weights' top: 'weights2' name: 'loaddata' "
        "type: 'HDF5Data' hdf5_data_param { source: 'input_files.txt' batch_size: 1 shuffle: "
        f"false }} {of_data} }}\n"
        "layer { bottom: 'weights2' top: 'def' name: 'create_deformation' type: "
        f"'CreateDeformation'\n  create_deformation_param {{ batch_size: 1 {tile} "
        f"ncomponents: {axes}\n"
        f"    random_elastic_grid_spacing {{ {_each('v', [150] * axes)} }}\n"
        f"    random_elastic_deform_magnitude {{ {_each('v', [10] * axes)} }}\n"
        "    random_offset_range_from_pdf: true\n"
        f"    random_offset_from {{ {_each('v', [-step // 2 for step in steps])} }}\n"
        f"    random_offset_to {{ {_each('v', [step // 2 for step in steps])} }}\n"
        f"    random_rotate_from {{ {_each('v', [0] * (2 * axes - 3))} }}\n"
        f"    random_rotate_to {{ {_each('v', [360, 0, 0][: 2 * axes - 3])} }}\n"
        f"  }} {of_data} }}\n"
        "layer { bottom: 'data' bottom: 'def' top: 'data2' name: 'def_data-data2' type: "
        "'ApplyDeformation' apply_deformation_param { interpolation: 'linear' extrapolation: "
        f"'mirror' }} {of_data} }}\n"
        "layer { bottom: 'data2' top: 'data3' name: 'augm_data2-data3' type: 'ValueAugmentation' "
        "value_augmentation_param { black_from: -0.05 black_to: 0.05 slope_min: 0.8 slope_max: "
        f"1.2 white_from: 0.95 white_to: 1.05 }} {of_data} }}\n"
        "layer { bottom: 'data3' top: 'd0a' name: 'trafo_data3-d0a' type: 'ValueTransformation' "
        "value_transformation_param { offset { v: -0.5 } } }\n\n"
    )

    def kernels(level: int, size: int) -> list[int]:
        return [1 if depth - own > level else size for own in levels]

    def layer(kind: str, name: str, bottoms: str, top: str, param: str = "") -> None:
        nonlocal text
        below = " ".join(f"bottom: '{bottom}'" for bottom in bottoms.split())
        text += f"layer {{ {below} top: '{top}' name: '{name}' type: '{kind}' {param} }}\n"

    def convolution(bottom: str, top: str, maps: int, sizes: Sequence[int], up: bool = False):
        strides = f" {_each('stride', sizes)}" if up else ""
        layer(
            "Deconvolution" if up else "Convolution",
            f"{'upconv' if up else 'conv'}_{bottom}-{top}",
            *(bottom, top),
            "param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 } "
            f"convolution_param {{ num_output: {maps} pad: 0 {_each('kernel_size', sizes)}"
            f"{strides} weight_filler {{ type: 'msra' }} }}",
        )
        if top != "score":
            layer("ReLU", f"relu_{top}", top, top, "relu_param { negative_slope: 0.1 }")

    for level in range(depth + 1):
        convolution(f"d{level}a", f"d{level}b", width << level, kernels(level, 3))
        convolution(f"d{level}b", f"d{level}c", width << level, kernels(level, 3))
        if level < depth:
            sizes = kernels(level, 2)
            pooling = f"pool: MAX {_each('kernel_size', sizes)} {_each('stride', sizes)}"
            name = f"pool_d{level}c-{level + 1}a"
            layer("Pooling", name, f"d{level}c", f"d{level + 1}a", f"pooling_param {{ {pooling} }}")
    below = f"d{depth}c"
    for level in reversed(range(depth)):
        convolution(below, f"u{level}a", width << level, kernels(level, 2), up=True)
        layer("Concat", f"concat_{level}", f"u{level}a d{level}c", f"u{level}b")
        convolution(f"u{level}b", f"u{level}c", width << level, kernels(level, 3))
        convolution(f"u{level}c", f"u{level}d", width << level, kernels(level, 3))
        below = f"u{level}d"
    convolution(below, "score", classes, [1])
    for what, how in (("label", "nearest"), ("weight", "linear")):
        layer(
            "ApplyDeformation",
            f"def_{what}-crop",
            f"{what}s def",
            f"{what}crop",
            f"apply_deformation_param {{ interpolation: '{how}' extrapolation: 'mirror' "
            f"output_shape_from: 'score' }} {of_data}",
        )
    layer("SoftmaxWithLoss", "loss", "score labelcrop weightcrop", "loss", of_data)
    return text


def test_text(shape: tuple[int, int], **net: float) -> str:
    """Return `net_text` with an input of (height, width) and phase TEST before it."""
    channels = net.get("channels", 1)
    return (
        f'input: "data" input_shape {{ dim: 1 dim: {channels} dim: {shape[0]} dim: {shape[1]} }}\n'
        f"state {{ phase: TEST }}\n{net_text(**net)}"
    )


test_text.__test__ = False


def write_modeldef(path: Path, definition: ModelDefinition) -> None:
    """Write a .modeldef.h5 as the plugin lays it out: texts of their own lengths, in UTF-8."""
    values = {
        "model_prototxt": definition.model_prototxt,
        "solver_prototxt": definition.solver_prototxt,
        ".unet-ident": definition.ident,
        "unet_param/padding": definition.padding,
        "unet_param/name": definition.name,
        "unet_param/description": definition.description,
        "unet_param/input_blob_name": definition.input_blob_name,
        "unet_param/input_dataset_name": definition.input_dataset_name,
    }
    with h5py.File(path, "w") as file:
        # Of the library that the plugin writes HDF5 with.
        file["__DATA_TYPES__/Enum_Boolean"] = h5py.enum_dtype({"FALSE": 0, "TRUE": 1}, "i1")
        for name, value in values.items():
            stored = value.encode()
            file[name] = np.array(stored, h5py.string_dtype("utf-8", len(stored) or 1))
        param = file["unet_param"]
        param["normalization_type"] = np.int32(definition.normalization_type)
        param["element_size_um"] = np.asarray(definition.element_size_um, np.float64)
        param["downsampleFactor"] = np.asarray(definition.downsample_factor, np.int32)
        param["padInput"] = np.asarray(definition.pad_input, np.int32)
        param["padOutput"] = np.asarray(definition.pad_output, np.int32)
        losses = param.create_group("pixelwise_loss_weights")
        for name, value in (
            *(("borderWeightFactor", 50.0), ("borderWeightSigmaPx", 6.0)),
            *(("foregroundBackgroundRatio", 0.1), ("sigma1Px", 10.0)),
        ):
            losses[name] = np.float32(value)
        param["diskRadiusPx"] = np.int32(2)
        if definition.class_names:
            param["classNames"] = np.char.encode(np.array(definition.class_names), "utf-8")
        if definition.memory_map:
            param["mapInputNumPxGPUMemMB"] = np.array(definition.memory_map, np.int32).T
