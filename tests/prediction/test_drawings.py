"""Overlays and mask PNGs: names, pixels, and when they are made again."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segcli import files
from segcli.categories import Categories
from segcli.config import DrawConfig, PredictConfig
from segcli.errors import DataError
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.prediction import drawings
from segcli.prediction.drawings import (
    DrawJob,
    draw_masks,
    draw_overlays,
    drop_stale,
    output_names,
    paint_ids,
)
from segcli.prediction.pictures import PictureReader
from segcli.prediction.pipeline import Outcome, Source
from segcli.prediction.plan import Plan, append_section, parse
from segcli.prediction.recording import row_of
from segcli.prediction.shards import ShardWriter, read_index
from segcli.prediction.walk import find_pictures

CATEGORIES = Categories.from_names(["a", "b"])
SIZE = (12, 16)


def found(*squares: tuple[int, int, int], scores: list[float] | None = None) -> Instances:
    """Squares of (x, y, side); scores 0.9 unless given."""
    dense = np.zeros((len(squares), *SIZE), bool)
    for i, (x, y, side) in enumerate(squares):
        dense[i, y : y + side, x : x + side] = True
    masks = Masks.from_dense(dense)
    values = np.array(scores or [0.9] * len(squares), np.float32)
    return Instances(SIZE, masks.boxes(), np.zeros(len(squares), np.int32), values, masks)


@dataclass
class Made:
    """A folder of pictures with a plan and one shard."""

    photos: Path
    out: Path
    plan: Plan

    def commit(self, key: str, instances: Instances | None) -> None:
        outcome = Outcome(Source(key, self.photos / key), instances, "broken", None)
        with ShardWriter(self.out) as writer:
            writer.add([row_of(outcome, self.plan.current[key].batch)])

    def task(self) -> DrawJob:
        keys = self.plan.order()
        return DrawJob(self.out, read_index(self.out, self.plan), keys, self.photos.joinpath)

    def overlays(self, style: DrawConfig | None = None) -> list[tuple[str, str]]:
        read = PictureReader(PredictConfig())
        return draw_overlays(self.task(), CATEGORIES, style or DrawConfig(), read=read)

    def path(self, name: str) -> Path:
        return self.out / name


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Made]:
    def make(*names: str) -> Made:
        for name in names:
            path = tmp_path / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (SIZE[1], SIZE[0]), (40, 60, 80)).save(path)
        plan = Plan()
        inputs = find_pictures(tmp_path / "photos")
        section = plan.section(plan.compare(inputs.pictures), 1)
        append_section(tmp_path / "out", section)
        job = Made(tmp_path / "photos", tmp_path / "out", parse(section))
        for name in names:
            job.commit(name, found((2, 2, 6)))
        return job

    return make


def test_ids_of_no_objects() -> None:
    """Without objects all is background."""
    assert paint_ids(Instances.empty(SIZE), 0.5).sum() == 0


def test_small_objects_lie_on_large_ones() -> None:
    """Ids are places in the row from 1; the small object is seen whatever the order; low scores are left out."""
    small_first = paint_ids(found((4, 4, 2), (0, 0, 12), (8, 0, 4), scores=[0.9, 0.8, 0.1]), 0.5)
    assert small_first.dtype == np.uint16
    assert (small_first == 1).sum() == 4
    assert (small_first == 2).sum() == 140
    assert (small_first == 3).sum() == 0
    large_first = paint_ids(found((0, 0, 12), (4, 4, 2)), 0.5)
    assert (large_first[4:6, 4:6] == 2).all()


def test_ids_need_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes alone, and more objects than 16 bits can number, are refused."""
    boxes = Instances(SIZE, np.zeros((1, 4), np.float32), np.zeros(1, np.int32))
    with pytest.raises(DataError, match="no masks"):
        paint_ids(boxes, 0.5)
    monkeypatch.setattr(drawings, "_MOST_OBJECTS", 1)
    with pytest.raises(DataError, match="2 objects, a 16-bit PNG can number 1"):
        paint_ids(found((0, 0, 1), (1, 1, 1)), 0.5)


@pytest.mark.parametrize(
    ("kind", "keys", "names"),
    [
        pytest.param("masks", [], [], id="none"),
        pytest.param("masks", ["a.jpg", "a.png"], ["a.jpg.png", "a.png.png"], id="masks"),
        pytest.param("overlays", ["d/a.jpg", "a.TIF"], ["d/a.jpg", "a.TIF"], id="overlays"),
        pytest.param("overlays", ["a.gif", "b.pgm"], ["a.gif.png", "b.pgm.png"], id="unwritable"),
        pytest.param(
            "overlays",
            ["a.gif", "a.gif.png"],
            ["a.gif.png.png", "a.gif.png"],
            id="a name that is taken",
        ),
    ],
)
def test_names(kind: str, keys: list[str], names: list[str]) -> None:
    """Every picture has a file name of its own, made from its key."""
    assert output_names(kind, keys) == dict(zip(keys, names, strict=True))


def test_masks_are_16_bit(made: Callable[..., Made]) -> None:
    """The PNG on disk holds the ids in 16 bits, at the picture's size."""
    job = made("d/a.jpg")
    assert draw_masks(job.task(), 0.5) == []
    with Image.open(job.path("masks/d/a.jpg.png")) as image:
        assert image.mode == "I;16"
        pixels = np.array(image)
    assert pixels.shape == SIZE
    assert (pixels == 1).sum() == 36


def test_overlays_keep_name_format_and_size(made: Callable[..., Made]) -> None:
    """An overlay has the picture's name and format, its objects are coloured, the rest is not."""
    job = made("d/a.png", "g.gif")
    assert job.overlays(DrawConfig(labels=False)) == []
    with Image.open(job.path("overlays/d/a.png")) as image:
        pixels = np.array(image)
    assert pixels.shape == (*SIZE, 3)
    assert (pixels[11, 15] == (40, 60, 80)).all()
    assert (pixels[5, 5] != (40, 60, 80)).any()
    with Image.open(job.path("overlays/g.gif.png")) as image:
        assert image.format == "PNG"


def test_orientation_is_applied_once(made: Callable[..., Made], tmp_path: Path) -> None:
    """The overlay of a picture that EXIF turns is upright and says so."""
    job = made("a.jpg")
    path = tmp_path / "photos" / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "maker"
    Image.new("RGB", (SIZE[0], SIZE[1])).save(path, exif=exif)
    assert job.overlays() == []
    with Image.open(job.path("overlays/a.jpg")) as image:
        assert image.size == (SIZE[1], SIZE[0])
        assert image.getexif()[0x0112] == 1
        assert image.getexif()[0x010F] == "maker"


def stamp(path: Path) -> int:
    return path.stat().st_ino


def test_drawn_once_and_again_when_missing(made: Callable[..., Made]) -> None:
    """What is there stays; what is missing, or was cut off in the log, is drawn."""
    job = made("a.png", "b.png")
    job.overlays()
    log = job.path(".drawn-overlays.jsonl")
    a = stamp(job.path("overlays/a.png"))
    b = stamp(job.path("overlays/b.png"))
    log.write_bytes(log.read_bytes()[:-4])
    job.overlays()
    assert stamp(job.path("overlays/a.png")) == a
    assert stamp(job.path("overlays/b.png")) != b
    job.path("overlays/b.png").unlink()
    job.overlays()
    assert stamp(job.path("overlays/a.png")) == a
    assert job.path("overlays/b.png").is_file()


def test_other_settings_draw_all_anew(made: Callable[..., Made]) -> None:
    """With other settings nothing of the old ones is left, even if drawing fails then."""
    job = made("a.png", "b.png")
    job.overlays()
    (job.photos / "b.png").write_bytes(b"gone bad")
    assert job.overlays(DrawConfig(opacity=1.0)) == [
        ("b.png", job.overlays(DrawConfig(opacity=1.0))[0][1])
    ]
    assert job.path("overlays/a.png").is_file()
    assert not job.path("overlays/b.png").exists()


def test_stale_drawings_go(made: Callable[..., Made]) -> None:
    """A drawing whose row no longer counts is removed; others and foreign files stay."""
    job = made("a.png", "b.png", "c.png")
    job.overlays()
    draw_masks(job.task(), 0.5)
    job.path("overlays/mine.png").write_text("x")
    job.commit("a.png", found((0, 0, 3)))
    job.commit("b.png", None)
    drop_stale(job.out, job.task().index)
    assert sorted(p.name for p in job.path("overlays").iterdir()) == ["c.png", "mine.png"]
    assert sorted(p.name for p in job.path("masks").iterdir()) == ["c.png.png"]
    job.overlays()
    assert sorted(p.name for p in job.path("overlays").iterdir()) == ["a.png", "c.png", "mine.png"]


def test_a_picture_that_cannot_be_drawn_does_not_stop_others(made: Callable[..., Made]) -> None:
    """It is named with the reason: unreadable by now, or of another size than its predictions."""
    job = made("a.png", "b.png", "c.png")
    (job.photos / "a.png").unlink()
    Image.new("RGB", (3, 3)).save(job.photos / "b.png")
    undrawn = dict(job.overlays())
    assert set(undrawn) == {"a.png", "b.png"}
    assert undrawn["a.png"].startswith("overlays: cannot be read (No such file")
    assert "overlays: picture of 3 × 3 pixels" in undrawn["b.png"]
    assert job.path("overlays/c.png").is_file()


def test_a_name_too_long_is_a_failure(made: Callable[..., Made]) -> None:
    """`.png` behind a name of 255 bytes is too long for the disk: named, not fatal."""
    name = "n" * 251 + ".png"
    job = made(name, "a.png")
    undrawn = draw_masks(job.task(), 0.5)
    assert [key for key, _ in undrawn] == [name]
    assert "name cannot be written (File name too long)" in undrawn[0][1]
    assert job.path("masks/a.png.png").is_file()


def test_a_full_disk_stops(made: Callable[..., Made], monkeypatch: pytest.MonkeyPatch) -> None:
    """No space left concerns all pictures: it ends the job."""
    job = made("a.png")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(drawings, "write_bytes", full)
    monkeypatch.setattr(drawings, "_write_log", lambda *_: job.path(".drawn-masks.jsonl").touch())
    with pytest.raises(OSError, match="No space left"):
        draw_masks(job.task(), 0.5)


def test_the_picture_itself_is_never_replaced(made: Callable[..., Made]) -> None:
    """Where a link makes the overlay's place the picture, the picture stays as it is."""
    job = made("a.png")
    job.path("overlays").symlink_to(job.photos)
    before = (job.photos / "a.png").read_bytes()
    undrawn = job.overlays()
    assert "would replace the picture itself" in undrawn[0][1]
    assert (job.photos / "a.png").read_bytes() == before


def test_a_damaged_log_is_named(made: Callable[..., Made]) -> None:
    """A log that cannot be read is refused with the remedy."""
    job = made("a.png")
    files.write_bytes(job.path(".drawn-masks.jsonl"), json.dumps({"file": "a"}).encode() + b"\n")
    with pytest.raises(DataError, match="delete it to draw anew"):
        draw_masks(job.task(), 0.5)
