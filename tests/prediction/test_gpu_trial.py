"""The GPU's engine is tried before it is relied on; what the trial needs of it is imitated here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segcli.errors import UsageError
from segcli.prediction import gpu_trial
from segcli.prediction.gpu_trial import graphs_or_plain


class Engine:
    """Counts batches, and breaks at one of them."""

    def __init__(self, breaks_at: int | None) -> None:
        self.breaks_at = breaks_at
        self.batches = 0

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        assert image.dtype == np.uint8
        assert image.ndim == 3
        return image

    def predict(self, pictures: list[Any]) -> list[None]:
        self.batches += len(pictures)
        if self.batches == self.breaks_at:
            raise RuntimeError("operation not permitted when stream is capturing\nmore lines")
        return [None]


def _try(
    monkeypatch: pytest.MonkeyPatch, breaks_at: int | None, *, required: bool
) -> tuple[Any, Any, list[Engine]]:
    made: list[Engine] = []

    def graphed(_network: object, _plain: object) -> Engine:
        made.append(Engine(breaks_at))
        return made[-1]

    monkeypatch.setattr(gpu_trial, "graphed", graphed)
    plain: Any = SimpleNamespace(resolved={"compile": True})
    return graphs_or_plain(SimpleNamespace(), plain, required=required), plain, made  # type: ignore[arg-type]


@pytest.mark.parametrize("required", [False, True])
def test_what_works_is_used_and_made_anew(required: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After three batches, since the third is the first that replays a graph."""
    found, plain, made = _try(monkeypatch, None, required=required)
    assert [engine.batches for engine in made] == [3, 0]
    assert found is made[1]
    assert plain.resolved == {"compile": True}


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_what_breaks_is_said_and_the_plain_one_runs(
    batch: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And recorded, so that a resumed job runs it too."""
    found, plain, _ = _try(monkeypatch, batch, required=False)
    assert found is plain
    assert plain.resolved == {"compile": False}
    said = capsys.readouterr().err
    assert "RuntimeError: operation not permitted when stream is capturing)" in said
    assert "the plain detector runs" in said
    assert "more lines" not in said


def test_who_asks_for_graphs_gets_no_other_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a job that began with them: its results would change."""
    with pytest.raises(UsageError, match=r"--compile: CUDA graphs failed a trial .*--no-compile"):
        _try(monkeypatch, 2, required=True)
