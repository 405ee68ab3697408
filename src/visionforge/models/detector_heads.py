"""The detectors of torchvision on the maps of a feature pyramid, without what would scale and normalise images anew.

Their parts are called one by one: the images of a batch have one size and are normalised already. Everything after the
convolutions is computed in float32.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from visionforge.config.schema import Detector
from visionforge.models.anchors import Anchors, require_doubling

Target = dict[str, Tensor]  # of an image: `boxes` (M, 4) in pixels and `labels` (M,) int64
Found = dict[str, Tensor]  # the same, and `scores` (M,) falling
OCTAVE = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))  # sizes of RetinaNet's anchors on a map (section 4)
RATIOS = (0.5, 1.0, 2.0)  # height by width of anchors
REGION = 7  # pixels of a region that is cut out of a map
REGION_STRIDES = 16  # a map gives the regions of which a side has fewer of its pixels
PROPOSALS = 300  # regions of an image that are looked at; Ren et al. lose nothing by it (table 2), others take 1,000
TRAINED_REGIONS = 128  # of an image, as there; a small one has few objects
GROUP = 32  # groups of channels that are normalised together, as torchvision does in the heads of FCOS


class Head(Protocol):
    """What finds boxes in the maps of a pyramid; a module."""

    def losses(self, maps: list[Tensor], images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Return the losses of a batch by name, scalars.

        Args:
            maps: (N, width, H/s, W/s) from the finest to the coarsest.
            images: (N, C, H, W), of which the size counts.
            targets: What is in each image.
        """

    def detect(self, maps: list[Tensor], images: Tensor) -> list[Found]:
        """Return what is found in each image, by falling score."""


class Given(nn.Module):
    """Stands where torchvision's detectors have their backbone, whose maps are given to them here.

    Args:
        width: Channels of the maps.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_channels = width


class DenseHead(nn.Module):
    """A detector of one stage, which says something at every place of every map: FCOS or RetinaNet.

    Args:
        model: The detector.
    """

    def __init__(self, model: FCOS | RetinaNet) -> None:
        super().__init__()
        self.model = model

    def losses(self, maps: list[Tensor], images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Return the losses of a batch by name; see `Head`."""
        outputs, anchors, counts = self._outputs(maps, images)
        model: Any = self.model
        each: dict[str, Tensor] = (
            model.compute_loss(targets, outputs, anchors, counts)
            if isinstance(model, FCOS)
            else model.compute_loss(targets, outputs, anchors)
        )
        return each

    def detect(self, maps: list[Tensor], images: Tensor) -> list[Found]:
        """Return what is found in each image; see `Head`."""
        outputs, anchors, counts = self._outputs(maps, images)
        per_place = [len(anchors[0]) // sum(counts)] * len(counts)
        sizes = [count * each for count, each in zip(counts, per_place, strict=True)]
        split = {name: list(torch.split(values, sizes, dim=1)) for name, values in outputs.items()}
        model: Any = self.model
        found: list[Found] = model.postprocess_detections(
            split, [list(torch.split(each, sizes)) for each in anchors], _sizes(images)
        )
        return found

    def _outputs(self, maps: list[Tensor], images: Tensor) -> tuple[dict[str, Tensor], list[Tensor], list[int]]:
        """Return what the head says, the anchors of each image, and the number of places of each map."""
        model: Any = self.model
        outputs = {name: values.float() for name, values in model.head(maps).items()}
        anchors = model.anchor_generator(ImageList(images, _sizes(images)), [each.float() for each in maps])
        return outputs, anchors, [each.shape[2] * each.shape[3] for each in maps]


class RegionHead(nn.Module):
    """A detector of two stages, Faster R-CNN; torchvision counts its classes from 1, 0 is the background.

    Args:
        model: The detector.
    """

    def __init__(self, model: FasterRCNN) -> None:
        super().__init__()
        self.model = model
        parts: Any = model
        for part in (parts.rpn.head, parts.roi_heads.box_predictor):  # boxes are decoded in the type of what they give
            part.register_forward_hook(_in_float32)

    def losses(self, maps: list[Tensor], images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Return the losses of a batch by name; see `Head`. It computes them in training mode only, so it is in it."""
        counted = [{**target, "labels": target["labels"] + 1} for target in targets]
        with _training(self.model):
            proposals, of_proposals = self._proposals(maps, images, counted)
            model: Any = self.model
            _, of_boxes = model.roi_heads(_named(maps), proposals, _sizes(images), counted)
        return {**of_proposals, **of_boxes}

    def detect(self, maps: list[Tensor], images: Tensor) -> list[Found]:
        """Return what is found in each image; see `Head`."""
        proposals, _ = self._proposals(maps, images, None)
        model: Any = self.model
        found, _ = model.roi_heads(_named(maps), proposals, _sizes(images))
        return [{**each, "labels": each["labels"] - 1} for each in found]

    def _proposals(
        self, maps: list[Tensor], images: Tensor, targets: list[Target] | None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        model: Any = self.model
        proposals, losses = model.rpn(ImageList(images, _sizes(images)), _named(maps), targets)
        return proposals, losses


def _in_float32(module: nn.Module, inputs: Any, output: Any) -> Any:
    """Return the tensors that a module gives, or lists of them, in float32, also under autocast."""
    if isinstance(output, Tensor):
        return output.float()
    return type(output)(_in_float32(module, inputs, each) for each in output)


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """Put a module into training mode for a while; it has no normalisation, so nothing else changes."""
    modes = {module: module.training for module in model.modules()}
    model.train()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _sizes(images: Tensor) -> list[tuple[int, int]]:
    return [(images.shape[-2], images.shape[-1])] * len(images)


def _named(maps: list[Tensor]) -> OrderedDict[str, Tensor]:
    return OrderedDict((str(level), each.float()) for level, each in enumerate(maps))


def _common(settings: Detector) -> dict[str, Any]:
    """Return what FCOS and RetinaNet are told alike."""
    return {
        "score_thresh": settings.score_threshold,
        "nms_thresh": settings.nms_iou,
        "detections_per_img": settings.max_detections,
    }


def fcos_head(settings: Detector, strides: Sequence[int], classes: int, depth: int) -> DenseHead:
    """Return FCOS.

    Args:
        settings: What all detectors have.
        strides: Input pixels per pixel of each map.
        classes: Number of classes K.
        depth: Convolutions of each branch.
    """
    require_doubling("fcos", strides)
    anchors = Anchors([(stride,) for stride in strides], (1.0,), strides)
    head = FCOSHead(settings.width, 1, classes, num_convs=depth)
    return DenseHead(FCOS(Given(settings.width), classes, anchor_generator=anchors, head=head, **_common(settings)))


def retinanet_head(settings: Detector, strides: Sequence[int], classes: int, scale: float) -> DenseHead:
    """Return RetinaNet.

    Args:
        settings: What all detectors have.
        strides: Input pixels per pixel of each map.
        classes: Number of classes K.
        scale: Side of the smallest anchors, in pixels of their map.
    """
    anchors = Anchors([[scale * stride * step for step in OCTAVE] for stride in strides], RATIOS, strides)
    norm = partial(nn.GroupNorm, GROUP)  # without it the classes of small data sets are hardly learnt
    head = RetinaNetHead(settings.width, len(OCTAVE) * len(RATIOS), classes, norm_layer=norm)
    return DenseHead(
        RetinaNet(Given(settings.width), classes, anchor_generator=anchors, head=head, **_common(settings))
    )


def faster_rcnn_head(
    settings: Detector, strides: Sequence[int], classes: int, scale: float, representation: int
) -> RegionHead:
    """Return Faster R-CNN.

    Args:
        settings: What all detectors have.
        strides: Input pixels per pixel of each map, powers of two.
        classes: Number of classes K.
        scale: Side of the anchors, in pixels of their map.
        representation: Units of the two layers by which a region is looked at.
    """
    require_doubling("faster_rcnn", strides)
    anchors = Anchors([(scale * stride,) for stride in strides], RATIOS, strides)
    names = [str(level) for level in range(len(strides))]
    pool = MultiScaleRoIAlign(
        names,
        REGION,
        sampling_ratio=2,
        canonical_scale=REGION_STRIDES * strides[0],
        canonical_level=round(math.log2(strides[0])) + 1,
    )
    proposals = max(PROPOSALS, settings.max_detections)
    model = FasterRCNN(
        Given(settings.width),
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(settings.width, len(RATIOS)),
        rpn_pre_nms_top_n_train=2 * PROPOSALS,
        rpn_pre_nms_top_n_test=2 * proposals,
        rpn_post_nms_top_n_train=PROPOSALS,
        rpn_post_nms_top_n_test=proposals,
        box_batch_size_per_image=TRAINED_REGIONS,
        box_roi_pool=pool,
        box_head=TwoMLPHead(settings.width * REGION**2, representation),
        box_predictor=FastRCNNPredictor(representation, classes + 1),
        box_score_thresh=settings.score_threshold,
        box_nms_thresh=settings.nms_iou,
        box_detections_per_img=settings.max_detections,
    )
    return RegionHead(model)
