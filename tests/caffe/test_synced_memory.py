"""SyncedMemory: values made only when somebody looks, live arrays, views in other shapes."""

import pytest
import torch

from caffe.errors import CaffeError
from caffe.synced_memory import ReshapedView, SyncedMemory


def test_a_held_array_survives_a_layer_that_gives_the_tensor_other_memory():
    memory = SyncedMemory((2,))
    held = memory.numpy()
    memory.set(torch.tensor([1.0, 2.0]))
    memory.tensor().set_(torch.tensor([8.0, 9.0]))
    assert held.tolist() == [1, 2]
    assert memory.numpy().tolist() == [8, 9]


def test_deferred_values_are_made_once_and_only_when_looked_at():
    made = []

    def make():
        made.append(1)
        return torch.tensor([3.0])

    memory = SyncedMemory((1,))
    memory.set_lazy(make)
    assert made == []
    assert memory.numpy().tolist() == [3]
    assert memory.numpy().tolist() == [3]
    assert made == [1]


def test_clearing_reaches_an_array_that_somebody_holds():
    memory = SyncedMemory((2,))
    array = memory.numpy()
    array[:] = 6
    memory.clear()
    assert array.tolist() == [0, 0]


def test_accumulate_after_clear_starts_from_zero():
    memory = SyncedMemory((2,))
    memory.set(torch.tensor([5.0, 5.0]))
    memory.clear()
    memory.accumulate(torch.tensor([1.0, 2.0]))
    memory.accumulate(torch.tensor([1.0, 2.0]))
    assert memory.numpy().tolist() == [2, 4]


def test_what_refuses_to_make_values_refuses_again():
    memory = SyncedMemory((2,))

    def make():
        raise CaffeError("it was given back")

    memory.set_lazy(make)
    for _ in range(2):
        with pytest.raises(CaffeError, match="given back"):
            memory.tensor()
    memory.discard()
    assert memory.is_clear


def test_a_window_is_added_where_it_lies_and_is_zero_elsewhere():
    memory = SyncedMemory((4,))
    memory.set_window((slice(1, 3),), torch.tensor([5.0, 6.0]))
    total = torch.ones(4)
    memory.add_to(total)
    assert total.tolist() == [1, 6, 7, 1]
    assert memory.numpy().tolist() == [0, 5, 6, 0]


def test_a_view_has_the_values_of_what_it_views_in_its_own_shape():
    memory = SyncedMemory((2, 3))
    view = ReshapedView(ReshapedView(memory, (6,)), (3, 2))
    view.set(torch.arange(6.0).view(3, 2))
    assert view.source is memory
    assert memory.numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
    view.numpy()[2, 1] = 9
    assert memory.tensor()[1, 2] == 9
    view.clear()
    assert memory.is_clear
    with pytest.raises(CaffeError, match="reshape that blob"):
        view.reshape((6,))
