"""Which conventions a file's weights need: found in the file, beside it, by its hash, or asked for; never guessed."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segcli.errors import ModelError, UsageError
from segcli.models.checkpoints.families import Weights
from segcli.models.checkpoints.pickle_values import Instance
from segcli.models.presets import PRESETS, from_table, name_of, preset
from segcli.published import PUBLISHED, PublishedWeights
from segcli.weights import detectron2_config, mmdetection_config
from segcli.weights.findings import Finding
from segcli.weights.python_config import read_config

_COCO_SLOTS = 90  # torchvision's COCO head without background
_CHOICES = {
    "torchvision": "--conventions torchvision-v1 (batch-norm eps 0: fine-tuned from the COCO weights), or a FILE with "
    'base = "torchvision-v1" and [numerics] bn_eps = 1e-5 (trained from ImageNet weights)',
    "detectron2": "--conventions detectron2-r50 (R-50 and R-101 from MSRA's weights), detectron2-x101, the config.yaml "
    "of the training, or put that beside the weights",
    "mmdetection": "--conventions mmdetection-pytorch, mmdetection-caffe, mmdetection-x101-32x8d, or the config (.py) "
    "of the training",
}
_FILES = "a detectron2 config (.yaml), an mmdetection config (.py), or conventions in TOML or JSON"


class UnknownConventionsError(ModelError):
    """Weights that can be read, and of which nothing tells by which numerics they run.

    Attributes:
        choices: what the user may give.
        facts: all that is known of the file.
    """

    def __init__(self, path: Path, weights: Weights) -> None:
        self.choices = _CHOICES[weights.family]
        self.facts: dict[str, Any] = {
            "family": weights.family,
            "layout": weights.layout,
            "architecture": weights.architecture,
            "classes": weights.classes,
        }
        super().__init__(
            f"{path}: {weights.family} weights ({weights.architecture}) do not show their numerics, and nothing "
            f"else tells them; give {self.choices}"
        )


@dataclass(frozen=True)
class Evidence:
    """What there is to judge by.

    Attributes:
        path: of the file.
        weights: in it.
        beside: what the file holds beside the weights.
        published: the row of the published table that it is; None if it is none of them.
    """

    path: Path
    weights: Weights
    beside: Mapping[str, Any]
    published: PublishedWeights | None


def find_conventions(evidence: Evidence) -> Finding:
    """Conventions of weights for which the user named none.

    Raises:
        UnknownConventionsError: nothing tells them; it says what to choose from.
        ModelError: a config is there and cannot be followed.
    """
    searches = {
        "torchvision": (_by_publisher, _by_torchvision),
        "detectron2": (_by_publisher, _by_yaml),
        "mmdetection": (_by_publisher, _by_meta),
    }
    for search in searches[evidence.weights.family]:
        try:
            found = search(evidence)
        except ValueError as error:
            raise ModelError(f"{evidence.path}: {error}") from error
        if found is not None:
            return found
    raise UnknownConventionsError(evidence.path, evidence.weights)


def asked_conventions(asked: str) -> Finding:
    """Conventions by `--conventions NAME|FILE`.

    A file is TOML or JSON (a whole record, or changes to a preset), a detectron2 config (.yaml) or an mmdetection
    config (.py).

    Raises:
        UsageError: no such name or file, or it does not hold conventions.
    """
    if asked in PRESETS:
        return Finding(preset(asked), f"--conventions {asked}")
    path = Path(asked)
    if not path.is_file():
        raise UsageError(
            f"--conventions {asked}: no such file, and no such name; names are: {', '.join(PRESETS)}"
        )
    try:
        return _from_file(path)
    except (ValueError, OSError) as error:
        raise UsageError(f"--conventions {asked}: {error}") from error


def _from_file(path: Path) -> Finding:
    origin, suffix = f"--conventions {path}", path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return detectron2_config.finding(detectron2_config.read_yaml(path), origin)
    try:
        text = path.read_text(encoding="utf-8")
        if suffix == ".py":
            return mmdetection_config.finding(read_config(text), origin)
        table = json.loads(text) if suffix == ".json" else tomllib.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"cannot be read as conventions ({error}); expected {_FILES}") from error
    if not isinstance(table, dict):
        raise ValueError("holds no table of conventions")
    return Finding(from_table(table), origin)


def published_row(path: Path, sha256: str) -> PublishedWeights | None:
    """The published weights that a file is, by its hash.

    detectron2 publishes six digits of the MD5 only, which are checked where the file's name still has them.
    """
    md5 = ""
    for row in PUBLISHED.values():
        prefix = row.hash_prefix
        if not prefix:
            continue
        if row.hash_kind == "sha256" and sha256.startswith(prefix):
            return row
        if row.hash_kind == "md5" and prefix in path.name:
            if not md5:
                with path.open("rb") as stream:
                    md5 = hashlib.file_digest(
                        stream, lambda: hashlib.md5(usedforsecurity=False)
                    ).hexdigest()
            if md5.startswith(prefix):
                return row
    return None


def _by_publisher(evidence: Evidence) -> Finding | None:
    row = evidence.published
    if row is None or row.conventions is None:
        return None
    return Finding(preset(row.conventions), f"{row.conventions}: published as {row.name}")


def _by_yaml(evidence: Evidence) -> Finding | None:
    for path in (evidence.path.with_suffix(".yaml"), evidence.path.with_name("config.yaml")):
        if path.is_file():
            return detectron2_config.finding(
                detectron2_config.read_yaml(path), f"{path.name} beside the weights"
            )
    return None


def _by_meta(evidence: Evidence) -> Finding | None:
    """2.x keeps the config's text as `config`, 3.x as `cfg`."""
    meta = evidence.beside.get("meta")
    places = [*(meta.get(key) for key in ("cfg", "config") if isinstance(meta, dict))]
    places += [evidence.beside.get(key) for key in ("cfg", "config")]
    text = next((text for text in places if isinstance(text, str) and text.strip()), None)
    if text is None:
        return None
    try:
        return mmdetection_config.finding(read_config(text), "the config inside the file")
    except ValueError as error:
        raise ValueError(
            f"the config inside the file does not tell its numerics ({error}); "
            f"give {_CHOICES['mmdetection']}"
        ) from error


def _by_torchvision(evidence: Evidence) -> Finding | None:
    """Plain batch norm has eps 1e-5 always; frozen has 0 in the zoo's weights and in all that comes from them."""
    if evidence.weights.plain_norm:
        return Finding(preset("torchvision-v2"), "torchvision-v2: its batch norms are not frozen")
    first, later = "torchvision-v1", "torchvision-v1 with batch-norm eps 1e-5"
    args = _arguments(evidence.beside)
    if args is not None:
        if args.get("pretrained") is True or _names_coco(args.get("weights")):
            return Finding(preset(first), f"{first}: its args say it started from the COCO weights")
        if "weights_backbone" in args or args.get("pretrained") is False:
            changes = {"numerics": {"bn_eps": 1e-5}}
            return Finding(preset(first).changed(changes), f"{later}: by its args, not from COCO")
    if evidence.weights.classes == _COCO_SLOTS:
        return Finding(
            preset(first),
            f"{first} (batch-norm eps 0), as its 91 rows are those of the zoo's weights",
        )
    return None


def _names_coco(weights: Any) -> bool:
    """`MaskRCNN_ResNet50_FPN_Weights.COCO_V1` and the like."""
    return isinstance(weights, str) and "COCO" in weights


def _arguments(beside: Mapping[str, Any]) -> dict[str, Any] | None:
    """`argparse.Namespace` of torchvision's references."""
    args = beside.get("args")
    if isinstance(args, Instance) and str(args.of) == "argparse.Namespace":
        args = args.state
    return args if isinstance(args, dict) else None


def describe(finding: Finding) -> str:
    """Name of the preset, if it is one, and where it comes from."""
    name = name_of(finding.conventions)
    return finding.origin if name is None or name in finding.origin else f"{name}: {finding.origin}"
