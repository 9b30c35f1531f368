"""README's picture: synthetic scenes beside what the demo's model finds on them.

bash scripts/demo.sh && python scripts/make_readme_picture.py demo-output docs/overlay.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

COLUMNS = 3
GAP = 6


def sheet(scenes: Path, overlays: Path) -> np.ndarray:
    """Two rows: pictures above, overlays below; BGR."""
    names = sorted(path.name for path in overlays.glob("*.png"))[:COLUMNS]
    if len(names) < COLUMNS:
        raise SystemExit(f"make_readme_picture: expected {COLUMNS} overlays in {overlays}")
    rows = []
    for folder in (scenes, overlays):
        pictures = [cv2.imread(str(folder / name)) for name in names]
        large = [
            cv2.resize(p, None, fx=1.25, fy=1.25, interpolation=cv2.INTER_CUBIC) for p in pictures
        ]
        white = np.full((large[0].shape[0], GAP, 3), 255, np.uint8)
        rows.append(np.hstack([part for p in large for part in (p, white)][:-1]))
    line = np.full((GAP, rows[0].shape[1], 3), 255, np.uint8)
    return np.vstack((rows[0], line, rows[1]))


def main() -> None:
    """Parse, make, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path, help="the folder that demo.sh wrote")
    parser.add_argument("output", type=Path)
    given = parser.parse_args()
    picture = sheet(given.demo / "scenes" / "val", given.demo / "predictions" / "overlays")
    given.output.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(given.output), picture, [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
