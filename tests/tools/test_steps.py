"""Steps of an experiment: what is run again, and what a signal does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from steps import Run, Step, StepFailed, call
from tests.conftest import REPOSITORY
from unet.machine.signals import Stopped

TOOLS = Path(__file__).resolve().parents[2] / "tools"
APPEND = "import sys; open(sys.argv[2], 'a').write(open(sys.argv[1]).read())"


@pytest.fixture
def copy(tmp_path):
    """Make a step that appends its input to its output: every run shows."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("a")
    return Step("copy", ["-c", APPEND, str(source), str(target)], [source], [target])


def test_a_step_is_run_once(tmp_path, copy, capfd):
    Run(tmp_path).run(copy)
    Run(tmp_path).run(copy)
    assert copy.outputs[0].read_text() == "a"
    said = capfd.readouterr().out
    assert said.count("$ ") == 2
    assert said.count("already done") == 1


@pytest.mark.parametrize(
    ("change", "written"),
    [
        (lambda step: step.inputs[0].write_text("b"), "ab"),
        (lambda step: step.command.append("option"), "aa"),
        (lambda step: step.outputs[0].unlink(), "a"),
        (lambda step: step.outputs[0].with_name("steps.json").write_text("{"), "aa"),
    ],
    ids=["input", "command", "output", "record"],
)
def test_a_step_is_run_again_when_anything_has_changed(tmp_path, copy, change, written):
    target = copy.outputs[0]
    Run(tmp_path).run(copy)
    change(copy)
    Run(tmp_path).run(copy)
    assert target.read_text() == written


def test_a_step_without_outputs_is_always_run(tmp_path, copy):
    step = Step(copy.title, copy.command, copy.inputs)
    Run(tmp_path).run(step)
    Run(tmp_path).run(step)
    assert copy.outputs[0].read_text() == "aa"


def test_a_failed_step_carries_its_exit_status_and_is_not_done(tmp_path):
    output = tmp_path / "output"
    step = Step("fail", ["-c", f"open({str(output)!r}, 'w'); raise SystemExit(2)"], [], [output])
    for _ in range(2):
        with pytest.raises(StepFailed) as failed:
            Run(tmp_path).run(step)
        assert failed.value.status == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_step_interrupts_the_run(tmp_path, number):
    with pytest.raises(Stopped) as stopped:
        Run(tmp_path).run(Step("stop", ["-c", f"raise SystemExit({128 + number})"]))
    assert stopped.value.number == number


def test_a_step_that_ends_well_when_asked_to_stop_is_the_last_one():
    ends = "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(0.3)"
    ignores = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    with pytest.raises(Stopped):
        call([sys.executable, "-c", ignores + ends])


def test_a_program_that_a_signal_kills_gives_the_status_of_a_shell():
    command = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    assert call(command) == 128 + signal.SIGKILL


def training(folder: Path, source: Path) -> Step:
    """Return a stand-in for a training: it makes its folder and notes each run in it."""
    program = (
        "import sys, pathlib; folder = pathlib.Path(sys.argv[1]); folder.mkdir(exist_ok=True); "
        "open(folder / 'runs', 'a').write('x')"
    )
    return Step("train", ["-c", program, str(folder)], [source], [folder / "model"])


def test_a_training_goes_on_in_its_folder_until_it_is_done(tmp_path):
    source, folder = tmp_path / "solver", tmp_path / "training"
    source.write_text("rate 1")
    for _ in range(2):
        Run(tmp_path).train(training(folder, source), folder)
    assert (folder / "runs").read_text() == "xx"
    (folder / "model").touch()
    Run(tmp_path).train(training(folder, source), folder)
    assert (folder / "runs").read_text() == "xx"


def test_a_training_from_other_inputs_begins_anew_and_loses_nothing(tmp_path):
    source, folder = tmp_path / "solver", tmp_path / "training"
    for rate in range(3):
        source.write_text(f"rate {rate}")
        Run(tmp_path).train(training(folder, source), folder)
        (folder / "rate").write_text(str(rate))
    assert (folder / "runs").read_text() == "x"
    kept = [(tmp_path / f"training.old{n}" / "rate").read_text() for n in (1, 2)]
    assert kept == ["0", "1"]


CHILD = """
import signal, sys, time
def stop(number, frame):
    print("snapshot", flush=True)
    sys.exit(128 + number)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, stop)
print("training", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_running_program_ends_in_its_own_way_when_the_run_is_stopped(tmp_path, number):
    source = (
        f"import sys; sys.path.insert(0, {str(TOOLS)!r})\n"
        "from pathlib import Path\n"
        "from steps import Run, Step\n"
        f"try: Run(Path({str(tmp_path)!r})).run(Step('train', ['-c', {CHILD!r}]))\n"
        "except KeyboardInterrupt: print('stopped')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    lines = iter(process.stdout.readline, "")
    assert any(line == "training\n" for line in lines)
    # Ctrl-C reaches all programs of the terminal, SIGTERM only the one it is sent to.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    assert list(lines) == ["snapshot\n", "stopped\n"]
    assert process.wait(1800) == 0


def test_the_words_of_a_step_say_what_it_reads_and_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in/stack.tif", "in/net/deploy.prototxt", "out/scores.json"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    words = ("segment", "in/stack.tif", "--net", Path("in/net"), "--slices", "1:2")
    step = Step.unet("it", *words, "-o", "out/new.tif", "--json", "out/scores.json")
    assert step.inputs == [Path("in/stack.tif"), Path("in/net")]
    assert step.outputs == [Path("out/new.tif"), Path("out/scores.json")]
    before = step.fingerprint()
    # A folder is what is in it.
    Path("in/net/deploy.prototxt").write_text("net")
    assert step.fingerprint() != before
    assert str(step).endswith(
        "unet segment in/stack.tif --net in/net --slices 1:2 -o out/new.tif --json out/scores.json"
    )


def test_the_time_and_memory_of_a_step_are_its_programs():
    # From a small process: what a large one starts counts that one's memory as its own.
    idle = "b'x' * 2**28; import time; time.sleep(0.2)"
    code = f"from steps import Step, timed; print(*timed(Step('idle', ['-c', {idle!r}])))"
    said = subprocess.check_output(
        [sys.executable, "-c", code], cwd=REPOSITORY / "tools", text=True
    )
    seconds, peak = map(float, said.split()[-2:])
    assert seconds > 0.2
    assert 0.25 < peak < 1
