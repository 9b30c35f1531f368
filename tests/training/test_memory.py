"""Out of memory: said with pictures, objects, sizes and remedies."""

from __future__ import annotations

import pytest
import torch

from segcli.data.batch import Batch
from segcli.errors import PredictionError, TrainingError
from segcli.training.memory import (
    is_out_of_memory,
    memory_errors_named,
    validation_memory_named,
)

BATCH = Batch(
    images=torch.zeros(2, 3, 64, 96),
    sizes=[(60, 96), (64, 80)],
    targets=[{"boxes": torch.zeros(120, 4)}, {"boxes": torch.zeros(0, 4)}],
    file_names=["many.png", "none.png"],
)


def test_an_allocation_that_fails_names_the_batch() -> None:
    """A real one: no machine has 2^55 bytes."""
    with pytest.raises(TrainingError) as caught, memory_errors_named(BATCH, 7):
        torch.empty(2**55, dtype=torch.uint8)
    message = str(caught.value)
    assert message.startswith(
        "step 7: out of memory on many.png (120 objects), none.png (0 objects)"
    )
    assert "batch 2 × 64 × 96" in message
    assert "--max-instances" in message
    assert "--batch-size" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(MemoryError(), True, id="Python's"),
        pytest.param(torch.OutOfMemoryError("CUDA out of memory. Tried …"), True, id="a GPU's"),
        pytest.param(RuntimeError("The size of tensor a (3) must match"), False, id="another"),
        pytest.param(ValueError("not enough memory"), False, id="not an allocator's"),
    ],
)
def test_which_errors_are_meant(error: Exception, expected: bool) -> None:
    """Others pass as they are."""
    assert is_out_of_memory(error) is expected
    with pytest.raises(TrainingError if expected else type(error)), memory_errors_named(BATCH, 1):
        raise error


def _failed(cause: Exception | None) -> PredictionError:
    error = PredictionError("the model failed on a.png (…); a smaller --batch-size helps")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(_failed(torch.OutOfMemoryError("CUDA out of memory\nmore")), id="a batch"),
        pytest.param(torch.OutOfMemoryError("CUDA out of memory"), id="the weights"),
        pytest.param(MemoryError("CUDA out of memory"), id="Python's"),
    ],
)
def test_a_validation_that_does_not_fit_names_its_own_remedy(error: Exception) -> None:
    """Not that of steps or of predictions, which does not reach it."""
    with pytest.raises(TrainingError) as caught, validation_memory_named():
        raise error
    assert str(caught.value) == (
        "validation: out of memory (CUDA out of memory); all steps are saved: go on with "
        "--resume --eval-batch-size 1, or where that is not enough with more memory free"
    )


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(_failed(RuntimeError("The size of tensor a (3) must match")), id="a batch"),
        pytest.param(_failed(None), id="no cause"),
        pytest.param(RuntimeError("The size of tensor a (3) must match"), id="any"),
    ],
)
def test_other_errors_of_a_validation_pass(error: Exception) -> None:
    """As they are."""
    with pytest.raises(type(error)) as caught, validation_memory_named():
        raise error
    assert caught.value is error
