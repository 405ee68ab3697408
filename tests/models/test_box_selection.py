"""Boxes are chosen for a whole batch as torchvision chooses them for one image."""

import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms, box_iou

from visionforge.models.box_selection import clipped, highest, ious, nms_mask, rows_of, wide


def drawn(images=3, count=40, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(images, count, 2, generator=generator) * 20
    boxes = torch.cat([low, low + 2 + torch.rand(images, count, 2, generator=generator) * 12], dim=2)
    scores = torch.rand(images, count, generator=generator)
    return boxes, scores, torch.randint(classes, (images, count), generator=generator)


@pytest.mark.parametrize("iou", [0.1, 0.5, 0.9])
def test_suppression_is_that_of_torchvision(iou):
    boxes, scores, kinds = drawn()
    candidates = scores > 0.2
    candidates[1] = False
    kept = nms_mask(boxes, scores, kinds, candidates, iou)
    for image in range(len(boxes)):
        (there,) = torch.nonzero(candidates[image], as_tuple=True)
        expected = there[batched_nms(boxes[image, there], scores[image, there], kinds[image, there], iou)]
        assert kept[image].nonzero()[:, 0].tolist() == sorted(expected.tolist())


def test_overlaps_are_those_of_torchvision():
    boxes, _, _ = drawn()
    for found, each in zip(ious(boxes), boxes, strict=True):
        torch.testing.assert_close(found, box_iou(each, each))
    nothing = torch.tensor([[[1.0, 1, 1, 1], [0, 0, 2, 2]]])
    assert ious(nothing).tolist() == [[[0, 0], [0, 1]]]


def test_rows_are_filled_up_and_equal_scores_keep_their_order():
    boxes, _, kinds = drawn(1, 5)
    scores = torch.tensor([[0.5, 0.9, 0.5, 0.1, 0.5]])
    kept = torch.tensor([[True, True, True, False, True]])
    rows = rows_of(boxes, scores, kinds, kept, 7)
    assert rows.shape == (1, 7, 6)
    np.testing.assert_array_equal(rows[0, :4, 2:], boxes[0, [1, 0, 2, 4]])
    np.testing.assert_array_equal(rows[0, :4, 0], kinds[0, [1, 0, 2, 4]])
    assert rows[0, 4:].tolist() == [[-1, 0, 0, 0, 0, 0]] * 3
    places, there = highest(scores, kept, 2)
    assert places.tolist() == [[1, 0]]
    assert there.tolist() == [[True, True]]


def test_boxes_are_cut_at_the_border_and_thin_ones_known():
    boxes = torch.tensor([[-3.0, 2, 9, 40], [5, 5, 5, 8]])
    assert clipped(boxes, (32, 8)).tolist() == [[0, 2, 8, 32], [5, 5, 5, 8]]
    assert wide(boxes).tolist() == [True, False]
    assert wide(boxes, 20).tolist() == [False, False]
