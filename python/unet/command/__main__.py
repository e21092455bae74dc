"""`python -m unet.command` is `unet`."""

from unet.command import run

if __name__ == "__main__":
    run()
