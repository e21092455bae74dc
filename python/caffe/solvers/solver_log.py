"""What a solver writes to the log, in genuine Caffe's words: programs read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from caffe.files import prototxt
from caffe.log import Log, is_logged, number
from caffe.net.net import Net
from caffe.proto import caffe_pb2

_solver = Log("solver.cpp")
_sgd = Log("sgd_solver.cpp")


def parameters(param: caffe_pb2.SolverParameter) -> None:
    """Say what the solver is made from."""
    if is_logged():
        _solver.info(f"Initializing solver from parameters: \n{prototxt.to_text(param).rstrip()}")


def training_net(field: str, value: str | caffe_pb2.NetParameter) -> None:
    """Say which field of the solver names the net that is trained."""
    if isinstance(value, str):
        _solver.info(f"Creating training net from {field} file: {value}")
    else:
        _solver.info(f"Creating training net specified in {field}.")


def test_net(place: int, field: str, value: str | caffe_pb2.NetParameter) -> None:
    """Say which field of the solver names a test net."""
    source = f"{field} file: {value}" if isinstance(value, str) else field
    _solver.info(f"Creating test net (#{place}) specified by {source}")


def weights(path: str) -> None:
    """Say that parameters are read."""
    _solver.info(f"Finetuning from {path}")


def made() -> None:
    """Say that solver and nets are made."""
    _solver.info("Solver scaffolding done.")


def no_rate(source: str) -> None:
    """Warn of a solver that does not say how fast it learns; genuine Caffe says nothing."""
    _solver.warning(f"{source}: base_lr is missing: with a learning rate of 0 nothing is learnt")


def solving(net: Net, policy: str) -> None:
    """Say that training begins."""
    _solver.info(f"Solving {net.name}")
    _solver.info(f"Learning Rate Policy: {policy}")


def resuming(path: str) -> None:
    """Say which state training goes on from."""
    _solver.info(f"Restoring previous solver status from {path}")


def restoring_history(path: str) -> None:
    """Say that what an update rule remembers is read; genuine Caffe does not of HDF5 files."""
    if not path.endswith(".h5"):
        _sgd.info("SGDSolver: restoring history")


def stopped() -> None:
    """Say that training ends before its last iteration."""
    _solver.info("Optimization stopped early.")


def done() -> None:
    """Say that training is done."""
    _solver.info("Optimization Done.")


def last_loss(iteration: int, loss: float) -> None:
    """Write the loss after the last iteration."""
    _solver.info(f"Iteration {iteration}, loss = {number(loss)}")


def display(
    param: caffe_pb2.SolverParameter,
    net: Net,
    iteration: int,
    loss: float,
    iterations: int,
    seconds: float,
) -> None:
    """Write the loss and the outputs of the net that is trained.

    Parameters
    ----------
    param : caffe_pb2.SolverParameter
    net : Net
    iteration : int
        Iterations done.
    loss : float
        Averaged over the last ones.
    iterations, seconds : int, float
        Since the last display.
    """
    seconds = max(seconds, 1e-9)
    _solver.info(
        f"Iteration {iteration} ({number(iterations / seconds)} iter/s, "
        f"{number(seconds)}s/{param.display} iters), loss = {number(loss)}"
    )
    values = {name: net.blobs[name].data.ravel().tolist() for name in net.outputs}
    for place, text in enumerate(_outputs(net, values)):
        _solver.info(f"    Train net output #{place}: {text}")


def _outputs(net: Net, values: Mapping[str, Iterable[float]]) -> Iterable[str]:
    for name, entries in values.items():
        for value in entries:
            yield output(name, value, net.blob_loss_weights[name])


def output(name: str, value: float, weight: float) -> str:
    """Return a value of an output, and what it adds to the loss."""
    tail = f" (* {number(weight)} = {number(weight * value)} loss)" if weight else ""
    return f"{name} = {number(value)}{tail}"


def rate(iteration: int, value: float) -> None:
    """Write the learning rate."""
    _sgd.info(f"Iteration {iteration}, lr = {number(value)}")


def rate_step(iteration: int, step: int) -> None:
    """Say that policy "multistep" has lowered the rate."""
    _sgd.info(f"MultiStep Status: Iteration {iteration}, step = {step}")


def clipped(norm: float, limit: float) -> None:
    """Say that the gradients are scaled down."""
    _sgd.info(
        f"Gradient clipping: scaling down gradients (L2 norm {number(norm)} > {number(limit)}) "
        f"by scale factor {number(limit / norm)}"
    )


def testing(iteration: int, which: int) -> None:
    """Say that a test begins."""
    _solver.info(f"Iteration {iteration}, Testing net (#{which})")


def test_interrupted() -> None:
    """Say that a test ends before its last pass."""
    _solver.info("Test interrupted.")


def test_loss(loss: float) -> None:
    """Write the mean loss of a test."""
    _solver.info(f"Test loss: {number(loss)}")


def tested(net: Net, means: Mapping[str, Iterable[float]]) -> None:
    """Write the mean outputs of a test: blob -> values."""
    for place, text in enumerate(_outputs(net, means)):
        _solver.info(f"    Test net output #{place}: {text}")


def snapshot_model(path: str, hdf5: bool) -> None:
    """Say where the parameters are written."""
    _solver.info(f"Snapshotting to {'HDF5' if hdf5 else 'binary proto'} file {path}")


def snapshot_state(path: str, hdf5: bool) -> None:
    """Say where the state is written."""
    kind = "HDF5" if hdf5 else "binary proto"
    _sgd.info(f"Snapshotting solver state to {kind} file {path}")
