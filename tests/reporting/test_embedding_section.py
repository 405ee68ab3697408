"""The map shows each image once in the colour of its label, rings the mistakes, and finds the images they are like."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from tests.conftest import flags
from tests.evaluation.helpers import background_of, evaluation_of, images_of
from visionforge.cli.main import main
from visionforge.config.schema import EvaluationSettings
from visionforge.data.archive import SplitArrays
from visionforge.data.batches import ArrayDataset
from visionforge.evaluation import embedding_map
from visionforge.evaluation.embedding_map import Embedded, Features
from visionforge.reporting.figures.static import own_style, save_figure

TASKS = ("binary", "multi-class", "ordinal", "multi-label")
SETTINGS = EvaluationSettings(resamples=0, explanations=0)


def features_of(images):
    return np.asarray(images, np.float32).reshape(len(images), -1)[:, :20] + 1


def embedded(evaluation, positions=None, reference=None):
    images = images_of(evaluation)
    places = np.arange(len(evaluation.labels)) if positions is None else np.asarray(positions)
    mine = Features("test", features_of(images.images.numpy())[places], places, images)
    return Embedded(mine, len(evaluation.labels), reference or mine, "pca", features_of)


def view_of(evaluation, **more):
    background = replace(background_of(), embedding=embedded(evaluation, **more))
    return evaluation.task.present(evaluation, images_of(evaluation), background)._map


@pytest.mark.parametrize("task", TASKS)
def test_every_image_is_drawn_once_and_mistakes_have_a_ring(task, tmp_path):
    evaluation = evaluation_of(task, settings=SETTINGS)
    view = view_of(evaluation)
    (plot,) = view.section().plots
    *groups, rings = plot["data"]
    assert sum(len(each["x"]) for each in groups) == len(evaluation.labels)
    wrong = evaluation.predicted != evaluation.labels
    wrong = wrong if wrong.ndim == 1 else wrong.any(axis=1)
    assert rings["name"] == "mistake"
    assert len(rings["x"]) == wrong.sum()
    assert len({(each["marker"]["color"], each["marker"]["symbol"]) for each in groups}) == len(groups)
    assert not re.search("<b>odd", json.dumps(plot))
    with own_style():
        for name, figure in view.figures("a title").items():
            save_figure(figure, tmp_path / f"{name}.png", 60)
    assert {path.name for path in tmp_path.iterdir()} == {"embedding.png", "neighbours.png"}


def test_images_of_several_labels_have_groups_of_their_own():
    evaluation = evaluation_of("multi-label", settings=SETTINGS)
    data = view_of(evaluation).section().plots[0]["data"]
    count = evaluation.labels.sum(axis=1)
    sizes = {each["name"]: len(each["x"]) for each in data}
    assert (sizes["none"], sizes["several"]) == ((count == 0).sum(), (count > 1).sum())


def test_neighbours_are_the_nearest_of_the_reference_and_not_the_image_itself():
    evaluation = evaluation_of(settings=SETTINGS)
    images = images_of(evaluation).images.numpy()
    for view in (view_of(evaluation), view_of(evaluation, positions=[3, 5, 8, 13, 21, 34, 55])):
        reference = view.embedded.reference
        for picture, near in view.strips:
            unit = features_of(images) / np.linalg.norm(features_of(images), axis=1, keepdims=True)
            cosines = unit[reference.positions] @ unit[picture.index]
            cosines[reference.positions == picture.index] = -1
            expected = reference.positions[np.argsort(-cosines, kind="stable")[:5]]
            assert [each.label for each in near] == evaluation.labels[expected].tolist()
            np.testing.assert_array_equal(np.stack([each.image for each in near]), images[expected])
    assert "of 7 images of the test split" in view.section().notes[1]
    assert "7 of the 60 images, drawn at random" in view.section().notes[0]


def test_training_images_are_the_reference_where_they_were_looked_at():
    evaluation = evaluation_of(settings=SETTINGS)
    pixels = np.random.default_rng(5).integers(0, 256, (4, 12, 12, 3), dtype=np.uint8)
    train = ArrayDataset(SplitArrays(pixels, np.array([0, 1, 2, 3])))
    places = np.array([0, 2, 3])
    reference = Features("train", features_of(train.images.numpy())[places], places, train)
    view = view_of(evaluation, reference=reference)
    assert "of 3 training images" in view.section().notes[1]
    assert {each.label for _, near in view.strips for each in near} == {0, 2, 3}
    panel = view.section().panels[0]
    assert len(panel.drawings) == 4
    assert panel.drawings[0][0] == "mistake"


def test_without_mistakes_there_is_a_map_alone():
    view = view_of(evaluation_of(perfect=True, settings=SETTINGS))
    assert set(view.figures("t")) == {"embedding"}
    assert not view.section().panels
    assert "mistake" not in [each["name"] for each in view.section().plots[0]["data"]]


def section_of(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    return 'id="embedding"' in page, page


def test_a_run_has_a_map_with_neighbours_among_its_training_images(quick_run):
    there, page = section_of(quick_run)
    assert there
    assert "Features of the 32 images" in page
    assert "training images" in page  # the score of images that are far out has looked at some
    assert (quick_run / "figures" / "embedding.png").is_file()


@pytest.mark.slow
def test_setting_decides_whether_a_run_has_a_map(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_map, "MOST_IMAGES", 10)
    shown = ["--evaluation.report", "true", "--evaluation.figures", "true", "--trainer.accelerator", "cpu"]
    more = ["--trainer.max_epochs", "1", "--trainer.default_root_dir", "made", "--evaluation.resamples", "0"]
    for method in ("pca", "none"):
        command = ["fit", *flags(), *shown, *more, "--evaluation.embedding", method, "--resume", "never"]
        assert main(command) == 0
    none, some = sorted(tmp_path.glob("made/2*"), key=lambda path: (path / "figures" / "embedding.png").is_file())
    assert not section_of(none)[0]
    there, page = section_of(some)
    assert there
    assert "10 of the 32 images, drawn at random" in page


def test_a_network_of_pixels_is_asked_for_no_map(refuse):
    command = ["fit", *flags(data__synthetic__task="segmentation", data__resolution="32")]
    lines = refuse(*command, "--evaluation.embedding", "pca")
    assert any(line.startswith("evaluation.embedding: pca would be ignored") for line in lines)
