"""Initial values of parameters, judged by their statistics and by hand."""

import math

import pytest
import torch

from caffe import common
from caffe.errors import CaffeError
from caffe.layers.fillers import fill
from caffe.proto import caffe_pb2

SHAPE = (64, 32, 3, 3)


def param(**fields) -> caffe_pb2.FillerParameter:
    return caffe_pb2.FillerParameter(**fields)


@pytest.fixture(autouse=True)
def seeded():
    common.set_random_seed(3)


@pytest.mark.parametrize(("norm", "n"), [("FAN_IN", 288), ("FAN_OUT", 576), ("AVERAGE", 432)])
def test_msra_draws_from_a_gaussian_of_variance_two_over_n(norm, n):
    norm = caffe_pb2.FillerParameter.VarianceNorm.Value(norm)
    values = fill(SHAPE, param(type="msra", variance_norm=norm))
    expected = math.sqrt(2 / n)
    # The standard error of the deviation of k numbers is expected / sqrt(2 k).
    assert abs(values.std().item() - expected) < 5 * expected / math.sqrt(2 * values.numel())
    assert abs(values.mean().item()) < 5 * expected / math.sqrt(values.numel())


def test_xavier_is_uniform_within_the_root_of_three_over_n():
    values = fill(SHAPE, param(type="xavier"))
    bound = math.sqrt(3 / 288)
    assert values.abs().max().item() <= bound
    assert values.abs().max().item() > 0.99 * bound
    assert abs(values.std().item() - bound / math.sqrt(3)) < 0.01 * bound


def test_constant_uniform_gaussian_and_unit_ball():
    assert fill((2, 2), param(type="constant", value=3)).tolist() == [[3, 3], [3, 3]]
    uniform = fill((1000,), param(type="uniform", min=2, max=4))
    assert uniform.min() >= 2
    assert uniform.max() <= 4
    gaussian = fill((100000,), param(type="gaussian", mean=1, std=2))
    assert abs(gaussian.mean().item() - 1) < 0.05
    assert abs(gaussian.std().item() - 2) < 0.05
    ball = fill((4, 10), param(type="positive_unitball"))
    torch.testing.assert_close(ball.sum(1), torch.ones(4))


def test_bilinear_interpolates_by_two():
    values = fill((1, 1, 4, 4), param(type="bilinear"))
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    torch.testing.assert_close(values[0, 0], line[:, None] * line[None, :])


def test_one_seed_gives_one_set_of_values():
    common.set_random_seed(8)
    first = fill(SHAPE, param(type="msra"))
    common.set_random_seed(8)
    assert torch.equal(first, fill(SHAPE, param(type="msra")))


def test_an_unknown_filler_is_refused_with_the_known_ones():
    with pytest.raises(CaffeError, match=r"unknown filler 'he'.*msra"):
        fill((1,), param(type="he"))
