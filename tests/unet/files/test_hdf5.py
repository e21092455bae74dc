"""HDF5: what lies in the file is found, what lies elsewhere is refused, damage is a sentence.

What is written to a full disk is an error that can be caught, in new and old versions of h5py.
"""

from __future__ import annotations

import subprocess
import sys

import h5py
import numpy as np
import pytest

from tests.caffe_unet import write_modeldef
from tests.unet.noise_set import write_noise_set
from unet.errors import InputError
from unet.files import hdf5
from unet.files.hdf5 import Hdf5Output
from unet.files.weights import stored_blobs
from unet.model.modeldef import ModelDefinition, read_modeldef
from unet.preparation.training_set import TrainingSet
from unet.training.snapshots import _history
from unet.volumes import open_volume, read_volume

STACK = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def external_storage(file, name, secret):
    file.create_dataset(name, (2, 3, 4), "u1", external=[(str(secret), 0, 24)])


def external_link(file, name, secret):
    with h5py.File(secret.with_suffix(".h5"), "w") as other:
        other["x"] = STACK
    file[name] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "/x")


def link_over_a_link(file, name, secret):
    external_link(file, "group/out", secret)
    file[name] = h5py.SoftLink("/group/out")


def group_in_another_file(file, name, secret):
    with h5py.File(secret.with_suffix(".h5"), "w") as other:
        other[name.rpartition("/")[2]] = STACK
    file["g"] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "/")
    file[name] = h5py.SoftLink(f"/g/{name.rpartition('/')[2]}")


def virtual(file, name, secret, source=None):
    with h5py.File(secret.with_suffix(".h5"), "w") as other:
        other["x"] = STACK
    layout = h5py.VirtualLayout((2, 3, 4), "u1")
    layout[:] = h5py.VirtualSource(source or str(secret.with_suffix(".h5")), "x", (2, 3, 4))
    file.create_virtual_dataset(name, layout)


def virtual_of_an_outside_one(file, name, secret):
    external_storage(file, "x", secret)
    virtual(file, name, secret, ".")


OUTSIDE = (
    external_storage,
    external_link,
    link_over_a_link,
    group_in_another_file,
    virtual,
    virtual_of_an_outside_one,
)


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"the text of a secret file")
    return path


def refused(path, name, read, *args):
    with pytest.raises(InputError) as caught:
        read(*args)
    told = str(caught.value)
    assert str(path) in told
    assert name in told or "/x has its numbers in another file" in told
    assert "\n" not in told


@pytest.mark.parametrize("outside", OUTSIDE)
def test_a_volume_that_lies_elsewhere_is_refused(tmp_path, secret, outside):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        outside(file, "raw", secret)
    refused(path, "/raw", open_volume, f"{path}:/raw")
    refused(path, "", open_volume, path)


def test_what_lies_elsewhere_does_not_make_way_for_another_stack(tmp_path, secret):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        external_storage(file, "raw", secret)
        file["labels"] = STACK
    refused(path, "several stacks (/labels, /raw)", open_volume, path)
    assert np.array_equal(read_volume(f"{path}:/labels"), STACK)


def test_links_and_virtual_datasets_within_the_file_are_read(tmp_path, secret):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["group/inner/x"] = STACK
        file["absolute"] = h5py.SoftLink("/group/inner/x")
        file["group/relative"] = h5py.SoftLink("inner/./x")
        file["twice"] = h5py.SoftLink("/group/relative")
        file["folder"] = h5py.SoftLink("group/inner")
        file["dangling"] = h5py.SoftLink("/nothing")
        file["circle"] = h5py.SoftLink("/circle")
        file["hard"] = file["group"]
        file["group/self"] = file["group"]
    with h5py.File(path, "r") as file:
        assert [name for name, _ in hdf5.datasets(file)] == ["group/inner/x"]
    for name in ("absolute", "group/relative", "twice", "folder/x", "hard/self/inner/x"):
        assert np.array_equal(read_volume(f"{path}:/{name}"), STACK), name
    assert np.array_equal(read_volume(path), STACK)
    refused(path, "has no dataset of numbers /dangling", open_volume, f"{path}:/dangling")
    refused(path, "/circle is a link over more than 40 links", open_volume, f"{path}:/circle")
    with h5py.File(path, "w") as file:
        file["x"] = STACK
        virtual(file, "v", secret, ".")
    assert np.array_equal(read_volume(f"{path}:/v"), STACK)


@pytest.fixture
def others(tmp_path):
    """Return a training set, a model definition and weights, each with a function that reads it."""
    definition, weights = tmp_path / "a.modeldef.h5", tmp_path / "a.caffemodel.h5"
    write_modeldef(definition, ModelDefinition("text"))
    with h5py.File(weights, "w") as file:
        for name in ("data/conv/0", "data/conv/1", "history/0"):
            file[name] = np.ones(3, np.float32)
    return [
        *((write_noise_set(tmp_path / "a.h5"), key, TrainingSet) for key in ("raw", "labels")),
        (definition, "model_prototxt", read_modeldef),
        *((weights, "data/conv/1", read) for read in (hdf5.check_weights, stored_blobs, _history)),
    ]


@pytest.mark.parametrize("outside", OUTSIDE)
def test_training_sets_models_and_weights_that_lie_elsewhere_are_refused(secret, others, outside):
    for path, name, read in others:
        whole = path.read_bytes()
        with h5py.File(path, "a") as file:
            del file[name]
            outside(file, name, secret)
        refused(path, "" if name.startswith("data") else f"/{name}", read, str(path))
        path.write_bytes(whole)


def test_names_that_are_not_utf_8_are_read(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        group = h5py.h5g.create(file.id, b"10 \xb5m")
        h5py.Group(group)["x"] = STACK
    assert np.array_equal(read_volume(path), STACK)
    assert np.array_equal(read_volume(f"{path}:/10 \udcb5m/x"), STACK)


# Far more than a chunk's cache holds; what is written after the error is dropped.
SCRIPT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
import numpy as np
from unet.files.hdf5 import Hdf5Output
told = []
for packing in ({}, dict(compression="gzip", compression_opts=1)):
    try:
        with Hdf5Output(sys.argv[1]) as output:
            with output.changing() as file:
                file.attrs["note"] = "n" * 1000
                shape = (400, 100, 100)
                array = file.create_dataset("v", shape, "f4", chunks=(1, 100, 100), **packing)
            for z in range(400):
                try:
                    with output.changing():
                        array[z] = np.random.rand(100, 100)
                except OSError as error:
                    last = z
        print("closed")
    except OSError as error:
        told.append(f"{last} {error.strerror}")
print(told)
"""


def test_what_is_written_can_be_read(tmp_path):
    path = tmp_path / "a.h5"
    with Hdf5Output(path) as output, output.changing() as file:
        file["numbers"] = np.arange(1000)
        file.attrs["text"] = "µ"
    with h5py.File(path, "r") as file:
        assert file["numbers"][:].tolist() == list(range(1000))
        assert file.attrs["text"] == "µ"
    with Hdf5Output(path, "r+") as output, output.changing() as file:
        del file["numbers"]
        file["others"] = [1.5]
    with h5py.File(path, "r") as file:
        assert list(file) == ["others"]


def test_a_full_disk_is_an_error(small_disk):
    with pytest.raises(OSError, match="No space left"), Hdf5Output(small_disk / "a.h5") as output:
        for name in "abc":
            with output.changing() as file:
                file[name] = np.zeros(1 << 20)


@pytest.mark.parametrize("engine", ["ours", pytest.param("reference", marks=pytest.mark.reference)])
def test_a_file_that_may_not_grow_ends_no_process(engine, request, tmp_path):
    command = request.getfixturevalue(engine).command
    done = subprocess.run(
        [*command, "-c", SCRIPT, str(tmp_path / "a.h5")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['399 File too large', '399 File too large']\n"


def test_a_signal_waits_until_hdf5_is_done(tmp_path):
    script = """
import os, signal, sys
from unet.files.hdf5 import Hdf5Output
try:
    with Hdf5Output(sys.argv[1]) as output, output.changing() as file:
        os.kill(os.getpid(), signal.SIGINT)
        file["a"] = [1]
        print("written")
except KeyboardInterrupt:
    print("stopped")
"""
    command = [sys.executable, "-c", script, str(tmp_path / "a.h5")]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "written\nstopped\n"


def test_groups_in_groups_cost_no_more_than_they_are(tmp_path, monkeypatch):
    path, depth = tmp_path / "a.h5", 3000
    with h5py.File(path, "w") as file:
        group = file.id
        for _ in range(depth):
            group = h5py.h5g.create(group, b"a")
        h5py.Group(group)["x"] = STACK
    opened = []
    open_entry = hdf5.h5o.open

    def counted(group, name):
        opened.append(name)
        return open_entry(group, name)

    monkeypatch.setattr(hdf5.h5o, "open", counted)
    with open_volume(path) as volume:
        assert np.array_equal(volume[:], STACK)
        assert volume.path.endswith("/a/a/x")
    # Once to look, once to go there; none of them by a path, which costs its length.
    assert len(opened) <= 2 * depth + 10
    assert max(map(len, opened)) == 1


def test_a_flipped_bit_is_a_sentence(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("group/x", data=STACK, chunks=(1, 3, 4), compression="gzip")
        file["other"] = "text"
        file.attrs["format"] = np.bytes_(b"unet-training-set")
    whole = path.read_bytes()
    damaged = 0
    for place in range(0, len(whole), 13):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        for read in (read_volume, TrainingSet, hdf5.check_weights):
            try:
                read(path)
            except (InputError, MemoryError) as error:
                assert str(path) in str(error) or isinstance(error, MemoryError)
                assert "\n" not in str(error)
                damaged += 1
    assert damaged > 50
