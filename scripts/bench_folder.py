"""A long `predict folder`: does memory stay flat, and does the processor alone hold the job?

python scripts/bench_folder.py PICTURES --model MODEL [--pictures 2000] [-- FLAGS OF predict folder]

PICTURES is a folder; its pictures are copied again and again until there are enough. Resident memory is read twice a
second; the moment of the 100th picture is taken by time, since pictures are alike. Bars: memory within 50 MB of what it
was then, wall at most 1.1 times the CPU seconds of all stages over the cores. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from soak import resident_mb

SETTLED = 100  # pictures after which memory has to stay as it is
MOST_MB = 50.0
MOST_WALL = 1.1
_LINE = re.compile(
    r"wall ([\d.]+) s, CPU seconds of all stages ([\d.]+) s, ÷ (\d+) cores ([\d.]+) s"
)


@dataclass(frozen=True)
class Run:
    """One job: the samples of its prediction, (seconds since its start, MB), and what it printed on stderr."""

    code: int
    samples: list[tuple[float, float]]
    messages: str


def make_pictures(source: Path, folder: Path, count: int) -> None:
    """Fill `folder` with `count` copies of the pictures of `source`, in turn."""
    from segcli.images import SUFFIXES

    originals = sorted(p for p in source.iterdir() if p.suffix.lower() in SUFFIXES)
    if not originals:
        raise SystemExit(f"bench_folder: {source}: no pictures in it; give a folder that has some")
    folder.mkdir()
    for number in range(count):
        original = originals[number % len(originals)]
        shutil.copyfile(original, folder / f"{number:06d}{original.suffix}")


def run(folder: Path, model: str, out: Path, flags: list[str]) -> Run:
    """Predict the folder with --profile, reading resident memory from the first batch on."""
    command = [sys.executable, "-m", "segcli", "predict", "folder", str(folder), "--model", model]
    command += ["--output", str(out), "--profile", *flags]
    samples: list[tuple[float, float]] = []
    started = None
    with tempfile.TemporaryFile("w+") as messages:
        process = subprocess.Popen(command, stderr=messages)
        while process.poll() is None:
            size = resident_mb(process.pid)
            if started is None and (out / "plan.jsonl").exists():
                started = time.monotonic()
            if started is not None and size is not None:
                samples.append((time.monotonic() - started, size))
            time.sleep(0.5)
        messages.seek(0)
        return Run(process.returncode, samples, messages.read())


def report(done: Run, pictures: int) -> bool:
    """Print both figures; whether both bars are held."""
    print(done.messages.rstrip())
    found = _LINE.search(done.messages)
    if done.code != 0 or found is None:
        print(f"exit code {done.code}; no profile" if found is None else f"exit code {done.code}")
        return False
    wall, cpu, cores, least = (float(value) for value in found.groups())
    late = [mb for at, mb in done.samples if wall * SETTLED / pictures <= at <= wall]
    if not late:
        print(f"{wall:.1f} s are too short to read memory after {SETTLED} pictures; give more")
        return False
    print("resident memory by share of the time:")
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        print(f"  {share:4.0%}: {late[round(share * (len(late) - 1))]:.0f} MB")
    drift = max(abs(mb - late[0]) for mb in late)
    flat, bound = drift <= MOST_MB, wall <= MOST_WALL * least
    print(
        f"memory after {SETTLED} pictures {late[0]:.0f} MB, at the end {late[-1]:.0f} MB, "
        f"farthest {drift:.0f} MB off: {verdict(flat)} (bar: {MOST_MB:.0f} MB)"
    )
    print(
        f"wall {wall:.1f} s, CPU {cpu:.1f} s ÷ {cores:.0f} cores = {least:.1f} s: {wall / least:.2f} ×, "
        f"{verdict(bound)} (bar: {MOST_WALL} ×); {pictures / wall:.2f} pictures/s"
    )
    return flat and bound


def verdict(held: bool) -> str:
    """A bar in a word."""
    return "held" if held else "NOT HELD"


def main() -> int:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, metavar="PICTURES")
    parser.add_argument("--model", required=True)
    parser.add_argument("--pictures", type=int, default=2000)
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    given, flags = parser.parse_args(words[:cut]), words[cut + 1 :]
    scratch = Path(tempfile.mkdtemp(prefix="segcli-bench-"))
    try:
        make_pictures(given.source, scratch / "pictures", given.pictures)
        done = run(scratch / "pictures", given.model, scratch / "out", flags)
        return 0 if report(done, given.pictures) else 1
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    sys.exit(main())
