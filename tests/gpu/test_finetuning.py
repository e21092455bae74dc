"""The feed of caffe_unet's training on a GPU: one seed gives the same tiles there as on a CPU."""

from __future__ import annotations

import numpy as np
import pytest

import caffe
from tests import finetuning

MADE = ("def", "data2", "data3", "score", "labelcrop", "weightcrop", "loss")


def passes(solver_file, mode: str) -> list[dict[str, np.ndarray]]:
    """Return what the layers make in the passes of two iterations, and in a test."""
    (caffe.set_mode_gpu if mode == "gpu" else caffe.set_mode_cpu)()
    try:
        solver = caffe.get_solver(str(solver_file))
        found = []
        for _ in range(2):
            solver.step(1)
            found.append({name: solver.net.blobs[name].data.copy() for name in MADE})
        test = solver.test_nets[0].forward()
        return [*found, {name: values.copy() for name, values in test.items()}]
    finally:
        caffe.set_mode_cpu()


@pytest.mark.parametrize(
    ("levels", "tile"), [((1, 1), (36, 36)), ((0, 1, 1), (9, 20, 20))], ids=["2-D", "3-D"]
)
def test_one_seed_gives_the_same_tiles_and_losses(gpu, tmp_path, levels, tile):
    solver = finetuning.write_files(tmp_path, 2, 2, levels, tile)
    wanted, got = (passes(solver, mode) for mode in ("cpu", gpu))
    for ours, theirs in zip(got, wanted):
        assert ours.keys() == theirs.keys()
        for name, values in theirs.items():
            np.testing.assert_allclose(ours[name], values, rtol=1e-3, atol=1e-3, err_msg=name)
