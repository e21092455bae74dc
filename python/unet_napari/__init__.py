"""The method in napari: a widget that segments a layer, and one that trains on two.

napari finds them by `napari.yaml`. Only the face of `unet` is used here, and nothing there knows of
this package; it needs napari and a Qt binding, which the extra `napari` leaves to the environment.
"""

from __future__ import annotations

try:
    import napari  # noqa: F401
    import qtpy.QtWidgets  # noqa: F401
except Exception as error:
    # qtpy has exceptions of its own for a binding that is missing or broken.
    raise ImportError(
        f"the widgets need napari and a Qt binding: pip install 'unet-in-caffe[napari]' "
        f"'napari[all]' ({error})"
    ) from None
