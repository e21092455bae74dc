"""`caffe time`: how long each layer takes, forward and backward."""

from __future__ import annotations

import argparse

from caffe.command import arguments
from caffe.errors import CaffeError
from caffe.log import Log, number
from caffe.net.net import TEST, TRAIN, Net
from caffe.net.passes import log_parameters
from caffe.timer import Timer

_log = Log("caffe.cpp")


def time(flags: argparse.Namespace) -> None:
    """Time what -model names."""
    arguments.required(flags, "model", "a model definition to time")
    phases = {"": TRAIN, "TRAIN": TRAIN, "TEST": TEST}
    if flags.phase not in phases:
        raise CaffeError(f"-phase {flags.phase}: the phase is TRAIN or TEST")
    iterations = arguments.iterations(flags)
    gpus = arguments.gpus(flags.gpu)
    arguments.compute_on(gpus[0] if gpus else None)
    _log.info(f"Use GPU with device ID {gpus[0]}" if gpus else "Use CPU.")
    net = arguments.net(flags, phases[flags.phase])
    last = len(net.layers) - 1
    _log.info("Performing Forward")
    _log.info(f"Initial loss: {number(net._forward(0, last))}")
    _log.info("Performing Backward")
    net._backward(last, 0)
    if net.debug_info:
        log_parameters(net.learnable)
    # Genuine Caffe's layers are silent when they run alone.
    net.debug_info = False
    _log.info("*** Benchmark begins ***")
    _log.info(f"Testing for {iterations} iterations.")
    total = Timer()
    total.start()
    forward, backward = _time_layers(net, iterations)
    total.stop()
    _log.info("Average time per layer: ")
    for name, *times in zip(net._layer_names, forward, backward):
        for way, milliseconds in zip(("forward", "backward"), times):
            _log.info(f"{name:>10}\t{way}: {number(milliseconds / iterations)} ms.")
    _log.info(f"Average Forward pass: {number(sum(forward) / iterations)} ms.")
    _log.info(f"Average Backward pass: {number(sum(backward) / iterations)} ms.")
    _log.info(f"Average Forward-Backward: {number(total.ms / iterations)} ms.")
    _log.info(f"Total Time: {number(total.ms)} ms.")
    _log.info("*** Benchmark ends ***")


def _time_layers(net: Net, iterations: int) -> tuple[list[float], list[float]]:
    """Return how many milliseconds each layer takes in all iterations, forward and backward."""
    count = len(net.layers)
    forward, backward = [0.0] * count, [0.0] * count
    layer_timer, timer = Timer(), Timer()
    for iteration in range(1, iterations + 1):
        timer.start()
        for index in range(count):
            layer_timer.start()
            net._forward(index, index)
            forward[index] += layer_timer.ms
        for index in reversed(range(count)):
            layer_timer.start()
            # As in genuine Caffe all of them, whatever the net's own pass would leave out.
            net.backward_layer(index)
            backward[index] += layer_timer.ms
        _log.info(f"Iteration: {iteration} forward-backward time: {number(timer.ms)} ms.")
    return forward, backward
