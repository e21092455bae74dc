"""parse_log and plot_training_log, on logs of a training that can be computed by hand."""

from __future__ import annotations

import csv
import math
import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

import caffe
from caffe.programs import parse_log, plot_training_log
from caffe.programs.run import run_program

# One weight w, drawn towards 3: the loss is 2 * (w - 3)^2 / 2, the accuracy w / 10.
NET = """
name: "one weight"
layer { name: "data" type: "DummyData" top: "x" top: "y" dummy_data_param {
  shape { dim: 1 dim: 1 } shape { dim: 1 dim: 1 }
  data_filler { type: "constant" value: 1 } data_filler { type: "constant" value: 3 } } }
layer { name: "w" type: "InnerProduct" bottom: "x" top: "w" inner_product_param {
  num_output: 1 bias_term: false weight_filler { type: "constant" value: 0 } } }
layer { name: "accuracy" type: "Power" bottom: "w" top: "accuracy" power_param { scale: 0.1 }
  include { phase: TEST } }
layer { name: "loss" type: "EuclideanLoss" bottom: "w" bottom: "y" top: "loss" loss_weight: 2 }
"""
SOLVER = """
net: "{folder}/net.prototxt" type: "SGD" base_lr: 0.1 lr_policy: "step" stepsize: 4 gamma: 0.5
display: 2 max_iter: 9 test_iter: 1 test_interval: 3 snapshot: 6 snapshot_prefix: "{folder}/net"
solver_mode: CPU
"""


def rate(iteration: int) -> float:
    return 0.1 * 0.5 ** (iteration // 4)


def weight(iteration: int) -> float:
    return 3 - 3 * math.prod(1 - 2 * rate(step) for step in range(iteration))


def loss(iteration: int) -> float:
    return (weight(iteration) - 3) ** 2 / 2


@pytest.fixture(scope="module")
def logs(genuine, tmp_path_factory) -> dict[str, Path]:
    """Return logs of genuine Caffe: of a whole training, and of one resumed at iteration 6.

    And of a whole training by this engine.
    """
    folder = tmp_path_factory.mktemp("training")
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(SOLVER.format(folder=folder))
    train = f"caffe train -solver {folder}/solver.prototxt"
    done = genuine.command(
        *("env", "GLOG_minloglevel=0", "bash", "-c"),
        f"{train} 2>{folder}/whole.log && "
        f"{train} -snapshot {folder}/net_iter_6.solverstate 2>{folder}/second.log",
    )
    assert done.returncode == 0, done.stderr
    whole, second = folder / "whole.log", folder / "second.log"
    (folder / "resumed.log").write_text(whole.read_text() + second.read_text())
    own = subprocess.run(
        [sys.executable, "-m", "caffe", "train", "-solver", f"{folder}/solver.prototxt"],
        capture_output=True,
        text=True,
        env={**os.environ, "GLOG_minloglevel": "0"},
    )
    assert own.returncode == 0, own.stderr
    (folder / "ours.log").write_text(own.stderr)
    return {"whole": whole, "resumed": folder / "resumed.log", "ours": folder / "ours.log"}


TRAIN = [0, 2, 4, 6, 8]
TEST = [0, 3, 6, 9]


def check(train, test, train_at=TRAIN, test_at=TEST, resumed=False) -> None:
    """Compare rows with what the formulas give at the iterations given."""
    assert [row["NumIters"] for row in train] == train_at
    assert [row["NumIters"] for row in test] == test_at
    for row in [*train, *test]:
        at = int(row["NumIters"])
        assert row["loss"] == pytest.approx(loss(at), rel=1e-4)
        # The rate is printed at the iterations of TRAIN, after the outputs: as in the tables of
        # Caffe's own script a row has what was printed before it, the first what the second has.
        before = max((printed for printed in TRAIN if printed < at), default=0)
        if not resumed:
            assert row["LearningRate"] == pytest.approx(rate(before), rel=1e-4)
    for row in test:
        assert row["accuracy"] == pytest.approx(weight(int(row["NumIters"])) / 10, rel=1e-4)
    names = ["NumIters", "Seconds", "LearningRate"]
    assert {tuple(row) for row in train} == {(*names, "loss")}
    assert {tuple(row) for row in test} == {(*names, "accuracy", "loss")}


def seconds(log: str, marks: str) -> list[float]:
    """Return the seconds of the lines with `marks` since the first that says Solving."""

    def at(line: str) -> datetime:
        return datetime.strptime("2026" + line[1:].split(" [")[0][:20], "%Y%m%d %H:%M:%S.%f")

    lines = log.splitlines()
    start = next(at(line) for line in lines if "Solving" in line)
    return [(at(line) - start).total_seconds() for line in lines if re.search(marks, line)]


@pytest.mark.parametrize("name", ["whole", "ours"])
def test_a_log_becomes_rows(logs, name):
    train, test = parse_log.parse_log(logs[name])
    check(train, test)
    text = logs[name].read_text()
    for rows, marks in ((train, "Train net output #0"), (test, "Test net output #0")):
        assert [row["Seconds"] for row in rows] == pytest.approx(seconds(text, marks), abs=1e-6)


def test_a_resumed_training_goes_on(logs):
    train, test = parse_log.parse_log(logs["resumed"])
    check(train, test, [*TRAIN, 6, 8], [*TEST, 6, 9], resumed=True)
    # At 6 what the first training printed last, at 8.
    rates = [row["LearningRate"] for row in train]
    assert rates == pytest.approx([rate(at) for at in (0, 0, 2, 4, 6, 8, 6)], rel=1e-4)
    wanted = seconds(logs["resumed"].read_text(), "Train net output #0")
    assert [row["Seconds"] for row in train] == pytest.approx(wanted, abs=1e-6)


def test_a_resumed_training_begins_a_row_of_its_own_at_the_same_iteration(logs, tmp_path):
    whole, second = (logs["resumed"].with_name(f"{name}.log") for name in ("whole", "second"))
    cut = whole.read_text().split("Iteration 8")[0].rsplit("\n", 1)[0]
    (tmp_path / "log").write_text(f"{cut}\n{second.read_text()}")
    check(*parse_log.parse_log(tmp_path / "log"), [0, 2, 4, 6, 6, 8], [0, 3, 6, 6, 9], True)


def made_up(lines: list[tuple[str, str]]) -> str:
    return "".join(f"I{stamp}.500000  4321 solver.cpp:228] {text}\n" for stamp, text in lines)


@pytest.mark.parametrize(
    ("start", "later", "passed"),
    [
        ("0210 23:59:58", "0211 00:00:03", 5),
        ("1231 23:00:00", "0101 01:00:00", 7200),
        ("0228 23:59:59", "0301 00:00:01", 2),
        ("0229 23:59:59", "0301 00:00:01", 2),
        ("1231 00:00:00", "0229 00:00:00", 60 * 86400),
        ("20191231 23:00:00", "20200101 01:00:00", 7200),
    ],
)
def test_seconds_go_on_over_midnight_and_new_year(start, later, passed, tmp_path):
    lines = [
        (start, "Solving net"),
        (later, "Iteration 7, loss = 0.5"),
        (later, "    Train net output #0: loss = 0.5 (* 1 = 0.5 loss)"),
    ]
    (tmp_path / "log").write_text(made_up(lines))
    (row,), test = parse_log.parse_log(tmp_path / "log")
    assert (row["NumIters"], row["Seconds"], row["loss"], test) == (7, passed, 0.5, [])
    assert math.isnan(row["LearningRate"])


def test_values_that_are_no_numbers_and_lines_that_are_none_are_read_over(tmp_path):
    lines = [
        ("0210 10:00:00", "Solving net"),
        ("0210 10:00:01", "Iteration 0, loss = nan"),
        ("0210 10:00:01", "    Train net output #0: a/b = -nan (* 1 = -nan loss)"),
        ("0210 10:00:01", "    Train net output #1: c = -1.5e-08"),
        ("0210 10:00:02", "Iteration 0, lr = 1e-05"),
        ("0231 10:00:03", "Iteration 1, lr = 7"),
        ("0210 10:00:04", "Iteration 2, loss = inf"),
        ("0210 10:00:04", "    Train net output #0: a/b = inf"),
    ]
    (tmp_path / "log").write_text("layer {\n" + made_up(lines) + "Iteration 9, lr = 3\nI0210 10:")
    (first, second), _ = parse_log.parse_log(tmp_path / "log")
    assert math.isnan(first.pop("a/b"))
    assert first == {"NumIters": 0, "Seconds": 1, "LearningRate": 1e-5, "c": -1.5e-8}
    assert second == {"NumIters": 2, "Seconds": 4, "LearningRate": 1e-5, "a/b": math.inf}


def test_the_program_writes_tables(logs, tmp_path, capsys):
    parse_log.main([str(logs["resumed"]), str(tmp_path / "new" / "folder")])
    assert capsys.readouterr().out == ""
    rows = []
    for kind in ("train", "test"):
        with open(tmp_path / "new" / "folder" / f"resumed.log.{kind}", newline="") as file:
            table = csv.DictReader(file)
            rows.append([{name: float(cell) for name, cell in row.items()} for row in table])
    assert tuple(rows) == parse_log.parse_log(logs["resumed"])

    parse_log.main([str(logs["whole"]), str(tmp_path), "--delimiter", ";", "--verbose"])
    said = capsys.readouterr().out
    for kind, head in (("train", "loss"), ("test", "accuracy;loss")):
        lines = (tmp_path / f"whole.log.{kind}").read_text().splitlines()
        assert lines[0] == f"NumIters;Seconds;LearningRate;{head}"
        assert f"Wrote {tmp_path / 'whole.log'}.{kind}" in said


def test_rows_of_unlike_names_share_a_table_and_no_rows_make_none(tmp_path, capsys):
    parse_log.write_csv(tmp_path / "rows", [{"a": 1.0}, {"a": 2.0, "b": 3.0}], ",")
    assert (tmp_path / "rows").read_text().splitlines() == ["a,b", "1.0,", "2.0,3.0"]
    parse_log.write_csv(tmp_path / "none", [], ",", verbose=True)
    assert capsys.readouterr().out == f"Not writing {tmp_path / 'none'}; no lines to write\n"
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("chart", range(8))
def test_charts_show_what_their_titles_say(chart, logs):
    figure = plot_training_log.make_figure(chart, list(logs.values()))
    (axes,) = figure.axes
    kinds = ("Test accuracy", "Test loss", "Train learning rate", "Train loss")
    kind, over = kinds[chart // 2], ("Iters", "Seconds")[chart % 2]
    assert axes.get_title() == f"{kind} vs. {over}"
    for line, name in zip(axes.lines, logs, strict=True):
        iterations, text = (TEST if chart < 4 else TRAIN), logs[name].read_text()
        if name == "resumed":
            iterations = [*iterations, *(at for at in iterations if at >= 6)]
        # The training loss is the weighted one that the solver prints.
        value = (lambda at: weight(at) / 10, loss, rate, lambda at: 2 * loss(at))[chart // 2]
        assert line.get_label() == f"{name}.log"
        assert list(line.get_ydata()) == pytest.approx([value(at) for at in iterations], rel=1e-4)
        marks = ("Test net output #0", "Test net output #0", ", lr = ", ", loss = ")[chart // 2]
        along = iterations if chart % 2 == 0 else seconds(text, marks)
        assert list(line.get_xdata()) == pytest.approx(along, abs=1e-6)


def test_the_program_writes_a_picture(logs, tmp_path):
    plot_training_log.main(["6", str(tmp_path / "loss.png"), str(logs["whole"])])
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_log_without_what_is_plotted_is_refused(tmp_path):
    lines = [
        ("0210 10:00:00", "Solving net"),
        ("0210 10:00:00", "Iteration 0, Testing net (#0)"),
        ("0210 10:00:00", "    Test net output #0: error = 1"),
    ]
    (tmp_path / "log").write_text(made_up(lines))
    with pytest.raises(caffe.CaffeError, match=r"log: has no test accuracy; .*outputs: error"):
        plot_training_log.main(["0", str(tmp_path / "a.png"), str(tmp_path / "log")])
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("content", "options", "told"),
    [
        (None, [], "No such file"),
        ("", [], "has no line that says 'Solving'"),
        ("\x00\xff", [], "has no line that says 'Solving'"),
        ("", ["--delimiter", "::"], "--delimiter must be one character"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(
    content, options, told, tmp_path, capsys, monkeypatch
):
    if content is not None:
        (tmp_path / "log").write_text(content, encoding="latin-1")
    words = ["/somewhere/parse_log", str(tmp_path / "log"), str(tmp_path / "out"), *options]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as left:
        run_program(parse_log.main)
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("parse_log: ")
    assert told in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_bug_keeps_its_traceback_and_an_interruption_is_status_130():
    def stop(argv):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as left:
        run_program(stop)
    assert left.value.code == 130
    with pytest.raises(ZeroDivisionError):
        run_program(lambda argv: 1 // 0)


def test_no_output_takes_the_place_of_a_log(tmp_path):
    log = tmp_path / "a.log"
    log.write_text("a training")
    for output in ("a.log.train", "a.log.test", "picture.png"):
        (tmp_path / output).hardlink_to(log)
        with pytest.raises(
            caffe.CaffeError, match=f"{output}: is the input .*, which would be lost"
        ):
            if output == "picture.png":
                plot_training_log.main(["6", str(tmp_path / output), "absent.log", str(log)])
            else:
                parse_log.main([str(log), str(tmp_path)])
        (tmp_path / output).unlink()
    with pytest.raises(caffe.CaffeError, match=r"a.log: is the input .*, which would be lost"):
        plot_training_log.main(["6", str(log), "absent.log", str(log)])
    assert log.read_text() == "a training"
