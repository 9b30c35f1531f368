"""COCO's run-length strings, encoded and decoded with numpy.

A mask of H × W pixels is read column by column; `counts` alternates runs of 0 and of 1, beginning with 0.
The text form packs each count in base 32, from the fourth on as the difference to the count two places before
(cocodataset/cocoapi, common/maskApi.c: rleToString, rleFrString).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segcli.errors import DataError

_MAX_DIGITS = 7  # of 5 bits: the difference of two uint32, with its sign, takes 33


def encode_counts(counts: NDArray[np.uint32]) -> str:
    """Pack run lengths into COCO's text.

    Args:
        counts: uint32 (K,), runs of 0 and 1 in turn.

    Returns:
        ASCII text, as in `segmentation["counts"]`.
    """
    values = counts.astype(np.int64)
    values[3:] -= counts[1:-2].astype(np.int64)
    groups = values[:, None] >> (5 * np.arange(_MAX_DIGITS, dtype=np.int64))  # (K, 7), sign kept
    digits = groups & 0x1F
    rest = groups >> 5
    # a digit is the last one when what remains is only the sign that its top bit already shows
    last = np.where(digits & 0x10 != 0, rest == -1, rest == 0)
    length = last.argmax(axis=1) + 1
    used = np.arange(_MAX_DIGITS) < length[:, None]
    more = np.arange(_MAX_DIGITS) < (length - 1)[:, None]
    codes = digits + 48 + np.where(more, 0x20, 0)
    text: str = codes[used].astype(np.uint8).tobytes().decode("ascii")
    return text


def decode_counts(text: str | bytes) -> NDArray[np.uint32]:
    """Unpack COCO's text into run lengths.

    Args:
        text: ASCII, as in `segmentation["counts"]`.

    Returns:
        uint32 (K,), runs of 0 and 1 in turn.

    Raises:
        DataError: the text is no run-length string.
    """
    try:
        raw = np.frombuffer(text.encode("ascii") if isinstance(text, str) else text, np.uint8)
    except UnicodeEncodeError as error:
        raise DataError(f"RLE counts: not ASCII ({error})") from error
    codes = raw.astype(np.int64) - 48
    if codes.size == 0:
        return np.zeros(0, np.uint32)
    if codes.min() < 0 or codes.max() > 63 or codes[-1] & 0x20:
        raise DataError(
            "RLE counts: damaged text (a character outside COCO's alphabet, or cut off)"
        )
    ends = np.flatnonzero(codes & 0x20 == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    place = np.arange(codes.size) - np.repeat(starts, ends - starts + 1)
    if place.max() >= _MAX_DIGITS:
        raise DataError("RLE counts: damaged text (a number longer than any run)")
    values = np.add.reduceat((codes & 0x1F) << (5 * place), starts)
    negative = codes[ends] & 0x10 != 0
    values -= np.where(negative, np.int64(1) << 5 * (place[ends] + 1), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    if values.min() < 0 or values.max() > np.iinfo(np.uint32).max:
        raise DataError("RLE counts: damaged text (a run of negative or impossible length)")
    return values.astype(np.uint32)


def runs_of_crop(
    crop: NDArray[np.bool_], origin: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.uint32]:
    """Run lengths of a full picture that is empty outside one crop, without ever making the picture.

    Args:
        crop: bool (h, w).
        origin: (x, y) of the crop's top-left pixel in the picture.
        size: (H, W) of the picture.

    Returns:
        uint32 (K,): runs of 0 and 1 in turn, column by column; canonical (no run of 0 but the first).
    """
    (h, w), (x0, y0), (H, W) = crop.shape, origin, size
    if h == 0 or w == 0:
        return np.array([H * W], np.uint32)
    padded = np.zeros((w, h + 2), np.int8)  # transposed: columns of the picture are rows here
    padded[:, 1:-1] = crop.T
    edges = np.flatnonzero(
        np.diff(padded, axis=1)
    )  # index in (w, h + 1), so column * (h + 1) + row
    column, row = np.divmod(edges, h + 1)
    position = (column + x0).astype(np.int64) * H + row + y0
    return runs_of_edges(position, H * W)


def runs_of_edges(position: NDArray[np.int64], total: int) -> NDArray[np.uint32]:
    """Run lengths from the places where the value changes, with touching runs joined.

    Args:
        position: int64 (2K,), sorted; starts and ends of runs of 1 in turn.
        total: number of pixels.
    """
    if position.size == 0:
        return np.array([total], np.uint32)
    # a run that ends where the next begins (bottom of one column, top of the next) is one run
    joined = np.flatnonzero(position[1:-1:2] == position[2::2])
    keep = np.ones(position.size, bool)
    keep[2 * joined + 1] = False
    keep[2 * joined + 2] = False
    position = position[keep]
    counts = np.diff(np.concatenate(([0], position, [total])))
    return (counts[:-1] if counts[-1] == 0 else counts).astype(np.uint32)
