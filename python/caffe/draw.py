"""Draw a net as a graph of layers and blobs, with pydot and Graphviz."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from caffe.errors import CaffeError
from caffe.files.atomic import atomic_path
from caffe.proto import caffe_pb2

try:
    import pydot
except ImportError:
    try:
        import pydotplus as pydot
    except ImportError:
        raise ImportError("caffe.draw needs pydot: pip install pydot") from None

LAYER_STYLE_DEFAULT = {"shape": "record", "fillcolor": "#6495ED", "style": "filled"}
NEURON_LAYER_STYLE = {"shape": "record", "fillcolor": "#90EE90", "style": "filled"}
BLOB_STYLE = {"shape": "octagon", "fillcolor": "#E0E0E0", "style": "filled"}

_COLORS = {
    "Convolution": "#FF5050",
    "Deconvolution": "#FF5050",
    "Pooling": "#FF9900",
    "InnerProduct": "#CC33FF",
}
_NO_LABEL = '""'
# What stands on the edges out of a layer: by type, the number that says most about its tops.
_EDGE_LABELS: dict[str, Callable[[caffe_pb2.LayerParameter], str]] = {
    "Data": lambda layer: f"Batch {layer.data_param.batch_size}",
    "Convolution": lambda layer: str(layer.convolution_param.num_output),
    "Deconvolution": lambda layer: str(layer.convolution_param.num_output),
    "InnerProduct": lambda layer: str(layer.inner_product_param.num_output),
}
_DOT_KEYWORDS = ("node", "edge", "graph", "digraph", "subgraph", "strict")
_WITH_RATES = ("Convolution", "Deconvolution", "InnerProduct")


def get_pooling_types_dict() -> dict[int, str]:
    """Return the names of pooling methods by their numbers."""
    methods = caffe_pb2.PoolingParameter.PoolMethod
    return {number: name for name, number in methods.items()}


def get_edge_label(layer: caffe_pb2.LayerParameter) -> str:
    """Return what stands on the edges from a layer to its tops; two quotation marks for nothing."""
    label = _EDGE_LABELS.get(layer.type)
    return label(layer) if label else _NO_LABEL


def get_layer_lr_mult(layer: caffe_pb2.LayerParameter) -> tuple[float, float]:
    """Return the multipliers of the learning rate of weights and biases.

    Raises
    ------
    ValueError
        If it is no Convolution, Deconvolution or InnerProduct layer, or has more parameters.
    """
    if layer.type not in _WITH_RATES:
        raise ValueError(f"{layer.type} layers do not have a learning rate multiplier")
    if len(layer.param) > 2:
        raise ValueError("Could not parse the learning rate multiplier")
    given = [spec.lr_mult for spec in layer.param]
    weights, biases = given + [1.0] * (2 - len(given))
    return weights, biases


def get_layer_label(
    layer: caffe_pb2.LayerParameter, rankdir: str, display_lrm: bool = False
) -> str:
    """Return the text of a layer's node, in quotation marks.

    Parameters
    ----------
    layer : caffe_pb2.LayerParameter
    rankdir : {"LR", "RL", "TB", "BT"}
        Direction of the graph: upright graphs have labels of one line.
    display_lrm : bool
        Whether the multipliers of the learning rate are told.
    """
    kind, window = layer.type, None
    if kind in ("Convolution", "Deconvolution"):
        param = layer.convolution_param
        window = _first(param.kernel_size, 1), _first(param.stride, 1), _first(param.pad, 0)
    elif kind == "Pooling":
        param = layer.pooling_param
        kind += f" {get_pooling_types_dict()[param.pool]}"
        window = tuple(
            [*several] or one
            for several, one in (
                (param.kernel_sizes, param.kernel_size),
                (param.strides, param.stride),
                (param.pads, param.pad),
            )
        )
    parts = [layer.name, f"({kind})"]
    if window:
        kernel, stride, pad = window
        parts += [f"kernel size: {kernel}", f"stride: {stride}", f"pad: {pad}"]
    if display_lrm and layer.type in _WITH_RATES:
        weights, biases = get_layer_lr_mult(layer)
        parts.append(f"lr mult: {weights:.1f}, {biases:.1f}")
    # A backslash and an n: Graphviz breaks the line there.
    separator = " " if rankdir in ("TB", "BT") else "\\n"
    return f'"{separator.join(parts)}"'


def _first(values: Sequence[int], default: int) -> int:
    return values[0] if values else default


def _blob_name(name: str) -> str:
    # pydot takes what follows a colon for a port, and a node named "node" for a keyword.
    if ":" in name or name.lower() in _DOT_KEYWORDS:
        return f'"{name}"'
    return name


def choose_color_by_layertype(layertype: str) -> str:
    """Return the colour of a layer's node, as #RRGGBB."""
    return _COLORS.get(layertype, LAYER_STYLE_DEFAULT["fillcolor"])


def _is_in_phase(layer: caffe_pb2.LayerParameter, phase: int) -> bool:
    if layer.include and layer.exclude:
        raise ValueError(f"layer {layer.name} has both include and exclude specified.")
    if layer.include:
        return any(rule.phase == phase for rule in layer.include)
    return all(rule.phase != phase for rule in layer.exclude)


def get_pydot_graph(
    caffe_net: caffe_pb2.NetParameter,
    rankdir: str,
    label_edges: bool = True,
    phase: int | None = None,
    display_lrm: bool = False,
) -> pydot.Dot:
    """Return a net as a graph of pydot.

    Parameters
    ----------
    caffe_net : caffe_pb2.NetParameter
        In the current format: `layers` of the V1 format are not looked at.
    rankdir : {"LR", "RL", "TB", "BT"}
        Direction of the graph.
    label_edges : bool
        Whether edges tell the number of outputs, or of pictures in a batch.
    phase : caffe_pb2.TRAIN, caffe_pb2.TEST or None
        Draw the layers of this phase; None draws all. Levels and stages are not looked at.
    display_lrm : bool
        Whether nodes tell the multipliers of the learning rate.

    Raises
    ------
    ValueError
        If a phase is asked for and a layer has rules of both kinds, include and exclude.
    """
    graph = pydot.Dot(caffe_net.name or "Net", graph_type="digraph", rankdir=rankdir)
    nodes: dict[tuple[str, ...], pydot.Node] = {}
    edges: list[tuple[tuple[str, ...], tuple[str, ...], str]] = []
    for layer in caffe_net.layer:
        if phase is not None and not _is_in_phase(layer, phase):
            continue
        place = (layer.name, layer.type)
        in_place = len(layer.bottom) == len(layer.top) == 1 and layer.bottom == layer.top
        if in_place:
            style = NEURON_LAYER_STYLE
        else:
            style = {**LAYER_STYLE_DEFAULT, "fillcolor": choose_color_by_layertype(layer.type)}
        nodes[place] = pydot.Node(get_layer_label(layer, rankdir, display_lrm), **style)
        for bottom in layer.bottom:
            nodes[(bottom,)] = pydot.Node(_blob_name(bottom), **BLOB_STYLE)
            edges.append(((bottom,), place, _NO_LABEL))
        label = get_edge_label(layer) if label_edges else _NO_LABEL
        for top in layer.top:
            nodes[(top,)] = pydot.Node(_blob_name(top))
            edges.append((place, (top,), label))
    for node in nodes.values():
        graph.add_node(node)
    for source, target, label in edges:
        graph.add_edge(pydot.Edge(nodes[source], nodes[target], label=label))
    return graph


def draw_net(
    caffe_net: caffe_pb2.NetParameter,
    rankdir: str,
    ext: str = "png",
    phase: int | None = None,
    display_lrm: bool = False,
) -> bytes:
    """Return the picture of a net.

    Parameters
    ----------
    caffe_net, rankdir, phase, display_lrm
        As of `get_pydot_graph`.
    ext : str
        Format: "raw" for the graph in the DOT language, or one that Graphviz writes.

    Raises
    ------
    CaffeError
        If Graphviz is missing, or cannot draw it so.
    """
    graph = get_pydot_graph(caffe_net, rankdir, phase=phase, display_lrm=display_lrm)
    if ext == "raw":
        return graph.to_string().encode()
    try:
        # When dot fails pydot prints all that it said, and a traceback's worth of arguments.
        with contextlib.redirect_stdout(io.StringIO()):
            return graph.create(format=ext)
    except FileNotFoundError:
        raise CaffeError(
            "drawing needs Graphviz, whose program dot is not installed (apt-get install "
            "graphviz); without it only the format raw can be written, the graph as text"
        ) from None
    except AssertionError:
        raise CaffeError(
            f"Graphviz cannot draw the net as '{ext}': this is no format of it (dot -T? lists "
            "them), or names in the net hold characters with a meaning in its language"
        ) from None


def draw_net_to_file(
    caffe_net: caffe_pb2.NetParameter,
    filename: str | os.PathLike,
    rankdir: str = "LR",
    phase: int | None = None,
    display_lrm: bool = False,
) -> None:
    """Write the picture of a net, in the format of the file's suffix; whole or not at all.

    Parameters
    ----------
    caffe_net, rankdir, phase, display_lrm
        As of `get_pydot_graph`.
    filename : path
        It ends in .png, .pdf, .svg or another format of Graphviz; in .raw for the graph as text.

    Raises
    ------
    CaffeError
        As of `draw_net`; if the file has no suffix.
    """
    suffix = Path(filename).suffix
    if not suffix:
        raise CaffeError(f"{filename}: needs a suffix that names the format, such as .png")
    picture = draw_net(caffe_net, rankdir, suffix[1:], phase, display_lrm)
    with atomic_path(filename) as temporary:
        temporary.write_bytes(picture)
