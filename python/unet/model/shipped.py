"""The trained networks that come with the project, by name."""

from __future__ import annotations

from pathlib import Path


def shipped() -> dict[str, Path]:
    """Return the folders of the networks that come with the project, by name.

    They lie beside the package, where a wheel has put them, else in models/ of the checkout.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "models", package.parents[1] / "models"):
        found = sorted(path.parent for path in folder.glob("*/deploy.prototxt"))
        if found:
            return {path.name: path for path in found}
    return {}
