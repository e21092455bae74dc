"""Cases of soft-max, losses and recurrent layers."""

from __future__ import annotations

import numpy as np

from tests.parity.harness import Case
from tests.parity.layer_cases.draw import Draw, case, cases_of, filler


@cases_of("Softmax")
def softmax(draw: Draw) -> Case:
    shape = draw.shape(1, 4)
    options = f"softmax_param {{ axis: {draw.axis(len(shape))} }}"
    scale = draw.one(1, 5, 50)
    return case(draw, [scale * draw.values(shape)], [shape], options, in_place=draw.flip(0.2))


def _normalization(draw: Draw, *others: str) -> str:
    kinds = ("FULL", "VALID", "BATCH_SIZE", "NONE")
    return draw.one("", *(f"normalization: {kind}" for kind in kinds), *others)


_OLD = ("normalize: true", "normalize: false")


def _scores(draw: Draw, least_axis: int = 1) -> tuple[np.ndarray, np.ndarray, int]:
    """Draw scores, labels and the axis of the classes: losses want as many labels as items."""
    shape = draw.shape(2, 4)
    axis = draw.whole(least_axis, len(shape) - 1)
    labels = draw.numbers((*shape[:axis], 1, *shape[axis + 1 :]), shape[axis])
    return draw.one(1, 5) * draw.values(shape), labels, axis


@cases_of("SoftmaxWithLoss")
def softmax_with_loss(draw: Draw) -> Case:
    scores, labels, axis = _scores(draw)
    text = _normalization(draw, *_OLD)
    if draw.flip():
        ignored = draw.one(0, 255, -1)
        text += f" ignore_label: {ignored}"
        labels[draw.rng.random(labels.shape) < draw.one(0.3, 0.3, 1)] = ignored
    # Genuine Caffe cannot set up the second top, the probabilities.
    options = f"loss_param {{ {text} }} softmax_param {{ axis: {axis} }}"
    return case(draw, [scores, labels], [()], options, loss=True)


@cases_of("InfogainLoss")
def infogain_loss(draw: Draw) -> Case:
    scores, labels, axis = _scores(draw)
    classes = scores.shape[axis]
    matrix = draw.values((1, 1, classes, classes), 0, 1)
    options = (
        f"infogain_loss_param {{ axis: {axis} }} softmax_param {{ axis: {axis} }} "
        f"loss_param {{ {_normalization(draw)} }}"
    )
    return case(draw, [scores, labels, matrix], [()], options, loss=True, learnt=[0])


@cases_of("MultinomialLogisticLoss")
def multinomial_logistic_loss(draw: Draw) -> Case:
    items, classes = draw.whole(1, 6), draw.whole(1, 6)
    inputs = [draw.values((items, classes), 0.01, 1), draw.numbers((items,), classes)]
    return case(draw, inputs, [()], loss=True)


@cases_of("SigmoidCrossEntropyLoss")
def sigmoid_cross_entropy_loss(draw: Draw) -> Case:
    shape = draw.shape(1, 4)
    targets = draw.numbers(shape, 2) if draw.flip() else draw.values(shape, 0, 1)
    text = _normalization(draw, *_OLD)
    if draw.flip():
        text += " ignore_label: 5"
        targets[draw.rng.random(shape) < draw.one(0.3, 0.3, 1)] = 5
    inputs = [draw.one(1, 5, 50) * draw.values(shape), targets]
    return case(draw, inputs, [()], f"loss_param {{ {text} }}", loss=True)


@cases_of("HingeLoss")
def hinge_loss(draw: Draw) -> Case:
    items, classes = draw.whole(1, 6), draw.whole(1, 6)
    inputs = [3 * draw.values((items, classes)), draw.numbers((items,), classes)]
    options = f"hinge_loss_param {{ norm: {draw.one('L1', 'L2')} }}"
    return case(draw, inputs, [()], options, loss=True)


@cases_of("EuclideanLoss")
def euclidean_loss(draw: Draw) -> Case:
    shape = draw.shape(1, 4)
    # Only the number of values in an item counts.
    other = draw.one(shape, shape, (*shape, 1)[:4], (shape[0], int(np.prod(shape[1:]))))
    return case(draw, [draw.values(shape), draw.values(other)], [()], loss=True)


@cases_of("ContrastiveLoss")
def contrastive_loss(draw: Draw) -> Case:
    items, features = draw.whole(1, 6), draw.whole(1, 5)
    shape = (items, features, 1, 1) if draw.flip() else (items, features)
    options = (
        f"contrastive_loss_param {{ margin: {draw.number_text(0.5, 2)} "
        f"legacy_version: {draw.one('true', 'false')} }}"
    )
    inputs = [draw.values(shape), draw.values(shape), draw.numbers((items,), 2)]
    return case(draw, inputs, [()], options, loss=True)


@cases_of("Accuracy")
def accuracy(draw: Draw) -> Case:
    scores, labels, axis = _scores(draw, 0)
    text = f"top_k: {draw.whole(1, scores.shape[axis])} axis: {axis}"
    if draw.flip():
        text += " ignore_label: 255"
        labels[draw.rng.random(labels.shape) < draw.one(0.3, 0.3, 1)] = 255
    tops = [(), (scores.shape[axis],)] if draw.flip(0.3) else [()]
    return case(draw, [scores, labels], tops, f"accuracy_param {{ {text} }}", backward=False)


def _flags(draw: Draw, shape: tuple[int, ...]) -> np.ndarray:
    """Draw where sequences go on: 0 or 1, or anything about that."""
    values = draw.rng.random(shape)
    between = 3 * values - 1
    return (between if draw.flip(0.3) else values < 0.7).astype(np.float32)


def _sequences(draw: Draw, states: int) -> Case:
    time, streams, maps = draw.whole(1, 5), draw.whole(1, 4), draw.whole(1, 4)
    exposed = draw.flip()
    go_on = _flags(draw, (time, streams))
    inputs = [draw.values((time, streams, *draw.shape(1, 2, 4))), go_on]
    if draw.flip():
        inputs.append(draw.values((streams, *draw.shape(1, 2, 4))))
    tops = [(time, streams, maps)]
    if exposed:
        inputs += [draw.values((1, streams, maps)) for _ in range(states)]
        tops += [(1, streams, maps)] * states
    options = (
        f"recurrent_param {{ num_output: {maps} expose_hidden: {str(exposed).lower()} "
        f"weight_filler {{ {filler(draw)} }} }}"
    )
    learnt = [place for place in range(len(inputs)) if place != 1]
    return case(draw, inputs, tops, options, learnt=learnt)


@cases_of("RNN")
def rnn(draw: Draw) -> Case:
    return _sequences(draw, 1)


@cases_of("LSTM")
def lstm(draw: Draw) -> Case:
    return _sequences(draw, 2)


@cases_of("LSTMUnit")
def lstm_unit(draw: Draw) -> Case:
    streams, maps = draw.whole(1, 4), draw.whole(1, 4)
    cell = (1, streams, maps)
    inputs = [
        draw.values(cell),
        3 * draw.values((1, streams, 4 * maps)),
        _flags(draw, (1, streams)),
    ]
    return case(draw, inputs, [cell, cell], learnt=[0, 1])
