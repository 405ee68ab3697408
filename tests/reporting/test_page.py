"""The report holds everything, asks for nothing, and takes no class name for markup; so does the spreadsheet."""

import base64
import csv
import io
import json
import re

import numpy as np
import openpyxl
import pytest
from PIL import Image

from tests.evaluation.helpers import CLASSES, background_of, evaluation_of, images_of
from visionforge.cli.result_tables import print_results
from visionforge.config.schema import EvaluationSettings
from visionforge.data.side_table import SideTable
from visionforge.evaluation.class_names import unique_names
from visionforge.evaluation.evaluation import Partial
from visionforge.evaluation.table_writers import cell_text
from visionforge.reporting.context import changed_settings
from visionforge.reporting.figures.curves import roc_figure
from visionforge.reporting.figures.static import Picture
from visionforge.reporting.page import write_report
from visionforge.reporting.results import write_results
from visionforge.reporting.spreadsheet import write_summary
from visionforge.reporting.thumbnails import data_uri
from visionforge.runs.manifest import Manifest, utc_now
from visionforge.runs.workspace import Workspace

TASKS = ("binary", "multi-class", "ordinal", "multi-label")


PAGES = EvaluationSettings(resamples=60, figures=False)


def results(folder, evaluation, explainer=None, **more):
    workspace = Workspace(folder)
    write_results(workspace, evaluation, images_of(evaluation), {"backbone": "any"}, background_of(**more), explainer)
    return workspace


def presented(evaluation, background=None):
    """What is shown of an evaluation."""
    return evaluation.task.present(evaluation, images_of(evaluation), background or background_of())


def sheet_of(workspace, name):
    return list(openpyxl.load_workbook(workspace.summary)[name].iter_rows(values_only=True))


def text_of(page: str) -> str:
    """Return what a page says without the plotting library and the style sheet."""
    return re.sub(r"<script>.*?</script>|<style>.*?</style>", "", page, flags=re.DOTALL)


@pytest.mark.parametrize("task", TASKS)
def test_report_has_all_sections_and_figures(tmp_path, task):
    workspace = results(tmp_path, evaluation_of(task, settings=PAGES))
    page = text_of(workspace.report.read_text(encoding="utf-8"))
    for anchor in ("result", "training", "decisions", "curves", "calibration", "classes", "mistakes", "uncertain"):
        assert f'<h2 id="{anchor}">' in page
    figures = re.findall(r'data-figure="([^"]+)"', page)
    specs = {name: json.loads(text) for name, text in re.findall(r'json" id="([^"]+)">(.*?)</script>', page)}
    assert set(figures) == set(specs)
    assert len(figures) == 7
    assert all(spec["data"] for spec in specs.values())


def test_report_asks_for_nothing(tmp_path):
    page = results(tmp_path, evaluation_of(settings=PAGES)).report.read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    body = text_of(page)
    assert not re.findall(r'(?:src|href)="(?!data:|#)', body)
    assert "http" not in body.replace("http-equiv", "")


def test_class_names_are_text(tmp_path):
    page = text_of(results(tmp_path, evaluation_of(settings=PAGES)).report.read_text(encoding="utf-8"))
    assert "<b>odd</b>" not in page
    assert "mild &amp; &lt;b&gt;odd&lt;/b&gt;" in page
    assert "a &lt;run&gt;" in page


def test_report_shows_absent_classes_and_what_was_set(tmp_path):
    page = text_of(results(tmp_path, evaluation_of(absent=True, settings=PAGES)).report.read_text(encoding="utf-8"))
    assert "Without a case, so in no average: =1+1." in page
    assert "absent" in page
    assert "data.dataset" in page
    assert "data.batch_size" not in page
    assert changed_settings(background_of()) == {
        "data.dataset": ("bloodmnist", "retinamnist"),
        "seed_everything": (42, 7),
    }


@pytest.mark.parametrize(("images", "told"), [(29, True), (30, False)])
def test_few_validation_images_and_what_an_import_told_are_notes_of_the_result(tmp_path, images, told):
    data = {"images": {"train": 90, "val": images, "test": 40}, "noticed by its import": "<b>two</b> classes are alike"}
    facts = {"run": "r", "mark": "m", "state": "complete", "started": utc_now(), "hash": "h", "dataset": "d"}
    manifest = Manifest(**facts, model="mini_cnn", data=data)
    page = text_of(results(tmp_path, evaluation_of(settings=PAGES), manifest=manifest).report.read_text())
    assert (f"The best epoch was chosen by {images} validation images, which is mostly chance" in page) == told
    assert "When the pictures became a data set: &lt;b&gt;two&lt;/b&gt; classes are alike." in page


def test_perfect_predictions_leave_no_mistakes(tmp_path):
    workspace = results(tmp_path, evaluation_of(perfect=True, temperature=None))
    page = text_of(workspace.report.read_text(encoding="utf-8"))
    assert "every prediction is right" in page
    assert "do not fix a temperature" in page
    assert not (workspace.figures / "mistakes.png").exists()


@pytest.mark.slow
def test_figures_are_pictures_of_the_wanted_resolution(tmp_path):
    settings = EvaluationSettings(resamples=0, figure_dpi=300, report=False)
    coarse = results(tmp_path / "coarse", evaluation_of(settings=settings.model_copy(update={"figure_dpi": 100})))
    fine = results(tmp_path / "fine", evaluation_of(settings=settings))
    names = {path.name for path in fine.figures.iterdir()}
    assert names == {
        "confusion_matrix.png",
        "least_certain.png",
        "mistakes.png",
        "precision_recall.png",
        "reliability.png",
        "risk_coverage.png",
        "roc.png",
        "sample_predictions.png",
    }
    for name in names:
        one, two = (Image.open(workspace.figures / name) for workspace in (coarse, fine))
        assert two.width == pytest.approx(3 * one.width, abs=3)
        assert two.info["dpi"][0] == pytest.approx(300, abs=1)
        assert np.asarray(one.convert("L")).std() > 5
    assert not fine.report.exists()
    assert not fine.summary.exists()


def test_figures_can_be_left_out(tmp_path):
    workspace = results(tmp_path, evaluation_of(settings=EvaluationSettings(resamples=0, figures=False)))
    assert not workspace.figures.exists()
    assert workspace.report.exists()


@pytest.mark.parametrize("count", [0, 5])
def test_explanations_are_of_mistakes_and_of_right_ones(tmp_path, count):
    asked = []

    def explainer(images):
        asked.append(images)
        return [np.full((32, 32, 3), 200, np.uint8) for _ in images], "by a test"

    workspace = results(
        tmp_path, evaluation_of(settings=EvaluationSettings(resamples=0, explanations=count)), explainer
    )
    page = text_of(workspace.report.read_text(encoding="utf-8"))
    assert ("Where the network looked" in page) == (count > 0)
    assert (workspace.figures / "explanations.png").exists() == (count > 0)
    if count:
        assert [images.shape for images in asked] == [(5, 3, 12, 12)]
        assert page.count('class="twin"') == 5
    else:
        assert not asked


def test_pictures_are_inside():
    pixels = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    uri = data_uri(pixels)
    held = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    np.testing.assert_array_equal(held, pixels)
    assert Image.open(
        io.BytesIO(base64.b64decode(data_uri(np.zeros((300, 300, 1), np.uint8)).partition(",")[2]))
    ).size == (
        128,
        128,
    )


@pytest.mark.parametrize("task", TASKS)
def test_spreadsheet(tmp_path, task):
    evaluation = evaluation_of(task, absent=task == "multi-class")
    write_summary(tmp_path / "summary.xlsx", evaluation, presented(evaluation))
    book = openpyxl.load_workbook(tmp_path / "summary.xlsx")
    assert book.sheetnames == ["Summary", "Per class", "Epochs", "Predictions", "Configuration", "Environment"]
    for sheet in book:
        assert sheet.freeze_panes == "B2"
        assert sheet["A1"].font.bold
        assert sheet.auto_filter.ref
    rows = {row[0]: row[1:] for row in book["Summary"].iter_rows(min_row=2, values_only=True)}
    plain = evaluation.readings["without_tta"].estimate
    assert rows["AUC"][0] == pytest.approx(plain.overall["auc"])
    assert rows["AUC"][1:3] == pytest.approx(plain.intervals["auc"])
    assert rows["images"][0] == 60
    predictions = list(book["Predictions"].iter_rows(min_row=2, values_only=True))
    assert len(predictions) == 60
    assert isinstance(predictions[0][-1], float)
    shown = evaluation.best.calibrated
    np.testing.assert_allclose([row[4:] for row in predictions], shown, atol=1e-7)
    formulas = [c for sheet in book for row in sheet.iter_rows() for c in row if c.data_type == "f"]
    assert not formulas  # a class may be called =1+1
    configuration = {row[0].value: row for row in book["Configuration"].iter_rows(min_row=2)}
    assert configuration["seed_everything"][1].value == 7
    assert configuration["seed_everything"][1].fill.fgColor.rgb.endswith("FFF3CD")
    assert configuration["data.batch_size"][1].fill.fill_type is None
    assert rows["data set"][0] == "Any"
    if task == "multi-class":
        absent = [row for row in book["Per class"].iter_rows(min_row=2, values_only=True) if row[1] == 0]
        assert len(absent) == 1
        assert absent[0][2] == "absent"
    assert [row[0].value for row in book["Epochs"].iter_rows(min_row=2)] == [1, 2, 3, 4]


def test_the_spreadsheet_can_be_read(tmp_path):
    """Long headings are broken, long texts widen no column of numbers, and settings are as they were written."""
    evaluation = evaluation_of()
    write_summary(tmp_path / "summary.xlsx", evaluation, presented(evaluation))
    book = openpyxl.load_workbook(tmp_path / "summary.xlsx")
    summary, classes, configuration = (book[name] for name in ("Summary", "Per class", "Configuration"))
    assert all(summary.column_dimensions[letter].width < 20 for letter in "BCDEFG")
    assert max(len(row[1]) for row in summary.iter_rows(values_only=True) if isinstance(row[1], str)) <= 90
    widest = max(range(1, classes.max_column + 1), key=lambda column: len(str(classes.cell(1, column).value)))
    assert classes.cell(1, widest).value == "average precision, image alone, from"
    letter = openpyxl.utils.get_column_letter(widest)
    assert len("average precision,") < classes.column_dimensions[letter].width < 25
    assert classes.row_dimensions[1].height == 45
    values = {row[0].value: row[1] for row in configuration.iter_rows(min_row=2)}
    rate, report = values["model.optimizer.learning_rate"], values["evaluation.report"]
    assert (rate.value, rate.number_format) == (0.008, "General")
    assert (report.value, report.data_type, "TRUE" in report.number_format) == (True, "b", True)
    assert all(sheet.print_title_rows == "$1:$1" for sheet in book)


def test_numbers_of_two_classes_are_named_after_the_positive_one(tmp_path):
    evaluation = evaluation_of("binary", positive=0, settings=PAGES)
    workspace = results(tmp_path, evaluation)
    content = json.loads(workspace.metrics.read_text())
    assert content["positive"] == "healthy"
    for name in ("sensitivity", "specificity", "average_precision"):
        assert content["with_tta"][name] == content["per_class"]["with_tta"]["healthy"][name]
    page = text_of(workspace.report.read_text(encoding="utf-8"))
    value = f"{content['with_tta']['sensitivity']:.3f}"
    assert f'<div class="card">sensitivity of healthy<b>{value}</b>' in page
    assert "The positive class is healthy." in page
    assert '"text":"precision of healthy"' in page
    rows = {row[0]: row[1] for row in sheet_of(workspace, "Summary")}
    assert rows["sensitivity of healthy"] == pytest.approx(content["without_tta"]["sensitivity"])
    assert rows["positive class"] == "healthy"
    axes = roc_figure(evaluation, "t").axes[0]
    assert axes.get_ylabel() == "true-positive rate (sensitivity of healthy)"
    assert "healthy" in axes.get_legend().get_texts()[0].get_text()


def test_a_partial_evaluation_says_so_everywhere(tmp_path, capsys):
    partial = Partial(40, 100, "trainer.limit_test_batches 0.4")
    workspace = results(tmp_path, evaluation_of(count=40, partial=partial, settings=PAGES))
    said = "40 of 100 images only (trainer.limit_test_batches 0.4)"
    content = json.loads(workspace.metrics.read_text())
    assert content["partial"] == {"images": 40, "of": 100, "reason": "trainer.limit_test_batches 0.4"}
    assert f"Partial: {said}." in text_of(workspace.report.read_text(encoding="utf-8"))
    assert ("partial evaluation", said) in [row[:2] for row in sheet_of(workspace, "Summary")]
    print_results(content, workspace, tmp_path / "best.ckpt")
    assert f"partial: {said}" in capsys.readouterr().out
    assert json.loads(results(tmp_path / "b", evaluation_of(settings=PAGES)).metrics.read_text())["partial"] is None


def test_without_a_mistake_intervals_are_open_or_the_cases_too_few(tmp_path, capsys):
    workspace = results(tmp_path, evaluation_of("binary", perfect=True, settings=PAGES))
    content = json.loads(workspace.metrics.read_text())
    low, high = content["intervals"]["with_tta"]["accuracy"]
    assert 0.8 < low < high == 1
    assert content["per_class"]["with_tta"]["healthy"]["intervals"]["f1"][0] < 1
    assert content["intervals"]["with_tta"]["brier"] is None
    assert content["intervals"]["methods"]["accuracy"] == "share"
    page = text_of(workspace.report.read_text(encoding="utf-8"))
    assert "1.000 to 1.000" not in page
    assert page.count("too few cases: they do not tell how far off the value may be.") == 1
    assert "How they were made: accuracy, sensitivity, specificity: Clopper–Pearson;" in page
    rows = {row[0]: row for row in sheet_of(workspace, "Summary")}
    assert rows["accuracy"][1:4] == (1, pytest.approx(low), 1)
    assert rows["Brier score"][2:4] == ("too few cases", "too few cases")
    assert rows["too few cases"][1] == "they do not tell how far off the value may be"
    assert rows["methods of the intervals"][1].startswith("accuracy, ")
    assert rows["calibration error (ECE)"][2] is None
    print_results(content, workspace, tmp_path / "best.ckpt")
    output = capsys.readouterr().out
    assert "1.000 to 1.000" not in output


def test_names_of_pictures_are_shown_as_text(tmp_path):
    names = tuple(f"a/<i>{k}</i>\x1b[31m/{'x' * 60}{k}.png" for k in range(60))
    side = SideTable(names, tuple("=patient" for _ in names))
    workspace = results(tmp_path, evaluation_of(settings=PAGES), side=side)
    page = text_of(workspace.report.read_text(encoding="utf-8"))
    assert "<i>" not in page
    assert "\x1b" not in page
    assert "&lt;i&gt;" in page
    with workspace.predictions.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(names)
    assert {row["group"] for row in rows} == {"'=patient"}
    heading, first = sheet_of(workspace, "Predictions")[:2]
    assert heading[:6] == ("index", "name", "group", "truth", "prediction", "right")
    assert first[2] == "'=patient"
    picture = Picture(np.zeros((3, 4, 4), np.uint8), 7, 0, 0, 0.5, name=names[3])
    assert picture.short_name == f"{'x' * 11}…{'x' * 5}3.png"
    assert Picture(np.zeros((3, 4, 4), np.uint8), 7, 0, 0, 0.5).short_name == "№ 7"


@pytest.mark.parametrize("task", TASKS)
def test_tables_say_the_same_of_every_image(tmp_path, task):
    evaluation = evaluation_of(task, settings=PAGES)
    workspace = results(tmp_path, evaluation)
    with workspace.predictions.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    heading, *sheet = sheet_of(workspace, "Predictions")
    names = unique_names(evaluation.spec)
    for k, name in enumerate(names):
        column = [float(row[f"probability_{name}"]) for row in rows]
        np.testing.assert_allclose(column, evaluation.best.calibrated[:, k], rtol=1e-7)
        np.testing.assert_allclose(column, [row[heading.index(f"probability_{name}")] for row in sheet], rtol=1e-7)
        raw = [[float(row[f"{kind}_{name}"]) for row in rows] for kind in ("raw_probability", "raw_tta_probability")]
        for found, reading in zip(raw, ("without_tta", "with_tta"), strict=True):
            np.testing.assert_allclose(found, evaluation.readings[reading].probabilities[:, k], rtol=1e-7)
    for column in ("truth", "prediction"):
        assert [row[column] for row in rows] == [row[heading.index(column)] or "" for row in sheet]
    if task == "multi-label":
        said = [cell_text(row["prediction"]).split("|") for row in rows]
        above = [[name for name in names if float(row[f"raw_tta_probability_{name}"]) > 0.3] or [""] for row in rows]
        assert said == above


def test_report_of_a_checkpoint_without_a_run(tmp_path):
    background = background_of()
    evaluation = evaluation_of(count=30)
    write_report(tmp_path / "r.html", evaluation, presented(evaluation, background))
    assert "lies in no run folder" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert len(CLASSES) == 4
