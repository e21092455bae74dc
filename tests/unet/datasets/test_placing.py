"""Zip archives: whole ones are read, damaged ones of every kind are a sentence."""

from __future__ import annotations

import zipfile
import zlib

import numpy as np
import pytest

from unet.datasets.placing import open_zip
from unet.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 4, 20_000, np.uint8).tobytes()


@pytest.fixture
def archive(tmp_path):
    """Return a zip of one compressed file."""
    path = tmp_path / "stack.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr("pixels", PIXELS)
    return path


def read(path):
    with open_zip(path) as opened:
        return opened.read("pixels")


def test_a_whole_one_is_read(archive):
    assert read(archive) == PIXELS


def test_a_stream_that_cannot_be_decompressed_is_a_sentence(archive):
    damaged = bytearray(archive.read_bytes())
    # The first block's header, behind the 36 bytes of the member's: no such type of block.
    damaged[36] = 0x07
    archive.write_bytes(damaged)
    with zipfile.ZipFile(archive) as opened, pytest.raises(zlib.error):
        opened.read("pixels")
    with pytest.raises(InputError, match=r"stack\.zip: is no whole zip .*; remove it"):
        read(archive)


@pytest.mark.parametrize("keep", [0, 10, 1000, -1])
def test_a_truncated_one_is_a_sentence(archive, keep):
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"stack\.zip: is no whole zip"):
        read(archive)


def test_other_errors_are_left_alone(archive):
    with pytest.raises(InputError, match=r"^the caller's$"), open_zip(archive):
        raise InputError("the caller's")
