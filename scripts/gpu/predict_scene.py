"""Networks and pictures of the step `predict`: R50-FPN with 90 classes on 800 × 1333, or what a rehearsal can do."""

from __future__ import annotations

import torch
from torch import Tensor

from gpu.findings import Findings
from segcli.models import ARCHITECTURES, Anchors, MaskRCNN, ModelSpec
from segcli.models.inference.graphs import BufferedDetector, GraphedDetector
from segcli.models.inference.pipelined import Pipelined
from segcli.models.inference.preprocess_kernel import normalised_values
from segcli.models.inference.static import StaticDetector


def network(findings: Findings, name: str | None = None) -> MaskRCNN:
    """Seeded random weights that find something; all slots of a large picture are filled."""
    torch.manual_seed(0)
    name = name or findings.pick("mask-rcnn-r50-fpn", "mask-rcnn-nano")
    anchors = findings.pick(Anchors(), Anchors(((16,), (32,), (64,), (128,), (256,))))
    spec = ModelSpec(name, findings.pick(90, 3), anchors, ARCHITECTURES[name].conventions)
    model = MaskRCNN(spec).eval()
    with torch.no_grad():
        for key, tensor in model.backbone.state_dict().items():
            if key.endswith("bn3.weight"):
                tensor.mul_(0.2)  # residual blocks of random weights add up to huge numbers
        model.roi_heads.box_predictor.cls_score.weight.mul_(40)
    if findings.rehearsal:
        model.rpn._pre_nms_top_n["testing"] = model.rpn._post_nms_top_n["testing"] = 10
    return model


def static(findings: Findings, model: MaskRCNN, dtype: torch.dtype) -> StaticDetector:
    """The detector of fixed shapes."""
    most = slots(findings)
    return StaticDetector(model, findings.device, dtype, score=0.05, max_detections=most)


def slots(findings: Findings) -> int:
    """Most detections of a picture."""
    return findings.pick(100, 5)


def padded(findings: Findings) -> tuple[int, int]:
    """(H, W) of a batch."""
    return findings.pick((800, 1344), (32, 64))


def valid_sizes(findings: Findings) -> list[tuple[int, int]]:
    """Per picture (h, w) of a batch of two."""
    return findings.pick([(800, 1333), (750, 800)], [(32, 60), (25, 40)])


def bytes_of(sizes: list[tuple[int, int]], seed: int = 0) -> list[Tensor]:
    """Pictures of blocks of colour, uint8 (H, W, 3)."""
    generator = torch.Generator().manual_seed(seed)
    pictures = []
    for h, w in sizes:
        coarse = torch.randint(0, 256, (h // 16 + 1, w // 16 + 1, 3), generator=generator)
        fine = coarse.repeat_interleave(16, 0).repeat_interleave(16, 1)
        pictures.append(fine[:h, :w].to(torch.uint8).contiguous())
    return pictures


def pipeline(findings: Findings, detector: StaticDetector) -> Pipelined:
    """Two batches under way; as graphs on a GPU."""
    form = findings.pick(GraphedDetector, BufferedDetector)
    how = ARCHITECTURES["mask-rcnn-r50-fpn"].conventions.preprocess
    return Pipelined(form(detector), normalised_values(how.mean, how.std))
