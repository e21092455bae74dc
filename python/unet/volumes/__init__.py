"""Read and write stacks: TIFF, PNG, folders of them, HDF5, Zarr."""

from unet.volumes.calibration import Calibration
from unet.volumes.images import Volume
from unet.volumes.intensity import intensity_range
from unet.volumes.stacks import Stack, as_volume, chosen_slices, open_volume, read_volume
from unet.volumes.writers.volume_writer import VolumeWriter, write_volume

__all__ = [
    "Calibration",
    "Stack",
    "Volume",
    "VolumeWriter",
    "as_volume",
    "chosen_slices",
    "intensity_range",
    "open_volume",
    "read_volume",
    "write_volume",
]
