"""Make a training set: a stack and its labels, with the weight map, in one HDF5 file."""

from unet.command.prepare import main
from unet.command.running import run_program

if __name__ == "__main__":
    run_program(main)
