"""Detector on both engines: the windows that are cut out, and what the net says to them."""

from __future__ import annotations

import numpy as np
import pytest

# Genuine Caffe's Detector is too old for Debian's libraries: scikit-image has renamed an argument,
# NumPy no longer takes whole numbers that are floats for places in an array, and Python's zip can
# be read only once. All three are given back to it; nothing else of it is changed.
SCRIPT = """
import sys
import types

import numpy as np
import skimage.io

import caffe
from exchange import draw_parameters, give, text_file


class OldArray(np.ndarray):
    @classmethod
    def whole(cls, key):
        if isinstance(key, tuple):
            return tuple(map(cls.whole, key))
        if isinstance(key, slice):
            return slice(*(end if end is None else int(end) for end in (key.start, key.stop)))
        return key

    def __getitem__(self, key):
        return super().__getitem__(self.whole(key))

    def __setitem__(self, key, value):
        super().__setitem__(self.whole(key), value)


class OldNumPy:
    def __getattr__(self, name):
        value = getattr(np, name)
        return (lambda *a, **k: value(*a, **k).view(OldArray)) if name == "ones" else value


def old(function):
    return lambda *words: function(*words).view(OldArray)


def with_whole_sizes(function):
    return lambda im, size, *words: function(np.asarray(im), tuple(map(int, size)), *words)


if hasattr(caffe, "_caffe"):
    read = skimage.io.imread
    skimage.io.imread = lambda name, as_grey=False: read(name, as_gray=as_grey)
    caffe.io.load_image = old(caffe.io.load_image)
    caffe.io.resize_image = with_whole_sizes(caffe.io.resize_image)
    caffe.detector.np = OldNumPy()
    caffe.detector.zip = lambda *lists: list(zip(*lists))
if sys.argv[3] == "common resizing":
    def nearest(im, size, order=1):
        rows, columns = (np.arange(int(n)) * had // int(n) for n, had in zip(size, im.shape))
        if not im.size:
            raise ValueError("nothing to resize")
        return np.asarray(im, np.float32)[rows][:, columns]

    caffe.io.resize_image = nearest


def detector(channels, height, width, **options):
    net = text_file('''
input: "data" input_dim: 5 input_dim: %d input_dim: %d input_dim: %d
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
  pooling_param { pool: AVE global_pooling: true } }
layer { name: "score" type: "%s" bottom: "pool" top: "score" %s }
''' % (channels, height, width, *(
        ("InnerProduct", "inner_product_param { num_output: 2 }") if channels == 3
        else ("Softmax", "")
    )))
    made = caffe.Net(net, caffe.TEST)
    draw_parameters(made)
    weights = text_file("", ".caffemodel")
    made.save(weights)
    return caffe.Detector(net, weights, **options)


random = np.random.RandomState(0)
pictures = {}
for name, shape in (("color", (20, 30, 3)), ("grey", (25, 22))):
    pictures[name] = text_file("", ".png")
    skimage.io.imsave(pictures[name], (random.rand(*shape) * 255).astype(np.uint8))
windows = [
    [2, 3, 15, 16], [0, 0, 20, 22], [12, 12, 19, 21], [12, 12, 20, 22], [5, 5, 6, 6], [0, 0, 3, 22],
    [18, 1, 19, 21], [15, 20, 25, 30], [1, 1, 19, 3], [4, 10, 5, 19], [7, 0, 13, 5],
]
# These reach out of the picture on the side where an array has no places.
outside = [[-3, -2, 5, 6], [5, 5, 5, 5]]
results = {}
kinds = {
    "plain": {},
    "prepared": dict(mean=np.array([0.1, 0.2, 0.3]), raw_scale=2.0, input_scale=0.5,
                     channel_swap=(2, 1, 0)),
    "mean picture": dict(mean=random.rand(3, 9, 9), channel_swap=[1, 2, 0]),
}
for name, options in kinds.items():
    for pad in (None, 0, 1, 3):
        made = detector(3, 9, 9, context_pad=pad, **options)
        chosen = windows + (outside if pad else [])
        chosen = [np.array(window) for window in chosen]
        found = made.detect_windows([(pictures["color"], chosen), (pictures["grey"], chosen[:3])])
        key = "%s %s " % (name, pad)
        results[key + "predictions"] = np.array([one["prediction"] for one in found])
        results[key + "windows"] = np.array([one["window"] for one in found])
        results[key + "files"] = np.array(
            [one["filename"] == pictures["grey"] for one in found]
        )
        results[key + "keys"] = np.array(sorted(found[0]))
        results[key + "padding"] = np.array(made.context_pad or 0)
        results[key + "size"] = made.crop_dims
        if pad:
            results[key + "mean"] = made.crop_mean
# One channel; an input higher than wide.
for shape in ((9, 9), (15, 12)):
    made = detector(1, *shape, mean=np.array([0.3]), raw_scale=3.0)
    picture = random.rand(20, 30, 1).astype(np.float32).view(OldArray)
    for pad in (0, 1, 2, 4):
        made.configure_crop(pad)
        for number, window in enumerate(windows):
            crop = made.crop(picture, np.array(window))
            results["one channel %s %d %d" % (shape, pad, number)] = np.asarray(crop)

# Selective Search needs Matlab: a stand-in proposes windows.
proposals = types.ModuleType("selective_search_ijcv_with_python")
asked = []
proposals.get_windows = lambda *words, **options: (
    asked.append((words, options)), [np.array(windows[:2]), np.array(windows[2:3])])[1]
sys.modules["selective_search_ijcv_with_python"] = proposals
files = [pictures["color"], pictures["grey"]]
found = detector(3, 9, 9).detect_selective_search(files)
results["selective search"] = np.array([one["prediction"] for one in found])
results["asked"] = np.array(repr(asked).replace(pictures["color"], "0").replace(files[1], "1"))
give(results)
"""


@pytest.mark.parametrize(
    ("resizing", "tolerance"),
    [
        ("common resizing", 1e-5),
        # The releases of scikit-image differ at the edges of what they enlarge.
        ("own resizing", 2e-2),
    ],
)
def test_a_detector_equals_genuine_caffes(ours, reference, resizing, tolerance):
    given = ({}, resizing)
    got, wanted = ours.run(SCRIPT, *given), reference.run(SCRIPT, *given)
    assert set(got) == set(wanted)
    for key, value in wanted.items():
        assert got[key].shape == value.shape, key
        assert got[key].dtype == value.dtype or not key.startswith("one channel"), key
        if value.dtype.kind == "U":
            assert got[key].tolist() == value.tolist(), key
        elif not (resizing == "own resizing" and key.startswith("one channel")):
            np.testing.assert_allclose(got[key], value, rtol=tolerance, atol=tolerance, err_msg=key)
    assert len(np.unique(wanted["plain 3 predictions"].round(3), axis=0)) > 10
