"""What a model may want to know of a video before it is opened."""

from __future__ import annotations

from itertools import islice

import numpy as np
from numpy.typing import NDArray

from segcli.overlay.video import VideoJob
from segcli.overlay.video_in import open_video
from segcli.prediction.facts import JobFacts


def facts_of_video(job: VideoJob) -> JobFacts:
    """About how many frames the network will see, and samples of them, one a second: neighbours are too alike.

    Raises:
        DataError: the source is no video; `first` raises it where the source is damaged.
    """
    with open_video(job.source) as video:
        count = -(-video.estimated_frames(job.window) // job.every)
        step = max(job.every, round(video.rate))

    def first(count: int) -> list[NDArray[np.uint8]]:
        with open_video(job.source) as video:
            chosen = islice(video.frames(job.window), 0, step * (count - 1) + 1, step)
            return [frame.rgb for frame in chosen]

    return JobFacts(pictures=count, first=first, in_turn=True)
