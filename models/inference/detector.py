"""Mask R-CNN at inference, in steps: trunk, proposals, boxes, masks. Same arithmetic as `MaskRCNN`, less work."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from segcli.models.inference.heads import BoxHead, BoxSelector, Found, MaskHead, in_chunks
from segcli.models.inference.proposals import Proposer
from segcli.models.inference.trunk import Trunk, TrunkOutput
from segcli.models.inference.units import can_pack, pack, to_type
from segcli.models.mask_rcnn import Detections, MaskRCNN
from segcli.models.pooler import PyramidRoIAlign
from segcli.models.roi_align import choose_backend

TrunkEngine = Callable[[Tensor], TrunkOutput]
"""Normalised pictures float32 (N, 3, H, W) to what the trunk finds."""
MakeEngine = Callable[[Trunk, Callable[[Trunk], TrunkEngine]], TrunkEngine]
"""Makes the engine of a trunk in plain torch and float32; the second argument makes torch's own of it."""


Stage = Callable[[str, int], AbstractContextManager[object]]
"""Measures a step."""


def _untimed(_name: str, _pictures: int) -> AbstractContextManager[object]:
    return nullcontext()


class Detector:
    """A `MaskRCNN` ready to run on one device in one type. Weights are copied; the network is not changed.

    Boxes, scores and NMS are float32 whatever the type.

    Attributes:
        trunk: what runs backbone, pyramid and RPN head; may be replaced by another engine of the same function.
        dtype: of features and heads.

    Args:
        network: the weights.
        device: where it runs.
        dtype: float32 or bfloat16.
        make_engine: what runs the trunk instead of torch.
    """

    def __init__(
        self,
        network: MaskRCNN,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        make_engine: MakeEngine | None = None,
    ) -> None:
        self.device, self.dtype = torch.device(device), dtype
        heads = network.roi_heads
        self._box_head, self._mask_head = BoxHead(heads), MaskHead(heads)
        self._select, self._propose = BoxSelector(heads), Proposer(network.rpn)
        self._box_pool, self._mask_pool = heads.box_roi_pool, heads.mask_roi_pool
        for head in (self._box_head, self._mask_head):
            to_type(head, dtype)
            self._settle(head)
        trunk, own = Trunk(network).eval(), self._torch_engine
        self.trunk = own(trunk) if make_engine is None else make_engine(trunk, own)

    def _torch_engine(self, trunk: Trunk) -> TrunkEngine:
        self._settle(trunk.to_type(self.dtype))

        def run(images: Tensor) -> TrunkOutput:
            return Trunk.grouped(trunk(images))

        return run

    def _settle(self, part: nn.Module) -> None:
        """Move to the device; on a CPU use oneDNN's own layouts where this torch has them."""
        part.to(self.device).eval()
        if self.device.type == "cpu" and can_pack(self.dtype):
            pack(part)

    @torch.inference_mode()
    def __call__(
        self,
        images: Tensor,
        sizes: list[tuple[int, int]],
        *,
        score: float,
        max_detections: int,
        stage: Stage = _untimed,
    ) -> list[Detections]:
        """Objects of each picture, best score first.

        Args:
            images: float32 (N, 3, H, W), normalised, zero-padded at the right and bottom.
            sizes: per picture, (h, w) of its valid area.
            score: lowest score kept, exclusive.
            max_detections: most objects per picture.
            stage: a context for each step, told its name and the number of pictures.
        """
        with stage("trunk", len(sizes)):
            found = self.run_trunk(images)
        with stage("proposals", len(sizes)):
            proposals = self.propose(found, (images.shape[2], images.shape[3]), sizes)
        with stage("box head", len(sizes)):
            boxes = self.boxes(found, proposals, sizes, score=score, max_detections=max_detections)
        with stage("mask head", len(sizes)):
            masks = self.masks(found, [b for b, _, _ in boxes], [k for _, _, k in boxes])
        return [Detections(b, s, k - 1, m) for (b, s, k), m in zip(boxes, masks, strict=True)]

    @torch.inference_mode()
    def run_trunk(self, images: Tensor) -> TrunkOutput:
        """Features, logits and deltas of normalised pictures float32 (N, 3, H, W)."""
        images = images.to(self.device).contiguous(memory_format=torch.channels_last)
        return self.trunk(images)

    @torch.inference_mode()
    def propose(
        self, found: TrunkOutput, padded: tuple[int, int], sizes: list[tuple[int, int]]
    ) -> list[Tensor]:
        """Proposals, per picture float32 (R_i, 4), xyxy in input pixels."""
        return self._propose(found, padded, sizes)

    @torch.inference_mode()
    def boxes(
        self,
        found: TrunkOutput,
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
        *,
        score: float,
        max_detections: int,
    ) -> list[Found]:
        """Per picture boxes float32 (D, 4), scores float32 (D,) and labels int64 (D,) from 1, best first."""
        pooled = self._pool(self._box_pool, found, proposals)
        logits, deltas = self._box_head(pooled)
        counts = [len(p) for p in proposals]
        parts = zip(
            torch.split(logits, counts), torch.split(deltas, counts), proposals, sizes, strict=True
        )
        return [self._select(*part, score=score, most=max_detections) for part in parts]

    @torch.inference_mode()
    def masks(self, found: TrunkOutput, boxes: list[Tensor], labels: list[Tensor]) -> list[Tensor]:
        """Mask probabilities of given boxes: per picture float32 (D, 28, 28)."""
        pooled = self._pool(self._mask_pool, found, boxes)
        masks = in_chunks(self._mask_head, pooled, torch.cat(labels))
        return list(torch.split(masks, [len(b) for b in boxes]))

    def _pool(self, pooler: PyramidRoIAlign, found: TrunkOutput, boxes: list[Tensor]) -> Tensor:
        """RoIAlign, in the detector's type; torchvision's operator, which has no bfloat16, works in float32."""
        features = found.features
        if choose_backend(pooler.backend, self.device, dtype=self.dtype) == "torchvision":
            features = [level.float() for level in features]
        by_name = {str(i): level for i, level in enumerate(features)}
        pooled: Tensor = pooler(by_name, boxes, [])
        return pooled.to(self.dtype)
