"""Networks whose weights are about to be replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

_DRAWING = (
    *(Tensor.normal_, Tensor.uniform_, init.normal_, init.uniform_, init.trunc_normal_),
    *(init.kaiming_normal_, init.kaiming_uniform_, init.xavier_normal_, init.xavier_uniform_),
)


class without_random_weights(TorchFunctionMode):  # noqa: N801  # used as `with without_random_weights():`
    """In this context random initialisation leaves tensors as they are, and the random generator too.

    Only for a network that gets a whole state dict at once: until then its weights are whatever memory held.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run everything but the drawing."""
        if func in _DRAWING:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))
