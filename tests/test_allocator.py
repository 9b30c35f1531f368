"""Large blocks are kept: counted in page faults, not in time."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from segcli.allocator import keep_large_blocks
kept = keep_large_blocks() if sys.argv[1] == "keep" else False
def once():
    np.empty(64 << 20, np.uint8).fill(1)
once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    once()
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(how: str, **environment: str) -> tuple[bool, int]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    run = subprocess.run(
        [sys.executable, "-c", FAULTS, how],
        env=clean | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    kept, count = run.stdout.split()
    return kept == "1", int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_the_pages_of_a_block_are_used_again() -> None:
    """Ten blocks of 64 MiB, one after the other, fault their pages in once and not ten times."""
    kept, few = _faults("keep")
    if not kept:
        pytest.skip("this C library has no mallopt")
    _, many = _faults("leave")
    assert few < 100 < many


def test_the_users_own_tuning_stands() -> None:
    """Whoever tunes the allocator by the environment is not overruled."""
    assert _faults("keep", MALLOC_ARENA_MAX="2")[0] is False
