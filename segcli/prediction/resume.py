"""Resuming: what a job's `config.toml` promises, and which batches are still to run."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from segcli import config as configuration
from segcli.config import PredictConfig, to_settings
from segcli.console import say
from segcli.errors import DataError, OutputError, UsageError
from segcli.files import sha256, write_bytes
from segcli.prediction.ahead import map_ahead
from segcli.prediction.pipeline import Source
from segcli.prediction.plan import Plan, Planned
from segcli.prediction.reasons import reason
from segcli.prediction.shards import Index
from segcli.prediction.walk import escape_name

_SHOWN = 60  # characters of a value in a message
_ABSENT = "not set"

Saved = dict[str, Any]


def settings_of(config: PredictConfig) -> dict[str, Any]:
    """Settings as TOML can hold them: a path that is no UTF-8 is escaped as keys are."""
    settings = to_settings(config)
    return {k: escape_name(v) if isinstance(v, str) else v for k, v in settings.items()}


def save_config(out: Path, command: str, config: PredictConfig, resolved: dict[str, Any]) -> None:
    """Write `config.toml`: from now on the folder is ours, and its settings are fixed."""
    text = configuration.dump(command, settings_of(config), resolved)
    write_bytes(out / configuration.FILE_NAME, text.encode())


def load_saved(out: Path, command: str) -> Saved | None:
    """The `config.toml` of an earlier start of the same command; None where there is none.

    Raises:
        OutputError: another command made the folder.
    """
    path = out / configuration.FILE_NAME
    if not path.is_file():
        return None
    saved = configuration.load(path)
    if "segcli" not in saved:
        raise OutputError(f"{path}: not written by segcli; choose another --output")
    if saved.get("command") != command:
        raise OutputError(
            f"{out}: holds what `segcli {saved.get('command')}` made, not `segcli {command}`; "
            "choose another --output or give --overwrite"
        )
    if not isinstance(saved.get("settings"), dict) or not isinstance(saved.get("resolved"), dict):
        raise DataError(f"{path}: has no settings; start anew with --overwrite")
    return saved


def needs_model(saved: Saved, config: PredictConfig) -> bool:
    """Whether settings differ from the saved ones so that only the model can tell if that matters."""
    if saved["settings"] != settings_of(config):
        return True
    weights = Path(config.model)
    if weights.is_dir():
        weights = weights / "best.safetensors"
    return weights.is_file() and sha256(weights) != saved["resolved"].get("model_sha256")


# how to give what no flag sets
_HOW = {"threads": "OMP_NUM_THREADS=N sets threads", "torch": "pip install torch==VERSION"}


def refuse_differences(out: Path, saved: Saved, resolved: dict[str, Any]) -> None:
    """Stop where predictions would come out otherwise than those that are there.

    Raises:
        UsageError: naming each difference.
    """
    text = configuration.dump("", {}, resolved)  # there and back, so that both went through TOML
    was, now = dict(_flat(saved["resolved"])), dict(_flat(tomllib.loads(text)["resolved"]))
    differences = [
        f"{name}: was {_short(was.get(name, _ABSENT))}, now {_short(now.get(name, _ABSENT))}"
        for name in sorted({*was, *now})
        if was.get(name, _ABSENT) != now.get(name, _ABSENT)
    ]
    if differences:
        hints = [
            f" ({h})"
            for name, h in _HOW.items()
            if any(d.startswith(f"{name}:") for d in differences)
        ]
        raise UsageError(
            f"{out}: was begun with other settings ({'; '.join(differences)}); give the same ones{''.join(hints)}, "
            "another --output, or --overwrite to begin anew"
        )


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def limited(batches: list[list[Planned]], limit: int | None) -> list[list[Planned]]:
    """The first batches, until they hold `limit` pictures."""
    if limit is None:
        return batches
    before = accumulate((len(batch) for batch in batches), initial=0)
    return [batch for batch, start in zip(batches, before, strict=False) if start < limit]


def left_to_run(
    batches: list[list[Planned]],
    index: Index,
    *,
    path: Callable[[str], Path],
    read: Callable[[Source], object] | None,
) -> list[list[Planned]]:
    """Batches that have no result yet, and those in which a failed picture now fares otherwise.

    A picture that failed is decoded again. Only where that works now, or fails for another reason, its whole batch is
    run again: its batch mates were padded without it.

    Args:
        batches: of the plan.
        index: what is done.
        path: where a picture is, by key.
        read: decodes a picture; None = leave failed ones alone.
    """
    failed = [
        (row.key, index[row.key].error) for batch in batches for row in batch if _bad(row, index)
    ]
    changed: set[str] = set()
    if failed and read is not None:
        say(f"trying {len(failed)} failed pictures again")

        def attempt(item: tuple[str, str | None]) -> tuple[str, bool]:
            return item[0], _error(Source(item[0], path(item[0])), read) != item[1]

        changed = {key for key, differs in map_ahead(attempt, failed, ahead=4) if differs}
    return [b for b in batches if any(row.key not in index or row.key in changed for row in b)]


def _bad(row: Planned, index: Index) -> bool:
    return row.key in index and index[row.key].error is not None


def _error(source: Source, read: Callable[[Source], object]) -> str | None:
    try:
        read(source)
    except Exception as error:
        return reason(error, source.path)
    return None


def refuse_lost_plan(out: Path, plan: Plan, shards: list[int]) -> None:
    """Rows mean nothing without the plan that they were made by.

    Raises:
        DataError: there are shards but no plan.
    """
    if shards and not plan.sections:
        raise DataError(
            f"{out}: has shards but no plan.jsonl; begin anew with --overwrite or another --output"
        )
