"""The figure of docs/roi_align.md: cells, a box, its bins and samples, the taps of one sample, and the half-cell shift.

python scripts/make_roi_align_figure.py docs/roi_align.png
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FINE = 3  # drawn this much larger, then shrunk: smooth lines
CELL = 62  # pixels of the picture per cell
CELLS = (10, 7)  # across, down
MARGIN, GAP, HEAD, FOOT = 26, 44, 74, 128
BINS, RATIO = 3, 2
BOX = (1.35, 1.0, 8.25, 5.95)  # in cells, from the map's corner
CHOSEN = (1, 1, 1, 0)  # bin row, bin column, sample row, sample column

WHITE, INK, GREY, PALE = "#ffffff", "#1d2733", "#7b8794", "#cbd3dc"
BLUE, LIGHT_BLUE, ORANGE, GREEN = "#1f5fbf", "#e4eefb", "#d9480f", "#2b8a3e"

Point = tuple[float, float]


class Panel:
    """One map of cells; points are given in cells from its corner."""

    def __init__(self, draw: ImageDraw.ImageDraw, left: int, top: int) -> None:
        self.draw, self.left, self.top = draw, left, top

    def at(self, point: Point) -> Point:
        """Where a point lies on the sheet."""
        return (self.left + point[0] * CELL) * FINE, (self.top + point[1] * CELL) * FINE

    def line(self, a: Point, b: Point, colour: str, width: float = 1.0) -> None:
        """Straight, `width` in pixels."""
        self.draw.line((*self.at(a), *self.at(b)), colour, round(width * FINE))

    def dashes(self, a: Point, b: Point, colour: str, width: float = 1.0) -> None:
        """Like `line`, in pieces of about an eighth of a cell."""
        pieces = max(1, round(math.dist(a, b) * 8) // 2 * 2 + 1)
        along = [
            (a[0] + (b[0] - a[0]) * i / pieces, a[1] + (b[1] - a[1]) * i / pieces)
            for i in range(pieces + 1)
        ]
        for i in range(0, pieces, 2):
            self.line(along[i], along[i + 1], colour, width)

    def frame(
        self, box: tuple[float, ...], colour: str, width: float, dashed: bool = False
    ) -> None:
        """Outline of a box (x1, y1, x2, y2)."""
        x1, y1, x2, y2 = box
        corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
        for a, b in zip(corners, corners[1:] + corners[:1], strict=True):
            (self.dashes if dashed else self.line)(a, b, colour, width)

    def fill(self, box: tuple[float, ...], colour: str) -> None:
        """Inside of a box."""
        self.draw.rectangle((*self.at((box[0], box[1])), *self.at((box[2], box[3]))), colour)

    def dot(self, point: Point, radius: float, colour: str, edge: str | None = None) -> None:
        """Round, `radius` in pixels."""
        x, y = self.at(point)
        r = radius * FINE
        self.draw.ellipse((x - r, y - r, x + r, y + r), colour, edge, FINE)

    def text(
        self,
        point: Point,
        words: str,
        size: int,
        colour: str,
        anchor: str = "lm",
        ground: str = WHITE,
    ) -> None:
        """On a ground of its own, so that lines do not cross it."""
        letters = ImageFont.load_default(size * FINE)
        spot = self.at(point)
        around = self.draw.textbbox(spot, words, font=letters, anchor=anchor)
        pad = 2 * FINE
        behind = (around[0] - pad, around[1] - pad, around[2] + pad, around[3] + pad)
        self.draw.rectangle(behind, ground)
        self.draw.text(spot, words, colour, letters, anchor=anchor)

    def arrow(self, a: Point, b: Point, colour: str) -> None:
        """From a to b."""
        self.line(a, b, colour, 3)
        angle = math.atan2(b[1] - a[1], b[0] - a[0])
        wings = [
            (b[0] - 0.22 * math.cos(angle + turn), b[1] - 0.22 * math.sin(angle + turn))
            for turn in (0.45, -0.45)
        ]
        self.draw.polygon([self.at(p) for p in (b, *wings)], colour)

    def cells(self) -> None:
        """The grid, with a dot in each cell's centre: that is where its value belongs."""
        across, down = CELLS
        for x in range(across + 1):
            self.line((x, 0), (x, down), PALE, 1.5)
        for y in range(down + 1):
            self.line((0, y), (across, y), PALE, 1.5)
        for x in range(across):
            for y in range(down):
                self.dot((x + 0.5, y + 0.5), 2.6, GREY)


def sample(row: int, column: int, i_y: int, i_x: int, shift: float = 0.0) -> Point:
    """Sample (i_y, i_x) of bin (row, column), in cells."""
    x1, y1, x2, y2 = BOX
    width, height = (x2 - x1) / BINS, (y2 - y1) / BINS
    x = x1 + width * (column + (i_x + 0.5) / RATIO)
    y = y1 + height * (row + (i_y + 0.5) / RATIO)
    return x + shift, y + shift


def samples(shift: float = 0.0) -> list[Point]:
    """All of them."""
    bins, each = range(BINS), range(RATIO)
    return [sample(r, c, y, x, shift) for r in bins for c in bins for y in each for x in each]


def draw_pooling(panel: Panel) -> None:
    """Left: bins, samples, and the four taps of one sample."""
    x1, y1, x2, y2 = BOX
    width, height = (x2 - x1) / BINS, (y2 - y1) / BINS
    row, column = CHOSEN[:2]
    left, top = x1 + width * column, y1 + height * row
    panel.fill((left, top, left + width, top + height), LIGHT_BLUE)
    panel.cells()
    for i in range(1, BINS):
        panel.line((x1 + width * i, y1), (x1 + width * i, y2), BLUE, 1.5)
        panel.line((x1, y1 + height * i), (x2, y1 + height * i), BLUE, 1.5)
    panel.frame(BOX, BLUE, 3.5)
    for point in samples():
        panel.dot(point, 4.2, ORANGE)
    draw_taps(panel, sample(*CHOSEN))
    panel.text((x1, y1 - 0.24), "box", 17, BLUE)
    panel.text((left + width - 0.08, top + 0.2), "bin", 17, BLUE, "rm", LIGHT_BLUE)


def draw_taps(panel: Panel, chosen: Point) -> None:
    """The four cells around a sample and their weights."""
    x, y = chosen[0] - 0.5, chosen[1] - 0.5  # in indices: cell i has its centre at i
    low_x, low_y = math.floor(x), math.floor(y)
    l_x, l_y = x - low_x, y - low_y
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (l_x if dx else 1 - l_x) * (l_y if dy else 1 - l_y)
            centre = (low_x + dx + 0.5, low_y + dy + 0.5)
            panel.line(chosen, centre, GREEN, 2)
            panel.dot(centre, 7, GREEN)
            side = "rm" if dx == 0 else "lm"
            spot = (centre[0] + (0.2 if dx else -0.2), centre[1] + (0.02 if dy else -0.02))
            panel.text(spot, f"{weight:.2f}", 16, GREEN, side)
    panel.dot(chosen, 6, ORANGE, WHITE)


def draw_shift(panel: Panel) -> None:
    """Right: the same box without the half-cell shift reads half a cell further right and down."""
    panel.cells()
    panel.frame(BOX, BLUE, 2.5, dashed=True)
    panel.frame(tuple(v + 0.5 for v in BOX), ORANGE, 3.5)
    for aligned, legacy in zip(samples(), samples(0.5), strict=True):
        panel.dot(aligned, 3.4, WHITE, BLUE)
        panel.dot(legacy, 4.2, ORANGE)
    panel.arrow((BOX[0], BOX[1]), (BOX[0] + 0.5, BOX[1] + 0.5), INK)
    panel.text(
        (BOX[0] + 0.95, BOX[1] - 0.24), "half a cell = half a stride of the picture", 17, INK
    )


def draw(sheet: ImageDraw.ImageDraw) -> None:
    """Both panels with their words."""
    width = CELLS[0] * CELL
    left, right = (Panel(sheet, x, HEAD) for x in (MARGIN, MARGIN + width + GAP))
    draw_pooling(left)
    draw_shift(right)
    below = CELLS[1] + 0.4
    for panel, title, lines in (
        (
            left,
            "aligned=True: 3 by 3 bins, sampling_ratio=2",
            (
                ("dot in a cell: where the cell's value belongs", GREY),
                ("sample: 2 by 2 per bin, no coordinate is rounded", ORANGE),
                (
                    "taps of one sample: 4 cells, bilinear weights (sum 1); bin = mean of its samples",
                    GREEN,
                ),
            ),
        ),
        (
            right,
            "aligned=False (torchvision's Mask R-CNN)",
            (
                ("dashed: where the box lies", BLUE),
                ("solid: where it is read; scaled corners are taken for indices,", ORANGE),
                ("though index i is the centre of cell i, which lies at i + 0.5", ORANGE),
            ),
        ),
    ):
        panel.text((0, -0.65), title, 24, INK)
        for i, (words, colour) in enumerate(lines):
            panel.text((0, below + 0.52 * i), words, 18, colour)


def main() -> None:
    """Parse, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    size = (2 * (CELLS[0] * CELL + MARGIN) + GAP, CELLS[1] * CELL + HEAD + FOOT)
    large = Image.new("RGB", (size[0] * FINE, size[1] * FINE), WHITE)
    draw(ImageDraw.Draw(large))
    small = large.resize(size, Image.Resampling.LANCZOS)
    small.quantize(96, dither=Image.Dither.NONE).save(output, optimize=True)


if __name__ == "__main__":
    main()
