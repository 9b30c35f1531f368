"""`last.ckpt`: all that is needed to go on at the end of an epoch."""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from segcli.errors import ModelError
from segcli.files import write_bytes
from segcli.models import MaskRCNN
from segcli.training.loop import Progress
from segcli.zoo import LoadedModel

SCHEMA = 1


def save_last(
    path: Path, model: LoadedModel, network: MaskRCNN, optimizer: Any, progress: Progress
) -> None:
    """Write weights, optimiser and progress, atomically."""
    record = {
        "spec": model.spec.to_dict(),
        "categories": model.categories.to_coco(),
        "progress": asdict(progress),
        "info": model.info,
        "source": model.source,
    }
    buffer = io.BytesIO()
    torch.save(
        {
            "schema": SCHEMA,
            "record": json.dumps(record),
            "model": network.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
        buffer,
    )
    write_bytes(path, buffer.getvalue())


def load_last(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what `save_last` wrote.

    Returns:
        the JSON record, and the dict with `model` and `optimizer`.

    Raises:
        ModelError: damaged, or of another version.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["schema"] != SCHEMA:
            raise ModelError(f"{path}: schema {content['schema']}, this version reads {SCHEMA}")
        return json.loads(content["record"]), content
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        OSError,
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{path}: damaged checkpoint ({reason}); start anew with --overwrite"
        ) from error
