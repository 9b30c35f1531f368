"""RoIAlign (He et al. 2017, section 3): features under a box, sampled bilinearly, no coordinate rounded.

Two functions: one level, and a whole feature pyramid. Backends: `reference` (the definition, slow) and `torchvision`
(its C++/CUDA operator). Triton (`kernels.py`) and row-gather (`gather.py`) backends take their place beside them.
"""

from segcli.models.roi_align.align import BACKENDS, roi_align, roi_align_pyramid
from segcli.models.roi_align.levels import assign_levels

__all__ = ["BACKENDS", "assign_levels", "roi_align", "roi_align_pyramid"]
