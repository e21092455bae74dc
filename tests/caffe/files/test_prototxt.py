"""The text format: what is read and written, and how a mistake in it is told."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

import caffe
from caffe.errors import CaffeError
from caffe.files import limits, prototxt
from caffe.files.prototxt import parse_net, parse_solver, read_net, read_solver, write_text
from caffe.proto import caffe_pb2

NET = """\
name: "net" # a comment with a } brace
layer {
  name: 'a "quoted" {' type: "Convolution"; bottom: "data", top: "conv"
  convolution_param < num_output: 0x10 kernel_size: [3, 5] weight_filler { type: "msra" } >
  param { lr_mult: 1e-1 } include: { phase: TRAIN stage: "isbi" }
}
"""


def test_all_that_the_format_allows_is_read():
    layer = parse_net(NET).layer[0]
    assert layer.name == 'a "quoted" {'
    assert (layer.bottom, layer.top) == (["data"], ["conv"])
    assert layer.convolution_param.num_output == 16
    assert layer.convolution_param.kernel_size == [3, 5]
    assert layer.include[0].stage == ["isbi"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('layer {\n  bottum: "d"\n}', r"2:3: LayerParameter has no field 'bottum'.*bottom\?"),
        ("layer { pooling_param { pol: MAX } }", r"1:25: PoolingParameter.*'pol'.*pool\?"),
        ("nonsense: 3", "1:1: NetParameter has no field 'nonsense'$"),
        ('base_lr: 0.1\nnet: "a"', "1:1: 'base_lr' is a field of a solver, not of a net"),
        ("layer { name: 3 }", "1:15: layer '3': expected text in quotes, found 3$"),
        ("layer { type: RELU }", '1:15: a layer of type RELU: expected a .* type: "ReLU"$'),
        ('layer {\n inner_product_param { num_output: "x" } }', "2:36: couldn't parse integer"),
        ("layer { inner_product_param { num_output: -3 } }", "1:43: value out of range: -3"),
        ("layer { relu_param { negative_slope: abc } }", "1:38: couldn't parse float: abc"),
        (
            "layer { pooling_param { pool: MAXX } }",
            "1:31: MAXX is not a PoolMethod: there are MAX, AVE",
        ),
        ("layer { phase: 7 }", "1:16: 7 is not a Phase: there are TRAIN, TEST$"),
        ("force_backward: maybe", '1:17: expected "true" or "false"'),
        ('layer { name: "x" name: "y" }', "1:25: layer 'x': 'name' is given twice"),
        ('layer {\n name: "x"\n relu_param {\n', "the brace opened at 3:13 is never closed"),
        ('layer { name: "{" # }\n', "the brace opened at 1:7 is never closed"),
        ('layer { name: "x" } }', '1:21: a "}" closes nothing'),
        ('layer { name: "x }', "1:15: layer 'x ': string missing ending quote"),
        ("layer { name: }", "1:15: expected text in quotes, found }"),
        ('name "x"', '1:6: expected ":"'),
        ("layer { convolution_param: 3 }", '1:28: expected "{"'),
        ("\x07", r"1:1: expected identifier or number, got \\x07"),
        ("layer {\n clip_param { min: 1 } }", r"layer\[0\].clip_param.max is missing"),
        (
            "layer {" * (limits.TEXT_DEPTH + 1),
            f"1: messages are nested more than {limits.TEXT_DEPTH} deep",
        ),
        ("layer {\n" * 9999, f"{limits.TEXT_DEPTH + 1}: messages are nested"),
        # What is older, newer or another's.
        (
            'layers { name: "n" type: "Input" }',
            "1:26: layer 'n' .*without quotes, such as CONVOLUTION: write layer { type: \"Input\"",
        ),
        ("layers { type: CONVOLUTIO }", "unknown layer type CONVOLUTIO; did you mean CONVOLUTION"),
        ("layers { type: NOTHING_AT_ALL }", "unknown layer type NOTHING_AT_ALL: the old .*ABSVAL"),
        (
            "layers { type: BATCH_NORM }",
            "no.* old 'layers' blocks: write layer { type: \"BatchNorm\"",
        ),
        ("layers { batch_norm_param { } }", "'batch_norm_param' is not a field of an old 'layers'"),
        (
            'layer {\n name: "c"\n type: "Convolution" blobs_lr: 1 }',
            r"3:22: layer 'c' \(Convolution\): 'blobs_lr' is .* write param { lr_mult: ... }",
        ),
        ('layer { type: "Pooling" kernel_size: 3 }', "'kernel_size' stands in pooling_param {"),
        ('layer { type: "ReLU" lr_mult: 3 }', "'lr_mult' stands in param {"),
        ("input_dim: 1, 3", r"1:15: 3 is not a field's name: .* brackets, as in \[1, 3, 8\]"),
        ('layer { phase: "TEST" }', "1:16: TEST stands without quotes"),
        ("layer { include { phase: test } }", "test is not a Phase: .*; did you mean TEST?"),
        ("layer { type: “ReLU” }", '“ is not a quotation mark of this format: write "'),
        ("// a comment", "1:1: a comment begins with #"),
        (
            'layer {\n name: "up" type: "Upsample"\n upsample_param { scale: 2 } }',
            r"3:2: layer 'up' \(Upsample\): 'upsample_param' belongs to SegNet .*, as does",
        ),
        (
            'layer { name: "c" type: "Convolution" convolution_param { hole: 2 } }',
            "1:59: layer 'c' .* 'hole' belongs to DeepLab v1, .* write dilation",
        ),
        ('layers { name: "m" type: MULTI_STAGE_MEANFIELD }', "layer 'm'.* belongs to CRF-RNN"),
        ('layer { name: "a" type: "Axpy" own_param { } }', "no field 'own_param'; .*to SENet"),
        ("default_forward_type: FLOAT16", "1:1: 'default_forward_type' belongs to NVIDIA"),
        ("# \n" * (limits.TEXT_BYTES // 3 + 1), "too large"),
    ],
)
def test_a_mistake_is_told_with_its_place(text, told):
    with pytest.raises(CaffeError, match=f"^train.prototxt.*{told}"):
        parse_net(text, "train.prototxt")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('layer { name: "x" }', "1:1: 'layer' is a field of a net, not of a solver"),
        ("base_lrr: 3", r"1:1: SolverParameter has no field 'base_lrr'; did you mean base_lr\?"),
        ('eval_type: "detection"', "1:1: 'eval_type' belongs to SSD"),
        ("lr_policy: step", "1:12: expected text in quotes, found step"),
        ("solver_mode: TPU", "1:14: TPU is not a SolverMode: there are CPU, GPU"),
        ("net_param { layer { typo: 3 } }", "1:21: LayerParameter has no field 'typo'"),
        ('net_param { input: "a" input_dim: 3 }', ": net_param: .*input_dim"),
    ],
)
def test_a_mistake_in_a_solver_is_told_with_its_place(text, told):
    with pytest.raises(CaffeError, match=f"^solver.prototxt.*{told}"):
        parse_solver(text, "solver.prototxt")


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.sampled_from([*"{}<>:\"'#\n[],\\", "layer", "name", "-1"])).map(" ".join)
    | st.text()
)
def test_any_text_is_read_or_told(text):
    try:
        parse_net(text, "any")
    except CaffeError as error:
        assert str(error).startswith("any")


def test_files_are_read_as_texts_are(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    assert read_net(path) == parse_net(NET)
    path.write_text("type: 'Adam' momentum: 0.5")
    assert read_solver(path).momentum == 0.5
    path.write_text("layer { nam: 3 }")
    with pytest.raises(CaffeError, match=r"net\.prototxt:1:9: "):
        read_net(path)


@pytest.mark.parametrize(
    "data",
    ["name: 'ö'".encode(), "\ufeffname: 'ö'".encode(), b"name: 'x'\r\n", b"# \xe4\r\nname: 'x'"],
)
def test_any_encoding_of_comments_and_line_ends_will_do(data, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_bytes(data)
    assert read_net(path).name in ("ö", "x")


def test_files_that_are_none_are_told(tmp_path):
    path = tmp_path / "w.caffemodel"
    with pytest.raises(CaffeError, match=r"w\.caffemodel: no such file"):
        read_net(path)
    with pytest.raises(CaffeError, match="is a folder"):
        read_net(tmp_path)
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.raises(CaffeError, match=r"not a text file \(byte 8 is zero\): .* \.prototxt"):
        read_solver(path)
    with pytest.raises(CaffeError, match="/dev/zero: is not a text file"):
        read_net("/dev/zero")


def test_what_is_written_is_read_again_here_and_by_genuine_caffe(tmp_path, genuine):
    path = tmp_path / "runs" / "net.prototxt"
    net = parse_net(NET)
    net.layer[0].name = 'Zürich "1"\n\t\\'
    net.layer[0].param[0].lr_mult = 1 / 3
    net.layer[0].blobs.add(data=[float("inf"), -1e-30, 16777217])
    write_text(net, path)
    assert read_net(path) == net
    theirs = genuine.python(
        "from google.protobuf import text_format\n"
        "from caffe.proto import caffe_pb2\n"
        "net = text_format.Parse(open(path, encoding='utf-8').read(), caffe_pb2.NetParameter())\n"
        "result = net.SerializeToString().hex()",
        path=str(path),
    )
    assert bytes.fromhex(theirs) == net.SerializeToString()
    # The one above is Python's reader; this one is Caffe's own.
    done = genuine.command("upgrade_net_proto_text", path, tmp_path / "again")
    assert done.returncode == 0, done.stderr
    assert text_format.Parse((tmp_path / "again").read_text(), caffe_pb2.NetParameter()) == net


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text("old")
    with pytest.raises(AttributeError):
        write_text(None, path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.prototxt"]


BAD = """\
# A comment with a brace {
layer { name: "in" type: "Input" top: "in" input_param { shape { dim: [1, 1, 8, 8] } } }
layer {
  include { phase: TRAIN }
  type: "Convolution" bottom: "in" top: "out"
  convolution_param { num_output: 1 kernel_size: 9 weight_filler { type: "xavier" } }
  name: "con\\"v"
}
"""


def test_a_layer_that_cannot_be_made_is_told_with_its_line(tmp_path):
    net, solver = tmp_path / "net.prototxt", tmp_path / "solver.prototxt"
    net.write_text(BAD)
    solver.write_text(f'net: "{net}" base_lr: 1 lr_policy: "fixed"')
    told = r"net\.prototxt:3:1: layer 'con\"v' \(Convolution\): the bottom \(1, 1, 8, 8\) is too"
    with pytest.raises(CaffeError, match=told):
        caffe.Net(str(net), caffe.TRAIN)
    with pytest.raises(CaffeError, match=told):
        caffe.SGDSolver(str(solver))
    assert list(caffe.Net(str(net), caffe.TEST).blobs) == ["in"]


def test_names_in_errors_are_short_and_readable():
    for name, told in (
        ("x" * 500, "x" * 100 + r"\.\.\.': expected text in quotes"),
        ("a\x01", r"a\\x01': expected text in quotes"),
        # An escape that is cut short.
        (r"\u12", r'"\\u12"' "': "),
    ):
        with pytest.raises(CaffeError, match=rf"1:\d+: layer '{told}"):
            parse_net(f'layer {{ name: "{name}" top: 3 }}')


def test_a_value_that_utf8_cannot_hold_is_told():
    with pytest.raises(CaffeError, match=r"^net\.prototxt: cannot be read as a prototxt"):
        parse_net("layer { phase: \udcff }", "net.prototxt")


def test_both_formats_in_one_file_are_told_with_a_line(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text('layer { name: "a" }\nlayers { name: "b" type: RELU }')
    with pytest.raises(CaffeError, match=r"net\.prototxt:2:1: has both 'layers' .* and 'layer'"):
        read_net(path)


def test_inputs_without_a_shape_are_told(tmp_path, capsys):
    parse_net('input: "x"', "net.prototxt")
    assert "net.prototxt: input 'x' has no shape and is left out" in capsys.readouterr().err


def test_a_net_that_is_no_file_is_told_by_its_layer():
    net = parse_net(BAD)
    with pytest.raises(CaffeError, match=r"^layer 'con\"v'") as told:
        caffe.Net(net, caffe.TRAIN)
    assert told.value.layer == 'con"v'


def test_a_solver_whose_name_is_not_utf_8_needs_a_prefix_for_its_snapshots(tmp_path):
    path = tmp_path / "\udcb5.prototxt"
    path.write_text('net: "n" snapshot_prefix: "x"')
    assert prototxt.read_solver(path).snapshot_prefix == "x"
    for prefix in ("", f'snapshot_prefix: "{tmp_path}"'):
        path.write_text(f'net: "n" {prefix}')
        with pytest.raises(CaffeError, match="not UTF-8; give it another one, or a snapshot_pre"):
            prototxt.read_solver(path)
