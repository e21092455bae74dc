"""The exceptions of the engine: genuine Caffe aborts the process, this engine raises."""

from __future__ import annotations


class CaffeError(RuntimeError):
    """A net, a solver or a file that cannot be used as it stands.

    The message names the file and line, or the layer and the shapes, and what to do.

    Parameters
    ----------
    message : str
    layer : str, optional
        The name of the layer that it is about: whoever knows its file adds the line.

    Attributes
    ----------
    layer : str or None
    """

    def __init__(self, message: str, layer: str | None = None) -> None:
        super().__init__(message)
        self.layer = layer


def note_layer(error: Exception, layer: str, kind: str, step: str) -> None:
    """Note at an exception of a layer's own code where it was raised; its traceback ends with that.

    Class and message stay as they are, for programs that look at them. (Python 3.10 knows no
    notes.)

    Parameters
    ----------
    error : Exception
        Not changed if it is a CaffeError, which names the layer itself.
    layer, kind : str
        The layer's name and type.
    step : str
        What the layer was doing.
    """
    if not isinstance(error, CaffeError) and hasattr(error, "add_note"):
        error.add_note(f"in {step} of layer '{layer}' ({kind})")
