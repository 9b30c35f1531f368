"""`segcli predict folder` as users run it: by CUDA graphs and plainly, the same rows; without waiting; its rate."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from gpu.findings import Findings, expect
from gpu.predict_scene import bytes_of
from segcli import zoo
from segcli.categories import Categories
from segcli.cli.main import main
from segcli.models import ARCHITECTURES
from segcli.prediction.gpu_predictor import GpuPredictor

_LINE = "pictures/s"


def run(findings: Findings) -> None:
    """Each check runs the whole command in this process."""
    with tempfile.TemporaryDirectory() as folder, _few_proposals(findings):
        root = Path(folder)
        model, photos = _model(findings, root), _photos(findings, root / "photos")
        command = _Command(findings, model, photos, root)
        with findings.check("predict folder: graphs and the plain detector write the same rows"):
            _same_rows(command)
        with findings.check("predict folder: a batch is begun without waiting for the device"):
            _no_waiting(findings, command)
        findings.cuda_check(
            "predict folder: nvjpeg, and its cost is said", lambda: _nvjpeg(command)
        )
        findings.cuda_check("predict folder: rate", lambda: _rate(findings, command))


class _Command:
    """The command on one folder; each run into an output of its own."""

    def __init__(self, findings: Findings, model: Path, photos: Path, root: Path) -> None:
        self._findings, self._model, self._photos, self._root = findings, model, photos, root

    def __call__(self, *flags: str) -> tuple[dict[str, Any], str]:
        """`predictions.json`, and what was said."""
        out, said = self._root / "out", io.StringIO()
        shutil.rmtree(out, ignore_errors=True)
        with contextlib.redirect_stderr(said):
            code = main(
                ["predict", "folder", str(self._photos), "--model", str(self._model), "--output", str(out),
                 "--device", self._findings.device, *self._sizes(), *flags]
            )  # fmt: skip
        print(said.getvalue(), flush=True)
        expect(code == 0, f"{' '.join(flags)}: exit code {code}")
        return json.loads((out / "predictions.json").read_bytes()), said.getvalue()

    def _sizes(self) -> list[str]:
        return self._findings.pick(
            [],
            ["--min-size", "32", "--max-size", "64", "--max-detections", "5", "--batch-size", "2"],
        )


def _same_rows(command: _Command) -> None:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        plain, said_plain = command("--precision", "fp32", "--no-compile")
        fixed, said = command("--precision", "fp32", "--compile")
    finally:
        torch.backends.cudnn.allow_tf32 = before
    expect("graphs" not in said_plain, said_plain)
    expect("CUDA graphs" in said or "fixed shapes" in said, said)
    expect(fixed["images"] == plain["images"], "other pictures")
    rows, others = fixed["annotations"], plain["annotations"]
    expect(len(rows) > 0, "nothing was found")
    unmatched = _unmatched(rows, others)
    expect(
        unmatched <= 2 + len(others) // 500,
        f"{unmatched} of {len(rows)} and {len(others)} rows have no partner",
    )


def _unmatched(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> int:
    """Rows of either side without a partner by the design's rule; areas stand for masks."""
    left: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in others:
        left.setdefault((row["image_id"], row["category_id"]), []).append(row)
    missing = 0
    for row in rows:
        near = left.get((row["image_id"], row["category_id"]), [])
        partner = next((o for o in near if _same(row, o)), None)
        if partner is None:
            missing += 1
        else:
            near.remove(partner)
    return missing + sum(map(len, left.values()))


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    boxes = max(abs(x - y) for x, y in zip(a["bbox"], b["bbox"], strict=True))
    area = abs(a["area"] - b["area"])
    return (
        boxes <= 2e-2 and abs(a["score"] - b["score"]) <= 2e-4 and area <= max(10, a["area"] / 500)
    )


def _no_waiting(findings: Findings, command: _Command) -> None:
    """From the third batch of a shape on, whatever waits in `submit` raises."""
    submit, seen = GpuPredictor.submit, dict[tuple[object, ...], int]()

    def watched(self: GpuPredictor, pictures: Any) -> None:
        shape = (len(pictures), *(p.resized for p in pictures), *(p.size for p in pictures))
        seen[shape] = seen.get(shape, 0) + 1
        strict = findings.device == "cuda" and seen[shape] > 2
        with _no_waiting_allowed() if strict else contextlib.nullcontext():
            submit(self, pictures)

    GpuPredictor.submit = watched  # type: ignore[method-assign]
    try:
        command("--compile")
    finally:
        GpuPredictor.submit = submit  # type: ignore[method-assign]
    expect(max(seen.values(), default=0) > 2, f"no shape came three times: {list(seen.values())}")


@contextlib.contextmanager
def _no_waiting_allowed() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _nvjpeg(command: _Command) -> None:
    _, said = command("--decode", "nvjpeg")
    expect("--decode nvjpeg on" in said and "decoded on the GPU:" in said, said)


def _rate(findings: Findings, command: _Command) -> None:
    """Wall clock of the whole command, opening and recording included, and the rate that it says of its job."""
    for name, flags in {
        "graphs": (),
        "plain": ("--no-compile",),
        "graphs, nvjpeg": ("--decode", "nvjpeg"),
    }.items():
        started = time.monotonic()
        _, said = command(*flags, "--profile")
        line = next((text for text in said.splitlines() if _LINE in text), "")
        findings.figure(
            f"predict folder, {name}",
            {"seconds": round(time.monotonic() - started, 2), "said": line.split(";")[-2:]},
        )


def _model(findings: Findings, root: Path) -> Path:
    """Random weights that find something, as a file."""
    name = findings.pick("mask-rcnn-r50-fpn", "mask-rcnn-nano")
    classes = Categories.from_names([f"class {i}" for i in range(findings.pick(90, 3))])
    made = zoo.new_model(name, classes, seed=0)
    for key, tensor in made.state.items():
        if key.endswith("bn3.weight"):
            tensor.mul_(0.2)  # residual blocks of random weights add up to huge numbers
    made.state["roi_heads.box_predictor.cls_score.weight"].mul_(40)
    zoo.save_model(root / "model.safetensors", made)
    return root / "model.safetensors"


def _photos(findings: Findings, folder: Path) -> Path:
    """JPEGs of two shapes, one after the other, so that batches are alike."""
    folder.mkdir()
    count = findings.pick(96, 6)
    sizes = [findings.pick((480, 640), (40, 60))] * count + [
        findings.pick((640, 480), (60, 40))
    ] * count
    for i, picture in enumerate(bytes_of(sizes)):
        Image.fromarray(picture.numpy()).save(folder / f"{i:04d}.jpg", quality=90)
    return folder


@contextlib.contextmanager
def _few_proposals(findings: Findings) -> Iterator[None]:
    """As many as the interpreter can do."""
    nano = ARCHITECTURES["mask-rcnn-nano"]
    if findings.rehearsal:
        ARCHITECTURES["mask-rcnn-nano"] = replace(nano, proposals=(10, 10))
    try:
        yield
    finally:
        ARCHITECTURES["mask-rcnn-nano"] = nano
