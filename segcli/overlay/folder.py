"""The jobs `overlay folder` and `overlay image`: pictures drawn from predictions, without a model."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from segcli import config
from segcli.categories import Categories
from segcli.config import DrawConfig, PredictConfig
from segcli.console import progress, say
from segcli.errors import DataError
from segcli.files import atomic_writer, folder_lock, write_bytes
from segcli.output import check_output, claim_output, place, refuse_overlap
from segcli.overlay.render import draw_instances
from segcli.overlay.writing import encode_like
from segcli.prediction.ahead import map_ahead
from segcli.prediction.drawings import output_names
from segcli.prediction.pictures import PictureReader
from segcli.prediction.pipeline import Source
from segcli.prediction.reader import PredictionsFile, read_predictions
from segcli.prediction.reasons import reason
from segcli.prediction.rows import PredictedPicture
from segcli.prediction.shards import encode
from segcli.prediction.walk import Inputs, find_pictures, name_pictures

FAILED = "failed.jsonl"
_LOG = ".drawn.jsonl"  # what --overwrite may delete
_AHEAD = 4


@dataclass(frozen=True)
class PicturesJob:
    """What to draw where.

    Attributes:
        predictions: COCO file or OUT folder.
        output: folder that is written to.
        command: `overlay folder` or `overlay image`.
        style: how objects look.
        overwrite: replace what an earlier `segcli overlay` made in the folder.
        allow_truncated: draw on what can be read of a damaged picture.
        max_pixels: larger pictures are refused.
    """

    predictions: Path
    output: Path
    command: str
    style: DrawConfig = field(default_factory=DrawConfig)
    overwrite: bool = False
    allow_truncated: bool = False
    max_pixels: int = PredictConfig.max_pixels


@dataclass(frozen=True)
class PicturesResult:
    """What was done.

    Attributes:
        drawn: pictures written.
        failed: pictures that could not be drawn; each has a row in `failed.jsonl`.
    """

    drawn: int
    failed: int


@dataclass(frozen=True, eq=False)
class _Task:
    source: Source
    picture: PredictedPicture
    name: str


def overlay_folder(folder: Path, job: PicturesJob) -> PicturesResult:
    """Draw on the pictures of a folder that the predictions name; the others are counted.

    Raises:
        SegcliError: the predictions cannot be used, fit no picture, or the output is refused.
    """
    refuse_overlap(folder, job.output)
    check_output(job.output, overwrite=job.overwrite, command=job.command)
    inputs = find_pictures(folder, skip=job.output)
    file, categories = _read(job.predictions)
    keys = [found.key for found in inputs.pictures]
    matched = _match(file, keys, folder)
    if left := len(keys) - len(matched):
        say(f"{folder}: {left} pictures have no predictions and are left out")
    if absent := len(file.pictures) - len(matched):
        say(f"{job.predictions}: {absent} pictures are not in {folder}")
    failed = [(key, f"cannot be listed ({error})") for key, error in inputs.unreadable]
    return _run(job, _tasks(inputs, matched), categories, failed)


def overlay_images(files: Sequence[Path], job: PicturesJob) -> PicturesResult:
    """Draw on single pictures; one without predictions counts as failed, since it was asked for.

    Raises:
        SegcliError: the predictions cannot be used, or the output is refused.
    """
    inputs = name_pictures(files)
    refuse_overlap(inputs.root, job.output)
    check_output(job.output, overwrite=job.overwrite, command=job.command)
    file, categories = _read(job.predictions)
    names = {_normal(p.file_name or ""): p for p in file.pictures}
    matched: dict[str, PredictedPicture] = {}
    failed: list[tuple[str, str]] = []
    for found in inputs.pictures:
        path = inputs.path(found.key)
        picture = _by_tail(names, path)
        if not path.exists():
            failed.append((found.key, "no such file"))
        elif picture is None:
            failed.append((found.key, f"no predictions for it in {job.predictions}"))
        else:
            matched[found.key] = picture
    return _run(job, _tasks(inputs, matched), categories, failed)


def _read(path: Path) -> tuple[PredictionsFile, Categories]:
    file = read_predictions(path)
    if file.categories is None:
        raise DataError(
            f"{path}: a bare results list names no pictures and classes; give a COCO file with `images` and "
            "`categories`, or an OUT folder of `segcli predict`"
        )
    return file, file.categories


def _match(file: PredictionsFile, keys: Sequence[str], folder: Path) -> dict[str, PredictedPicture]:
    """Predictions by the key of their picture, in the order of the keys.

    Where no name fits as it stands, but all do after one constant leading folder is removed, that is done.
    """
    known = set(keys)
    names = _unique(file)
    while names and not known & names.keys():
        heads = {name.partition("/")[0] for name in names}
        shorter = {name.partition("/")[2]: picture for name, picture in names.items()}
        if len(heads) > 1 or "" in shorter:
            shown = next(iter(names))
            raise DataError(
                f"{file.source}: none of its pictures is in {folder} (it names {shown}); "
                "give the folder that the predictions were made from"
            )
        names = shorter
        if names.keys() <= known:
            say(f"{file.source}: leading folder {heads.pop()} of its file names removed")
    return {key: names[key] for key in keys if key in names}


def _unique(file: PredictionsFile) -> dict[str, PredictedPicture]:
    names: dict[str, PredictedPicture] = {}
    for picture in file.pictures:
        name = _normal(picture.file_name or "")
        if name in names:
            raise DataError(
                f"{file.source}: two pictures are called {name!r}; which is meant is unclear"
            )
        names[name] = picture
    return names


def _normal(file_name: str) -> str:
    # a backslash is an escape where our own keys hold one (`\xe9`), else a separator of Windows
    slashed = file_name if "\\x" in file_name else file_name.replace("\\", "/")
    return posixpath.normpath(slashed)


def _by_tail(names: dict[str, PredictedPicture], path: Path) -> PredictedPicture | None:
    """The predictions whose name is the longest tail of a picture's path."""
    parts = path.parts
    tails = ("/".join(parts[start:]) for start in range(1, len(parts)))
    return next((names[tail] for tail in tails if tail in names), None)


def _tasks(inputs: Inputs, matched: dict[str, PredictedPicture]) -> list[_Task]:
    names = output_names("overlays", [found.key for found in inputs.pictures])
    return [
        _Task(Source(key, inputs.path(key)), picture, names[key])
        for key, picture in matched.items()
    ]


def _run(
    job: PicturesJob,
    tasks: Sequence[_Task],
    categories: Categories,
    failed: list[tuple[str, str]],
) -> PicturesResult:
    """Claim the output, draw in threads, write in this one."""
    job.output.mkdir(parents=True, exist_ok=True)
    with folder_lock(job.output):
        _claim(job)
        drawn = 0
        with (
            (job.output / _LOG).open("ab") as log,
            progress(len(tasks), job.command, "picture") as bar,
        ):
            for task, result in _draw_all(job, tasks, categories):
                if isinstance(result, str):
                    failed.append((task.source.key, result))
                else:
                    # listed before it is written: whatever is there can be deleted again
                    log.write(encode({"name": task.name}))
                    log.flush()
                    write_bytes(place(job.output, task.name), result, fsync=False)
                    drawn += 1
                bar.update()
        with atomic_writer(job.output / FAILED) as stream:
            stream.writelines(encode({"file": key, "error": error}) for key, error in failed)
    return PicturesResult(drawn, len(failed))


def _draw_all(
    job: PicturesJob, tasks: Sequence[_Task], categories: Categories
) -> Iterator[tuple[_Task, bytes | str]]:
    """Each task with its file's bytes, or with the reason why there are none."""
    settings = PredictConfig(allow_truncated=job.allow_truncated, max_pixels=job.max_pixels)
    read = PictureReader(settings)

    def one(task: _Task) -> tuple[_Task, bytes | str]:
        try:
            image = read(task.source)
            objects = task.picture.instances((image.shape[0], image.shape[1]))
            overlay = draw_instances(image, objects, categories, job.style)
            return task, encode_like(overlay, task.source.path, PurePosixPath(task.name).suffix)
        except Exception as error:  # whatever is wrong with one picture never stops the rest
            return task, reason(error, task.source.path)

    yield from map_ahead(one, tasks, ahead=_AHEAD)


def _claim(job: PicturesJob) -> None:
    """Make the folder ours, without what an earlier run drew into it."""
    log = job.output / _LOG
    claim_output(job.output, overwrite=job.overwrite, command=job.command)
    for line in log.read_bytes().split(b"\n")[:-1] if log.exists() else ():
        place(job.output, json.loads(line)["name"]).unlink(missing_ok=True)
    log.unlink(missing_ok=True)
    text = config.dump(job.command, asdict(job.style), {"predictions": str(job.predictions)})
    write_bytes(job.output / config.FILE_NAME, text.encode())
