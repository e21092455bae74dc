"""Train a network: run any solver prototxt, with progress, curves, snapshots and resume."""

from unet.command.running import run_program
from unet.command.train import main

if __name__ == "__main__":
    run_program(main)
