"""Where the Triton kernels run: on a GPU, or in Triton's interpreter in a process that was started for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

_HERE = Path(__file__).parent
_INTERPRETER = os.environ.get("TRITON_INTERPRET") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Numpy, which the interpreter computes with, warns of NaN and infinity; here they are what is tested."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(
                pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")
            )


@pytest.fixture
def device() -> str:
    """`cpu` in the interpreter, else `cuda`; skips where neither is there.

    Whether kernels are interpreted is settled when they are imported, so tests can not switch it on themselves:
    `tests/models/test_kernels_in_interpreter.py` runs this folder in a process of its own.
    """
    if _INTERPRETER:
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device, and not in Triton's interpreter (TRITON_INTERPRET=1)")
    return "cuda"


@pytest.fixture(autouse=True)
def _fresh_memory_is_nan() -> Iterator[None]:
    """Fresh tensors hold NaN, or the largest integer, so that an element that no kernel writes is seen."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(1).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)
