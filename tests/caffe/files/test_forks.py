"""The table of other Caffes' layers and fields."""

from __future__ import annotations

import pytest

from caffe.files import forks
from caffe.layers import LAYERS
from caffe.proto import caffe_pb2
from caffe.solvers.update_rules import POLICIES

MESSAGES = caffe_pb2.DESCRIPTOR.message_types_by_name


@pytest.mark.parametrize("fork", forks.FORKS, ids=lambda fork: fork.name)
def test_nothing_in_the_table_is_of_bvlc_caffe(fork):
    assert fork.types or fork.fields
    assert not set(fork.types.split()) & set(LAYERS)
    assert not set(fork.policies.split()) & set(POLICIES)
    for message, names in fork.fields.items():
        assert names
        assert not set(names.split()) & set(MESSAGES[message].fields_by_name), message


def test_the_layers_that_stand_for_others_are_there():
    for remedy in forks._INSTEAD_OF_TYPE.values():
        assert any(f" {kind} layer" in f" {remedy}" or f'"{kind}"' in remedy for kind in LAYERS)


def test_what_is_in_several_forks_names_them():
    assert forks.about_type("BN").startswith(
        "belongs to SegNet and ENet (alexgkendall/caffe-segnet"
    )
    assert "and PSPNet and ICNet (hszhao/PSPNet), not to BVLC Caffe: a BatchNorm layer" in (
        forks.about_type("BN")
    )
    # Where the type tells which fork it is, the others with such a field are left out.
    told = forks.about_field("LayerParameter", "roi_pooling_param", "ROIPooling")
    assert (
        told.startswith("belongs to Faster R-CNN (") and ", as does the layer's type, not" in told
    )
    assert forks.about_field("V1LayerParameter", "bn_param", "").startswith("belongs to SegNet")


def test_what_nobody_has_is_not_told():
    assert forks.about_type("Nonsense") == ""
    assert forks.about_field("LayerParameter", "nonsense_param", "BN") == ""
    assert forks.about_policy("nonsense") == ""
