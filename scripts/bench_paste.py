"""Masks of one large picture, from probabilities to run lengths: segcli against torchvision and pycocotools.

python scripts/bench_paste.py [--objects 100] [--size 2160 3840] [--rounds 3] [--threads N] [--json]

Both make the same masks of the same boxes, each in processes of its own, in turn; their run lengths must be equal, or
there are no figures. Memory is the highest resident size during the first call less the size before it, so that what
the libraries take is not counted. Linux only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from segcli.masks import Masks
from segcli.models.conventions import Postprocess
from segcli.models.paste import paste_runs

RULE = Postprocess()  # torchvision's
CALLS = 2  # per process


def main() -> int:
    """Run children in turn, compare, print; exit code 1 if the masks differ."""
    given = _arguments()
    if given.child:
        print(json.dumps(_measured(given.child, given.objects, tuple(given.size))))
        return 0
    rounds = [{who: _child(who, given) for who in WAYS} for _ in range(given.rounds)]
    digests = {row["digest"] for found in rounds for row in found.values()}
    if len(digests) != 1:
        print("bench_paste: the masks differ between segcli and torchvision", file=sys.stderr)
        return 1
    _print(_summary(rounds, given), as_json=given.json)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=100)
    parser.add_argument("--size", type=int, nargs=2, default=(2160, 3840), metavar=("H", "W"))
    parser.add_argument("--rounds", type=int, default=3, help="processes of each")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 = its own choice")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    return parser.parse_args()


def scene(objects: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Smooth blobs, float32 (N, 28, 28), in boxes, float32 (N, 4), log-uniform from 16 pixels to the full frame."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(objects, 1, 5, 5, generator=generator) * 6
    masks = torch.nn.functional.interpolate(coarse, (28, 28), mode="bicubic").sigmoid()[:, 0]
    extent = torch.tensor([size[1], size[0]], dtype=torch.float32)
    share = torch.rand(objects, 2, generator=generator)
    sides = 16 * (extent / 16).pow(share)
    corner = torch.rand(objects, 2, generator=generator) * (extent - sides)
    boxes = torch.cat((corner, corner + sides), 1)
    boxes[: max(objects // 20, 1)] = torch.cat((extent * 0, extent))
    return masks.contiguous(), boxes


def ours(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Masks:
    """Run lengths as a prediction holds them."""
    runs = paste_runs(masks, boxes, size, RULE)
    return Masks(runs.counts.numpy(), runs.offsets.numpy(), size)


def theirs(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[Any]:
    """COCO's RLE dicts, as torchvision's reference evaluation makes them."""
    pasted = paste_masks_in_image(masks[:, None], boxes, size) > 0.5
    return [coco_mask.encode(np.asfortranarray(one[0].numpy().astype(np.uint8))) for one in pasted]


WAYS: dict[str, Callable[[Tensor, Tensor, tuple[int, int]], Any]] = {
    "torchvision": theirs,
    "segcli": ours,
}


def _measured(who: str, objects: int, size: tuple[int, int]) -> dict[str, Any]:
    """Best time of some calls in seconds, memory of the first in bytes, and a digest of what was made."""
    call, (masks, boxes) = WAYS[who], scene(objects, size)
    call(*scene(2, (64, 64)), (64, 64))  # what is loaded at the first use is no one's memory
    Path("/proc/self/clear_refs").write_text("5")  # the highest resident size begins anew
    before = _status("VmRSS")
    seconds = []
    for i in range(CALLS):
        started = time.perf_counter()
        found = call(masks, boxes, size)
        seconds.append(time.perf_counter() - started)
        if i == 0:
            memory = _status("VmHWM") - before
    return {"seconds": min(seconds), "memory": memory, "digest": _digest(found)}


def _status(field: str) -> int:
    """A number of bytes from the kernel's page on this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def _digest(found: Masks | list[Any]) -> str:
    texts = (
        [found.coco(i)["counts"].encode() for i in range(len(found))]
        if isinstance(found, Masks)
        else [entry["counts"] for entry in found]
    )
    return hashlib.sha256(b"\n".join(texts)).hexdigest()


def _child(who: str, given: argparse.Namespace) -> dict[str, Any]:
    command = [
        sys.executable, __file__, "--child", who,
        "--objects", str(given.objects), "--size", *map(str, given.size),
    ]  # fmt: skip
    environment = dict(os.environ)
    if given.threads:
        environment["OMP_NUM_THREADS"] = str(given.threads)
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, Any] = json.loads(run.stdout)
    return row


def _summary(rounds: list[dict[str, Any]], given: argparse.Namespace) -> dict[str, Any]:
    """Medians over the rounds; ratios are taken within a round."""
    middle = len(rounds) // 2

    def median(values: list[float]) -> float:
        return sorted(values)[middle]

    return {
        "objects": given.objects, "size": list(given.size), "rounds": len(rounds), "equal": True,
        **{f"{who}_ms": median([r[who]["seconds"] * 1e3 for r in rounds]) for who in WAYS},
        **{f"{who}_mb": median([r[who]["memory"] / 1e6 for r in rounds]) for who in WAYS},
        "times_faster": median([r["torchvision"]["seconds"] / r["segcli"]["seconds"] for r in rounds]),
        "share_of_memory": median([r["segcli"]["memory"] / r["torchvision"]["memory"] for r in rounds]),
    }  # fmt: skip


def _print(summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary))
        return
    H, W = summary["size"]
    print(f"{summary['objects']} masks at {H}×{W}, run lengths equal, {summary['rounds']} rounds")
    for who in WAYS:
        print(f"{who:12} {summary[f'{who}_ms']:8.1f} ms {summary[f'{who}_mb']:8.1f} MB")
    print(
        f"segcli is {summary['times_faster']:.1f} times faster and takes "
        f"{summary['share_of_memory']:.2%} of the memory"
    )


if __name__ == "__main__":
    sys.exit(main())
