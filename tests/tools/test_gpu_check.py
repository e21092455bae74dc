"""Both commands of tools/gpu_check.py, rehearsed on the CPU where hardly anything is installed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import pytest

import caffe
import run_gpu_tests
from child_programs import Program, ending
from findings import Findings
from half_precision_weights import find_parts, write_half, write_parts
from run_gpu_tests import parity_table
from tests.conftest import REPOSITORY
from tests.gpu.compare import Row
from time_on_gpu import PASSES, Bench, time_net
from unet.training.history import read_history

# What a machine with a GPU may lack; neither is the project installed there.
MISSING = (
    *("pooch", "imagecodecs", "zarr", "numcodecs", "dask", "lmdb", "hypothesis", "pydot"),
    *("grpc_tools", "ctc_metrics"),
)
BLOCKER = f"""
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def find_spec(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in {MISSING!r} else find(name, path, target)
PathFinder.find_spec = classmethod(find_spec)
"""
DEPLOY = REPOSITORY / "prototxt" / "unet_slim" / "deploy.prototxt"
ON_CPU = ["--device", "cpu", "--net", "unet_slim"]


class Bare:
    """A Python without the project and without what it can do without."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder / "venv", with_pip=False)
        (folder / "sitecustomize.py").write_text(BLOCKER)
        self.python = str(folder / "venv" / "bin" / "python")
        search = [str(folder), *{sysconfig.get_path(name) for name in ("purelib", "platlib")}]
        # Processes that share few cores get in each other's way with more threads.
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.environment = {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(search)}

    def run(self, *command: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [self.python, *command],
            env=self.environment,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
        )

    def check(self, *options: str) -> subprocess.CompletedProcess:
        return self.run("tools/gpu_check.py", *options)


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Bare:
    made = Bare(tmp_path_factory.mktemp("bare"))
    for name in ("unet", "caffe", "pooch"):
        assert f"No module named '{name}'" in made.run("-c", f"import {name}").stderr
    return made


@pytest.fixture(scope="module")
def phantom(tmp_path_factory, bare) -> str:
    """Return a folder with 30 small slices and their labels."""
    folder = str(tmp_path_factory.mktemp("phantom"))
    search = bare.environment["PYTHONPATH"]
    environment = {**bare.environment, "PYTHONPATH": f"python{os.pathsep}{search}"}
    subprocess.run(
        [bare.python, "tools/fetch.py", "phantom", "-o", folder, "--size", "64"],
        env=environment,
        cwd=REPOSITORY,
        check=True,
    )
    return folder


# But what draws nets, which is all that pydot is for.
EVERYTHING = """
import importlib, pkgutil, sys
from pathlib import Path
sys.path[:0] = ["python", "tools", "."]
import caffe, unet
names = [path.stem for path in Path("tools").glob("*.py")]
for package in (caffe, unet):
    inside = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    names += [found.name for found in inside]
for name in names:
    if not name.endswith(("__main__", "caffe.draw", "draw_net")):
        importlib.import_module(name)
print(len(names))
"""


def test_everything_is_imported_without_what_can_be_done_without(bare):
    done = bare.run("-c", EVERYTHING)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


@pytest.mark.slow
def test_a_device_is_proven_and_what_was_found_is_a_table_and_json(bare, tmp_path):
    results = tmp_path / "results"
    done = bare.check(
        *("proof", *ON_CPU, "--tile", "188", "--precisions", "fp32", "--rounds", "1"),
        *("--seconds", "900", "-o", str(results), "--work", str(tmp_path / "work")),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in results.iterdir()) == ["proof.json", "proof.txt"]
    table = (results / "proof.txt").read_text()
    assert done.stdout == table
    assert "not measured" not in table
    found = json.loads((results / "proof.json").read_text())["found"]
    assert found["machine"]["torch"] == caffe_torch_version()
    times = found["fp32"]
    assert times.keys() >= PASSES.keys()
    peak = times["matrix product"]["tflops"]
    for name in PASSES:
        assert times[name]["ms"] > 0
        assert f"  {name}  " in table
    ours = times["forward, this engine"]
    assert ours["share_of_peak"] == pytest.approx(ours["tflops"] / peak, abs=1e-3)
    ratio = times["forward, plain PyTorch"]["ms"] / ours["ms"]
    assert ours["against_plain"] == pytest.approx(ratio, abs=2e-3)
    assert float(found["feed"]["rates"]["1"]) > 0
    assert found["tests"]["planned"] == sum(found["tests"]["counts"].values()) > 0
    assert found["tests"]["counts"].get("failed", 0) == 0


def caffe_torch_version() -> str:
    import torch

    return torch.__version__


def test_what_fails_is_told_and_the_rest_goes_on(tmp_path):
    findings = Findings(tmp_path, "proof", 900)
    options = Namespace(device="77", net="unet_slim", tile=188, rounds=1, work=tmp_path / "work")
    bench = Bench(options, "fp32")
    with ending({"fp32": bench}):
        time_net(findings, options, "fp32", bench, 600)
    findings.finish()
    assert findings.failed
    found = json.loads((tmp_path / "proof.json").read_text())["found"]
    for name in PASSES:
        assert found[f"fp32, {name}"]["error"].startswith("Traceback")
    table = (tmp_path / "proof.txt").read_text()
    assert table.count("not measured") == table.count("FAILED") == len(PASSES)


class Stub(Bench):
    """A process that runs a text."""

    text = ""

    @classmethod
    def command(cls, options, precision):
        return ["-c", cls.text]


def timed_by(stub: type[Stub], folder: Path, seconds: float) -> dict:
    """Return what is found by a process that runs the stub's text."""
    findings = Findings(folder, "proof", 900)
    options = Namespace(device="0", net="unet_slim", tile=188, rounds=1, work=folder / "work")
    bench = stub(options, "fp32")
    with ending({0: bench}):
        time_net(findings, options, "fp32", bench, seconds)
    return json.loads((folder / "proof.json").read_text())["found"]


def test_a_measurement_that_dies_is_told_with_its_last_words(tmp_path):
    class Dies(Stub):
        text = "raise SystemExit('no such card')"

    assert "no such card" in timed_by(Dies, tmp_path, 600)["fp32, process"]["error"]


def test_a_slow_start_takes_nothing_from_what_is_measured(tmp_path):
    class Slow(Stub):
        text = """
import json, sys, time
for number, line in enumerate(sys.stdin):
    if number < 2:
        time.sleep(3)
    answer = {"seconds": 0.5, "peak_gib": 1.0, "products": 1.0, "gpu_gib": 2.0}
    print("a library says something", flush=True)
    print(json.dumps({"built": True} if json.loads(line).get("build") else answer), flush=True)
"""

    found = timed_by(Slow, tmp_path, 5)["fp32"]
    assert [found[name]["ms"] for name in PASSES] == [500.0] * len(PASSES)
    assert {found[name]["rounds"] for name in PASSES} == {1}


@pytest.mark.parametrize(
    ("command", "name"), [("proof", "proof.json"), ("proof", "proof.txt"), ("train", "curve.csv")]
)
def test_what_no_check_has_left_is_not_replaced(bare, tmp_path, command, name):
    (tmp_path / name).write_text("{}")
    done = bare.check(command, "-o", str(tmp_path))
    assert done.returncode == 2
    assert name in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "{}"


@pytest.mark.parametrize(
    ("command", "said"),
    [("proof", "PyTorch finds no GPU here"), ("train", "the engine finds no such GPU here")],
)
def test_a_machine_without_a_gpu_is_told(bare, tmp_path, monkeypatch, command, said):
    monkeypatch.setitem(bare.environment, "CUDA_VISIBLE_DEVICES", "")
    options = ["-o", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    done = bare.check(command, "--net", "unet_slim", *options)
    assert done.returncode == 2
    assert done.stderr == f"gpu_check.py: --device 0: {said}; name cpu\n"


def test_weights_that_are_not_there_are_told_before_anything_is_made(bare, tmp_path):
    options = ["-o", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    done = bare.check("train", "--weights", str(tmp_path / "none.h5"), *options)
    assert done.returncode == 2
    said = f"{tmp_path}/none.h5: there is no such file with weights, nor a model folder"
    assert done.stderr.startswith(f"gpu_check.py: {said}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "work").exists()


def joined(folder: Path, target: Path) -> Path:
    """Join parts as the table says."""
    subprocess.run(f"cat {folder}/*.h5.part*of* > {target}", shell=True, check=True)
    return target


@pytest.mark.slow
def test_a_network_is_trained_refined_scored_and_stored(bare, tmp_path, phantom):
    results = tmp_path / "results"
    done = bare.check(
        *("train", *ON_CPU, "--tile", "252", "--precision", "fp32", "--iterations", "4"),
        *("--data", phantom, "--refine", "400", "--seconds", "1200"),
        *("-o", str(results), "--work", str(tmp_path / "work")),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names = {path.name for path in results.iterdir()}
    part = "unet_slim_iter_8.h5.part1of1"
    assert names == {"train.json", "train.txt", "curve.csv", "curves.png", part}
    found = json.loads((results / "train.json").read_text())["found"]
    assert found["weights"]["parts"] == [part]
    assert len(found["scores"]["scores"]["per_slice"]) == 10
    assert 0 < found["scores"]["scores"]["pixel_error"] < 1
    assert found["plan"]["kept_back"] > sum(
        took for title, took in found["tried"]["seconds"].items() if title != "try training"
    )
    rows = read_history(results / "curve.csv")
    steps = [row for row in rows if "loss" in row]
    assert [row["iteration"] for row in steps] == list(range(8))
    rates = [row["rate"] for row in steps]
    assert rates[0] == pytest.approx(0.001)
    assert rates[4] == pytest.approx(0.0003)
    assert sum("test_loss" in row for row in rows) == 2
    whole = joined(results, tmp_path / "unet.h5")
    trained = tmp_path / "work" / "train" / "refined" / "unet_slim_iter_4.caffemodel"
    half, full = (caffe.Net(str(DEPLOY), str(path), caffe.TEST) for path in (whole, trained))
    for name, blobs in full.params.items():
        for blob, stored in zip(blobs, half.params[name]):
            np.testing.assert_array_equal(stored.data, blob.data.astype(np.float16))


# As `gpu_check.py`, with a snapshot after each step.
OFTEN = (
    "import sys; sys.path.insert(0, 'tools'); import gpu_check, train_on_gpu; "
    "train_on_gpu.SNAPSHOT_SECONDS = train_on_gpu.LOOK_SECONDS = 0.01; gpu_check.main(sys.argv[1:])"
)


@contextlib.contextmanager
def long_training(bare: Bare, folder: Path, phantom: str, *program: str):
    """Begin a training of nearly an hour into folder/results and folder/work; end it after all."""
    options = ["train", *ON_CPU, "--tile", "252", "--precision", "fp32", "--data", phantom]
    options += ["--seconds", "3000", "-o", f"{folder}/results", "--work", f"{folder}/work"]
    command = [bare.python, *program, *options]
    process = subprocess.Popen(
        command, env=bare.environment, cwd=REPOSITORY, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()


@pytest.mark.slow
def test_a_training_that_is_killed_leaves_weights_and_curve_and_no_process(bare, tmp_path, phantom):
    results = tmp_path / "results"
    with long_training(bare, tmp_path, phantom, "-c", OFTEN) as process:
        while not (results.is_dir() and find_parts(results)):
            assert process.poll() is None
            time.sleep(0.05)
    assert process.wait() == -signal.SIGKILL
    found = json.loads((results / "train.json").read_text())["found"]
    assert "plan" in found
    assert (results / "train.txt").read_text().startswith("unet_slim by adam")
    assert read_history(results / "curve.csv")
    whole = joined(results, tmp_path / "unet.h5")
    caffe.Net(str(DEPLOY), str(whole), caffe.TEST)
    deadline = time.monotonic() + 600
    while running(f"{tmp_path}/work"):
        assert time.monotonic() < deadline, "the training goes on"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_training_that_is_asked_to_stop_brings_out_what_it_has_learnt(bare, tmp_path, phantom):
    results, log = tmp_path / "results", tmp_path / "work" / "train" / "train.log"
    with long_training(bare, tmp_path, phantom, "tools/gpu_check.py") as process:
        # The bar comes right before the first iteration, after which signals are answered.
        while not (log.exists() and "0%|" in log.read_text()):
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(1)
        assert not find_parts(results)
        process.terminate()
        assert process.wait(600) == 128 + signal.SIGTERM
    found = json.loads((results / "train.json").read_text())["found"]
    assert len(find_parts(results)) == 1
    assert found["weights"]["iteration"] == found["training"]["steps"] > 0


def running(text: str) -> list[str]:
    """Return the numbers of processes on whose command line a text stands."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            # It has ended.
            continue
    return found


def test_findings_are_on_disk_at_once_and_replaced_by_later_ones(tmp_path):
    findings = Findings(tmp_path, "proof", 100)
    findings.note("speed", "fast", ms=3.5)
    findings.fail("memory", "a\nb")
    assert findings.failed
    findings.note("speed", "faster", ms=2.5)
    found = json.loads((tmp_path / "proof.json").read_text())["found"]
    assert found["speed"]["ms"] == 2.5
    assert found["memory"]["error"] == "a\nb"
    text = (tmp_path / "proof.txt").read_text()
    assert text == "faster\n\nmemory: FAILED\n    a\n    b\n"


TESTS = """
import pytest

CASES = [pytest.param(k, id=f"{name}, {k}") for name in "abc" for k in (1, 2)]

@pytest.mark.parametrize("case", CASES)
def test_it(case, record_property):
    record_property("gpu_parity", {"off": case})
    assert case == 1

def test_other():
    pytest.skip("nothing")
"""


def test_processes_run_the_groups_of_tests_that_they_are_given_and_note_each(tmp_path):
    (tmp_path / "test_shared.py").write_text(TESTS)
    notes = tmp_path / "notes.jsonl"
    command = [sys.executable, "tools/run_gpu_tests.py", str(notes), "-c", os.devnull]
    given = "".join(run_gpu_tests.NUMBER % number for number in (2, 0, 3)).encode()
    subprocess.run(
        [*command, f"{tmp_path}/test_shared.py"],
        input=given,
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
    )
    lines = [json.loads(line) for line in notes.read_text().splitlines()]
    assert lines[0]["tests"] == 7
    names = [name.partition("::")[2] for name in lines[0]["groups"]]
    assert names == ["test_it[a", "test_it[b", "test_it[c", "test_other"]
    ended = [line for line in lines if "outcome" in line]
    assert [(line["test"].partition("::")[2], line["outcome"]) for line in ended] == [
        ("test_it[c, 1]", "passed"),
        ("test_it[c, 2]", "failed"),
        ("test_it[a, 1]", "passed"),
        ("test_it[a, 2]", "failed"),
        ("test_other", "skipped"),
    ]
    assert [line["properties"] for line in ended[:2]] == [
        [["gpu_parity", {"off": 1}]],
        [["gpu_parity", {"off": 2}]],
    ]
    assert "assert 2 == 1" in ended[1]["text"]


def test_the_largest_difference_of_each_kind_of_cases_is_shown():
    rows = [
        Row("layers", "ReLU", "fp32", 3, 12, 0, 1e-6, "ReLU 1 data", []),
        Row("layers", "LRN", "fp32", 3, 12, 0, 3e-5, "net data", []),
        Row("layers", "LRN", "fp32 graphs", 3, 12, 0, 0.0, "net data", ["one", "two"]),
    ]
    lines = parity_table([asdict(row) for row in rows])
    assert [line.split() for line in lines[1:]] == [
        ["layers", "fp32", "6", "3.0e-05", "LRN:", "net", "data"],
        ["layers", "fp32", "graphs", "3", "0.0e+00", "2", "TOO", "FAR", "OFF"],
    ]


def test_nobody_waits_for_an_answer_longer_than_there_is_time(tmp_path):
    class Sleeps(Stub):
        text = "import time; time.sleep(600)"

    bench = Sleeps(Namespace(work=tmp_path), "fp32")
    with ending({0: bench}):
        bench.wait_until_ready(0.3)
        assert bench.ask({}) is None
    assert bench.error is None


def test_a_program_that_takes_too_long_is_ended_and_told(tmp_path):
    said = "import time; print('began', flush=True); time.sleep(600)"
    program = Program(["-c", said], tmp_path / "log")
    while "began" not in program.said:
        time.sleep(0.01)
    error = program.wait(0.1)
    assert error.startswith("began\nstopped after ")
    assert program.process.returncode == -signal.SIGKILL


def test_parts_of_newer_weights_take_the_place_of_older_ones(tmp_path):
    target, older, newer = tmp_path / "out", tmp_path / "n_iter_1.h5", tmp_path / "n_iter_2.h5"
    target.mkdir()
    (target / "curve.csv").touch()
    older.write_bytes(bytes(range(200)))
    newer.write_bytes(bytes(range(100, 200)))
    write_parts(older, target, 30)
    parts = write_parts(newer, target, 30)
    assert [part.name for part in parts] == [f"n_iter_2.h5.part{n}of4" for n in (1, 2, 3, 4)]
    assert find_parts(target) == parts
    assert joined(target, tmp_path / "joined").read_bytes() == newer.read_bytes()
    assert (target / "curve.csv").exists()


def test_what_float16_cannot_hold_is_no_weight(tmp_path, monkeypatch):
    net = caffe.Net(str(DEPLOY), caffe.TEST)
    net.params["conv_u0d-score"][1].data[...] = 1e5
    with pytest.raises(ValueError, match="layer 'conv_u0d-score'"):
        write_half(net, tmp_path / "half.h5")


SCORES = """
import sys
import numpy as np
import caffe
given = np.load(sys.argv[1])
found = {}
for name in ("full", "half"):
    net = caffe.Net(str(given["net"]), str(given[name]), caffe.TEST)
    net.blobs["data"].data[...] = given["data"]
    net.forward()
    found[name] = net.blobs["prob"].data.copy()
np.savez(sys.argv[2], **found)
"""


def test_genuine_caffe_reads_float16(reference, ours, tmp_path):
    model = REPOSITORY / "models" / "isbi2012_slim"
    net = tmp_path / "deploy.prototxt"
    net.write_text((model / "deploy.prototxt").read_text().replace("572", "188"))
    full = tmp_path / "full.h5"
    half = tmp_path / "half.h5"
    loaded = caffe.Net(str(net), str(model / "weights.caffemodel"), caffe.TEST)
    loaded.save_hdf5(str(full))
    write_half(loaded, half)
    assert h5py.File(half)["data/conv_u0d-score/0"].dtype == np.float16
    data = np.random.RandomState(0).rand(1, 1, 188, 188).astype(np.float32)
    arrays = {"net": str(net), "full": str(full), "half": str(half), "data": data}
    genuine, here = (engine.run(SCORES, arrays) for engine in (reference, ours))
    assert np.abs(genuine["half"] - genuine["full"]).max() < 5e-3
    assert np.abs(genuine["half"] - genuine["full"]).max() > 0
    np.testing.assert_allclose(here["half"], genuine["half"], atol=1e-4)
