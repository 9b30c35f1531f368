"""What is shipped: every package, importable as segcli.models, with or without the link, beside any `models/`."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
CHECK = (
    "import sys, segcli.models, models, segcli.models.roi_align, segcli.models.checkpoints.own, segcli.cli.main;"
    "assert models.MINE == 1;"
    "assert 'segcli.models.mask_rcnn' in sys.modules;"
    "print(segcli.models.__file__)"
)


def on_disk() -> set[str]:
    """Import names of all folders with an `__init__.py`."""
    found = set()
    for folder, name in (("segcli", "segcli"), ("models", "segcli.models")):
        for path in (REPOSITORY / folder).rglob("__init__.py"):
            parts = path.parent.relative_to(REPOSITORY / folder).parts
            if parts[:1] != ("models",):  # through the link
                found.add(".".join((name, *parts)))
    return found


def shipped() -> set[str]:
    """Files that a wheel has to hold."""
    files = {"segcli/py.typed", "segcli/published/zoo.json"}
    files |= {f"segcli/embedded/nano-nuclei.{suffix}" for suffix in ("md", "safetensors")}
    for folder, name in (("segcli", "segcli"), ("models", "segcli/models")):
        for path in (REPOSITORY / folder).rglob("*.py"):
            relative = path.relative_to(REPOSITORY / folder)
            if relative.parts[0] != "models":
                files.add(f"{name}/{relative.as_posix()}")
    return files


@pytest.fixture(scope="session")
def project() -> dict[str, Any]:
    """The project file."""
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A working directory with a `models` package of its own."""
    (tmp_path / "work" / "models").mkdir(parents=True)
    (tmp_path / "work" / "models" / "__init__.py").write_text("MINE = 1\n")
    return tmp_path / "work"


def checkout(folder: Path, link: str) -> Path:
    """A copy of what is needed to build; `link` says what became of segcli/models on the way."""
    clean = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("segcli", "models"):
        shutil.copytree(REPOSITORY / name, folder / name, symlinks=True, ignore=clean)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder)
    if link != "kept":
        (folder / "segcli" / "models").unlink()
    if link == "text":  # what git writes where links cannot be made
        (folder / "segcli" / "models").write_text("../models")
    return folder


def throw_away(folder: Path) -> Path:
    """A virtual environment that is bare but borrows libraries; returns its interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    # by a .pth file, in which borrowed .pth files do not count: our own editable install stays unseen
    site = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def call(*command: object, cwd: Path) -> str:
    """Run a command to its end and return its stdout; its stderr is the failure's message."""
    words = [str(word) for word in command]
    found = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-3000:] + found.stdout[-1000:]
    return found.stdout


def pip(*arguments: object, cwd: Path) -> str:
    """Pip, without the network and without dependencies."""
    flags = ("--disable-pip-version-check", "--no-input")
    return call(sys.executable, "-m", "pip", *flags, *arguments, "--no-deps", "--no-index", cwd=cwd)


def test_package_list_is_complete(project: dict[str, Any]) -> None:
    """The packages named in pyproject.toml are those on disk, and those of models/ are mapped to their folders."""
    listed = project["tool"]["setuptools"]["packages"]
    mapped = project["tool"]["setuptools"]["package-dir"]

    assert sorted(listed) == sorted(on_disk())
    assert mapped == {
        name: name.removeprefix("segcli.").replace(".", "/")
        for name in on_disk()
        if name.startswith("segcli.models")
    }


def test_link_points_to_models() -> None:
    """The link is relative and leads to models/."""
    link = REPOSITORY / "segcli" / "models"

    assert link.is_symlink()
    assert link.readlink() == Path("../models")
    assert link.resolve() == REPOSITORY / "models"


def test_constraints_pin_every_dependency(project: dict[str, Any]) -> None:
    """Each direct dependency, of use and of development, is pinned exactly, and no registry is named."""
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    wanted = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["dev"]
    names = {name.split(">")[0].replace("-", "_").lower() for name in wanted}

    assert all(line.count("==") == 1 and "/" not in line for line in pins)
    assert names <= {line.split("==")[0].replace("-", "_").lower() for line in pins}


def test_licence(project: dict[str, Any]) -> None:
    """The licence is Apache-2.0, whole."""
    text = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")

    assert project["project"]["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_installed_version() -> None:
    """The installed version is the package's own."""
    from segcli.version import __version__

    assert importlib.metadata.version("segcli") == __version__


def test_beside_another_models_package(stranger: Path) -> None:
    """In a working directory with a models/ package of its own both are imported, each as itself."""
    found = call(sys.executable, "-c", CHECK, cwd=stranger).strip()

    assert Path(found).resolve() == REPOSITORY / "models" / "__init__.py"
    assert call(sys.executable, "-m", "segcli", "--version", cwd=stranger).startswith("segcli, ")


@pytest.mark.slow
def test_sdist_and_its_wheel(tmp_path: Path, stranger: Path) -> None:
    """The sdist holds all that a wheel needs; the wheel made of it holds every module, installs and runs."""
    (tmp_path / "copy").mkdir()
    copy = checkout(tmp_path / "copy", "kept")
    call(sys.executable, "-m", "build", "--no-isolation", "-o", tmp_path / "dist", cwd=copy)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (sdist,) = (tmp_path / "dist").glob("*.tar.gz")

    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    assert held == shipped()
    assert len(licences) == 1
    with tarfile.open(sdist) as archive_of_sources:
        names = {name.split("/", 1)[-1] for name in archive_of_sources.getnames()}
    assert {"models/mask_rcnn.py", "models/roi_align/__init__.py", "README.md", "LICENSE"} <= names

    python = throw_away(tmp_path / "venv")
    pip("--python", python, "install", wheel, cwd=tmp_path)
    found = call(python, "-c", CHECK, cwd=stranger).strip()
    assert Path(found).is_relative_to(tmp_path / "venv")
    version = call(tmp_path / "venv" / "bin" / "segcli", "--version", cwd=stranger)
    assert version.startswith("segcli, version ")


@pytest.mark.slow
@pytest.mark.parametrize("link", ["deleted", "text"])
def test_wheel_without_the_link(link: str, tmp_path: Path) -> None:
    """A checkout that lost the link, or has a text file in its place, gives the same wheel."""
    (tmp_path / "copy").mkdir()
    copy = checkout(tmp_path / "copy", link)
    pip("wheel", "--no-build-isolation", "-w", tmp_path / "dist", ".", cwd=copy)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert held == shipped()


@pytest.mark.slow
@pytest.mark.parametrize("link", ["kept", "text"])
def test_editable_install(link: str, tmp_path: Path, stranger: Path) -> None:
    """An editable install works from any checkout, also beside a models/ package of its own."""
    (tmp_path / "copy").mkdir()
    copy = checkout(tmp_path / "copy", link)
    python = throw_away(tmp_path / "venv")
    pip("--python", python, "install", "--no-build-isolation", "-e", copy, cwd=tmp_path)
    found = call(python, "-c", CHECK, cwd=stranger).strip()

    assert Path(found).resolve() == copy / "models" / "__init__.py"
