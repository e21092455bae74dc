"""What tiles lose in a network: read from it, held against the networks that Caffe makes."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf import text_format

from caffe import NetSpec
from caffe import layers as L
from caffe.proto import caffe_pb2
from tests import caffe_unet, release2015
from unet.errors import InputError
from unet.network.geometry import Geometry
from unet.network.u_net import u_net

ENGINES = ["ours", pytest.param("reference", marks=pytest.mark.reference)]


def u(levels: int, padded: bool, tile: int = 64) -> caffe_pb2.NetParameter:
    n = NetSpec()
    n["data"] = L.Input(shape=dict(dim=[1, 1, tile, tile]))
    u_net(n, 2, 2, levels=levels, padded=padded)
    return n.to_proto()


def parse(text: str) -> caffe_pb2.NetParameter:
    return text_format.Parse(text, caffe_pb2.NetParameter(), allow_unknown_field=True)


# 3x3 convolutions lose 2 pixels: counted by hand in Fig. 1, and likewise with other levels.
@pytest.mark.parametrize(
    ("levels", "padded", "expected"),
    [
        (2, False, Geometry(4, 12, -28)),
        (3, False, Geometry(8, 28, -60)),
        (4, False, Geometry()),
        (5, False, Geometry(32, 124, -252)),
        (2, True, Geometry(4, 0, 0, 22)),
        (4, True, Geometry(16, 0, 0, 94)),
    ],
)
def test_the_numbers_of_a_network_are_read_from_it(levels, padded, expected):
    found = Geometry.of(u(levels, padded))
    assert found == expected
    assert found.levels == levels


@pytest.mark.parametrize(
    "text",
    [release2015.train_text(2), release2015.test_text((188, 204), 2), caffe_unet.net_text(2)],
    ids=["2015, to train", "2015, to test", "caffe_unet"],
)
def test_published_networks_are_read_in_their_own_formats(text):
    assert Geometry.of(parse(text)) == Geometry()


SIZES = """
import sys, numpy as np, caffe
given = np.load(sys.argv[1])
caffe.set_random_seed(5)
net = caffe.Net(str(given["net"]), caffe.TEST)
picture, results = given["picture"], {}
for name, part in (("whole", picture), ("part", picture[given["step"] :, given["step"] :])):
    net.blobs["data"].reshape(1, 1, *part.shape)
    net.blobs["data"].data[...] = part
    net.forward()
    results[name] = net.blobs["score"].data[0].copy()
np.savez(sys.argv[2], **results)
"""


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("levels", [2, 3, 4, 5])
@pytest.mark.parametrize("engine", ENGINES)
def test_scores_have_the_size_that_is_told_and_join_without_a_seam(
    tmp_path, engine, request, levels, padded
):
    geometry = Geometry.of(u(levels, padded))
    part, step = geometry.smallest, geometry.downsample_factor
    whole = part + step
    (tmp_path / "net.prototxt").write_text(str(u(levels, padded, part)))
    given = dict(
        net=str(tmp_path / "net.prototxt"),
        picture=np.random.default_rng(0).random((whole, whole)).astype(np.float32),
        step=step,
    )
    found = request.getfixturevalue(engine).run(SIZES, given)
    assert 0 < geometry.output_size(part) <= step
    margin, scores = geometry.margin, found["whole"]
    assert scores.shape[1] - 2 * margin == geometry.output_size(whole)
    assert found["part"].shape[1] - 2 * margin == geometry.output_size(part)
    whole_scores, part_scores = scores[:, step:, step:], found["part"]
    same = np.isclose(part_scores, whole_scores, rtol=0, atol=1e-4 * np.ptp(scores)).all(axis=0)
    end = part_scores.shape[1] - margin
    assert same[margin:end, margin:end].all()
    assert padded != same.all()


def test_sizes_are_the_valid_ones():
    geometry = Geometry.of(u(3, False))
    assert geometry.smallest == 92
    assert [geometry.input_size(output) for output in (1, 4, 5, 300)] == [92, 92, 100, 388]
    geometry.check((92, 388))
    with pytest.raises(InputError, match=r"90 is not 8k \+ 28 with k >= 8; the nearest are 92 and"):
        geometry.check((92, 90))
    with pytest.raises(InputError, match="8 is not 16k with k >= 1; the nearest are 16 and 32"):
        Geometry(16, 0, 0).check((16, 8))


@pytest.mark.parametrize(
    ("change", "changed", "message"),
    [
        ("offset: 16", "offset: 15", "'crop_d2c-d2cc': its crop is not central"),
        ("offset: 16", "offset: 16 offset: 17", "'crop_d2c-d2cc': its offset differs between"),
        ('"Pooling"', '"SPP"', "'pool_d0c-1a': what its type does to the size of a tile is not"),
        ("kernel_size: 3", "kernel_size: 4", "'score' does not lie centrally on 'data'"),
        ('top: "score"', 'top: "scores"', "no blob 'score' that comes from 'data'"),
        ('bottom: "u0d"', 'bottom: "d1a"', "'score' does not lie centrally on 'data'"),
    ],
)
def test_a_network_whose_tiles_cannot_be_put_together_is_told(change, changed, message):
    text = str(u(4, False))
    assert change in text
    with pytest.raises(InputError, match=message):
        Geometry.of(parse(text.replace(change, changed, 1)))
