"""What tests share: the real data, genuine Caffe, and what happens where these are missing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parity.harness import Engine

REPOSITORY = Path(__file__).resolve().parent.parent


def unavailable(what: str) -> None:
    """Skip a test for what this machine lacks; fail it in CI, where everything has to be there."""
    if os.environ.get("CI"):
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--gpu-parity",
        metavar="FILE",
        help="a line of JSON for each comparison of a GPU with the CPU, as they are made",
    )


def pytest_configure(config: pytest.Config) -> None:
    _compared.clear()
    _parity.clear()
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Compared(config.getoption("gpu_parity")))
    # In the background of a script, and under nohup, signals are ignored that the tests send to
    # what they start, which would ignore them, too; those that are handled it takes as usual.
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, lambda *_: None),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"reference", "both_engines"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.reference)


_LOG_LEVEL = "GLOG_minloglevel"
_log_level = os.environ.get(_LOG_LEVEL)


@pytest.fixture(autouse=True)
def log_level_kept() -> Iterator[None]:
    """Undo what a program that was called has chosen for the log of the whole process."""
    yield
    if _log_level is None:
        os.environ.pop(_LOG_LEVEL, None)
    else:
        os.environ[_LOG_LEVEL] = _log_level


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        # CI has no GPU either: these run where one is.
        if not torch.cuda.is_available():
            pytest.skip("there is no GPU")


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the folder of this repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of reference data that UNET_SHARED_DATA names."""
    folder = os.environ.get("UNET_SHARED_DATA")
    if not folder or not Path(folder).is_dir():
        unavailable("UNET_SHARED_DATA names no folder of reference data")
    return Path(folder)


@pytest.fixture(scope="session")
def isbi_dir() -> Path:
    """Return the folder of the ISBI 2012 stacks, train-volume.tif among them."""
    candidates = [REPOSITORY / "data" / "isbi2012"]
    if os.environ.get("UNET_SHARED_DATA"):
        candidates.insert(0, Path(os.environ["UNET_SHARED_DATA"]) / "isbi2012")
    if os.environ.get("ISBI_DIR"):
        candidates.insert(0, Path(os.environ["ISBI_DIR"]))
    for folder in candidates:
        if (folder / "train-volume.tif").is_file():
            return folder
    unavailable("the ISBI 2012 stacks are missing: name their folder in ISBI_DIR")
    raise AssertionError


@pytest.fixture(scope="session")
def ours() -> Engine:
    """Return this repository's engine, in a process of its own for each run."""
    return Engine.ours()


@pytest.fixture(scope="session")
def reference() -> Engine:
    """Return genuine Caffe, in a process of its own for each run."""
    check = subprocess.run(
        [str(REPOSITORY / "tools" / "caffe-reference"), "--check"], capture_output=True, text=True
    )
    if check.returncode:
        unavailable(check.stderr.strip())
    return Engine.genuine()


class SmallDisk(type(Path())):
    """The folder of a file system of its own."""

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """Let nothing be written for a while."""
        subprocess.run(["mount", "-o", "remount,ro", str(self)], check=True)
        try:
            yield
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(self)], check=True)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[SmallDisk]:
    """Return the folder of a disk of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        unavailable(f"a small disk needs the rights to mount one: {done.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


# Type, cases and largest difference of each layer type that was held against genuine Caffe.
_parity: list[tuple[str, int, float]] = []
# What tests/gpu compares.
_compared: list[dict] = []


class _Compared:
    """Collects the comparisons of all processes, and writes those of a GPU to a file at once."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        if path:
            Path(path).write_text("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        for name, value in report.user_properties:
            if name == "parity":
                _parity.append(value)
            elif name == "gpu_parity":
                _compared.append(value)
                if self.path:
                    row = {**value, "seconds": round(report.duration, 2)}
                    with Path(self.path).open("a") as file:
                        file.write(json.dumps(row) + "\n")


@pytest.fixture
def record_parity(record_property):
    """Return what enters a layer type into the table at the end of the report."""

    def record(kind: str, cases: int, difference: float) -> None:
        record_property("parity", (kind, cases, float(difference)))

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _compared:
        from tests.gpu.compare import Row, table

        terminalreporter.section("a GPU against the CPU")
        for line in table([Row(**row) for row in _compared]):
            terminalreporter.write_line(line)
    if _parity:
        terminalreporter.section("layers against genuine Caffe")
        terminalreporter.write_line(f"{'type':26s}{'cases':>7s}{'largest difference':>22s}")
        for kind, cases, difference in sorted(_parity):
            terminalreporter.write_line(f"{kind:26s}{cases:7d}{difference:22.1e}")
        total = sum(cases for _, cases, _ in _parity)
        terminalreporter.write_line(f"{'all':26s}{total:7d}")
