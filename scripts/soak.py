"""Runs that take too long for the tests: kills at random moments, and memory over many pictures.

python scripts/soak.py kill FOLDER --model MODEL [--kills 5]       predictions after kill -9 against undisturbed ones
python scripts/soak.py memory FOLDER --model MODEL                 resident memory while a folder is predicted
python scripts/soak.py train DATASET --model ARCH [--kills 10] [--steps 60]      weights after kill -9 and --resume
"""

from __future__ import annotations

import argparse
import json
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


def train_command(dataset: Path, model: str, run: Path, steps: int) -> list[str]:
    """One start of a training run with all that has a state: average, accumulation, workers, validation."""
    return [
        sys.executable, "-m", "segcli", "-q", "train", str(dataset), "--val", str(dataset), "--model", model,
        "--output", str(run), "--steps", str(steps), "--batch-size", "2", "--accumulate", "2", "--ema", "0.99",
        "--workers", "2", "--save-every", "1", "--device", "cpu", "--max-size", "320", "--min-size", "160",
        "--resume",
    ]  # fmt: skip


def train_soak(dataset: Path, model: str, kills: int, steps: int, scratch: Path) -> bool:
    """Whether a run that was killed `kills` times ends with the weights, to the bit, of one that was not."""
    started = time.monotonic()
    code = subprocess.run(train_command(dataset, model, scratch / "whole", steps)).returncode
    seconds = time.monotonic() - started
    print(f"undisturbed: {seconds:.0f} s, exit code {code}", flush=True)
    moments, killed = random.Random(SEED), 0
    run = scratch / "killed"
    while killed < kills:
        process = subprocess.Popen(train_command(dataset, model, run, steps))
        wait = moments.uniform(0.02, 0.5) * seconds
        try:
            process.wait(wait)
            print(f"had finished before {wait:.1f} s; {killed} kills so far", flush=True)
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
            step = _last_step(run / "metrics.jsonl")
            print(f"kill {killed}: after {wait:.1f} s, last line of step {step}", flush=True)
    code = subprocess.run(train_command(dataset, model, run, steps)).returncode
    weights = [(scratch / n / "best.safetensors").read_bytes() for n in ("whole", "killed")]
    states = [_state(scratch / n) for n in ("whole", "killed")]
    same = weights[0] == weights[1] and states[0] == states[1]
    print(
        f"{killed} kills, exit code {code}; weights, average, optimiser: {'equal' if same else 'DIFFERENT'}"
    )
    return same and code == 0 and killed == kills


def _last_step(log: Path) -> int | None:
    lines = log.read_bytes().split(b"\n")[:-1] if log.exists() else []
    return json.loads(lines[-1])["step"] if lines else None


def _state(run: Path) -> dict[str, bytes]:
    """The bytes of every tensor of the last checkpoint."""
    from segcli.training.checkpoint import load_last

    found = load_last(run)
    assert found is not None, f"{run}: no checkpoint"
    tensors = {f"{k} {n}": v for k in ("model", "average") for n, v in found.tensors[k].items()}
    for number, state in found.tensors["optimizer"]["state"].items():
        tensors |= {f"optimizer {number} {name}": value for name, value in state.items()}
    return {name: value.contiguous().numpy().tobytes() for name, value in tensors.items()}


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
    parser.add_argument("what", choices=["kill", "memory", "train"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--kills", type=int, default=None, help="5; in training 10")
    parser.add_argument("--steps", type=int, default=60)
    given = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="segcli-soak-"))
    try:
        if given.what == "kill":
            return 0 if kill_soak(given.folder, given.model, given.kills or 5, scratch) else 1
        if given.what == "train":
            kills, steps = given.kills or 10, given.steps
            return 0 if train_soak(given.folder, given.model, kills, steps, scratch) else 1
        return 0 if memory_soak(given.folder, given.model, scratch) else 1
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    sys.exit(main())
