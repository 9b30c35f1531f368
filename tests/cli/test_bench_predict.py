"""`segcli bench predict`: usage, and options that reach the run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from segcli.bench import predict
from segcli.bench.predict import Settings
from segcli.bench.predict_figures import Report
from segcli.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--contestant", "tf"], "'tf' is not one of 'stock', 'fp32', 'auto'"),
        (["--repeat", "0"], "0 is not in the range x>=1"),
        (["--limit", "0"], "0 is not in the range x>=1"),
        (["--threads", "0"], "0 is not in the range x>=1"),
        (["--score", "1.5"], "1.5 is not in the range 0<=x<=1"),
        (["--device", "tpu", "--quick"], "--device tpu: expected auto, cpu"),
        (["no-such-folder"], "Directory 'no-such-folder' does not exist"),
        (["."], "bench predict: --model is missing; give a folder of pictures and --model"),
        ([], "bench predict: PICTURES is missing; give a folder of pictures and --model"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong usage is one line on stderr and exit code 2."""
    assert main(["bench", "predict", *arguments]) == 2
    out, err = capsys.readouterr()

    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_options_reach_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each option is a setting."""
    seen = []

    def fake(settings: Settings) -> Report:
        seen.append(settings)
        return Report({"processor": "x", "threads": 1}, "cpu", "m")

    monkeypatch.setattr(predict, "run", fake)
    words = "--model m --contestant fp32 --contestant bf16 --score 0.05 --score 0.5 --repeat 7 --limit 3"
    more = "--min-size 64 --max-size 96 --threads 2 --device cpu --quick --json"
    assert main(["bench", "predict", str(tmp_path), *words.split(), *more.split()]) == 0
    assert main(["bench", "predict", "--quick"]) == 0

    assert seen == [
        Settings(tmp_path, "m", ("fp32", "bf16"), (0.05, 0.5), 7, 3, 64, 96, 2, "cpu", True),
        Settings(quick=True),
    ]


def test_help_is_light() -> None:
    """The command's help imports no torch: contestants are named without it."""
    code = (
        "import sys; from segcli.cli.main import main;"
        "assert main(['bench', 'predict', '--help']) == 0;"
        "print(sorted({'torch', 'torchvision', 'numpy', 'rich'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.endswith("[]\n")
