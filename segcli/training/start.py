"""The network that training begins with: random weights, or others' weights with heads for these classes."""

from __future__ import annotations

from dataclasses import replace

import torch

from segcli.config import TrainConfig
from segcli.console import say
from segcli.data.training_set import box_sides
from segcli.errors import ModelError, UsageError
from segcli.models import ARCHITECTURES, Conventions, MaskRCNN
from segcli.models.spec import anchors_for_boxes
from segcli.preprocess import with_sizes
from segcli.published import PUBLISHED
from segcli.training.material import Material
from segcli.zoo import LoadedModel, load_model, new_model

_OFFLINE = "to train without the network give --model mask-rcnn-nano"
_SCORES = "roi_heads.box_predictor.cls_score."
_BOXES = "roi_heads.box_predictor.bbox_pred."
_MASKS = "roi_heads.mask_predictor.mask_fcn_logits."
_MOBILE_STAGES = (0, 3, 6, 12, 16)  # last part of the stem and of strides 4, 8, 16, 32


def starting_model(config: TrainConfig, material: Material) -> LoadedModel:
    """Weights for the classes of `material`, as `--model` asks.

    An architecture's name gives random weights, with anchors from the data where the architecture wants that. Weights
    keep their anchors and conventions; their predictor heads are made anew unless they know exactly these classes, in
    whatever order.
    """
    if config.model in ARCHITECTURES:
        if config.conventions is not None:
            raise UsageError(
                f"--conventions {config.conventions}: is for weights; {config.model} is an architecture "
                "and has its own"
            )
        return _random(config, material)
    try:
        given = load_model(config.model, config.conventions)
    except ModelError as error:
        row = PUBLISHED.get(config.model)
        hint = f"; {_OFFLINE}" if row is not None and row.reason is None else ""
        raise ModelError(f"{error}{hint}") from error
    spec = replace(given.spec, conventions=_sized(given.spec.conventions, config))
    if given.categories.names == material.categories.names:
        given.build()  # weights that do not fit are refused now, before anything of an old run is deleted
        return replace(given, spec=spec, categories=material.categories)
    if _same_in_another_order(given.categories.names, material.categories.names):
        say(f"{config.model} knows these classes in another order: its heads take that of the data")
        return _reordered(replace(given, spec=spec), material)
    say(
        f"{config.model} knows {len(given.categories.label_of_name())} classes, not just these: "
        f"its predictor heads are made anew for {', '.join(material.categories.names)}"
    )
    return _with_new_heads(replace(given, spec=spec), material, config.seed)


def _random(config: TrainConfig, material: Material) -> LoadedModel:
    model = new_model(config.model, material.categories, seed=config.seed)
    if ARCHITECTURES[config.model].norm == "frozen_batch":
        say(f"{config.model} is meant to start from weights; from random ones it learns slowly")
    conventions = _sized(model.spec.conventions, config)
    spec = replace(model.spec, conventions=conventions)
    if ARCHITECTURES[config.model].anchors_from_data:
        anchors = anchors_for_boxes(box_sides(material.pictures, conventions.preprocess))
        say(f"anchors from the data: {', '.join('/'.join(map(str, s)) for s in anchors.sizes)} px")
        spec = replace(spec, anchors=anchors)
    return _initialised(replace(model, spec=spec), config.seed)


def _initialised(model: LoadedModel, seed: int) -> LoadedModel:
    """The same record with fresh weights: the RPN's width follows the number of anchors."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return replace(model, state=MaskRCNN(model.spec).state_dict())


def _with_new_heads(model: LoadedModel, material: Material, seed: int) -> LoadedModel:
    spec = replace(model.spec, classes=len(material.categories))
    fresh = _initialised(replace(model, spec=spec), seed).state
    network = model.build()  # brings old names up to date
    heads = (_SCORES, _BOXES, _MASKS)
    kept = {k: v for k, v in network.state_dict().items() if not k.startswith(heads)}
    return replace(model, spec=spec, categories=material.categories, state={**fresh, **kept})


def _same_in_another_order(before: tuple[str, ...], names: tuple[str, ...]) -> bool:
    return sorted(before) == sorted(names) and len(set(names)) == len(names)


def _reordered(model: LoadedModel, material: Material) -> LoadedModel:
    """The same weights, the rows of each class where the data has that class; the background keeps its place."""
    before = model.categories.names
    old = torch.tensor([before.index(name) for name in material.categories.names])
    state = dict(model.build().state_dict())
    layout, K = model.spec.conventions.numerics.class_layout, len(old)
    for name, rows in state.items():
        groups = rows
        if name.startswith(_SCORES):
            classes = layout.score_classes(K)
        elif name.startswith(_BOXES):  # four rows a class
            classes, groups = layout.box_classes(K), rows.unflatten(0, (-1, 4))
        elif name.startswith(_MASKS):
            classes = layout.mask_classes(K)
        else:
            continue
        groups = groups.clone()
        groups[classes] = groups[classes][old]
        state[name] = groups.view_as(rows)
    return replace(model, categories=material.categories, state=state)


def _sized(conventions: Conventions, config: TrainConfig) -> Conventions:
    """The sizes that the user asked for, the detections that evaluation counts."""
    sizes = with_sizes(conventions.preprocess, config.min_size, config.max_size)
    kept = max(conventions.postprocess.max_detections, config.max_dets)
    return replace(
        conventions,
        preprocess=sizes,
        postprocess=replace(conventions.postprocess, max_detections=kept),
    )


def frozen_stages(asked: str | None, model: LoadedModel) -> str:
    """`--freeze`, resolved.

    Pre-trained backbones whose batch norms are fixed keep their stem and first stage, as in torchvision's references;
    others, and random weights (they carry their `seed`), are trained whole.
    """
    if asked is not None:
        return asked
    learned = ARCHITECTURES[model.spec.architecture].norm == "frozen_batch"
    return "2" if learned and "seed" not in model.info else "0"


def freeze_stages(network: MaskRCNN, stages: str) -> None:
    """Let the first stages keep their weights, and say so.

    Args:
        network: changed in place.
        stages: `0` (nothing) to `5`, of stem and stages of strides 4, 8, 16 and 32; or `backbone`, with the pyramid.
    """
    if stages == "backbone":
        network.backbone.requires_grad_(False)
        say("the backbone and its pyramid keep their weights (--freeze backbone)")
    elif stages != "0":
        for name, part in network.backbone.body.named_children():
            if name in _parts(network, int(stages)):
                part.requires_grad_(False)
        say(f"stages of the backbone that keep their weights: {stages} of 5 (--freeze {stages})")


def _parts(network: MaskRCNN, stages: int) -> set[str]:
    """Names of the backbone's parts that make its first stages, 1 to 5."""
    if ARCHITECTURES[network.spec.architecture].backbone == "mobilenet_v3_large":
        return {str(part) for part in range(_MOBILE_STAGES[stages - 1] + 1)}
    return {"conv1", "bn1", *(f"layer{stage}" for stage in range(1, stages))}
