"""Who imports whom: no circle, not even for types; the method knows Caffe by its face alone."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest


def modules(folder: Path) -> dict[str, ast.Module]:
    """Return the modules of a package by their dotted names, parsed."""
    found = {}
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text())
    return found


def imported(tree: ast.Module) -> set[str]:
    """Return all names that are imported, anywhere in a module: packages, modules, and in these."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
            found.add(node.module)
    return found


@pytest.mark.parametrize("package", ["caffe", "unet", "unet_export", "unet_napari"])
def test_no_module_imports_one_that_imports_it(repository, package):
    trees = modules(repository / "python" / package)
    arrows = {}
    for name, tree in trees.items():
        names = imported(tree)
        # `from package import module` needs the module, not what else the package's face imports.
        inner = {n.rpartition(".")[0] for n in names if n in trees}
        arrows[name] = {n for n in names & trees.keys() if n not in inner} - {name}
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_the_engine_knows_nothing_of_the_method(repository):
    for name, tree in modules(repository / "python" / "caffe").items():
        others = {n.split(".")[0] for n in imported(tree)}
        assert not others & {"unet", "unet_export"}, name


@pytest.mark.parametrize("folder", ["unet", "unet_export"])
def test_the_method_knows_caffe_by_its_interface_and_nothing_of_pytorch(repository, folder):
    for name, tree in modules(repository / "python" / folder).items():
        for other in imported(tree):
            package, _, inner = other.partition(".")
            # What is exported for PyTorch is of PyTorch.
            assert package != "torch" or folder == "unet_export", name
            assert package not in ("napari", "qtpy"), name
            # caffe.Net, but not caffe.net.net.Net.
            assert package != "caffe" or "." not in inner or inner.startswith("proto."), name


def test_nothing_of_the_method_needs_what_is_built_on_it(repository):
    for name, tree in modules(repository / "python" / "unet").items():
        assert not {
            n for n in imported(tree) if n.split(".")[0] in ("unet_export", "unet_napari")
        }, name


def test_the_widgets_know_of_the_method_what_others_do_and_nothing_of_the_engine(repository):
    public = ["unet", "unet.errors", "unet.model", "unet.report.run_files"]
    public += ["unet.volumes", "unet.volumes.units"]
    for name, tree in modules(repository / "python" / "unet_napari").items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] != "unet_napari":
                package = node.module.split(".")[0]
                assert package not in ("torch", "caffe"), name
                assert package != "unet" or node.module in public, name
                assert not any(one.name.startswith("_") for one in node.names), name
