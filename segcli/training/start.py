"""The network that training begins with: random weights, or others' weights with heads for these classes."""

from __future__ import annotations

from dataclasses import replace

import torch

from segcli.annotations import Dataset
from segcli.config import TrainConfig
from segcli.console import say
from segcli.data.training_set import box_sides
from segcli.errors import ModelError
from segcli.models import ARCHITECTURES, Conventions, MaskRCNN
from segcli.models.spec import anchors_for_boxes
from segcli.preprocess import with_sizes
from segcli.zoo import PUBLISHED, LoadedModel, load_model, new_model

_OFFLINE = "to train without the network give --model mask-rcnn-nano"
_HEADS = ("roi_heads.box_predictor.", "roi_heads.mask_predictor.mask_fcn_logits.")


def starting_model(config: TrainConfig, dataset: Dataset) -> LoadedModel:
    """Weights for the classes of `dataset`, as `--model` asks.

    An architecture's name gives random weights, with anchors from the data where the architecture wants that. Weights
    keep their anchors and conventions; their predictor heads are made anew unless they know exactly these classes.
    """
    if config.model in ARCHITECTURES:
        return _random(config, dataset)
    try:
        given = load_model(config.model)
    except ModelError as error:
        hint = f"; {_OFFLINE}" if config.model in PUBLISHED else ""
        raise ModelError(f"{error}{hint}") from error
    spec = replace(given.spec, conventions=_sized(given.spec.conventions, config))
    if given.categories.names == dataset.categories.names:
        given.build()  # weights that do not fit are refused now, before anything of an old run is deleted
        return replace(given, spec=spec, categories=dataset.categories)
    say(
        f"{config.model} knows {len(given.categories.label_of_name())} classes, not just these: "
        f"its predictor heads are made anew for {', '.join(dataset.categories.names)}"
    )
    return _with_new_heads(replace(given, spec=spec), dataset, config.seed)


def _random(config: TrainConfig, dataset: Dataset) -> LoadedModel:
    model = new_model(config.model, dataset.categories, seed=config.seed)
    if ARCHITECTURES[config.model].norm == "frozen_batch":
        say(f"{config.model} is meant to start from weights; from random ones it learns slowly")
    conventions = _sized(model.spec.conventions, config)
    spec = replace(model.spec, conventions=conventions)
    if ARCHITECTURES[config.model].anchors_from_data:
        anchors = anchors_for_boxes(box_sides(dataset, conventions.preprocess))
        say(f"anchors from the data: {', '.join('/'.join(map(str, s)) for s in anchors.sizes)} px")
        spec = replace(spec, anchors=anchors)
    return _initialised(replace(model, spec=spec), config.seed)


def _initialised(model: LoadedModel, seed: int) -> LoadedModel:
    """The same record with fresh weights: the RPN's width follows the number of anchors."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return replace(model, state=MaskRCNN(model.spec).state_dict())


def _with_new_heads(model: LoadedModel, dataset: Dataset, seed: int) -> LoadedModel:
    spec = replace(model.spec, classes=len(dataset.categories))
    fresh = _initialised(replace(model, spec=spec), seed).state
    network = model.build()  # brings old names up to date
    kept = {k: v for k, v in network.state_dict().items() if not k.startswith(_HEADS)}
    return replace(model, spec=spec, categories=dataset.categories, state={**fresh, **kept})


def _sized(conventions: Conventions, config: TrainConfig) -> Conventions:
    """The sizes that the user asked for, the detections that evaluation counts."""
    sizes = with_sizes(conventions.preprocess, config.min_size, config.max_size)
    kept = max(conventions.postprocess.max_detections, config.max_dets)
    return replace(
        conventions,
        preprocess=sizes,
        postprocess=replace(conventions.postprocess, max_detections=kept),
    )


def freeze_early_layers(network: MaskRCNN, model: LoadedModel) -> None:
    """Pre-trained backbones keep their stem and first stage, as torchvision's references do (trainable layers 3).

    Random weights (they carry their `seed`) are trained whole.
    """
    if ARCHITECTURES[model.spec.architecture].norm != "frozen_batch" or "seed" in model.info:
        return
    for name, parameter in network.backbone.body.named_parameters():
        if name.startswith(("conv1", "bn1", "layer1")):
            parameter.requires_grad_(False)
