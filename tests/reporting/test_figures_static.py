"""Figures are written for every task, and their colours mean what they say."""

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import auc, roc_curve

from tests.evaluation.helpers import evaluation_of
from visionforge.reporting.decisions import confusion_matrix, label_matrix
from visionforge.reporting.figures.curves import precision_recall_figure, reliability_figure, roc_figure
from visionforge.reporting.figures.static import (
    Picture,
    map_grid,
    pixels_of,
    sample_grid,
    save_figure,
    save_figures,
    training_curves,
)
from visionforge.reporting.figures.whole_pixels import WholePixels
from visionforge.reporting.results import write_training_curves

ROWS = [
    {"epoch": float(e), "train/loss": 1 / (e + 1), "val/loss": 1.0, "val/auc": 0.5 + e / 10, "lr": 0.1}
    for e in range(4)
]


def test_confusion_matrix_counts():
    figure = confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), ["a", "b", "c"], "t")
    texts = {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in figure.axes[0].texts}
    assert texts == {(0, 0): "1\n50%", (0, 1): "1\n50%", (1, 1): "1\n100%", (2, 0): "1\n100%"}


def test_label_matrix_counts():
    labels, said = np.array([[1, 0], [1, 1], [0, 1]]), np.array([[1, 1], [0, 1], [0, 1]])
    figure = label_matrix(labels, said, ["a", "b"], "t")
    widths = [[bar.get_width() for bar in group] for group in figure.axes[0].containers]
    assert widths == [[1, 2], [1, 0], [0, -1]]


def test_best_epoch_is_the_later_of_equals():
    rows = [*ROWS, {**ROWS[-1], "epoch": 4.0}]
    axes = training_curves(rows, "t").axes[1]
    (best,) = [line for line in axes.lines if line.get_label() == "best"]
    assert list(best.get_xdata()) == [5]


def test_pictures_do_not_follow_the_style_of_their_user(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,train/loss,lr\n0,1.5,0.1\n1,1.0,0.1\n")
    write_training_curves(tmp_path / "metrics.csv", tmp_path / "a.png", "cost in $ and $^", 60)
    style = {"text.usetex": True, "font.size": 30, "savefig.dpi": 10, "savefig.transparent": True}
    with matplotlib.rc_context(style):
        write_training_curves(tmp_path / "metrics.csv", tmp_path / "b.png", "cost in $ and $^", 60)
        assert matplotlib.rcParams["font.size"] == 30, "the user's style is left as it was"
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 9, 40])
def test_sample_grid_marks_mistakes(tmp_path, channels, count):
    images = np.random.default_rng(0).integers(0, 256, (count, channels, 12, 12), dtype=np.uint8)
    pictures = [Picture(image, index, 0, int(index == 0), 0.9) for index, image in enumerate(images)]
    figure = sample_grid(pictures, ["no", "yes"], "t")
    (axes,) = figure.axes
    titles = [text.get_text() for text in axes.texts if text.get_text()[0] in "✓✗"]
    assert titles == ["✗ yes  90%\ntrue: no", *["✓ no  90%"] * (min(count, 24) - 1)]
    assert len(axes.images) == min(count, 24)
    assert [frame.get_linewidth() for frame in axes.patches] == [2.6, *[1.0] * (min(count, 24) - 1)]
    for image, frame in zip(axes.images, axes.patches, strict=True):  # each where its frame is
        left, right, bottom, top = image.get_extent()
        assert frame.get_xy() == (left, top)
        assert (frame.get_width(), frame.get_height()) == pytest.approx((right - left, bottom - top))
    save_figure(figure, tmp_path / "f.png")
    assert matplotlib.image.imread(tmp_path / "f.png").std() > 0.05


@pytest.mark.parametrize(("side", "resampling"), [(12, Image.Resampling.NEAREST), (400, Image.Resampling.LANCZOS)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dpi", [100, 217])
def test_pictures_lie_on_whole_pixels_where_they_should(side, resampling, channels, dpi):
    pixels = np.random.default_rng(1).integers(0, 256, (side, side, channels), dtype=np.uint8)
    figure = Figure(figsize=(3, 2))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, 3), ylim=(2, 0))  # inches from the upper left corner
    WholePixels(axes, pixels, (0.5, 2.0, 1.75, 0.25))
    drawn = pixels_of(figure, dpi)
    left, right = round(0.5 * dpi), round(2 * dpi)
    top, bottom = len(drawn) - round((2 - 0.25) * dpi), len(drawn) - round((2 - 1.75) * dpi)
    picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels).convert("RGB")
    expected = np.full_like(drawn, 255)
    expected[top:bottom, left:right] = picture.resize((right - left, bottom - top), resampling)
    np.testing.assert_allclose(drawn.astype(int), expected, atol=1)


def test_pixels_are_those_that_matplotlib_would_write(tmp_path):
    def figure():
        return training_curves([{"epoch": 0.0, "train/loss": 1.0, "lr": 0.1, "val/auc": 0.5}], "t")

    figure().savefig(tmp_path / "theirs.png", dpi=90)
    save_figures([(figure(), tmp_path / f"{number}.png") for number in range(3)], dpi=90)
    theirs = matplotlib.image.imread(tmp_path / "theirs.png")[..., :3]
    for number in range(3):
        np.testing.assert_array_equal(matplotlib.image.imread(tmp_path / f"{number}.png"), theirs)


def test_figures_that_cannot_be_written_are_an_error(tmp_path):
    (tmp_path / "file").touch()
    curves = training_curves([{"epoch": 0.0, "train/loss": 1.0, "lr": 0.1}], "t")
    with pytest.raises(OSError, match="file"):
        save_figures([(curves, tmp_path / "file" / "f.png"), (curves, tmp_path / "second.png")])
    assert (tmp_path / "second.png").is_file()


def test_training_curves_without_validation(tmp_path):
    save_figure(training_curves([{"epoch": 0.0, "train/loss": 1.0, "lr": 0.1}], "t"), tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 1000


@pytest.mark.parametrize("task", ["binary", "multi-class", "multi-label"])
def test_curves_are_those_of_the_classes(task):
    evaluation = evaluation_of(task)
    lines = [line for line in roc_figure(evaluation, "t").axes[0].lines if "AUC" in line.get_label()]
    assert len(lines) == (1 if task == "binary" else 4)
    truth = evaluation.labels if task == "multi-label" else np.eye(len(evaluation.spec.classes))[evaluation.labels]
    columns = [1] if task == "binary" else range(4)
    for line, k in zip(lines, columns, strict=True):
        false, true, _ = roc_curve(truth[:, k], evaluation.best.probabilities[:, k])
        assert auc(line.get_xdata(), line.get_ydata()) == pytest.approx(auc(false, true))
        assert f"{auc(false, true):.3f}" in line.get_label()
    assert len(precision_recall_figure(evaluation, "t").axes[0].lines) == len(lines)


@pytest.mark.parametrize(("temperature", "curves"), [(None, 1), (2.0, 2)])
def test_reliability_before_and_after(temperature, curves):
    evaluation = evaluation_of("multi-class", count=300, temperature=temperature)
    lines = reliability_figure(evaluation, "t").axes[0].lines[1:]
    assert len(lines) == curves
    shown, right = evaluation.best.probabilities.max(1), evaluation.predicted == evaluation.labels
    inside = (shown > 8 / 15) & (shown <= 9 / 15)
    x, y = lines[0].get_xdata(), lines[0].get_ydata()
    place = np.flatnonzero((x > 8 / 15) & (x <= 9 / 15))[0]
    assert x[place] == pytest.approx(shown[inside].mean())
    assert y[place] == pytest.approx(right[inside].mean())


def test_map_grid_shows_image_and_map():
    image = np.zeros((3, 12, 12), np.uint8)
    pictures = [Picture(image, k, 0, 0, 0.5, np.full((20, 20, 3), (9, 0, 0), np.uint8)) for k in range(9)]
    drawn = [image.get_array().shape for image in map_grid(pictures, ["no"], "t").axes[0].images]
    assert len(drawn) == 18
    assert drawn.count((20, 20, 3)) == 9
