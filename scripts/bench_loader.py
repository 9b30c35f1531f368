"""Memory of training's loader with four workers over a million annotations, and pictures per second.

python scripts/bench_loader.py [--annotations 1000000] [--workers 4] [--batches 400]

Synthetic annotations (polygons of 20 points) on stub pictures: every entry names the same small file. Two processes
are measured, one after the other, each with its workers: one with 1,000 annotations, one with as many as asked. The
difference of their memory, each shared page counted once (PSS in /proc/PID/smaps_rollup), is what the annotations
cost; exit code 1 where that is over 1.2 times one process's annotation bytes. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

from segcli.annotations import Annotation, Picture
from segcli.data.order import EpochBatches
from segcli.data.packed import PackedPictures
from segcli.data.training_set import TrainingSet
from segcli.models.conventions import Preprocess
from segcli.training.loader import read_ahead

_PER_PICTURE = 10
_POINTS = 20
_SIDE = 64  # pixels of the stub picture
_BATCH = 8
_MOST = 1.2
_PREPROCESS = Preprocess(min_size=_SIDE, max_size=_SIDE)


def synthetic(annotations: int, path: Path) -> Iterator[Picture]:
    """Pictures of ten polygons each, all of them the file `path`."""
    rng = np.random.default_rng(0)
    turn = np.linspace(0, 2 * np.pi, _POINTS, endpoint=False)
    for index in range(annotations // _PER_PICTURE):
        centres, radii = rng.uniform(12, 52, (_PER_PICTURE, 2)), rng.uniform(3, 12, _PER_PICTURE)
        objects = []
        for number, (centre, radius) in enumerate(zip(centres, radii, strict=True)):
            points = centre + radius * np.stack((np.cos(turn), np.sin(turn)), axis=1)
            low, high = points.min(axis=0), points.max(axis=0)
            box = np.concatenate((low, high - low))
            objects.append(Annotation(number, number % 3, box, float(radius), polygons=(points,)))
        yield Picture(index, f"{index:09d}.png", path, (_SIDE, _SIDE), tuple(objects))


def kilobytes(process: int, field: str) -> int:
    """One number of /proc/PID/smaps_rollup, summed over fields of that name."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    return sum(int(v) for v in re.findall(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE))


def measure(annotations: int, workers: int, batches: int) -> dict[str, float]:
    """Load `batches` batches and look at the memory of this process and its workers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stub.png"
        Image.new("RGB", (_SIDE, _SIDE), (90, 120, 150)).save(path)
        packed = PackedPictures.of(synthetic(annotations, path))
        gc.collect()
        data = TrainingSet(packed, _PREPROCESS, augment=("flip", "scale"), seed=0)
        order = EpochBatches(packed.shapes(), _BATCH, seed=0, epoch=0)
        started = time.monotonic()
        with closing(read_ahead(data, order, workers, told=lambda _: None)) as stream:
            for _ in range(batches):
                next(stream)
            seconds = time.monotonic() - started
            children = [p.pid for p in multiprocessing.active_children() if p.pid]
            shared = [kilobytes(p, "Pss") for p in (os.getpid(), *children)]
            own = [kilobytes(p, "Private_(?:Clean|Dirty)") for p in children]
        return {
            "packed_mb": packed.nbytes / 1e6,
            "all_mb": sum(shared) * 1.024e-3,
            "worker_mb": max(own) * 1.024e-3,
            "pictures_per_second": batches * _BATCH / seconds,
        }


def in_process(annotations: int, options: argparse.Namespace) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--measure", "--annotations", str(annotations)]
    command += ["--workers", str(options.workers), "--batches", str(options.batches)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--annotations", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.annotations, options.workers, options.batches)))
        return
    few, many = in_process(1000, options), in_process(options.annotations, options)
    added = many["all_mb"] - few["all_mb"]
    ratio = added / many["packed_mb"]
    print(
        f"{options.annotations} annotations, {options.workers} workers, {options.batches} batches"
    )
    print(f"memory of all processes: {few['all_mb']:.0f} MB with 1000, {many['all_mb']:.0f} MB")
    print(f"largest worker of its own: {few['worker_mb']:.0f} MB, {many['worker_mb']:.0f} MB")
    print(f"packed: {many['packed_mb']:.0f} MB; added: {added:.0f} MB = {ratio:.2f} times")
    print(f"{many['pictures_per_second']:.0f} pictures per second")
    if ratio > _MOST:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
