"""Drawings of nets: the text for Graphviz, the picture, and what is said without Graphviz."""

from __future__ import annotations

import re
import sys

import pytest

import caffe
from caffe import draw
from caffe.files.prototxt import parse_net
from caffe.programs import draw_net

NET = """
name: "small"
layer { name: "data" type: "Input" top: "data" }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 2 }
  convolution_param { num_output: 3 kernel_size: 5 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" include { phase: TRAIN } }
"""


@pytest.fixture
def graphviz(tmp_path, monkeypatch):
    """Return what puts a `dot` of the given shell commands in the place of Graphviz."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(commands: str) -> None:
        (folder / "dot").write_text(f"#!/bin/sh\n{commands}\n")
        (folder / "dot").chmod(0o755)

    return put


def statements(text: str) -> dict[str, str]:
    """Return the nodes and edges of a graph in the DOT language with their attributes, sorted."""
    found = re.findall(r"^(.+?) *(?:\[(.*)\])?;$", text, re.MULTILINE)
    return {name: ", ".join(sorted(attributes.split(", "))) for name, attributes in found}


def test_the_text_for_graphviz_has_all_nodes_and_edges():
    layer = r'"conv\n(Convolution)\nkernel size: 5\nstride: 1\npad: 0"'
    neuron = 'fillcolor="#90EE90", shape=record, style=filled'
    blob = 'fillcolor="#E0E0E0", shape=octagon, style=filled'
    text = draw.draw_net(parse_net(NET), "LR", "raw", caffe.TEST).decode()
    assert text.startswith("digraph small {")
    assert statements(text) == {
        "rankdir=LR": "",
        r'"data\n(Input)"': 'fillcolor="#6495ED", shape=record, style=filled',
        "data": blob,
        layer: 'fillcolor="#FF5050", shape=record, style=filled',
        "conv": "",
        r'"relu\n(ReLU)"': neuron,
        r'"data\n(Input)" -> data': 'label=""',
        f"data -> {layer}": 'label=""',
        f"{layer} -> conv": "label=3",
        r'conv -> "relu\n(ReLU)"': 'label=""',
        r'"relu\n(ReLU)" -> conv': 'label=""',
    }


@pytest.mark.parametrize("name", ["scope:0", "node", "Edge"])
def test_names_with_a_meaning_for_graphviz_are_quoted(name):
    text = draw.draw_net(parse_net(f'layer {{ name: "l" type: "T" top: "{name}" }}'), "TB", "raw")
    assert f'"l (T)" -> "{name}"' in statements(text.decode())


def test_the_suffix_names_the_format(graphviz, tmp_path):
    graphviz('echo "$1"; while read -r line; do echo "$line"; done < "$2"')
    picture = tmp_path / "net.tar.svg"
    draw.draw_net_to_file(parse_net(NET), picture, "TB", display_lrm=True)
    first, text = picture.read_text().split("\n", 1)
    assert first == "-Tsvg"
    assert "lr mult: 2.0, 1.0" in text


@pytest.mark.parametrize(
    ("dot", "name", "told"),
    [
        (None, "net.png", "Graphviz, whose program dot is not installed"),
        ("echo no >&2; exit 1", "net.foo", "cannot draw the net as 'foo'"),
        ("echo", "net", "needs a suffix"),
    ],
)
def test_what_cannot_be_drawn_is_told_and_leaves_no_file(
    dot, name, told, graphviz, tmp_path, capfd
):
    if dot:
        graphviz(dot)
    with pytest.raises(caffe.CaffeError, match=told):
        draw.draw_net_to_file(parse_net(NET), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["programs"]
    assert capfd.readouterr() == ("", "")


def test_the_program_draws_a_phase(tmp_path, capsys):
    (tmp_path / "net.prototxt").write_text(NET)
    paths = [str(tmp_path / "net.prototxt"), str(tmp_path / "net.raw")]
    drawn = {}
    for phase in ("TRAIN", "TEST", "ALL"):
        draw_net.main([*paths, "--rankdir", "BT", "--phase", phase, "--display_lrm"])
        drawn[phase] = statements((tmp_path / "net.raw").read_text())
    assert drawn["ALL"] == drawn["TRAIN"]
    assert set(drawn["TRAIN"]) - set(drawn["TEST"]) == {
        '"drop (Dropout)"', 'conv -> "drop (Dropout)"', '"drop (Dropout)" -> conv'
    }  # fmt: skip
    assert "rankdir=BT" in drawn["TEST"]
    assert any("lr mult: 2.0, 1.0" in name for name in drawn["TEST"])
    assert capsys.readouterr().out.count(paths[1]) == 3


def test_the_program_draws_old_nets_too(tmp_path):
    (tmp_path / "old.prototxt").write_text('layers { name: "r" type: RELU bottom: "a" top: "b" }')
    draw_net.main([str(tmp_path / "old.prototxt"), str(tmp_path / "old.raw")])
    assert r'"r\n(ReLU)" -> b' in statements((tmp_path / "old.raw").read_text())


def test_the_program_tells_which_net_cannot_be_drawn(tmp_path):
    net = tmp_path / "net.prototxt"
    net.write_text('layer { name: "r" type: "ReLU" include { } exclude { } }')
    with pytest.raises(caffe.CaffeError, match="layer r has both include and"):
        draw_net.main([str(net), str(tmp_path / "net.raw"), "--phase", "TEST"])
    assert not (tmp_path / "net.raw").exists()


def test_the_program_names_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.delattr(caffe, "draw")
    for module in ("pydot", "pydotplus"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "caffe.draw")
    with pytest.raises(caffe.CaffeError, match="pip install pydot"):
        draw_net.main([str(tmp_path / "net.prototxt"), str(tmp_path / "net.raw")])


def test_the_picture_does_not_take_the_nets_place(tmp_path):
    net = tmp_path / "net.prototxt"
    net.write_text("name: 'n'")
    (tmp_path / "net.png").hardlink_to(net)
    for output in ("net.prototxt", "net.png"):
        with pytest.raises(caffe.CaffeError, match=f"{output}: is the input .* would be lost"):
            draw_net.main([str(net), str(tmp_path / output)])
    assert net.read_text() == "name: 'n'"
