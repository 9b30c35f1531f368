"""RoIAlign (He et al. 2017, section 3): features under a box, sampled bilinearly, no coordinate rounded.

One level, or a whole feature pyramid. Backends: `triton` (CUDA: all levels in one launch, deterministic backward),
`gather` (CPU: rows of channels as weighted bags), `torchvision` (its C++/CUDA operator) and `reference` (the
definition, slow; what the others are tested against).
"""

from segcli.models.roi_align.align import roi_align, roi_align_pyramid, roi_align_pyramid_shared
from segcli.models.roi_align.backends import BACKENDS, choose_backend, explain
from segcli.models.roi_align.levels import assign_levels

__all__ = [
    "BACKENDS",
    "assign_levels",
    "choose_backend",
    "explain",
    "roi_align",
    "roi_align_pyramid",
    "roi_align_pyramid_shared",
]
