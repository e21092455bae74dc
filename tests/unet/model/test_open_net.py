"""Published networks open by themselves, with an input of the right channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import caffe
from caffe.errors import CaffeError
from tests import caffe_unet, release2015
from unet.errors import InputError
from unet.model import find_model, load_net
from unet.model.modeldef import ModelDefinition, write_modeldef
from unet.model.open_net import open_deployed

WIDTH = 2


def write_plugin_model(folder: Path, channels: int) -> None:
    """Write cells.modeldef.h5 and cells.caffemodel.h5, by an engine that saves HDF5."""
    path = folder / "net.prototxt"
    path.write_text(caffe_unet.test_text((188, 188), width=WIDTH, channels=channels))
    caffe.set_random_seed(1)
    caffe.Net(str(path), caffe.TEST).save_hdf5(str(folder / "cells.caffemodel.h5"))
    definition = ModelDefinition(caffe_unet.net_text(width=WIDTH), name="cells")
    write_modeldef(folder / "cells.modeldef.h5", definition)


def test_the_release_opens_as_its_scripts_opened_it(tmp_path):
    release = release2015.write_release(tmp_path, WIDTH, np.zeros((1, 20, 20), np.uint8))
    prototxt, weights = find_model(release / "phseg_v5.caffemodel")
    assert prototxt == release / "phseg_v5-train.prototxt"
    net = load_net(caffe, prototxt, weights)
    reference = tmp_path / "test.prototxt"
    reference.write_text(release2015.test_text((220, 204), WIDTH))
    expected = caffe.Net(str(reference), str(weights), caffe.TEST)
    picture = np.random.default_rng(0).random((220, 204))
    scores = []
    for opened in (net, expected):
        opened.blobs["data"].reshape(1, 1, 220, 204)
        opened.blobs["data"].data[...] = picture
        scores.append(opened.forward(["score"])["score"].copy())
    assert np.array_equal(*scores)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_of_the_plugin_opens_with_the_channels_of_its_weights(tmp_path, channels):
    write_plugin_model(tmp_path, channels)
    prototxt, weights = find_model(tmp_path / "cells.caffemodel.h5")
    assert prototxt == tmp_path / "cells.modeldef.h5"
    net = load_net(caffe, prototxt, weights)
    assert net.blobs["data"].shape[1] == channels


def test_a_deploy_prototxt_opens_as_it_is(repository):
    path = repository / "prototxt" / "unet_slim" / "deploy.prototxt"
    assert tuple(open_deployed(caffe, path, "absent").blobs["data"].shape) == (1, 1, 572, 572)


def test_an_error_in_the_text_names_its_own_file_and_line(tmp_path):
    path = tmp_path / "phseg_v5-train.prototxt"
    path.write_text(release2015.train_text(WIDTH).replace("type: POOLING", "type: POOL", 1))
    line = path.read_text()[: path.read_text().index("type: POOL\n")].count("\n") + 1
    with pytest.raises(CaffeError, match=rf"^{path}:{line}:"):
        open_deployed(caffe, path, "absent")


def test_a_volume_network_of_the_plugin_is_refused(tmp_path):
    definition = ModelDefinition(caffe_unet.net_text(width=2), element_size_um=(1.0, 1.0, 1.0))
    write_modeldef(tmp_path / "cells.modeldef.h5", definition)
    with pytest.raises(InputError, match=r"cells.modeldef.h5: is of 3 dimensions"):
        open_deployed(caffe, tmp_path / "cells.modeldef.h5", "absent")
