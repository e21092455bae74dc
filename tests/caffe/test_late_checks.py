"""Checks that are made on the device and looked at later."""

from __future__ import annotations

import pytest
import torch

from caffe import late_checks
from caffe.errors import CaffeError

WRONG, FINE = torch.tensor(True), torch.tensor(False)


def test_the_first_wrong_check_is_raised_when_they_are_looked_at_and_then_forgotten():
    late_checks.add(FINE, lambda: CaffeError("nothing"))
    late_checks.add(WRONG, lambda: CaffeError("the first"))
    late_checks.add(WRONG, lambda: CaffeError("the second"))
    with pytest.raises(CaffeError, match="the first"):
        late_checks.settle()
    late_checks.settle()


def test_recorded_checks_are_remembered_only_when_they_are_added_again():
    with late_checks.recorded() as checks:
        late_checks.add(WRONG, lambda: CaffeError("of the graph"))
    late_checks.settle()
    for _ in range(2):
        for check in checks:
            late_checks.add(*check)
        with pytest.raises(CaffeError, match="of the graph"):
            late_checks.settle()


def test_checks_that_nobody_looks_at_do_not_gather_without_end():
    late_checks.add(WRONG, lambda: CaffeError("long ago"))
    with pytest.raises(CaffeError, match="long ago"):
        for _ in range(2000):
            late_checks.add(FINE, lambda: CaffeError("nothing"))
    late_checks.settle()


def test_values_are_read_together_with_the_checks():
    late_checks.add(FINE, lambda: CaffeError("nothing"))
    assert late_checks.read(torch.tensor([1.5, 2.5])) == [1.5, 2.5]
    late_checks.add(WRONG, lambda: CaffeError("too large"))
    with pytest.raises(CaffeError, match="too large"):
        late_checks.read(torch.tensor([1.5]))
    assert late_checks.read(torch.tensor([3.5])) == [3.5]
