"""Run nets forward and backward: the cases of tests.parity.harness.run_cases."""

from __future__ import annotations

import numpy as np

import caffe
from exchange import draw_parameters, give, given, gradients, parameters, text_file


def run(net_text, phase, backward, blob_diffs, inputs, top_diffs):
    """Return what one net computes."""
    net = caffe.Net(text_file(net_text), caffe.TEST if phase else caffe.TRAIN)
    draw_parameters(net)
    for blob, values in inputs.items():
        net.blobs[blob].reshape(*values.shape)
        net.blobs[blob].data[...] = values
    net.forward()
    results = {"data " + name: np.array(blob.data) for name, blob in net.blobs.items()}
    # Statistics are parameters that a forward pass changes.
    results.update(parameters(net))
    if backward:
        net.clear_param_diffs()
        # Diffs of tops that no loss reaches are what the user wrote there.
        for blob, values in top_diffs.items():
            net.blobs[blob].diff[...] = values
        net.backward()
        results.update(gradients(net))
        for name, blob in net.blobs.items():
            if blob_diffs or name in inputs:
                results["diff " + name] = np.array(blob.diff)
    return results


def main():
    """Run all cases."""
    cases = {}
    for key, value in given().items():
        name, kind = key.split("|")[:2]
        case = cases.setdefault(name, {"input": {}, "top_diff": {}})
        if kind in ("input", "top_diff"):
            case[kind][key.split("|", 2)[2]] = value
        else:
            case[kind] = value
    results = {}
    for name, case in cases.items():
        phase, backward, blob_diffs = (int(option) for option in case["options"])
        of_case = run(
            str(case["net"]), phase, backward, blob_diffs, case["input"], case["top_diff"]
        )
        results.update({f"{name}|{what}": value for what, value in of_case.items()})
    give(results)


if __name__ == "__main__":
    main()
