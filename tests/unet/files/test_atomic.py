"""Files and folders that are whole or absent: after errors, kills, and beside other programs."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from unet.errors import InputError
from unet.files import atomic as files
from unet.files.atomic import atomic_folder, atomic_parts, atomic_path, sweep_parts, writing


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def killed(folder: Path, script: str) -> None:
    """Run lines in a process of its own, in `folder`, that ends by kill -9."""
    text = (
        "import os, signal\nfrom pathlib import Path\nfrom unet.files import atomic as files\n"
        "from unet.files.atomic import *\n"
        "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n" + script
    )
    done = subprocess.run([sys.executable, "-c", text], cwd=folder)
    assert done.returncode == -signal.SIGKILL


def test_a_file_appears_when_it_is_whole_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
        assert temporary.name == "a.txt"
    assert path.read_text() == "first"
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert path.read_text() == "first"
    assert names(path.parent) == ["a.txt"]


def test_an_error_leaves_no_folder_that_was_made_for_the_file(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "a" / "b" / "c.txt"):
        _ = 1 / 0
    assert names(tmp_path) == []


def test_rights_are_those_of_the_old_file_or_of_the_umask(tmp_path):
    path, before = tmp_path / "a", os.umask(0o027)
    try:
        for mode in (0o640, 0o604):
            with atomic_path(path) as temporary:
                temporary.touch()
            assert path.stat().st_mode & 0o777 == mode
            path.chmod(0o604)
    finally:
        os.umask(before)


def test_what_is_not_a_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(InputError, match="pipe: is not a regular file"),
        atomic_path(tmp_path / "pipe"),
    ):
        pass
    with pytest.raises(InputError, match="folder: is a folder"), atomic_path(tmp_path / "folder"):
        pass


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_replaces_another_as_a_whole(tmp_path, monkeypatch, exchanges):
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda new, place: False)
    for text in ("first", "second"):
        with atomic_folder(tmp_path / "f") as fresh:
            (fresh / text).write_text(text)
        assert names(tmp_path / "f") == [text]
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "f") as fresh:
        (fresh / "third").touch()
        _ = 1 / 0
    assert names(tmp_path) == ["f"]
    assert names(tmp_path / "f") == ["second"]


def test_parts_replace_their_namesakes_and_leave_the_others(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text("old")
    with atomic_parts(tmp_path) as fresh:
        (fresh / "b").write_text("new")
        (fresh / "c").mkdir()
        assert (tmp_path / "b").read_text() == "old"
    assert names(tmp_path) == ["a", "b", "c"]
    assert (tmp_path / "a").read_text() == "old"
    assert (tmp_path / "b").read_text() == "new"
    with pytest.raises(ZeroDivisionError), atomic_parts(tmp_path / "other") as fresh:
        (fresh / "a").touch()
        _ = 1 / 0
    assert names(tmp_path) == ["a", "b", "c"]


def test_what_a_kill_leaves_is_removed_by_the_next_program_that_writes_the_same(tmp_path):
    killed(tmp_path, 'with atomic_path("a.h5") as t: t.write_bytes(b"0" * 99); die()')
    killed(tmp_path, 'with atomic_folder(Path("b.zarr")) as t: (t / "0").touch(); die()')
    killed(tmp_path, 'with atomic_parts(Path("c")) as t: (t / "0").touch(); die()')
    assert len(names(tmp_path)) == 3
    with atomic_path(tmp_path / "other.h5") as temporary:
        temporary.touch()
    assert len(names(tmp_path)) == 4, "what belongs to another output stays"
    with atomic_path(tmp_path / "a.h5") as temporary:
        temporary.touch()
    with atomic_folder(tmp_path / "b.zarr"), atomic_parts(tmp_path / "c"):
        pass
    assert names(tmp_path) == ["a.h5", "b.zarr", "c", "other.h5"]
    assert names(tmp_path / "c") == []


@pytest.mark.parametrize("name", ["a", "a" * 255, os.fsdecode(b"\xb5m"), "a b\n.c"])
def test_temporaries_are_found_again_whatever_the_name(tmp_path, name):
    (tmp_path / "script").write_text(name, errors="surrogateescape")
    killed(
        tmp_path,
        'name = Path("script").read_text(errors="surrogateescape")\n'
        "with atomic_path(name) as t: t.touch(); die()",
    )
    assert len(names(tmp_path)) == 2
    with atomic_path(tmp_path / name) as temporary:
        temporary.touch()
    assert set(names(tmp_path)) == {"script", name}


def test_what_another_program_still_writes_is_left_to_it(tmp_path):
    with atomic_path(tmp_path / "a") as mine:
        mine.write_text("mine")
        with atomic_path(tmp_path / "a") as theirs:
            theirs.write_text("theirs")
        assert mine.read_text() == "mine"
    assert (tmp_path / "a").read_text() == "mine"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("replaced", [0, 1, 2, 3, 4])
def test_parts_of_which_some_had_moved_when_the_kill_came_are_all_moved_by_the_next(
    tmp_path, exchanges, replaced
):
    for name in ("a", "b"):
        (tmp_path / name).write_text("old")
    killed(
        tmp_path,
        f"""
left = {replaced}
real, swap = os.replace, files._exchange
def counted(function):
    def call(*names):
        global left
        if str(names[0]).endswith("json.new"): return function(*names)
        if not left: die()
        left -= 1
        return function(*names)
    return call
os.replace = counted(real)
files._exchange = counted(swap) if {exchanges} else (lambda *_: False)
with atomic_parts(Path(".")) as t:
    (t / "a").write_text("new")
    (t / "b").write_text("new")
    if {exchanges}: left = min(left, 1)
die()
""",
    )
    sweep_parts(tmp_path)
    assert names(tmp_path) == ["a", "b"]
    assert {(tmp_path / name).read_text() for name in ("a", "b")} == {"new"}


def test_a_signal_leaves_nothing_and_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    script = (
        "import os, signal, sys\nfrom unet.command.running import run_program\n"
        "from unet.files.atomic import atomic_path\n"
        "def main(_):\n"
        "    with atomic_path('a') as t:\n"
        "        t.write_text('half'); os.kill(os.getpid(), int(sys.argv[1]))\n"
        "run_program(main)"
    )
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        command = [sys.executable, "-c", script, str(int(number))]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (128 + number, "stopped\n")
        assert names(tmp_path) == ["a"]
        assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "the disk is full; make room"),
        (errno.EDQUOT, "quota, is used up"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EACCES, "may not be written to"),
        (errno.ELOOP, "symbolic links"),
    ],
)
def test_what_the_system_refuses_is_a_sentence_that_names_the_output(tmp_path, number, told):
    path = tmp_path / "out.tif"
    with pytest.raises(InputError, match=rf"^{path}: cannot be written: .*{told}"), writing(path):
        raise OSError(number, os.strerror(number))


def test_a_full_disk_and_a_read_only_one_are_sentences(small_disk):
    path = small_disk / "a.txt"
    path.write_text("old")
    with (
        pytest.raises(InputError, match=rf"^{path}: cannot be written: the disk is full"),
        atomic_path(path) as temporary,
    ):
        temporary.write_bytes(bytes(1 << 20))
    assert names(small_disk) == ["a.txt"]
    with small_disk.read_only():
        for context in (atomic_path, atomic_folder, atomic_parts):
            with (
                pytest.raises(InputError, match="the file system is read-only"),
                context(small_disk / "b" / "c"),
            ):
                pass
    assert path.read_text() == "old"


def test_errors_of_what_is_read_meanwhile_keep_their_own_words(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a"):
        (tmp_path / "absent").read_text()


def test_a_place_in_which_no_folder_can_be_made_is_told():
    told = pytest.raises(InputError, match=r"/proc/a\.tif: cannot be written: no folder")
    with told, atomic_path("/proc/a.tif"):
        pass


def test_what_a_thread_writes_while_its_folder_is_removed_goes_too(tmp_path, monkeypatch):
    real = shutil.rmtree

    def rmtree(folder: Path, **how: bool) -> None:
        real(folder, **how)
        if not list(tmp_path.iterdir()):
            monkeypatch.setattr(shutil, "rmtree", real)
            (folder / "late").mkdir(parents=True)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "out"):
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []
