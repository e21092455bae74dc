"""Well-known networks in small: whole nets to hold against genuine Caffe."""

from __future__ import annotations

from tests.parity.whole_nets import classification, dense, sequences
from tests.parity.whole_nets.wholenet import STEPS, WholeNet

__all__ = ["NETS", "STEPS", "WholeNet"]

NETS: dict[str, WholeNet] = {
    make.__name__: make()
    for make in (
        classification.alexnet,
        classification.inception,
        classification.residual,
        classification.siamese,
        dense.fcn,
        dense.autoencoder,
        sequences.caption_lstm,
        sequences.exposed_lstm,
        sequences.exposed_rnn,
    )
}
