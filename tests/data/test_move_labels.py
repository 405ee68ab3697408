"""Masks and boxes stay on their objects, whatever the pass does to the images."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torchvision import tv_tensors
from torchvision.transforms import v2

from tests.draws import draws
from visionforge.config.schema import Augmentation
from visionforge.data import move_labels
from visionforge.data.augment import AugmentationDraw, augment, draw_augmentation, sampling_matrix
from visionforge.data.move_labels import LEAST_AREA, move_box_lists, move_boxes, move_masks

SETTINGS = {
    "turned": Augmentation(hflip=0.5, vflip=0.5, rotation_angle=40, min_scale=0.5),
    "random operations": Augmentation(hflip=0.5, rotation_angle=0, min_scale=1.0, num_ops=3, magnitude=20),
    "strong": Augmentation(preset="strong"),
}
COUNT = 12


def drawn(name: str, count: int = COUNT, seed: int = 0) -> AugmentationDraw:
    draw = draw_augmentation(draws(count, seed), SETTINGS[name])
    assert draw.theta is not None
    return draw


def flips(hflip: bool = False, vflip: bool | None = None, count: int = COUNT, matrix: bool = False) -> AugmentationDraw:
    flip = torch.full((count,), hflip)
    theta = sampling_matrix(flip, torch.zeros(count), None) if matrix else None
    if theta is not None and vflip:
        theta[:, 1] *= -1
    return AugmentationDraw(flip, theta, None, None if vflip is None else torch.full((count,), vflip))


def turned(degrees: float, count: int = COUNT) -> AugmentationDraw:
    flip = torch.zeros(count, dtype=torch.bool)
    return AugmentationDraw(flip, sampling_matrix(flip, torch.full((count,), math.radians(degrees)), None), None)


@pytest.fixture
def masks() -> torch.Tensor:
    return torch.randint(0, 256, (COUNT, 28, 28), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


# --- masks


@pytest.mark.parametrize("matrix", [False, True])
@pytest.mark.parametrize(("hflip", "vflip"), [(True, None), (True, False), (False, True), (True, True)])
def test_flips_of_masks_are_exact(masks, matrix, hflip, vflip):
    expected = masks.flip([axis for axis, wanted in ((-1, hflip), (-2, vflip)) if wanted])
    assert torch.equal(move_masks(masks, flips(hflip, vflip, matrix=matrix)), expected)


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("side", [7, 28])
def test_quarter_turns_of_masks_are_exact(masks, quarters, side):
    part = masks[:, :side, :side]  # not contiguous, too
    assert torch.equal(move_masks(part, turned(90 * quarters)), torch.rot90(part, quarters, (1, 2)))


def test_alternating_flips_are_those_of_the_draw(masks):
    parity = torch.arange(COUNT) % 2 == 0
    alternating = Augmentation(hflip=0.5, rotation_angle=0, jitter_val=0, min_scale=1.0, flip_mode="alternating")
    draw = draw_augmentation(draws(COUNT), alternating, parity)
    assert torch.equal(move_masks(masks, draw)[::2], masks[::2].flip(-1))
    assert torch.equal(move_masks(masks, draw)[1::2], masks[1::2])


@pytest.mark.parametrize("name", SETTINGS)
def test_masks_are_sampled_where_a_float64_one_hot_of_them_is(name):
    """The reference multiplies the matrices out in float64, and has a channel for each class and one for outside."""
    masks = torch.randint(0, 5, (COUNT, 23, 31), generator=torch.Generator().manual_seed(1))
    draw = drawn(name)
    one_hot = F.one_hot(masks, 5).permute(0, 3, 1, 2).double()
    grid = F.affine_grid(draw.theta.double(), list(one_hot.shape), align_corners=False)
    sampled = F.grid_sample(one_hot, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    expected = torch.where(sampled.sum(dim=1) > 0, sampled.argmax(dim=1), 9)
    found = move_masks(masks, draw, fill=9)
    assert (found == 9).any()
    places = ((grid + 1) * torch.tensor([31, 23]) - 1) / 2
    clear = ((places - places.floor() - 0.5).abs() > 1e-4).all(dim=-1)  # halfway, both pixels are right
    assert clear.float().mean() > 0.99
    assert torch.equal(found[clear], expected[clear])


@pytest.mark.parametrize("name", SETTINGS)
def test_an_image_that_is_the_mask_goes_to_the_same_place(monkeypatch, masks, name):
    """The image's own code, with its interpolation set to the nearest pixel, moves the values of the mask alike."""
    draw = drawn(name)
    plain = AugmentationDraw(draw.flip, draw.theta, None, draw.vflip)
    sample = F.grid_sample
    monkeypatch.setattr(F, "grid_sample", lambda *given, mode, **options: sample(*given, mode="nearest", **options))
    image = augment(masks[:, None], plain, (0.0,), (1 / 255,))[:, 0]
    assert torch.equal(image.round().to(torch.uint8), move_masks(masks, draw))


def test_objects_of_images_and_masks_stay_together():
    """A bright rectangle is bright where its mask says so, but for pixels of its edge."""
    masks = torch.zeros(COUNT, 64, 64, dtype=torch.uint8)
    masks[:, 20:44, 12:36] = 1
    draw = drawn("turned")
    image = augment(masks[:, None] * 255, AugmentationDraw(draw.flip, draw.theta, None), (0.0,), (1.0,))[:, 0]
    moved = move_masks(masks, draw)
    assert (image[moved == 1] >= 0.25).all()
    assert (image[moved == 0] <= 0.75).all()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64])
def test_values_are_exact_in_every_type(dtype):
    values = {torch.bool: [0, 1], torch.uint8: [0, 255], torch.int16: [-32768, 32767]}.get(dtype)
    values = torch.tensor(values or [0, (1 << 24) - 1, 1 << 24, (1 << 24) + 1, (1 << 31) - 1], dtype=dtype)
    masks = values[torch.arange(COUNT * 28 * 28).view(COUNT, 28, 28) % len(values)]
    draw = drawn("strong")
    places = torch.arange(1, 28 * 28 + 1).view(28, 28).expand(COUNT, 28, 28)
    came_from = move_masks(places, draw)
    found = move_masks(masks, draw, fill=1)
    assert found.dtype == dtype
    inside = came_from > 0
    expected = masks.flatten(1).gather(1, (came_from - 1).clamp(min=0).flatten(1)).view_as(masks)
    assert torch.equal(found[inside], expected[inside])
    assert torch.equal(found[~inside], torch.ones_like(found[~inside]))


def test_large_masks_and_many_chunks_give_the_same(monkeypatch, masks):
    draw = drawn("strong")
    expected = move_masks(masks, draw)
    monkeypatch.setattr(move_labels, "CHUNK_PIXELS", 1600)
    assert torch.equal(move_masks(masks, draw), expected)
    monkeypatch.setattr(move_labels, "EXACT_IN_FLOAT32", 10)
    assert torch.equal(move_masks(masks, draw), expected)


def test_no_masks_are_no_masks():
    assert move_masks(torch.zeros(0, 28, 28, dtype=torch.uint8), drawn("strong", 0)).shape == (0, 28, 28)


BAD_MASKS = {
    r"masks: \(12, 1, 28, 28\)": (torch.zeros(COUNT, 1, 28, 28, dtype=torch.uint8), 0),
    r"masks: .* of torch.float32": (torch.zeros(COUNT, 28, 28), 0),
    r"masks: \(11, 28, 28\) of torch.uint8 for 12 images": (torch.zeros(11, 28, 28, dtype=torch.uint8), 0),
    "fill: 256 is no value of .* torch.uint8; allowed: 0 to 255": (torch.zeros(COUNT, 2, 2, dtype=torch.uint8), 256),
    "fill: -1 .*allowed: 0 to 1": (torch.zeros(COUNT, 2, 2, dtype=torch.bool), -1),
}  # fmt: skip


@pytest.mark.parametrize("complaint", BAD_MASKS)
def test_wrong_masks(complaint):
    given, fill = BAD_MASKS[complaint]
    with pytest.raises(ValueError, match=complaint) as error:
        move_masks(given, drawn("strong"), fill)
    assert "\n" not in str(error.value)


# --- boxes


def random_boxes(count: int, height: int, width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ends = torch.rand((count, 2, 2), generator=generator, dtype=torch.float64) * torch.tensor([width, height])
    boxes = torch.cat([ends.amin(dim=1), ends.amax(dim=1)], dim=1)
    return boxes, torch.randint(0, COUNT, (count,), generator=generator)


def corners_by_a_loop(box: list[float], theta: torch.Tensor, height: int, width: int) -> list[float]:
    """Move the four corners one by one through the inverse of the whole 3×3 matrix, in float64."""
    matrix = torch.cat([theta.double(), torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)])
    moved = []
    for x in (box[0], box[2]):
        for y in (box[1], box[3]):
            place = torch.tensor([2 * x / width - 1, 2 * y / height - 1, 1.0], dtype=torch.float64)
            found = torch.linalg.solve(matrix, place)
            moved.append(((float(found[0]) + 1) * width / 2, (float(found[1]) + 1) * height / 2))
    xs, ys = zip(*moved, strict=True)
    return [min(xs), min(ys), max(xs), max(ys)]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(("height", "width"), [(28, 28), (40, 60)])
def test_boxes_are_the_hulls_of_their_moved_corners(name, height, width):
    boxes, image_index = random_boxes(60, height, width)
    draw = drawn(name)
    moved, kept = move_boxes(boxes, image_index, draw, (height, width))
    for row, box in enumerate(boxes.tolist()):
        left, top, right, bottom = corners_by_a_loop(box, draw.theta[image_index[row]], height, width)
        clipped = [max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)]
        share = (
            max(0.0, clipped[2] - clipped[0]) * max(0.0, clipped[3] - clipped[1]) / ((right - left) * (bottom - top))
        )
        assert bool(kept[row]) == (share >= LEAST_AREA)
        if kept[row]:
            assert moved[row].tolist() == pytest.approx(clipped, abs=1e-9)
    single, kept_too = move_boxes(boxes.float(), image_index, draw, (height, width))
    assert single.dtype == torch.float32
    assert torch.equal(kept, kept_too)
    torch.testing.assert_close(single[kept], moved[kept].float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_box_holds_the_moved_mask_of_its_object(name):
    """The box of a filled ellipse, moved, holds all pixels of the moved ellipse; of a rectangle, it ends with them."""
    side, draw = 96, drawn(name)
    top, left, height, width = 30, 24, 36, 44
    mask = torch.zeros(side, side, dtype=torch.uint8)
    mask[top : top + height, left : left + width] = 1
    moved = move_masks(mask.expand(COUNT, side, side), draw)
    box = torch.tensor([[left, top, left + width, top + height]]).float().expand(COUNT, 4)
    boxes, kept = move_boxes(box, torch.arange(COUNT), draw, (side, side))
    assert kept.all()
    for found, pixels in zip(boxes.tolist(), moved, strict=True):
        rows, columns = pixels.any(dim=1).nonzero()[:, 0], pixels.any(dim=0).nonzero()[:, 0]
        tight = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
        # a sharp corner may hold no middle of a pixel, and at the border it is cut off
        on_border = min(tight) == 0 or max(tight) == side
        assert found == pytest.approx(tight, abs=2.5 if on_border else 1.5)


@pytest.mark.parametrize("matrix", [False, True])
@pytest.mark.parametrize(("hflip", "vflip"), [(True, None), (False, True), (True, True)])
def test_flips_are_those_of_torchvision(masks, matrix, hflip, vflip):
    height, width = 28, 40
    masks = torch.cat([masks, masks[:, :, :12]], dim=2)
    boxes, image_index = random_boxes(COUNT, height, width)
    boxes = boxes.float()
    chain = v2.Compose([v2.RandomHorizontalFlip(float(hflip)), v2.RandomVerticalFlip(float(vflip or False))])
    draw = flips(hflip, vflip, matrix=matrix)
    moved, kept = move_boxes(boxes, image_index, draw, (height, width))
    known = chain(
        {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),
            "masks": tv_tensors.Mask(masks),
        }
    )
    assert kept.all()
    torch.testing.assert_close(moved, known["boxes"].as_subclass(torch.Tensor), atol=2e-5 if matrix else 0, rtol=0)
    assert torch.equal(move_masks(masks, draw), known["masks"].as_subclass(torch.Tensor))


def test_what_is_left_of_a_box_decides():
    """Of a crop to the left half, a box that lies to a quarter in it keeps a quarter of its area."""
    flip = torch.zeros(1, dtype=torch.bool)
    draw = AugmentationDraw(flip, sampling_matrix(flip, torch.zeros(1), torch.tensor([[0.0, 0.0, 0.5, 1.0]])), None)
    boxes = torch.tensor([[12.0, 4.0, 28.0, 12.0], [18.0, 0.0, 20.0, 2.0], [0.0, 0.0, 8.0, 8.0]])
    index = torch.zeros(3, dtype=torch.int64)
    for least, expected in ((0.0, True), (0.24, True), (0.26, False)):
        moved, kept = move_boxes(boxes, index, draw, (32, 32), least)
        assert kept.tolist() == [expected, False, True]
        torch.testing.assert_close(moved[0], torch.tensor([24.0, 4.0, 32.0, 12.0]))
        torch.testing.assert_close(moved[2], torch.tensor([0.0, 0.0, 16.0, 8.0]))
    assert move_boxes(boxes, index, draw, (32, 32), 1.0)[1].tolist() == [False, False, True]


@pytest.mark.parametrize("draw", [flips(True, True), turned(45.0)])
def test_boxes_without_an_area_are_dropped_and_those_beyond_the_border_clipped(draw):
    boxes = torch.tensor([[5.0, 5.0, 5.0, 20.0], [5.0, 9.0, 20.0, 9.0], [6.0, 6.0, 6.0, 6.0], [-8.0, 10.0, 8.0, 20.0]])
    moved, kept = move_boxes(boxes, torch.zeros(4, dtype=torch.int64), draw, (28, 28), 0.0)
    assert kept.tolist() == [False, False, False, True]
    assert (moved[3] >= 0).all()
    assert (moved[3] <= 28).all()


def test_lists_of_boxes_come_back_by_image():
    boxes, image_index = random_boxes(40, 28, 28)
    boxes = boxes.float()
    image_index[image_index == 3] = 4  # an image without boxes
    draw = drawn("turned")
    moved, kept = move_boxes(boxes, image_index, draw, (28, 28), 0.6)
    lists = [boxes[image_index == image] for image in range(COUNT)]
    found, which = move_box_lists(lists, draw, (28, 28), 0.6)
    assert len(found) == len(which) == COUNT
    assert not kept.all()
    for image in range(COUNT):
        of_image = image_index == image
        assert torch.equal(which[image], kept[of_image])
        assert torch.equal(found[image], moved[of_image & kept])
    assert found[3].shape == (0, 4)
    assert move_box_lists([], drawn("turned", 0), (28, 28)) == ([], [])
    assert [len(each) for each in move_box_lists([torch.zeros(0, 4)] * COUNT, draw, (28, 28))[0]] == [0] * COUNT


GOOD = [2.0, 2.0, 9.0, 9.0]
NAN, INF = float("nan"), float("inf")
BAD_BOXES = {
    r"boxes: row 1 \(image 0\), \[9.0, 2.0, 2.0, 9.0\], has a negative width or height": [GOOD, [9.0, 2.0, 2.0, 9.0]],
    "row 0 .* has a negative width or height": [[2.0, 9.0, 9.0, 2.0]],
    r"row 0 .* lies outside of its image of 28×30 pixels": [[29.0, 2.0, 35.0, 9.0]],
    r"row 2 .*-9.0.* lies outside of its image": [GOOD, GOOD, [2.0, -9.0, 9.0, -2.0]],
    r"row 1 .*nan.* is not finite": [GOOD, [2.0, NAN, 9.0, 9.0]],
    r"row 0 .*inf.* is not finite": [[2.0, 2.0, INF, 9.0]],
    r"boxes: \(1, 5\) of torch.float32; allowed: float32 or float64 \(M, 4\)": [[*GOOD, 1.0]],
    r"boxes: \(4,\)": GOOD,
}


@pytest.mark.parametrize("complaint", BAD_BOXES)
def test_wrong_boxes(complaint):
    boxes = torch.tensor(BAD_BOXES[complaint])
    with pytest.raises(ValueError, match=complaint) as error:
        move_boxes(boxes, torch.zeros(len(boxes), dtype=torch.int64), drawn("turned"), (30, 28))
    assert "\n" not in str(error.value)


BAD_CALLS = {
    "boxes: .*int64": lambda: move_boxes(torch.zeros(1, 4).long(), torch.zeros(1).long(), drawn("turned"), (9, 9)),
    r"image_index: \(2,\)": lambda: move_boxes(torch.zeros(1, 4), torch.zeros(2).long(), drawn("turned"), (9, 9)),
    "image_index: .*float32": lambda: move_boxes(torch.zeros(1, 4), torch.zeros(1), drawn("turned"), (9, 9)),
    "has image 12 of 12": lambda: move_boxes(torch.zeros(1, 4), torch.tensor([COUNT]), drawn("turned"), (9, 9)),
    "has image -1 of 12": lambda: move_boxes(torch.zeros(1, 4), torch.tensor([-1]), drawn("turned"), (9, 9)),
    "least_area: 1.5": lambda: move_boxes(torch.zeros(0, 4), torch.zeros(0).long(), drawn("turned"), (9, 9), 1.5),
    "boxes: of 2 images; allowed: of 12": lambda: move_box_lists([torch.zeros(0, 4)] * 2, drawn("turned"), (9, 9)),
    r"boxes: \(0,\) of image 0": lambda: move_box_lists([torch.zeros(0)] * COUNT, drawn("turned"), (9, 9)),
}  # fmt: skip


@pytest.mark.parametrize("complaint", BAD_CALLS)
def test_wrong_calls(complaint):
    with pytest.raises(ValueError, match=complaint):
        BAD_CALLS[complaint]()
