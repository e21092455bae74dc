"""What `python -m build` makes, installed apart from the checkout: programs, networks, both."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from unet.volumes import read_volume, write_volume

NETWORKS = ["isbi2012", "isbi2012_slim", "phc-u373_slim"]


def build(what: str, source: Path, folder: Path) -> Path:
    """Build an sdist or a wheel of a folder, as `python -m build` has setuptools do it."""
    text = f"from setuptools import build_meta; build_meta.build_{what}({str(folder)!r})"
    subprocess.run([sys.executable, "-c", text], cwd=source, check=True, capture_output=True)
    (made,) = folder.iterdir()
    return made


class Installed:
    """An environment that holds the wheel, and sees the libraries that the suite has."""

    def __init__(self, folder: Path) -> None:
        source = folder / "source"
        for name in ("python", "models"):
            built = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.png")
            shutil.copytree(REPOSITORY / name, source / name, ignore=built, copy_function=os.link)
        for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
            shutil.copy(REPOSITORY / name, source)
        sdist = build("sdist", source, folder / "sdist")
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        wheel = build("wheel", folder / sdist.name[: -len(".tar.gz")], folder / "wheel")
        venv.create(folder / "venv", with_pip=False)
        self.bin, self.folder = folder / "venv" / "bin", folder
        pip = [sys.executable, "-m", "pip", "--python", self.bin / "python", "install"]
        subprocess.run([*pip, "--quiet", "--no-deps", "--no-index", wheel], check=True)
        # Of folders on this path Python reads no .pth, by which the suite finds the checkout.
        search = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(search)}

    def run(self, program: str, *words: str) -> str:
        """Run a program that must end well; return what it printed."""
        done = subprocess.run(
            [self.bin / program, *words],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Installed:
    return Installed(tmp_path_factory.mktemp("wheel"))


@pytest.mark.slow
def test_the_wheel_gives_the_programs_and_the_networks_by_name(installed):
    where = installed.run(
        "python", "-c", "import caffe, unet; print(caffe.__file__, unet.__file__)"
    )
    assert all(name.startswith(str(installed.folder / "venv")) for name in where.split())
    text = "from unet.model.open_net import shipped; print(*shipped())"
    assert installed.run("python", "-c", text).split() == NETWORKS
    assert installed.run("unet", "--help").startswith("  unet segment STACK")
    assert "caffe version" in installed.run("caffe", "-version")
    # The Fiji plugin runs both alone, the second from the folder of the first.
    assert installed.run("caffe_unet").startswith("usage: caffe_unet <command> <args>")
    assert "caffe <command> <args>" in installed.run("caffe")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 60, 50)).astype(np.uint8)
    write_volume(installed.folder / "stack.tif", pixels)
    words = ("--weights", "isbi2012_slim", "--device", "cpu", "-o", "out.tif")
    assert "written: out.tif" in installed.run("unet", "segment", "stack.tif", *words)
    found = read_volume(installed.folder / "out.tif")
    assert found.shape == pixels.shape
    assert 0 <= found.min() < found.max() <= 1


def test_the_wheel_holds_what_a_report_is_made_of(installed):
    (installed.folder / "run").mkdir()
    text = "from unet.report.write import write_report; print(write_report('run'))"
    assert installed.run("python", "-c", text).strip() == "run/report.html"
    page = (installed.folder / "run" / "report.html").read_text(encoding="utf-8")
    for part in ("page.css", "page.js"):
        assert (REPOSITORY / "python" / "unet" / "report" / part).read_text(
            encoding="utf-8"
        ) in page


def test_the_wheel_tells_napari_of_its_widgets_and_a_user_of_what_is_missing(installed):
    text = (
        "from importlib.metadata import distribution;"
        "(one,) = distribution('unet-in-caffe').entry_points.select(group='napari.manifest');"
        "package, _, name = one.value.partition(':');"
        "from importlib.util import find_spec; from pathlib import Path;"
        "print(Path(find_spec(package).origin).with_name(name).read_text());"
        "import sys; sys.modules['napari'] = None\n"
        "try:\n    import unet_napari\nexcept ImportError as error:\n    print(error)\n"
    )
    said = installed.run("python", "-c", text)
    assert "unet_napari.segment_widget:SegmentWidget" in said
    assert "pip install 'unet-in-caffe[napari]' 'napari[all]'" in said.splitlines()[-1]
