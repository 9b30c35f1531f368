"""What is on this machine, and whether the parts that everything needs work."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass

from segcli.home import home_folder
from segcli.version import __version__

_PACKAGES = (
    "torch", "torchvision", "triton", "numpy", "opencv-python", "opencv-python-headless", "Pillow", "pycocotools",
    "av", "click", "rich", "tqdm", "safetensors",
)  # fmt: skip
_OPTIONAL = frozenset({"triton", "opencv-python", "opencv-python-headless"})


@dataclass(frozen=True)
class Finding:
    """One line of the report; `ok` False makes `segcli doctor` exit with 1."""

    what: str
    found: str
    ok: bool = True


def examine() -> list[Finding]:
    """Versions, devices, RoIAlign and caches, each tried rather than looked up."""
    findings = [
        Finding("segcli", __version__),
        Finding("Python", f"{platform.python_version()} on {platform.platform()}"),
        Finding("cores", str(os.cpu_count())),
        *(_package(name) for name in _PACKAGES),
    ]
    for what, check in _CHECKS.items():
        findings.append(_try(what, check))
    return findings


def _package(name: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "not installed", ok=name in _OPTIONAL)


def _try(what: str, check: Callable[[], str]) -> Finding:
    """The doctor's work is to report whatever is broken, so here, and only here, every exception is a finding."""
    try:
        return Finding(what, check())
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        return Finding(what, f"broken: {type(error).__name__}: {first}", ok=False)


def _device() -> str:
    import torch

    from segcli.device import resolve

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    listed = ", ".join(names) or "no CUDA device"
    return f"{resolve('auto', 'auto').describe()} is used by itself; {listed}"


def _roi_align() -> str:
    """Run the one that a job would take, and its gradient, against the definition."""
    import torch

    from segcli.device import resolve
    from segcli.models.roi_align import explain, roi_align

    device = resolve("auto", "auto").device
    features = torch.arange(2 * 8 * 8, dtype=torch.float32).reshape(1, 2, 8, 8)
    rois = torch.tensor([[0.0, 3.0, 5.0, 21.0, 27.0]])
    results = []
    for backend, where in (("auto", device), ("reference", torch.device("cpu"))):
        maps = features.to(where).requires_grad_()
        pooled = roi_align(maps, rois.to(where), (3, 3), 0.25, backend=backend)
        (gradient,) = torch.autograd.grad(pooled.sum(), maps)
        results.append((pooled.detach().cpu(), gradient.cpu()))
    difference = max(float((a - b).abs().max()) for a, b in zip(*results, strict=True))
    if difference > 1e-4:
        raise ArithmeticError(
            f"{explain('auto', device)} is off its definition by {difference:.2g}"
        )
    return f"{explain('auto', device)}; equals its definition to {difference:.1g}"


def _opencv() -> str:
    import cv2

    return f"{cv2.__version__}, imports"


def _coco() -> str:
    import numpy as np
    from pycocotools import mask

    square = np.zeros((4, 4), np.uint8, order="F")
    square[1:3, 1:3] = 1
    if int(mask.area(mask.encode(square))) != 4:
        raise ArithmeticError("the area of a 2 × 2 square should be 4")
    return "encodes masks"


def _video() -> str:
    import av

    av.CodecContext.create("libx264", "w")
    return f"FFmpeg by PyAV {av.__version__}, H.264 encoder found"


def _home() -> str:
    from segcli.published import PUBLISHED

    folder = home_folder() / "weights"
    here = [w.name for w in PUBLISHED.values() if w.file_name and (folder / w.file_name).exists()]
    return f"{home_folder()}; weights found: {', '.join(here) or 'none'}"


_CHECKS: dict[str, Callable[[], str]] = {
    "device": _device,
    "RoIAlign": _roi_align,
    "OpenCV": _opencv,
    "COCO masks": _coco,
    "video": _video,
    "cache": _home,
}
