"""Masks and boxes are drawn where they are, in colours that mean one thing each, at any size."""

import itertools

import matplotlib.image
import numpy as np
import pytest

from visionforge.evaluation.label_colours import _SEEN_BY, _lab, class_colours, least_distance, on_top
from visionforge.reporting.box_overlays import box_comparison, box_overlay
from visionforge.reporting.figures.panels import COMPARISON_LEGEND, panel_grid
from visionforge.reporting.figures.static import own_style, save_figure
from visionforge.reporting.label_overlays import (
    FILL,
    FOUND,
    INVENTED,
    MISSED,
    colour_planes,
    mask_comparison,
    mask_overlay,
)

GREY_CHART = np.full((1, 28, 28), 100, np.uint8)


def filled(colour, ground=100):
    """Return the colour of a pixel within an outline."""
    return np.rint(ground * (1 - FILL) + np.array(colour) * FILL).astype(np.uint8).tolist()


# --- colours


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 30, 256])
def test_first_colours_are_the_same_for_any_count(count):
    colours = class_colours(count)
    assert colours.shape == (count, 3)
    assert colours.dtype == np.uint8
    np.testing.assert_array_equal(colours, class_colours(300)[:count])
    assert len(np.unique(colours, axis=0)) == count


def test_every_reader_tells_the_classes_apart():
    """Okabe and Ito's own nearest pair has 17; two colours that touch are told apart from some 5 on."""
    colours = class_colours(20)
    pairs = itertools.combinations(colours, 2)
    assert min(least_distance(one, other) for one, other in pairs) > 17
    red, green = np.array([170, 70, 0], np.uint8), np.array([95, 110, 0], np.uint8)
    assert least_distance(red, green) < 17, "the measure sees what a reader without red or green receptors does not"
    verdicts = np.array([FOUND, MISSED, INVENTED], np.uint8)
    assert min(least_distance(one, other) for one, other in itertools.combinations(verdicts, 2)) > 30


def test_lightness_and_hue_are_those_of_cielab():
    expected = {  # published values of sRGB's corners, D65
        (255, 255, 255): (100, 0, 0),
        (255, 0, 0): (53.24, 80.09, 67.20),
        (0, 255, 0): (87.73, -86.18, 83.18),
        (0, 0, 255): (32.30, 79.19, -107.86),
    }
    for colour, lab in expected.items():
        np.testing.assert_allclose(_lab(np.array([colour]) / 255)[0], lab, atol=0.05)


def test_readers_without_a_receptor_see_greys_as_they_are():
    for matrix in _SEEN_BY:
        np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-9)
    for matrix in _SEEN_BY[1:]:
        np.testing.assert_allclose(matrix[0], matrix[1])  # red and green look alike
        np.testing.assert_allclose(matrix @ matrix, matrix, atol=1e-4)  # once seen so, always seen so


def test_text_can_be_read_on_its_colour():
    assert on_top(np.array([240, 228, 66], np.uint8)) == (0, 0, 0)
    assert on_top(np.array([0, 114, 178], np.uint8)) == (255, 255, 255)


# --- masks


@pytest.mark.parametrize(("side", "pixels"), [(1, 128), (28, 140), (100, 200), (128, 128), (256, 256)])
def test_small_pictures_are_enlarged_pixel_by_pixel(side, pixels):
    image = np.random.default_rng(0).integers(0, 256, (3, side, side), dtype=np.uint8)
    drawn = mask_overlay(image, np.zeros((side, side), np.int64), class_colours(2))
    assert drawn.shape == (pixels, pixels, 3)
    expected = np.kron(image.transpose(1, 2, 0), np.ones((pixels // side, pixels // side, 1), np.uint8))
    np.testing.assert_array_equal(drawn, expected)  # nothing but background: the picture itself


def test_class_is_filled_and_outlined_and_the_rest_is_left():
    mask = np.zeros((28, 28), np.uint8)
    mask[10:20, 5:15] = 2
    colours = class_colours(3)
    drawn = mask_overlay(GREY_CHART, mask, colours)
    assert drawn[75, 50].tolist() == filled(colours[2])
    for edge in (drawn[50, 25:75], drawn[99, 25:75], drawn[50:100, 25], drawn[50:100, 74]):
        assert (edge == colours[2]).all()
    outside = np.ones((140, 140), np.bool_)
    outside[50:100, 25:75] = False
    assert (drawn[outside] == 100).all()


def test_edge_of_the_picture_is_no_outline():
    drawn = mask_overlay(GREY_CHART, np.ones((28, 28), np.uint8), class_colours(2))
    assert (drawn == filled(class_colours(2)[1])).all()


def test_ignored_pixels_are_hatched():
    mask = np.zeros((28, 28), np.int64)
    mask[:, 14:] = 255
    drawn = mask_overlay(GREY_CHART, mask, class_colours(2), ignore=255)
    assert (drawn[:, :70] == 100).all()
    assert set(np.unique(drawn[:, 70:])) == {100, 160}
    with pytest.raises(ValueError, match="has the value 255; allowed: 0 to 1"):
        mask_overlay(GREY_CHART, mask, class_colours(2))


def test_comparison_says_what_was_found_missed_and_invented():
    truth, said = np.zeros((28, 28), np.uint8), np.zeros((28, 28), np.uint8)
    truth[0:5], said[0:5] = 1, 1
    truth[7:12] = 1
    said[14:19] = 2
    truth[21:25], said[21:25] = 1, 2
    truth[26:] = 255
    drawn = mask_comparison(GREY_CHART, truth, said, ignore=255)
    for row, colour in ((2, FOUND), (9, MISSED), (16, INVENTED)):
        assert drawn[row * 5 + 2, 70].tolist() == filled(colour)
    confused = {tuple(pixel) for pixel in drawn[23 * 5, 20:120].tolist()}
    assert confused == {tuple(filled(MISSED)), tuple(filled(INVENTED))}
    assert (drawn[20 * 5 + 1, :] == 100).all()
    assert set(np.unique(drawn[27 * 5 :])) == {100, 160}
    plain = mask_comparison(GREY_CHART, np.where(truth == 255, 0, truth), said)
    assert (plain[27 * 5 :] == 100).all()


def test_volumes_are_shown_by_their_middle_slices():
    volume = np.full((1, 20, 20, 20), 100, np.uint8)
    mask = np.zeros((20, 20, 20), np.uint8)
    mask[10, 5:15, 5:15] = 1
    drawn = mask_overlay(volume, mask, class_colours(2))
    assert drawn.shape == (60, 186, 3) or drawn.shape == (20 * 3, 62 * 3, 3)
    assert drawn[30, 30].tolist() == filled(class_colours(2)[1])
    assert drawn[6, 6].tolist() == [100] * 3


@pytest.mark.parametrize(
    ("image", "mask", "said"),
    [
        (np.zeros((2, 8, 8), np.uint8), np.zeros((8, 8), int), "image: (2, 8, 8)"),
        (np.zeros((1, 8, 8)), np.zeros((8, 8), int), "float64; allowed: (1, H, W) or (3, H, W) uint8"),
        (np.zeros((1, 8, 8), np.uint8), np.zeros((8, 9), int), "mask: (8, 9)"),
        (np.zeros((1, 8, 8), np.uint8), np.zeros((8, 8)), "mask: (8, 8) float64"),
        (np.zeros((1, 8, 8), np.uint8), np.full((8, 8), -1), "has the value -1"),
    ],
)
def test_what_does_not_fit_is_said(image, mask, said):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the text is compared below
        mask_overlay(image, mask, class_colours(2))
    assert said in str(error.value)


# --- boxes

CHART = np.full((3, 256, 256), 100, np.uint8)
NAMES = ["cat", "dog"]


def count(drawn, colour):
    return int((drawn == np.array(colour, np.uint8)).all(axis=-1).sum())


def test_box_is_drawn_where_it_is():
    drawn = box_overlay(CHART, np.array([[50.0, 60, 150, 200]]), np.array([1]), ["", ""], np.array([0.9]))
    painted = (drawn == class_colours(2)[1]).all(axis=-1)
    rows, columns = np.flatnonzero(painted.any(axis=1)), np.flatnonzero(painted.any(axis=0))
    assert (columns[0], columns[-1]) == (50, 149)
    assert rows[-1] == 199
    assert painted[60:200, 50].all()
    assert painted[60:200, 149].all()
    assert (drawn[100:190, 60:140] == 100).all(), "its inside is left"


def test_small_picture_has_its_boxes_enlarged():
    drawn = box_overlay(GREY_CHART, np.array([[5, 6, 15, 20]]), np.array([1]), NAMES)
    assert drawn.shape == (280, 280, 3)
    columns = np.flatnonzero((drawn == class_colours(2)[1]).all(axis=-1)[100:150].any(axis=0))
    assert (columns[0], columns[-1]) == (50, 149)


def test_true_boxes_are_dashed_and_those_without_a_partner_crossed_out():
    box, one = np.array([[50.0, 60, 150, 200]]), np.array([1])
    colour = class_colours(2)[1]
    solid = box_overlay(CHART, box, one, ["", ""], np.array([0.9]))
    dashed = box_overlay(CHART, box, one, ["", ""])
    crossed = box_overlay(CHART, box, one, ["", ""], matched=np.array([False]))
    assert count(dashed, colour) < 0.8 * count(solid, colour)
    assert (dashed[100:160, 60:140] == 100).all()
    assert count(crossed[100:160, 60:140], colour) > 0
    assert np.array_equal(dashed, box_overlay(CHART, box, one, ["", ""], matched=np.array([True])))


def test_name_and_score_are_written_where_there_is_room():
    def inked(width, scores=None, names=NAMES):
        """Return the pixels above the box that are not the picture's."""
        box = np.array([[100.0, 100, 100 + width, 180]])
        return int((box_overlay(CHART, box, np.array([0]), names, scores)[:97] != 100).any(axis=-1).sum())

    both, name = inked(100, np.array([0.91])), inked(100)
    assert both > name > 0
    assert inked(30, np.array([0.91])) == name, "the score alone has no room"
    assert inked(8) == 0
    assert inked(100, names=["\x1b[31m\u202e", "dog"]) > 0, "as printable text"


def test_texts_do_not_lie_on_each_other_and_the_surer_box_is_named():
    boxes = np.array([[100.0, 100, 150, 104], [101.0, 101, 151, 105]])
    scores, classes = np.array([0.2, 0.9]), np.array([0, 1])
    drawn = box_overlay(CHART[:, :110], boxes, classes, NAMES, scores)
    label = drawn[86:97, 102:150]
    assert count(label, class_colours(2)[1]) > 5 * count(label, class_colours(2)[0])


def test_comparison_of_boxes_has_the_colours_of_masks():
    truth = np.array([[10.0, 10, 60, 60], [100, 100, 150, 150]])
    said = np.array([[12.0, 12, 62, 62], [180, 180, 230, 230]])
    drawn = box_comparison(CHART, truth, np.array([True, False]), said, np.array([True, False]))
    assert count(drawn[:80, :80], FOUND) > 200
    assert count(drawn[:80, :80], MISSED) == 0, "a true box that was found is not drawn as well"
    assert count(drawn[90:160, 90:160], MISSED) > 100
    assert count(drawn[170:, 170:], INVENTED) > 200
    for colour in (FOUND, MISSED, INVENTED):
        assert count(drawn[160:170], colour) == 0


def test_no_box_hides_a_smaller_one():
    boxes = np.array([[60.0, 5, 70, 15], [10, 10, 200, 200]])
    drawn = box_overlay(CHART, boxes, np.array([0, 1]), ["", ""], np.ones(2))
    assert (drawn[5:15, 60] == class_colours(2)[0]).all()
    nothing = np.zeros((0, 4)), np.zeros(0, bool)
    assert (box_comparison(CHART, *nothing, boxes, np.ones(2, bool))[5:15, 60] == FOUND).all()


def test_boxes_outside_and_none_at_all_are_drawn():
    nothing = np.zeros((0, 4))
    assert (box_overlay(CHART, nothing, np.zeros(0, int), NAMES) == 100).all()
    assert (box_comparison(CHART, nothing, np.zeros(0, bool), nothing, np.zeros(0, bool)) == 100).all()
    far = np.array([[-1e9, -5, 1e9, 300], [300, 300, 400, 400], [7, 7, 7, 7]])
    assert box_overlay(CHART, far, np.array([0, 0, 1]), NAMES, np.ones(3)).shape == (256, 256, 3)


@pytest.mark.parametrize(
    ("boxes", "classes", "scores", "said"),
    [
        (np.zeros((1, 5)), [0], None, "boxes: (1, 5)"),
        (np.array([[0, 0, np.nan, 1]]), [0], None, "allowed: finite (M, 4)"),
        (np.array([[5, 0, 1, 1]]), [0], None, "x1 <= x2"),
        (np.zeros((1, 4)), [0, 1], None, "classes: (2,)"),
        (np.zeros((1, 4)), [2], None, "0 to 1"),
        (np.zeros((1, 4)), [0], np.ones(2), "scores: (2,)"),
    ],
)
def test_boxes_that_do_not_fit_are_refused(boxes, classes, scores, said):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the text is compared below
        box_overlay(CHART, boxes, np.array(classes), NAMES, scores)
    assert said in str(error.value)


# --- rows of panels


def panels(rows, columns, side=40):
    return [[np.full((side, side, 3), 5 * row + column, np.uint8) for column in range(columns)] for row in range(rows)]


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 3, 30])
def test_panels_stand_in_rows_with_their_captions(tmp_path, rows):
    headings = ["image", "truth", "prediction", "comparison"]
    captions = [f"{row}: Dice 0.9 $x^" for row in range(rows)]
    shown = panels(rows, 4)
    with own_style():
        figure = panel_grid(shown, headings, captions, "t", classes=[("cell", (1, 2, 3))])
    (axes,) = figure.axes
    assert len(axes.images) == 4 * min(rows, 24)
    assert [text.get_text() for text in axes.texts] == [*captions[:24], *headings, "t"]
    for place, one in enumerate(axes.images):
        assert (one.get_array() == shown[place // 4][place % 4]).all()
    lefts, rights, bottoms, tops = np.array([one.get_extent() for one in axes.images]).T
    assert (lefts[1:4] > rights[:3]).all()
    assert (tops[4::4] > bottoms[:-4:4]).all()
    np.testing.assert_allclose(rights - lefts, bottoms - tops)  # they are square
    said = [[text.get_text() for text in legend.get_texts()] for legend in figure.legends]
    assert said == [["cell"], [name for name, _ in COMPARISON_LEGEND]]
    save_figure(figure, tmp_path / "f.png", 50)
    assert matplotlib.image.imread(tmp_path / "f.png").std() > 0.05


def test_long_names_and_captions_leave_the_panels_their_size(tmp_path):
    def width(caption, names):
        with own_style():
            figure = panel_grid(panels(2, 3), "abc", [caption, "b"], "t", [(name, (0, 0, 0)) for name in names])
        save_figure(figure, tmp_path / "f.png", 50)
        left, right, _, _ = figure.axes[0].images[0].get_extent()
        return (right - left) / figure.get_figwidth()

    assert width("x" * 500, ["long " * 20] * 12) == pytest.approx(width("a", ["c"]), rel=0.05)


def test_numbers_of_panels_headings_and_captions_are_compared():
    for rows, headings, captions in ((panels(1, 2), "abc", "a"), (panels(2, 3), "abc", "a"), ([], "abc", "")):
        with pytest.raises(ValueError, match="rows: "):
            panel_grid(rows, headings, captions, "t")


def test_planes_of_a_picture_are_its_colours():
    image = np.random.default_rng(0).integers(0, 256, (3, 200, 300), dtype=np.uint8)
    drawn, scale = colour_planes(image)
    assert scale == 1
    np.testing.assert_array_equal(drawn, image.transpose(1, 2, 0))
    assert colour_planes(image[:1], 700)[0].shape == (600, 900, 3)
