"""HDF5 on a full disk: an error that can be caught, in new and old versions of h5py."""

from __future__ import annotations

import subprocess
import sys

import h5py
import numpy as np
import pytest

from unet.files.hdf5_output import Hdf5Output

# Far more than a chunk's cache holds; what is written after the error is dropped.
SCRIPT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
import numpy as np
from unet.files.hdf5_output import Hdf5Output
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
from unet.files.hdf5_output import Hdf5Output
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
