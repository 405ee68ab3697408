"""The detectors of torchvision on the maps of a feature pyramid, without what would scale and normalise images anew.

Their parts are called one by one: the images of a batch have one size and are normalised already. Everything after the
convolutions is computed in float32. What is found is chosen for a whole batch at once; see
`visionforge.models.box_selection`.
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
from torchvision.models.detection.rpn import RPNHead, concat_box_prediction_layers
from torchvision.ops import MultiScaleRoIAlign, roi_align
from torchvision.ops.poolers import LevelMapper

from visionforge.config.schema import Detector
from visionforge.models.anchors import Anchors, require_doubling
from visionforge.models.box_selection import clipped, highest, nms_mask, rows_of, taken, wide

Target = dict[str, Tensor]  # of an image: `boxes` (M, 4) in pixels and `labels` (M,) int64
OCTAVE = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))  # sizes of RetinaNet's anchors on a map (section 4)
RATIOS = (0.5, 1.0, 2.0)  # height by width of anchors
REGION = 7  # pixels of a region that is cut out of a map
REGION_STRIDES = 16  # a map gives the regions of which a side has fewer of its pixels
PROPOSALS = 300  # regions of an image that are looked at; Ren et al. lose nothing by it (table 2), others take 1,000
TRAINED_REGIONS = 128  # of an image, as there; a small one has few objects
SMALLEST_REGION = 1e-3  # pixels of a side, as in torchvision
SMALLEST_BOX = 1e-2  # the same of what is found in a region
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

    def detect(self, maps: list[Tensor], images: Tensor, rows: int) -> Tensor:
        """Return (N, rows, 6) float32 what is found, [class, score, x1, y1, x2, y2] by falling score.

        Coordinates are pixels; rows without a box have the class -1 and are 0 otherwise, and are the last.
        """


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
        outputs, of_image, counts = self._outputs(maps, images)
        model: Any = self.model
        anchors = [of_image] * len(images)
        each: dict[str, Tensor] = (
            model.compute_loss(targets, outputs, anchors, counts)
            if isinstance(model, FCOS)
            else model.compute_loss(targets, outputs, anchors)
        )
        return each

    def detect(self, maps: list[Tensor], images: Tensor, rows: int) -> Tensor:
        """Return what is found in each image; see `Head`."""
        outputs, anchors, counts = self._outputs(maps, images)
        model: Any = self.model
        sizes = [count * (len(anchors) // sum(counts)) for count in counts]
        split = [torch.split(values, sizes, dim=1) for values in outputs.values()]
        levels = zip(*split, torch.split(anchors, sizes), strict=True)
        found = [self._candidates(dict(zip(outputs, level, strict=False)), level[-1]) for level in levels]
        boxes, scores, kinds = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        boxes = clipped(boxes, _size(images))
        there = (scores > model.score_thresh) & wide(boxes)
        kept = nms_mask(boxes, scores, kinds, there, model.nms_thresh)
        return rows_of(boxes, scores, kinds, kept, rows)

    def _candidates(self, outputs: dict[str, Tensor], anchors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (N, k, 4), scores (N, k) and classes (N, k) of a map.

        Args:
            outputs: What the head says of its A anchors: `cls_logits` (N, A, K), `bbox_regression` (N, A, 4), and of
                FCOS `bbox_ctrness` (N, A, 1).
            anchors: (A, 4).
        """
        model: Any = self.model
        scores = torch.sigmoid(outputs["cls_logits"])
        if "bbox_ctrness" in outputs:
            scores = torch.sqrt(scores * torch.sigmoid(outputs["bbox_ctrness"]))
        classes = scores.shape[2]
        scores, index = scores.flatten(1).topk(min(model.topk_candidates, scores.shape[1] * classes), dim=1)
        places = torch.div(index, classes, rounding_mode="floor")
        codes = taken(outputs["bbox_regression"], places).flatten(0, 1)
        given = anchors[places].flatten(0, 1)
        boxes = (
            model.box_coder.decode(codes, given)
            if isinstance(model, FCOS)
            else model.box_coder.decode_single(codes, given)
        )
        return boxes.view(-1, places.shape[1], 4), scores, index % classes

    def _outputs(self, maps: list[Tensor], images: Tensor) -> tuple[dict[str, Tensor], Tensor, list[int]]:
        """Return what the head says, the anchors of an image (A, 4), and the number of places of each map."""
        model: Any = self.model
        outputs = {name: values.float() for name, values in model.head(maps).items()}
        anchors = _anchors(model.anchor_generator, maps, images)
        return outputs, anchors, [each.shape[2] * each.shape[3] for each in maps]


class RegionHead(nn.Module):
    """A detector of two stages, Faster R-CNN; torchvision counts its classes from 1, 0 is the background.

    Args:
        model: The detector.
        strides: Input pixels per pixel of each map, powers of two.
        regions: Most regions of an image that are looked at.
    """

    def __init__(self, model: FasterRCNN, strides: Sequence[int], regions: int) -> None:
        super().__init__()
        self.model = model
        parts: Any = model
        for part in (parts.rpn.head, parts.roi_heads.box_predictor):  # boxes are decoded in the type of what they give
            part.register_forward_hook(_in_float32)
        pool: Any = model.roi_heads.box_roi_pool
        levels = round(math.log2(strides[0])), round(math.log2(strides[-1]))
        self._mapper = LevelMapper(*levels, pool.canonical_scale, pool.canonical_level)
        self._strides = tuple(strides)
        self._regions_kept = regions

    def losses(self, maps: list[Tensor], images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Return the losses of a batch by name; see `Head`. It computes them in training mode only, so it is in it."""
        counted = [{**target, "labels": target["labels"] + 1} for target in targets]
        with _training(self.model):
            model: Any = self.model
            proposals, of_proposals = model.rpn(ImageList(images, _sizes(images)), _named(maps), counted)
            _, of_boxes = model.roi_heads(_named(maps), proposals, _sizes(images), counted)
        return {**of_proposals, **of_boxes}

    def detect(self, maps: list[Tensor], images: Tensor, rows: int) -> Tensor:
        """Return what is found in each image; see `Head`."""
        maps = [each.float() for each in maps]
        regions, there = self._regions(maps, images)
        heads: Any = self.model.roi_heads
        looked = heads.box_head(self._pooled(maps, regions))
        logits, codes = heads.box_predictor(looked)
        count, classes = regions.shape[1], logits.shape[1] - 1
        scores = logits.softmax(dim=1)[:, 1:].reshape(-1, count, classes).transpose(1, 2)  # (N, K, P)
        boxes = heads.box_coder.decode_single(codes, regions.flatten(0, 1)).view(-1, count, classes + 1, 4)
        boxes = clipped(boxes[:, :, 1:].transpose(1, 2), _size(images))  # (N, K, P, 4)
        wanted = (scores > heads.score_thresh) & wide(boxes, SMALLEST_BOX) & there[:, None]
        each = boxes.flatten(0, 1), scores.flatten(0, 1), torch.zeros_like(scores.flatten(0, 1), dtype=torch.int64)
        kept = nms_mask(*each, wanted.flatten(0, 1), heads.nms_thresh)  # a class of an image has its own boxes
        kinds = torch.arange(classes, device=scores.device)[:, None].expand_as(scores)
        return rows_of(boxes.flatten(1, 2), scores.flatten(1), kinds.flatten(1), kept.view(-1, classes * count), rows)

    def _regions(self, maps: list[Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
        """Return regions (N, P, 4) that are worth a look, and (N, P) which rows hold one."""
        rpn: Any = self.model.rpn
        objectness, codes = rpn.head(maps)
        anchors = _anchors(rpn.anchor_generator, maps, images)
        sizes = [each.shape[1] * each.shape[2] * each.shape[3] for each in objectness]
        objectness, codes = concat_box_prediction_layers(objectness, codes)
        logits = torch.split(objectness.view(images.shape[0], -1), sizes, dim=1)
        each = torch.split(codes.view(images.shape[0], -1, 4), sizes, dim=1)
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for level, (said, moves, given) in enumerate(zip(logits, each, torch.split(anchors, sizes), strict=True)):
            scores, places = said.topk(min(2 * self._regions_kept, said.shape[1]), dim=1)
            boxes = rpn.box_coder.decode_single(taken(moves, places).flatten(0, 1), given[places].flatten(0, 1))
            parts.append((boxes.view(-1, places.shape[1], 4), scores.sigmoid(), torch.full_like(places, level)))
        boxes, scores, levels = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        boxes = clipped(boxes, _size(images))
        kept = nms_mask(boxes, scores, levels, wide(boxes, SMALLEST_REGION), rpn.nms_thresh)
        chosen, there = highest(scores, kept, self._regions_kept)
        return torch.where(there[..., None], taken(boxes, chosen), 0.0), there

    def _pooled(self, maps: list[Tensor], regions: Tensor) -> Tensor:
        """Return (N·P, width, 7, 7) what the maps hold of regions (N, P, 4), each of the map that suits its size."""
        count = regions.shape[1]
        image = torch.arange(regions.shape[0], device=regions.device, dtype=regions.dtype).repeat_interleave(count)
        rows = torch.cat([image[:, None], regions.flatten(0, 1)], dim=1)
        pool: Any = self.model.roi_heads.box_roi_pool
        levels = self._mapper([rows[:, 1:]])
        out = maps[0].new_zeros(rows.shape[0], maps[0].shape[1], *pool.output_size)
        for level, (values, stride) in enumerate(zip(maps, self._strides, strict=True)):
            (place,) = torch.where(levels == level)
            cut = roi_align(values, rows[place], pool.output_size, 1 / stride, pool.sampling_ratio)
            out = out.index_copy(0, place, cut)
        return out


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


def _anchors(generator: Anchors, maps: list[Tensor], images: Tensor) -> Tensor:
    """Return (A, 4) the anchors of an image; those of all images of a batch are the same."""
    anchors: Tensor = generator(ImageList(images, [_size(images)]), [each.float() for each in maps])[0]
    return anchors


def _sizes(images: Tensor) -> list[tuple[int, int]]:
    return [_size(images)] * len(images)


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


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
    return RegionHead(model, strides, proposals)
