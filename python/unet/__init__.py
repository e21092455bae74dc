"""The method of U-Net (Ronneberger et al., MICCAI 2015) on any engine that speaks pycaffe."""

__version__ = "0.1.0"
