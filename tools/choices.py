"""The variables of `make train-...`: network, solver, weighting, precision, device, iterations."""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from unet.command.options import whole
from unet.errors import InputError
from unet.machine.engine import PRECISIONS

PAPER_NET, CPU_NET = "unet", "unet_slim"
# One iteration with the tiles of prototxt/, on two cores with AVX-512.
CPU_SECONDS = {"unet": 2.9, "unet_slim": 0.28}
# The paper's SGD for the paper's net; Adam gets the slim one further in the steps that a CPU has.
SOLVERS = {"unet": "sgd", "unet_slim": "adam"}
# What the weight map is made of. "gaps": those between cells, but no balance of the classes, which
# makes cells too large where they are few; "none": every pixel counts alike, from which the slim
# net learns more in as many steps.
WEIGHTINGS = {
    "paper": [],
    "gaps": ["--no-class-balance"],
    "none": ["--w0", "0", "--no-class-balance"],
}


@dataclass(frozen=True)
class Choice:
    """What is trained, and how.

    Attributes
    ----------
    net : str
        Folder of prototxt/.
    iterations : int
    method : {"sgd", "adam"}
    weighting : str
        A key of `WEIGHTINGS`.
    precision : str
        What the device computes in.
    device : str
        auto, cpu or the number of a GPU.
    """

    net: str
    iterations: int
    method: str
    weighting: str
    precision: str
    device: str

    def variables(self) -> str:
        """Return the variables that choose the same anywhere."""
        return (
            f"NET={self.net} SOLVER={self.method} WEIGHTING={self.weighting} "
            f"ITERATIONS={self.iterations} PRECISION={self.precision}"
        )


def add_choices(parser: argparse.ArgumentParser) -> None:
    """Add the options of a training to a parser."""
    add = parser.add_argument
    add("--net", default="", help="unet or unet_slim; by default what suits here")
    add("--solver", choices=("", *SOLVERS.values()), default="", help="by default the net's")
    add("--weighting", choices=("", *WEIGHTINGS), default="", help="by default the net's")
    add("--precision", choices=PRECISIONS, default="fp32", help="of convolutions")
    add("--iterations", type=whole_number, help="in place of the default number")


def choose(
    options: argparse.Namespace, cpu_iterations: int, weightings: dict[str, str], target: str
) -> Choice:
    """Return what is trained: what was asked for, else what suits the machine.

    Parameters
    ----------
    options : argparse.Namespace
        With the options of `add_choices` and `device`.
    cpu_iterations : int
        Of the slim net where there is no GPU, by default.
    weightings : dict
        Default weighting by net.
    target : str
        Name of the make target, for what is told.

    Raises
    ------
    InputError
        If there is no such GPU or net.
    """
    on_gpu = gpu_works(options.device)
    net = options.net or (PAPER_NET if on_gpu else CPU_NET)
    if options.device.isdecimal() and not on_gpu:
        raise InputError(f"DEVICE={options.device}: there is no such GPU that the engine can use")
    if net not in SOLVERS:
        raise InputError(
            f"NET={net}: there is no prototxt/{net}; make it {' or '.join(sorted(SOLVERS))}"
        )
    iterations = options.iterations
    if iterations is None:
        at_hand = on_gpu or net == PAPER_NET
        iterations = _iterations_of(net) if at_hand else cpu_iterations
    if not on_gpu and net == CPU_NET:
        paper = _iterations_of(PAPER_NET)
        print(
            f"No GPU, so {net}: {iterations:,} iterations of about {CPU_SECONDS[net]} s on two "
            "cores with AVX-512. The paper's net would take "
            f"{paper * CPU_SECONDS[PAPER_NET] / 3600:.0f} hours there ({paper:,} iterations of "
            f"{CPU_SECONDS[PAPER_NET]} s): make {target} NET=unet"
        )
    return Choice(
        net,
        iterations,
        options.solver or SOLVERS[net],
        options.weighting or weightings[net],
        computed_in(options.device, options.precision),
        options.device,
    )


def gpu_works(device: str) -> bool:
    """Ask the engine, in a process of its own, whether it computes on this device."""
    if device == "cpu":
        return False
    number = 0 if device == "auto" else int(device)
    question = f"import caffe; caffe.set_device({number}); caffe.set_mode_gpu()"
    asked = subprocess.run([sys.executable, "-c", question], capture_output=True)
    return asked.returncode == 0


def computed_in(device: str, precision: str) -> str:
    """Ask the engine, in a process of its own, what it computes in when asked for a precision.

    Commands and cards then name what their figures were computed in, also on a machine that has
    no instructions for bfloat16. The engine itself says why it differs.
    """
    if precision == "fp32":
        return precision
    question = (
        f"from unet.machine.engine import open_engine; "
        f"caffe = open_engine({device!r}, {precision!r}); print(caffe.get_precision())"
    )
    asked = subprocess.run([sys.executable, "-c", question], stdout=subprocess.PIPE, text=True)
    # An engine that has no such precision says so when it is to compute in it.
    return precision if asked.returncode else asked.stdout.strip()


def _iterations_of(net: str) -> int:
    """Return how long a net's own solver trains."""
    from google.protobuf import text_format

    from caffe.proto import caffe_pb2

    text = Path("prototxt", net, "solver_holdout.prototxt").read_text(encoding="utf-8")
    return text_format.Parse(text, caffe_pb2.SolverParameter()).max_iter


def whole_number(text: str) -> int | None:
    """Read a variable of make, which is empty where it was not given."""
    if not text:
        return None
    return whole(1)(text)


def check_device(parser: argparse.ArgumentParser, device: str) -> None:
    """End the program if a device is not one."""
    if device not in ("auto", "cpu") and not device.isdecimal():
        parser.error(f"DEVICE={device}: make it auto, cpu or the number of a GPU")
