"""Weights in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from segcli.categories import Categories
from segcli.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from segcli.models import MaskRCNN, ModelSpec


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """Weights in memory and all that is known about them.

    Attributes:
        spec: the network's record.
        categories: one per foreground slot.
        state: the state dict.
        source: what was loaded, as the user named it.
        sha256: of the file.
        info: training figures, licence, where the conventions come from, and the like.
    """

    spec: ModelSpec
    categories: Categories
    state: dict[str, Tensor]
    source: str
    sha256: str
    info: dict[str, Any] = field(default_factory=dict)

    def build(self, roi_align: str = "auto") -> MaskRCNN:
        """The network with these weights, in evaluation mode."""
        from segcli.models import MaskRCNN
        from segcli.weights.empty import without_random_weights

        with without_random_weights():  # all are replaced; drawing them takes longer than reading
            network = MaskRCNN(self.spec, roi_align)
        try:
            network.load_state_dict(self.state, strict=True)
        except RuntimeError as error:
            first = str(error).splitlines()[1:2] or [str(error)]
            raise ModelError(
                f"{self.source}: weights do not fit {self.spec.architecture} ({first[0].strip()})"
            ) from error
        return network.eval()
