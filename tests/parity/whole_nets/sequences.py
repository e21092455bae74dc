"""Nets over sequences, with markers where each begins."""

from __future__ import annotations

import numpy as np

import caffe
from caffe import layers as L
from tests.parity.whole_nets.wholenet import (
    STEPS,
    STEPS_BEFORE_SNAPSHOT,
    WholeNet,
    inputs,
    numbers,
    reals,
)


def _go_on(seed: int, time: int, streams: int) -> np.ndarray:
    values = np.random.default_rng(seed).random((STEPS, time, streams)) < 0.8
    # The state is in no file: where training is resumed all sequences begin.
    values[STEPS_BEFORE_SNAPSHOT, 0] = False
    return values.astype(np.float32)


def caption_lstm() -> WholeNet:
    """LRCN (Donahue et al. 2015): embedded words, picture features beside them, scores a step."""
    time, streams, words = 6, 4, 12
    batches = {
        "input_sentence": numbers(21, words, time, streams),
        "cont_sentence": _go_on(22, time, streams),
        "image_features": reals(23, streams, 9),
        "target_sentence": numbers(24, words, time, streams),
    }
    batches["target_sentence"][np.random.default_rng(25).random((STEPS, time, streams)) < 0.2] = -1
    n = caffe.NetSpec()
    inputs(n, batches)
    n.embedded_input_sentence = L.Embed(
        n.input_sentence, input_dim=words, num_output=8, bias_term=False
    )
    n.lstm1 = L.LSTM(
        n.embedded_input_sentence, n.cont_sentence, recurrent_param=dict(num_output=10)
    )
    n.lstm2 = L.LSTM(n.lstm1, n.cont_sentence, n.image_features, recurrent_param=dict(num_output=8))
    n.predict = L.InnerProduct(n.lstm2, num_output=words, axis=2)
    n.cross_entropy_loss = L.SoftmaxWithLoss(
        n.predict,
        n.target_sentence,
        loss_weight=20,
        softmax_param=dict(axis=2),
        loss_param=dict(ignore_label=-1),
    )
    n.accuracy = L.Accuracy(
        n.predict,
        n.target_sentence,
        accuracy_param=dict(axis=2, ignore_label=-1),
        include=dict(phase=caffe.TEST),
    )
    return WholeNet(n, batches, dict(momentum=0.9, clip_gradients=10), force_backward=False)


def _exposed(kind: str, states: int, seed: int, **solver) -> WholeNet:
    time, streams, maps = 4, 3, 5
    batches = {"x": reals(seed, time, streams, 6), "cont": _go_on(seed + 1, time, streams)}
    for state in "hc"[:states]:
        batches[f"{state}_0"] = reals(seed + ord(state), 1, streams, maps)
    batches["y"] = reals(seed + 2, time, streams, 2)
    batches["h_wanted"] = reals(seed + 3, 1, streams, maps)
    n = caffe.NetSpec()
    inputs(n, batches)
    initial = [n[f"{state}_0"] for state in "hc"[:states]]
    tops = getattr(L, kind)(
        n.x,
        n.cont,
        *initial,
        ntop=1 + states,
        recurrent_param=dict(num_output=maps, expose_hidden=True),
    )
    for name, top in zip(("h", "h_T", "c_T"), tops):
        n[name] = top
    n.predict = L.InnerProduct(n.h, num_output=2, axis=2)
    n.loss = L.EuclideanLoss(n.predict, n.y)
    n.state_loss = L.EuclideanLoss(n.h_T, n.h_wanted, loss_weight=0.5)
    return WholeNet(n, batches, solver)


def exposed_lstm() -> WholeNet:
    """An LSTM whose first and last state are blobs, with a loss on the last."""
    return _exposed(
        "LSTM", 2, 31, type="Adam", momentum=0.9, momentum2=0.999, delta=1e-6, snapshot_format=0
    )


def exposed_rnn() -> WholeNet:
    """An RNN whose first and last state are blobs, with a loss on the last."""
    return _exposed("RNN", 1, 41, type="RMSProp", rms_decay=0.9, delta=1e-5)
