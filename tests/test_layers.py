"""The arrows of the house point down, and files stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
JOBS = ("training", "prediction", "evaluation", "overlay", "bench")
# numpy only, so that looking at a dataset imports no torch
LIGHT = (
    "allocator", "annotations", "categories", "config", "console", "download", "errors", "files", "home",
    "image_headers", "images", "instances", "masks", "output", "processes", "published", "published.fetching", "rle",
    "rle_sets", "version",
)  # fmt: skip


def sources() -> Iterator[tuple[str, Path]]:
    """Module names and files of both trees; models/ under its import name."""
    for folder, name in (
        (REPOSITORY / "segcli", "segcli"),
        (REPOSITORY / "models", "segcli.models"),
    ):
        for path in sorted(folder.rglob("*.py")):
            relative = path.relative_to(folder)
            if relative.parts[0] == "models":  # through the link
                continue
            parts = relative.with_suffix("").parts
            yield ".".join((name, *(p for p in parts if p != "__init__"))), path


SOURCES = dict(sources())


def imports(path: Path) -> set[str]:
    """Absolute names of what a file imports, anywhere in it; `from a import b` gives `a` and `a.b`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            assert node.module is not None
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def within(name: str, *packages: str) -> bool:
    """Whether a dotted name is one of the packages, or lies in one."""
    return any(name == package or name.startswith(package + ".") for package in packages)


def forbidden(module: str) -> tuple[str, ...]:
    """Packages that a module must not import."""
    if within(module, "segcli.models"):
        # tensors in, tensors out
        return ("click", "cv2", "numpy", "PIL", "pycocotools", "av", "rich", "tqdm")
    if within(module, "segcli.cli") or module == "segcli.__main__":
        return ("torch", "torchvision", "numpy", "cv2", "PIL")
    rules: tuple[str, ...] = ("click", "segcli.cli")
    if module.removeprefix("segcli.") in LIGHT:
        rules += ("torch", "torchvision", "segcli.models", "segcli.data")
        rules += tuple(f"segcli.{job}" for job in JOBS)
    if within(module, "segcli.data", "segcli.preprocess", "segcli.zoo", "segcli.device"):
        rules += tuple(f"segcli.{job}" for job in JOBS)
    if within(module, "segcli.preprocess", "segcli.zoo", "segcli.device"):
        rules += ("segcli.data",)
    # nothing but the command line uses these, and the benchmark, which times their steps
    if not within(module, "segcli.training", "segcli.bench"):
        rules += ("segcli.training",)
    if within(module, "segcli.prediction", "segcli.overlay"):
        rules += ("segcli.evaluation",)
    return rules


def wrong_imports(module: str, path: Path) -> set[str]:
    """What a module imports although it must not."""
    found = imports(path)
    wrong = {name for name in found if within(name, *forbidden(module))}
    if within(module, "segcli.models"):
        wrong |= {n for n in found if within(n, "segcli") and not within(n, "segcli.models")}
    return wrong


def test_the_trees_are_found() -> None:
    """The check looks at the files it is meant for."""
    assert {"segcli.cli.main", "segcli.models.mask_rcnn", "segcli.data", "segcli"} <= SOURCES.keys()
    assert {f"segcli.{name}" for name in LIGHT} <= SOURCES.keys()
    assert imports(SOURCES["segcli.cli.main"]) >= {"click", "segcli.errors.SegcliError"}


@pytest.mark.parametrize("module", SOURCES)
def test_arrows_point_down(module: str) -> None:
    """A module imports nothing from above it, nor a library that has no place in it."""
    assert wrong_imports(module, SOURCES[module]) == set()


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("segcli.models.paste", "import numpy as np"),
        ("segcli.models.paste", "from segcli.errors import SegcliError"),
        ("segcli.models.paste", "from segcli import masks"),
        ("segcli.masks", "from torch import Tensor"),
        ("segcli.masks", "from segcli.models import ModelSpec"),
        ("segcli.data.coco", "import click.core"),
        ("segcli.data.coco", "from segcli.prediction.walk import walk"),
        ("segcli.prediction.job", "from segcli.cli.main import main"),
        ("segcli.prediction.job", "from segcli import training"),
        ("segcli.overlay.video", "import segcli.evaluation.coco"),
        ("segcli.zoo", "from segcli.data.coco import read_coco"),
        ("segcli.cli.train", "import torch"),
    ],
)
@pytest.mark.parametrize("indent", ["", "def late():\n    "], ids=["at the top", "in a function"])
def test_arrows_that_point_up_are_found(
    module: str, line: str, indent: str, tmp_path: Path
) -> None:
    """The check itself fails where it should, also for imports inside functions."""
    path = tmp_path / "sample.py"
    path.write_text(f"{indent}{line}\n")

    assert wrong_imports(module, path)


@pytest.mark.parametrize("module", SOURCES)
def test_no_bare_models(module: str) -> None:
    """The network is imported as segcli.models: a bare `models` is somebody else's."""
    assert {name for name in imports(SOURCES[module]) if within(name, "models")} == set()


@pytest.mark.parametrize("module", SOURCES)
def test_files_stay_small(module: str) -> None:
    """A module has a docstring, at most 300 lines, functions of at most 60 lines, and a name that says something."""
    path = SOURCES[module]
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [f.name for f in functions if _body_lines(f) > 60]

    assert ast.get_docstring(tree)
    assert len(text.splitlines()) <= 300
    assert long == []
    assert path.stem not in {"utils", "util", "misc", "helpers", "common"}


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return 0 if not body else (body[-1].end_lineno or 0) - body[0].lineno + 1
