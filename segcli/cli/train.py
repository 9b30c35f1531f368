"""`segcli train`: from a dataset to weights."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from segcli.cli.options import (
    common_options,
    compute_options,
    config_option,
    defaults,
    overwrite_option,
)
from segcli.cli.train_options import recipe_options
from segcli.config import TrainConfig

if TYPE_CHECKING:
    from segcli.annotations import Dataset
    from segcli.training.job import Job
    from segcli.training.material import Material
    from segcli.training.progress import Progress
    from segcli.training.world import World

_DEFAULT = defaults(TrainConfig)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Folder of the run.  [required but for --preview]",
)
@click.option(
    "--images",
    type=_FOLDER,
    metavar="DIR",
    help="Folder of the pictures.  [default: looked for near DATASET]",
)
@click.option(
    "--also",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="DATASET",
    help="Train on it too; classes are joined by name. May be given again.",
)
@click.option(
    "--also-images",
    type=_FOLDER,
    multiple=True,
    metavar="DIR",
    help="Folder of the pictures of the first --also; given again, of the second one.  [default: looked for near it]",
)
@click.option(
    "--val",
    type=click.Path(path_type=Path),
    metavar="DATASET",
    help="Validate on it, and keep the best weights by mask AP.",
)
@click.option(
    "--val-images", type=_FOLDER, metavar="DIR", help="Folder of the validation pictures."
)
@click.option(
    "--model",
    default=_DEFAULT["model"],
    show_default=True,
    metavar="MODEL|ARCH",
    help="Weights to start from, or an architecture for random ones (`segcli models list`).",
)
@recipe_options
@click.option(
    "--crowd-as-instance", is_flag=True, help="Train on iscrowd annotations as on any other."
)
@click.option(
    "--preview",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Only write pictures of the first batches, as the network would see them, to DIR.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on where RUN stopped; starts anew where RUN is empty.",
)
@compute_options
@overwrite_option
@config_option
@common_options
@click.pass_context
def train(ctx: click.Context, /, **options: Any) -> int:
    """Train or fine-tune a model on DATASET.

    DATASET is a COCO json, or a folder that holds one. RUN gets best.safetensors (the best weights by mask AP; without
    --val the last), last.ckpt (for --resume), metrics.jsonl and config.toml. Only RUN/best.safetensors is needed to
    predict: `--model RUN` names it.

    Ctrl-C and SIGTERM save a checkpoint first, and `kill -9` loses a few minutes at most: with --resume the run ends
    with the same weights as if it had never been stopped. On several GPUs: `torchrun --nproc-per-node 8 -m segcli
    train …`, with --batch-size for each.

    \b
    Example:
      segcli train data/train.json --val data/val.json --model mask-rcnn-nano --epochs 30 --output run
    """
    from segcli.training.world import device_of_process, joined_world

    if options["resume"] and options["overwrite"]:
        raise click.UsageError("found both --resume and --overwrite; give one of them")
    if options["output"] is None and options["preview"] is None:
        raise click.MissingParameter(ctx=ctx, param_hint="'--output'", param_type="option")
    _choose_length(ctx, options)
    if options["preview"] is not None:
        _preview(options)
        return 0
    with joined_world(device_of_process(options["device"])) as world:
        _train(options, world)
    return 0


def _train(options: dict[str, Any], world: World) -> None:
    """The run of this process; every process reads the datasets, rank 0 alone opens RUN."""
    from segcli.files import folder_lock
    from segcli.training.job import run
    from segcli.training.setup import prepare
    from segcli.training.together import prepare_together
    from segcli.training.world import was_restarted

    material, val = _read(options)
    config = _config(options)
    with ExitStack() as stack:

        def make_ready() -> Job:
            stack.enter_context(folder_lock(options["output"]))
            again = was_restarted()  # by torchrun: the run goes on by itself
            return prepare(
                material, val, config, folder=options["output"],
                resume=options["resume"] or again, overwrite=options["overwrite"] and not again,
                roi_align=options["roi_align"], world=world,
            )  # fmt: skip

        job = prepare_together(make_ready, material, val, config=config, world=world)
        progress = run(job)
        if world.is_main:
            _report(job, progress)


def _config(options: dict[str, Any]) -> TrainConfig:
    names = TrainConfig.__dataclass_fields__
    return TrainConfig(**{k: v for k, v in options.items() if k in names})


def _preview(options: dict[str, Any]) -> None:
    from segcli.training.setup import preview

    material, _ = _read(options)
    folder = options["preview"]
    paths = preview(material, _config(options), folder=folder, overwrite=options["overwrite"])
    click.echo(f"{len(paths)} pictures of training batches: {folder}")


def _read(options: dict[str, Any]) -> tuple[Material, Dataset | None]:
    """Training pictures packed, validation whole: absent pictures are misses, as in `segcli eval`."""
    from segcli.data.locate import open_dataset
    from segcli.evaluation.model import whole_truth
    from segcli.training.material import Material

    crowd = options["crowd_as_instance"]
    named = [(options["dataset"], options["images"]), *_also(options)]
    material = Material.of(
        [open_dataset(path, images, crowd_as_instance=crowd) for path, images in named]
    )
    if options["val"] is None:
        return material, None
    val = open_dataset(options["val"], options["val_images"], crowd_as_instance=crowd)
    return material, whole_truth(val, crowd_as_instance=crowd)


def _also(options: dict[str, Any]) -> list[tuple[Path, Path | None]]:
    """Each --also with its --also-images, by order; None where there are no more of them."""
    paths, folders = options["also"], options["also_images"]
    if len(folders) > len(paths):
        raise click.UsageError(
            f"found {len(folders)} --also-images for {len(paths)} --also; "
            "expected one at most for each; leave some out, or name their datasets with --also"
        )
    return list(zip(paths, [*folders, *[None] * (len(paths) - len(folders))], strict=True))


def _choose_length(ctx: click.Context, options: dict[str, Any]) -> None:
    """--epochs or --steps; the one that was given as a flag wins over the other in a config file."""
    given = [
        n for n in ("epochs", "steps") if ctx.get_parameter_source(n) == ParameterSource.COMMANDLINE
    ]
    if len(given) == 2:
        raise click.UsageError("found both --epochs and --steps; give one of them", ctx)
    if given:
        options["steps" if given == ["epochs"] else "epochs"] = None


def _report(job: Job, progress: Progress) -> None:
    ap = (
        ""
        if progress.best_ap is None
        else f", best mask AP {progress.best_ap:.3f} after epoch {progress.best_epoch}"
    )
    click.echo(
        f"{progress.step} steps in {progress.seconds:.0f} s{ap}; weights: {job.folder / 'best.safetensors'}"
    )
