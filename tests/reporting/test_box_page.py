"""Report, figures and spreadsheet of boxes: the numbers of each class, and pictures with what is drawn on them."""

import json
import re

import numpy as np
import openpyxl
import pytest
from PIL import Image

from tests.evaluation.helpers import background_of
from tests.evaluation.test_box_evaluation import COUNT, SETTINGS, evaluation_of
from tests.tasks.helpers import box_spec, noise
from visionforge.config.schema import EvaluationSettings
from visionforge.data.archive import SplitArrays
from visionforge.data.batches import ArrayDataset
from visionforge.data.side_table import SideTable
from visionforge.reporting.box_presentation import DRAWINGS, BoxPresentation
from visionforge.reporting.drawn_presentation import SHOWN
from visionforge.reporting.results import write_results
from visionforge.runs.workspace import Workspace

PAGES = EvaluationSettings(resamples=60, figures=False)


def images_of(evaluation):
    pixels = noise(len(evaluation.labels), 32, 32).permute(0, 2, 3, 1).numpy()
    return ArrayDataset(SplitArrays(pixels, evaluation.labels), None, in_memory=True)


def results(folder, evaluation, **more):
    workspace = Workspace(folder)
    write_results(workspace, evaluation, images_of(evaluation), {"backbone": "any"}, background_of(**more), None)
    return workspace


def page_of(workspace):
    text = workspace.report.read_text(encoding="utf-8")
    return re.sub(r"<script>.*?</script>|<style>.*?</style>", "", text, flags=re.DOTALL)


def section(evaluation, anchor, **more):
    shown = BoxPresentation(evaluation, images_of(evaluation), background_of(**more))
    (found,) = [each for each in shown.sections() if each.anchor == anchor]
    return found


@pytest.mark.slow
def test_the_page_has_its_sections_and_asks_for_nothing(tmp_path):
    evaluation = evaluation_of(settings=PAGES)
    page = page_of(results(tmp_path, evaluation))
    for anchor in ("result", "training", "classes", "worst", "samples"):
        assert f'<h2 id="{anchor}">' in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert f"mAP<b>{evaluation.best.estimate.overall['map']:.3f}</b>" in page
    for heading in ("AP", "AP at IoU 0.5", "precision", "recall", "F1"):
        assert heading in page
    assert len(re.findall('<div class="drawings three">', page)) == 2 * SHOWN  # three fill the width of their row


def test_names_of_classes_and_pictures_are_text(tmp_path):
    side = SideTable(tuple(f"<i>{k}</i>\x1b[31m.png" for k in range(COUNT)), None)
    page = page_of(results(tmp_path, evaluation_of(box_spec(classes=("<b>odd</b>", "=1")), settings=PAGES), side=side))
    assert "<b>odd</b>" not in page
    assert "&lt;b&gt;odd&lt;/b&gt;" in page
    assert "<i>" not in page
    assert "\x1b" not in page


@pytest.mark.slow
def test_the_lowest_f1_are_shown_first_and_pictures_without_one_not_at_all():
    evaluation = evaluation_of(settings=PAGES)
    found, f1 = section(evaluation, "worst"), evaluation.best.cases.f1
    order = [int(index) for index in np.argsort(f1, kind="stable") if not np.isnan(f1[index])]
    assert [each.caption for each in found.panels] == [f"F1 {f1[index]:.3f}" for index in order[:SHOWN]]
    assert [heading for heading, _ in found.panels[0].drawings] == list(DRAWINGS)
    drawn = section(evaluation, "samples")
    assert len(drawn.panels) == SHOWN
    assert drawn.panels == section(evaluation, "samples").panels
    assert "nothing to find" in {each.caption for each in drawn.panels} or 0 not in {p.index for p in drawn.panels}
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for row in found.legend for _, colour in row)


def test_figures(tmp_path):
    settings = EvaluationSettings(resamples=0, report=False, figure_dpi=100)
    workspace = results(tmp_path, evaluation_of(settings=settings))
    assert {path.name for path in workspace.figures.iterdir()} == {"lowest_f1.png", "sample_predictions.png"}
    for path in workspace.figures.iterdir():
        assert np.asarray(Image.open(path).convert("L")).std() > 5


@pytest.mark.slow
def test_nothing_is_found_in_any_picture(tmp_path):
    nothing = np.zeros((COUNT, 3, 6), np.float32)
    nothing[..., 0] = -1
    workspace = results(tmp_path, evaluation_of(said=nothing, settings=PAGES))
    assert '<h2 id="worst">' in page_of(workspace)
    assert workspace.predictions.read_text().count("\n") == 1


def test_spreadsheet(tmp_path):
    evaluation = evaluation_of(box_spec(classes=("=1+1", "b")), settings=PAGES)
    book = openpyxl.load_workbook(results(tmp_path, evaluation).summary)
    assert not [c for sheet in book for row in sheet.iter_rows() for c in row if c.data_type == "f"]
    rows = {row[0]: row[1:] for row in book["Summary"].iter_rows(min_row=2, values_only=True)}
    assert rows["mAP"][0] == pytest.approx(evaluation.readings["without_tta"].estimate.overall["map"])
    heading, *sheet = book["Predictions"].iter_rows(values_only=True)
    assert heading == ("index", "class", "score", "x1", "y1", "x2", "y2", "matched")
    assert len(sheet) == int((evaluation.best.cases.predicted[..., 0] >= 0).sum())


def test_metrics_json_says_the_same(tmp_path):
    evaluation = evaluation_of(settings=SETTINGS.model_copy(update={"figures": False}))
    content = json.loads(results(tmp_path, evaluation).metrics.read_text())
    for reading, found in evaluation.readings.items():
        for name, value in found.estimate.overall.items():
            assert content[reading][name] == pytest.approx(value)
    assert content["task"] == "detection"
