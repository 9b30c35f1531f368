"""The video job: which frames are predicted, what is drawn, and predictions that are kept and used again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segcli.categories import Categories
from segcli.config import DrawConfig
from segcli.errors import DataError, OutputError, UsageError
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.overlay.palette import class_colors
from segcli.overlay.video import VideoJob, check_job, overlay_with_model, overlay_with_predictions
from segcli.overlay.video_in import Window
from segcli.overlay.video_predictions import FramePredictions, frame_key

STYLE = DrawConfig(labels=False, opacity=1.0)


class BlockFinder:
    """Finds the bright block of the made-up videos; remembers its batches."""

    def __init__(self, batch_size: int = 1) -> None:
        self.categories = Categories(("block", "other"), (7, 3))
        self.batch_size = batch_size
        self.batches: list[int] = []

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return image

    def predict(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Instances]:
        if pictures:
            self.batches.append(len(pictures))
        return [self._find(p) for p in pictures]

    def _find(self, image: NDArray[np.uint8]) -> Instances:
        masks = Masks.from_dense((image[..., 0] > 195)[None])
        scores = np.array([0.75], np.float32)
        return Instances(masks.size, masks.boxes(), np.zeros(1, np.int32), scores, masks)


def block_columns(frame: NDArray[np.uint8]) -> tuple[int, int]:
    """First and last column of what is drawn in the class's colour."""
    color = np.array(class_colors(("block", "other"))[0])
    hit = (np.abs(frame.astype(int) - color).max(axis=2) < 60).sum(axis=0) > 4
    columns = np.flatnonzero(hit)
    return int(columns[0]), int(columns[-1])


def test_every_frame_is_predicted_and_drawn(clips: Any, tmp_path: Path) -> None:
    """The drawn block follows the block of the video, frame by frame."""
    source, model = clips.make(), BlockFinder()
    job = VideoJob(source, tmp_path / "out.mp4", style=STYLE)
    result = overlay_with_model(job, model)
    assert (result.frames, result.damaged) == (12, 0)
    for number, frame in enumerate(clips.frames(job.output)):
        first, last = block_columns(frame)
        assert abs(first - 8 * number % 80) <= 2
        assert abs(last - (8 * number % 80 + 15)) <= 2


@pytest.mark.parametrize(
    ("batch_size", "every", "batches"),
    [
        pytest.param(1, 1, [1] * 12, id="one-by-one"),
        pytest.param(5, 1, [5, 5, 2], id="batches"),
        pytest.param(1, 4, [1, 1, 1], id="every-fourth"),
        pytest.param(4, 2, [2, 2, 2], id="batches-of-every-second"),
        pytest.param(2, 100, [1], id="only-the-first"),
        pytest.param(64, 1, [12], id="one-batch"),
    ],
)
def test_every_nth_frame(
    clips: Any, tmp_path: Path, batch_size: int, every: int, batches: list[int]
) -> None:
    """The model sees every Nth frame, in batches; the frames between show what was found before them."""
    model = BlockFinder(batch_size)
    job = VideoJob(clips.make(), tmp_path / "out.mp4", style=STYLE, every=every)
    assert overlay_with_model(job, model).frames == 12
    assert model.batches == batches
    for number, frame in enumerate(clips.frames(job.output)):
        first, _ = block_columns(frame)
        assert abs(first - 8 * (number // every * every) % 80) <= 2


@pytest.mark.parametrize("every", [1, 3])
def test_saved_predictions_give_the_same_video(clips: Any, tmp_path: Path, every: int) -> None:
    """A video drawn from saved predictions equals the one that the model drew; the file is COCO with our header."""
    source, saved = clips.make(), tmp_path / "saved" / "p.json"
    job = VideoJob(source, tmp_path / "a.mp4", style=STYLE, every=every, save_predictions=saved)
    overlay_with_model(job, BlockFinder(2))
    again = VideoJob(source, tmp_path / "b.mp4", style=STYLE)
    overlay_with_predictions(again, FramePredictions(saved, source))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    data = json.loads(saved.read_text())
    assert data["categories"] == [{"id": 7, "name": "block"}, {"id": 3, "name": "other"}]
    assert [i["file_name"] for i in data["images"]] == [
        f"in.mp4#{n:06d}" for n in range(0, 12, every)
    ]
    assert [(i["pts"], i["time_base"]) for i in data["images"]] == [
        (1000 * n, "1/25000") for n in range(0, 12, every)
    ]
    assert data["video"]["size"] == source.stat().st_size
    assert [a["id"] for a in data["annotations"]] == list(range(1, len(data["images"]) + 1))
    first = data["annotations"][0]
    assert (first["category_id"], first["score"], first["image_id"]) == (7, 0.75, 1)
    assert first["area"] == np.prod(first["bbox"][2:])


def test_window_of_predictions(clips: Any, tmp_path: Path) -> None:
    """Predictions of a part fit the whole: frames outside the part are drawn bare."""
    source, saved = clips.make(), tmp_path / "p.json"
    window = Window(Fraction(1, 5), Fraction(2, 5))
    overlay_with_model(
        VideoJob(source, tmp_path / "a.mp4", window, STYLE, save_predictions=saved), BlockFinder()
    )
    whole = VideoJob(source, tmp_path / "b.mp4", style=STYLE)
    overlay_with_predictions(whole, FramePredictions(saved, source))
    color = np.array(class_colors(("block", "other"))[0])
    drawn = [
        bool((np.abs(f.astype(int) - color).max(axis=2) < 40).sum() > 50)
        for f in clips.frames(tmp_path / "b.mp4")
    ]
    assert drawn == [5 <= n < 10 for n in range(12)]


def test_part_that_begins_between_two_predicted_frames(clips: Any, tmp_path: Path) -> None:
    """Its first frames show what was found on one before the part, as the whole video does."""
    source, saved = clips.make(), tmp_path / "p.json"
    job = VideoJob(source, tmp_path / "a.mp4", style=STYLE, every=4, save_predictions=saved)
    overlay_with_model(job, BlockFinder())
    part = VideoJob(source, tmp_path / "b.mp4", Window(start=Fraction(6, 25)), STYLE)
    overlay_with_predictions(part, FramePredictions(saved, source))
    whole, drawn = clips.frames(job.output), clips.frames(part.output)
    assert len(drawn) == 6
    for first, second in zip(whole[6:], drawn, strict=True):
        assert block_columns(second) == pytest.approx(block_columns(first), abs=1)


def test_predictions_of_another_video_are_refused(clips: Any, tmp_path: Path) -> None:
    """The video is known by its content: renamed it fits, changed or other it does not."""
    source, saved = clips.make(), tmp_path / "p.json"
    job = VideoJob(source, tmp_path / "a.mp4", save_predictions=saved)
    overlay_with_model(job, BlockFinder())
    renamed = source.rename(tmp_path / "renamed.mp4")
    FramePredictions(saved, renamed)
    data = bytearray(renamed.read_bytes())
    data[-1] ^= 1
    renamed.write_bytes(data)
    with pytest.raises(DataError, match="made from another video"):
        FramePredictions(saved, renamed)
    with pytest.raises(DataError, match="made from another video"):
        FramePredictions(saved, clips.make("other.mp4", pts=(0, 1000)))


def coco(**changes: Any) -> dict[str, Any]:
    return {"images": [], "annotations": [], "categories": [], **changes}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(coco(), "no predictions of a video", id="pictures"),
        pytest.param([], "no predictions of a video", id="results-list"),
        pytest.param(coco(video={}), "made from another video", id="empty-header"),
        pytest.param({"a": 1}, "no list", id="no-coco"),
    ],
)
def test_other_files_are_refused(clips: Any, tmp_path: Path, content: Any, reason: str) -> None:
    """What holds no predictions of a video is refused in one line."""
    path = tmp_path / "p.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=reason):
        FramePredictions(path, clips.make())


def test_frame_names_that_are_none(clips: Any, tmp_path: Path) -> None:
    """A picture whose name has no frame number is refused."""
    source, saved = clips.make(), tmp_path / "p.json"
    overlay_with_model(VideoJob(source, tmp_path / "a.mp4", save_predictions=saved), BlockFinder())
    data = json.loads(saved.read_text())
    data["images"][0]["file_name"] = "in.mp4#first"
    saved.write_text(json.dumps(data))
    with pytest.raises(DataError, match="expected a frame's name"):
        FramePredictions(saved, source)
    assert frame_key(Path("x/a#b.mp4"), 12) == "a#b.mp4#000012"


def test_empty_window_is_named(clips: Any, tmp_path: Path) -> None:
    """A window behind the end gives an error with its times, and no file."""
    job = VideoJob(clips.make(), tmp_path / "out.mp4", Window(Fraction(100), None))
    with pytest.raises(DataError, match=r"no frame from 0:01:40.000 to the end"):
        overlay_with_model(job, BlockFinder())
    assert not job.output.exists()


def test_a_failing_model_leaves_no_files(clips: Any, tmp_path: Path) -> None:
    """When the model fails half-way, neither video nor predictions appear."""

    class Failing(BlockFinder):
        def predict(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Instances]:
            if len(self.batches) == 3:
                raise RuntimeError("out of memory")
            return super().predict(pictures)

    source = clips.make()
    job = VideoJob(source, tmp_path / "a.mp4", save_predictions=tmp_path / "p.json")
    with pytest.raises(RuntimeError, match="out of memory"):
        overlay_with_model(job, Failing())
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["in.mp4"]


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        pytest.param(
            {"window": Window(Fraction(2), Fraction(1))}, UsageError, "is not after", id="backwards"
        ),
        pytest.param(
            {"window": Window(None, Fraction(0))}, UsageError, "is not after", id="no-time"
        ),
        pytest.param(
            {"save_predictions": "in.mp4"}, UsageError, "is the video", id="save-over-input"
        ),
        pytest.param(
            {"save_predictions": "out.mp4"}, UsageError, "is the video", id="save-over-output"
        ),
        pytest.param({"save_predictions": "old.json"}, OutputError, "exists", id="save-exists"),
        pytest.param({"source": "gone.mp4"}, DataError, "absent", id="no-input"),
        pytest.param({"output": "in.mp4"}, UsageError, "is the input", id="output-is-input"),
    ],
)
def test_jobs_that_cannot_work_are_refused(
    clips: Any, tmp_path: Path, change: dict[str, Any], kind: type[Exception], reason: str
) -> None:
    """Wrong requests are refused before a model is loaded."""
    clips.make()
    (tmp_path / "old.json").write_text("{}")
    values = {"source": "in.mp4", "output": "out.mp4", **change}
    values = {k: tmp_path / v if isinstance(v, str) else v for k, v in values.items()}
    with pytest.raises(kind, match=reason):
        check_job(VideoJob(**values))
    if kind is OutputError:
        check_job(VideoJob(**values, overwrite=True))


def test_memory_stays_flat(clips: Any, tmp_path: Path) -> None:
    """Four times the frames need no more memory: nothing is held but a batch."""
    pytest.importorskip("resource")
    script = (
        "import sys, resource; from pathlib import Path\n"
        "from segcli.overlay.video_in import Window, open_video\n"
        "from segcli.overlay.video_out import open_writer\n"
        "source, target = map(Path, sys.argv[1:])\n"
        "with open_video(source) as video, open_writer(target, video, Window(), audio=True) as writer:\n"
        "    for frame in video.frames(Window()):\n"
        "        writer.write(frame, frame.rgb)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )

    def peak(count: int) -> int:
        source = clips.make(f"{count}.mp4", pts=range(0, 1000 * count, 1000), size=(480, 640))
        arguments = [sys.executable, "-c", script, str(source), str(tmp_path / f"out-{count}.mp4")]
        return int(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)

    assert peak(200) - peak(50) < 50_000  # kB; 150 frames as RGB alone are 138,000


def test_real_video(shared: Callable[[str], Path], tmp_path: Path, clips: Any) -> None:
    """A part of the real video, drawn from made-up predictions, keeps its length and its sound."""
    source, target = shared("data/videos/car-detection.mp4"), tmp_path / "cars.mp4"
    window = Window(Fraction(2), Fraction(4))
    result = overlay_with_model(VideoJob(source, target, window, every=5), BlockFinder())
    assert result.frames == 25
    times = [t for t in clips.times(source) if 2 <= t < 4]
    assert clips.times(target) == [t - times[0] for t in times]
    sound = {data for data, _ in clips.packets(source)}
    assert {data for data, _ in clips.packets(target)} <= sound


def test_car_detection(shared: Callable[[str], Path], tmp_path: Path, clips: Any) -> None:
    """The real video: 377 frames, equal timestamps and duration, equal audio packets."""
    source, target = shared("data/videos/car-detection.mp4"), tmp_path / "cars.mp4"
    assert clips.copy(source, target) == 377
    assert clips.times(target) == clips.times(source)
    assert clips.packets(target) == clips.packets(source)
    assert clips.header(target)["duration"] == clips.header(source)["duration"]
