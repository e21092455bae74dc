"""Score a segmentation against its ground truth as its challenge did."""

from unet.command.running import run_program
from unet.command.score import main

if __name__ == "__main__":
    run_program(main)
