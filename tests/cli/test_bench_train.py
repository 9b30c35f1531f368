"""`segcli bench train`: usage, and options that reach the run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from segcli.bench import train
from segcli.bench.train import TrainReport, TrainSettings
from segcli.bench.trainers import TrainTask
from segcli.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--contestant", "tf"], "'tf' is not one of 'stock', 'fp32', 'auto'"),
        (["--batch-size", "0"], "0 is not in the range x>=1"),
        (["--instances", "0"], "0 is not in the range x>=1"),
        (["no-such-file"], "Path 'no-such-file' does not exist"),
        ([], "bench train: DATASET is missing; give a COCO json or its folder"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong usage is one line on stderr and exit code 2."""
    assert main(["bench", "train", *arguments]) == 2
    out, err = capsys.readouterr()

    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_options_reach_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each option is a setting."""
    seen = []

    def fake(settings: TrainSettings) -> TrainReport:
        seen.append(settings)
        return TrainReport({"processor": "x"}, TrainTask("d", None, "m"), settings.quick)

    monkeypatch.setattr(train, "run", fake)
    words = "--model m --contestant fp32 --batch-size 3 --pictures 5 --instances 7 --repeat 9"
    more = "--min-size 64 --max-size 96 --threads 2 --device cpu --quick --json"
    given = [str(tmp_path), "--images", str(tmp_path), *words.split(), *more.split()]
    assert main(["bench", "train", *given]) == 0

    wanted = TrainSettings(tmp_path, tmp_path, "m", ("fp32",), 3, 5, 7, 9, 64, 96, 2, "cpu", True)
    assert seen == [wanted]


def test_help_is_light() -> None:
    """The command's help imports no torch: contestants are named without it."""
    code = (
        "import sys; from segcli.cli.main import main;"
        "assert main(['bench', 'train', '--help']) == 0;"
        "print(sorted({'torch', 'torchvision', 'numpy', 'rich'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.endswith("[]\n")
