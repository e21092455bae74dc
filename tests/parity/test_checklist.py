"""Every name of pycaffe, and what its use comes to, here and in genuine Caffe."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.parity.harness import SCRIPTS, Arrays, Engine

# Names of genuine Caffe's objects that are not here.
IMPORTS = {
    "caffe.io": {"resize", "skimage", "zoom"},
    "caffe.net_spec": {"_param_names", "protobuf", "six"},
    "caffe.coord_map": {"L", "division"},
    "caffe_pb2": {
        *("_descriptor", "_message", "_reflection", "_sym_db", "_symbol_database"),
        "enum_type_wrapper",
    },
}
INNER = {
    "caffe": {"_caffe", "pycaffe"},
    "Net": {"_set_input_arrays"},
    "Transformer": {"_Transformer__check_input"},
    "net": {"_blobs_dict", "_input_list", "_layer_dict", "_params_dict", "_set_input_arrays"},
}
OBJECTS = {
    "Net": {
        *("blob_loss_weights", "blobs", "bottom_names", "inputs", "layer_dict", "layers"),
        *("outputs", "top_names"),
    },
    "Layer": {"blobs"},
    "Solver": {"iter", "net", "param", "test_nets"},
}
OBJECTS = {
    *("caffe", "caffe.io", "caffe.net_spec", "caffe.coord_map", "caffe.draw", "caffe_pb2"),
    *("Net", "Layer", "Classifier", "Detector", "Timer", "NetSpec", "Transformer"),
    *(f"{k}Solver" for k in ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")),
    *("net", "blob", "layer", "parameters", "solver"),
}
PARTS = ("blob", "layer", "making", "module", "net", "solver")


@pytest.fixture(scope="module")
def results(ours: Engine, reference: Engine) -> tuple[Arrays, Arrays]:
    """Return what scripts/checklist.py finds in both engines."""
    return ours.run(SCRIPTS / "checklist.py"), reference.run(SCRIPTS / "checklist.py")


@pytest.mark.parametrize("thing", sorted(OBJECTS))
def test_every_name_of_genuine_pycaffe_is_here(results, thing):
    got, wanted = (set(found[f"names {thing}"].tolist()) for found in results)
    kind = "Net" if thing in ("Classifier", "Detector") else thing
    assert wanted - got == IMPORTS.get(kind, set()) | INNER.get(kind, set())


def test_every_type_of_layer_is_here(results):
    got, wanted = (set(found["types of layers"].tolist()) for found in results)
    assert len(wanted) > 60
    assert wanted <= got


@pytest.mark.parametrize("part", PARTS)
def test_what_scripts_do_comes_to_the_same(results, part):
    got, wanted = (
        {key: value for key, value in found.items() if key.split()[0] == part} for found in results
    )
    assert got.keys() == wanted.keys()
    assert len(wanted) > 4
    for key, value in wanted.items():
        if value.dtype.kind == "U":
            assert json.loads(str(got[key])) == json.loads(str(value)), key
        else:
            assert got[key].shape == value.shape, key
            np.testing.assert_allclose(got[key], value, rtol=1e-4, atol=1e-6, err_msg=key)


def test_every_member_and_result_is_of_genuine_caffes_type(results):
    got, wanted = (
        {key: str(value) for key, value in found.items() if key.startswith("kind ")}
        for found in results
    )
    assert len(wanted) > 150
    # Our layers make use of the blob that genuine Caffe keeps to itself.
    assert (got.pop("kind add_blob"), wanted.pop("kind add_blob")) == ('"Blob"', '"NoneType"')
    # Names that are not here are the business of the test of names.
    assert {key: got.get(key, value) for key, value in wanted.items()} == wanted
