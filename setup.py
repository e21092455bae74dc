"""Put the trained networks into what is built, as unet/models; all else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

# What `unet.load` and `unet segment --weights` know by name, and what of their folders they need.
NETWORKS = ("isbi2012", "isbi2012_slim", "phc-u373_slim")
FILES = (
    "README.md",
    "deploy.prototxt",
    "input.json",
    "scores.json",
    "segment.json",
    "weights.caffemodel*",
)


class BuildWithNetworks(build_py):
    """Build the packages, and copy the networks beside the method."""

    def run(self) -> None:
        super().run()
        # An editable installation finds them in the checkout.
        for name in () if self.editable_mode else NETWORKS:
            target = Path(self.build_lib, "unet", "models", name)
            self.mkpath(str(target))
            for pattern in FILES:
                for file in Path("models", name).glob(pattern):
                    self.copy_file(str(file), str(target / file.name))


setup(cmdclass={"build_py": BuildWithNetworks})
