"""How fast nuclei are learnt: `segcli train` against a plain torchvision Mask R-CNN of the same shape.

The plain side is what a user of torchvision writes: its `MaskRCNN` around the same backbone, heads and anchors, from
the same random weights, in float32, with dense masks, the same batch, sample counts, optimiser and schedule. Both
are evaluated by segcli at 200 detections a picture. Seconds are those of training alone.

    python scripts/bench_learning.py ../shared/data/nuclei400 --side plain --steps 300 --output plain.jsonl
    python scripts/bench_learning.py ../shared/data/nuclei400 --side segcli --steps 600 --output ours.jsonl
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools.coco import COCO
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import pil_to_tensor

from segcli.bench.train_inputs import TrainInputs
from segcli.bench.train_stock import build_stock
from segcli.config import TrainConfig
from segcli.data.locate import open_dataset
from segcli.models import ARCHITECTURES, Conventions, ModelSpec
from segcli.training.material import Material
from segcli.training.optim import Schedule, build_optimizer, set_lr
from segcli.training.start import starting_model
from segcli.zoo import LoadedModel, save_model

ARCHITECTURE = "mask-rcnn-nano"
SCALES = (240, 280, 320, 360, 400, 432)  # 0.75 to 1.35 times 320, as `--augment scale`


class PlainPictures(Dataset[tuple[torch.Tensor, dict[str, torch.Tensor]]]):
    """Pictures with dense masks, mirrored at random: torchvision's reference dataset in short."""

    def __init__(self, annotations: Path, pictures: Path) -> None:
        self.coco = COCO(str(annotations))
        self.pictures = pictures
        self.ids = sorted(self.coco.imgs)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        record = self.coco.imgs[self.ids[index]]
        image = pil_to_tensor(Image.open(self.pictures / record["file_name"]).convert("RGB")) / 255
        objects = self.coco.loadAnns(self.coco.getAnnIds(self.ids[index]))
        masks = np.stack([self.coco.annToMask(a) for a in objects])
        keep = masks.any((1, 2))
        boxes = torch.tensor([a["bbox"] for a in objects])[torch.from_numpy(keep)]
        boxes[:, 2:] += boxes[:, :2]
        dense = torch.from_numpy(masks[keep])
        if random.random() < 0.5:
            image, dense = image.flip(-1), dense.flip(-1)
            boxes[:, [0, 2]] = image.shape[-1] - boxes[:, [2, 0]]
        target = {"boxes": boxes, "labels": torch.ones(len(boxes), dtype=torch.int64)}
        return image, {**target, "masks": dense}


def plain_model(model: LoadedModel) -> Any:
    """Mask R-CNN of torchvision itself with the shape, sample counts and weights of `model`, at several sizes."""
    network = build_stock(TrainInputs((), model.spec, model.state))
    network.transform.min_size = SCALES
    return network.train()


def endless(loader: DataLoader[Any]) -> Iterator[Any]:
    """Epoch after epoch."""
    while True:
        yield from loader


def train_plain(arguments: argparse.Namespace, note: Any) -> None:
    """The plain loop; `note(step, seconds, file)` evaluates."""
    material = Material.of([open_dataset(arguments.data / "train.json")])
    config = TrainConfig(model=ARCHITECTURE, max_dets=200)
    model = starting_model(config, material)
    numerics = Conventions().numerics  # torchvision's
    spec: ModelSpec = replace(
        model.spec,
        conventions=replace(
            model.spec.conventions, numerics=numerics,
            postprocess=replace(Conventions().postprocess, max_detections=200),
        ),
    )  # fmt: skip
    random.seed(0)
    torch.manual_seed(0)
    network, recipe = plain_model(model), ARCHITECTURES[ARCHITECTURE].recipe
    optimizer = build_optimizer(
        network, recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay, momentum=0.9
    )
    schedule = Schedule("cosine", min(100, arguments.steps // 3), arguments.steps)
    loader = DataLoader(
        PlainPictures(arguments.data / "train.json", arguments.data / "train"),
        recipe.batch_size, shuffle=True, drop_last=True, num_workers=1,
        collate_fn=lambda samples: tuple(zip(*samples, strict=True)),
    )  # fmt: skip
    seconds, started = 0.0, time.monotonic()
    for step, (images, targets) in enumerate(endless(loader), 1):
        set_lr(optimizer, recipe.lr * schedule.factor(step - 1))
        losses = network(list(images), list(targets))
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        losses = {name: value.item() for name, value in losses.items()}
        if step % arguments.every == 0 or step == arguments.steps:
            seconds += time.monotonic() - started
            file = arguments.folder / f"plain-{step}.safetensors"
            state = {k: v.clone() for k, v in network.state_dict().items()}
            save_model(file, replace(model, spec=spec, state=state))
            note(step, seconds, file)
            started = time.monotonic()
        if step == arguments.steps:
            return


def train_ours(arguments: argparse.Namespace, note: Any) -> None:
    """`segcli train` as its users call it; its own evaluations are the figures."""
    run = arguments.folder / "run"
    command = [
        sys.executable, "-m", "segcli", "train", str(arguments.data / "train.json"),
        "--val", str(arguments.data / "val.json"), "--model", ARCHITECTURE, "--max-dets", "200",
        "--steps", str(arguments.steps), "--eval-every", str(max(arguments.every // 40, 1)),
        "--output", str(run), *arguments.flags,
    ]  # fmt: skip
    subprocess.run(command, check=True)
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "val" in row:
            note(row["step"], row["train_seconds"], row["val"]["mask"]["AP"])


def measure(file: Path, data: Path) -> float:
    """Mask AP at 200 detections."""
    command = [
        sys.executable, "-m", "segcli", "eval", str(data / "val.json"), "--model", str(file),
        "--max-dets", "200", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["mask"]["AP"])


def main() -> None:
    """One side, one line of JSON per evaluation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--side", choices=("plain", "segcli"), required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=200)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("flags", nargs="*", help="more flags of segcli train, after --")
    arguments = parser.parse_args()

    def note(step: int, seconds: float, found: Path | float) -> None:
        ap = found if isinstance(found, float) else measure(found, arguments.data)
        row = {"side": arguments.side, "step": step, "seconds": round(seconds, 1), "mask_ap": ap}
        with arguments.output.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        print(row, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        arguments.folder = Path(folder)
        (train_plain if arguments.side == "plain" else train_ours)(arguments, note)


if __name__ == "__main__":
    main()
