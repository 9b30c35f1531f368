"""Configs of both families give the conventions of the presets, and what they change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from segcli.models import Anchors
from segcli.models.presets import PRESETS, name_of
from segcli.weights import detectron2_config, mmdetection_config
from segcli.weights.python_config import read_config

_HEADS = """
    roi_head=dict(
        type='StandardRoIHead',
        bbox_roi_extractor=dict(type='SingleRoIExtractor', roi_layer=dict(type='RoIAlign', output_size=7,
            sampling_ratio=0), out_channels=256, featmap_strides=[4, 8, 16, 32]),
        bbox_head=dict(type='Shared2FCBBoxHead', num_classes=80, bbox_coder=dict(type='DeltaXYWHBBoxCoder',
            target_means=[0., 0., 0., 0.], target_stds=[0.1, 0.1, 0.2, 0.2]),
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False)),
        mask_roi_extractor=dict(type='SingleRoIExtractor', roi_layer=dict(type='RoIAlign', output_size=14,
            sampling_ratio=0), out_channels=256, featmap_strides=[4, 8, 16, 32])),
    test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=1000, nms=dict(type='nms', iou_threshold=0.7)),
        rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=100, mask_thr_binary=0.5)))
"""
_RPN = """
    rpn_head=dict(type='RPNHead', anchor_generator=dict(type='AnchorGenerator', scales=[8], ratios=[0.5, 1.0, 2.0],
        strides=[4, 8, 16, 32, 64]), bbox_coder=dict(target_means=[.0, .0, .0, .0], target_stds=[1., 1., 1., 1.])),
"""
TWO = f"""
img_norm_cfg = dict(mean=[MEAN], std=[STD], to_rgb=RGB)
model = dict(
    type='MaskRCNN',
    backbone=dict(type='ResNet', depth=50, norm_cfg=dict(type='BN', requires_grad=True), style='STYLE'),
    {_RPN}{_HEADS}
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='MultiScaleFlipAug', img_scale=(1333, 800), flip=False, transforms=[
        dict(type='Resize', keep_ratio=True), dict(type='RandomFlip'), dict(type='Normalize', **img_norm_cfg),
        dict(type='Pad', size_divisor=32), dict(type='ImageToTensor', keys=['img']), dict(type='Collect', keys=['img'])
    ])
]
data = dict(samples_per_gpu=2, test=dict(type='CocoDataset', pipeline=test_pipeline))
"""
THREE = f"""
model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[MEAN], std=[STD], bgr_to_rgb=RGB, pad_mask=True,
        pad_size_divisor=32),
    backbone=dict(type='ResNet', depth=50, norm_cfg=dict(type='BN', requires_grad=True), style='STYLE'),
    {_RPN}{_HEADS}
test_pipeline = [dict(type='LoadImageFromFile', backend_args=None), dict(type='Resize', scale=(1333, 800),
    keep_ratio=True), dict(type='LoadAnnotations', with_bbox=True, with_mask=True), dict(type='PackDetInputs')]
test_dataloader = dict(batch_size=1, dataset=dict(type='CocoDataset', pipeline=test_pipeline))
test_cfg = dict(type='TestLoop')
"""
ONE = """
/home/user/mmdetection/configs/mask_rcnn_r50_fpn_1x.py
# model settings
model = dict(
    type='MaskRCNN',
    pretrained='torchvision://resnet50',
    backbone=dict(type='ResNet', depth=50, num_stages=4, style='pytorch'),
    rpn_head=dict(type='RPNHead', in_channels=256, anchor_scales=[8], anchor_ratios=[0.5, 1.0, 2.0],
        anchor_strides=[4, 8, 16, 32, 64], target_means=[.0, .0, .0, .0], target_stds=[1.0, 1.0, 1.0, 1.0]),
    bbox_roi_extractor=dict(type='SingleRoIExtractor', roi_layer=dict(type='RoIAlign', out_size=7, sample_num=2),
        out_channels=256, featmap_strides=[4, 8, 16, 32]),
    bbox_head=dict(type='SharedFCBBoxHead', num_fcs=2, num_classes=81, target_means=[0., 0., 0., 0.],
        target_stds=[0.1, 0.1, 0.2, 0.2], reg_class_agnostic=False),
    mask_roi_extractor=dict(type='SingleRoIExtractor', roi_layer=dict(type='RoIAlign', out_size=14, sample_num=2),
        out_channels=256, featmap_strides=[4, 8, 16, 32]))
test_cfg = dict(rpn=dict(nms_across_levels=False, nms_pre=1000, nms_post=1000, max_num=1000, nms_thr=0.7,
    min_bbox_size=0), rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_thr=0.5), max_per_img=100,
    mask_thr_binary=0.5))
data_root = 'data/coco/'
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='MultiScaleFlipAug', img_scale=(1333, 800), flip=False,
    transforms=[dict(type='Resize', keep_ratio=True), dict(type='Normalize', **img_norm_cfg),
    dict(type='Pad', size_divisor=32)])]
data = dict(test=dict(ann_file=data_root + 'annotations/instances_val2017.json', pipeline=test_pipeline))
"""
VARIANTS = {
    "mmdetection-pytorch": ("123.675, 116.28, 103.53", "58.395, 57.12, 57.375", "True", "pytorch"),
    "mmdetection-caffe": ("103.53, 116.28, 123.675", "1.0, 1.0, 1.0", "False", "caffe"),
    "mmdetection-x101-32x8d": ("103.53, 116.28, 123.675", "57.375, 57.12, 58.395", "False", "pytorch"),
}  # fmt: skip


def mm_text(template: str, name: str) -> str:
    """A config as mmdetection stores it."""
    for word, value in zip(("MEAN", "STD", "RGB", "STYLE"), VARIANTS[name], strict=True):
        template = template.replace(word, value)
    return template


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("template", [TWO, THREE], ids=["2.x", "3.x"])
def test_mmdetection_configs_give_the_presets(template: str, name: str) -> None:
    """What was written down from their code, and what is read from their configs, agree."""
    found = mmdetection_config.finding(read_config(mm_text(template, name)), "test")
    assert name_of(found.conventions) == name
    assert found.anchors == Anchors()
    assert found.notes == ()


def test_mmdetection_1() -> None:
    """RoIAlign without the shift, two samples; the rest as in 2.x."""
    found = mmdetection_config.finding(read_config(ONE), "test")
    changes = {"numerics": {"roi_aligned": False, "roi_sampling_ratio": 2}}
    assert found.conventions == PRESETS["mmdetection-pytorch"].changed(changes)
    assert found.anchors == Anchors()


def test_mmdetection_changes_are_followed() -> None:
    """Sizes, NMS, number of objects, eps, anchors; settings of the RPN that stay ours are said."""
    text = mm_text(TWO, "mmdetection-pytorch")
    for old, new in (
        ("(1333, 800), flip", "[(2000, 1200), (1000, 600)], flip"), ("size_divisor=32", "size_divisor=64"),
        ("max_per_img=100,", "max_per_img=300,"),
        ("nms=dict(type='nms', iou_threshold=0.5)", "nms=dict(iou_threshold=0.6)"),
        ("requires_grad=True)", "requires_grad=True, eps=0.001)"), ("scales=[8]", "scales=[2, 4]"),
        ("max_per_img=1000", "max_per_img=2000"),
    ):  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    found = mmdetection_config.finding(read_config(text), "test")
    before, after = found.conventions.preprocess, found.conventions.postprocess
    assert (before.min_size, before.max_size, before.pad_multiple) == (1200, 2000, 64)
    assert (after.max_detections, after.nms_iou) == (300, 0.6)
    assert found.conventions.numerics.bn_eps == 0.001
    assert found.anchors is not None
    assert found.anchors.sizes == ((8, 16), (16, 32), (32, 64), (64, 128), (128, 256))
    assert found.notes == ("its RPN was tested with max_per_img 2000, here with 1000",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("type='MaskRCNN'", "type='CascadeRCNN'", "model.type = 'CascadeRCNN'", id="cascade"),
        pytest.param("type='nms', iou_threshold=0.5", "type='soft_nms', iou_threshold=0.5", "soft_nms", id="soft NMS"),
        pytest.param("[0.1, 0.1, 0.2, 0.2]", "[0.05, 0.05, 0.1, 0.1]", "target_stds", id="stds"),
        pytest.param("mask_thr_binary=0.5", "mask_thr_binary=0.3", "mask_thr_binary", id="mask threshold"),
        pytest.param("use_sigmoid=False", "use_sigmoid=True", "use_sigmoid", id="sigmoid"),
        pytest.param("style='pytorch'", "style='pytorch', dcn=dict(type='DCN')", "dcn", id="dcn"),
        pytest.param("keep_ratio=True", "keep_ratio=False", "keep_ratio", id="aspect"),
        pytest.param("max_per_img=100,", "max_per_img=many,", "max_per_img is unknown", id="a name"),
        pytest.param("mean=[123.675, 116.28, 103.53]", "mean=other.mean", "mean is unknown", id="unknown"),
        pytest.param("test_pipeline", "other_pipeline", "no test pipeline", id="no pipeline"),
        pytest.param(
            "output_size=14,\n            sampling_ratio=0", "output_size=14, sampling_ratio=2",
            "pool differently", id="pooling",
        ),
    ],
)  # fmt: skip
def test_mmdetection_settings_that_cannot_be_followed(old: str, new: str, message: str) -> None:
    """Refused by their name, not passed over."""
    text = mm_text(TWO, "mmdetection-pytorch")
    assert old in text
    if old == "test_pipeline":
        text = text.replace("pipeline=test_pipeline", "x=1")
    with pytest.raises(ValueError, match=message):
        mmdetection_config.finding(read_config(text.replace(old, new)), "test")


_R50 = """
_BASE_: "../Base-RCNN-FPN.yaml"
MODEL:
  WEIGHTS: "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
  MASK_ON: True
  RESNETS: {DEPTH: 50}
SOLVER: {STEPS: (210000, 250000), MAX_ITER: 270000}
"""
_X101 = """
_BASE_: "../Base-RCNN-FPN.yaml"
MODEL:
  PIXEL_STD: [57.375, 57.120, 58.395]
  RESNETS: {STRIDE_IN_1X1: False, NUM_GROUPS: 32, WIDTH_PER_GROUP: 8, DEPTH: 101}
"""


@pytest.mark.parametrize(("text", "name"), [(_R50, "detectron2-r50"), (_X101, "detectron2-x101")])
def test_detectron2_configs_give_the_presets(text: str, name: str, tmp_path: Path) -> None:
    """Its zoo's files, whose base is known without being there."""
    (tmp_path / "config.yaml").write_text(text)
    found = detectron2_config.finding(detectron2_config.read_yaml(tmp_path / "config.yaml"), "test")
    assert name_of(found.conventions) == name
    assert found.anchors == Anchors()


def test_detectron2_bases_are_read_relative_to_the_file(tmp_path: Path) -> None:
    """Of several, the nearer wins."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "Base-RCNN-FPN.yaml").write_text(
        "MODEL: {RESNETS: {STRIDE_IN_1X1: False}}\nTEST: {DETECTIONS_PER_IMAGE: 7}"
    )
    (tmp_path / "configs" / "middle.yaml").write_text(
        '_BASE_: "../Base-RCNN-FPN.yaml"\nINPUT: {MIN_SIZE_TEST: 640, FORMAT: RGB}'
    )
    own = tmp_path / "configs" / "config.yaml"
    own.write_text(
        "_BASE_: middle.yaml\nINPUT: {MIN_SIZE_TEST: 608}\nMODEL: {"
        "ANCHOR_GENERATOR: {SIZES: [[8, 16]], ASPECT_RATIOS: [[1.0]]}, RPN: {POST_NMS_TOPK_TEST: 500}}"
    )  # fmt: skip
    found = detectron2_config.finding(detectron2_config.read_yaml(own), "test")
    before = found.conventions.preprocess
    assert (before.min_size, before.channel_order) == (608, "rgb")
    assert found.conventions.numerics.stride_in_1x1 is False
    assert found.conventions.postprocess.max_detections == 7
    assert found.anchors == Anchors(((8, 16),) * 5, (1.0,))
    assert found.notes == ("MODEL.RPN.POST_NMS_TOPK_TEST is 500, here 1000",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "no detectron2 config", id="empty"),
        pytest.param("- 1\n- 2", "no detectron2 config", id="a list"),
        pytest.param("a: [", "no plain YAML", id="broken"),
        pytest.param("MODEL: !!python/object/apply:os.system ['true']", "no plain YAML", id="code"),
        pytest.param("_BASE_: other.yaml\nMODEL: {}", r"other\.yaml is not there", id="base"),
        pytest.param("_BASE_: http://a/b.yaml\nMODEL: {}", "expected the name of a file", id="address"),
        pytest.param("_BASE_: config.yaml\nMODEL: {}", "circle", id="circle"),
        pytest.param("MODEL: {META_ARCHITECTURE: RetinaNet}", "META_ARCHITECTURE = 'RetinaNet'", id="retina"),
        pytest.param("MODEL: {BACKBONE: {NAME: build_resnet_backbone}}", "build_resnet_backbone", id="C4"),
        pytest.param("MODEL: {FPN: {NORM: GN}}", "FPN.NORM = 'GN'", id="norm"),
        pytest.param("MODEL: {ROI_HEADS: {NAME: CascadeROIHeads}}", "CascadeROIHeads", id="cascade"),
        pytest.param("MODEL: {ROI_BOX_HEAD: {POOLER_TYPE: ROIPool}}", "pooling 'ROIPool'", id="pool"),
        pytest.param("MODEL: {PIXEL_MEAN: [1, 2]}", "expected 3 numbers", id="mean"),
        pytest.param("MODEL: &m\n  A: *m", "more settings", id="a table in itself"),
        pytest.param("MODEL: {ANCHOR_GENERATOR: {OFFSET: [1]}}", "OFFSET is .* expected a number", id="offset"),
        pytest.param("MODEL: {}\nINPUT: {FORMAT: YUV-BT.601}", "INPUT.FORMAT is", id="order"),
    ],
)  # fmt: skip
def test_detectron2_configs_that_cannot_be_followed(
    text: str, message: str, tmp_path: Path
) -> None:
    """Refused by the setting's name; YAML never makes objects."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        detectron2_config.finding(detectron2_config.read_yaml(path), "test")


def test_a_config_that_doubles_itself_is_no_trap() -> None:
    """Parts that hold each other twice, forty times over, are neither walked nor printed as a whole."""
    lines = ["p0 = [dict(type='A', transforms=[])]"]
    for k in range(60):
        lines.append(
            f"p{k + 1} = [dict(type='A', transforms=p{k}), dict(type='A', transforms=p{k})]"
        )
    text = mm_text(TWO, "mmdetection-pytorch").replace("pipeline=test_pipeline", "pipeline=p60")
    with pytest.raises(ValueError, match="scale of its test pipeline is None"):
        mmdetection_config.finding(read_config("\n".join(lines) + text), "test")
    text = mm_text(TWO, "mmdetection-pytorch").replace("img_scale=(1333, 800)", "img_scale=p60")
    with pytest.raises(ValueError, match="expected 2 numbers") as caught:
        mmdetection_config.finding(read_config("\n".join(lines) + text), "test")
    assert len(str(caught.value)) < 1000


def test_configs_that_mmdetection_itself_ran(shared: Callable[[str], Path]) -> None:
    """The model parts of the fixtures, as mmdetection 3.3 had them when it made the outputs."""
    for folder, name in (
        ("mm_mask_rcnn_r50_fpn", "mmdetection-pytorch"),
        ("mm_mask_rcnn_r101_fpn", "mmdetection-pytorch"),
        ("mm_mask_rcnn_x101_32x4d_fpn", "mmdetection-pytorch"),
        ("mm_mask_rcnn_r50_caffe_fpn", "mmdetection-caffe"),
    ):
        record = json.loads(
            shared(f"fixtures/{folder}/state_dict.json").read_text(encoding="utf-8")
        )
        model = {"type": "MaskRCNN", **record["conventions"]}
        pipeline = [{"type": "Resize", "scale": (1333, 800), "keep_ratio": True}]
        text = f"model = {model!r}\ntest_dataloader = dict(dataset=dict(pipeline={pipeline!r}))"
        found = mmdetection_config.finding(read_config(text), "test")
        assert name_of(found.conventions) == name
        assert found.notes == ()


def test_conventions_that_detectron2_itself_ran(shared: Callable[[str], Path]) -> None:
    """What the fixtures recorded of its configs gives the presets."""
    for folder, name in (
        ("d2_mask_rcnn_R_50_FPN_3x", "detectron2-r50"),
        ("d2_mask_rcnn_X_101_32x8d_FPN_3x", "detectron2-x101"),
    ):
        record = json.loads(
            shared(f"fixtures/{folder}/state_dict.json").read_text(encoding="utf-8")
        )
        ran = record["conventions"]
        config = {
            "MODEL.PIXEL_MEAN": ran["pixel_mean"], "MODEL.PIXEL_STD": ran["pixel_std"],
            "MODEL.RESNETS.STRIDE_IN_1X1": ran["stride_in_1x1"], "INPUT.FORMAT": ran["format"],
            "INPUT.MIN_SIZE_TEST": ran["min_size_test"], "INPUT.MAX_SIZE_TEST": ran["max_size_test"],
            "MODEL.ROI_BOX_HEAD.POOLER_TYPE": ran["roi_box_pooler"],
            "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": ran["sampling_ratio"],
            "MODEL.ANCHOR_GENERATOR.SIZES": ran["anchor_sizes"],
            "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": ran["aspect_ratios"],
            "MODEL.ANCHOR_GENERATOR.OFFSET": ran["anchor_offset"],
            "MODEL.RPN.PRE_NMS_TOPK_TEST": ran["pre_nms_topk_test"],
            "MODEL.RPN.POST_NMS_TOPK_TEST": ran["post_nms_topk_test"], "MODEL.RPN.NMS_THRESH": ran["rpn_nms"],
            "MODEL.ROI_HEADS.NMS_THRESH_TEST": ran["nms"], "TEST.DETECTIONS_PER_IMAGE": ran["max_det"],
            "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": ran["box_reg_weights"],
        }  # fmt: skip
        found = detectron2_config.finding(config, "test")
        assert name_of(found.conventions) == name
        assert found.anchors == Anchors()
        assert found.notes == ()
