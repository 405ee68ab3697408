"""Report, figures, spreadsheet and terminal tell results by subgroups, the rarest classes first, and warnings."""

import json
import re
from dataclasses import replace

import numpy as np
import openpyxl
import pytest

from tests.evaluation.helpers import background_of, evaluation_of, images_of
from tests.evaluation.test_subgroups import made
from tests.reporting.test_page import text_of
from visionforge.cli.result_tables import print_results
from visionforge.data.side_table import SideTable
from visionforge.evaluation.subgrouping import with_subgroups
from visionforge.reporting.figures.forest import drawn_metrics, forest_plot, points_of
from visionforge.reporting.results import write_results
from visionforge.reporting.sections import class_table, rarest_first
from visionforge.reporting.subgroup_sections import p_text, subgroup_sections
from visionforge.runs.workspace import Workspace

ODD = "<i>m</i> $x$"


def with_columns(task="multi-class", count=120, **more):
    rng = np.random.default_rng(3)
    ages = tuple(map(str, rng.integers(20, 90, count)))
    sexes = tuple(rng.choice(["f", ODD, "missing"], count, p=[0.5, 0.45, 0.05]))
    side = SideTable(None, None, {"age": ages, "sex": sexes, "note": tuple(f"n{k}" for k in range(count))})
    return with_subgroups(evaluation_of(task, count=count, **more), side)


def written(folder, evaluation):
    workspace = Workspace(folder)
    content = write_results(workspace, evaluation, images_of(evaluation), {"backbone": "any"}, background_of())
    return workspace, content


@pytest.mark.parametrize(
    "task",
    ["binary", *(pytest.param(name, marks=pytest.mark.slow) for name in ("multi-class", "ordinal", "multi-label"))],
)
def test_every_file_tells_the_subgroups(tmp_path, task):
    evaluation = with_columns(task)
    workspace, content = written(tmp_path, evaluation)
    page = text_of(workspace.report.read_text(encoding="utf-8"))
    for text in ('id="subgroups"', "By age", "By sex", "adjusted for their number (Holm)", "&lt;i&gt;m&lt;/i&gt; $x$"):
        assert text in page
    assert "<i>m</i>" not in page
    assert "note has 120 different values" in page
    assert "images without a value are not compared" in page
    assert {"subgroups_age.png", "subgroups_sex.png"} <= {path.name for path in workspace.figures.iterdir()}
    known = json.loads(workspace.metrics.read_text())["subgroups"]
    assert known == json.loads(json.dumps(content["subgroups"]))
    assert list(known["columns"]) == ["age", "sex"]
    assert list(known["left_out"]) == ["note"]
    assert known["columns"]["age"]["quartiles"]
    book = openpyxl.load_workbook(workspace.summary)
    head, *rows = book["Subgroups"].iter_rows(values_only=True)
    assert head[:4] == ("column", "subgroup", "images", "metric")
    first = evaluation.subgroups.columns[0].subgroups[0]
    name = evaluation.subgroups.metrics[0]
    assert rows[0][6] == pytest.approx(first.estimate.overall[name])
    assert rows[0][7] == pytest.approx(first.estimate.intervals[name][0])
    gaps = list(book["Subgroup gaps"].iter_rows(values_only=True))[1:]
    assert [row[4] for row in gaps] == pytest.approx([gap.value for _, gap in evaluation.subgroups.gaps])


@pytest.mark.slow
def test_without_columns_there_is_no_section_and_no_sheet(tmp_path):
    workspace, content = written(tmp_path, evaluation_of(count=40))
    assert "subgroups" not in content
    assert 'id="subgroups"' not in workspace.report.read_text(encoding="utf-8")
    assert "Subgroups" not in openpyxl.load_workbook(workspace.summary).sheetnames


def test_classes_come_rarest_first_and_absent_ones_last():
    assert rarest_first([30, 0, 4, 9]) == [2, 3, 0, 1]
    for task, ordered in (("multi-class", True), ("ordinal", False)):
        evaluation = evaluation_of(task, count=70, absent=True)
        rows = [row[0].text for row in class_table(evaluation).table.rows]
        names = list(evaluation.spec.classes)
        wanted = [names[k] for k in rarest_first(evaluation.support)] if ordered else names
        assert rows == wanted
    evaluation = with_columns()
    section = subgroup_sections(evaluation)[1]
    ((_, table),) = section.further
    assert [row[0].text for row in table.rows] == [evaluation.spec.classes[k] for k in rarest_first(evaluation.support)]
    each = evaluation.subgroups.columns[0].subgroups
    assert len(table.headings) == 1 + len(each)
    k = rarest_first(evaluation.support)[0]
    assert table.rows[0][1].text == f"{each[0].estimate.per_class['sensitivity'][k]:.3f}"
    assert table.rows[0][1].small.endswith(f"{each[0].cases[k]} cases")


def test_the_figure_has_a_point_and_an_interval_for_each_metric_of_a_subgroup():
    evaluation = with_columns("ordinal")
    assert drawn_metrics(evaluation) == ["auc", "accuracy", "kappa_quadratic"]  # no error in grades
    column = evaluation.subgroups.columns[1]
    plot = forest_plot(column, evaluation)
    labels = plot["layout"]["yaxis"]["ticktext"]
    assert labels[0].startswith("&lt;i>m&lt;/i> $x$<br>")
    assert [label.partition("<br>")[0] for label in labels[1:]] == ["f", "missing"]
    for trace, name in zip(plot["data"], drawn_metrics(evaluation), strict=True):
        points = [p for p in points_of(column, name) if p is not None]
        assert trace["x"] == [round(p.value, 5) for p in points]
        low = [x - below for x, below in zip(trace["x"], trace["error_x"]["arrayminus"], strict=True)]
        assert low == pytest.approx([p.ends[0] if p.ends else p.value for p in points], abs=1e-4)
    places = [y for trace in plot["data"] for y in trace["y"]]
    assert len(set(places)) == len(places)
    json.dumps(plot, allow_nan=False)


def test_warnings_stand_in_terminal_report_and_metrics(tmp_path, capsys):
    evaluation, side = made(1, count=400, noisy=0.6, resamples=400)
    evaluation = with_subgroups(evaluation, side)
    workspace, content = written(tmp_path, replace(evaluation, split="test"))
    (line,) = content["warnings"]
    page = text_of(workspace.report.read_text(encoding="utf-8"))
    assert re.search(r'<p class="partial">By site, [^<]* differs more than chance explains', page)
    print_results(content, workspace, tmp_path / "best.ckpt")
    assert f"! {line}"[:60] in capsys.readouterr().out


def test_small_p_values_are_told_as_such():
    assert [p_text(p) for p in (None, 0.0004, 0.0123, 1.0)] == ["–", "< 0.001", "0.012", "1.000"]
