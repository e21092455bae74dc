"""Model definitions of the Fiji plugin: read, and what is none is told."""

from __future__ import annotations

import dataclasses

import h5py
import numpy as np
import pytest

from tests import caffe_unet
from tests.caffe_unet import write_modeldef
from unet.errors import InputError
from unet.model.modeldef import ModelDefinition, check_segments, read_modeldef

CELLS = ModelDefinition(
    model_prototxt=caffe_unet.net_text(width=2),
    solver_prototxt="base_lr: 0.0001\n",
    name="cells",
    description="cells of µm size",
    padding="mirror",
    normalization_type=1,
    element_size_um=(0.5, 0.25),
    downsample_factor=(16, 16),
    pad_input=(60, 60),
    pad_output=(-124, -124),
    ident="f0e1",
    class_names=("Background", "Zelle\u00e4"),
    memory_map=((100000, 900), (400000, 2000)),
)


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "cells.modeldef.h5"
    write_modeldef(path, CELLS)
    assert read_modeldef(path) == CELLS


def test_the_file_is_laid_out_as_the_plugins(tmp_path):
    write_modeldef(tmp_path / "cells.modeldef.h5", CELLS)
    with h5py.File(tmp_path / "cells.modeldef.h5", "r") as file:
        assert {".unet-ident", "model_prototxt", "solver_prototxt", "unet_param"} < set(file)
        assert set(file["unet_param"]) == {
            "name", "description", "input_blob_name", "input_dataset_name", "padding",
            "normalization_type", "element_size_um", "downsampleFactor", "padInput", "padOutput",
            "pixelwise_loss_weights", "diskRadiusPx", "classNames", "mapInputNumPxGPUMemMB",
        }  # fmt: skip
        assert file["unet_param/element_size_um"].dtype == np.float64
        for name in ("normalization_type", "downsampleFactor", "padInput", "padOutput"):
            assert file[f"unet_param/{name}"].dtype == np.int32


@pytest.mark.parametrize("text", [np.bytes_, lambda value: [value.encode()]])
def test_numbers_for_all_axes_and_other_ways_to_store_text(tmp_path, text):
    path = tmp_path / "cells.modeldef.h5"
    with h5py.File(path, "w") as file:
        file["model_prototxt"] = text("layer { }")
        file["unet_param/name"] = text("cells")
        file["unet_param/element_size_um"] = [1.0, 0.5, 0.5]
        file["unet_param/downsampleFactor"] = np.int32(8)
        file["unet_param/padInput"] = np.array([4, 60, 60], np.int32)
    found = read_modeldef(path)
    assert (found.model_prototxt, found.name) == ("layer { }", "cells")
    assert found.downsample_factor == (8, 8, 8)
    assert found.pad_input == (4, 60, 60)
    # What the plugin takes where nothing is said.
    assert (found.input_dataset_name, found.padding) == ("data", "mirror")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("model_prototxt", None, "is no model definition"),
        ("model_prototxt", 3, "/model_prototxt is no text"),
        ("unet_param/padding", "wrap", "'wrap', not mirror or zero"),
        ("unet_param/element_size_um", np.ones(1000), "not 1 to 3 numbers"),
        ("unet_param/element_size_um", np.nan, "is not finite"),
        ("unet_param/padInput", np.array([1, 2, 3]), "3 of 2 axes"),
        ("unet_param/normalization_type", "one", "not 1 to 3 numbers"),
        ("unet_param/normalization_type", 4, "is 4, not 0, 1, 2 or 3"),
        ("unet_param/input_blob_name", "a b", "'a b', no name of a blob"),
        ("unet_param/element_size_um", [0.5, 0.0], r"not the height and width"),
        ("unet_param/padOutput", [-124, -123], "do not differ by twice a border"),
        ("unet_param/mapInputNumPxGPUMemMB", [1, 2], "not one row of pixels"),
    ],
)
def test_what_is_no_definition_is_told(tmp_path, name, value, told):
    path = tmp_path / "cells.modeldef.h5"
    write_modeldef(path, CELLS)
    with h5py.File(path, "a") as file:
        del file[name]
        if value is not None:
            file[name] = value
    with pytest.raises(InputError, match=rf"cells.modeldef.h5: .*{told}"):
        read_modeldef(path)


def test_damaged_and_missing_files_are_told(tmp_path):
    with pytest.raises(InputError, match=r"no such model definition"):
        read_modeldef(tmp_path / "absent.modeldef.h5")
    (tmp_path / "text.modeldef.h5").write_text("layer { }")
    with pytest.raises(InputError, match=r"text.modeldef.h5: cannot be read"):
        read_modeldef(tmp_path / "text.modeldef.h5")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (dict(element_size_um=(1.0, 1.0, 1.0)), "3 dimensions"),
        (dict(input_blob_name="picture"), "input 'picture'"),
        (dict(padding="zero"), "zeros beyond"),
    ],
)
def test_networks_that_the_tiles_do_not_suit_are_refused(change, told):
    check_segments(CELLS, "cells")
    with pytest.raises(InputError, match=f"^cells: .*{told}"):
        check_segments(dataclasses.replace(CELLS, **change), "cells")


def test_old_h5py_reads_the_same(tmp_path, reference):
    """Genuine Caffe's Python has h5py 2.10, as the programs of that time had."""
    script = """
import sys, numpy as np
from unet.model.modeldef import read_modeldef
definition = read_modeldef(str(np.load(sys.argv[1])["path"]))
np.savez(sys.argv[2], definition=repr(definition))
"""
    write_modeldef(tmp_path / "cells.modeldef.h5", CELLS)
    said = reference.run(script, dict(path=str(tmp_path / "cells.modeldef.h5")))["definition"]
    assert str(said) == repr(CELLS)
