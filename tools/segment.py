"""Segment a stack with a trained network: the probability or the class of every pixel."""

from unet.command.running import run_program
from unet.command.segment import main

if __name__ == "__main__":
    run_program(main)
