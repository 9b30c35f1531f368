"""What the doctor finds, and that nothing stops it."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

from segcli import doctor
from segcli.doctor import Finding, examine


def test_a_working_machine() -> None:
    """Where these tests run all parts work; versions are the installed ones."""
    found = {f.what: f for f in examine()}

    assert [f for f in found.values() if not f.ok] == []
    assert found["torch"].found == importlib.metadata.version("torch")
    assert "equals its definition" in found["RoIAlign"].found
    assert "is used by itself" in found["device"].found
    assert "H.264 encoder found" in found["video"].found
    assert found["cores"].found.isdigit()


@pytest.mark.parametrize(
    ("name", "ok"), [("torch", False), ("triton", True), ("opencv-python", True)]
)
def test_an_absent_package(name: str, ok: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A needed package that is absent is broken; triton and one of the two OpenCVs may be."""

    def absent(_name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(_name)

    monkeypatch.setattr(importlib.metadata, "version", absent)

    assert doctor._package(name) == Finding(name, "not installed", ok=ok)


@pytest.mark.parametrize(
    ("error", "found"),
    [
        pytest.param(ImportError("libGL.so.1"), "broken: ImportError: libGL.so.1", id="import"),
        pytest.param(RuntimeError("a\nb"), "broken: RuntimeError: a", id="several lines"),
        pytest.param(ValueError(), "broken: ValueError: ", id="no message"),
    ],
)
def test_a_broken_part_is_a_finding(
    error: Exception, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that fails is one line of the report, and the others are still tried."""

    def check() -> str:
        raise error

    monkeypatch.setattr(doctor, "_CHECKS", {"part": check, "other": lambda: "fine"})

    assert examine()[-2:] == [Finding("part", found, ok=False), Finding("other", "fine")]


def test_an_operator_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """RoIAlign is compared with its definition, not only called."""
    from segcli.models import roi_align as module

    true = module.roi_align

    def off(*arguments: Any, backend: str = "auto", **options: Any) -> Any:
        return true(*arguments, backend=backend, **options) + (backend == "auto")

    monkeypatch.setattr(module, "roi_align", off)
    with pytest.raises(ArithmeticError, match="off its definition"):
        doctor._roi_align()


def test_a_mask_library_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mask library's answer is checked."""
    from pycocotools import mask

    monkeypatch.setattr(mask, "area", lambda _: 5)
    with pytest.raises(ArithmeticError, match="should be 4"):
        doctor._coco()


def test_weights_that_are_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache's place and the published weights in it are named."""
    from segcli.zoo import DEFAULT_WEIGHTS, PUBLISHED

    monkeypatch.setenv("SEGCLI_HOME", str(tmp_path))
    assert doctor._home() == f"{tmp_path}; weights found: none"
    (tmp_path / "weights").mkdir()
    name = PUBLISHED[DEFAULT_WEIGHTS].address.rsplit("/", 1)[-1]
    (tmp_path / "weights" / name).write_bytes(b"")
    assert doctor._home() == f"{tmp_path}; weights found: {DEFAULT_WEIGHTS}"
