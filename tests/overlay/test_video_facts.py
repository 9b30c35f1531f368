"""What is known of a video before a model is opened."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from segcli.overlay.video import VideoJob
from segcli.overlay.video_facts import facts_of_video
from segcli.overlay.video_in import Window


@pytest.mark.parametrize(
    ("every", "window", "pictures"),
    [
        pytest.param(1, Window(), 12, id="all"),
        pytest.param(5, Window(), 3, id="every fifth"),
        pytest.param(1, Window(end=Fraction(1, 5)), 5, id="a part"),
    ],
)
def test_frames_that_the_network_will_see(
    clips: Any, every: int, window: Window, pictures: int
) -> None:
    """About as many as there are; they come one after another, never side by side."""
    facts = facts_of_video(VideoJob(clips.make(), Path("out.mp4"), window=window, every=every))
    assert abs(facts.pictures - pictures) <= 1
    assert facts.in_turn


def test_samples_lie_apart(clips: Any) -> None:
    """One a second of what is drawn, upright; a short video gives its first frame alone."""
    source = clips.make()
    frames = clips.frames(source)
    facts = facts_of_video(VideoJob(source, Path("out.mp4"), every=4))
    samples = facts.first(8)
    assert samples[0].shape == frames[0].shape
    assert len(samples) == 1
