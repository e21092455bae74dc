"""What a Detector refuses; what it gives is judged by genuine Caffe in tests/parity."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.io

import caffe


@pytest.fixture
def make(tmp_path):
    """Return what makes a Detector of a net that sums up its input, and a picture of ones."""

    def made(height: int = 9, width: int = 9, **options) -> caffe.Detector:
        path = tmp_path / "net.prototxt"
        path.write_text(
            f'input: "data" input_dim: 1 input_dim: 3 input_dim: {height} input_dim: {width}\n'
            'layer { name: "sum" type: "Reduction" bottom: "data" top: "sum" '
            "reduction_param { axis: 1 } }"
        )
        net = caffe.Net(str(path), caffe.TEST)
        net.save(tmp_path / "net.caffemodel")
        return caffe.Detector(path, tmp_path / "net.caffemodel", **options)

    return made


@pytest.fixture
def picture(tmp_path) -> str:
    path = tmp_path / "white.png"
    skimage.io.imsave(path, np.full((20, 30, 3), 255, np.uint8), check_contrast=False)
    return str(path)


def test_a_context_outside_the_picture_is_zero_in_the_net(make, picture):
    detector = make(context_pad=3)
    inside, corner = detector.detect_windows([(picture, [(9, 12, 11, 14), (0, 0, 7, 7)])])
    assert inside["prediction"] == 3 * 9 * 9
    # The box reaches from -8 to 16: a third of its 25 pixels, 3 of the crop's 9, are outside.
    assert corner["prediction"] == 3 * 6 * 6
    assert corner["window"] == (0, 0, 7, 7)
    assert corner["filename"] == picture


def test_no_windows_give_no_detections(make, picture):
    assert make().detect_windows([]) == make().detect_windows([(picture, [])]) == []


@pytest.mark.parametrize("pad", [None, 2])
def test_a_window_beside_the_picture_is_refused(make, picture, pad):
    told = r"white.png: window \[30, 40, 35, 45\] .* nothing of the picture of 20 x 30 pixels"
    with pytest.raises(caffe.CaffeError, match=told):
        make(context_pad=pad).detect_windows([(picture, [[30, 40, 35, 45]])])


@pytest.mark.parametrize(("height", "width", "pad"), [(9, 9, 5), (8, 8, 4), (9, 12, 1)])
def test_a_context_that_does_not_fit_the_input_is_refused(make, height, width, pad):
    with pytest.raises(caffe.CaffeError, match=f"square input .* not {height} x {width}"):
        make(height, width, context_pad=pad)


def test_selective_search_names_the_package_it_needs(make):
    with pytest.raises(ImportError, match="named 'selective_search_ijcv_with_python': proposing"):
        make().detect_selective_search(["picture.png"])
