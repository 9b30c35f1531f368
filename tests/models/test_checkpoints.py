"""Our own checkpoint files: there and back, damaged ones, and those that are not ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from segcli.models import Anchors, Conventions, ModelSpec
from segcli.models.checkpoints import own

SPEC = ModelSpec("mask-rcnn-nano", 2, Anchors(), Conventions())
INFO = {"categories": [{"id": 1, "name": "nut"}, {"id": 2, "name": "Schraube ß"}]}


def test_own_checkpoints_come_back_as_they_were(tmp_path: Path) -> None:
    """Tensors bit for bit, spec and information equal; the same content gives the same bytes."""
    state = {"b": torch.randn(3, 4).t(), "a": torch.arange(5), "c": torch.tensor(2.5)}
    data = own.encode(SPEC, INFO, state)
    assert data == own.encode(SPEC, dict(INFO), dict(reversed(state.items())))
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    loaded = own.read(path)
    assert (loaded.spec, loaded.info) == (SPEC, INFO)
    assert all(torch.equal(loaded.state[name], value) for name, value in state.items())
    assert own.read_header(path) == (SPEC, INFO)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "no readable safetensors", id="empty"),
        pytest.param(b"\x00" * 200, "no readable safetensors", id="zeros"),
        pytest.param(b"not at all a checkpoint", "no readable safetensors", id="text"),
    ],
)
def test_files_that_are_no_safetensors(content: bytes, message: str, tmp_path: Path) -> None:
    """Refused in one line."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        own.read(path)


def test_truncated_own_checkpoint(tmp_path: Path) -> None:
    """A file that was cut off is refused, whether in its header or in its data."""
    data = own.encode(SPEC, INFO, {"a": torch.zeros(1000)})
    for length in (4, 60, len(data) - 10):
        path = tmp_path / f"{length}.safetensors"
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="no readable safetensors"):
            own.read(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        pytest.param(None, "without segcli's record", id="somebody else's"),
        pytest.param({"segcli": "{"}, "damaged segcli record", id="broken json"),
        pytest.param({"segcli": "{}"}, "damaged segcli record", id="empty json"),
    ],
)
def test_safetensors_that_are_not_ours(
    metadata: dict[str, str] | None, message: str, tmp_path: Path
) -> None:
    """Without our record nothing says what the tensors are."""
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata=metadata)
    with pytest.raises(ValueError, match=message):
        own.read(path)
