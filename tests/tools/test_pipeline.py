"""The steps of `make demo` and `make train-isbi`."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import choices
import pipeline
from model_folder import guard_model_folder, make_model_folder
from steps import Pipeline, Step, StepFailed, call
from unet.errors import InputError
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
    Pipeline(tmp_path).run(copy)
    Pipeline(tmp_path).run(copy)
    assert copy.outputs[0].read_text() == "a"
    said = capfd.readouterr().out
    assert said.count("$ ") == 2
    assert said.count("already done") == 1


def test_a_step_is_run_again_when_its_input_has_changed(tmp_path, copy):
    Pipeline(tmp_path).run(copy)
    copy.inputs[0].write_text("b")
    Pipeline(tmp_path).run(copy)
    assert copy.outputs[0].read_text() == "ab"


def test_a_step_is_run_again_when_its_command_has_changed(tmp_path, copy):
    Pipeline(tmp_path).run(copy)
    copy.command.append("option")
    Pipeline(tmp_path).run(copy)
    assert copy.outputs[0].read_text() == "aa"


def test_a_step_is_run_again_when_its_output_is_gone(tmp_path, copy):
    Pipeline(tmp_path).run(copy)
    copy.outputs[0].unlink()
    Pipeline(tmp_path).run(copy)
    assert copy.outputs[0].read_text() == "a"


def test_a_step_without_outputs_is_always_run(tmp_path, copy):
    step = Step(copy.title, copy.command, copy.inputs)
    Pipeline(tmp_path).run(step)
    Pipeline(tmp_path).run(step)
    assert copy.outputs[0].read_text() == "aa"


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_a_damaged_record_only_means_that_steps_are_run_again(tmp_path, copy, text):
    Pipeline(tmp_path).run(copy)
    (tmp_path / "steps.json").write_text(text)
    Pipeline(tmp_path).run(copy)
    assert copy.outputs[0].read_text() == "aa"


def test_a_failed_step_carries_its_exit_status_and_is_not_done(tmp_path):
    output = tmp_path / "output"
    step = Step("fail", ["-c", f"open({str(output)!r}, 'w'); raise SystemExit(2)"], [], [output])
    for _ in range(2):
        with pytest.raises(StepFailed) as failed:
            Pipeline(tmp_path).run(step)
        assert failed.value.status == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_step_interrupts_the_pipeline(tmp_path, number):
    with pytest.raises(Stopped) as stopped:
        Pipeline(tmp_path).run(Step("stop", ["-c", f"raise SystemExit({128 + number})"]))
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
        Pipeline(tmp_path).train(training(folder, source), folder)
    assert (folder / "runs").read_text() == "xx"
    (folder / "model").touch()
    Pipeline(tmp_path).train(training(folder, source), folder)
    assert (folder / "runs").read_text() == "xx"


def test_a_training_from_other_inputs_begins_anew_and_loses_nothing(tmp_path):
    source, folder = tmp_path / "solver", tmp_path / "training"
    for rate in range(3):
        source.write_text(f"rate {rate}")
        Pipeline(tmp_path).train(training(folder, source), folder)
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
def test_the_running_program_ends_in_its_own_way_when_the_pipeline_is_stopped(tmp_path, number):
    source = (
        f"import sys; sys.path.insert(0, {str(TOOLS)!r})\n"
        "from pathlib import Path\n"
        "from steps import Pipeline, Step\n"
        f"try: Pipeline(Path({str(tmp_path)!r})).run(Step('train', ['-c', {CHILD!r}]))\n"
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


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(choices, "gpu_works", lambda device: False)


def isbi(*arguments: str):
    return pipeline.parse(["isbi", *arguments])


def choose(options):
    return choices.choose(options, pipeline.CPU_ITERATIONS, pipeline.WEIGHTING, "train-isbi")


def test_without_a_gpu_the_slim_net_is_trained_and_told_what_the_papers_takes(
    no_gpu, monkeypatch, capsys
):
    monkeypatch.chdir(TOOLS.parent)
    chosen = choose(isbi("--net", "", "--iterations", ""))
    assert (chosen.net, chosen.method, chosen.device) == ("unet_slim", "adam", "auto")
    assert chosen.iterations * choices.CPU_SECONDS["unet_slim"] < 25 * 60
    said = capsys.readouterr().out
    assert "make train-isbi NET=unet" in said
    assert said.count("\n") == 1


def test_with_a_gpu_the_papers_net_is_trained_as_its_solver_says(monkeypatch):
    monkeypatch.chdir(TOOLS.parent)
    monkeypatch.setattr(choices, "gpu_works", lambda device: True)
    chosen = choose(isbi())
    assert (chosen.net, chosen.method, chosen.weighting) == ("unet", "sgd", "paper")
    assert chosen.iterations == 30_000
    chosen = choose(isbi("--net", "unet_slim", "--iterations", "7", "--solver", "sgd"))
    assert chosen.variables() == (
        "NET=unet_slim SOLVER=sgd WEIGHTING=none ITERATIONS=7 PRECISION=fp32"
    )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names instructions of x86-64")
def test_a_card_names_the_precision_that_was_computed_in(no_gpu, monkeypatch, capfd):
    monkeypatch.chdir(TOOLS.parent)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    chosen = choose(isbi("--net", "unet_slim", "--precision", "bf16"))
    assert chosen.variables().endswith("PRECISION=fp32")
    assert capfd.readouterr().err.count("bf16 would be slower than float32") == 1
    assert choices.computed_in("cpu", "tf32") == "tf32"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "gpu"], "DEVICE=gpu"),
        (["--iterations", "-3"], "'-3' is not a whole number"),
        (["--iterations", "0"], "'0' is not a whole number"),
        (["--split", "half"], "half"),
        (["--solver", "lbfgs"], "lbfgs"),
        (["--weighting", "most"], "most"),
        (["--precision", "fp8"], "fp8"),
    ],
)
def test_wrong_variables_are_told(arguments, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        isbi(*arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--device", "7"], "DEVICE=7"), (["--net", "vnet", "--device", "cpu"], "NET=vnet")],
)
def test_what_is_not_there_is_one_sentence(arguments, said):
    finished = subprocess.run(
        [sys.executable, str(TOOLS / "pipeline.py"), "isbi", *arguments],
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 2
    assert said in finished.stderr
    assert finished.stderr.count("\n") == 1


def test_the_model_folder_has_what_is_needed_and_a_card_with_the_scores(tmp_path):
    run, training = tmp_path / "run", tmp_path / "run" / "training"
    training.mkdir(parents=True)
    (run / "overlay.png").write_bytes(b"overlay")
    (training / "curves.png").write_bytes(b"curves")
    model, deploy = training / "net_iter_9.caffemodel", tmp_path / "deploy.prototxt"
    model.write_bytes(b"weights")
    deploy.write_text("net")
    (tmp_path / "input.json").write_text("{}")
    scores = dict.fromkeys(pipeline.SCORES, 0.25)
    (run / "scores.json").write_text(json.dumps(scores))
    target = tmp_path / "models" / "it"
    command = "make train-isbi NET=unet_slim SPLIT=holdout SOLVER=adam ITERATIONS=9"
    text = pipeline.card("unet_slim", "holdout", command, scores)
    make_model_folder(target, run, model, deploy, text, scored=True)
    assert sorted(path.name for path in target.iterdir()) == [
        "README.md",
        "curves.png",
        "deploy.prototxt",
        "input.json",
        "overlay.png",
        "scores.json",
        "weights.caffemodel",
    ]
    card = (target / "README.md").read_text()
    assert command in card
    assert "| rand_error | 0.250000 |" in card
    # Made anew as long as its card says what it is.
    make_model_folder(target, run, model, deploy, text, scored=True)
    (target / "README.md").write_text("my notes")
    for guarded in (target, target / "README.md"):
        with pytest.raises(InputError, match=r"exists, and its README.md does not say .* move it"):
            guard_model_folder(guarded)
    with pytest.raises(InputError, match="move it away"):
        make_model_folder(target, run, model, deploy, text, scored=True)
    assert (target / "README.md").read_text() == "my notes"


def test_the_phantom_stands_in_where_there_is_no_network(monkeypatch, tmp_path):
    monkeypatch.chdir(TOOLS.parent)
    monkeypatch.delenv("ISBI_DIR", raising=False)
    monkeypatch.setattr(pipeline, "STACKS", tmp_path)

    def unreachable(*_args, **_options):
        raise OSError("no network")

    monkeypatch.setattr(pipeline.urllib.request, "urlopen", unreachable)
    folder, what = pipeline.demo_stacks()
    assert folder.name == "phantom"
    assert "phantom" in what
    assert "no network" in what
    (tmp_path / "train-volume.tif").touch()
    assert pipeline.demo_stacks()[0] == tmp_path
