"""The upgrade programs against genuine Caffe's: files, log lines, exit statuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from google.protobuf import text_format

from caffe import CaffeError
from caffe.programs import upgrade_protos
from caffe.proto import caffe_pb2
from tests.caffe.files import test_upgrade
from tests.caffe.files.test_upgrade import INPUT

NETS = {
    **test_upgrade.NETS,
    "v0 too much": f"{INPUT} layers {{ bottom: 'b' layer {{ name: 'r' type: 'relu' group: 2 }} }}",
    "v1 weights": "layers { name: 'i' type: INNER_PRODUCT blobs_lr: 2 blobs { "
    "num: 1 channels: 1 height: 1 width: 3 data: [1, -2, 3e-9] diff: 4 } }",
    "current weights": "layer { name: 'c' type: 'Convolution' blobs { shape { dim: 2 } "
    "data: [0.1, 1e30] } }",
}
SOLVERS = {
    **test_upgrade.SOLVERS,
    "net in it": "net_param { layers { name: 'r' type: RELU } } solver_type: NESTEROV",
}
WRONG = {
    "text": ("upgrade_net_proto_text", b"nonsense {{"),
    "solver": ("upgrade_solver_proto_text", b'name: "net"'),
    "binary": ("upgrade_net_proto_binary", b"\n\x09abc\x12\x08aa"),
    "text as binary": ("upgrade_net_proto_binary", b'name: "net"'),
}
PROGRAMS = {
    program.__name__: program
    for program in (
        upgrade_protos.upgrade_net_proto_text,
        upgrade_protos.upgrade_net_proto_binary,
        upgrade_protos.upgrade_solver_proto_text,
    )
}


def told(log: str) -> list[str]:
    """Return level and text of log lines; which file and field is at fault is told differently."""
    lines = re.findall(r"^([IWE])\d{4} [\d:.]+ +\d+ \S+\] (.*)$", log, re.MULTILINE)
    fault = re.compile(r"Unknown parameter|has no parameter")
    return [f"{level} {text}" for level, text in lines if not fault.search(text)]


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> dict[str, tuple[str, Path]]:
    """Return program and input file by case."""
    folder = tmp_path_factory.mktemp("upgrade")
    found = {}

    def add(name: str, program: str, data: bytes) -> None:
        path = folder / f"{len(found)}.in"
        path.write_bytes(data)
        found[name] = (program, path)

    for name, text in NETS.items():
        net = text_format.Parse(text, caffe_pb2.NetParameter())
        add(f"text {name}", "upgrade_net_proto_text", text.encode())
        add(f"binary {name}", "upgrade_net_proto_binary", net.SerializeToString())
    for name, text in SOLVERS.items():
        add(f"solver {name}", "upgrade_solver_proto_text", text.encode())
    for name, (program, data) in WRONG.items():
        add(f"wrong {name}", program, data)
    return found


@pytest.fixture(scope="module")
def judged(cases, genuine) -> dict[str, tuple[int, list[str], bytes | None]]:
    """Return genuine Caffe's exit status, log and output by case."""
    script = "".join(
        f"{program} {path} {path.with_suffix('.wanted')} 2>{path.with_suffix('.log')}; echo $?\n"
        for program, path in cases.values()
    )
    done = genuine.command("env", "GLOG_minloglevel=0", "bash", "-c", script)
    found = {}
    for (name, (_, path)), status in zip(cases.items(), done.stdout.split(), strict=True):
        wanted = path.with_suffix(".wanted")
        log = path.with_suffix(".log").read_text().replace(str(wanted), "OUT")
        found[name] = int(status), told(log), wanted.read_bytes() if wanted.exists() else None
    return found


def parsed(program: str, data: bytes):
    """Return the message in an output file."""
    if program == "upgrade_net_proto_binary":
        return caffe_pb2.NetParameter.FromString(data)
    solver = program == "upgrade_solver_proto_text"
    message = caffe_pb2.SolverParameter() if solver else caffe_pb2.NetParameter()
    return text_format.Parse(data.decode(), message)


NAMES = [f"{kind} {name}" for name in NETS for kind in ("text", "binary")]
NAMES += [f"solver {name}" for name in SOLVERS]


@pytest.mark.parametrize("name", NAMES)
def test_files_become_what_genuine_caffe_makes_of_them(
    name, cases, judged, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("GLOG_minloglevel", "0")
    program, path = cases[name]
    status = PROGRAMS[program]([str(path), str(tmp_path / "out")])
    log = told(capsys.readouterr().err.replace(str(tmp_path / "out"), "OUT"))
    wanted_status, wanted_log, wanted = judged[name]
    assert status == wanted_status
    assert log == wanted_log
    assert log
    got = (tmp_path / "out").read_bytes()
    assert parsed(program, got) == parsed(program, wanted)
    if program == "upgrade_net_proto_binary":
        assert got == wanted


@pytest.mark.parametrize("name", WRONG)
def test_what_genuine_caffe_refuses_is_refused(name, cases, judged, tmp_path):
    program, path = cases[f"wrong {name}"]
    status, _, output = judged[f"wrong {name}"]
    assert (status, output) == (2, None)
    with pytest.raises(CaffeError, match=re.escape(str(path))):
        PROGRAMS[program]([str(path), str(tmp_path / "out")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_is_no_file_is_refused(program, tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(CaffeError, match=r"no such file|is a folder"):
            PROGRAMS[program]([str(path), str(tmp_path / "out")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_usage_is_told(program, genuine, capsys, monkeypatch):
    monkeypatch.setenv("GLOG_minloglevel", "0")
    done = genuine.command(program, "one")
    assert PROGRAMS[program](["one"]) == done.returncode == 1
    assert told(capsys.readouterr().err) == told(done.stderr)
    assert "Usage" in done.stderr


def test_a_file_can_be_upgraded_in_place(tmp_path):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(
        text_format.Parse(NETS["v1 weights"], caffe_pb2.NetParameter()).SerializeToString()
    )
    assert upgrade_protos.upgrade_net_proto_binary([str(path), str(path)]) == 0
    assert caffe_pb2.NetParameter.FromString(path.read_bytes()).layer[0].type == "InnerProduct"


@pytest.mark.parametrize("program", ["upgrade_net_proto_text", "upgrade_net_proto_binary"])
def test_in_place_nothing_is_left_out(tmp_path, program):
    net = text_format.Parse(NETS["v0 too much"], caffe_pb2.NetParameter())
    binary = program == "upgrade_net_proto_binary"
    before = net.SerializeToString() if binary else NETS["v0 too much"].encode()
    (tmp_path / "net").write_bytes(before)
    (tmp_path / "hard").hardlink_to(tmp_path / "net")
    (tmp_path / "soft").symlink_to("net")
    for name in ("net", "hard", "soft"):
        with pytest.raises(CaffeError, match=r"is the input .*, which would be lost"):
            PROGRAMS[program]([str(tmp_path / "net"), str(tmp_path / name)])
        assert (tmp_path / "net").read_bytes() == (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize(("given", "written"), [("true", "CEIL"), ("false", "FLOOR")])
def test_ceil_mode_becomes_the_word_that_genuine_caffe_reads(tmp_path, given, written):
    (tmp_path / "a").write_text(
        f"{INPUT} layer {{ name: 'p' type: 'Pooling' bottom: 'a' top: 'p' "
        f"pooling_param {{ kernel_size: 2 ceil_mode: {given} }} }}"
    )
    assert upgrade_protos.upgrade_net_proto_text([str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    text = (tmp_path / "b").read_text()
    assert f"round_mode: {written}" in text
    assert "ceil_mode" not in text
