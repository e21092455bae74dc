"""What a solver of several does apart from reducing, against genuine Caffe's: items, seed, log."""

from __future__ import annotations

import cv2
import h5py
import lmdb
import numpy as np
import pytest

import caffe
from tests.parity.harness import Engine

SCRIPT = """
import os
import numpy as np
import caffe
from exchange import give, given, text_file

results = {}
arrays = given()
layers = {name[6:]: str(text) for name, text in arrays.items() if name.startswith("layer ")}
for count, rank in ((1, 0), (2, 0), (2, 1), (3, 1)):
    caffe.set_solver_count(count)
    caffe.set_solver_rank(rank)
    for name, text in layers.items():
        for phase in (caffe.TRAIN, caffe.TEST):
            net = caffe.Net(text_file(text), phase)
            labels = []
            for _ in range(8):
                net.forward()
                labels += [float(label) for label in net.blobs["y"].data.ravel()]
            results["%s, %d of %d, phase %d" % (name, rank, count, phase)] = labels
    assert (caffe.solver_count(), caffe.solver_rank()) == (count, rank)

solver = str(arrays["solver"])
net = text_file(layers["hdf5"] + str(arrays["learner"]))
weights = {}
for rank, seed in ((0, 5), (1, 5), (0, 6)):
    caffe.set_solver_rank(rank)
    made = caffe.SGDSolver(text_file(solver % (net, "unused", seed)))
    weights[rank, seed] = np.array(made.net.params["ip"][0].data)
results["another seed"] = [
    np.array_equal(weights[1, 5], weights[0, 6]), np.array_equal(weights[1, 5], weights[0, 5])
]

for rank in (0, 1):
    caffe.set_solver_rank(rank)
    prefix = os.path.join(str(arrays["folder"]), "%d" % rank)
    made = caffe.SGDSolver(text_file(solver % (net, prefix, 1)))
    told = os.dup(2)
    log = os.open(prefix + ".log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(log, 2)
    made.step(2)
    os.dup2(told, 2)
    lines = open(prefix + ".log").read().splitlines()
    said = [line.split("] ", 1)[1].split("(")[0].split("=")[0].strip() for line in lines]
    said = sorted({line for line in said if "napshotting" not in line})
    results["said by %d" % rank] = np.array("|".join(said))
    files = sorted(os.listdir(str(arrays["folder"])))
    results["written by %d" % rank] = np.array(
        "|".join(name for name in files if name.startswith("%d_" % rank))
    )
    results["test nets of %d" % rank] = len(made.test_nets)
give(results)
"""

LEARNER = """
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 1 weight_filler { type: "gaussian" std: 1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""

SOLVER = """
net: "%s" snapshot_prefix: "%s" random_seed: %d base_lr: 0.1 lr_policy: "fixed" max_iter: 2
display: 1 snapshot: 1 test_iter: 1 test_interval: 1 clip_gradients: 1e-9
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory, ours: Engine, reference: Engine) -> list[dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("ranks")
    rng = np.random.default_rng(2)
    for number, rows in enumerate((range(5), range(5, 12))):
        with h5py.File(folder / f"{number}.h5", "w") as file:
            file["x"] = rng.normal(size=(len(rows), 2)).astype(np.float32)
            file["y"] = np.array(rows, np.float32).reshape(-1, 1)
    (folder / "two.txt").write_text(f"{folder}/0.h5\n{folder}/1.h5\n")
    (folder / "one.txt").write_text(f"{folder}/0.h5\n")
    with (
        lmdb.open(str(folder / "lmdb"), map_size=1 << 20) as database,
        database.begin(write=True) as transaction,
    ):
        for number in range(7):
            datum = caffe.io.array_to_datum(np.zeros((1, 2, 2), np.uint8), number)
            transaction.put(b"%08d" % number, datum.SerializeToString())
    lines = []
    for number in range(5):
        cv2.imwrite(str(folder / f"{number}.png"), np.zeros((3, 3), np.uint8))
        lines.append(f"{folder}/{number}.png {number}\n")
    (folder / "images.txt").write_text("".join(lines))
    layer = 'layer {{ name: "d" type: "{}" top: "x" top: "y" {} }}'.format
    source = f'source: "{folder}/lmdb" backend: LMDB batch_size: 2'
    arrays = {
        "layer hdf5": layer(
            "HDF5Data", f'hdf5_data_param {{ source: "{folder}/two.txt" batch_size: 2 }}'
        ),
        "layer hdf5 of one file": layer(
            "HDF5Data", f'hdf5_data_param {{ source: "{folder}/one.txt" batch_size: 3 }}'
        ),
        "layer lmdb": layer("Data", f"data_param {{ {source} }}"),
        "layer lmdb, rand_skip": layer("Data", f"data_param {{ {source} rand_skip: 6 }}"),
        "layer images": layer(
            "ImageData", f'image_data_param {{ source: "{folder}/images.txt" batch_size: 2 }}'
        ),
        "learner": LEARNER,
        "solver": SOLVER,
    }
    both = []
    for engine in (ours, reference):
        (folder / engine.name).mkdir()
        given = {**arrays, "folder": str(folder / engine.name)}
        both.append(engine.run(SCRIPT, given, environment={"GLOG_minloglevel": "0"}))
    return both


def test_solvers_share_out_the_items_of_databases_in_training_alone(results):
    here, there = results
    cases = [name for name in there if "phase" in name]
    assert len(cases) == 40
    for name in cases:
        assert here[name].tolist() == there[name].tolist(), name
    assert there["lmdb, 1 of 3, phase 0"][:5].tolist() == [1, 4, 0, 3, 6]


def test_only_solver_0_displays_tests_and_snapshots(results):
    here, there = results
    for name in there:
        if "phase" not in name:
            assert here[name].tolist() == there[name].tolist(), name
    assert there["another seed"].tolist() == [True, False]
    assert str(there["said by 1"]) == "Gradient clipping: scaling down gradients"
    assert str(there["written by 1"]) == ""
