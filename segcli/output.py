"""OUT and RUN folders: whose they are, what in them is ours, and what may be deleted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from segcli import config
from segcli.errors import OutputError, UsageError

DRAWINGS = ("overlays", "masks")
# what says the same as the shards, in another form; removed as soon as the shards say more
EXPORTS = ("predictions.json", "instances.csv", "counts.csv")
# what segcli writes at the top of OUT and RUN folders. config.toml is not deleted but replaced: until then it says
# that the folder is ours; plan.jsonl goes last, since rows are only understood with it
_MADE = (
    *EXPORTS,
    "failed.jsonl",
    "best.safetensors",
    "last.ckpt",
    "previous.ckpt",
    "metrics.jsonl",
    "metrics.json",
    "report.html",
    "plan.jsonl",
)
_SHARD = re.compile(r"[0-9]{5,}\.jsonl")


def owner(folder: Path) -> str | None:
    """The command that made this folder, from its `config.toml`; None if that is not ours."""
    path = folder / config.FILE_NAME
    if not path.is_file():
        return None
    try:
        head = config.load(path)
    except UsageError:  # somebody else's config.toml need not be readable to us
        return None
    return str(head["command"]) if "segcli" in head and "command" in head else None


def claim_output(folder: Path, *, overwrite: bool, command: str | None = None) -> None:
    """Make a folder ready for new results: it has to be absent, empty, or ours and to be overwritten.

    With `overwrite` what segcli made in it is deleted, other files stay; `config.toml` stays until it is replaced.

    Args:
        folder: where results will go; not created.
        overwrite: whether results of ours may be deleted.
        command: delete only what this command made (its first word counts); None = any of ours.

    Raises:
        OutputError: the folder holds something else, or results and `overwrite` is not given.
    """
    check_output(folder, overwrite=overwrite, command=command)
    if folder.is_dir() and owner(folder):
        for path in list(_made_in(folder)):
            path.unlink(missing_ok=True)


def check_output(folder: Path, *, overwrite: bool, command: str | None = None) -> None:
    """The refusals of `claim_output`, without touching anything."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder}: is a file, expected a folder; choose another --output")
    if _is_free(folder):
        return
    made_by = owner(folder)
    if made_by is None:
        raise OutputError(
            f"{folder}: is not empty, and no {config.FILE_NAME} of segcli's is in it; choose another --output"
        )
    if command is not None and made_by.split()[:1] != command.split()[:1]:
        raise OutputError(
            f"{folder}: holds what `segcli {made_by}` made, not `segcli {command}`; choose another --output"
        )
    if not overwrite:
        raise OutputError(
            f"{folder}: holds what `segcli {made_by}` made; choose another --output or give --overwrite"
        )


def refuse_overlap(inputs: Path, out: Path) -> None:
    """Refuse an output that is the input, or that the input lies in: it might be written over.

    Raises:
        UsageError: so it is.
    """
    root, target = inputs.resolve(), out.resolve()
    if root == target or (out.exists() and inputs.exists() and out.samefile(inputs)):
        raise UsageError(f"{out}: is the input itself; choose another --output")
    if root.is_relative_to(target):
        raise UsageError(f"{inputs}: lies inside --output {out}; choose another --output")


def sweep(out: Path) -> None:
    """Remove half-written files that a killed process left behind; only while OUT is locked.

    In somebody else's folder, which is refused, nothing is touched.
    """
    if not out.is_dir() or not (_is_free(out) or owner(out)):
        return
    places = [out, out / "shards"]
    for folder in places:
        _remove(path for path in folder.glob(".*.tmp") if _is_scratch(path))
    for kind in DRAWINGS:
        _remove((out / kind).rglob(".*.tmp"))


def _remove(paths: Iterator[Path]) -> None:
    for path in list(paths):
        path.unlink(missing_ok=True)


def place(folder: Path, name: str) -> Path:
    """The file of that relative name in `folder`.

    Raises:
        OutputError: the name leads out of the folder.
    """
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or Path(*parts).is_absolute():
        raise OutputError(f"{name}: leads out of {folder}; is plan.jsonl damaged?")
    return folder.joinpath(*parts)


def drawn_log(out: Path, kind: str) -> Path:
    """The file that lists what was drawn into `out/kind`."""
    return out / f".drawn-{kind}.jsonl"


def drawn_names(out: Path, kind: str) -> Iterator[str]:
    """Relative names of the files that were drawn into `out/kind`."""
    path = drawn_log(out, kind)
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise OutputError(f"{path}: damaged ({error}); delete it by hand") from error
        if "name" in row:
            yield row["name"]


def _made_in(folder: Path) -> Iterator[Path]:
    """What segcli made in a folder, in the order in which it may go: shards first, the plan last."""
    yield from (p for p in (folder / "shards").glob("*.jsonl") if _SHARD.fullmatch(p.name))
    for kind in DRAWINGS:
        yield from (place(folder / kind, name) for name in drawn_names(folder, kind))
        yield drawn_log(folder, kind)
    yield from (folder / name for name in _MADE)


def _is_free(folder: Path) -> bool:
    """Whether nothing is in it, or only what a start leaves that was killed before it wrote anything."""
    return all(_is_scratch(path) for path in folder.iterdir())


def _is_scratch(path: Path) -> bool:
    """The lock, or what `segcli.files.atomic_writer` leaves when it is killed."""
    return path.name == ".lock" or (path.name.startswith(".") and path.name.endswith(".tmp"))
