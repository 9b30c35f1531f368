"""What is worked out ahead is bounded, in number and in bytes."""

from __future__ import annotations

import threading
import time

import pytest

from segcli.prediction.ahead import map_ahead


def test_nothing() -> None:
    """No item, no result; nobody is weighed."""
    assert list(map_ahead(str, [], ahead=3, weigh=lambda _: 1 / 0)) == []  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("weight", "most", "together"),
    [
        pytest.param(0, 10, 5, id="weightless"),
        pytest.param(3, 10, 3, id="three fit"),
        pytest.param(10, 10, 1, id="one fits"),
        pytest.param(11, 10, 1, id="too heavy for all, one at a time"),
    ],
)
def test_heavy_results_do_not_pile_up(weight: int, most: int, together: int) -> None:
    """Begun and not yet taken are so many as fit, and one at least, however slow the taker."""
    begun, lock = 0, threading.Lock()

    def work(item: int) -> int:
        nonlocal begun
        with lock:
            begun += 1
        return item

    taken, largest = [], 0
    for item in map_ahead(work, range(12), ahead=4, weigh=lambda _: weight, most_bytes=most):
        time.sleep(0.005)
        largest = max(largest, begun - len(taken))
        taken.append(item)
    assert taken == list(range(12))
    assert largest <= together


def test_light_ones_follow_a_heavy_one() -> None:
    """Order holds where weights differ."""
    weights = [1, 50, 1, 1, 50, 1]
    found = list(map_ahead(str, range(6), ahead=3, weigh=weights.__getitem__, most_bytes=10))
    assert found == list("012345")
