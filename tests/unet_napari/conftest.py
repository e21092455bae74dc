"""A display, napari's own fixtures and those of pytest-qt, for the tests of this folder alone.

As plugins both would be loaded for the whole suite, which they would slow down and, on a machine
without the libraries of Qt, keep from running.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest

from tests.conftest import unavailable


def _has_windows() -> bool:
    """Tell whether there are napari, which runs on no older Python, and the libraries of Qt."""
    if sys.version_info < (3, 11):
        return False
    try:
        import napari  # noqa: F401
        from qtpy import QtTest  # noqa: F401
    except ImportError:
        # In CI everything has to be there.
        if os.environ.get("CI"):
            raise
        return False
    return True


if not _has_windows():
    collect_ignore_glob = ["*"]
else:
    # npe2 warns of its own use of pydantic, dozens of times.
    with warnings.catch_warnings(action="ignore"):
        import napari.viewer  # noqa: F401
    from napari.utils import _testsupport as of_napari
    from napari.utils._testsupport import (  # noqa: F401
        _disable_qt_warnings,
        make_napari_viewer,
        mock_app_model,
        pytest_runtest_makereport,
    )
    from pytestqt import plugin as of_qt
    from pytestqt.plugin import (  # noqa: F401
        pytest_runtest_call,
        pytest_runtest_setup,
        pytest_runtest_teardown,
        qapp,
        qapp_args,
        qapp_cls,
        qtbot,
    )

    def pytest_addoption(parser: pytest.Parser) -> None:
        of_napari.pytest_addoption(parser)
        of_qt.pytest_addoption(parser)

    def pytest_configure(config: pytest.Config) -> None:
        of_qt.pytest_configure(config)


@pytest.fixture(scope="session", autouse=True)
def display(tmp_path_factory) -> Iterator[None]:
    """Have a display of our own, with OpenGL computed by Mesa, and napari's settings in a folder.

    It ends with this process, not before: Qt would end the process with it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_CONFIG", str(tmp_path_factory.mktemp("napari") / "settings.yaml"))
        patch.setenv("QT_QPA_PLATFORM", "xcb")
        patch.setenv("LIBGL_ALWAYS_SOFTWARE", "1")
        if shutil.which("Xvfb") is None:
            unavailable("there is no Xvfb: apt-get install xvfb")
        read, write = os.pipe()
        command = ["setpriv", "--pdeathsig", "KILL", "Xvfb", "-displayfd", str(write)]
        command += ["-screen", "0", "1400x1000x24", "-nolisten", "tcp"]
        subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
        os.close(write)
        with os.fdopen(read) as number:
            patch.setenv("DISPLAY", f":{number.readline().strip()}")
        yield


@pytest.fixture
def told():
    """Return what demands that napari has shown one more error, a sentence that begins so."""
    from napari.utils.notifications import NotificationSeverity, notification_manager

    errors: list[str] = []

    def note(notification) -> None:
        if notification.severity >= NotificationSeverity.ERROR:
            errors.append(notification.message)

    def demand(pattern: str) -> None:
        (error,) = errors
        assert re.match(pattern, error), error
        assert "\n" not in error
        errors.clear()

    notification_manager.notification_ready.connect(note)
    yield demand
    notification_manager.notification_ready.disconnect(note)
    assert errors == []
