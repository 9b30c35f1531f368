"""Runs that take too long for the tests: kills at random moments, and memory over many pictures.

python scripts/soak.py kill FOLDER --model MODEL [--kills 5]       predictions after kill -9 against undisturbed ones
python scripts/soak.py memory FOLDER --model MODEL                 resident memory while a folder is predicted
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SEED = 0


def command(folder: Path, model: str, out: Path) -> list[str]:
    """One start of the job."""
    return [
        sys.executable, "-m", "segcli", "-q", "predict", "folder", str(folder), "--model", model,
        "--output", str(out),
    ]  # fmt: skip


def kill_soak(folder: Path, model: str, kills: int, scratch: Path) -> bool:
    """Whether a job that was killed `kills` times ends with the bytes of one that was not."""
    started = time.monotonic()
    whole = subprocess.run(command(folder, model, scratch / "whole"), check=False)
    seconds = time.monotonic() - started
    print(f"undisturbed: {seconds:.0f} s, exit code {whole.returncode}")
    moments, killed = random.Random(SEED), 0
    for number in range(kills):
        process = subprocess.Popen(command(folder, model, scratch / "killed"))
        wait = moments.uniform(0.1, 0.9) * seconds
        try:
            process.wait(wait)
            print(f"kill {number + 1}: had finished before {wait:.0f} s")
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
            done = len(list((scratch / "killed" / "shards").glob("*.jsonl")))
            print(f"kill {number + 1}: after {wait:.0f} s, {done} shards committed")
    subprocess.run(command(folder, model, scratch / "killed"), check=False)
    first, second = ((scratch / n / "predictions.json").read_bytes() for n in ("whole", "killed"))
    print(
        f"{killed} kills; predictions.json: {len(first)} bytes, {'equal' if first == second else 'DIFFERENT'}"
    )
    return first == second and killed > 0


def memory_soak(folder: Path, model: str, scratch: Path) -> bool:
    """Print resident memory by pictures committed; whether it stays within 100 MB after the start."""
    process = subprocess.Popen(command(folder, model, scratch / "out"))
    sizes: list[float] = []
    started = time.monotonic()
    while process.poll() is None:
        size = resident_mb(process.pid)
        if size is not None:
            sizes.append(size)
        time.sleep(0.5)
    seconds = time.monotonic() - started
    steady = sizes[max(len(sizes) // 10, 8) :]  # model loading and the first pictures apart
    print(f"{seconds:.0f} s, exit code {process.returncode}, {len(sizes)} samples")
    for share in (0.1, 0.25, 0.5, 0.75, 0.99):
        print(f"  at {share:.0%} of the time: {sizes[int(share * (len(sizes) - 1))]:.0f} MB")
    print(f"steady: {min(steady):.0f} to {max(steady):.0f} MB")
    return process.returncode == 0 and max(steady) - min(steady) <= 200


def resident_mb(pid: int) -> float | None:
    """VmRSS of a process; None once it has gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    values = [line.split()[1] for line in lines if line.startswith("VmRSS")]
    return int(values[0]) / 1024 if values else None


def main() -> int:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["kill", "memory"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--kills", type=int, default=5)
    given = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="segcli-soak-"))
    try:
        if given.what == "kill":
            return 0 if kill_soak(given.folder, given.model, given.kills, scratch) else 1
        return 0 if memory_soak(given.folder, given.model, scratch) else 1
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    sys.exit(main())
