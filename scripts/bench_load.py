"""How long weights take to load, and how much memory: every container, hash included.

    python scripts/bench_load.py [--repeat N] [--json]

Makes R-50-FPN weights (170 MB) in each container, loads each in processes of their own and prints the best time of
loading (with hash), of building the network from it, the highest memory above that of a process with its imports done
as a multiple of the file (Linux alone), and the time of plain reading and hashing of the same file in the same process
for comparison.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_MB = 1e6


def _memory(field: str) -> float:
    """A line of /proc/self/status in bytes: `VmRSS` now, `VmHWM` at most since `clear_refs`."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return float(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {field}")


def _measure(path: Path, conventions: str | None) -> dict[str, float]:
    """In a process of its own: load, build, and what a plain reader of the same bytes takes."""
    import torch

    from segcli.models import MaskRCNN, ModelSpec  # noqa: F401  # imports are not part of loading
    from segcli.weights import reading
    from segcli.zoo import load_model

    assert reading
    torch.set_num_threads(1)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _memory("VmRSS")
    start = time.perf_counter()
    model = load_model(str(path), conventions)
    loaded = time.perf_counter()
    network = model.build()
    built = time.perf_counter()
    size = path.stat().st_size
    peak = (_memory("VmHWM") - before) / size
    del network, model
    plain = time.perf_counter()
    with path.open("rb") as stream:
        hashlib.sha256(stream.read())
    return {
        "load_s": loaded - start,
        "build_s": built - loaded,
        "plain_s": time.perf_counter() - plain,
        "peak": peak,
        "megabytes": size / _MB,
    }


def _make_files(folder: Path) -> dict[str, tuple[Path, str | None]]:
    """R-50-FPN weights in each container; names of detectron2 for the pickle, whose zoo has pickles."""
    import torch
    from weight_layouts import to_detectron2

    from segcli.models import MaskRCNN, ModelSpec
    from segcli.models.presets import preset
    from segcli.weights.classes import COCO_91
    from segcli.zoo import new_model, save_model

    model = new_model("mask-rcnn-r50-fpn", COCO_91, seed=0)
    files = {
        "pth (zip)": folder / "zip.pth",
        "pth (legacy)": folder / "legacy.pth",
        "safetensors": folder / "own.safetensors",
        "pkl": folder / "detectron2.pkl",
    }
    torch.save(dict(model.state), files["pth (zip)"])
    torch.save(dict(model.state), files["pth (legacy)"], _use_new_zipfile_serialization=False)
    save_model(files["safetensors"], model)
    spec = ModelSpec("mask-rcnn-r50-fpn", 80, model.spec.anchors, preset("detectron2-r50"))
    background_last = MaskRCNN(spec).state_dict()
    blobs = {name: tensor.numpy() for name, tensor in to_detectron2(background_last).items()}
    files["pkl"].write_bytes(pickle.dumps({"model": blobs}, protocol=3))
    return {
        name: (path, "detectron2-r50" if name == "pkl" else None) for name, path in files.items()
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", nargs=2, metavar=("FILE", "CONVENTIONS"))
    options = parser.parse_args()
    if options.measure:
        path, conventions = options.measure
        print(json.dumps(_measure(Path(path), conventions or None)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = {
            name: _best(path, conventions, options.repeat)
            for name, (path, conventions) in _make_files(Path(folder)).items()
        }
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    print(
        f"{'container':14} {'MB':>6} {'load s':>7} {'build s':>8} {'read + hash s':>14} {'peak / file':>12}"
    )
    for name, row in rows.items():
        print(
            f"{name:14} {row['megabytes']:6.0f} {row['load_s']:7.2f} {row['build_s']:8.2f} "
            f"{row['plain_s']:14.2f} {row['peak']:12.2f}"
        )


def _best(path: Path, conventions: str | None, repeat: int) -> dict[str, float]:
    """Least of each figure over several processes; of memory the most."""
    command = [sys.executable, __file__, "--measure", str(path), conventions or ""]
    found = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(repeat)
    ]
    worst = max(row["peak"] for row in found)
    return {**{key: min(row[key] for row in found) for key in found[0]}, "peak": worst}


if __name__ == "__main__":
    main()
