"""A short video that pans over pictures, so that the demo and README have one without downloading any.

python scripts/make_video.py FOLDER OUTPUT.mp4 [--pictures 6]
"""

from __future__ import annotations

import argparse
import math
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

FPS = 12
FRAMES_PER_PICTURE = 10
VIEW = (224, 288)  # height, width; the camera drifts over a slightly larger picture
TONE_HZ = 220
AUDIO_RATE = 44_100


def frames(folder: Path, pictures: int) -> list[NDArray[np.uint8]]:
    """RGB views, drifting over each picture in turn."""
    views = []
    for path in sorted(folder.glob("*.png"))[:pictures]:
        picture = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        room_y, room_x = (have - want for have, want in zip(picture.shape, VIEW, strict=False))
        for k in range(FRAMES_PER_PICTURE):
            share = k / (FRAMES_PER_PICTURE - 1)
            y, x = round(room_y * share), round(room_x * (1 - share))
            views.append(np.ascontiguousarray(picture[y : y + VIEW[0], x : x + VIEW[1]]))
    if not views:
        raise SystemExit(f"make_video: no .png pictures in {folder}")
    return views


def write(views: list[NDArray[np.uint8]], output: Path) -> None:
    """H.264 with a quiet tone, so that there is audio to keep."""
    with av.open(str(output), "w") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = VIEW[1], VIEW[0], "yuv420p"
        audio = container.add_stream("aac", rate=AUDIO_RATE, layout="mono")
        for view in views:
            container.mux(video.encode(av.VideoFrame.from_ndarray(view, "rgb24")))
        container.mux(video.encode(None))
        seconds = len(views) / FPS
        wave = np.sin(2 * math.pi * TONE_HZ * np.arange(int(seconds * AUDIO_RATE)) / AUDIO_RATE)
        for start in range(0, len(wave), 1024):
            part = (0.05 * wave[None, start : start + 1024]).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(part, "fltp", "mono")
            frame.rate, frame.pts, frame.time_base = AUDIO_RATE, start, Fraction(1, AUDIO_RATE)
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))


def main() -> None:
    """Parse, make, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--pictures", type=int, default=6)
    given = parser.parse_args()
    write(frames(given.folder, given.pictures), given.output)


if __name__ == "__main__":
    main()
