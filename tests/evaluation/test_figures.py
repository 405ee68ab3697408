"""Figures are written for every task, and their colours mean what they say."""

import matplotlib.image
import numpy as np
import pytest

from visionforge.evaluation.figures import confusion_matrix, label_matrix, sample_grid, save_figure, training_curves

ROWS = [
    {"epoch": float(e), "train/loss": 1 / (e + 1), "val/loss": 1.0, "val/auc": 0.5 + e / 10, "lr": 0.1}
    for e in range(4)
]


def test_confusion_matrix_counts():
    figure = confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), ["a", "b", "c"], "t")
    texts = {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in figure.axes[0].texts}
    assert texts == {(0, 0): "1", (0, 1): "1", (1, 1): "1", (2, 0): "1"}


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


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 9, 40])
def test_sample_grid_marks_mistakes(tmp_path, channels, count):
    images = np.random.default_rng(0).integers(0, 256, (count, channels, 12, 12), dtype=np.uint8)
    labels = np.zeros(count, dtype=int)
    figure = sample_grid(images, labels, labels + (np.arange(count) == 0), np.full(count, 0.9), ["no", "yes"], "t")
    titles = [axes.get_title(loc="left") for axes in figure.axes][: min(count, 24)]
    assert titles[0] == "✗ yes  90%\ntrue: no"
    assert set(titles[1:]) <= {"✓ no  90%"}
    save_figure(figure, tmp_path / "f.png")
    assert matplotlib.image.imread(tmp_path / "f.png").std() > 0.05


def test_training_curves_without_validation(tmp_path):
    save_figure(training_curves([{"epoch": 0.0, "train/loss": 1.0, "lr": 0.1}], "t"), tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 1000
