"""Pictures drawn from predictions: joins, names, failures, and whose folder it is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segcli.config import DrawConfig
from segcli.errors import DataError, OutputError, UsageError
from segcli.masks import Masks
from segcli.overlay.folder import PicturesJob, overlay_folder, overlay_images
from segcli.overlay.palette import class_colors

SIZE = (40, 60)
STYLE = DrawConfig(labels=False, opacity=1.0)


def square() -> dict[str, Any]:
    mask = np.zeros(SIZE, bool)
    mask[10:30, 10:40] = True
    return Masks.from_dense(mask[None]).coco(0)


def write_predictions(path: Path, names: list[str]) -> Path:
    """One object of class `cell` on each named picture."""
    images = [
        {"id": n, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
        for n, name in enumerate(names, 1)
    ]
    annotations = [
        {
            "id": n,
            "image_id": n,
            "category_id": 5,
            "score": 0.9,
            "bbox": [10, 10, 30, 20],
            "segmentation": square(),
        }
        for n in range(1, len(names) + 1)
    ]
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 5, "name": "cell"}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_picture(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size[1], size[0]), (100, 100, 100)).save(path)
    return path


@pytest.fixture
def job(tmp_path: Path) -> PicturesJob:
    """A job whose predictions file is still to be written."""
    return PicturesJob(tmp_path / "p.json", tmp_path / "out", "overlay folder", STYLE)


def drawn(path: Path) -> bool:
    color = np.array(class_colors(("cell",))[0])
    return bool(
        np.abs(np.asarray(Image.open(path).convert("RGB"))[20, 25] - color.astype(int)).max() < 12
    )


def failures(out: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()]


def test_pictures_are_drawn_under_their_own_names(
    tmp_path: Path, job: PicturesJob, capsys: pytest.CaptureFixture[str]
) -> None:
    """Overlays keep folder, name and format; pictures without predictions are counted, absent ones too."""
    pictures = tmp_path / "pictures"
    names = ["a.png", "sub/b.jpg", "sub/c.GIF", "sub/deep/d.tif"]
    for name in [*names, "bare.png"]:
        write_picture(pictures / name)
    write_predictions(job.predictions, [*names, "gone.png"])
    result = overlay_folder(pictures, job)
    assert (result.drawn, result.failed) == (4, 0)
    found = {
        p.relative_to(job.output).as_posix()
        for p in job.output.rglob("*.*")
        if not p.name.startswith(".")
    }
    assert found == {
        "a.png",
        "sub/b.jpg",
        "sub/c.GIF.png",
        "sub/deep/d.tif",
        "failed.jsonl",
        "config.toml",
    }
    assert all(
        drawn(job.output / n) for n in found if "." in n and not n.endswith(("jsonl", "toml"))
    )
    said = capsys.readouterr().err
    assert "1 pictures have no predictions" in said
    assert "1 pictures are not in" in said


def test_failures_are_listed_and_the_rest_is_drawn(tmp_path: Path, job: PicturesJob) -> None:
    """A damaged picture, and one of another size, become rows of failed.jsonl."""
    pictures = tmp_path / "pictures"
    write_picture(pictures / "good.png")
    write_picture(pictures / "other.png", (10, 10))
    (pictures / "bad.png").write_bytes(b"no picture")
    write_predictions(job.predictions, ["good.png", "other.png", "bad.png"])
    result = overlay_folder(pictures, job)
    assert (result.drawn, result.failed) == (1, 2)
    rows = {row["file"]: row["error"] for row in failures(job.output)}
    assert rows.keys() == {"other.png", "bad.png"}
    assert rows["bad.png"].startswith("no picture inside")
    assert "40" in rows["other.png"]


def test_output_inside_the_folder_is_not_read(tmp_path: Path) -> None:
    """Overlays written into the picture folder are no pictures of the next run."""
    pictures = tmp_path / "pictures"
    write_picture(pictures / "a.png")
    write_predictions(tmp_path / "p.json", ["a.png", "out/a.png"])
    for overwrite in (False, True):
        job = PicturesJob(tmp_path / "p.json", pictures / "out", "overlay folder", STYLE, overwrite)
        assert overlay_folder(pictures, job).drawn == 1


def test_a_leading_folder_is_removed(
    tmp_path: Path, job: PicturesJob, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names that all carry one folder too many are joined without it, and it is said; Windows' separators too."""
    pictures = tmp_path / "pictures"
    write_picture(pictures / "a.png")
    write_picture(pictures / "b.png")
    write_predictions(job.predictions, ["val\\images\\a.png", "./val/images/b.png"])
    assert overlay_folder(pictures, job).drawn == 2
    assert "leading folder images of its file names removed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        pytest.param(["x.png"], "none of its pictures is in", id="nothing-in-common"),
        pytest.param(["u/a.png", "v/b.png"], "none of its pictures is in", id="two-folders"),
        pytest.param(["../../a.png/x"], "none of its pictures is in", id="outside"),
        pytest.param(["a.png", "./a.png"], "two pictures are called", id="twice"),
    ],
)
def test_predictions_that_fit_nothing(
    tmp_path: Path, job: PicturesJob, names: list[str], reason: str
) -> None:
    """Predictions of other pictures are refused, and no output is made."""
    pictures = tmp_path / "pictures"
    write_picture(pictures / "a.png")
    write_predictions(job.predictions, names)
    with pytest.raises(DataError, match=reason):
        overlay_folder(pictures, job)
    assert not job.output.exists()


def test_no_predictions_at_all(tmp_path: Path, job: PicturesJob) -> None:
    """A file without pictures draws nothing and fails nothing."""
    pictures = tmp_path / "pictures"
    write_picture(pictures / "a.png")
    write_predictions(job.predictions, [])
    result = overlay_folder(pictures, job)
    assert (result.drawn, result.failed) == (0, 0)


def test_results_list_is_refused(tmp_path: Path, job: PicturesJob) -> None:
    """A bare results list has no names to join by."""
    write_picture(tmp_path / "pictures" / "a.png")
    job.predictions.write_text(
        json.dumps([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}])
    )
    with pytest.raises(DataError, match="bare results list names no pictures"):
        overlay_folder(tmp_path / "pictures", job)


def test_overwrite_removes_what_was_drawn_before(tmp_path: Path, job: PicturesJob) -> None:
    """Without --overwrite an output of ours is refused; with it old overlays go and other files stay."""
    pictures = tmp_path / "pictures"
    write_picture(pictures / "a.png")
    write_picture(pictures / "b.png")
    write_predictions(job.predictions, ["a.png", "b.png"])
    overlay_folder(pictures, job)
    (job.output / "notes.txt").write_text("mine")
    write_predictions(job.predictions, ["a.png"])
    with pytest.raises(OutputError, match="--overwrite"):
        overlay_folder(pictures, job)
    again = PicturesJob(job.predictions, job.output, job.command, STYLE, overwrite=True)
    assert overlay_folder(pictures, again).drawn == 1
    left = {p.name for p in job.output.iterdir() if not p.name.startswith(".")}
    assert left == {"a.png", "notes.txt", "failed.jsonl", "config.toml"}


def test_outputs_that_hit_inputs_are_refused(tmp_path: Path) -> None:
    """The picture folder and its parents are refused, with --overwrite too; so is a folder of somebody else's."""
    pictures = tmp_path / "in" / "pictures"
    original = write_picture(pictures / "a.png").read_bytes()
    predictions = write_predictions(tmp_path / "p.json", ["a.png"])
    for out in (pictures, tmp_path / "in"):
        job = PicturesJob(predictions, out, "overlay folder", STYLE, overwrite=True)
        with pytest.raises(UsageError):
            overlay_folder(pictures, job)
        with pytest.raises(UsageError):
            overlay_images([pictures / "a.png"], job)
    other = tmp_path / "other"
    write_picture(other / "mine.png")
    with pytest.raises(OutputError):
        overlay_folder(
            pictures, PicturesJob(predictions, other, "overlay folder", STYLE, overwrite=True)
        )
    assert (pictures / "a.png").read_bytes() == original


def test_single_pictures(tmp_path: Path) -> None:
    """Single files are joined by the tail of their path; one without predictions is a failure."""
    pictures = tmp_path / "photos"
    files = [write_picture(pictures / n) for n in ("sub/a.png", "b.png", "c.png")]
    predictions = write_predictions(tmp_path / "p.json", ["sub/a.png", "photos/b.png", "a.png"])
    job = PicturesJob(predictions, tmp_path / "out", "overlay image", STYLE)
    result = overlay_images([*files, pictures / "gone.png"], job)
    assert (result.drawn, result.failed) == (2, 2)
    assert drawn(job.output / "sub" / "a.png")
    assert [row["file"] for row in failures(job.output)] == ["c.png", "gone.png"]
    assert failures(job.output)[1]["error"] == "no such file"


def test_frame_suffix_that_would_collide(tmp_path: Path, job: PicturesJob) -> None:
    """a.gif becomes a.gif.png, and where that is a picture of its own, neither is lost."""
    pictures = tmp_path / "pictures"
    write_picture(pictures / "a.gif")
    write_picture(pictures / "a.gif.png")
    write_predictions(job.predictions, ["a.gif", "a.gif.png"])
    assert overlay_folder(pictures, job).drawn == 2
    assert {p.name for p in job.output.glob("*.png")} == {"a.gif.png", "a.gif.png.png"}


def test_truncated_pictures_on_request(tmp_path: Path) -> None:
    """With allow_truncated a cut picture is drawn on."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (*SIZE, 3)).astype(np.uint8)
    Image.fromarray(noise).save(pictures / "a.bmp")
    data = (pictures / "a.bmp").read_bytes()
    (pictures / "a.bmp").write_bytes(data[: len(data) * 2 // 3])
    predictions = write_predictions(tmp_path / "p.json", ["a.bmp"])
    for allowed in (False, True):
        job = PicturesJob(
            predictions, tmp_path / str(allowed), "overlay folder", STYLE, allow_truncated=allowed
        )
        assert overlay_folder(pictures, job).drawn == int(allowed)


def test_no_torch_is_needed(tmp_path: Path) -> None:
    """Drawing from predictions imports neither torch nor torchvision."""
    write_picture(tmp_path / "pictures" / "a.png")
    write_predictions(tmp_path / "p.json", ["a.png"])
    arguments = ["overlay", "folder", "pictures", "--predictions", "p.json", "--output", "out"]
    code = (
        "import sys; from segcli.cli.main import main; "
        f"code = main({arguments!r}); "
        "print(code, [m for m in ('torch', 'torchvision', 'pycocotools') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "0 []"


def test_real_photos(shared: Callable[[str], Path], job: PicturesJob) -> None:
    """Real photos are drawn from their own annotations, which have no scores: each of them, none fails."""
    result = overlay_folder(
        shared("data/coco80/images"),
        PicturesJob(shared("data/coco80/instances.json"), job.output, job.command),
    )
    assert (result.drawn, result.failed) == (80, 0)
