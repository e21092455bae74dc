"""The record of a training: CSV, TensorBoard events, pictures."""

from __future__ import annotations

import time

import pytest

from unet.errors import InputError
from unet.training.history import History, read_history


def record(folder, start: int, stop: int) -> None:
    curve = History(folder, start)
    for iteration in range(start, stop):
        if iteration % 2 == 0:
            curve.test(iteration, {"test_loss": iteration / 8})
        curve.training(iteration, loss=1 / (1 + iteration), rate=0.5)
    curve.close()


def test_rows_come_back_from_the_file(tmp_path):
    record(tmp_path, 0, 3)
    rows = read_history(tmp_path / "curve.csv")
    assert [row["iteration"] for row in rows] == [0, 0, 1, 2, 2]
    assert [row.get("loss") for row in rows] == [None, 1.0, 0.5, None, 1 / 3]
    assert [row.get("test_loss") for row in rows] == [0, None, None, 0.25, None]
    header = (tmp_path / "curve.csv").read_text().splitlines()[0]
    assert header == "iteration,seconds,rate,loss,test_loss"


def test_rows_beyond_the_iteration_resumed_at_are_dropped_and_made_again(tmp_path):
    record(tmp_path, 0, 7)
    whole = read_history(tmp_path / "curve.csv")
    record(tmp_path, 4, 7)
    again = read_history(tmp_path / "curve.csv")
    for row in whole + again:
        del row["seconds"]
    assert again == whole


def test_seconds_go_on_after_a_resume(tmp_path):
    record(tmp_path, 0, 5)
    rows = read_history(tmp_path / "curve.csv")
    text = (tmp_path / "curve.csv").read_text()
    (tmp_path / "curve.csv").write_text(text.replace(f"\n3,{rows[5]['seconds']}", "\n3,1000.0"))
    record(tmp_path, 4, 6)
    assert read_history(tmp_path / "curve.csv")[-1]["seconds"] >= 1000


def test_a_training_from_the_start_forgets_an_older_curve(tmp_path):
    record(tmp_path, 0, 9)
    record(tmp_path, 0, 2)
    assert max(row["iteration"] for row in read_history(tmp_path / "curve.csv")) == 1


@pytest.mark.parametrize(
    "text", ["a,b\n1,2\n", "iteration,seconds\n1,x\n", "iteration,seconds\n1\n"]
)
def test_a_file_that_is_no_record_is_named_with_its_line(tmp_path, text):
    (tmp_path / "curve.csv").write_text(text)
    with pytest.raises(InputError, match=r"curve\.csv: line 2 "):
        read_history(tmp_path / "curve.csv")


def test_tensorboard_reads_the_events_and_drops_what_a_killed_run_had_noted(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    record(tmp_path, 0, 7)
    # TensorBoard reads event files in the order of the second and the number in their names, as
    # text; two trainings of one process within a second could come out of order.
    time.sleep(1.1)
    record(tmp_path, 4, 6)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "train/rate", "test/loss"}
    loss = events.Scalars("train/loss")
    assert [event.step for event in loss] == [0, 1, 2, 3, 4, 5]
    assert [event.value for event in loss] == pytest.approx([1 / (1 + i) for i in range(6)])


def test_training_goes_on_without_matplotlib_or_tensorboard(tmp_path, monkeypatch, capsys):
    for module in ("matplotlib.figure", "tensorboard.summary.writer.record_writer"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    record(tmp_path, 0, 2)
    said = capsys.readouterr().err
    assert "no curves.png" in said
    assert "no TensorBoard" in said
    assert [path.name for path in tmp_path.iterdir()] == ["curve.csv"]
