"""Which engine a GPU runs, by settings, platform and the network's conventions; no GPU is needed to ask."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from segcli.config import PredictConfig
from segcli.errors import UsageError
from segcli.models import ARCHITECTURES, Anchors, ModelSpec
from segcli.models.conventions import OWN, TORCHVISION_V1_COCO, Conventions, Numerics
from segcli.models.inference.static_support import why_not_static
from segcli.prediction import gpu_engine
from segcli.prediction.gpu_engine import runs_graphs

CUDA = torch.device("cuda", 0)
SPEC = ModelSpec("mask-rcnn-nano", 3, Anchors(), OWN)


@pytest.mark.parametrize(
    "conventions",
    [
        pytest.param(Conventions(), id="defaults"),
        pytest.param(OWN, id="own"),
        pytest.param(TORCHVISION_V1_COCO, id="torchvision"),
        pytest.param(ARCHITECTURES["mask-rcnn-r50-fpn"].conventions, id="r50"),
        pytest.param(
            Conventions(numerics=Numerics(roi_sampling_ratio=0, level_rule="mmdetection")), id="roi"
        ),
    ],
)
def test_conventions_that_fixed_shapes_obey(conventions: Conventions) -> None:
    """All that the tests of fixed shapes compare with the plain detector."""
    assert why_not_static(replace(SPEC, conventions=conventions)) is None


@dataclass(frozen=True)
class LaterNumerics(Numerics):
    """A record with a field that was added after this program's fixed shapes."""

    corner_cutting: bool = False


@pytest.mark.parametrize("value", [False, True])
def test_a_field_that_is_not_known_has_to_have_its_default(value: bool) -> None:
    """Other values are named, and run elsewhere."""
    conventions = Conventions(numerics=LaterNumerics(corner_cutting=value))
    found = why_not_static(replace(SPEC, conventions=conventions))
    assert found == ("its numerics have corner_cutting = True" if value else None)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({}, (True, "CUDA graphs"), id="by itself"),
        pytest.param({"compile": True}, (True, "CUDA graphs"), id="asked for"),
        pytest.param({"compile": False}, (False, "torch"), id="refused"),
        pytest.param(
            {"tta": True},
            (False, "torch (no CUDA graphs: --tta looks at each picture in steps)"),
            id="tta",
        ),
    ],
)
def test_settings(settings: dict[str, bool], expected: tuple[bool, str]) -> None:
    """What runs is said, and where it is not graphs, why."""
    assert runs_graphs(SPEC, PredictConfig(**settings), CUDA, "triton") == expected  # type: ignore[arg-type]


def test_other_conventions_run_plainly_and_say_so() -> None:
    """Nobody has to ask; who asks for graphs is told why there are none."""
    odd = replace(SPEC, conventions=Conventions(numerics=LaterNumerics(corner_cutting=True)))
    runs, line = runs_graphs(odd, PredictConfig(), CUDA, "triton")
    assert (runs, line) == (
        False, "torch (no CUDA graphs: its numerics have corner_cutting = True)",
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"corner_cutting = True\); use --no-compile"):
        runs_graphs(odd, PredictConfig(compile=True), CUDA, "triton")


def test_other_backends_and_devices() -> None:
    """Graphs need CUDA, and RoIAlign in Triton."""
    assert not runs_graphs(SPEC, PredictConfig(), CUDA, "torchvision")[0]
    assert runs_graphs(SPEC, PredictConfig(), torch.device("mps"), "torchvision") == (
        False,
        "torch",
    )
    with pytest.raises(UsageError, match=r"they are for CUDA, found mps\); use --no-compile"):
        runs_graphs(SPEC, PredictConfig(compile=True), torch.device("mps"), "torchvision")


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform without it runs plainly."""
    monkeypatch.setattr(gpu_engine, "find_spec", lambda _: None)
    assert runs_graphs(SPEC, PredictConfig(), CUDA, "triton") == (
        False, "torch (no CUDA graphs: Triton is not installed)",
    )  # fmt: skip
