"""Images into blobs and back, as pycaffe's `caffe.io` does."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from caffe.files.wire import blob_bytes
from caffe.proto import caffe_pb2


def blobproto_to_array(blob: caffe_pb2.BlobProto, return_diff: bool = False) -> np.ndarray:
    """Return the data of a BlobProto, or its diff, as a float64 array of its shape.

    Raises
    ------
    ValueError
        If the numbers are not as many as the shape says.
    """
    numbers = (blob.diff or blob.double_diff) if return_diff else (blob.data or blob.double_data)
    values = np.fromiter(numbers, np.float64, len(numbers))
    if any(blob.HasField(axis) for axis in ("num", "channels", "height", "width")):
        return values.reshape(blob.num, blob.channels, blob.height, blob.width)
    return values.reshape(tuple(blob.shape.dim))


def array_to_blobproto(arr: np.ndarray, diff: np.ndarray | None = None) -> caffe_pb2.BlobProto:
    """Return a BlobProto of an array of any shape, and a diff if given; both become float32."""
    blob = caffe_pb2.BlobProto.FromString(b"".join(blob_bytes(arr)))
    if diff is not None:
        blob.diff.extend(np.asarray(diff, np.float64).ravel().tolist())
    return blob


def arraylist_to_blobprotovector_str(arraylist: Sequence[np.ndarray]) -> bytes:
    """Return arrays as the bytes of a BlobProtoVector."""
    vector = caffe_pb2.BlobProtoVector(blobs=[array_to_blobproto(arr) for arr in arraylist])
    return vector.SerializeToString()


def blobprotovector_str_to_arraylist(str: bytes) -> list[np.ndarray]:
    """Return the arrays in the bytes of a BlobProtoVector."""
    vector = caffe_pb2.BlobProtoVector.FromString(str)
    return [blobproto_to_array(blob) for blob in vector.blobs]


def array_to_datum(arr: np.ndarray, label: int | None = None) -> caffe_pb2.Datum:
    """Return a Datum of an image, (channels, height, width): uint8 as bytes, others as floats.

    Raises
    ------
    ValueError
        If the array has not three axes.
    """
    if arr.ndim != 3:
        raise ValueError(
            "Incorrect array shape: a Datum has three axes (channels, height, width), not "
            f"{arr.ndim}"
        )
    datum = caffe_pb2.Datum()
    datum.channels, datum.height, datum.width = arr.shape
    if arr.dtype == np.uint8:
        datum.data = arr.tobytes()
    else:
        datum.float_data.extend(arr.astype(np.float64).ravel().tolist())
    if label is not None:
        datum.label = label
    return datum


def datum_to_array(datum: caffe_pb2.Datum) -> np.ndarray:
    """Return the image in a Datum, (channels, height, width): uint8, or float64 of its floats."""
    shape = (datum.channels, datum.height, datum.width)
    if datum.data:
        return np.frombuffer(datum.data, np.uint8).reshape(shape)
    return np.array(datum.float_data, np.float64).reshape(shape)


class Transformer:
    """Brings images into the form that a net was trained on, and back.

    An image, (height, width, channels), is resized to the input's size, its axes and channels are
    reordered, it is scaled (`raw_scale`), the mean is taken off, and it is scaled again
    (`input_scale`); each step only if it was set.

    Parameters
    ----------
    inputs : mapping
        Input blob -> its shape (batch, channels, height, width).
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs = inputs
        self.transpose: dict[str, Sequence[int]] = {}
        self.channel_swap: dict[str, Sequence[int]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, np.ndarray] = {}
        self.input_scale: dict[str, float] = {}

    def _check_input(self, in_: str) -> None:
        if in_ not in self.inputs:
            raise Exception(f"{in_} is not one of the net inputs: {self.inputs}")

    def preprocess(self, in_: str, data: np.ndarray) -> np.ndarray:
        """Return an image as input `in_` wants it.

        Parameters
        ----------
        in_ : str
            An input blob.
        data : array (height, width, channels)
            Left as it is.

        Returns
        -------
        float32 array (channels, height, width)
            In this order if `transpose` is (2, 0, 1).
        """
        self._check_input(in_)
        image = data.astype(np.float32)
        size = tuple(self.inputs[in_][2:])
        if image.shape[:2] != size:
            image = resize_image(image, size)
        if in_ in self.transpose:
            image = image.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            image = image[list(self.channel_swap[in_]), :, :]
        if in_ in self.raw_scale:
            image *= self.raw_scale[in_]
        if in_ in self.mean:
            image -= self.mean[in_]
        if in_ in self.input_scale:
            image *= self.input_scale[in_]
        return image

    def deprocess(self, in_: str, data: np.ndarray) -> np.ndarray:
        """Undo `preprocess`, but for the resizing: return the image behind the input `data`."""
        self._check_input(in_)
        image = data.copy().squeeze()
        if in_ in self.input_scale:
            image /= self.input_scale[in_]
        if in_ in self.mean:
            image += self.mean[in_]
        if in_ in self.raw_scale:
            image /= self.raw_scale[in_]
        if in_ in self.channel_swap:
            image = image[np.argsort(self.channel_swap[in_]), :, :]
        if in_ in self.transpose:
            image = image.transpose(np.argsort(self.transpose[in_]))
        return image

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """Set the order of axes; (2, 0, 1) makes (height, width, channels) Caffe's order."""
        self._check_input(in_)
        if len(order) != len(self.inputs[in_]) - 1:
            raise Exception(
                "Transpose order needs to have the same number of dimensions as the input: "
                f"{len(self.inputs[in_]) - 1} for {in_}, not {order}"
            )
        self.transpose[in_] = order

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Set the order of channels; (2, 1, 0) makes RGB the BGR of Caffe's model zoo."""
        self._check_input(in_)
        if len(order) != self.inputs[in_][1]:
            raise Exception(
                "Channel swap needs to have the same number of dimensions as the input channels: "
                f"{self.inputs[in_][1]} for {in_}, not {order}"
            )
        self.channel_swap[in_] = order

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Set the factor that is applied before the mean is taken off; 255 for `load_image`."""
        self._check_input(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: np.ndarray) -> None:
        """Set the mean to take off: one value a channel, or an image, (channels, height, width).

        An image of another size is resized.

        Raises
        ------
        ValueError
            If it does not fit the input.
        """
        self._check_input(in_)
        shape = tuple(self.inputs[in_][1:])
        if len(mean.shape) == 1:
            if mean.shape[0] != shape[0]:
                raise ValueError(
                    f"Mean channels incompatible with input: {in_} has {shape[0]}, the mean "
                    f"{mean.shape[0]}"
                )
            mean = mean[:, np.newaxis, np.newaxis]
        elif (1,) * (3 - mean.ndim) + mean.shape != shape:
            if mean.ndim != 3:
                raise ValueError(
                    f"Mean shape invalid: {in_} is of shape {shape}, the mean of {mean.shape}"
                )
            mean = resize_image(mean.transpose(1, 2, 0), shape[1:]).transpose(2, 0, 1)
        self.mean[in_] = mean

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Set the factor that is applied after the mean is taken off."""
        self._check_input(in_)
        self.input_scale[in_] = scale


def load_image(filename: str | os.PathLike, color: bool = True) -> np.ndarray:
    """Read an image.

    Parameters
    ----------
    filename : path
        Any format that scikit-image reads.
    color : bool
        Whether grey images get three channels; otherwise coloured ones are made grey.

    Returns
    -------
    float32 array (height, width, 3), or (height, width, 1) without `color`
        From 0 to 1; an alpha channel is left out.
    """
    # scikit-image takes longer to import than the rest of this module to run.
    import skimage
    import skimage.io

    image = skimage.img_as_float32(skimage.io.imread(os.fspath(filename), as_gray=not color))
    if image.ndim == 2:
        image = image[:, :, np.newaxis]
        if color:
            image = np.tile(image, (1, 1, 3))
    return image[:, :, :3]


def resize_image(im: np.ndarray, new_dims: Sequence[int], interp_order: int = 1) -> np.ndarray:
    """Resize an image.

    Parameters
    ----------
    im : array (height, width, channels)
    new_dims : (height, width)
    interp_order : int
        Of the interpolation: 0 takes the nearest, 1 is linear, 3 cubic.

    Returns
    -------
    float32 array (height, width, channels)
    """
    height, width = new_dims
    if im.shape[-1] not in (1, 3):
        from scipy import ndimage

        scale = (height / im.shape[0], width / im.shape[1], 1)
        return ndimage.zoom(im, scale, order=interp_order).astype(np.float32)
    low, high = im.min(), im.max()
    if not low < high:
        return np.full((height, width, im.shape[-1]), low, np.float32)
    from skimage.transform import resize

    # Newer scikit-image interpolates otherwise at order 3 than genuine Caffe's, not at 0 and 1.
    unit = (im - low) / (high - low)
    resized = resize(unit, (height, width), order=interp_order, mode="constant")
    return (resized * (high - low) + low).astype(np.float32)


def oversample(images: Sequence[np.ndarray], crop_dims: Sequence[int]) -> np.ndarray:
    """Cut the four corners and the centre out of images, each also mirrored.

    Parameters
    ----------
    images : sequence of arrays (height, width, channels)
        All of one size.
    crop_dims : (height, width)

    Returns
    -------
    float32 array (10 * images, height, width, channels)
        Of each image the corners (top left, top right, bottom left, bottom right), the centre,
        then the same five mirrored left to right.

    Raises
    ------
    ValueError
        If an image is smaller than the crops.
    """
    size = np.array(images[0].shape[:2])
    crop = np.array(crop_dims, dtype=int)
    if (crop > size).any():
        raise ValueError(f"crops of {tuple(crop)} from a picture of {tuple(size)}")
    bottom, right = size - crop
    top, left = (size / 2.0 - crop / 2.0).astype(int)
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (top, left)]
    crops = []
    for image in images:
        five = [image[y : y + crop[0], x : x + crop[1]] for y, x in corners]
        crops += five + [cut[:, ::-1] for cut in five]
    return np.stack(crops).astype(np.float32)
