"""Report, figures and spreadsheet of masks: the numbers of each class, and pictures with what is drawn on them."""

import csv
import json
import re

import numpy as np
import openpyxl
import pytest
from PIL import Image

from tests.evaluation.helpers import background_of
from tests.evaluation.test_mask_evaluation import COUNT, SETTINGS, evaluation_of
from tests.tasks.helpers import drawn_masks, mask_spec, noise
from visionforge.config.schema import EvaluationSettings
from visionforge.data.archive import SplitArrays
from visionforge.data.batches import ArrayDataset
from visionforge.data.side_table import SideTable
from visionforge.reporting.drawn_presentation import SHOWN
from visionforge.reporting.mask_presentation import MaskPresentation
from visionforge.reporting.results import write_results
from visionforge.runs.workspace import Workspace

ODD = ("background", "<b>odd</b>", "=1+1")
PAGES = EvaluationSettings(resamples=60, figures=False)


def images_of(evaluation):
    pixels = noise(len(evaluation.labels), *evaluation.labels.shape[1:]).permute(0, 2, 3, 1).numpy()
    return ArrayDataset(SplitArrays(pixels, evaluation.labels), None, in_memory=True)


def results(folder, evaluation, **more):
    workspace = Workspace(folder)
    context = background_of(**more)
    write_results(workspace, evaluation, images_of(evaluation), {"backbone": "any"}, context, None)
    return workspace


def page_of(workspace):
    text = workspace.report.read_text(encoding="utf-8")
    return re.sub(r"<script>.*?</script>|<style>.*?</style>", "", text, flags=re.DOTALL)


def presented(evaluation, **more):
    return MaskPresentation(evaluation, images_of(evaluation), background_of(**more))


def section(evaluation, anchor, **more):
    (found,) = [each for each in presented(evaluation, **more).sections() if each.anchor == anchor]
    return found


def test_the_page_has_its_sections_and_asks_for_nothing(tmp_path):
    evaluation = evaluation_of(settings=PAGES)
    page = page_of(results(tmp_path, evaluation))
    for anchor in ("result", "training", "decisions", "classes", "worst", "samples"):
        assert f'<h2 id="{anchor}">' in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    value = evaluation.best.estimate.overall["mean_dice"]
    assert f"Dice<b>{value:.3f}</b>" in page
    assert "The class background is in no mean over the classes." in page


def test_names_of_classes_and_pictures_are_text(tmp_path):
    side = SideTable(tuple(f"<i>{k}</i>\x1b[31m.png" for k in range(COUNT)), None)
    workspace = results(tmp_path, evaluation_of(mask_spec(classes=ODD), settings=PAGES), side=side)
    page = page_of(workspace)
    assert "<b>odd</b>" not in page
    assert "&lt;b&gt;odd&lt;/b&gt;" in page
    assert "<i>" not in page
    assert "\x1b" not in page
    with workspace.predictions.open(newline="", encoding="utf-8") as file:
        assert [row["name"] for row in csv.DictReader(file)] == list(side.names)


def test_the_lowest_dice_are_shown_first_and_pictures_without_one_not_at_all():
    evaluation = evaluation_of(settings=PAGES)
    found = section(evaluation, "worst")
    dice = evaluation.best.dice
    order = [int(index) for index in np.argsort(dice, kind="stable") if not np.isnan(dice[index])]
    assert len(found.panels) == SHOWN
    captions = [each.caption for each in found.panels]
    assert captions == [f"Dice {dice[index]:.3f}" for index in order[:SHOWN]]
    drawn = section(evaluation, "samples")
    assert len(drawn.panels) == SHOWN
    assert drawn.panels == section(evaluation, "samples").panels


def test_which_pixels_are_taken_for_which():
    evaluation = evaluation_of(settings=PAGES)
    matrix = section(evaluation, "decisions").matrix
    expected = evaluation.confusion
    np.testing.assert_array_equal([[count for count, _ in row] for row in matrix.rows], expected)
    shares = np.array([[share for _, share in row] for row in matrix.rows])
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    many = mask_spec(classes=tuple(f"c{k}" for k in range(21)))
    assert section(evaluation_of(many, settings=PAGES), "decisions").matrix is None


def test_the_background_is_not_drawn_and_has_no_colour():
    for names in (("background", "a", "b"), ("a", "b", "background"), ("a", "b", "c")):
        evaluation = evaluation_of(mask_spec(classes=names), settings=PAGES)
        classes, verdicts = section(evaluation, "worst").legend
        assert [name for name, _ in classes] == [name for name in names if name != "background"]
        assert all(name.startswith("comparison: ") for name, _ in verdicts)
        assert len({colour for _, colour in classes}) == len(classes)
        assert all(re.fullmatch("#[0-9a-f]{6}", colour) for _, colour in [*classes, *verdicts])


@pytest.mark.parametrize("fill", [255, 0])
def test_pictures_of_which_nothing_counts_or_is_there_are_shown(tmp_path, fill):
    truth = drawn_masks(3)
    truth[:2] = fill
    page = page_of(results(tmp_path, evaluation_of(truth=truth, settings=PAGES)))
    assert '<h2 id="samples">' in page


def test_two_classes_and_no_background_to_be_taken_for_another():
    spec = mask_spec(classes=("background", "cell", "nucleus"))
    assert any("Stripes" in note for note in section(evaluation_of(spec, settings=PAGES), "worst").notes)
    two = evaluation_of(mask_spec(classes=("background", "cell", "x")), truth=np.minimum(drawn_masks(4), 1), tta=False)
    assert section(two, "worst").panels


def test_figures(tmp_path):
    settings = EvaluationSettings(resamples=0, report=False, figure_dpi=100)
    workspace = results(tmp_path, evaluation_of(settings=settings))
    assert {path.name for path in workspace.figures.iterdir()} == {"lowest_dice.png", "sample_predictions.png"}
    for path in workspace.figures.iterdir():
        assert np.asarray(Image.open(path).convert("L")).std() > 5
    none = results(tmp_path / "b", evaluation_of(settings=EvaluationSettings(resamples=0, figures=False, report=False)))
    assert not none.figures.exists()
    assert not none.report.exists()
    assert none.predictions.exists()


def test_spreadsheet(tmp_path):
    evaluation = evaluation_of(mask_spec(classes=ODD), settings=PAGES)
    workspace = results(tmp_path, evaluation, side=SideTable(tuple("=n" for _ in range(COUNT)), None))
    book = openpyxl.load_workbook(workspace.summary)
    assert not [c for sheet in book for row in sheet.iter_rows() for c in row if c.data_type == "f"]
    rows = {row[0]: row[1:] for row in book["Summary"].iter_rows(min_row=2, values_only=True)}
    assert rows["Dice"][0] == pytest.approx(evaluation.readings["without_tta"].estimate.overall["mean_dice"])
    heading, *sheet = book["Predictions"].iter_rows(values_only=True)
    assert heading[:4] == ("index", "name", "Dice", "confidence")
    assert len(sheet) == COUNT
    counts = zip(evaluation.best.true, evaluation.best.said, strict=True)
    for row, dice, (true, said) in zip(sheet, evaluation.best.dice, counts, strict=True):
        assert row[2] == (None if np.isnan(dice) else pytest.approx(dice))
        assert list(row[4:]) == [*true, *said]


def test_metrics_json_and_page_say_the_same(tmp_path):
    evaluation = evaluation_of(settings=SETTINGS.model_copy(update={"figures": False}))
    content = json.loads(results(tmp_path, evaluation).metrics.read_text())
    for reading, found in evaluation.readings.items():
        for name, value in found.estimate.overall.items():
            assert content[reading][name] == pytest.approx(value)
    assert content["task"] == "segmentation"
    assert content["background"] == "background"
