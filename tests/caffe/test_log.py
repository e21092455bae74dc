"""Log lines: their form, where they go, init_log and log against genuine Caffe's."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import caffe
from caffe.log import ERROR, INFO, Log, configure_log, is_logged, log_error, log_info, log_warning

LINE = re.compile(r"([IWE])(\d{4}) \d\d:\d\d:\d\d\.\d{6} +(\d+) ([\w.]+):(\d+)\] (.*)\n")


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    """Log all of it, and as before in the end."""
    monkeypatch.setenv("GLOG_minloglevel", "0")
    yield
    configure_log(None, INFO)


def test_a_line_names_level_process_place_and_text(capsys):
    log_info("one")
    Log("solver.cpp").warning("two")
    Log("net.cpp").error("three")
    caffe.log("four")
    found = [LINE.fullmatch(line) for line in capsys.readouterr().err.splitlines(keepends=True)]
    assert [line[1] for line in found] == list("IWEI")
    assert {line[3] for line in found} == {str(os.getpid())}
    places = ["test_log.py", "solver.cpp", "net.cpp", "test_log.py"]
    assert [line[4] for line in found] == places
    first = int(found[0][5])
    assert [int(line[5]) for line in found] == list(range(first, first + 4))
    assert [line[6] for line in found] == ["one", "two", "three", "four"]


@pytest.mark.parametrize(
    ("least", "heard"), [("0", "IWE"), ("1", "WE"), ("2", "E"), ("3", ""), ("nonsense", "IWE")]
)
def test_glog_minloglevel_silences_lower_levels(monkeypatch, capsys, least, heard):
    monkeypatch.setenv("GLOG_minloglevel", least)
    for speak in (log_info, log_warning, log_error):
        speak("text")
    assert [line[0] for line in capsys.readouterr().err.splitlines()] == list(heard)
    assert is_logged() == ("I" in heard)


SCRIPT = """
import sys
import caffe
caffe.log("early")
caffe.init_log({})
caffe.log("late")
"""


def test_init_log_chooses_what_goes_to_standard_error_as_in_genuine_caffe(genuine):
    cases = ["", "0", "1", "0, True", "1, True", "0, False", "-1, True"]
    lines = "; ".join(
        f"env GLOG_minloglevel=0 GLOG_log_dir=/nonexistent python3 -c '{SCRIPT.format(case)}' "
        f"2>&1 | grep -o 'early\\|late' | tr '\\n' ' '; echo"
        for case in cases
    )
    wanted = [line.split() for line in genuine.command("bash", "-c", lines).stdout.splitlines()]
    got = []
    for case in cases:
        configure_log(None, INFO)
        read, write = os.pipe()
        number = os.fork()
        if number == 0:
            os.dup2(write, 2)
            sys.stderr = os.fdopen(2, "w")
            try:
                exec(SCRIPT.format(case), {})
            finally:
                os._exit(0)
        os.close(write)
        os.waitpid(number, 0)
        with os.fdopen(read) as said:
            got.append(re.findall("early|late", said.read()))
    assert got == wanted
    assert ["early"] in wanted
    assert ["early", "late"] in wanted


@pytest.mark.parametrize("call", ["caffe.log(3)", "caffe.log()", "caffe.init_log('x')"])
def test_other_arguments_are_refused(call):
    with pytest.raises(TypeError):
        eval(call, {"caffe": caffe})


def test_files_hold_a_level_and_those_above_it(tmp_path, capsys):
    configure_log(None, ERROR, str(tmp_path), "program")
    for speak in (log_info, log_warning, log_info):
        speak("text")
    assert capsys.readouterr().err == ""
    links = {path.name: path for path in tmp_path.iterdir() if path.is_symlink()}
    assert sorted(links) == ["program.INFO", "program.WARNING"]
    for name, levels in (("program.INFO", "IWI"), ("program.WARNING", "W")):
        lines = links[name].read_text().splitlines()
        assert lines[0].startswith("Log file created at: ")
        assert [line[0] for line in lines[3:]] == list(levels)
        assert re.fullmatch(
            name.replace(".", r"\.[^.]+\.\w+\.log\.") + rf"\.\d{{8}}-\d{{6}}\.{os.getpid()}",
            str(links[name].readlink()),
        )


def test_a_file_of_the_links_name_stays(tmp_path):
    (tmp_path / "program.INFO").write_text("mine")
    configure_log(None, ERROR, str(tmp_path), "program")
    log_info("text")
    assert (tmp_path / "program.INFO").read_text() == "mine"
    assert len(list(tmp_path.glob("program.*.log.INFO.*"))) == 1


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(caffe.CaffeError, match=r"none: no log can be written there"):
        configure_log(None, INFO, str(tmp_path / "none"))


def test_nets_and_solvers_are_silent_in_tools(repository):
    code = "from unet.machine.engine import open_engine; open_engine().log('heard')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "GLOG_minloglevel"},
        cwd=Path(repository),
    )
    assert (done.returncode, done.stderr) == (0, "")
