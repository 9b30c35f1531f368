"""`--decode nvjpeg`: JPEGs decoded on the GPU, in batches, by torchvision's binding of NVIDIA's decoder.

Off by default, because pixels change: the decoders round the inverse cosine transform and enlarge the colours
differently. `decode_cost` says by how much. What this decoder is not for, or fails on, is decoded on the CPU as always,
counted, and said in `summary`.

The GPU's decoder itself has never run where this was written; what is around it has, with torchvision's on the CPU.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from segcli.errors import ImageError, UsageError
from segcli.images import MAX_PIXELS, image_info, read_image

Decode = Callable[[list[Tensor]], list[Tensor]]
"""Bytes of JPEGs, uint8 (B,) on the CPU, to RGB, uint8 (3, H, W) as stored."""

_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
_APP14, _SCAN = 0xEE, 0xDA
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive; all in Huffman's code
_OTHER_FRAMES = frozenset(range(0xC0, 0xD0)) - _FRAMES - {0xC4, 0xC8, 0xCC}


def check_decode(decode: str, device: torch.device) -> bool:
    """Whether `--decode` means the GPU. `auto` is the CPU, since the GPU's pixels are others.

    Raises:
        UsageError: it is not one of its words, or asks for a GPU where there is none.
    """
    if decode not in ("auto", "cpu", "nvjpeg"):
        raise UsageError(f"--decode {decode}: expected auto, cpu or nvjpeg")
    if decode == "nvjpeg" and device.type != "cuda":
        raise UsageError(
            f"--decode nvjpeg needs a CUDA device, the model runs on {device}; use --decode cpu"
        )
    return decode == "nvjpeg"


class GpuDecoder:
    """Decodes batches of pictures, JPEGs on the GPU. May be called from several threads.

    Attributes:
        on_gpu: how many it decoded there.
        on_cpu: how many not, by reason.

    Args:
        device: a CUDA device.
        decode: instead of the GPU's decoder (tests).

    Raises:
        UsageError: the device is no GPU.
    """

    def __init__(self, device: torch.device, decode: Decode | None = None) -> None:
        if decode is None:
            check_decode("nvjpeg", device)
        self._decode = decode or _by_nvjpeg(device)
        # torchvision's decoder writes on a stream of its own into memory of the current one, and does not wait for what
        # still reads it there; so that is one on which nothing is under way whenever memory goes back
        self._stream = _own_stream(device)
        self._counting = threading.Lock()
        self.on_gpu = 0
        self.on_cpu: Counter[str] = Counter()

    def __call__(
        self,
        paths: Sequence[Path],
        *,
        allow_truncated: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> list[Tensor | Exception]:
        """Read pictures, upright.

        Args:
            paths: files.
            allow_truncated: as in `read_image`.
            max_pixels: likewise.

        Returns:
            Per file uint8 (H, W, 3) RGB, on the GPU or, where it was decoded there, on the CPU; or why it cannot be
            read. One bad file never stops the rest.
        """
        results: list[Tensor | Exception | None] = [None] * len(paths)
        waiting: list[tuple[int, Tensor, int]] = []
        for row, path in enumerate(paths):
            try:
                prepared = self._prepared(path, max_pixels)
                if prepared is None:
                    results[row] = _on_cpu(path, allow_truncated, max_pixels)
                else:
                    waiting.append((row, *prepared))
            except Exception as error:
                results[row] = error
        for (row, _, _), found in zip(waiting, self._upright(waiting), strict=True):
            if found is not None:
                results[row] = found
                continue
            try:
                results[row] = _on_cpu(paths[row], allow_truncated, max_pixels)
            except Exception as error:
                results[row] = error
        return [result for result in results if result is not None]

    def _upright(self, waiting: list[tuple[int, Tensor, int]]) -> list[Tensor | None]:
        """Pictures (H, W, 3) of rows, bytes and orientations; they may be read on any stream."""
        with torch.cuda.stream(self._stream) if self._stream else nullcontext():
            decoded = self._decoded([data for _, data, _ in waiting])
            found = [
                None if one is None else upright(one, orientation).permute(1, 2, 0).contiguous()
                for one, (_, _, orientation) in zip(decoded, waiting, strict=True)
            ]
            if self._stream:
                self._stream.synchronize()  # before `decoded` is given back
        return found

    def summary(self) -> str:
        """One line: `decoded on the GPU: 90, on the CPU: 10 (no JPEG: 7, damaged: 3)`."""
        reasons = ", ".join(f"{reason}: {count}" for reason, count in self.on_cpu.most_common())
        total = self.on_cpu.total()
        return f"decoded on the GPU: {self.on_gpu}, on the CPU: {total}" + (
            f" ({reasons})" if reasons else ""
        )

    def _prepared(self, path: Path, max_pixels: int) -> tuple[Tensor, int] | None:
        """Bytes and orientation of what the GPU can decode; None, counted, for what it can not."""
        info = image_info(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ImageError(f"{path}: cannot be read ({error.strerror})") from error
        reason = why_not_gpu(data)
        if reason is None and info.raw_size[0] * info.raw_size[1] > max_pixels:
            reason = "too large"
        if reason is not None:
            with self._counting:
                self.on_cpu[reason] += 1
            return None
        return torch.frombuffer(bytearray(data), dtype=torch.uint8), info.orientation

    def _decoded(self, batch: list[Tensor]) -> list[Tensor | None]:
        """One call for all; where that fails, one call for each, and None for those that fail again."""
        if not batch:
            return []
        try:
            found: list[Tensor | None] = list(self._decode(batch))
        except RuntimeError:
            found = [self._single(data) for data in batch]
        failed = sum(one is None for one in found)
        with self._counting:
            self.on_gpu += len(found) - failed
            if failed:
                self.on_cpu["the GPU's decoder refused it"] += failed
        return found

    def _single(self, data: Tensor) -> Tensor | None:
        try:
            return self._decode([data])[0]
        except RuntimeError:
            return None  # counted by the caller; the CPU tries it next and has the last word


def _own_stream(device: torch.device) -> torch.cuda.Stream | None:
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def _by_nvjpeg(device: torch.device) -> Decode:
    from torchvision.io import ImageReadMode, decode_jpeg

    def decode(batch: list[Tensor]) -> list[Tensor]:
        found: list[Tensor] = decode_jpeg(batch, mode=ImageReadMode.RGB, device=device)
        return found

    return decode


def _on_cpu(path: Path, allow_truncated: bool, max_pixels: int) -> Tensor:
    pixels = read_image(path, allow_truncated=allow_truncated, max_pixels=max_pixels)
    return torch.from_numpy(pixels)


def why_not_gpu(data: bytes) -> str | None:
    """Why a file is decoded on the CPU, or None: the GPU's decoder is for whole JPEGs in grey or YCbCr of 8 bits.

    It would fill up a truncated one and say nothing.
    """
    if not data.startswith(_START):
        return "no JPEG"
    if not data.rstrip(b"\0\n\r ").endswith(_END):
        return "no end marker"
    at, plain = 2, True
    while at + 9 < len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == 0xFF:  # fill bytes may stand before a marker
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if kind == _APP14 and data[at + 4 : at + 9] == b"Adobe" and length >= 14:
            plain = data[at + 15] == 1  # 1: YCbCr
        if kind in _OTHER_FRAMES:
            return "an unusual JPEG"
        if kind in _FRAMES:
            return _why_not_frame(data[at + 4 : at + 2 + length], plain=plain)
        if kind == _SCAN:
            break
        at += 2 + length
    return "damaged"


def _why_not_frame(frame: bytes, *, plain: bool) -> str | None:
    """Of a frame header: bits, height, width, components with three bytes each."""
    if len(frame) < 6 or len(frame) < 6 + 3 * frame[5]:
        return "damaged"
    components = frame[6 : 6 + 3 * frame[5] : 3]
    grey, colour = len(components) == 1, len(components) == 3 and plain and components != b"RGB"
    return None if frame[0] == 8 and (grey or colour) else "no grey or YCbCr of 8 bits"


def upright(picture: Tensor, orientation: int) -> Tensor:
    """Turn a picture (C, H, W) as stored by its EXIF orientation, 1 … 8."""
    if orientation in (5, 6, 7, 8):
        picture = picture.transpose(1, 2)
    flipped = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}.get(orientation, ())
    return picture.flip(flipped) if flipped else picture


@dataclass(frozen=True)
class DecodeCost:
    """How far the GPU's pixels are from the CPU's, in steps of 255.

    Attributes:
        pictures: that both decoded.
        largest: difference of a pixel's channel.
        mean: absolute difference over all.
    """

    pictures: int
    largest: int
    mean: float

    def line(self) -> str:
        """For people."""
        return (
            f"--decode nvjpeg on {self.pictures} pictures: pixels differ from the CPU's by {self.mean:.3f} of 255 "
            f"on average, by {self.largest} at most"
        )


def decode_cost(decoder: GpuDecoder, paths: Sequence[Path]) -> DecodeCost:
    """Decode a sample both ways. Files that the GPU does not decode, or that cannot be read, are left out."""
    pictures, largest, total, values = 0, 0, 0, 0
    for path in paths:
        before = decoder.on_gpu
        found = decoder([path])[0]
        if isinstance(found, Exception) or decoder.on_gpu == before:
            continue
        try:
            expected = read_image(path)
        except ImageError:
            continue  # the GPU made something of a damaged one
        apart = (found.cpu().int() - torch.from_numpy(expected).int()).abs()
        pictures, values = pictures + 1, values + apart.numel()
        largest, total = max(largest, int(apart.max())), total + int(apart.sum())
    return DecodeCost(pictures, largest, total / max(values, 1))
