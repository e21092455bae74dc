"""The exceptions of the engine: genuine Caffe aborts the process, this engine raises."""

from __future__ import annotations


class CaffeError(RuntimeError):
    """A net, a solver or a file that cannot be used as it stands.

    The message names the file and line, or the layer and the shapes, and what to do.
    """
