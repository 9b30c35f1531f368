"""Options that several commands share. Each is validated in its callback; defaults come from `segcli.config`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from segcli.config import PredictConfig, load_settings
from segcli.console import VERBOSITY

F = TypeVar("F", bound=Callable[..., Any])


def defaults(config: type[Any]) -> dict[str, Any]:
    """Default of every field of a config class."""
    return {field.name: field.default for field in fields(config)}


_PREDICT = defaults(PredictConfig)
MAX_SEED = 2**32 - 1  # every generator takes as much


def refuse_without_model(
    ctx: click.Context, names: Iterable[str], hints: Mapping[str, str]
) -> None:
    """Refuse flags on the command line that say how a model is run, where predictions are given in its place.

    Args:
        ctx: of the command.
        names: of such options.
        hints: by name, what serves in its place.
    """
    for name in names:
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            flag, hint = f"--{name.replace('_', '-')}", hints.get(name)
            more = f"; {hint}" if hint else ""
            raise click.UsageError(
                f"{flag} needs --model; predictions are taken as they are{more}", ctx
            )


def apply_config(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Take the file's settings as this command's defaults, so that a flag still wins."""
    if value is None:
        return None
    settings = load_settings(value)
    known = {p.name for p in ctx.command.params if p.name and p.name != param.name}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise click.UsageError(
            f"{value}: unknown setting {unknown[0]!r} for `{ctx.command_path}`", ctx
        )
    ctx.default_map = {**(ctx.default_map or {}), **settings}
    return value


def _set_verbosity(_ctx: click.Context, param: click.Parameter, value: int) -> int:
    if value:
        VERBOSITY.level = 1 + value if param.name == "verbose" else 0
    return value


def common_options(function: F) -> F:
    """-v, -q and --debug, which work before and after a command's name."""
    for option in (
        click.option(
            "--debug", is_flag=True, expose_value=False, help="Show tracebacks of errors."
        ),
        click.option(
            "-q",
            "--quiet",
            is_flag=True,
            expose_value=False,
            callback=_set_verbosity,
            help="Say only what went wrong.",
        ),
        click.option(
            "-v",
            "--verbose",
            count=True,
            expose_value=False,
            callback=_set_verbosity,
            help="Say more.",
        ),
    ):
        function = option(function)
    return function


config_option = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    callback=apply_config,
    is_eager=True,
    expose_value=False,
    help="TOML file with settings (flags by their long names); flags win over it.",
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace an output that exists (only one that segcli made)."
)
device_option = click.option(
    "--device",
    default=_PREDICT["device"],
    show_default=True,
    metavar="auto|cpu|cuda[:N]|mps",
    help="Where the network runs.",
)


def _precision(*names: str, default: str, text: str) -> Callable[[F], F]:
    return click.option(
        "--precision", type=click.Choice(names), default=default, show_default=True, help=text
    )


precision_option = _precision(
    "auto",
    "fp32",
    "bf16",
    default=_PREDICT["precision"],
    text="Arithmetic of the network; auto: bf16 where the processor has it.",
)
_exact_option = _precision(
    "auto", "fp32", "bf16", default="fp32", text="Arithmetic of the network."
)
_int8_option = _precision(
    "auto",
    "fp32",
    "bf16",
    "int8",
    default=_PREDICT["precision"],
    text="Arithmetic of the network; auto: bf16 where the processor has it. int8 needs OpenVINO and costs accuracy.",
)
_engine_options = (
    click.option(
        "--compile/--no-compile",
        default=_PREDICT["compile"],
        help="On a CPU compile the trunk (Inductor; cached), on a GPU run CUDA graphs.  [default: on a CPU where the "
        "job is long enough to pay, on a GPU where the model can]",
    ),
    click.option(
        "--cpu-engine",
        type=click.Choice(["auto", "torch", "openvino"]),
        default=_PREDICT["cpu_engine"],
        show_default=True,
        help="What runs the trunk on a CPU; auto: OpenVINO where it is installed and measured faster.",
    ),
)
roi_align_option = click.option(
    "--roi-align",
    type=click.Choice(["auto", "triton", "gather", "torchvision"]),
    default="auto",
    show_default=True,
    help="Which RoIAlign runs; auto: triton on a GPU, gather on a CPU.",
)
batch_size_option = click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Pictures per forward pass.  [default: 1 on a CPU, 8 on a GPU]",
)
min_size_option = click.option(
    "--min-size",
    type=click.IntRange(min=16),
    default=None,
    metavar="PIXELS",
    help="Shorter side fed to the network.  [default: the model's own]",
)
max_size_option = click.option(
    "--max-size",
    type=click.IntRange(min=16),
    default=None,
    metavar="PIXELS",
    help="Longest side fed to the network.  [default: the model's own]",
)

conventions_option = click.option(
    "--conventions",
    default=_PREDICT["conventions"],
    metavar="NAME|FILE",
    help="Numerics of the weights, where their file does not tell: detectron2-r50, mmdetection-caffe … or a FILE.  "
    "[default: what the file tells]",
)


def compute_options(function: F) -> F:
    """--device, --precision, --roi-align, --min-size, --max-size and --conventions."""
    return _compute(function, precision_option)


def exact_options(function: F) -> F:
    """As `compute_options`, with fp32 unless asked otherwise: for figures that are compared."""
    return _compute(function, _exact_option)


def inference_options(function: F) -> F:
    """As `compute_options`, with int8, --compile and --cpu-engine."""
    return _compute(function, *_engine_options, _int8_option)


def _compute(function: F, *own: Any) -> F:
    options = (
        conventions_option, max_size_option, min_size_option, roi_align_option, *own, device_option
    )  # fmt: skip
    for option in options:
        function = option(function)
    return function


def split_names(
    _ctx: click.Context | None, _param: click.Parameter | None, value: Any
) -> tuple[str, ...]:
    """`a,b` and `--flag a --flag b` alike, and lists from a config file."""
    parts = [value] if isinstance(value, str) else list(value or ())
    return tuple(name.strip() for part in parts for name in str(part).split(",") if name.strip())
