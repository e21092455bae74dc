"""The program `export`: its flags, what it prints, and what it says where a package is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.unet.model.test_adapt import write_model
from unet.command.export import main
from unet.errors import InputError


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_model(tmp_path / "model")


def test_onnx_and_a_package_in_one_call(tmp_path, folder, capsys):
    pytest.importorskip("bioimageio.spec")
    onnx, package = tmp_path / "net.onnx", tmp_path / "net.zip"
    main([str(folder), "-o", str(onnx), "--bioimageio", str(package), "--author", "Somebody"])
    said = capsys.readouterr().out.splitlines()
    assert "data             batch x 1 x height x width" in said
    assert "downsampleFactor [4, 4]" in said
    assert f"written: {onnx}" in said
    assert said[-1] == f"written: {package}"
    assert onnx.stat().st_size > 1000
    assert package.stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "hidden", "package"),
    [
        (("-o", "net.onnx"), "onnx", "onnx"),
        (("--bioimageio", "net.zip"), "bioimageio.spec", "bioimageio.spec"),
        (("--bioimageio", "net.zip"), "onnx", "onnx"),
    ],
)
def test_a_package_that_is_missing_is_named(tmp_path, folder, monkeypatch, words, hidden, package):
    for name in [*sys.modules]:
        if name.split(".")[0] == "unet_export":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, hidden, None)
    with pytest.raises(InputError) as told:
        main([str(folder), words[0], str(tmp_path / words[1])])
    assert str(told.value) == f"export needs the package {package}: pip install {package}"
    assert not (tmp_path / words[1]).exists()


@pytest.mark.parametrize("words", [[], ["-o", "net.onnx", "--author", "Somebody"]])
def test_flags_that_say_too_little_or_too_much(folder, words, capsys):
    with pytest.raises(SystemExit) as ended:
        main([str(folder), *words])
    assert ended.value.code == 2
    assert "--bioimageio" in capsys.readouterr().err


def test_a_file_that_is_no_network(tmp_path):
    pytest.importorskip("onnx")
    (tmp_path / "notes.txt").write_text("no weights")
    with pytest.raises(InputError, match=r"no deploy\.prototxt lies beside it"):
        main([str(tmp_path / "notes.txt"), "-o", str(tmp_path / "net.onnx")])
