"""Solvers in several processes make the steps of one over the same items; names of pycaffe."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import caffe
from caffe.parallel import distributed

# Each solver in a process that the program starts itself, on GPUs or, with none, on the CPU: how
# programs for genuine pycaffe use NCCL.
PROGRAM = """
import json
import sys
from multiprocessing import Process

import caffe


def learn(rank, count, uid, file, state, gpus):
    if gpus:
        caffe.set_mode_gpu()
        caffe.set_device(gpus[rank])
    caffe.set_multiprocess(True)
    caffe.set_solver_count(count)
    caffe.set_solver_rank(rank)
    learner = caffe.get_solver(file)
    if state:
        learner.restore(state)
    exchange = caffe.NCCL(learner, uid)
    learner.add_callback(exchange)
    if learner.param.layer_wise_reduce:
        learner.net.after_backward(exchange)
    exchange.bcast()
    learner.step(learner.param.max_iter - learner.iter)
    learner.net.save(f"{file}.{rank}.caffemodel")


if __name__ == "__main__":
    for file, state, gpus, count in json.loads(sys.argv[1]):
        uid = caffe.NCCL.new_uid()
        workers = [
            Process(target=learn, args=(rank, count, uid, file, state, gpus), daemon=True)
            for rank in range(count)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
"""

NET = """
layer {{ {data} }}
layer {{ name: "split" type: "Slice" bottom: "data" top: "left" top: "right"
  slice_param {{ axis: 1 }} }}
layer {{ name: "a" type: "InnerProduct" bottom: "left" top: "a" param {{ name: "w" }}
  param {{ lr_mult: 2 decay_mult: 0 }}
  inner_product_param {{ num_output: 3 weight_filler {{ type: "gaussian" std: 1 }} }} }}
layer {{ name: "a/act" type: "TanH" bottom: "a" top: "a/act" }}
layer {{ name: "b" type: "InnerProduct" bottom: "right" top: "b" param {{ name: "w" }}
  inner_product_param {{ num_output: 3 weight_filler {{ type: "gaussian" std: 1 }} }} }}
layer {{ name: "sum" type: "Eltwise" bottom: "a/act" bottom: "b" top: "sum" }}
layer {{ name: "norm" type: "Scale" bottom: "sum" top: "sum" param {{ lr_mult: 0 }} }}
layer {{ name: "c" type: "InnerProduct" bottom: "sum" top: "c"
  inner_product_param {{ num_output: 1 weight_filler {{ type: "gaussian" std: 1 }} }} }}
layer {{ name: "target" type: "Reshape" bottom: "label" top: "target"
  reshape_param {{ shape {{ dim: -1 dim: 1 }} }} }}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "c" bottom: "target" top: "loss" }}
"""

COMMON = 'lr_policy: "fixed" max_iter: 5 random_seed: 7 weight_decay: 0.05 momentum: 0.9 '
CASES = {
    "sgd by layer": 'type: "SGD" base_lr: 0.05',
    "sgd together, clipped": 'type: "SGD" base_lr: 0.05 layer_wise_reduce: false clip_gradients: 1',
    "adam by layer, clipped": 'type: "Adam" base_lr: 0.01 clip_gradients: 1 snapshot: 3',
    "adam together": 'type: "Adam" base_lr: 0.01 layer_wise_reduce: false',
    "two passes by layer": 'type: "SGD" base_lr: 0.05 iter_size: 2',
    "two passes together": 'type: "SGD" base_lr: 0.05 iter_size: 2 layer_wise_reduce: false',
    "lmdb": 'type: "SGD" base_lr: 0.001',
}


def write_case(folder: Path, name: str, fields: str, count: int) -> str:
    """Write net and solver; one solver alone makes `iter_size` passes for each of the others'."""
    passes = 2 if "iter_size: 2" in fields else 1
    fields = fields.replace("iter_size: 2", "")
    if count == 1:
        # Caffe clips the sum of the passes, and the mean of the solvers.
        passes *= 2
        fields = fields.replace("clip_gradients: 1", "clip_gradients: 2")
    kind = "Data" if name == "lmdb" else "HDF5Data"
    source = (
        f'data_param {{ source: "{folder}/lmdb" backend: LMDB batch_size: 2 }} '
        "transform_param { scale: 0.01 }"
        if kind == "Data"
        else f'hdf5_data_param {{ source: "{folder}/list.txt" batch_size: 2 }}'
    )
    place = folder / f"{name}, {count} solvers"
    net = place.with_suffix(".net")
    data = f'name: "data" type: "{kind}" top: "data" top: "label" {source}'
    net.write_text(NET.format(data=data))
    solver = place.with_suffix(".solver")
    solver.write_text(
        f'{COMMON} {fields} net: "{net}" snapshot_prefix: "{place}" iter_size: {passes}'
    )
    return str(solver)


def write_data(folder: Path) -> None:
    rng = np.random.default_rng(3)
    for number, rows in enumerate((5, 8)):
        with h5py.File(folder / f"{number}.h5", "w") as file:
            file["data"] = rng.normal(size=(rows, 4, 1, 2)).astype(np.float32)
            file["label"] = rng.normal(size=(rows, 1)).astype(np.float32)
    (folder / "list.txt").write_text(f"{folder}/0.h5\n{folder}/1.h5\n")


def write_database(folder: Path) -> None:
    # A machine with GPUs may be without it; the test that needs one reads none.
    import lmdb

    rng = np.random.default_rng(4)
    with (
        lmdb.open(str(folder / "lmdb"), map_size=1 << 20) as database,
        database.begin(write=True) as transaction,
    ):
        for number in range(9):
            picture = rng.integers(0, 256, (4, 1, 2)).astype(np.uint8)
            datum = caffe.io.array_to_datum(picture, number)
            transaction.put(b"%08d" % number, datum.SerializeToString())


def parameters(path: Path | str) -> dict[str, np.ndarray]:
    """Return the parameters of a .caffemodel, by layer and number."""
    net = caffe.proto.caffe_pb2.NetParameter()
    net.ParseFromString(Path(path).read_bytes())
    return {
        f"{layer.name} {number}": np.array(blob.data)
        for layer in net.layer
        for number, blob in enumerate(layer.blobs)
    }


def run(folder: Path, cases: list, **environment: str) -> str:
    program = folder / "train.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(program), json.dumps(cases)],
        capture_output=True,
        text=True,
        timeout=1800,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder), **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Return a folder in which every case was trained by two solvers, and by one."""
    folder = tmp_path_factory.mktemp("distributed")
    write_data(folder)
    write_database(folder)
    cases = [
        (write_case(folder, name, fields, count), None, None, count)
        for name, fields in CASES.items()
        for count in (2, 1)
    ]
    state = f"{folder}/adam by layer, clipped, 2 solvers_iter_3.solverstate"
    fields = CASES["adam by layer, clipped"]
    cases += [
        (write_case(folder, "resumed", fields, count), state, None, count) for count in (2, 1)
    ]
    run(folder, cases)
    return folder


@pytest.mark.parametrize("name", [*CASES, "resumed"])
def test_two_solvers_make_the_steps_of_one_with_twice_the_passes(trained: Path, name: str):
    alone, first, second = (
        parameters(trained / f"{name}, {count} solvers.solver.{rank}.caffemodel")
        for count, rank in ((1, 0), (2, 0), (2, 1))
    )
    assert len(alone) == 7
    for key, wanted in alone.items():
        assert np.abs(first[key] - wanted).max() <= 1e-6, key
        assert np.array_equal(first[key], second[key]), key


def test_the_folder_where_solvers_meet_is_removed(trained: Path):
    assert not list(trained.glob("caffe-nccl-*"))


@pytest.mark.gpu
def test_gpus_make_the_steps_of_one(tmp_path: Path):
    import torch

    count = min(2, torch.cuda.device_count())
    write_data(tmp_path)
    fields = CASES["sgd by layer"]
    cases = [
        (write_case(tmp_path, "gpu", fields, count), None, list(range(count)), count),
        (write_case(tmp_path, "cpu", fields, count), None, None, count),
    ]
    run(tmp_path, cases)
    on_gpu, on_cpu = (
        parameters(tmp_path / f"{name}, {count} solvers.solver.0.caffemodel")
        for name in ("gpu", "cpu")
    )
    for key, wanted in on_cpu.items():
        assert np.abs(on_gpu[key] - wanted).max() <= 1e-5, key


def test_what_is_called_after_backward_may_change_the_gradients_and_is_called_once(tmp_path: Path):
    write_data(tmp_path)
    path = write_case(tmp_path, "called", "base_lr: 0.1 layer_wise_reduce: true", 2)
    solver = caffe.SGDSolver(path)
    solver.param.weight_decay = 0
    seen = []

    def forget(layer: int) -> None:
        seen.append(layer)
        for blob in solver.net.layers[layer].blobs:
            blob.diff[...] = 0

    solver.net.after_backward(forget)
    before = [blob.data.copy() for blob in solver.net.params["c"]]
    solver.step(1)
    for old, blob in zip(before, solver.net.params["c"]):
        assert np.array_equal(old, blob.data)
    count = len(seen)
    # Made again on demand, in this process alone: the others would not answer.
    assert solver.net.blobs["c"].diff.any()
    assert len(seen) == count > 0


@pytest.fixture
def solvers_reset():
    yield
    caffe.set_solver_rank(0)
    caffe.set_solver_count(1)


def test_names_of_pycaffe(solvers_reset):
    assert (caffe.solver_count(), caffe.solver_rank()) == (1, 0)
    assert caffe.has_nccl() is torch.cuda.is_available()
    assert isinstance(caffe.NCCL.new_uid(), bytes)
    assert caffe.set_solver_count(3) is None
    assert caffe.set_solver_rank(2) is None
    assert caffe.set_multiprocess(True) is None
    assert (caffe.solver_count(), caffe.solver_rank()) == (3, 2)
    for function in (caffe.set_solver_count, caffe.set_solver_rank):
        for wrong in (1.5, "2", None):
            with pytest.raises(TypeError):
                function(wrong)
    with pytest.raises(TypeError):
        caffe.set_multiprocess("a")
    with pytest.raises(caffe.CaffeError, match="solver count 0 must be positive"):
        caffe.set_solver_count(0)
    with pytest.raises(caffe.CaffeError, match="solver rank -1 must not be negative"):
        caffe.set_solver_rank(-1)


def test_mistakes_are_told_in_a_sentence(tmp_path: Path, solvers_reset):
    write_data(tmp_path)
    path = write_case(tmp_path, "mistakes", CASES["sgd by layer"], 2)
    caffe.set_solver_count(2)
    caffe.set_solver_rank(1)
    solver = caffe.SGDSolver(path)
    for forbidden in (solver.solve, solver.snapshot):
        with pytest.raises(caffe.CaffeError, match="only solver 0 of several may"):
            forbidden()
    with pytest.raises(caffe.CaffeError, match=r"'abc' does not come from caffe.NCCL.new_uid\(\)"):
        caffe.NCCL(solver, "abc")
    with pytest.raises(caffe.CaffeError, match="is gone"):
        caffe.NCCL(solver, str(tmp_path / "caffe-nccl-gone"))
    caffe.set_solver_rank(2)
    for mistaken in (lambda: caffe.NCCL(solver, "abc"), lambda: caffe.SGDSolver(path)):
        with pytest.raises(caffe.CaffeError, match="solver rank 2 does not exist among 2"):
            mistaken()
    with pytest.raises(caffe.CaffeError, match="no device to train on"):
        distributed.train(path, [])


def test_processes_of_torchrun_are_recognised(monkeypatch, tmp_path: Path):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert distributed.from_environment() is None
    given = dict(RANK="5", WORLD_SIZE="8", MASTER_ADDR="node", MASTER_PORT="29500", LOCAL_RANK="1")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert distributed.from_environment() == distributed.Rank(rank=5, count=8, local_rank=1)
    write_data(tmp_path)
    path = write_case(tmp_path, "few", CASES["sgd by layer"], 2)
    with pytest.raises(caffe.CaffeError, match="process 1 on this machine has no device of its"):
        distributed.train(path, [0])
    monkeypatch.setenv("RANK", "8")
    with pytest.raises(caffe.CaffeError, match="RANK 8 does not exist with WORLD_SIZE 8"):
        distributed.from_environment()
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(caffe.CaffeError, match="must be whole numbers"):
        distributed.from_environment()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert distributed.from_environment() is None
