"""A trained network, opened from wherever it comes."""

from unet.model.model import Model, load
from unet.model.open_net import find_model, shipped

__all__ = ["Model", "find_model", "load", "shipped"]
