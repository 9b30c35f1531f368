"""Made-up inputs: a pyramid of features, and boxes as a proposal network makes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gpu.findings import Findings
from segcli.models.roi_align.levels import area_thresholds
from segcli.models.roi_align.sampling import Sampling

SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
SIZES = {"box": (7, 7), "mask": (14, 14)}


@dataclass(frozen=True)
class Scene:
    """Sizes of one RoIAlign: of a picture padded to 800 × 1344, or of one that the interpreter can do."""

    pictures: int
    height: int
    width: int
    channels: int
    rois: dict[str, int]

    def shapes(self) -> list[tuple[int, int, int, int]]:
        """Per level (N, H, W, C)."""
        return [
            (self.pictures, int(self.height * s), int(self.width * s), self.channels)
            for s in SCALES
        ]

    def maps(self, device: str, dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
        """Per level (N, C, H, W), channels-last, normal."""
        generator = torch.Generator(device).manual_seed(seed)
        return [
            torch.randn(shape, generator=generator, device=device).to(dtype).permute(0, 3, 1, 2)
            for shape in self.shapes()
        ]

    def boxes(self, kind: str, device: str, seed: int = 0) -> Tensor:
        """Float32 (R, 5): log-normal sides around a few objects per picture, grouped by picture, some over the edge."""
        count = self.rois[kind]
        generator = torch.Generator().manual_seed(seed)
        picture = torch.arange(count) * self.pictures // max(count, 1)
        objects = torch.rand(self.pictures, 12, 4, generator=generator)
        chosen = objects[picture, torch.randint(12, (count,), generator=generator)]
        extent = torch.tensor([self.width, self.height], dtype=torch.float32)
        centre = (chosen[:, :2] + 0.03 * torch.randn(count, 2, generator=generator)) * extent
        noise = torch.randn(count, 2, generator=generator)
        side = (
            torch.exp(1.5 * (chosen[:, 2:] - 0.5) + 0.3 * noise) * min(self.width, self.height) / 8
        )
        return (
            torch.cat((picture[:, None], centre - side / 2, centre + side / 2), 1)
            .float()
            .to(device)
        )


def sampling(ratio: int = 2, *, aligned: bool = True) -> Sampling:
    """Four levels by torchvision's rule."""
    return Sampling(SCALES, area_thresholds(2, 5, "torchvision"), ratio, aligned)


def inference(findings: Findings) -> Scene:
    """One picture, 1000 proposals, 100 detections."""
    real = Scene(1, 800, 1344, 256, {"box": 1000, "mask": 100})
    return findings.pick(real, Scene(1, 32, 64, 8, {"box": 3, "mask": 1}))


def training(findings: Findings) -> Scene:
    """Two pictures, 512 sampled proposals each, a quarter of them with masks."""
    real = Scene(2, 800, 1344, 256, {"box": 1024, "mask": 256})
    return findings.pick(real, Scene(2, 32, 64, 8, {"box": 3, "mask": 1}))
