#!/usr/bin/env python3
"""Make docs/fidelity.md: how far our network is from the families' own code, per model and stage.

    scripts/make_fidelity.py FIXTURES PHOTOS [--output docs/fidelity.md] [--photos 20] [--only NAME …] [--parts DIR]

FIXTURES holds the recorded outputs (`tests/models/fidelity` reads the same), PHOTOS pictures for the comparison with
torchvision's own code. Takes some forty minutes on two cores; with `--parts` what is done is kept there, picture by
picture, and taken from there on the next start.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch
import torchvision

sys.path.insert(0, str(Path(__file__).resolve().parent))
from fidelity.photos import compare_photo, stock_network
from fidelity.recorded import CONFIGS, Config, native_weights, network, record
from fidelity.report import Table, report
from fidelity.stages import Difference, StagedPredictor, compare


class Parts:
    """Differences of single pictures, kept between starts.

    Args:
        folder: None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, make: Callable[[], list[Difference]]) -> list[Difference]:
        """What is kept under a name, else what `make` gives."""
        path = None if self._folder is None else self._folder / f"{name}.json"
        if path is not None and path.exists():
            return [Difference(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
        found = make()
        if path is not None:
            path.write_text(json.dumps([asdict(d) for d in found]), encoding="utf-8")
        _say(f"{name}: {'ok' if all(d.within for d in found) else 'OUT'}")
        return found


def recorded_table(fixtures: Path, config: Config, parts: Parts) -> Table:
    """One model on all pictures that it was recorded on."""
    predictor = cache(lambda: StagedPredictor(network(fixtures, config)))
    rows = {
        image: parts.get(
            f"{config.name} {image}",
            lambda image=image: compare(predictor(), config, record(fixtures, config, image)),
        )
        for image in config.images
    }
    return Table(config.name, config.preset, rows)


def photo_table(fixtures: Path, config: Config, photos: list[Path], parts: Parts) -> Table:
    """One torchvision model on photos, beside torchvision's own code."""
    stock = cache(lambda: stock_network(config, native_weights(fixtures, config.name)))
    plain = cache(lambda: network(fixtures, config, "torchvision"))
    predictor = cache(lambda: StagedPredictor(network(fixtures, config)))
    rows = {
        photo.stem: parts.get(
            f"{config.name} {photo.stem}",
            lambda photo=photo: compare_photo(
                predictor(), plain(), stock(), photo, config.first_label
            ),
        )
        for photo in photos
    }
    return Table(config.name, config.preset, rows)


def main() -> int:
    """Read the arguments, compare, write the page. Exit code 1 where something is out of tolerance."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("fixtures", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/fidelity.md"))
    parser.add_argument("--photos", type=int, default=20)
    parser.add_argument("--parts", type=Path)
    parser.add_argument("--only", nargs="*", default=list(CONFIGS))
    given = parser.parse_args()
    photos = sorted(given.pictures.rglob("*.jpg"))[: given.photos]
    if len(photos) < given.photos:
        parser.error(f"{given.pictures}: {len(photos)} pictures, expected {given.photos}")
    parts = Parts(given.parts)
    chosen = [CONFIGS[name] for name in given.only]
    recorded = [recorded_table(given.fixtures, config, parts) for config in chosen]
    beside = [
        photo_table(given.fixtures, config, photos, parts)
        for config in chosen
        if config.family == "torchvision" and photos
    ]
    made_with = (
        f"{time.strftime('%Y-%m-%d')}, torch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"Python {platform.python_version()}, CPU, fp32, {torch.get_num_threads()} thread(s)"
    )
    given.output.write_text(report(recorded, beside, made_with), encoding="utf-8")
    _say(f"written: {given.output}")
    return 0 if all(table.within for table in (*recorded, *beside)) else 1


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
