"""Which net, solver, weighting and precision a training is run with, as suits the machine."""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass

from recipes import Recipe
from unet.command.options import whole
from unet.errors import InputError

PAPER_NET, CPU_NET = "unet", "unet_slim"
# One iteration with the tiles of prototxt/, on two cores with AVX-512.
CPU_SECONDS = {"unet": 2.9, "unet_slim": 0.28}
# What the weight map is made of. "gaps": those between cells, but no balance of the classes, which
# makes cells too large where they are few; "none": every pixel counts alike, from which the slim
# net learns more in as many steps.
WEIGHTINGS = {
    "paper": "",
    "gaps": "--no-class-balance",
    "none": "--w0 0 --no-class-balance",
}
WEIGHTING = {"unet": "paper", "unet_slim": "none"}


@dataclass(frozen=True)
class Choice:
    """What a net of prototxt/ is trained with: SGD or Adam, a key of `WEIGHTINGS`, a precision."""

    net: str
    iterations: int
    solver: str
    weighting: str
    precision: str

    def variables(self) -> str:
        """Return the variables that choose the same anywhere."""
        return (
            f"NET={self.net} SOLVER={self.solver.lower()} WEIGHTING={self.weighting} "
            f"ITERATIONS={self.iterations} PRECISION={self.precision}"
        )


def choose(options: argparse.Namespace, recipe: Recipe) -> Choice:
    """Return what is trained: what was asked for, else what suits the machine."""
    # Imports the engine.
    from unet.network.nets import ITERATIONS, METHODS

    on_gpu = gpu_works(options.device)
    net = options.net or (PAPER_NET if on_gpu else CPU_NET)
    if options.device.isdecimal() and not on_gpu:
        raise InputError(f"DEVICE={options.device}: there is no such GPU that the engine can use")
    if net not in METHODS:
        raise InputError(
            f"NET={net}: there is no prototxt/{net}; make it {' or '.join(sorted(METHODS))}"
        )
    iterations = options.iterations
    if iterations is None:
        at_hand = on_gpu or net == PAPER_NET
        iterations = ITERATIONS[net] if at_hand else recipe.iterations
    if not on_gpu and net == CPU_NET:
        paper, seconds = ITERATIONS[PAPER_NET], CPU_SECONDS[PAPER_NET]
        print(
            f"No GPU, so {net}: {iterations:,} iterations of about {CPU_SECONDS[net]} s on two "
            f"cores with AVX-512. The paper's net would take {paper * seconds / 3600:.0f} hours "
            f"there ({paper:,} iterations of {seconds} s): make {recipe.make} NET=unet"
        )
    return Choice(
        net,
        iterations,
        options.solver or METHODS[net],
        options.weighting or WEIGHTING[net],
        computed_in(options.device, options.precision),
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


def number(text: str) -> int | None:
    """Read a variable of make, which is empty where it was not given."""
    return whole(1)(text) if text else None


def solver_type(text: str) -> str | None:
    """Read the name of a solver, sgd or SGD, adam or Adam."""
    known = {"": None, "sgd": "SGD", "adam": "Adam"}
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(f"{text!r} is neither SGD nor Adam")
    return known[text.lower()]


def check_device(parser: argparse.ArgumentParser, device: str) -> None:
    """End the program if a device is not one."""
    if device not in ("auto", "cpu") and not device.isdecimal():
        parser.error(f"DEVICE={device}: make it auto, cpu or the number of a GPU")
