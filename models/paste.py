"""From mask probabilities inside boxes to run lengths at original resolution; no picture-sized canvas on the way.

A pasted mask is a bilinear surface. Down a column of pixels it is linear between two rows of the mask's cells, so it
passes 0.5 at most once there, at a place that a division gives. The work thus grows with the mask's outline and not
with its area. What is near enough to 0.5 for rounding to matter is decided by the operator that defines the rule
(`paste_exact`), so that the result is that of pasting, thresholding and encoding, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

from segcli.models.conventions import Postprocess
from segcli.models.paste_boxes import Axis, place
from segcli.models.paste_exact import exact_edges

# Numbers of the surface that are made at a time, columns of pixels by rows of cells. Just under what ATen gives to
# several threads: woken for each of these short operations they gain nothing, and lose much where others use the cores.
_BAND = 2**15 - 1
# The most by which the operators' float32 coordinates and sums move a value of a mask of 0..1, per cell along a side:
# 2⁻²⁴ times 12 roundings of coordinates by the rule of pixel centres, 6 by the other. The sums' own are a constant.
_DOUBT = {"pixel_centres": 8e-7, "truncated_box": 4e-7}
_DOUBT_OF_SUMS = 1e-6


@dataclass(frozen=True)
class RunLengths:
    """N masks of one picture, in memory of the CPU.

    Attributes:
        counts: uint32 (K,); the run lengths of all masks behind one another. Runs go column by column and alternate
            0 and 1, each mask beginning with 0 (COCO's order); no run is empty but a mask's first.
        offsets: int64 (N + 1,); mask i is `counts[offsets[i]:offsets[i + 1]]`.
    """

    counts: Tensor
    offsets: Tensor


@dataclass(frozen=True)
class _Surfaces:
    """The masks of one picture, made ready.

    Attributes:
        x, y: where they lie.
        levels: float32 (N · R, R), the masks with their rims less 0.5; row n · R + i is the i-th column of cells.
        odd: bool (N,), masks that hold something else than probabilities.
        size: (H, W) of the picture.
        doubt: a value this near to 0.5 may lie on either side by the operator's own arithmetic.
    """

    x: Axis
    y: Axis
    levels: Tensor
    odd: Tensor
    size: tuple[int, int]
    doubt: float


def paste_runs(
    masks: Tensor, boxes: Tensor, size: tuple[int, int], conventions: Postprocess
) -> RunLengths:
    """Resample each mask to the pixels of its picture, threshold it there, and encode it.

    On a CUDA device everything up to the run lengths happens there (`paste_kernel`), if there is Triton, which not
    every platform has. On the CPU the memory needed beside the result is some MB, whatever the picture's size.

    Args:
        masks: (N, M, M), probabilities; taken as float32. A pixel whose value is NaN is not in the mask.
        boxes: (N, 4), xyxy in pixels of the original picture; taken as float32. The mask of a box that is not finite
            is empty.
        size: (H, W) of the original picture.
        conventions: which paste rule, and whether 0.5 counts.

    Returns:
        What `torchvision`'s `paste_masks_in_image` (`truncated_box`) or detectron2's `_do_paste_mask`
        (`pixel_centres`), a threshold and COCO's encoder give.

    Raises:
        ValueError: shapes that do not fit.
    """
    if masks.dim() != 3 or masks.shape[1] != masks.shape[2] or masks.shape[1] == 0:
        raise ValueError(f"masks: shape {tuple(masks.shape)}, expected (N, M, M) with M ≥ 1")
    if boxes.shape != (len(masks), 4):
        raise ValueError(f"boxes: shape {tuple(boxes.shape)}, expected {(len(masks), 4)}")
    on_device = masks.is_cuda and find_spec("triton") is not None
    device = masks.device if on_device else torch.device("cpu")
    masks = masks.detach().to(device, torch.float32)
    boxes = boxes.detach().to(device, torch.float32)
    x, y = place(boxes, masks.shape[1], size, conventions.mask_paste)
    if on_device:
        from segcli.models.paste_kernel import edges_on_device

        keys = edges_on_device(masks, x, y, size, conventions)
    else:
        keys = _edges(masks, x, y, size, conventions)
    return _run_lengths(keys, len(masks), size[0] * size[1])


def _run_lengths(keys: Tensor, count: int, pixels: int) -> RunLengths:
    """From the places where values change.

    Args:
        keys: int64 (E,), sorted: object · (pixels + 1) + place, column by column. What stands there twice cancels: a
            run that ends at the bottom of one column where the next begins, or one that lies between two pixels.
        count: N.
        pixels: H · W.
    """
    places, repeats = torch.unique_consecutive(keys, return_counts=True)
    places = places[repeats % 2 == 1]
    owner = places // (pixels + 1)
    places = places - owner * (pixels + 1)
    within = places < pixels  # the end of a picture ends its last run in any case
    owner, places = owner[within], places[within]
    offsets = torch.zeros(count + 1, dtype=torch.int64, device=keys.device)
    offsets[1:] = (torch.bincount(owner, minlength=count) + 1).cumsum(0)
    ends = torch.full((len(places) + count,), pixels, dtype=torch.int64, device=keys.device)
    ends[torch.arange(len(places), device=keys.device) + owner] = places
    starts = ends.roll(1)
    starts[offsets[:-1]] = 0
    counts = (ends - starts).to(torch.int32)  # modulo 2³², and read as unsigned
    return RunLengths(counts.cpu().view(torch.uint32), offsets.cpu())


def _edges(
    masks: Tensor, x: Axis, y: Axis, size: tuple[int, int], conventions: Postprocess
) -> Tensor:
    """Keys as `_run_lengths` takes them."""
    R = masks.shape[1] + 2
    levels = F.pad(masks, (1, 1, 1, 1)).sub_(0.5).transpose(1, 2).reshape(-1, R)
    odd = ~((masks >= -1) & (masks <= 2)).all(2).all(1)  # NaN too
    doubt = _DOUBT[conventions.mask_paste] * R + _DOUBT_OF_SUMS
    surfaces = _Surfaces(x, y, levels, odd, size, doubt)
    behind = (x.end - x.start).cumsum(0)  # columns of pixels, of all objects in turn
    total = int(behind[-1]) if len(behind) else 0
    keys, doubtful = [levels.new_zeros(0, dtype=torch.int64)], []
    for first in range(0, total, max(_BAND // R, 1)):
        column = torch.arange(first, min(first + max(_BAND // R, 1), total))
        owner = torch.searchsorted(behind, column, right=True)
        column += x.end[owner] - behind[owner]
        found, unclear = _crossings(surfaces, owner, column)
        keys.append(found)
        doubtful.append(torch.stack((owner[unclear], column[unclear])))
    if doubtful and sum(part.shape[1] for part in doubtful):
        keys.append(exact_edges(masks, x, y, size, conventions, torch.cat(doubtful, 1)))
        return torch.cat(keys).sort().values
    return torch.cat(keys)


def _crossings(surfaces: _Surfaces, owner: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """Where columns of pixels pass 0.5.

    Args:
        surfaces: all objects.
        owner: int64 (C,), the object that a column belongs to.
        column: int64 (C,), of the picture.

    Returns:
        Keys of the columns that are sure, and bool (C,), which columns are not.
    """
    x, y, R, (H, W) = surfaces.x, surfaces.y, surfaces.levels.shape[1], surfaces.size
    cell = (column * x.scale[owner] + x.shift[owner]).clamp_(0, R - 1)
    low = cell.floor().clamp_(max=R - 2)
    row = owner * R + low.long()
    upper = (cell - low).float()[:, None]
    left, right = surfaces.levels.index_select(0, row), surfaces.levels.index_select(0, row + 1)
    levels = torch.lerp(left, right, upper)  # (C, R)
    unclear = surfaces.odd[owner] | (levels.abs() < surfaces.doubt).any(1)
    above = levels > 0
    i_column, i_cell = (above[:, 1:] != above[:, :-1]).nonzero().unbind(1)
    here = i_column * R + i_cell
    before = levels.view(-1).index_select(0, here).double()
    step = levels.view(-1).index_select(0, here + 1).double() - before
    n = owner.index_select(0, i_column)
    scale = y.scale.index_select(0, n)
    pixel = (i_cell - before / step - y.shift.index_select(0, n)) / scale
    near = ((pixel - pixel.round()) * step * scale).abs() < surfaces.doubt
    unclear[i_column[near]] = True
    # clamped, edges above and below the crop fall together in pairs or become the crop's border
    edge = pixel.ceil().long().clamp(y.start[n], y.end[n])
    key = n * (H * W + 1) + column[i_column] * H + edge
    return key[~unclear[i_column]], unclear
