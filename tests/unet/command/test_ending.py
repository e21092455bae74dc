"""How programs end: what becomes of the terminal, and which signals undo what is half done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import os, sys, time
from pathlib import Path
from unet.command.running import run_program
from unet.command.terminal import is_the_output
def main(_):
    if "decides" in sys.argv:
        is_the_output()
    for number in range(2000):
        print("x" * 50, flush=number == 0)
        print("y" * 50, file=sys.stderr)
    Path(sys.argv[1]).write_text("done")
run_program(main)
"""


@pytest.fixture
def program(tmp_path):
    """Return the command of a program that says much and then writes a file."""
    return [sys.executable, "-c", PROGRAM, str(tmp_path / "file")]


def gone() -> int:
    """Return the end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


@pytest.mark.parametrize("stderr", [None, gone, full])
@pytest.mark.parametrize("stdout", [None, gone, full])
def test_what_was_asked_for_is_written_whatever_becomes_of_the_terminal(
    program, tmp_path, stdout, stderr
):
    given = [subprocess.DEVNULL if how is None else how() for how in (stdout, stderr)]
    done = subprocess.run(program, stdout=given[0], stderr=given[1])
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == "done"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_terminal_is_no_error_and_no_output_takes_its_place(program, tmp_path, closed):
    done = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *program], capture_output=True)
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == "done"


def test_a_full_disk_under_the_report_is_told(program, tmp_path):
    done = subprocess.run(program, stdout=full(), stderr=subprocess.PIPE, text=True)
    assert done.stderr.splitlines()[-1] == (
        "standard output: No space left on device; not all was shown"
    )


def test_a_program_whose_report_is_all_ends_without_a_reader_as_others_do(program, tmp_path):
    done = subprocess.run([*program, "decides"], stdout=gone(), stderr=subprocess.PIPE, text=True)
    assert done.returncode == 128 + signal.SIGPIPE
    assert set(done.stderr) == {"y", "\n"} or done.stderr == ""
    done = subprocess.run([*program, "decides"], stdout=full(), stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("No space left on device: 'standard output'")
    assert not (tmp_path / "file").exists()


def test_what_the_terminal_cannot_show_is_shown_by_its_code(tmp_path):
    text = (
        "from unet.command.running import run_program; "
        "run_program(lambda _: print('\\xb5m \\udcb5'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert (done.returncode, done.stdout) == (0, b"\\xb5m \\udcb5\n")


WAITING = """
import sys, time
from unet.command.running import run_program
def main(_):
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        time.sleep(0.3)
        print("undone", flush=True)
run_program(main)
"""


def start(*wrapper: str) -> subprocess.Popen:
    command = [*wrapper, sys.executable, "-c", WAITING]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_undo_and_end_with_their_number(number):
    process = start()
    process.send_signal(number)
    assert process.communicate() == ("undone\n", "stopped\n")
    assert process.returncode == 128 + number


def test_a_second_signal_does_not_cut_the_undoing_short():
    process = start()
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
        time.sleep(0.05)
    assert process.communicate() == ("undone\n", "stopped\n")


def test_what_nohup_has_ignored_stays_ignored():
    process = start("nohup")
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.communicate()[0] == "undone\n"
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("module", ["unet.command.running", "caffe.programs.run"])
def test_a_signal_after_the_end_changes_no_status(module):
    program = (
        f"import atexit, time; from {module} import run_program\n"
        "atexit.register(lambda: (print('ending', flush=True), time.sleep(0.5)))\n"
        "run_program(lambda _: None)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ending\n"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
    assert process.communicate() == ("", "")
    assert process.returncode == 0


@pytest.mark.parametrize("module", ["unet.command.running", "caffe.programs.run"])
def test_a_signal_that_comes_in_a_destructor_is_not_lost(module):
    program = f"""
import os, signal, time
from {module} import run_program
class Thing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
def main(_):
    Thing()
    time.sleep(60)
run_program(main)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "stopped\n")


@pytest.mark.parametrize("module", ["unet.command.running", "caffe.programs.run"])
def test_ctrl_c_in_the_moment_before_the_work_begins_is_no_traceback(module):
    program = f"""
import os, signal
from {module} import run_program
real = os.fstat
def fstat(descriptor):
    os.kill(os.getpid(), signal.SIGINT)
    return real(descriptor)
os.fstat = fstat
run_program(lambda _: print("begun"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_what_a_signal_left_half_made_says_nothing():
    program = """
import os, signal
from unet.command.running import run_program
class Thing:
    def __init__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        self.whole = True
    def __del__(self):
        self.whole
run_program(lambda _: Thing())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "stopped\n")


IMPORTING = """
import os, signal, time
from {module} import run_program
def main(_):
    import slow
    print("imported", flush=True)
    time.sleep(60)
run_program(main)
"""
# As Cython has abstract classes registered, whatever comes of it.
FORGETS = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.{name})
    time.sleep(0.2)
except BaseException:
    pass
"""


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("unet.command.running", "SIGTERM"),
        ("unet.command.running", "SIGINT"),
        ("caffe.programs.run", "SIGHUP"),
    ],
)
def test_a_signal_that_comes_while_a_module_is_imported_waits_until_it_is(module, name, tmp_path):
    (tmp_path / "slow.py").write_text(FORGETS.format(name=name))
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING.format(module=module)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.stdout, done.stderr) == ("imported\n", "stopped\n")
    assert done.returncode == 128 + signal.Signals[name]


def test_a_second_ctrl_c_ends_what_is_being_imported(tmp_path):
    (tmp_path / "slow.py").write_text("import time; print('importing', flush=True); time.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, "-c", IMPORTING.format(module="unet.command.running")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate() == ("", "stopped\n")
    assert process.returncode == 128 + signal.SIGINT


def test_a_signal_that_waits_is_held_where_others_are(tmp_path):
    (tmp_path / "slow.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    program = """
import time
from unet.command.running import run_program
from unet.machine.signals import held
def main(_):
    with held():
        import slow
        time.sleep(0.3)
        print("whole", flush=True)
    time.sleep(60)
run_program(main)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "whole\n")


@pytest.mark.parametrize("module", ["unet.command.running", "caffe.programs.run"])
def test_a_signal_that_comes_while_a_folder_is_closed_that_is_removed_is_a_stop(module, tmp_path):
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    program = f"""
import os, shutil, signal
from {module} import run_program
real = os.close
def close(descriptor):
    real(descriptor)
    os.close = real
    os.kill(os.getpid(), signal.SIGTERM)
def main(_):
    os.close = close
    shutil.rmtree("folder")
run_program(main)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "stopped\n")


# As modules in C that are interrupted while they are imported, what then reads files with them, and
# what forgets all that was wrong before.
MADE_OF_A_STOP = {
    "told": "raise ImportError('initialization failed') from stop",
    "replaced": """
        try:
            raise ImportError('initialization failed') from stop
        except ImportError:
            raise OSError('is the file whole?') from None""",
    "forgotten": "pass\n    raise ImportError('initialization failed')",
}


@pytest.mark.parametrize("made", MADE_OF_A_STOP)
@pytest.mark.parametrize("module", ["unet.command.running", "caffe.programs.run"])
def test_an_error_that_a_library_makes_of_a_signal_is_a_stop(module, made):
    program = f"""
import os, signal, time
from {module} import run_program
def main(_):
    try:
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(60)
    except BaseException as stop:
        {MADE_OF_A_STOP[made]}
run_program(main)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGHUP, "stopped\n")


WRONG = {
    "plain": "raise OSError('the disk is full')",
    "replaced": """
        try:
            {}[0]
        except KeyError:
            raise OSError('the disk is full') from None""",
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("module", ["unet.command.running", "caffe.programs.run"])
def test_what_goes_wrong_while_a_signal_is_answered_is_told(module, wrong):
    program = f"""
import os, signal, time
from {module} import run_program
def main(_):
    try:
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(60)
    finally:
        {wrong}
run_program(main)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "-c: the disk is full\n")
