"""`segcli bench`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from segcli.bench import roi_align
from segcli.bench.figures import Report
from segcli.bench.roi_align import Settings, run
from segcli.cli.main import main

QUICK = ["bench", "roi-align", "--device", "cpu", "--quick", "--workload", "mask", "--repeat", "1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workload", "boxes"], "'boxes' is not one of 'box-one-level'"),
        (["--repeat", "0"], "0 is not in the range x>=1"),
        (["--threads", "0"], "0 is not in the range x>=1"),
        (["--roi-align", "cuda"], "'cuda' is not one of 'auto', 'triton', 'gather'"),
        (["--device", "tpu"], "--device tpu: expected auto, cpu"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong usage is one line on stderr and exit code 2."""
    assert main(["bench", "roi-align", *arguments]) == 2
    out, err = capsys.readouterr()

    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_json_and_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Results on stdout, as JSON or as tables; what is timed is said on stderr."""
    assert main([*QUICK, "--json", "--roi-align", "torchvision"]) == 0
    out, err = capsys.readouterr()
    read = json.loads(out)
    assert err.startswith("RoIAlign by torchvision on ")
    assert {row["workload"] for row in read["rows"]} == {"mask"}

    assert main([*QUICK, "--roi-align", "torchvision"]) == 0
    assert "mask: mask head at inference, 1 × 2 RoIs" in capsys.readouterr().out


def test_options_reach_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each option is a setting."""
    seen = []

    def fake(settings: Settings) -> Report:
        seen.append(settings)
        return Report({"processor": "x", "threads": 1}, "cpu", "gather", 1.0)

    monkeypatch.setattr(roi_align, "run", fake)
    words = "--workload box --workload mask --repeat 7 --threads 3 --roi-align gather --device cpu"
    assert main(["bench", "roi-align", *words.split(), "--quick"]) == 0
    assert main(["bench", "roi-align"]) == 0

    assert seen == [Settings("cpu", "gather", ("box", "mask"), 7, True, 3), Settings()]


def test_a_wrong_result_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures of a wrong result are shown, marked, and the exit code is 1."""
    good = run(Settings("cpu", "torchvision", ("mask",), 1, quick=True))
    bad = replace(good, rows=[replace(good.rows[0], ok=False), *good.rows[1:]])
    monkeypatch.setattr(roi_align, "run", lambda _: bad)

    assert main(QUICK) == 1
    assert "WRONG" in capsys.readouterr().out


def test_help_is_light() -> None:
    """The command's help imports no torch: workloads are named without it."""
    code = (
        "import sys; from segcli.cli.main import main;"
        "assert main(['bench', 'roi-align', '--help']) == 0;"
        "print(sorted({'torch', 'torchvision', 'numpy', 'rich'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.endswith("[]\n")


BARE = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"pycocotools", "av", "tomli_w", "hotcoco", "yaml", "safetensors"}:
            raise ImportError(f"{name} is not installed here")

# the editable install's own finder goes too: the checkout is all there is
sys.meta_path = [Absent(), *(f for f in sys.meta_path if "editable" not in repr(f))]
sys.path.insert(0, sys.argv.pop(1))
from segcli.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_on_a_bare_machine(repository: Path, tmp_path: Path) -> None:
    """A GPU machine without pycocotools, PyAV and tomli-w, and with nothing but the checkout, can run it."""
    found = subprocess.run(
        [sys.executable, "-c", BARE, repository, *QUICK, "--json"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip

    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["backend"] == "gather"
