"""Get a data set, or the authors' release of 2015, and say what was found."""

from unet.command.fetch import main
from unet.command.running import run_program

if __name__ == "__main__":
    run_program(main)
