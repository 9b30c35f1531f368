"""Settings: defaults once, saved and read back, unknown ones refused."""

from __future__ import annotations

import tomllib
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import click
import pytest

from segcli import config
from segcli.cli import main as program
from segcli.cli.options import config_option, defaults, split_names
from segcli.config import DrawConfig, PredictConfig, TrainConfig
from segcli.errors import UsageError

CONFIGS = [TrainConfig, PredictConfig, DrawConfig]


def written(tmp_path: Path, text: str | bytes) -> Path:
    """A file of that content."""
    path = tmp_path / "settings.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


@pytest.mark.parametrize("kind", CONFIGS)
def test_frozen(kind: Any) -> None:
    """Settings do not change once made."""
    made = kind()
    name = next(iter(defaults(kind)))
    with pytest.raises(FrozenInstanceError):
        setattr(made, name, None)


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_field_is_documented(kind: Any) -> None:
    """Each field has its line in the class's docstring."""
    for name in defaults(kind):
        assert f"\n        {name}:" in kind.__doc__


@pytest.mark.parametrize("kind", CONFIGS)
def test_defaults_round_trip(kind: Any, tmp_path: Path) -> None:
    """Saved and read back, defaults are the same settings; None is left out, since TOML has no null."""
    settings = config.to_settings(kind())
    path = written(tmp_path, config.dump("predict", settings, {"device": "cpu", "absent": None}))
    found = config.load_settings(path)

    assert found == settings
    assert None not in settings.values()
    lists = {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}
    assert kind(**lists) == kind()


def test_changed_settings_round_trip(tmp_path: Path) -> None:
    """Values of every kind come back, awkward text too."""
    given = PredictConfig(
        model='ü "quoted"\n\\path', score=0.1 + 0.2, classes=("a,b", "c"), allow_truncated=True
    )
    path = written(tmp_path, config.dump("predict", config.to_settings(given), {}))
    found = config.load_settings(path)

    assert PredictConfig(**{**found, "classes": tuple(found["classes"])}) == given


def test_saved_file_names_program_command_and_resolved_values() -> None:
    """A saved file says who made it, and what settings resolved to, without nulls at any depth."""
    text = config.dump("train", {"lr": 0.1}, {"a": None, "deep": {"b": None, "c": {"d": None}}})
    table = tomllib.loads(text)

    assert table["command"] == "train"
    assert table["schema"] == config.SCHEMA
    assert table["segcli"]
    assert table["settings"] == {"lr": 0.1}
    assert table["resolved"] == {"deep": {"c": {}}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", {}, id="empty"),
        pytest.param("# only a comment\n", {}, id="comment"),
        pytest.param("batch-size = 4\n", {"batch_size": 4}, id="flag's spelling"),
        pytest.param("batch_size = 4\n", {"batch_size": 4}, id="python's spelling"),
        pytest.param("[settings]\nlr = 1.5\n", {"lr": 1.5}, id="saved form"),
        pytest.param("lr = 2\n[settings]\nlr = 1\n", {"lr": 2}, id="the outer one wins"),
        pytest.param(
            'segcli = "9"\nschema = 1\ncommand = "x"\n[resolved]\nlr = 1\n', {}, id="informative"
        ),
        pytest.param("colour = 1\n", {"colour": 1}, id="unknown, for the command to refuse"),
    ],
)
def test_load_settings(text: str, expected: dict[str, Any], tmp_path: Path) -> None:
    """Hand-written and saved files are read alike; what only informs is skipped."""
    assert config.load_settings(written(tmp_path, text)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("lr = ", "not a TOML file", id="broken"),
        pytest.param("lr: 1\n", "not a TOML file", id="yaml"),
        pytest.param("a = 1\na = 2\n", "not a TOML file", id="twice"),
        pytest.param(b"a = '\xff'\n", "not a TOML file", id="not UTF-8"),
        pytest.param("settings = 3\n", "`settings` should be a table, found int", id="no table"),
        pytest.param(None, "cannot read settings", id="absent"),
    ],
)
def test_unreadable_settings(text: str | bytes | None, message: str, tmp_path: Path) -> None:
    """A file that holds no settings is a usage error that names it."""
    path = tmp_path / "absent.toml" if text is None else written(tmp_path, text)
    with pytest.raises(UsageError, match=message) as caught:
        config.load_settings(path)

    assert str(caught.value).startswith(str(path))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a small command of the program, `probe`, was called with."""
    calls: list[dict[str, Any]] = []

    @click.command()
    @click.option("--score", type=click.FloatRange(0, 1), default=0.05)
    @click.option("--batch-size", type=int, default=None)
    @click.option("--classes", type=click.UNPROCESSED, callback=split_names)
    @click.option("--masks/--no-masks", default=False)
    @click.option("--model", required=True)
    @config_option
    def probe(**options: Any) -> None:
        calls.append(options)

    monkeypatch.setattr(program.LazyGroup, "get_command", lambda *_: probe)
    return calls


WHOLE = 'score = 0.5\nbatch-size = 8\nclasses = ["a", "b"]\nmasks = true\nmodel = "m"\n'


@pytest.mark.parametrize(
    ("text", "flags", "expected"),
    [
        pytest.param("model = 'm'\n", [], {"score": 0.05, "masks": False}, id="default"),
        pytest.param(WHOLE, [], {"score": 0.5, "batch_size": 8, "classes": ("a", "b"), "masks": True}, id="file"),
        pytest.param(WHOLE, ["--score", "0.7"], {"score": 0.7, "batch_size": 8}, id="flag"),
        pytest.param(WHOLE, ["--no-masks"], {"masks": False}, id="flag that says no"),
        pytest.param(WHOLE, ["--classes", "c"], {"classes": ("c",)}, id="flag for a list"),
        pytest.param(WHOLE, ["--model", "n"], {"model": "n"}, id="flag for what is required"),
        pytest.param(f"[settings]\n{WHOLE}", [], {"score": 0.5, "model": "m"}, id="saved"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("first", [True, False], ids=["config first", "config last"])
def test_flag_wins_over_file_over_default(
    text: str, flags: list[str], expected: dict[str, Any], first: bool, tmp_path: Path,
    seen: list[dict[str, Any]],
) -> None:  # fmt: skip
    """A flag counts most, then the file, then the default, wherever --config stands."""
    given = ["--config", str(written(tmp_path, text))]

    assert program.main(["probe", *given, *flags] if first else ["probe", *flags, *given]) == 0
    assert seen[0] | expected == seen[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("colour = 1\nmodel = 'm'\n", "unknown setting 'colour'", id="unknown"),
        pytest.param("config = 'x'\nmodel = 'm'\n", "unknown setting 'config'", id="itself"),
        pytest.param("score = 2\nmodel = 'm'\n", "score", id="out of range"),
        pytest.param("score = 'a'\nmodel = 'm'\n", "score", id="no number"),
        pytest.param("lr = \n", "not a TOML file", id="broken"),
        pytest.param("score = 0.5\n", "--model", id="required one missing"),
    ],
)
def test_bad_settings_are_usage_errors(
    text: str,
    message: str,
    tmp_path: Path,
    seen: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What a command does not know, or cannot take, is one line and exit code 2."""
    assert program.main(["probe", "--config", str(written(tmp_path, text))]) == 2

    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert seen == []
