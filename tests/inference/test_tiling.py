"""Pictures of any size are predicted in tiles, and no trace of the tiles is left."""

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from visionforge.errors import DataError
from visionforge.inference import tiling
from visionforge.inference.tiling import mirrored, predict_tiled, tile_starts, tile_window, tiled_boxes

SIZES = [(32, 32), (33, 40), (100, 64), (20, 90), (7, 5), (1, 50), (97, 131)]


def picture(height, width, channels=3, seed=0):
    return torch.randint(0, 256, (channels, height, width), dtype=torch.uint8, generator=torch.manual_seed(seed))


def pointwise(tiles):
    return torch.cat([tiles.float() / 255, 1 - tiles[:, :1].float() / 255], dim=1)


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("tile", [1, 7, 32])
@pytest.mark.parametrize("length", [1, 6, 7, 8, 32, 33, 63, 64, 65, 500])
def test_tiles_cover_the_axis_and_overlap_as_asked(length, tile, overlap):
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0
    if length <= tile:
        assert starts == [0]
        return
    assert starts[-1] == length - tile
    gaps = np.diff(starts)
    assert gaps.min() > 0
    assert gaps.max() <= max(1, int(tile * (1 - overlap)))
    assert gaps.max() - gaps.min() <= 1


def test_more_overlap_means_more_tiles():
    assert [len(tile_starts(256, 64, overlap)) for overlap in (0, 0.25, 0.5, 0.75)] == [4, 5, 7, 13]


@pytest.mark.parametrize("size", [1, 4, 5, 9, 20])
@pytest.mark.parametrize("length", [1, 2, 4])
def test_mirror_is_that_of_numpy(length, size):
    if size < length:
        return
    before = (size - length) // 2
    expected = np.pad(np.arange(length), (before, size - length - before), mode="reflect")
    assert mirrored(length, size).tolist() == expected.tolist()


def test_window_is_a_raised_cosine_above_zero():
    window = tile_window(8)
    hann = np.hanning(17)[1::2]  # at the centres of the pixels
    np.testing.assert_allclose(window, 0.01 + 0.99 * hann, atol=1e-12)
    assert window.min() > 0


@pytest.mark.parametrize("overlap", [0, 0.3, 0.75])
@pytest.mark.parametrize("size", SIZES)
def test_pointwise_prediction_is_that_of_the_whole_picture(size, overlap):
    image = picture(*size)
    found = predict_tiled(pointwise, image, 32, overlap, batch_size=3)
    torch.testing.assert_close(found, pointwise(image[None])[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("overlap", [0, 0.75])
def test_picture_of_the_resolution_is_one_tile_and_its_bits(overlap):
    image = picture(32, 32)
    layer = torch.nn.Conv2d(3, 4, 5, padding=2)
    calls = []

    def predict(tiles):
        calls.append(len(tiles))
        return layer(tiles.float())

    found = predict_tiled(predict, image, 32, overlap)
    assert calls == [1]
    assert torch.equal(found, layer(image[None].float())[0])
    assert not found.requires_grad  # a graph would hold every tile


@pytest.mark.parametrize("size", SIZES)
def test_constant_prediction_stays_constant(size):
    value = torch.tensor([0.1, 0.7, 0.2])

    def predict(tiles):
        return value[None, :, None, None].expand(len(tiles), 3, 32, 32)

    found = predict_tiled(predict, picture(*size), 32, 0.4)
    assert found.shape == (3, *size)
    torch.testing.assert_close(found, value[:, None, None].expand(3, *size), atol=1e-6, rtol=0)


def test_tiles_of_any_batch_size_are_blended_alike():
    image, layer = picture(70, 90), torch.nn.Conv2d(3, 2, 3, padding=1).double()
    sizes = []

    def predict(tiles):
        sizes.append(len(tiles))
        return layer(tiles.double())

    one, many = (predict_tiled(predict, image, 32, 0.5, batch_size=size) for size in (1, 7))
    assert max(sizes) == 7
    assert one.dtype == torch.float64
    torch.testing.assert_close(one, many)


def test_seams_are_smaller_the_more_tiles_overlap():
    """A network that sees 15 pixels, and zeros beyond the edge of its picture, as most do."""
    torch.manual_seed(1)
    layers = [torch.nn.Conv2d(k, 8, 5, padding=2) for k in (3, 8, 8)]
    network = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])

    def predict(tiles):
        return network(tiles.float() / 255).softmax(dim=1)

    rows, columns = torch.meshgrid(torch.arange(128.0), torch.arange(160.0), indexing="ij")
    image = (127 + 100 * torch.sin(rows / 9) * torch.cos(columns / 11)).to(torch.uint8).expand(3, -1, -1)
    with torch.no_grad():
        whole = predict(image[None])[0]
    errors = [float((predict_tiled(predict, image, 32, share) - whole).abs().mean()) for share in (0, 0.25, 0.5, 0.75)]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < errors[0] / 2
    found = predict_tiled(predict, image, 32, 0.5)
    jumps = (found - whole).diff(dim=-1).abs().amax(dim=(0, 1))
    plain = (predict_tiled(predict, image, 32, 0) - whole).diff(dim=-1).abs().amax(dim=(0, 1))
    assert jumps.max() < plain.max()


def test_small_picture_is_continued_by_its_mirror_image():
    image, seen = picture(20, 32, channels=1), []

    def predict(tiles):
        seen.append(tiles)
        return tiles.float()

    assert torch.equal(predict_tiled(predict, image, 32, 0.5), image.float())
    expected = np.pad(image.numpy(), ((0, 0), (6, 6), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(seen[0][0].numpy(), expected)


def test_half_precision_outputs_are_blended_in_float32():
    found = predict_tiled(lambda tiles: tiles.to(torch.bfloat16), picture(50, 50), 32, 0.5)
    assert found.dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"overlap": 0.8}, "overlap: 0.8"),
        ({"overlap": float("nan")}, "overlap: nan"),
        ({"resolution": 0}, "length, tile: 40, 0"),
        ({"batch_size": 0}, "batch_size: 0"),
        ({"image": torch.zeros(3, 40, 40)}, "float32; allowed: (C, H, W) uint8"),
        ({"image": torch.zeros(3, 0, 40, dtype=torch.uint8)}, "at least one pixel"),
        ({"predict": lambda tiles: tiles}, "uint8; allowed: (4, K, 32, 32) float"),
        ({"predict": lambda tiles: tiles[:, :, ::2, ::2].float()}, "(4, 3, 16, 16)"),
        ({"predict": lambda tiles: tiles[:1].float()}, "(1, 3, 32, 32)"),
    ],
)
def test_what_does_not_fit_is_said(changes, said):
    given = {"predict": pointwise, "image": picture(40, 40), "resolution": 32, "overlap": 0.5, "batch_size": 16}
    with pytest.raises(ValueError) as error:  # noqa: PT011, the text is compared below
        predict_tiled(**{**given, **changes})
    assert said in str(error.value)


def test_result_that_is_too_large_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(tiling, "_MOST_VALUES", 4 * 40 * 40 - 1)
    with pytest.raises(DataError, match="40 × 40 pixels and 4 classes is too large"):
        predict_tiled(pointwise, picture(40, 40), 32, 0)


# --- boxes


def squares(places, size=120):
    """Return a picture with bright squares, and their boxes."""
    image = torch.zeros(1, size, size, dtype=torch.uint8)
    for x1, y1, x2, y2 in places:
        image[:, y1:y2, x1:x2] = 255
    return image, torch.tensor(places, dtype=torch.float32)


def bright(tiles):
    """Find bright areas, and be the surer the larger they are; class 1."""
    from scipy import ndimage

    found = []
    for tile in tiles:
        objects, _ = ndimage.label(tile[0].numpy())
        rows = [
            [1, min(1, (y.stop - y.start) * (x.stop - x.start) / 400), x.start, y.start, x.stop, y.stop]
            for y, x in ndimage.find_objects(objects)
        ]
        found.append(torch.tensor(rows, dtype=torch.float32).reshape(-1, 6))
    return found


@pytest.mark.parametrize("batch_size", [1, 16])
def test_objects_are_found_once_and_whole(batch_size):
    image, truth = squares([(3, 5, 15, 17), (26, 20, 42, 36), (60, 61, 70, 75), (104, 100, 120, 120), (30, 80, 45, 90)])
    found = tiled_boxes(bright, image, 40, 0.5, 0.5, batch_size)
    assert found.shape == (5, 6)
    assert (found[:, 1].diff() <= 0).all()
    assert box_iou(truth, found[:, 2:]).amax(dim=1).tolist() == [1] * 5
    assert set(found[:, 0].tolist()) == {1}


def test_part_of_an_object_gives_way_to_the_whole():
    """The part is the surer one, and overlaps too little for the suppression."""
    image, _ = squares([], size=60)

    def predict(tiles):
        assert len(tiles) == 4  # they begin at 0 and 20 on both axes
        nothing = torch.zeros(0, 6)
        part = torch.tensor([[0, 0.9, 30, 10, 40, 20]])
        whole = torch.tensor([[0, 0.8, 10, 10, 35, 20]])
        return [part, whole, nothing, nothing]

    found = tiled_boxes(predict, image, 40, 0.5, 0.5)
    np.testing.assert_allclose(found, [[0, 0.8, 30, 10, 55, 20]])


def test_whole_box_stays_where_a_surer_part_overlaps_enough_to_suppress_it():
    def predict(tiles):
        nothing = torch.zeros(0, 6)
        part = torch.tensor([[0, 0.9, 20, 10, 40, 20]])  # an IoU of 19/30 with the whole
        whole = torch.tensor([[0, 0.8, 1, 10, 30, 20]])
        return [part, whole, nothing, nothing]

    found = tiled_boxes(predict, squares([], size=60)[0], 40, 0.5, 0.5)
    np.testing.assert_allclose(found, [[0, 0.8, 21, 10, 50, 20]])


def test_part_of_another_class_stays():
    def predict(tiles):
        nothing = torch.zeros(0, 6)
        return [torch.tensor([[1, 0.9, 30, 10, 40, 20]]), torch.tensor([[0, 0.8, 10, 10, 35, 20]]), nothing, nothing]

    assert len(tiled_boxes(predict, squares([], size=60)[0], 40, 0.5, 0.5)) == 2


@pytest.mark.parametrize(("nms_iou", "left"), [(0.3, 1), (0.6, 2)])
def test_overlap_that_is_allowed_decides_what_is_merged(nms_iou, left):
    rows = torch.tensor([[0, 0.9, 10, 10, 20, 20], [0, 0.8, 10, 10, 20, 15.0]])  # IoU 0.5, not at an edge

    def first_only(tiles):
        return [rows, *[rows[:0]] * (len(tiles) - 1)]

    assert len(tiled_boxes(first_only, squares([], size=60)[0], 40, 0.5, nms_iou)) == left
    assert len(tiled_boxes(first_only, squares([], size=40)[0], 40, 0.5, nms_iou)) == 2, "its network has merged it"


def test_boxes_of_a_small_picture_are_those_of_the_picture():
    """The tile has 12 pixels more on each side; a box in them is none, one across the border ends there."""
    rows = torch.tensor([[0, 0.9, 14, 15, 20, 22], [0, 0.8, 1, 1, 10, 10], [0, 0.7, 20, 8, 38, 16]])
    found = tiled_boxes(lambda tiles: [rows], squares([], size=16)[0], 40, 0.5, 0.5)
    np.testing.assert_allclose(found, [[0, 0.9, 2, 3, 8, 10], [0, 0.7, 8, 0, 16, 4]], atol=1e-6)


def test_picture_without_objects_has_no_boxes():
    assert tiled_boxes(bright, squares([])[0], 40, 0.5, 0.5).shape == (0, 6)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (torch.zeros(2, 5), "gives (2, 5); allowed: (M, 6)"),
        (torch.full((1, 6), torch.nan), "not finite"),
        (torch.tensor([[0, -1.0, 0, 0, 1, 1]]), "below 0"),
    ],
)
def test_boxes_that_do_not_fit_are_refused(rows, said):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the text is compared below
        tiled_boxes(lambda tiles: [rows] * len(tiles), squares([])[0], 40, 0.5, 0.5)
    assert said in str(error.value)
    with pytest.raises(ValueError, match="nms_iou: 2"):
        tiled_boxes(bright, squares([])[0], 40, 0.5, 2)
    with pytest.raises(ValueError, match="boxes of 0 tiles; allowed: of 9"):
        tiled_boxes(lambda tiles: [], squares([], size=80)[0], 40, 0.5, 0.5)
