"""Well-known networks in small, whole, held against genuine Caffe: passes, training, files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
import pytest

from caffe.proto import caffe_pb2
from tests.parity import harness
from tests.parity.harness import Arrays, Engine, assert_close
from tests.parity.whole_nets import NETS
from tests.parity.whole_nets.random_net import RandomNet
from tests.parity.whole_nets.wholenet import STEPS_BEFORE_SNAPSHOT

Results = dict[str, Arrays]
SUFFIXES = (".caffemodel", ".h5")


def run(
    engine: Engine, folder: Path, own: str, other: str, names: Iterable[str] = tuple(NETS)
) -> Results:
    """Run nets on an engine, in one process, and read the other engine's files."""
    nets = {
        name: {
            "net_text": NETS[name].net(),
            "solver_text": NETS[name].solver_text("PREFIX"),
            "force_backward": NETS[name].force_backward,
            "hdf5": NETS[name].hdf5,
            "keeps": np.array(NETS[name].keeps_fillers, dtype=str),
            **{f"input|{blob}": values for blob, values in NETS[name].batches.items()},
        }
        for name in names
    }
    how = str(folder), own, other, str(STEPS_BEFORE_SNAPSHOT)
    return engine.run_each(harness.SCRIPTS / "run_whole_nets.py", nets, *how)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return the folder that the engines write their files to."""
    return tmp_path_factory.mktemp("whole")


@pytest.fixture(scope="module")
def passes(ours: Engine, reference: Engine, folder: Path) -> tuple[Results, Results, Results]:
    """Return what becomes of all nets: see `exchange_files`."""
    return harness.exchange_files(run, ours, reference, folder)


def part(results: Arrays, prefix: str) -> Arrays:
    """Return the results whose names begin so, without that."""
    return {k[len(prefix) :]: v for k, v in results.items() if k.startswith(prefix)}


@pytest.mark.parametrize("name", NETS)
def test_passes_and_training_equal_genuine_caffes(passes, name):
    got, wanted, _ = (results[name] for results in passes)
    own = ("data ", "diff ", "gradient ", "parameter ", "start ", "test ", "step ", "trained ")
    assert any(np.abs(value).max() > 0 for key, value in wanted.items() if key.startswith("diff"))
    assert_close(got, wanted, only=own)
    # What five steps have changed, not only what they led to.
    assert_close(part(got, "end "), part(wanted, "end "))
    for key, value in part(wanted, "end trained ").items():
        change = value - wanted[f"start {key}"]
        off = np.abs(got[f"end trained {key}"] - value).max()
        assert off <= 1e-3 * np.abs(change).max() + 1e-7 * np.abs(value).max(), key


@pytest.mark.parametrize("name", NETS)
def test_files_of_one_engine_serve_the_other(passes, name):
    ours, genuine, resumed = (results[name] for results in passes)
    for got, wanted in ((genuine, ours), (resumed, genuine)):
        for suffix in SUFFIXES if NETS[name].hdf5 else SUFFIXES[:1]:
            assert_close(part(got, f"read {suffix} "), part(wanted, "test "))
        assert_close(part(got, "resumed "), part(wanted, "end "))


def layout(path: Path) -> dict[str, tuple]:
    """Return the names in an HDF5 file, with shapes and types of what is no group."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, entry: found.update(
                {name: (entry.shape, entry.dtype) if isinstance(entry, h5py.Dataset) else ()}
            )
        )
    return found


@pytest.mark.parametrize("name", NETS)
def test_files_are_laid_out_as_genuine_caffes(passes, folder, name):
    ours, genuine = (folder / f"{engine}_{name}.caffemodel" for engine in ("ours", "genuine"))
    nets = [caffe_pb2.NetParameter.FromString(path.read_bytes()) for path in (ours, genuine)]
    for net in nets:
        for layer in net.layer:
            for blob in layer.blobs:
                # Statistics are equal but for rounding.
                del blob.data[:]
    assert nets[0] == nets[1]
    if NETS[name].hdf5:
        assert layout(ours.with_suffix(".h5")) == layout(genuine.with_suffix(".h5"))
    state = f"_{name}_iter_{STEPS_BEFORE_SNAPSHOT}.solverstate.h5"
    if (folder / f"genuine{state}").exists():
        mine, theirs = layout(folder / f"ours{state}"), layout(folder / f"genuine{state}")
        # The length of a path.
        del mine["learned_net"], theirs["learned_net"]
        assert mine == theirs


RANDOM_NETS = 40


@pytest.fixture(scope="module")
def random_nets(ours: Engine, reference: Engine) -> tuple[dict, Results, Results]:
    """Return random nets, and what both engines make of them."""
    cases = {str(number): RandomNet(number).case() for number in range(RANDOM_NETS)}
    return cases, *harness.at_once(lambda engine: harness.run_cases(engine, cases), ours, reference)


def without_noise(got: Arrays, wanted: Arrays) -> tuple[Arrays, Arrays]:
    """Return the arrays without gradients that should be zero, as a bias's before a BatchNorm."""
    sizes = {k: np.abs(v).max(initial=0) for k, v in wanted.items() if k.startswith("gradient")}
    largest = max(sizes.values(), default=0)
    noise = {key for key, size in sizes.items() if size < 1e-6 * largest}
    assert all(np.abs(got[key]).max(initial=0) < 1e-5 * largest for key in noise)
    return tuple({k: v for k, v in a.items() if k not in noise} for a in (got, wanted))


@pytest.mark.parametrize("number", range(RANDOM_NETS))
def test_a_random_net_equals_genuine_caffes(random_nets, number):
    cases, got, wanted = (results[str(number)] for results in random_nets)
    try:
        assert_close(*without_noise(got, wanted))
    except AssertionError as error:
        raise AssertionError(f"{error}\n{cases.net}") from None
