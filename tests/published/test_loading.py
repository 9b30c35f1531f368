"""A published name by itself is a model: downloaded, read by its family's reader, with the row's conventions."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segcli.models import PRESETS
from segcli.published import PUBLISHED, find
from segcli.zoo import COCO_80, load_model

Native = dict[str, np.ndarray[Any, Any]]


def pickled(state: Native, path: Path) -> None:
    """As detectron2's zoo has it."""
    table = {"model": state, "__author__": "Detectron2 Model Zoo"}
    path.write_bytes(pickle.dumps(table, protocol=4))


def saved(state: Native, path: Path) -> None:
    """As mmdetection's zoo has it, without a config."""
    tensors = {name: torch.from_numpy(value) for name, value in state.items()}
    torch.save({"meta": {"mmdet_version": "2.25.0"}, "state_dict": tensors}, path)


@pytest.mark.parametrize(
    ("name", "fixture", "write"),
    [
        ("detectron2/mask-rcnn-r50-fpn-3x", "d2_mask_rcnn_R_50_FPN_3x", pickled),
        ("mmdetection/mask-rcnn-r50-caffe-fpn-ms-poly-3x", "mm_mask_rcnn_r50_caffe_fpn", saved),
    ],
)
def test_a_name_needs_no_conventions(
    name: str, fixture: str, write: Callable[[Native, Path], None], file_server: Any,
    shared: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Tensors of the real file's names and shapes; stride, mean and std, which they do not show, are the row's."""
    record = json.loads((shared(f"fixtures/{fixture}") / "state_dict.json").read_text())
    state = {
        key: np.zeros(t["shape"], np.dtype(t["dtype"])) for key, t in record["tensors"].items()
    }
    row = find(name)
    path = file_server.folder / str(row.file_name)
    write(state, path)
    digest = hashlib.new(row.hash_kind or "", path.read_bytes()).hexdigest()
    address = f"{file_server.address}/{row.file_name}"
    monkeypatch.setitem(PUBLISHED, name, replace(row, address=address, hash_prefix=digest[:6]))

    model = load_model(name)

    assert model.source == name
    assert model.spec.architecture == row.architecture
    assert model.spec.conventions == PRESETS[str(row.conventions)]
    assert model.categories == COCO_80
    assert model.info["licence"] == row.licence
    assert file_server.asked == [f"/{row.file_name}"]
