"""Detectors on small maps: their losses are torchvision's, their boxes lie in the image, every setting changes them."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from tests.tasks.helpers import drawn_boxes
from visionforge.config.schema import Backbone, Detector, ModelSettings
from visionforge.errors import SettingsError, WeightsError
from visionforge.models.anchors import Anchors
from visionforge.models.detection import (
    DetectionNetwork,
    build_detection_network,
    require_brought_detection,
    targets_of,
)

KINDS = ("fcos", "retinanet", "faster_rcnn")
MINI = Backbone(name="mini_cnn", pretrained=False)
SIDE = 32
IMAGES = torch.randn(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
LABELS = torch.from_numpy(drawn_boxes(6, SIDE))


def settings_of(**fields) -> Detector:
    return ModelSettings.model_validate({"detector": {"width": 32, **fields}}).detector


def built(seed=0, backbone=MINI, classes=2, size=SIDE, channels=3, **fields) -> DetectionNetwork:
    torch.manual_seed(seed)
    return build_detection_network(backbone, settings_of(**fields), channels, classes, size)[0]


class Levels(nn.Module):
    """The backbone and pyramid of a network, as torchvision's own forward pass asks for them."""

    def __init__(self, network):
        super().__init__()
        self.out_channels = 32
        self.inner = [network]  # which has this module in it

    def forward(self, images):
        return OrderedDict((str(level), each) for level, each in enumerate(self.inner[0]._maps(images)))


def of_torchvision(network):
    """Return torchvision's detector with the same weights, as anybody calls it: it scales by 1 and shifts by 0."""
    model = network.detector.model
    model.backbone = Levels(network)
    model.transform.image_mean, model.transform.image_std = [0.0] * 3, [1.0] * 3
    model.transform.min_size, model.transform.max_size = (SIDE,), SIDE
    model.detections_per_img = 10_000  # boxes without an area are none of ours, and are left out below
    return model


@pytest.mark.parametrize("name", KINDS)
def test_losses_and_boxes_are_those_of_torchvision(name):
    network, shifted = built(name=name, score_threshold=0.0), name == "faster_rcnn"
    targets = targets_of(LABELS)
    ours = targets if not shifted else [{**each, "labels": each["labels"] + 1} for each in targets]
    network.encoder.eval()  # statistics of batches would move
    torch.manual_seed(1)
    loss = network.losses(IMAGES, LABELS)
    network.eval()
    found = network(IMAGES)
    network.detector.train()
    model = of_torchvision(network)
    torch.manual_seed(1)
    each = model(list(IMAGES), ours)
    torch.testing.assert_close(loss, torch.stack(list(each.values())).sum())
    model.eval()
    with torch.no_grad():
        expected = model(list(IMAGES))
    for rows, boxes in zip(found, expected, strict=True):
        count = int((rows[:, 0] >= 0).sum())
        (solid,) = torch.where((boxes["boxes"][:, 2:] > boxes["boxes"][:, :2]).all(dim=1))
        solid = solid[: network.max_detections]
        assert count == len(solid) > 0
        torch.testing.assert_close(rows[:count, 2:], boxes["boxes"][solid])
        torch.testing.assert_close(rows[:count, 1], boxes["scores"][solid])
        assert torch.equal(rows[:count, 0].long() + shifted, boxes["labels"][solid])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("size", "channels", "classes"), [(28, 1, 1), (64, 3, 5)])
def test_boxes_have_the_form_that_tables_and_metrics_have(name, size, channels, classes):
    network = built(name=name, size=size, channels=channels, classes=classes, score_threshold=0.0, max_detections=7)
    network.eval()
    with torch.no_grad():
        found = network(torch.randn(3, channels, size, size))
    assert found.shape == (3, 7, 6)
    assert found.dtype == torch.float32
    for rows in found:
        there = rows[:, 0] >= 0
        assert bool((there[:-1] >= there[1:]).all())  # those without a box are the last
        assert not rows[~there][:, 1:].any()
        kinds, scores, boxes = rows[there, 0], rows[there, 1], rows[there, 2:]
        assert bool((kinds < classes).all() and (kinds == kinds.floor()).all())
        assert bool((scores[:-1] >= scores[1:]).all() and (scores <= 1).all())
        assert bool((boxes >= 0).all() and (boxes <= size).all() and (boxes[:, 2:] > boxes[:, :2]).all())


@pytest.mark.parametrize("name", ["retinanet", "faster_rcnn"])
def test_places_are_exact_in_lower_precision(name):
    """As under `trainer.precision: bf16-mixed`, whose numbers of 8 bits are whole pixels from 128 on."""
    network = built(name=name, score_threshold=0.0).eval()
    given = {}
    if name == "faster_rcnn":
        roi_heads = network.detector.model.roi_heads
        roi_heads.register_forward_pre_hook(lambda module, inputs: given.update(proposals=torch.cat(inputs[1])))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = network(IMAGES)
        loss = network.losses(IMAGES, LABELS)
    for places in (found[found[..., 0] >= 0][:, 2:], *given.values()):
        inside = places[(places > 0) & (places < SIDE)]
        assert inside.dtype == torch.float32
        assert float((inside != inside.bfloat16().float()).float().mean()) > 0.9
    assert loss.dtype == torch.float32


@pytest.mark.parametrize("name", KINDS)
def test_every_parameter_learns_also_of_pictures_without_boxes(name):
    network = built(name=name)
    network.losses(IMAGES, LABELS).backward()
    assert [key for key, value in network.named_parameters() if value.grad is None] == []
    nothing = torch.full((2, 1, 5), -1.0)
    assert bool(network.losses(IMAGES[:2], nothing).isfinite())


def test_the_loss_in_evaluation_mode_leaves_the_modes_as_they_were():
    network = built(name="faster_rcnn").eval()
    network.losses(IMAGES, LABELS)
    assert not any(module.training for module in network.modules())


def test_finer_maps_are_used_where_asked_for_and_too_coarse_ones_refused():
    resnet = Backbone(name="resnet18", pretrained=False)
    counts = {
        stride: len(built(backbone=resnet, size=64, finest_stride=stride)._maps(torch.zeros(1, 3, 64, 64)))
        for stride in (2, 4, 8)
    }
    assert counts == {2: 4, 4: 3, 8: 2}
    with pytest.raises(
        SettingsError, match=r"model\.detector\.finest_stride: 8 leaves no feature map of mini_cnn at 32"
    ):
        built(finest_stride=8)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("fcos", {"width": 64}),
        ("fcos", {"depth": 1}),
        ("retinanet", {"anchor_scale": 2.0}),
        ("faster_rcnn", {"anchor_scale": 2.0}),
        ("faster_rcnn", {"representation": 64}),
        ("fcos", {"score_threshold": 0.4}),
        ("fcos", {"nms_iou": 0.1}),
        ("retinanet", {"nms_iou": 0.1}),
        ("faster_rcnn", {"nms_iou": 0.1}),
        ("faster_rcnn", {"max_detections": 3}),
    ],
)
def test_a_setting_changes_what_is_found(name, change):
    one, other = (built(**{"name": name, "score_threshold": 0.0, **given}).eval() for given in ({}, change))
    with torch.no_grad():
        for network in (one, other):
            if isinstance(network.detector.model, FCOS):  # untrained, its boxes are too small to overlap
                network.detector.model.head.regression_head.bbox_reg.bias.fill_(2.0)
        found, changed = one(IMAGES), other(IMAGES)
    assert found.shape != changed.shape or not torch.equal(found, changed)


@pytest.mark.parametrize("size", [28, 64, 100])
@pytest.mark.parametrize("name", KINDS)
def test_anchors_lie_where_the_pixels_of_their_maps_do(name, size):
    """Also where the image is no multiple of the strides: a map of 13 pixels of stride 8 spans more than 100."""
    network = built(name=name, backbone=Backbone(name="resnet18", pretrained=False), size=size).eval()
    maps = network._maps(torch.zeros(1, 3, size, size))
    model = network.detector.model
    generator = model.rpn.anchor_generator if name == "faster_rcnn" else model.anchor_generator
    (anchors,) = generator(ImageList(torch.zeros(1, 3, size, size), [(size, size)]), maps)
    count = {"fcos": 1, "retinanet": 9, "faster_rcnn": 3}[name]
    start = 0
    for level, each in enumerate(maps):
        side, stride = each.shape[-1], 4 * 2**level
        assert (size - 1) // stride + 1 == side
        own = anchors[start : start + side**2 * count].view(side, side, count, 4)
        centres = (own[..., :2] + own[..., 2:]) / 2
        axis = torch.arange(side) * float(stride)
        torch.testing.assert_close(centres[..., 0], axis[None, :, None].expand(side, side, count))
        torch.testing.assert_close(centres[..., 1], axis[:, None, None].expand(side, side, count))
        start += side**2 * count
    assert start == len(anchors)


def test_anchors_are_those_of_torchvision_before_it_rounds_them():
    sizes, ratios = [(16.0, 20.0), (32.0, 40.0)], (0.5, 1.0, 2.0)
    maps, images = (
        [torch.zeros(2, 8, side, side) for side in (16, 8)],
        ImageList(torch.zeros(2, 3, 64, 64), [(64, 64)] * 2),
    )
    expected = AnchorGenerator(tuple(sizes), (ratios,) * 2)(images, maps)
    found = Anchors(sizes, ratios, (4, 8))(images, maps)
    assert len(found) == 2
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.round(), theirs)


def test_the_finest_maps_of_fcos_learn_tiny_objects():
    network = built(backbone=Backbone(name="resnet18", pretrained=False), finest_stride=1)
    assert network._maps(torch.zeros(1, 3, SIDE, SIDE))[0].shape[-1] == SIDE  # of stride 1
    tiny = torch.tensor([[[0.0, 4.5, 4.5, 7.5, 7.5]]])
    images, target = torch.zeros(1, 3, SIDE, SIDE), targets_of(tiny)
    with torch.no_grad():
        each = network.detector.losses(network._maps(images), images, target)
    assert float(each["bbox_regression"]) > 0  # a place has it as its object


@pytest.mark.parametrize("name", ["fcos", "faster_rcnn"])
def test_maps_between_which_one_is_missing_are_refused(name):
    with pytest.raises(SettingsError, match=rf"{name} needs maps .* are 4, 16; take retinanet, or another backbone"):
        settings_of(name=name).build((4, 16), 2, SIDE)
    settings_of(name="retinanet").build((4, 16), 2, SIDE)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "yolo"}, "fcos"),
        ({"width": 48}, "multiple of 32"),
        ({"finest_stride": 0}, "greater than or equal to 1"),
        ({"nms_iou": 0}, "greater than 0"),
        ({"max_detections": 1001}, "less than or equal to 1000"),
        ({"name": "fcos", "anchor_scale": 2.0}, "anchor_scale"),
    ],
)
def test_settings_that_are_not_allowed(fields, message):
    with pytest.raises(ValueError, match=message):
        settings_of(**fields)


def test_backbones_without_maps_and_files_that_are_too_small_are_refused():
    vit = Backbone(name="vit_tiny", pretrained=False)
    with pytest.raises(SettingsError, match="gives no feature maps of falling size, which a detector needs"):
        built(backbone=vit)
    with pytest.raises(WeightsError, match="mini_cnn"):
        require_brought_detection(MINI, settings_of(), 3, 2, SIDE, {"encoder.x": torch.zeros(3)})
    network = built()
    require_brought_detection(MINI, settings_of(), 3, 2, SIDE, network.state_dict())


def test_what_is_trained_first_is_all_above_the_backbone():
    network = built()
    heads = {name for name, _ in network.named_parameters() if name.startswith(network.parts.head)}
    assert heads == {name for name, _ in network.named_parameters() if not name.startswith("encoder.")}
    assert network.parts.stem in dict(network.named_parameters())
    assert all(network.get_submodule(stage) is not None for stage in network.parts.stages)
