"""Weights with what their users must know written beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segcli.categories import Categories
from segcli.errors import UsageError
from segcli.weights.loaded import LoadedModel


def converted(
    model: LoadedModel, *, classes: Sequence[str] = (), licence: str | None, source: str | None
) -> LoadedModel:
    """The same weights, with classes, licence and source as the user states them.

    Args:
        model: of any family.
        classes: names in the order of the heads; empty = those that are known.
        licence: None = the one that is known, if any.
        source: likewise.

    Raises:
        UsageError: another number of class names than the heads have.
    """
    categories = model.categories
    if classes:
        if len(classes) != model.spec.classes or len(set(classes)) != len(classes):
            raise UsageError(
                f"--classes: {len(set(classes))} different names, expected {model.spec.classes}, one per class"
            )
        categories = Categories.from_names(classes)
    stated = {"licence": licence, "source": source}
    of_the_file = ("layout", "container")
    info = {
        **{key: value for key, value in model.info.items() if key not in of_the_file},
        **{key: value for key, value in stated.items() if value is not None},
        "converted from": {
            "file": Path(model.source).name,
            "sha256": model.sha256,
            **{key: model.info[key] for key in of_the_file if key in model.info},
        },
    }
    if classes:
        info["classes"] = "given by --classes"
    return replace(model, categories=categories, info=info)
