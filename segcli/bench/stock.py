"""The peer: a plain script around torchvision's own Mask R-CNN that writes COCO results, with its stages timed.

Nothing of it is segcli's but the reading of the weights. It is what its users write: Pillow decodes, pictures go
through one by one in inference mode, pycocotools encodes the masks at the pictures' own size.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops.misc import FrozenBatchNorm2d
from torchvision.transforms.functional import convert_image_dtype, pil_to_tensor

from segcli.bench.predictors import Task
from segcli.device import resolve
from segcli.errors import DataError, UsageError
from segcli.models import ModelSpec
from segcli.models.conventions import Numerics, Postprocess
from segcli.prediction.walk import Inputs
from segcli.preprocess import with_sizes
from segcli.zoo import LoadedModel, load_model

# in the order of the work
STAGES = ("decode", "transform", "backbone", "rpn", "roi_align", "heads", "paste", "rle", "write")


class Stages:
    """Seconds by stage, each without the stages inside it.

    Attributes:
        seconds: of each stage since the last `reset`.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]  # of each stage that is open, what stages inside it took
        self._device = device

    def reset(self) -> None:
        """Begin anew."""
        self.seconds = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Time a block."""
        start = self._now()
        self._inner.append(0.0)
        try:
            yield
        finally:
            took = self._now() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + took - self._inner.pop()
            self._inner[-1] += took

    def watch(self, owner: Any, function: str, name: str) -> None:
        """Time every call of a method of one object."""
        method = getattr(owner, function)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.of(name):
                return method(*args, **kwargs)

        setattr(owner, function, timed)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def build_stock(model: LoadedModel, task: Task) -> Any:
    """Build torchvision's Mask R-CNN R50-FPN with our weights, as its own loading of published ones leaves it.

    Its constructor takes frozen batch norms, and eps 0, only together with a download; so they are put in here.

    Raises:
        UsageError: these weights are of another network, or need what torchvision cannot compute.
    """
    spec, conventions = model.spec, model.spec.conventions
    _refuse_others(spec, model.source)
    sizes = with_sizes(conventions.preprocess, task.min_size, task.max_size)
    ratios = (spec.anchors.aspect_ratios,) * len(spec.anchors.sizes)
    network = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=spec.classes + 1,
        min_size=sizes.min_size,
        max_size=sizes.max_size,
        image_mean=list(sizes.mean),
        image_std=list(sizes.std),
        size_divisible=sizes.pad_multiple,
        rpn_anchor_generator=AnchorGenerator(spec.anchors.sizes, ratios),
        box_score_thresh=task.score,
        box_nms_thresh=conventions.postprocess.nms_iou,
        box_detections_per_img=conventions.postprocess.max_detections,
    )
    _freeze_batch_norms(network, conventions.numerics.bn_eps)
    network.load_state_dict(model.state, strict=True)
    return network.eval()


def _refuse_others(spec: ModelSpec, source: str) -> None:
    if spec.architecture != "mask-rcnn-r50-fpn":
        raise UsageError(
            f"{source}: {spec.architecture} has no stock form; give weights of mask-rcnn-r50-fpn"
        )
    numerics, after = spec.conventions.numerics, spec.conventions.postprocess
    plain = (
        Numerics(bn_eps=numerics.bn_eps, nms_mode=numerics.nms_mode),  # modes differ by rounding
        Postprocess(nms_iou=after.nms_iou, max_detections=after.max_detections),
    )
    if (numerics, after) != plain:
        raise UsageError(
            f"{source}: its conventions are not torchvision's, found {numerics} {after}, expected "
            f"{plain[0]} {plain[1]}; give weights of torchvision's family"
        )


def _freeze_batch_norms(network: nn.Module, eps: float) -> None:
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, FrozenBatchNorm2d(child.num_features, eps=eps))


class StockJob:
    """The script, loaded: `run` is the whole job.

    Attributes:
        serial: its stages, which follow one another.
        resolved: what runs.
        pictures: how many.
    """

    serial = STAGES

    def __init__(self, task: Task, inputs: Inputs) -> None:
        model = load_model(task.model)
        self.device = resolve(task.device, "fp32").device
        self.network = build_stock(model, task).to(self.device)
        self.category_ids = model.categories.ids
        self.resolved: dict[str, Any] = {
            "precision": "fp32",
            "device": self.device.type,
            "threads": torch.get_num_threads(),
            "model_sha256": model.sha256,
            "max_detections": model.spec.conventions.postprocess.max_detections,
        }
        self.pictures = len(inputs.pictures)
        self._paths = [inputs.path(found.key) for found in inputs.pictures]
        self._stages = Stages(self.device)
        self._shapes: Counter[tuple[int, ...]] = Counter()
        # without memory, to count operations; copied before the clocks are in it
        self._counted: list[Any] = [
            deepcopy(part).to("meta") for part in (self.network.backbone, self.network.rpn.head)
        ]
        self._watch()

    def run(self, out: Path) -> dict[str, float]:
        """Decode, predict, encode and write all pictures to `out`/results.json (a list; `image_id` counts from 1).

        Returns:
            Seconds by stage.

        Raises:
            DataError: a picture cannot be read.
        """
        self._stages.reset()
        self._shapes.clear()
        results: list[dict[str, Any]] = []
        for number, path in enumerate(self._paths, 1):
            with self._stages.of("decode"):
                image = _decode(path)
            with torch.inference_mode():
                (found,) = self.network([image.to(self.device)])
            with self._stages.of("rle"):
                results += self._rows(number, found)
        with self._stages.of("write"):
            out.mkdir(parents=True)
            (out / "results.json").write_text(json.dumps(results), encoding="utf-8")
        return {name: self._stages.seconds.get(name, 0.0) for name in STAGES}

    def trunk_gflop(self) -> float:
        """10⁹ operations of backbone, pyramid and RPN head per picture of the last run; counted, not timed."""
        backbone, head = self._counted

        def trunk(image: Tensor) -> Any:
            return head(list(backbone(image).values()))

        total = sum(count * _flop(trunk, shape) for shape, count in self._shapes.items())
        return total / max(self.pictures, 1) / 1e9

    def _watch(self) -> None:
        """Put the clock around the parts of the network, and note what goes into its backbone."""
        network, stages = self.network, self._stages
        network.backbone.register_forward_pre_hook(self._note)
        for owner, function, name in (
            (network.transform, "forward", "transform"),
            (network.backbone, "forward", "backbone"),
            (network.rpn, "forward", "rpn"),
            (network.roi_heads, "forward", "heads"),
            (network.roi_heads.box_roi_pool, "forward", "roi_align"),
            (network.roi_heads.mask_roi_pool, "forward", "roi_align"),
            (network.transform, "postprocess", "paste"),
        ):
            stages.watch(owner, function, name)

    def _note(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._shapes[tuple(inputs[0].shape)] += 1

    def _rows(self, image_id: int, found: dict[str, Tensor]) -> list[dict[str, Any]]:
        masks = (found["masks"][:, 0] > 0.5).cpu().numpy().astype(np.uint8)  # (N, H, W)
        rles = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0)))
        boxes = found["boxes"].cpu().double()
        boxes[:, 2:] -= boxes[:, :2]
        labels, scores = found["labels"].tolist(), found["scores"].tolist()
        return [
            {
                "image_id": image_id,
                "category_id": self.category_ids[label - 1],
                "bbox": box,
                "score": score,
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
            }
            for label, box, score, rle in zip(labels, boxes.tolist(), scores, rles, strict=True)
        ]


def _decode(path: Path) -> Tensor:
    """float32 (3, H, W) in 0..1, as the transforms of torchvision's weights make it; upright."""
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); take it out of the folder") from error
    tensor: Tensor = convert_image_dtype(pil_to_tensor(upright), torch.float32)
    return tensor


def _flop(run: Callable[[Tensor], Any], shape: Sequence[int]) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run(torch.empty(tuple(shape), device="meta"))
    return int(counter.get_total_flops())
