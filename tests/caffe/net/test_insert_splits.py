"""Filtering by state and inserting splits."""

import pytest
from google.protobuf import text_format

from caffe.errors import CaffeError
from caffe.net.filter import filter_net
from caffe.net.insert_splits import insert_splits
from caffe.proto import caffe_pb2


def net(text: str) -> caffe_pb2.NetParameter:
    return text_format.Parse(text, caffe_pb2.NetParameter())


STATEFUL = """
state { phase: TRAIN level: 2 stage: "a" }
layer { name: "always" type: "Input" }
layer { name: "train" type: "Input" include { phase: TRAIN } }
layer { name: "test" type: "Input" include { phase: TEST } }
layer { name: "not_train" type: "Input" exclude { phase: TRAIN } }
layer { name: "high" type: "Input" include { min_level: 3 } }
layer { name: "low" type: "Input" include { max_level: 2 } }
layer { name: "stage_a" type: "Input" include { stage: "a" } }
layer { name: "stages_ab" type: "Input" include { stage: "a" stage: "b" } }
layer { name: "not_a" type: "Input" include { not_stage: "a" } }
layer { name: "either" type: "Input" include { phase: TEST } include { stage: "a" } }
"""


def test_layers_stay_where_one_include_rule_or_no_exclude_rule_holds():
    kept = [layer.name for layer in filter_net(net(STATEFUL)).layer]
    assert kept == ["always", "train", "low", "stage_a", "either"]


def test_include_and_exclude_together_are_refused():
    both = 'layer { name: "x" type: "Input" include { phase: TRAIN } exclude { stage: "a" } }'
    with pytest.raises(CaffeError, match=r"layer 'x'.*not both"):
        filter_net(net(both))


def test_a_blob_with_two_readers_goes_through_a_split_named_as_in_caffe():
    split = insert_splits(
        net("""
        layer { name: "in" type: "Input" top: "x" }
        layer { name: "r" type: "ReLU" bottom: "x" top: "x" }
        layer { name: "a" type: "Power" bottom: "x" top: "a" }
        layer { name: "b" type: "Power" bottom: "x" top: "b" }
        """)
    )
    assert [layer.name for layer in split.layer] == ["in", "r", "x_r_0_split", "a", "b"]
    assert list(split.layer[2].top) == ["x_r_0_split_0", "x_r_0_split_1"]
    assert list(split.layer[3].bottom) == ["x_r_0_split_0"]
    assert list(split.layer[4].bottom) == ["x_r_0_split_1"]
    assert list(split.layer[1].bottom) == ["x"]


def test_a_loss_weight_counts_as_a_reader_and_moves_to_the_first_branch():
    split = insert_splits(
        net("""
        layer { name: "in" type: "Input" top: "x" }
        layer { name: "l" type: "Reduction" bottom: "x" top: "l" loss_weight: 0.5 }
        layer { name: "a" type: "Power" bottom: "l" top: "a" }
        """)
    )
    made = split.layer[2]
    assert made.name == "l_l_0_split"
    assert list(made.loss_weight) == [0.5, 0.0]
    assert not split.layer[1].loss_weight
    assert list(split.layer[3].bottom) == ["l_l_0_split_1"]


def test_a_blob_that_no_layer_makes_is_named():
    with pytest.raises(CaffeError, match=r"layer 'a' .Power. reads blob 'y'.*made so far: x"):
        insert_splits(
            net("""
            layer { name: "in" type: "Input" top: "x" }
            layer { name: "a" type: "Power" bottom: "y" top: "a" }
            """)
        )
