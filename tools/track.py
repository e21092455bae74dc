"""Follow cells through a sequence: the labels of each frame become tracks."""

from unet.command.running import run_program
from unet.command.track import main

if __name__ == "__main__":
    run_program(main)
