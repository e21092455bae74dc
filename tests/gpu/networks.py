"""The networks and solvers of prototxt/, at a small tile, fed by Input layers, drop-out off."""

from __future__ import annotations

from google.protobuf import text_format

from caffe.proto import caffe_pb2
from tests.gpu.compare import Results
from tests.gpu.engine import Here
from tests.parity.harness import REPOSITORY
from tests.parity.test_solver_steps import BORDER, batches

TILE = 188

PARTS = [
    f"{name} {what}"
    for name, kinds in {
        "unet": ("SGD", "test", "deploy"),
        "phseg_v5": ("Adam", "test", "deploy"),
        "unet_slim": ("SGD", "Adam", "test", "deploy"),
    }.items()
    for what in kinds
]
REPEATING = ("unet_slim SGD", "unet_slim Adam")

TRAINED = """
import numpy as np
import caffe
from exchange import draw_parameters, give, given, gradients, parameters, text_file

arrays = given()
solver = caffe.get_solver(text_file(str(arrays.pop("solver"))))
net = solver.net
draw_parameters(net)
before = parameters(net)

def feed(step):
    for blob, values in arrays.items():
        net.blobs[blob].data[...] = values[step]

feed(0)
net.clear_param_diffs()
net.forward()
results = {"data " + name: np.array(blob.data) for name, blob in net.blobs.items()}
net.backward()
results.update(gradients(net))
for step in range(len(arrays["data"])):
    feed(step)
    solver.step(1)
    results["loss %d" % step] = np.array(net.blobs["loss"].data)
for name, values in parameters(net).items():
    results["change of " + name] = values - before[name]
give(results)
"""

PASSED = """
import numpy as np
import caffe
from exchange import draw_parameters, give, given, text_file

arrays = given()
net = caffe.Net(text_file(str(arrays.pop("net"))), caffe.TEST)
draw_parameters(net)
found = net.forward(**{blob: values[0] for blob, values in arrays.items()})
results = {"data " + name: np.array(values) for name, values in found.items()}
results.update({"data " + name: np.array(blob.data) for name, blob in net.blobs.items()})
give(results)
"""


def run(engine: Here, part: str) -> Results:
    """Run a network: a training net in both directions and in steps, others forward."""
    name, what = part.split()
    given: dict[str, object] = {}
    if what in ("SGD", "Adam"):
        script = TRAINED
        given["solver"] = _solver(name, "" if what == "SGD" else "_adam")
    else:
        script = PASSED
        given["net"] = text_format.MessageToString(
            _fed(f"{name}/{'deploy' if what == 'deploy' else 'train_val'}.prototxt")
        )
    fed = ["data"] if what == "deploy" else ["data", "label"]
    if what != "deploy" and name != "phseg_v5":
        fed.append("weight")
    values = batches(TILE)
    if name == "phseg_v5":
        # What it ignores is called so.
        values["label"][values["label"] == 255] = 2
    # The full nets take their time.
    steps = 5 if name == "unet_slim" else 1
    given.update({blob: values[blob][:steps] for blob in fed})
    return {part: engine.run(script, given)}


def _fed(path: str) -> caffe_pb2.NetParameter:
    """Return a net of prototxt/, its data from Input layers."""
    net = caffe_pb2.NetParameter()
    text_format.Parse((REPOSITORY / "prototxt" / path).read_text(), net)
    inner = TILE - 2 * BORDER
    shapes = {
        "data": (1, 1, TILE, TILE),
        "label": (1, 1, inner, inner),
        "weight": (1, 2, inner, inner),
    }
    layers = list(net.layer)
    del net.layer[:]
    for layer in layers:
        if layer.bottom:
            net.layer.add().CopyFrom(layer)
            continue
        # One of several, each for a stage.
        for top in layer.top if len(net.layer) == 0 else ():
            made = net.layer.add(name=top, type="Input", top=[top])
            made.input_param.shape.add(dim=shapes[top])
    for layer in net.layer:
        if layer.type == "Dropout":
            layer.dropout_param.dropout_ratio = 0
    return net


def _solver(name: str, ending: str) -> str:
    """Return a solver of prototxt/, the net written into it, its rate lower."""
    param = caffe_pb2.SolverParameter()
    # The authors' release has none of its own.
    folder = "unet" if name == "phseg_v5" else name
    path = REPOSITORY / "prototxt" / folder / f"solver_isbi{ending}.prototxt"
    text_format.Parse(path.read_text(), param)
    # At the full rate a switched ReLU drives the steps apart.
    param.base_lr /= 10
    for field in ("net", "train_state", "display", "snapshot"):
        param.ClearField(field)
    param.snapshot_after_train = False
    param.train_net_param.CopyFrom(_fed(f"{name}/train_val.prototxt"))
    return text_format.MessageToString(param)
