"""What DATASET on the command line stands for: an annotation file, or a folder in which one is found."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from segcli.annotations import Dataset
from segcli.console import say, warn
from segcli.data.coco import KEYS, read_coco
from segcli.errors import UsageError

# the first pattern under which COCO files are found decides; several under one pattern are ambiguous
_PATTERNS = (
    "_annotations.coco.json",  # Roboflow
    "instances.json",
    "trainval.json",
    "*.json",
    "annotations/*.json",
    "*/_annotations.coco.json",
    "*/*.json",
)
_MOST_FILES = 500  # a folder of LabelMe files has one for every picture


def open_dataset(
    dataset: Path,
    images: Path | None = None,
    *,
    need_pictures: bool = True,
    crowd_as_instance: bool = False,
) -> Dataset:
    """Read what the user named, and say what of it is wrong; see `annotation_file` and `segcli.data.coco.read_coco`.

    Raises:
        UsageError: there is no dataset at `dataset`, several, or `images` is no folder.
        DataError: nothing in it is usable.
    """
    read = read_coco(
        annotation_file(dataset),
        images,
        need_pictures=need_pictures,
        crowd_as_instance=crowd_as_instance,
    )
    say_problems(read)
    return read


def say_problems(dataset: Dataset) -> None:
    """One line for what was left out, and one for what was repaired."""
    for left_out in (True, False):
        kinds = Counter(p.kind for p in dataset.problems if p.left_out == left_out)
        if not kinds:
            continue
        counts = [f"{count} × {kind}" for kind, count in kinds.most_common()]
        line = f"{dataset.source}: {'left out' if left_out else 'repaired or noted'}: {_listed(counts)}"
        (warn if left_out else say)(f"{line}; `segcli data check` lists them")


def annotation_file(dataset: Path) -> Path:
    """The annotation file that DATASET stands for; a file found in a folder is said.

    Raises:
        UsageError: there is none, or several.
    """
    dataset = Path(dataset)
    if dataset.is_file():
        return dataset
    if not dataset.is_dir():
        raise UsageError(
            f"{dataset}: no such file or folder; give a COCO annotation file or a folder that holds one"
        )
    others: list[Path] = []
    for pattern in _PATTERNS:
        files = sorted(islice(dataset.glob(pattern), _MOST_FILES))
        found = [path for path in files if looks_like_coco(path)]
        if len(found) > 1:
            names = _listed(path.relative_to(dataset) for path in found)
            raise UsageError(
                f"{dataset}: holds {len(found)} annotation files ({names}); name the one that is meant"
            )
        if found:
            say(f"{dataset}: a COCO dataset, annotations are taken from {found[0]}")
            return found[0]
        others += [path for path in files if path not in others]
    raise UsageError(f"{dataset}: {_nothing_found(dataset, others)}")


def _nothing_found(dataset: Path, others: list[Path]) -> str:
    looked = "looked for *.json, annotations/*.json and */*.json"
    if others:
        names = _listed(path.relative_to(dataset) for path in others)
        looked += f"; {names} {'are' if len(others) > 1 else 'is'} no COCO dataset"
    return f"no COCO annotation file in this folder ({looked}); name the annotation file"


def _listed(things: Iterable[object], limit: int = 6) -> str:
    names = [str(thing) for thing in things]
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def looks_like_coco(path: Path) -> bool:
    """Whether a file mentions all three keys of a COCO dataset, without parsing it."""
    try:
        with (
            path.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text,
        ):
            return all(text.find(f'"{key}"'.encode()) >= 0 for key in KEYS)
    except (OSError, ValueError):  # unreadable, a folder, or empty
        return False
