"""Picture files of a dataset: in which folder they lie, where each one is, and whether its size fits."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from segcli.console import progress, say
from segcli.data.entries import PictureEntry
from segcli.data.findings import Fault
from segcli.errors import ImageError, UsageError
from segcli.images import MAX_PIXELS, SUFFIXES, image_info

_PROBED = 16  # pictures that decide which folder is meant
_THREADS = 8
_PREFIXES = ("instances_", "person_keypoints_")  # COCO names its files instances_train2017.json
_ANCHOR = re.compile(r"^([A-Za-z]:(?=/)|[A-Za-z][A-Za-z0-9+.-]+://[^/]*)?/*")


@dataclass(frozen=True)
class PictureFile:
    """The file of one entry.

    Attributes:
        path: where it is; None where no file was looked for.
        size: (H, W) in pixels of the frame that the annotations use.
        raw_pixels: that frame is the unrotated one.
    """

    path: Path | None
    size: tuple[int, int]
    raw_pixels: bool = False


def clean_name(file_name: str) -> tuple[str, bool]:
    """A `file_name` as a relative path that cannot leave a folder.

    Returns:
        The name with forward slashes and without drive, leading `/` and leading `../`, and whether it had any of
        the three, so that it points outside.
    """
    slashed = file_name.replace("\\", "/")
    rest = slashed[_ANCHOR.match(slashed).end() :]  # type: ignore[union-attr]  # matches the empty text too
    parts = [p for p in posixpath.normpath(rest).split("/") if p != "."]
    inside = [p for p in parts if p != ".."]  # normpath leaves `..` only in front
    return "/".join(inside), rest != slashed or len(inside) < len(parts)


@dataclass(frozen=True)
class Finder:
    """Finds picture files by the names that a dataset gives them, and never outside its folders.

    Attributes:
        folder: where pictures lie.
        beside: the annotation file's folder.
        recursive: also look for a base name anywhere under `folder`.
    """

    folder: Path
    beside: Path
    recursive: bool = False

    def find(self, file_name: str) -> Path | None:
        """The file's path: the whole name under both folders, then its tails, down to the base name."""
        name, _ = clean_name(file_name)
        if not name:
            return None
        for candidate in self._candidates(name):
            if is_file(candidate):
                return candidate
        return self._by_base_name.get(posixpath.basename(name)) if self.recursive else None

    def _candidates(self, name: str) -> Iterator[Path]:
        yield self.folder / name
        yield self.beside / name
        while "/" in name:
            name = name.split("/", 1)[1]
            yield self.folder / name

    @cached_property
    def _by_base_name(self) -> dict[str, Path | None]:
        """Every file under `folder` by base name; None for names that occur twice, which decide nothing."""
        table: dict[str, Path | None] = {}
        for root, _, names in os.walk(self.folder):
            for name in names:
                table[name] = None if name in table else Path(root, name)
        return table


def is_file(path: Path) -> bool:
    """Whether `path` is a file; False also for names that no file system takes."""
    try:
        return path.is_file()
    except OSError:
        return False


def choose_finder(source: Path, images: Path | None, names: Sequence[str]) -> Finder | None:
    """Decide in which folder pictures lie; a choice of ours is said.

    Args:
        source: the annotation file.
        images: the folder that the user gave, or None.
        names: `file_name` of the pictures.

    Returns:
        None where no folder that comes to mind holds any of the first pictures.

    Raises:
        UsageError: `images` is no folder.
    """
    if images is not None:
        if not images.is_dir():
            raise UsageError(
                f"--images {images}: no such folder; give the folder with the pictures"
            )
        return Finder(images, source.parent, recursive=True)
    probed = names[:_PROBED]
    best, most = None, 0
    for folder in likely_folders(source):
        finder = Finder(folder, folder)
        hits = sum(finder.find(name) is not None for name in probed)
        if hits > most:
            best, most = Finder(folder, source.parent), hits
        if most == len(probed):
            break
    if best is not None:
        say(f"{source.name}: pictures are taken from {best.folder}")
    return best


def likely_folders(source: Path) -> list[Path]:
    """Existing folders in which the pictures of an annotation file usually lie, likeliest first."""
    beside, above = source.parent, source.absolute().parent.parent
    stems = [source.stem]
    stems += [source.stem.removeprefix(p) for p in _PREFIXES if source.stem.startswith(p)]
    places = ["", "images", *stems, *(f"images/{stem}" for stem in stems)]
    folders = [beside / p for p in places] + [above / p for p in (*places[1:], "")]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


Checked = PictureFile | Fault


def check_pictures(
    entries: Sequence[PictureEntry], finder: Finder | None
) -> Iterator[tuple[PictureEntry, Checked]]:
    """Find every entry's file and read its header, in threads; results in the order of the entries."""
    if finder is None:
        for entry in entries:
            yield entry, _absent(entry, "in no folder near the annotation file")
        return
    with (
        ThreadPoolExecutor(_THREADS) as pool,
        progress(len(entries), "checking pictures", "picture") as bar,
    ):
        results = pool.map(lambda entry: check_picture(entry, finder), entries)
        for entry, result in zip(entries, results, strict=True):
            bar.update()
            yield entry, result


def check_picture(entry: PictureEntry, finder: Finder) -> Checked:
    """Find one entry's file and compare its header with what is annotated."""
    path = finder.find(entry.file_name)
    if path is None:
        return _absent(entry, f"not under {finder.folder}")
    if path.suffix.lower() not in SUFFIXES:
        remedy = f"pictures are {' '.join(sorted(s[1:] for s in SUFFIXES))}"
        return Fault("not a picture file", f"suffix {path.suffix!r}", remedy)
    try:
        info = image_info(path)
    except ImageError as error:
        return Fault("unreadable picture", str(error), "replace the file")
    if info.size[0] * info.size[1] > MAX_PIXELS:
        remedy = "make the picture smaller, and its annotations with it"
        return Fault("picture too large", f"over {MAX_PIXELS // 10**6} megapixels", remedy)
    if entry.size is None or entry.size == info.size:
        return PictureFile(path, info.size)
    if entry.size == info.raw_size:
        return PictureFile(path, info.raw_size, raw_pixels=True)
    return _other_size(entry.size, info.size)


def _absent(entry: PictureEntry, found: str) -> Fault:
    if clean_name(entry.file_name)[1]:
        remedy = "file names are relative to the pictures' folder: copy the picture there or give --images DIR"
        return Fault("picture outside the dataset's folders", found, remedy)
    return Fault("picture file not found", found, "give the pictures' folder with --images DIR")


def _other_size(annotated: tuple[int, int], found: tuple[int, int]) -> Fault:
    (H, W), (h, w) = annotated, found
    remedy = (
        "width and height are swapped in the annotation file"
        if annotated == found[::-1]
        else "use the picture that was annotated, or export the annotations anew"
    )
    return Fault("picture of another size", f"annotated {W} × {H}, the file is {w} × {h}", remedy)
